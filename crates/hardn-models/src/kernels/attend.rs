//! Attention of a position's heads over blocks of keys and values.
//!
//! A score is one chain of fused multiply-adds over the dimensions in order, a sum of values one chain over the even
//! and one over the odd positions. How many heads, blocks and dimensions are computed side by side changes no bit.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vectors chosen at run time"
)]

use std::ops::Range;

use super::{prefetch::prefetch, softmax};

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

/// Writes to `out`, `[heads, value_dim]`, the values of `positions` of the blocks, weighted by the softmax of
/// `scale` times their keys' products with `queries`, `[heads, key_dim]`. The heads share keys and values.
pub(crate) fn attend(
    queries: &[f32],
    blocks: &[HeadBlock],
    positions: Range<usize>,
    scale: f32,
    out: &mut [f32],
) {
    let (key_dim, value_dim) = (blocks[0].keys.len() / BLOCK, blocks[0].values.len() / BLOCK);
    let n = blocks.len() * BLOCK;
    let mut weights = vec![0.0_f32; queries.len() / key_dim * n];
    score_all(queries, key_dim, blocks, &mut weights);
    for weights in weights.chunks_exact_mut(n) {
        softmax(&mut weights[positions.clone()], scale);
    }
    weigh_all(&weights, blocks, &positions, value_dim, out);
}

#[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
fn score_all(queries: &[f32], dim: usize, blocks: &[HeadBlock], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn wide(queries: &[f32], dim: usize, blocks: &[HeadBlock], out: &mut [f32]) {
            score::<4, 2, 8>(queries, dim, blocks, out);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { wide(queries, dim, blocks, out) };
        }
    }
    score::<4, 1, 4>(queries, dim, blocks, out);
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
    {
        #[target_feature(enable = "avx512f")]
        fn wide(
            weights: &[f32],
            blocks: &[HeadBlock],
            positions: &Range<usize>,
            dim: usize,
            out: &mut [f32],
        ) {
            weigh::<64, 32>(weights, blocks, positions, dim, out);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { wide(weights, blocks, positions, dim, out) };
        }
    }
    weigh::<32, 8>(weights, blocks, positions, dim, out);
}

/// Scores `[heads, 16 * blocks]`. `R` heads are computed by `B` blocks side by side, what is left of the heads one
/// by one by `S` blocks.
#[inline(always)]
fn score<const R: usize, const B: usize, const S: usize>(
    queries: &[f32],
    dim: usize,
    blocks: &[HeadBlock],
    out: &mut [f32],
) {
    let n = blocks.len() * BLOCK;
    let heads = queries.len() / dim;
    let mut head = 0;
    while head < heads {
        let (queries, out) = (&queries[head * dim..], &mut out[head * n..]);
        if heads - head >= R {
            score_heads::<R, B>(queries, dim, blocks, out);
            head += R;
        } else {
            score_heads::<1, S>(queries, dim, blocks, out);
            head += 1;
        }
    }
}

#[inline(always)]
fn score_heads<const R: usize, const B: usize>(
    queries: &[f32],
    dim: usize,
    blocks: &[HeadBlock],
    out: &mut [f32],
) {
    let n = blocks.len() * BLOCK;
    let mut first = 0;
    while first < blocks.len() {
        if blocks.len() - first >= B {
            score_tile::<R, B>(queries, dim, &blocks[first..], &mut out[first * BLOCK..], n);
            first += B;
        } else {
            score_tile::<R, 1>(queries, dim, &blocks[first..], &mut out[first * BLOCK..], n);
            first += 1;
        }
    }
}

/// `R` heads by the first `B` blocks; `out` has rows of `stride`.
#[inline(always)]
fn score_tile<const R: usize, const B: usize>(
    queries: &[f32],
    dim: usize,
    blocks: &[HeadBlock],
    out: &mut [f32],
    stride: usize,
) {
    let mut keys: [&[[f32; BLOCK]]; B] = [&[]; B];
    for (keys, block) in keys.iter_mut().zip(blocks) {
        *keys = &block.keys.as_chunks::<BLOCK>().0[..dim];
    }
    let next = &blocks[B..blocks.len().min(2 * B)];
    let mut q: [&[f32]; R] = [&[]; R];
    for (r, q) in q.iter_mut().enumerate() {
        *q = &queries[r * dim..][..dim];
    }
    let mut sums = [[[0.0_f32; BLOCK]; B]; R];
    for d in 0..dim {
        for block in next {
            prefetch(block.keys, d * BLOCK);
        }
        for (q, sums) in q.iter().zip(&mut sums) {
            for (keys, sums) in keys.iter().zip(sums) {
                for (sum, key) in sums.iter_mut().zip(&keys[d]) {
                    *sum = q[d].mul_add(*key, *sum);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (b, sums) in sums.iter().enumerate() {
            out[r * stride + b * BLOCK..][..BLOCK].copy_from_slice(sums);
        }
    }
}

/// Weighted sums of the values of `positions`. `L` dimensions are computed side by side for a single head,
/// `M` for two.
#[inline(always)]
fn weigh<const L: usize, const M: usize>(
    weights: &[f32],
    blocks: &[HeadBlock],
    positions: &Range<usize>,
    dim: usize,
    out: &mut [f32],
) {
    let n = blocks.len() * BLOCK;
    let heads = weights.len() / n;
    let mut head = 0;
    while head < heads {
        let (weights, out) = (&weights[head * n..], &mut out[head * dim..]);
        let rows = if heads - head > 1 { 2 } else { 1 };
        let mut first = 0;
        while first < dim {
            let left = dim - first;
            first += match rows {
                1 if left >= L => weigh_tile::<1, L>(weights, blocks, positions, first, dim, out),
                1 if left >= 16 => weigh_tile::<1, 16>(weights, blocks, positions, first, dim, out),
                1 if left >= 8 => weigh_tile::<1, 8>(weights, blocks, positions, first, dim, out),
                1 => weigh_tile::<1, 1>(weights, blocks, positions, first, dim, out),
                _ if left >= M => weigh_tile::<2, M>(weights, blocks, positions, first, dim, out),
                _ if left >= 8 => weigh_tile::<2, 8>(weights, blocks, positions, first, dim, out),
                _ => weigh_tile::<2, 1>(weights, blocks, positions, first, dim, out),
            };
        }
        head += rows;
    }
}

/// Dimensions `first..first + L` of `R` heads; returns `L`.
#[inline(always)]
fn weigh_tile<const R: usize, const L: usize>(
    weights: &[f32],
    blocks: &[HeadBlock],
    positions: &Range<usize>,
    first: usize,
    dim: usize,
    out: &mut [f32],
) -> usize {
    let n = blocks.len() * BLOCK;
    let mut even = [[0.0_f32; L]; R];
    let mut odd = [[0.0_f32; L]; R];
    for (b, block) in blocks.iter().enumerate() {
        let at = b * BLOCK;
        let next = blocks.get(b + 1).map_or(block.values, |next| next.values);
        let start = positions.start.saturating_sub(at).min(BLOCK);
        let end = positions.end.saturating_sub(at).min(BLOCK);
        let mut t = start - start % 2;
        while t < end {
            for line in 0..L.div_ceil(16) {
                prefetch(next, t * dim + first + line * 16);
                prefetch(next, (t + 1) * dim + first + line * 16);
            }
            if t >= start {
                weigh_one(&weights[at + t..], n, &block.values[t * dim + first..], &mut even);
            }
            t += 1;
            if t < end {
                weigh_one(&weights[at + t..], n, &block.values[t * dim + first..], &mut odd);
            }
            t += 1;
        }
    }
    for (r, (even, odd)) in even.iter().zip(&odd).enumerate() {
        let out = &mut out[r * dim + first..][..L];
        for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
            *out = even + odd;
        }
    }
    L
}

/// Adds a position's values for `R` heads, whose weights lie `stride` apart.
#[inline(always)]
fn weigh_one<const R: usize, const L: usize>(
    weights: &[f32],
    stride: usize,
    values: &[f32],
    sums: &mut [[f32; L]; R],
) {
    let values: &[f32; L] = values[..L].try_into().expect("L values");
    for (r, sums) in sums.iter_mut().enumerate() {
        let weight = weights[r * stride];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = weight.mul_add(*value, *sum);
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
    fn check(heads: usize, key_dim: usize, value_dim: usize, positions: Range<usize>) {
        let n_blocks = positions.end.div_ceil(BLOCK);
        let queries = draws("q", heads * key_dim);
        let mut keys = draws("k", n_blocks * BLOCK * key_dim);
        let mut values = draws("v", n_blocks * BLOCK * value_dim);
        // What is out of sight does not count, whatever it is.
        for p in (0..n_blocks * BLOCK).filter(|p| !positions.contains(p)) {
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
        let mut out = vec![f32::NAN; heads * value_dim];
        attend(&queries, &blocks, positions.clone(), 0.5, &mut out);
        let expected: Vec<f32> = queries
            .chunks_exact(key_dim)
            .flat_map(|q| plain(q, &blocks, positions.clone(), value_dim))
            .collect();
        assert_eq!(out, expected, "{heads} heads, {positions:?}");
        // Other processors take smaller tiles.
        let n = n_blocks * BLOCK;
        let mut weights = vec![0.0; heads * n];
        score::<4, 1, 4>(&queries, key_dim, &blocks, &mut weights);
        for weights in weights.chunks_exact_mut(n) {
            softmax(&mut weights[positions.clone()], 0.5);
        }
        weigh::<32, 8>(&weights, &blocks, &positions, value_dim, &mut out);
        assert_eq!(out, expected, "portable, {heads} heads, {positions:?}");
    }

    #[test]
    fn every_tile_gives_the_same_bits() {
        for heads in [1, 2, 3, 4, 7, 8] {
            for (key_dim, value_dim) in [(64, 64), (24, 40), (80, 96), (7, 3)] {
                for positions in [0..1, 0..16, 0..37, 3..70, 15..160] {
                    check(heads, key_dim, value_dim, positions);
                }
            }
        }
    }
}
