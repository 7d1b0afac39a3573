//! Softmax statistics of columns, in fixed blocks of rows so that the number of threads changes nothing.

use rayon::prelude::*;

use crate::kernels::exp;

/// Rows of a block.
pub(super) const fn block_rows() -> usize {
    512
}

/// Rows whose terms are added in f32 before they join a longer sum.
const RUN: usize = 64;

/// `ln sum exp` of a column, in two parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSum {
    max: f32,
    /// Sum of `exp(value - max)`.
    sum: f64,
}

impl LogSum {
    pub(super) fn value(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }

    /// Of two parts of a column, and the factors that bring their sums to one scale.
    fn joined(self, other: Self) -> (Self, [f64; 2]) {
        let max = if other.max > self.max { other.max } else { self.max };
        let factor = |part: f32| if part == max { 1.0 } else { f64::from(part - max).exp() };
        let factors = [factor(self.max), factor(other.max)];
        (Self { max, sum: self.sum * factors[0] + other.sum * factors[1] }, factors)
    }
}

/// `KL` of the distribution of one column to that of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divergence {
    pub(super) from: LogSum,
    pub(super) to: LogSum,
    /// Sum of `exp(from - from.max) * (from - to)`.
    cross: f64,
}

impl Divergence {
    /// In nats.
    pub(super) fn value(&self) -> f64 {
        self.cross / self.from.sum - (self.from.value() - self.to.value())
    }

    fn joined(self, other: Self) -> Self {
        let (from, [own, others]) = self.from.joined(other.from);
        let (to, _) = self.to.joined(other.to);
        Self { from, to, cross: self.cross * own + other.cross * others }
    }
}

/// Statistics of every column of rows of `lanes`.
pub(super) fn log_sums(values: &[f32], lanes: usize) -> Vec<LogSum> {
    let blocks: Vec<Vec<LogSum>> =
        values.par_chunks(lanes * block_rows()).map(|block| block_sums(block, lanes)).collect();
    join(blocks, |a, b| a.joined(b).0)
}

/// Divergences of the columns of `from` to those of `to`.
pub(super) fn divergences(from: &[f32], to: &[f32], lanes: usize) -> Vec<Divergence> {
    let part = lanes * block_rows();
    let block = |(from, to): (&[f32], &[f32])| -> Vec<Divergence> {
        let (own, others) = (block_sums(from, lanes), block_sums(to, lanes));
        let max: Vec<f32> = own.iter().map(|sum| sum.max).collect();
        let crosses = sums(lanes, from.len() / lanes, |i, run| {
            let rows = i * lanes..(i + 1) * lanes;
            for (((sum, max), from), to) in
                run.iter_mut().zip(&max).zip(&from[rows.clone()]).zip(&to[rows])
            {
                *sum += exp(from - max) * (from - to);
            }
        });
        own.into_iter()
            .zip(others)
            .zip(crosses)
            .map(|((from, to), cross)| Divergence { from, to, cross: f64::from(cross) })
            .collect()
    };
    join(from.par_chunks(part).zip(to.par_chunks(part)).map(block).collect(), Divergence::joined)
}

fn join<T: Copy>(blocks: Vec<Vec<T>>, joined: impl Fn(T, T) -> T) -> Vec<T> {
    let mut blocks = blocks.into_iter();
    let mut total = blocks.next().unwrap_or_default();
    for block in blocks {
        for (total, part) in total.iter_mut().zip(block) {
            *total = joined(*total, part);
        }
    }
    total
}

fn block_sums(block: &[f32], lanes: usize) -> Vec<LogSum> {
    let mut max = vec![f32::NEG_INFINITY; lanes];
    for row in block.chunks_exact(lanes) {
        for (max, value) in max.iter_mut().zip(row) {
            *max = if *value > *max { *value } else { *max };
        }
    }
    let sums = sums(lanes, block.len() / lanes, |i, run| {
        for ((sum, max), value) in run.iter_mut().zip(&max).zip(&block[i * lanes..]) {
            *sum += exp(value - max);
        }
    });
    max.into_iter().zip(sums).map(|(max, sum)| LogSum { max, sum: f64::from(sum) }).collect()
}

/// Sums over rows, in runs.
fn sums(lanes: usize, rows: usize, add: impl Fn(usize, &mut [f32])) -> Vec<f32> {
    let mut total = vec![0.0; lanes];
    let mut run = vec![0.0; lanes];
    for first in (0..rows).step_by(RUN) {
        run.fill(0.0);
        (first..rows.min(first + RUN)).for_each(|i| add(i, &mut run));
        super::sums::add(&mut total, &run);
    }
    total
}
