//! Matrix products of decoding, whose results do not depend on how the work is cut.
//!
//! Every output is one chain of fused multiply-adds over the inputs in order. Rows, columns and threads
//! only decide who computes it, and vector width only how many chains run side by side, so a result is
//! bitwise the same alone or in a batch, and on any processor.

use rayon::prelude::*;

use super::MIN_PARALLEL;

/// Columns of a panel.
const WIDTH: usize = 32;
/// Most rows of a block.
const MAX_ROWS: usize = 12;

/// A weight `[n, k]` stored as panels of 32 columns, `[ceil(n / 32)][k][32]`, zero where there is no column.
pub(crate) struct Packed {
    k: usize,
    n: usize,
    panels: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Packed {
    /// Packs weights `[out, k]` with the same `k` one below the other.
    pub(crate) fn new(k: usize, weights: &[&[f32]], biases: Option<&[&[f32]]>) -> Self {
        let n = weights.iter().map(|weight| weight.len() / k).sum::<usize>();
        let mut panels = vec![0.0; n.div_ceil(WIDTH) * k * WIDTH];
        let rows = weights.iter().flat_map(|weight| weight.chunks_exact(k));
        for (j, row) in rows.enumerate() {
            let panel = &mut panels[j / WIDTH * k * WIDTH..][..k * WIDTH];
            for (l, value) in row.iter().enumerate() {
                panel[l * WIDTH + j % WIDTH] = *value;
            }
        }
        Self { k, n, panels, bias: biases.map(<[&[f32]]>::concat) }
    }

    /// Columns of the product.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// `out[rows, n] = x[rows, k] w^T + bias`.
    pub(crate) fn multiply(&self, x: &[f32], out: &mut [f32], parallel: bool) {
        let (k, n) = (self.k, self.n);
        let rows = x.len() / k;
        assert_eq!(x.len(), rows * k);
        assert_eq!(out.len(), rows * n);
        let threads = rayon::current_num_threads();
        if !parallel || threads == 1 || rows * n * k < MIN_PARALLEL {
            self.columns(x, out, n, 0, n);
        } else if rows >= 4 * threads {
            let share = rows.div_ceil(threads);
            out.par_chunks_mut(share * n)
                .zip(x.par_chunks(share * k))
                .for_each(|(out, x)| self.columns(x, out, n, 0, n));
        } else {
            let share = n.div_ceil(WIDTH).div_ceil(threads * 2) * WIDTH;
            let parts: Vec<(usize, Vec<f32>)> = (0..n.div_ceil(share))
                .into_par_iter()
                .map(|part| {
                    let width = share.min(n - part * share);
                    let mut sums = vec![0.0; rows * width];
                    self.columns(x, &mut sums, width, part * share, width);
                    (width, sums)
                })
                .collect();
            for (part, (width, sums)) in parts.iter().enumerate() {
                for (out, sums) in out.chunks_exact_mut(n).zip(sums.chunks_exact(*width)) {
                    out[part * share..][..*width].copy_from_slice(sums);
                }
            }
        }
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(n) {
                for (out, bias) in row.iter_mut().zip(bias) {
                    *out += bias;
                }
            }
        }
    }

    /// Columns `first..first + width` of every row; `first` begins a panel, `out` has rows of `stride`.
    fn columns(&self, x: &[f32], out: &mut [f32], stride: usize, first: usize, width: usize) {
        let k = self.k;
        let rows = x.len() / k;
        if rows == 0 {
            return;
        }
        let blocks = rows.div_ceil(MAX_ROWS);
        let mut done = 0;
        // With few rows several panels run side by side, or the chains would wait for each other.
        let group = match rows.div_ceil(blocks) {
            1 => 4,
            2 => 2,
            _ => 1,
        };
        while done < width {
            let n_panels = if width - done >= group * WIDTH { group } else { 1 };
            let panel = (first + done) / WIDTH * k * WIDTH;
            let panels = &self.panels[panel..][..n_panels * k * WIDTH];
            let valid = (n_panels * WIDTH).min(width - done);
            let mut row = 0;
            for block in 0..blocks {
                let n_rows = (rows - row).div_ceil(blocks - block);
                let x = &x[row * k..][..n_rows * k];
                let out = &mut out[row * stride + done..];
                raw::block(k, x, n_rows, panels, n_panels, out, stride, valid);
                row += n_rows;
            }
            done += valid;
        }
    }
}

/// The loops over registers.
mod raw {
    use super::{MAX_ROWS, WIDTH};

    /// `out[r, 0..valid]` for `n_rows` rows of `x` and the columns of `n_panels` panels.
    #[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
    pub(super) fn block(
        k: usize,
        x: &[f32],
        n_rows: usize,
        panels: &[f32],
        n_panels: usize,
        out: &mut [f32],
        stride: usize,
        valid: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            let full = valid == n_panels * WIDTH;
            let mut edge = [0.0; MAX_ROWS * WIDTH];
            assert!(x.len() >= n_rows * k && panels.len() >= n_panels * k * WIDTH);
            assert!(full || n_panels == 1);
            let (to, to_stride) =
                if full { (&mut *out, stride) } else { (&mut edge[..], WIDTH) };
            assert!(to.len() >= (n_rows - 1) * to_stride + n_panels * WIDTH);
            // SAFETY: the processor has the instructions, and the lengths are checked above.
            unsafe {
                match (n_rows, n_panels) {
                    (1, 4) => avx512::block::<1, 4>(k, x, panels, to, to_stride),
                    (2, 2) => avx512::block::<2, 2>(k, x, panels, to, to_stride),
                    (1, 1) => avx512::block::<1, 1>(k, x, panels, to, to_stride),
                    (2, 1) => avx512::block::<2, 1>(k, x, panels, to, to_stride),
                    (3, 1) => avx512::block::<3, 1>(k, x, panels, to, to_stride),
                    (4, 1) => avx512::block::<4, 1>(k, x, panels, to, to_stride),
                    (5, 1) => avx512::block::<5, 1>(k, x, panels, to, to_stride),
                    (6, 1) => avx512::block::<6, 1>(k, x, panels, to, to_stride),
                    (7, 1) => avx512::block::<7, 1>(k, x, panels, to, to_stride),
                    (8, 1) => avx512::block::<8, 1>(k, x, panels, to, to_stride),
                    (9, 1) => avx512::block::<9, 1>(k, x, panels, to, to_stride),
                    (10, 1) => avx512::block::<10, 1>(k, x, panels, to, to_stride),
                    (11, 1) => avx512::block::<11, 1>(k, x, panels, to, to_stride),
                    (12, 1) => avx512::block::<12, 1>(k, x, panels, to, to_stride),
                    _ => unreachable!("no block of {n_rows} rows and {n_panels} panels"),
                }
            }
            if !full {
                for r in 0..n_rows {
                    out[r * stride..][..valid].copy_from_slice(&edge[r * WIDTH..][..valid]);
                }
            }
            return;
        }
        portable(k, x, n_rows, panels, n_panels, out, stride, valid);
    }

    /// The same for any processor; written so that compilers use the vectors they are allowed.
    pub(super) fn portable(
        k: usize,
        x: &[f32],
        n_rows: usize,
        panels: &[f32],
        n_panels: usize,
        out: &mut [f32],
        stride: usize,
        valid: usize,
    ) {
        for half in 0..n_panels * 2 {
            let first = half * (WIDTH / 2);
            if first >= valid {
                break;
            }
            let columns = (WIDTH / 2).min(valid - first);
            let panel = &panels[half / 2 * k * WIDTH + half % 2 * (WIDTH / 2)..];
            let mut row = 0;
            while row < n_rows {
                let x = &x[row * k..];
                let out = &mut out[row * stride + first..];
                row += match n_rows - row {
                    1 => half_panel::<1>(k, x, panel, out, stride, columns),
                    2 => half_panel::<2>(k, x, panel, out, stride, columns),
                    3 => half_panel::<3>(k, x, panel, out, stride, columns),
                    4 => half_panel::<4>(k, x, panel, out, stride, columns),
                    5 => half_panel::<5>(k, x, panel, out, stride, columns),
                    _ => half_panel::<6>(k, x, panel, out, stride, columns),
                };
            }
        }
    }

    fn half_panel<const R: usize>(
        k: usize,
        x: &[f32],
        panel: &[f32],
        out: &mut [f32],
        stride: usize,
        columns: usize,
    ) -> usize {
        let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * k..][..k]);
        let mut sums = [[0.0_f32; WIDTH / 2]; R];
        for (l, weights) in panel.chunks(WIDTH).take(k).enumerate() {
            let weights: &[f32; WIDTH / 2] =
                weights[..WIDTH / 2].try_into().expect("half a panel");
            for (sums, row) in sums.iter_mut().zip(&rows) {
                let factor = row[l];
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

        use super::WIDTH;

        /// `R` rows by `P` panels.
        ///
        /// # Safety
        /// The processor has AVX-512; `x` holds `R * k` elements, `panels` `P * k * 32`, and `out` reaches
        /// `(R - 1) * stride + P * 32`.
        #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
        #[target_feature(enable = "avx512f")]
        pub(super) unsafe fn block<const R: usize, const P: usize>(
            k: usize,
            x: &[f32],
            panels: &[f32],
            out: &mut [f32],
            stride: usize,
        ) {
            let (x, panels, out) = (x.as_ptr(), panels.as_ptr(), out.as_mut_ptr());
            let mut sums: [[[__m512; 2]; P]; R] = [[[_mm512_setzero_ps(); 2]; P]; R];
            for l in 0..k {
                for p in 0..P {
                    // SAFETY: row `l` of panel `p` lies inside `panels`, and `x[r, l]` inside `x`.
                    unsafe {
                        let row = panels.add((p * k + l) * WIDTH);
                        let low = _mm512_loadu_ps(row);
                        let high = _mm512_loadu_ps(row.add(16));
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let factor = _mm512_set1_ps(*x.add(r * k + l));
                            sums[p][0] = _mm512_fmadd_ps(factor, low, sums[p][0]);
                            sums[p][1] = _mm512_fmadd_ps(factor, high, sums[p][1]);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (p, [low, high]) in sums.iter().enumerate() {
                    // SAFETY: the 32 columns of panel `p` in row `r` lie inside `out`.
                    unsafe {
                        let to = out.add(r * stride + p * WIDTH);
                        _mm512_storeu_ps(to, *low);
                        _mm512_storeu_ps(to.add(16), *high);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn draws(name: &str, n: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, name);
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    /// The definition: one chain of fused multiply-adds per output.
    fn plain(x: &[f32], weight: &[f32], k: usize) -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0.0, |sum, (x, w)| x.mul_add(*w, sum));
        x.chunks_exact(k)
            .flat_map(|x| weight.chunks_exact(k).map(move |w| dot(x, w)))
            .collect()
    }

    #[track_caller]
    fn check(rows: usize, k: usize, n: usize) {
        let (x, weight) = (draws("x", rows * k), draws("w", n * k));
        let packed = Packed::new(k, &[&weight], None);
        let expected = plain(&x, &weight, k);
        for parallel in [false, true] {
            let mut out = vec![f32::NAN; rows * n];
            packed.multiply(&x, &mut out, parallel);
            assert_eq!(out, expected, "{rows} x {k} x {n}");
        }
        let mut out = vec![f32::NAN; rows * n];
        for first in (0..n).step_by(WIDTH) {
            let panel = &packed.panels[first * k..][..k * WIDTH];
            raw::portable(k, &x, rows, panel, 1, &mut out[first..], n, WIDTH.min(n - first));
        }
        assert_eq!(out, expected, "portable {rows} x {k} x {n}");
    }

    #[test]
    fn every_cut_gives_the_same_bits() {
        for rows in (1..=14).chain([25, 32, 49]) {
            for n in [1, 31, 32, 33, 64, 130, 256] {
                check(rows, 24, n);
            }
        }
        for rows in [1, 3, 16] {
            check(rows, 192, 6000);
        }
    }

    #[test]
    fn weights_stack_and_biases_are_added() {
        let packed =
            Packed::new(2, &[&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0]], Some(&[&[0.5], &[0.25, 0.0]]));
        let mut out = [0.0; 3];
        packed.multiply(&[1.0, 10.0], &mut out, false);
        assert_eq!(out, [21.5, 43.25, 65.0]);
    }
}
