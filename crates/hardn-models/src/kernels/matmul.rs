//! Matrix products of training, by the same loops as those of decoding.
//!
//! Every output is one chain of fused multiply-adds in order, so results do not depend on the number of
//! threads, and padding or batching changes no bit of a row.

use rayon::prelude::*;

use super::{
    MIN_PARALLEL,
    fill::filled,
    panel::{self, MAX_ROWS, Rows, WIDTH},
};

/// Terms taken at once, so that a panel's part stays in the first cache. The chains go on where they stopped.
const TERMS: usize = 256;
/// Terms that are transposed at once.
const RUN: usize = 32;
/// Rows of the result a task takes at once; a multiple of 8.
const TASK_ROWS: usize = 120;

/// A dense matrix or the transposed view of one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns);
        Self { data, rows, columns, transposed: false }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }
}

/// `out = a b`, or `out += a b`; `out` holds `a.rows` rows of `b.columns`.
pub(crate) fn matmul(out: &mut [f32], a: Matrix, b: Matrix, accumulate: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows);
    assert_eq!(out.len(), m * n);
    if out.is_empty() {
        return;
    }
    if k == 0 {
        if !accumulate {
            out.fill(0.0);
        }
        return;
    }
    if is_worth_threads(a, b) {
        let panels = packed(b);
        out.par_chunks_mut(TASK_ROWS * n)
            .enumerate()
            .for_each(|(i, out)| task(a, i * TASK_ROWS, &panels, out, n, accumulate));
    } else {
        let mut panels = vec![0.0; n.div_ceil(WIDTH) * k * WIDTH];
        for (i, panel) in panels.chunks_exact_mut(k * WIDTH).enumerate() {
            pack(b, i * WIDTH, panel);
        }
        for (i, out) in out.chunks_mut(TASK_ROWS * n).enumerate() {
            task(a, i * TASK_ROWS, &panels, out, n, accumulate);
        }
    }
}

/// `a b`, in a new vector.
pub(crate) fn product(a: Matrix, b: Matrix) -> Vec<f32> {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if k == 0 || !is_worth_threads(a, b) {
        let mut out = vec![0.0; m * n];
        matmul(&mut out, a, b, false);
        return out;
    }
    assert_eq!(k, b.rows);
    let panels = packed(b);
    filled(m * n, TASK_ROWS * n, |i, out| task(a, i * TASK_ROWS, &panels, out, n, false))
}

fn is_worth_threads(a: Matrix, b: Matrix) -> bool {
    a.rows * b.columns * a.columns >= MIN_PARALLEL && rayon::current_num_threads() > 1
}

/// All columns of `b` as panels, on all threads.
fn packed(b: Matrix) -> Vec<f32> {
    let part = b.rows * WIDTH;
    filled(b.columns.div_ceil(WIDTH) * part, part, |i, panel| pack(b, i * WIDTH, panel))
}

/// Columns `first..` of `b` as a panel `[k][32]`. The panel holds zeros before.
fn pack(b: Matrix, first: usize, panel: &mut [f32]) {
    let width = WIDTH.min(b.columns - first);
    if b.transposed {
        // In short runs, so that the lines written stay in the first cache until they are full.
        for (run, panel) in panel.chunks_mut(RUN * WIDTH).enumerate() {
            for (j, row) in b.data.chunks_exact(b.rows).skip(first).take(width).enumerate() {
                for (to, value) in panel.iter_mut().skip(j).step_by(WIDTH).zip(&row[run * RUN..]) {
                    *to = *value;
                }
            }
        }
    } else {
        for (to, row) in panel.chunks_exact_mut(WIDTH).zip(b.data.chunks_exact(b.columns)) {
            to[..width].copy_from_slice(&row[first..first + width]);
        }
    }
}

/// Rows `first..` of the product, as many as `out` holds.
fn task(a: Matrix, first: usize, panels: &[f32], out: &mut [f32], n: usize, accumulate: bool) {
    let k = a.columns;
    let m = out.len() / n;
    let mut copy = Vec::new();
    for start in (0..k).step_by(TERMS) {
        let terms = TERMS.min(k - start);
        if a.transposed {
            copy_rows(a, first, m, start, terms, &mut copy);
        }
        for (i, panel) in panels.chunks_exact(k * WIDTH).enumerate() {
            let panel = &panel[start * WIDTH..][..terms * WIDTH];
            let valid = WIDTH.min(n - i * WIDTH);
            for row in (0..m).step_by(MAX_ROWS) {
                let count = MAX_ROWS.min(m - row);
                let rows = if a.transposed {
                    let data = &copy[row * terms..][..terms * MAX_ROWS];
                    Rows { data, count, row_stride: 1, step: MAX_ROWS }
                } else {
                    let data = &a.data[(first + row) * k + start..];
                    Rows { data, count, row_stride: k, step: 1 }
                };
                let out = &mut out[row * n + i * WIDTH..];
                panel::block(terms, rows, panel.into(), (out, n), valid, accumulate || start > 0);
            }
        }
    }
}

/// Terms of transposed rows, eight rows side by side: `[ceil(m / 8)][terms][8]`.
fn copy_rows(a: Matrix, first: usize, m: usize, start: usize, terms: usize, copy: &mut Vec<f32>) {
    copy.clear();
    copy.resize(m.next_multiple_of(MAX_ROWS) * terms, 0.0);
    for l in 0..terms {
        let row = &a.data[(start + l) * a.rows + first..][..m];
        let (whole, rest) = row.as_chunks::<MAX_ROWS>();
        for (i, values) in whole.iter().enumerate() {
            copy[(i * terms + l) * MAX_ROWS..][..MAX_ROWS].copy_from_slice(values);
        }
        if !rest.is_empty() {
            copy[(whole.len() * terms + l) * MAX_ROWS..][..rest.len()].copy_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_product_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 x 3
        let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]; // 3 x 2
        let mut out = [100.0; 4];
        matmul(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), false);
        assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
        matmul(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), true);
        assert_eq!(out, [8.0, 10.0, 20.0, 22.0]);
        let mut square = [0.0; 4];
        matmul(&mut square, Matrix::new(&b, 3, 2).t(), Matrix::new(&b, 3, 2), false);
        assert_eq!(square, [2.0, 1.0, 1.0, 2.0]);
    }

    /// Each output is one chain of fused multiply-adds, whatever the layout, shape and threads.
    #[track_caller]
    fn check(m: usize, n: usize, k: usize) {
        let draw = |name: &str, n: usize| -> Vec<f32> {
            let mut stream = Stream::new(1, name);
            (0..n).map(|_| stream.normal() as f32).collect()
        };
        let (a, b, c) = (draw("a", m * k), draw("b", k * n), draw("c", m * n));
        for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
            let a_at = |i: usize, l: usize| if a_t { a[l * m + i] } else { a[i * k + l] };
            let b_at = |l: usize, j: usize| if b_t { b[j * k + l] } else { b[l * n + j] };
            let chain = |start: f32, i: usize, j: usize| {
                (0..k).fold(start, |sum, l| a_at(i, l).mul_add(b_at(l, j), sum))
            };
            let a = if a_t { Matrix::new(&a, k, m).t() } else { Matrix::new(&a, m, k) };
            let b = if b_t { Matrix::new(&b, n, k).t() } else { Matrix::new(&b, k, n) };
            for accumulate in [false, true] {
                let mut out = c.clone();
                matmul(&mut out, a, b, accumulate);
                for (index, value) in out.iter().enumerate() {
                    let start = if accumulate { c[index] } else { 0.0 };
                    assert_eq!(*value, chain(start, index / n, index % n), "{m} {n} {k}");
                }
            }
        }
    }

    #[test]
    fn every_layout_and_edge() {
        for (m, n, k) in
            [(1, 1, 1), (5, 8, 7), (13, 16, 3), (125, 33, 9), (7, 130, 300), (250, 70, 520)]
        {
            check(m, n, k);
        }
    }
}
