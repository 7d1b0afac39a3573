//! Matrix products of decoding, whose results do not depend on how the work is cut.
//!
//! Every output is one chain of fused multiply-adds over the inputs in order, or, for weights of eight bits, one over
//! chains of 32. Rows, columns and threads only decide who computes it, and vector width only how many chains run
//! side by side, so a result is bitwise the same alone or in a batch, and on any processor.

use half::{bf16, f16};

use super::{
    Team,
    panel::{self, MAX_ROWS, Panels, Rows, WIDTH},
    shared::Shared,
    weight::{SCALED_TERMS, Weight, quantise},
};

/// Below this many multiplications one thread does all.
const MIN_SHARED: usize = 1 << 16;
/// Most panels that a block takes side by side.
const MAX_PANELS: usize = 4;

/// Most panels of a part.
const MAX_PART: usize = 8;

/// How a packed weight is stored. Products are made and added in f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// As it is.
    #[default]
    F32,
    /// Rounded to 8 bits of precision.
    Bf16,
    /// Rounded to 11 bits of precision; more than 65,504 becomes infinite.
    F16,
    /// Whole numbers of -127 to 127 and, for every 32 inputs of an output, a factor in f16.
    Int8,
}

/// A weight `[n, k]` stored as panels of 32 columns, `[ceil(n / 32)][k][32]`, zero where there is no column.
pub(crate) struct Packed {
    k: usize,
    n: usize,
    /// Columns filled so far.
    filled: usize,
    store: Store,
    bias: Option<Vec<f32>>,
}

#[derive(PartialEq)]
enum Store {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    /// Values, and scales `[ceil(n / 32)][ceil(k / 32)][32]`.
    Int8(Vec<i8>, Vec<f16>),
}

impl Packed {
    /// Packs weights `[out, k]` with the same `k` one below the other.
    pub(crate) fn new(
        k: usize,
        weights: &[&[f32]],
        biases: Option<&[&[f32]]>,
        format: WeightFormat,
    ) -> Self {
        let n = weights.iter().map(|weight| weight.len() / k).sum();
        let mut packed = Self::empty(k, n, format);
        for weight in weights {
            packed.push(weight);
        }
        packed.with_bias(biases.map(<[&[f32]]>::concat))
    }

    /// Room for a weight `[n, k]`, which [`Self::push`] fills from the first row on; zero until then.
    pub(crate) fn empty(k: usize, n: usize, format: WeightFormat) -> Self {
        let panels = n.div_ceil(WIDTH);
        let size = panels * k * WIDTH;
        let store = match format {
            WeightFormat::F32 => Store::F32(vec![0.0; size]),
            WeightFormat::Bf16 => Store::Bf16(vec![bf16::ZERO; size]),
            WeightFormat::F16 => Store::F16(vec![f16::ZERO; size]),
            WeightFormat::Int8 => {
                let scales = panels * k.div_ceil(SCALED_TERMS) * WIDTH;
                Store::Int8(vec![0; size], vec![f16::ZERO; scales])
            }
        };
        Self { k, n, filled: 0, store, bias: None }
    }

    /// Stores the next rows `[.., k]` of the weight, so that a large one need not lie in memory twice.
    pub(crate) fn push(&mut self, weight: &[f32]) {
        assert!(weight.len().is_multiple_of(self.k));
        assert!(weight.len() / self.k <= self.n - self.filled);
        let k = self.k;
        for row in weight.chunks_exact(k) {
            let (panel, column) = (self.filled / WIDTH, self.filled % WIDTH);
            let first = panel * k * WIDTH + column;
            match &mut self.store {
                Store::F32(to) => scatter(row, &mut to[first..], |w| w),
                Store::Bf16(to) => scatter(row, &mut to[first..], bf16::from_f32),
                Store::F16(to) => scatter(row, &mut to[first..], f16::from_f32),
                Store::Int8(to, scales) => {
                    let scales = &mut scales[panel * k.div_ceil(SCALED_TERMS) * WIDTH + column..];
                    for (block, weights) in row.chunks(SCALED_TERMS).enumerate() {
                        let to = &mut to[first + block * SCALED_TERMS * WIDTH..];
                        scales[block * WIDTH] = quantise(weights, |l, w| to[l * WIDTH] = w);
                    }
                }
            }
            self.filled += 1;
        }
    }

    /// The same with a bias of `n` values.
    pub(crate) fn with_bias(self, bias: Option<Vec<f32>>) -> Self {
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == self.n));
        Self { bias, ..self }
    }

    /// Inputs of the product.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Columns of the product.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Whether `weight` would be stored as this one is.
    pub(crate) fn same_as(&self, weight: &[f32]) -> bool {
        let format = match &self.store {
            Store::F32(_) => WeightFormat::F32,
            Store::Bf16(_) => WeightFormat::Bf16,
            Store::F16(_) => WeightFormat::F16,
            Store::Int8(..) => WeightFormat::Int8,
        };
        self.store == Self::new(self.k, &[weight], None, format).store
    }

    /// Writes row `j` of the weight, as the product sees it, to `out`: `[k]`.
    pub(crate) fn read_row(&self, j: usize, out: &mut [f32]) {
        assert!(j < self.n && out.len() == self.k);
        let (panel, column) = (j / WIDTH, j % WIDTH);
        let first = panel * self.k * WIDTH + column;
        match &self.store {
            Store::F32(from) => gather(&from[first..], out),
            Store::Bf16(from) => gather(&from[first..], out),
            Store::F16(from) => gather(&from[first..], out),
            Store::Int8(from, scales) => {
                gather(&from[first..], out);
                let scales = &scales[panel * self.k.div_ceil(SCALED_TERMS) * WIDTH + column..];
                for (out, scale) in out.chunks_mut(SCALED_TERMS).zip(scales.iter().step_by(WIDTH)) {
                    for out in out {
                        *out *= scale.to_f32();
                    }
                }
            }
        }
    }

    /// `out[rows, n] = x[rows, k] w^T + bias`.
    pub(crate) fn multiply(&self, x: &[f32], out: &mut [f32], team: &Team) {
        assert_eq!(x.len() / self.k * self.n, out.len());
        assert!(x.len().is_multiple_of(self.k));
        if out.is_empty() {
            return;
        }
        match &self.store {
            Store::F32(weights) => self.product(x, out, weights, &[], team),
            Store::Bf16(weights) => self.product(x, out, weights, &[], team),
            Store::F16(weights) => self.product(x, out, weights, &[], team),
            Store::Int8(weights, scales) => self.product(x, out, weights, scales, team),
        }
    }

    #[expect(unsafe_code, reason = "threads write columns of the same rows")]
    fn product<W: Weight>(
        &self,
        x: &[f32],
        out: &mut [f32],
        weights: &[W],
        scales: &[f16],
        team: &Team,
    ) {
        let (k, n) = (self.k, self.n);
        let rows = x.len() / k;
        let cut = Cut::new(rows, n, team.threads());
        let out = Shared::new(out);
        let part = |part: usize| {
            let mut tile = [0.0; TILE];
            cut.each_block(part, |row, n_rows, panel, count| {
                let n_scales = if W::SCALED { k.div_ceil(SCALED_TERMS) * WIDTH } else { 0 };
                let panels = Panels {
                    weights: &weights[panel * k * WIDTH..][..count * k * WIDTH],
                    scales: &scales[panel * n_scales..][..count * n_scales],
                    count,
                };
                let rows = Rows::dense(&x[row * k..][..n_rows * k], n_rows, k);
                let width = count * WIDTH;
                panel::block(k, rows, panels, (&mut tile, width), width, false);
                let first = panel * WIDTH;
                let valid = width.min(n - first);
                for (r, tile) in tile.chunks_exact(width).take(n_rows).enumerate() {
                    // SAFETY: blocks do not overlap, and each is done by one thread.
                    let out = unsafe { out.part((row + r) * n + first, valid) };
                    match &self.bias {
                        None => out.copy_from_slice(&tile[..valid]),
                        Some(bias) => {
                            for ((out, sum), bias) in out.iter_mut().zip(tile).zip(&bias[first..]) {
                                *out = sum + bias;
                            }
                        }
                    }
                }
            });
        };
        if rows * n * k < MIN_SHARED {
            (0..cut.parts()).for_each(part);
        } else {
            team.run(cut.parts(), part);
        }
    }
}

/// Sums of a block at most.
const TILE: usize = MAX_ROWS * WIDTH;

/// How a product is cut: into runs of panels, and those into blocks. Results do not depend on it.
struct Cut {
    rows: usize,
    /// Panels in all, and in one part.
    panels: usize,
    part: usize,
}

impl Cut {
    fn new(rows: usize, n: usize, threads: usize) -> Self {
        let panels = n.div_ceil(WIDTH);
        let part = panels.div_ceil(threads * 4).next_multiple_of(2).min(MAX_PART);
        Self { rows, panels, part }
    }

    fn parts(&self) -> usize {
        self.panels.div_ceil(self.part)
    }

    /// Calls `block` with (row, rows, panel, panels) for all blocks of a part.
    fn each_block(&self, part: usize, mut block: impl FnMut(usize, usize, usize, usize)) {
        let blocks = self.rows.div_ceil(MAX_ROWS);
        // With few rows several panels run side by side, or the chains would wait for each other.
        let group = match self.rows.div_ceil(blocks) {
            1 => MAX_PANELS,
            2 => MAX_PANELS / 2,
            _ => 1,
        };
        let end = self.panels.min((part + 1) * self.part);
        let mut panel = part * self.part;
        while panel < end {
            let mut count = group;
            while count > end - panel {
                count /= 2;
            }
            let mut row = 0;
            for index in 0..blocks {
                let rows = (self.rows - row).div_ceil(blocks - index);
                block(row, rows, panel, count);
                row += rows;
            }
            panel += count;
        }
    }
}

fn scatter<T>(row: &[f32], to: &mut [T], store: impl Fn(f32) -> T) {
    for (to, weight) in to.iter_mut().step_by(WIDTH).zip(row) {
        *to = store(*weight);
    }
}

fn gather<W: Weight>(from: &[W], out: &mut [f32]) {
    for (out, weight) in out.iter_mut().zip(from.iter().step_by(WIDTH)) {
        *out = weight.widen();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    const FORMATS: [WeightFormat; 4] =
        [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::F16, WeightFormat::Int8];

    fn draws(name: &str, n: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, name);
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    /// The definition: one chain of fused multiply-adds per output, or one per 32 inputs and one over those.
    fn plain(x: &[f32], weight: &Packed) -> Vec<f32> {
        let chain =
            |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum));
        let (k, n) = (weight.k, weight.n);
        let dot = |x: &[f32], j: usize| {
            if let Store::Int8(values, scales) = &weight.store {
                let (panel, column) = (j / WIDTH, j % WIDTH);
                x.chunks(32).enumerate().fold(0.0_f32, |sum, (block, x)| {
                    let first = (panel * k + block * 32) * WIDTH + column;
                    let w: Vec<f32> =
                        (0..x.len()).map(|l| f32::from(values[first + l * WIDTH])).collect();
                    let scale = scales[(panel * k.div_ceil(32) + block) * WIDTH + column];
                    scale.to_f32().mul_add(chain(x, &w), sum)
                })
            } else {
                let mut w = vec![0.0; k];
                weight.read_row(j, &mut w);
                chain(x, &w)
            }
        };
        x.chunks_exact(k).flat_map(|x| (0..n).map(move |j| dot(x, j))).collect()
    }

    fn portable<W: Weight>(x: &[f32], weight: &Packed, weights: &[W], scales: &[f16]) -> Vec<f32> {
        let (k, n) = (weight.k, weight.n);
        let mut out = vec![f32::NAN; x.len() / k * n];
        let n_scales = if W::SCALED { k.div_ceil(32) } else { 0 };
        for first in (0..n).step_by(WIDTH) {
            let panels = Panels {
                weights: &weights[first * k..][..k * WIDTH],
                scales: &scales[first * n_scales..][..n_scales * WIDTH],
                count: 1,
            };
            let rows = Rows::dense(x, x.len() / k, k);
            let to = (&mut out[first..], n);
            panel::portable(k, rows, panels, to, WIDTH.min(n - first), false);
        }
        out
    }

    #[track_caller]
    fn check(rows: usize, k: usize, n: usize, format: WeightFormat) {
        let (x, weight) = (draws("x", rows * k), draws("w", n * k));
        let packed = Packed::new(k, &[&weight], None, format);
        let expected = plain(&x, &packed);
        let mut out = vec![f32::NAN; rows * n];
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            out.fill(f32::NAN);
            pool.install(|| Team::with(|team| packed.multiply(&x, &mut out, team)));
            assert_eq!(out, expected, "{rows} x {k} x {n}, {format:?}, {threads} threads");
        }
        let portable = match &packed.store {
            Store::F32(weights) => portable(&x, &packed, weights, &[]),
            Store::Bf16(weights) => portable(&x, &packed, weights, &[]),
            Store::F16(weights) => portable(&x, &packed, weights, &[]),
            Store::Int8(weights, scales) => portable(&x, &packed, weights, scales),
        };
        assert_eq!(portable, expected, "portable {rows} x {k} x {n}, {format:?}");
    }

    #[test]
    fn every_cut_gives_the_same_bits() {
        for format in FORMATS {
            for rows in (1..=33).chain([49]) {
                check(rows, 24 + rows, [1, 31, 32, 33, 64, 130, 256][rows % 7], format);
            }
            for rows in [1, 2, 3, 16, 25] {
                check(rows, 200, 1000, format);
            }
        }
    }

    #[test]
    fn a_row_that_is_no_number_leaves_others_alone() {
        let (k, n) = (70, 96);
        let weight = draws("w", n * k);
        let x = draws("x", 9 * k);
        for format in FORMATS {
            let packed = Packed::new(k, &[&weight], None, format);
            let mut expected = vec![0.0; 9 * n];
            packed.multiply(&x, &mut expected, &Team::alone());
            for (value, row) in [(f32::NAN, 0), (f32::INFINITY, 4), (f32::NEG_INFINITY, 8)] {
                let mut broken = x.clone();
                broken[row * k + 33] = value;
                let mut out = vec![0.0; 9 * n];
                packed.multiply(&broken, &mut out, &Team::alone());
                for r in (0..9).filter(|r| *r != row) {
                    assert_eq!(out[r * n..][..n], expected[r * n..][..n]);
                }
                assert!(out[row * n..][..n].iter().all(|value| !value.is_finite()));
            }
        }
    }

    #[test]
    fn formats_are_as_precise_as_they_say() {
        let weight = draws("w", 40 * 100);
        for (format, precision) in [
            (WeightFormat::F32, 0.0),
            (WeightFormat::Bf16, 1.0 / 256.0),
            (WeightFormat::F16, 1.0 / 2048.0),
        ] {
            let packed = Packed::new(100, &[&weight], None, format);
            let mut row = vec![0.0; 100];
            for (j, weight) in weight.chunks_exact(100).enumerate() {
                packed.read_row(j, &mut row);
                assert!(weight.iter().zip(&row).all(|(w, r)| (w - r).abs() <= w.abs() * precision));
            }
        }
        let packed = Packed::new(100, &[&weight], None, WeightFormat::Int8);
        let mut row = vec![0.0; 100];
        for (j, weight) in weight.chunks_exact(100).enumerate() {
            packed.read_row(j, &mut row);
            for (weights, row) in weight.chunks(32).zip(row.chunks(32)) {
                let largest = weights.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
                // Half a step, and what rounding the factor to 11 bits adds at the ends.
                let bound = largest / 127.0 * 0.5 * 1.13;
                assert!(weights.iter().zip(row).all(|(w, r)| (w - r).abs() <= bound));
            }
        }
    }

    #[test]
    fn weights_stack_and_biases_are_added() {
        let weights: [&[f32]; 2] = [&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0]];
        let biases: [&[f32]; 2] = [&[0.5], &[0.25, 0.0]];
        let packed = Packed::new(2, &weights, Some(&biases), WeightFormat::F32);
        let mut out = [0.0; 3];
        packed.multiply(&[1.0, 10.0], &mut out, &Team::alone());
        assert_eq!(out, [21.5, 43.25, 65.0]);
    }
}
