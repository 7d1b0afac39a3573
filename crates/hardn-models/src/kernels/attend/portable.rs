//! The loops of attention for any processor, written so that compilers use the vectors they are allowed.

use std::ops::Range;

use super::{BLOCK, HeadBlock, within};

/// Dimensions of values that are summed up side by side.
const LANES: usize = 32;

/// Scores `[queries, 16 * blocks]` of queries `[queries, dim]`.
pub(super) fn score(queries: &[f32], dim: usize, blocks: &[HeadBlock], out: &mut [f32]) {
    for (query, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(blocks.len() * BLOCK)) {
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(BLOCK)) {
            let mut sums = [0.0_f32; BLOCK];
            for (q, keys) in query.iter().zip(block.keys.as_chunks::<BLOCK>().0) {
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = q.mul_add(*key, *sum);
                }
            }
            out.copy_from_slice(&sums);
        }
    }
}

/// The values of `positions` times the weights `[queries, 16 * blocks]`: `[queries, dim]`.
pub(super) fn weigh(
    weights: &[f32],
    blocks: &[HeadBlock],
    positions: &Range<usize>,
    dim: usize,
    out: &mut [f32],
) {
    let rows = weights.chunks_exact(blocks.len() * BLOCK).zip(out.chunks_exact_mut(dim));
    for (weights, out) in rows {
        for (first, out) in (0..dim).step_by(LANES).zip(out.chunks_mut(LANES)) {
            let mut sums = [[0.0_f32; LANES]; 2];
            for (block, (b, weights)) in blocks.iter().zip(weights.chunks_exact(BLOCK).enumerate())
            {
                for t in within(positions, b * BLOCK) {
                    let values = &block.values[t * dim + first..][..out.len()];
                    for (sum, value) in sums[t % 2].iter_mut().zip(values) {
                        *sum = weights[t].mul_add(*value, *sum);
                    }
                }
            }
            let [even, odd] = sums;
            for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
                *out = even + odd;
            }
        }
    }
}
