//! Small matrix products inside one thread, for attention.

/// `c = a b`, or `c += a b`, with `a[i, l]` at `i * a_stride.0 + l * a_stride.1`; `b` and `c` have dense rows of
/// `b_stride` and `c_stride` elements. `shape` is (rows of c, columns of c, terms).
pub(crate) fn tile_mm(
    shape: (usize, usize, usize),
    (a, a_stride): (&[f32], (usize, usize)),
    (b, b_stride): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    let (m, n, k) = shape;
    let mut j = 0;
    while j < n {
        let width = match n - j {
            16.. => 16,
            8.. => 8,
            _ => 1,
        };
        let mut i = 0;
        while i < m {
            let rows = if m - i >= 4 { 4 } else { 1 };
            let a = (&a[i * a_stride.0..], a_stride);
            let b = (&b[j..], b_stride);
            let c = (&mut c[i * c_stride + j..], c_stride);
            match (rows, width) {
                (4, 16) => block::<4, 16>(k, a, b, c, accumulate),
                (4, 8) => block::<4, 8>(k, a, b, c, accumulate),
                (4, _) => block::<4, 1>(k, a, b, c, accumulate),
                (_, 16) => block::<1, 16>(k, a, b, c, accumulate),
                (_, 8) => block::<1, 8>(k, a, b, c, accumulate),
                _ => block::<1, 1>(k, a, b, c, accumulate),
            }
            i += rows;
        }
        j += width;
    }
}

#[inline]
fn block<const R: usize, const W: usize>(
    k: usize,
    (a, a_stride): (&[f32], (usize, usize)),
    (b, b_stride): (&[f32], usize),
    (c, c_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    let mut sums = [[0.0_f32; W]; R];
    for l in 0..k {
        let row: &[f32; W] = b[l * b_stride..][..W].try_into().expect("W elements");
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = a[r * a_stride.0 + l * a_stride.1];
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum = factor.mul_add(*value, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let out = &mut c[r * c_stride..][..W];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if accumulate { *out + sum } else { *sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(m: usize, n: usize, k: usize) {
        let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
        let mut c = vec![1.0; m * n];
        tile_mm((m, n, k), (&a, (k, 1)), (&b, n), (&mut c, n), true);
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                assert_eq!(c[i * n + j], 1.0 + sum);
            }
        }
    }

    #[test]
    fn every_edge() {
        for m in [1, 3, 4, 9] {
            for n in [1, 7, 8, 16, 27] {
                check(m, n, 5);
            }
        }
    }
}
