//! General matrix products of training, by the `gemm` crate.

use gemm::Parallelism;

use super::MIN_PARALLEL;

/// A view of a slice as a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = scale * a b`, or `out += scale * a b`; `out` holds `a.rows` rows of `b.columns`.
#[expect(unsafe_code, reason = "the gemm crate takes pointers")]
pub(crate) fn gemm(out: &mut [f32], a: Matrix, b: Matrix, scale: f32, accumulate: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows);
    assert_eq!(out.len(), m * n);
    assert_eq!(a.data.len(), m * k);
    assert_eq!(b.data.len(), k * n);
    if m == 0 || n == 0 {
        return;
    }
    let parallelism =
        if m * n * k < MIN_PARALLEL { Parallelism::None } else { Parallelism::Rayon(0) };
    // SAFETY: the strides of a `Matrix` are those of a dense matrix or its transpose, so with the lengths
    // checked above every element addressed lies inside its slice; `out` is borrowed mutably, so it
    // overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]; // 3 x 2
        let mut out = [100.0; 4];
        gemm(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), 2.0, false);
        assert_eq!(out, [8.0, 10.0, 20.0, 22.0]);
        gemm(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), 1.0, true);
        assert_eq!(out, [12.0, 15.0, 30.0, 33.0]);
        let mut square = [0.0; 4];
        gemm(&mut square, Matrix::new(&b, 3, 2).t(), Matrix::new(&b, 3, 2), 1.0, false);
        assert_eq!(square, [2.0, 1.0, 1.0, 2.0]);
    }
}
