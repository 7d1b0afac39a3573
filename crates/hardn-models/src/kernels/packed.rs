//! Matrix products of decoding, whose results do not depend on how the work is cut.
//!
//! Every output is one chain of fused multiply-adds over the inputs in order. Rows, columns and threads
//! only decide who computes it, and vector width only how many chains run side by side, so a result is
//! bitwise the same alone or in a batch, and on any processor.

use rayon::prelude::*;

use super::{
    MIN_PARALLEL,
    panel::{self, MAX_ROWS, Rows, WIDTH},
};

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
            let start = (first + done) / WIDTH * k * WIDTH;
            let panels = &self.panels[start..][..n_panels * k * WIDTH];
            let valid = (n_panels * WIDTH).min(width - done);
            let mut row = 0;
            for block in 0..blocks {
                let n_rows = (rows - row).div_ceil(blocks - block);
                let x = &x[row * k..][..n_rows * k];
                let out = &mut out[row * stride + done..];
                panel::block(
                    k,
                    Rows::dense(x, n_rows, k),
                    (panels, n_panels),
                    (out, stride),
                    valid,
                    false,
                );
                row += n_rows;
            }
            done += valid;
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
        let dot =
            |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0.0, |sum, (x, w)| x.mul_add(*w, sum));
        x.chunks_exact(k).flat_map(|x| weight.chunks_exact(k).map(move |w| dot(x, w))).collect()
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
            let weights = &packed.panels[first * k..][..k * WIDTH];
            let to = (&mut out[first..], n);
            let rows = Rows::dense(&x, rows, k);
            panel::portable(k, rows, (weights, 1), to, WIDTH.min(n - first), false);
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
