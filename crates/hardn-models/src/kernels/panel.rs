//! The loops over registers: a few rows times panels of 32 columns.

/// Columns of a panel.
pub(super) const WIDTH: usize = 32;
/// Most rows of a block; with twice as many sums the compiler no longer keeps all of them in registers.
pub(super) const MAX_ROWS: usize = 8;

/// Up to 8 rows of the left factor: element `l` of row `r` lies at `r * row_stride + l * step`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) count: usize,
    pub(super) row_stride: usize,
    pub(super) step: usize,
}

impl<'a> Rows<'a> {
    /// Rows one after the other.
    pub(super) fn dense(data: &'a [f32], count: usize, k: usize) -> Self {
        Self { data, count, row_stride: k, step: 1 }
    }
}

/// `out[r, 0..valid]`, in rows of `stride`, for all rows and the columns of `n_panels` panels `[k][32]`.
///
/// With `accumulate` the chains start from what `out` holds, else from zero. `n_panels` is 1, or 4 for one
/// row, or 2 for two; only a single panel may be incomplete.
#[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
pub(super) fn block(
    k: usize,
    rows: Rows,
    (panels, n_panels): (&[f32], usize),
    (out, stride): (&mut [f32], usize),
    valid: usize,
    accumulate: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        let full = valid == n_panels * WIDTH || valid == WIDTH / 2;
        let vectors = valid.div_ceil(16);
        assert!(k > 0 && panels.len() >= n_panels * k * WIDTH);
        let last = (rows.count - 1) * rows.row_stride + (k - 1) * rows.step;
        assert!(rows.data.len() > last);
        let mut edge = [0.0; MAX_ROWS * WIDTH];
        if !full && accumulate {
            for r in 0..rows.count {
                edge[r * WIDTH..][..valid].copy_from_slice(&out[r * stride..][..valid]);
            }
        }
        let (to, to_stride) = if full { (&mut *out, stride) } else { (&mut edge[..], WIDTH) };
        assert!(to.len() >= (rows.count - 1) * to_stride + vectors * 16);
        macro_rules! dispatch {
            ($($rows:literal x $vectors:literal),*) => {
                match (rows.count, vectors) {
                    $(($rows, $vectors) => avx512::block::<$rows, $vectors>(
                        k, rows, panels, to, to_stride, accumulate,
                    ),)*
                    (count, _) => unreachable!("no block of {count} rows and {vectors} vectors"),
                }
            };
        }
        // SAFETY: the processor has the instructions, and the lengths are checked above.
        unsafe {
            dispatch!(
                1 x 1, 2 x 1, 3 x 1, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 1 x 2, 2 x 2, 3 x 2, 4 x 2,
                5 x 2, 6 x 2, 7 x 2, 8 x 2, 2 x 4, 1 x 8
            );
        }
        if !full {
            for r in 0..rows.count {
                out[r * stride..][..valid].copy_from_slice(&edge[r * WIDTH..][..valid]);
            }
        }
        return;
    }
    portable(k, rows, (panels, n_panels), (out, stride), valid, accumulate);
}

/// The same for any processor; written so that compilers use the vectors they are allowed.
pub(super) fn portable(
    k: usize,
    rows: Rows,
    (panels, n_panels): (&[f32], usize),
    (out, stride): (&mut [f32], usize),
    valid: usize,
    accumulate: bool,
) {
    for half in 0..n_panels * 2 {
        let first = half * (WIDTH / 2);
        if first >= valid {
            break;
        }
        let columns = (WIDTH / 2).min(valid - first);
        let panel = &panels[half / 2 * k * WIDTH + half % 2 * (WIDTH / 2)..];
        let mut row = 0;
        while row < rows.count {
            let part = Rows { data: &rows.data[row * rows.row_stride..], ..rows };
            let out = &mut out[row * stride + first..];
            row += match rows.count - row {
                1 => half_panel::<1>(k, part, panel, (out, stride), columns, accumulate),
                2 => half_panel::<2>(k, part, panel, (out, stride), columns, accumulate),
                3 => half_panel::<3>(k, part, panel, (out, stride), columns, accumulate),
                4 => half_panel::<4>(k, part, panel, (out, stride), columns, accumulate),
                5 => half_panel::<5>(k, part, panel, (out, stride), columns, accumulate),
                _ => half_panel::<6>(k, part, panel, (out, stride), columns, accumulate),
            };
        }
    }
}

fn half_panel<const R: usize>(
    k: usize,
    rows: Rows,
    panel: &[f32],
    (out, stride): (&mut [f32], usize),
    columns: usize,
    accumulate: bool,
) -> usize {
    let mut sums = [[0.0_f32; WIDTH / 2]; R];
    if accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            sums[..columns].copy_from_slice(&out[r * stride..][..columns]);
        }
    }
    for (l, weights) in panel.chunks(WIDTH).take(k).enumerate() {
        let weights: &[f32; WIDTH / 2] = weights[..WIDTH / 2].try_into().expect("half a panel");
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = rows.data[r * rows.row_stride + l * rows.step];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = factor.mul_add(*weight, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        out[r * stride..][..columns].copy_from_slice(&sums[..columns]);
    }
    R
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::{Rows, WIDTH};

    /// `R` rows by `V` vectors of 16 columns, two to a panel.
    ///
    /// # Safety
    /// The processor has AVX-512; `rows` reaches element `k - 1` of row `R - 1`, `panels` holds the panels
    /// of `V` vectors, and `out` reaches `(R - 1) * stride + V * 16`.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn block<const R: usize, const V: usize>(
        k: usize,
        rows: Rows,
        panels: &[f32],
        out: &mut [f32],
        stride: usize,
        accumulate: bool,
    ) {
        let (mut weights, out) = (panels.as_ptr(), out.as_mut_ptr());
        // A pointer for every third row: an address holds one stride or two of them for nothing, and eight
        // pointers would not fit the registers.
        let mut x: [*const f32; 3] =
            std::array::from_fn(|i| rows.data.as_ptr().wrapping_add(3 * i * rows.row_stride));
        let mut sums: [[__m512; V]; R] = [[_mm512_setzero_ps(); V]; R];
        if accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: vector `v` of row `r` lies inside `out`.
                    *sum = unsafe { _mm512_loadu_ps(out.add(r * stride + v * 16)) };
                }
            }
        }
        for _ in 0..k {
            // SAFETY: row `l` of every panel lies inside `panels`, and element `l` of every row inside `rows`;
            // pointers past the last row or element are moved but not read.
            unsafe {
                let mut vectors = [_mm512_setzero_ps(); V];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = _mm512_loadu_ps(weights.add(v / 2 * k * WIDTH + v % 2 * 16));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*x[r / 3].add(r % 3 * rows.row_stride));
                    for (sum, vector) in sums.iter_mut().zip(&vectors) {
                        *sum = _mm512_fmadd_ps(factor, *vector, *sum);
                    }
                }
                weights = weights.wrapping_add(WIDTH);
                for x in &mut x {
                    *x = x.wrapping_add(rows.step);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: vector `v` of row `r` lies inside `out`.
                unsafe { _mm512_storeu_ps(out.add(r * stride + v * 16), *sum) };
            }
        }
    }
}
