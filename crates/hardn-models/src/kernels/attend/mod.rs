//! Attention of some queries over blocks of keys and values.
//!
//! A score is one chain of fused multiply-adds over the dimensions in order, a sum of values one chain over the even
//! and one over the odd positions. How many queries, blocks and dimensions are computed side by side changes no bit.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::ops::Range;

use super::softmax;

/// Positions of a block.
pub(crate) const BLOCK: usize = 16;

/// What one head keeps of 16 positions.
#[derive(Clone, Copy)]
pub(crate) struct HeadBlock<'a> {
    /// `[key_dim][16]`
    pub(crate) keys: &'a [f32],
    /// `[16][value_dim]`
    pub(crate) values: &'a [f32],
}

/// Writes to `out`, `[queries, value_dim]`, the values of the positions that a query sees, weighted by the softmax of
/// `scale` times their keys' products with it; `queries` is `[queries, key_dim]`, `seen` has a range of positions for
/// each. Positions that no query sees may hold anything.
pub(crate) fn attend(
    queries: &[f32],
    blocks: &[HeadBlock],
    seen: &[Range<usize>],
    scale: f32,
    out: &mut [f32],
) {
    let (key_dim, value_dim) = (blocks[0].keys.len() / BLOCK, blocks[0].values.len() / BLOCK);
    let n = blocks.len() * BLOCK;
    let mut weights = vec![0.0_f32; seen.len() * n];
    score_all(queries, key_dim, blocks, &mut weights);
    let positions = normalise(&mut weights, n, seen, scale);
    weigh_all(&weights, blocks, &positions, value_dim, out);
}

/// Scores, in rows of `n`, to weights: zero for what others see but not the row's own query. Returns the positions that
/// any query sees.
fn normalise(weights: &mut [f32], n: usize, seen: &[Range<usize>], scale: f32) -> Range<usize> {
    let start = seen.iter().map(|seen| seen.start).min().unwrap_or(0);
    let end = seen.iter().map(|seen| seen.end).max().unwrap_or(0);
    for (weights, seen) in weights.chunks_exact_mut(n).zip(seen) {
        weights[start..seen.start].fill(0.0);
        softmax(&mut weights[seen.clone()], scale);
        weights[seen.end..end].fill(0.0);
    }
    start..end
}

#[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
fn score_all(queries: &[f32], dim: usize, blocks: &[HeadBlock], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::score(queries, dim, blocks, out) };
    }
    portable::score(queries, dim, blocks, out);
}

#[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
fn weigh_all(
    weights: &[f32],
    blocks: &[HeadBlock],
    positions: &Range<usize>,
    dim: usize,
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::weigh(weights, blocks, positions, dim, out) };
    }
    portable::weigh(weights, blocks, positions, dim, out);
}

/// The positions of a block that lie within `positions`; the block begins at `at`.
fn within(positions: &Range<usize>, at: usize) -> Range<usize> {
    let place = |position: usize| position.saturating_sub(at).min(BLOCK);
    place(positions.start)..place(positions.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn draws(name: &str, n: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, name);
        (0..n).map(|_| stream.normal() as f32).collect()
    }

    /// The definition, one head and one output after the other.
    fn plain(q: &[f32], blocks: &[HeadBlock], positions: Range<usize>, dim: usize) -> Vec<f32> {
        let at = |p: usize| (&blocks[p / BLOCK], p % BLOCK);
        let score = |p: usize| {
            let (block, t) = at(p);
            q.iter()
                .enumerate()
                .fold(0.0_f32, |sum, (d, q)| q.mul_add(block.keys[d * BLOCK + t], sum))
        };
        let mut weights: Vec<f32> = positions.clone().map(score).collect();
        softmax(&mut weights, 0.5);
        let chain = |d: usize, parity: usize| {
            let chosen = positions.clone().zip(&weights).filter(|(p, _)| p % 2 == parity);
            chosen.fold(0.0_f32, |sum, (p, weight)| {
                weight.mul_add(at(p).0.values[at(p).1 * dim + d], sum)
            })
        };
        (0..dim).map(|d| chain(d, 0) + chain(d, 1)).collect()
    }

    #[track_caller]
    fn check(key_dim: usize, value_dim: usize, seen: &[Range<usize>]) {
        let end = seen.iter().map(|seen| seen.end).max().unwrap();
        let n_blocks = end.div_ceil(BLOCK);
        let queries = draws("q", seen.len() * key_dim);
        let mut keys = draws("k", n_blocks * BLOCK * key_dim);
        let mut values = draws("v", n_blocks * BLOCK * value_dim);
        // What is out of sight does not count, whatever it is.
        let start = seen.iter().map(|seen| seen.start).min().unwrap();
        for p in (0..start).chain(end..n_blocks * BLOCK) {
            let (block, t) = (p / BLOCK, p % BLOCK);
            for d in 0..key_dim {
                keys[(block * key_dim + d) * BLOCK + t] = f32::NAN;
            }
            values[p * value_dim..][..value_dim].fill(f32::NAN);
        }
        let blocks: Vec<HeadBlock> = keys
            .chunks_exact(BLOCK * key_dim)
            .zip(values.chunks_exact(BLOCK * value_dim))
            .map(|(keys, values)| HeadBlock { keys, values })
            .collect();
        let mut out = vec![f32::NAN; seen.len() * value_dim];
        attend(&queries, &blocks, seen, 0.5, &mut out);
        let expected: Vec<f32> = queries
            .chunks_exact(key_dim)
            .zip(seen)
            .flat_map(|(q, seen)| plain(q, &blocks, seen.clone(), value_dim))
            .collect();
        assert_eq!(out, expected, "{seen:?}");
        // Other processors.
        let n = n_blocks * BLOCK;
        let mut weights = vec![0.0; seen.len() * n];
        portable::score(&queries, key_dim, &blocks, &mut weights);
        let positions = normalise(&mut weights, n, seen, 0.5);
        portable::weigh(&weights, &blocks, &positions, value_dim, &mut out);
        assert_eq!(out, expected, "portable, {seen:?}");
    }

    #[test]
    fn every_tile_gives_the_same_bits() {
        for n in [1, 2, 3, 4, 7, 8] {
            for (key_dim, value_dim) in [(64, 64), (24, 40), (80, 96), (7, 3)] {
                for seen in [0..1, 0..16, 0..37, 3..70, 15..160] {
                    check(key_dim, value_dim, &vec![seen.clone(); n]);
                    // Tokens in a row, the whole text or a window in sight.
                    let of_run = |slides| {
                        (0..n).map(|i| seen.start + slides * i..seen.end + i).collect::<Vec<_>>()
                    };
                    check(key_dim, value_dim, &of_run(0));
                    check(key_dim, value_dim, &of_run(1));
                }
            }
        }
    }
}
