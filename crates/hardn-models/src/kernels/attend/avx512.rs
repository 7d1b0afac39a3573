//! The loops of attention over vectors of 16.

use std::{
    arch::x86_64::{
        __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    },
    ops::Range,
};

use super::{BLOCK, HeadBlock, within};
use crate::kernels::prefetch::prefetch;

/// Scores `[queries, 16 * blocks]` of queries `[queries, dim]`.
#[target_feature(enable = "avx512f")]
pub(super) fn score(queries: &[f32], dim: usize, blocks: &[HeadBlock], out: &mut [f32]) {
    let n = blocks.len() * BLOCK;
    let n_queries = queries.len() / dim;
    let mut query = 0;
    while query < n_queries {
        let (queries, out) = (&queries[query * dim..], &mut out[query * n..]);
        query += match n_queries - query {
            4.. => score_rows::<4, 4>(queries, dim, blocks, out),
            _ => score_rows::<1, 8>(queries, dim, blocks, out),
        };
    }
}

/// `R` queries by all blocks, `B` at a time; returns `R`.
#[target_feature(enable = "avx512f")]
fn score_rows<const R: usize, const B: usize>(
    queries: &[f32],
    dim: usize,
    blocks: &[HeadBlock],
    out: &mut [f32],
) -> usize {
    let n = blocks.len() * BLOCK;
    let mut first = 0;
    while first < blocks.len() {
        let (blocks, out) = (&blocks[first..], &mut out[first * BLOCK..]);
        first += match blocks.len() {
            left if left >= B => score_tile::<R, B>(queries, dim, blocks, out, n),
            2.. => score_tile::<R, 2>(queries, dim, blocks, out, n),
            _ => score_tile::<R, 1>(queries, dim, blocks, out, n),
        };
    }
    R
}

/// `R` queries by the first `B` blocks, to rows of `stride`; returns `B`.
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
#[target_feature(enable = "avx512f")]
fn score_tile<const R: usize, const B: usize>(
    queries: &[f32],
    dim: usize,
    blocks: &[HeadBlock],
    out: &mut [f32],
    stride: usize,
) -> usize {
    assert!(queries.len() >= R * dim && out.len() >= (R - 1) * stride + B * BLOCK);
    assert!(blocks[..B].iter().all(|block| block.keys.len() >= dim * BLOCK));
    let keys: [*const f32; B] = std::array::from_fn(|b| blocks[b].keys.as_ptr());
    let next = &blocks[B..blocks.len().min(2 * B)];
    let mut sums = [[_mm512_setzero_ps(); B]; R];
    for d in 0..dim {
        for block in next {
            prefetch(block.keys, d * BLOCK);
        }
        // SAFETY: row `d` of every block's keys and element `d` of every query were checked above.
        unsafe {
            let mut vectors = [_mm512_setzero_ps(); B];
            for (vector, keys) in vectors.iter_mut().zip(keys) {
                *vector = _mm512_loadu_ps(keys.add(d * BLOCK));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let q = _mm512_set1_ps(*queries.get_unchecked(r * dim + d));
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    *sum = _mm512_fmadd_ps(q, vector, *sum);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (b, sum) in sums.iter().enumerate() {
            // SAFETY: the last of these vectors was checked above.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(r * stride + b * BLOCK), *sum) };
        }
    }
    B
}

/// The values of `positions` times the weights `[queries, 16 * blocks]`: `[queries, dim]`.
#[target_feature(enable = "avx512f")]
pub(super) fn weigh(
    weights: &[f32],
    blocks: &[HeadBlock],
    positions: &Range<usize>,
    dim: usize,
    out: &mut [f32],
) {
    let n = blocks.len() * BLOCK;
    let n_queries = weights.len() / n;
    let mut query = 0;
    while query < n_queries {
        let (weights, out) = (&weights[query * n..], &mut out[query * dim..]);
        let rows = match n_queries - query {
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let mut first = 0;
        while first < dim {
            let vectors = (dim - first).div_ceil(16);
            let part = Part { blocks, positions, dim, first };
            first += 16
                * match (rows, vectors) {
                    (4, 2..) => part.weigh::<4, 2>(weights, out),
                    (4, _) => part.weigh::<4, 1>(weights, out),
                    (2, 4..) => part.weigh::<2, 4>(weights, out),
                    (2, 2..) => part.weigh::<2, 2>(weights, out),
                    (2, _) => part.weigh::<2, 1>(weights, out),
                    (_, 4..) => part.weigh::<1, 4>(weights, out),
                    (_, 2..) => part.weigh::<1, 2>(weights, out),
                    _ => part.weigh::<1, 1>(weights, out),
                };
        }
        query += rows;
    }
}

/// Dimensions `first..` of the values of some positions.
struct Part<'a> {
    blocks: &'a [HeadBlock<'a>],
    positions: &'a Range<usize>,
    dim: usize,
    first: usize,
}

impl Part<'_> {
    /// `V` vectors of dimensions, as far as there are any, for `R` queries; returns `V`.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[target_feature(enable = "avx512f")]
    fn weigh<const R: usize, const V: usize>(&self, weights: &[f32], out: &mut [f32]) -> usize {
        let Self { blocks, positions, dim, first } = *self;
        let n = blocks.len() * BLOCK;
        let left = dim - first;
        let masks: [__mmask16; V] = std::array::from_fn(|v| match left.saturating_sub(v * 16) {
            16.. => !0,
            left => (1 << left) - 1,
        });
        assert!(weights.len() >= R * n && out.len() >= R * dim && left > 0);
        assert!(blocks.iter().all(|block| block.values.len() >= BLOCK * dim));
        let mut sums = [[[_mm512_setzero_ps(); V]; R]; 2];
        for (b, block) in blocks.iter().enumerate() {
            let next = blocks.get(b + 1).map_or(block.values, |next| next.values);
            let seen = within(positions, b * BLOCK);
            // SAFETY: `t` is below 16, so that its values and weights lie inside what was checked above.
            let add = |t: usize, sums: &mut [[__m512; V]; R]| unsafe {
                for v in 0..V {
                    prefetch(next, t * dim + first + v * 16);
                }
                let from = block.values.as_ptr().add(t * dim + first);
                let mut vectors = [_mm512_setzero_ps(); V];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = _mm512_maskz_loadu_ps(masks[v], from.wrapping_add(v * 16));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = weights.get_unchecked(r * n + b * BLOCK + t);
                    let weight = _mm512_set1_ps(*weight);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_fmadd_ps(weight, vector, *sum);
                    }
                }
            };
            let [even, odd] = &mut sums;
            let mut t = seen.start;
            if t % 2 == 1 && t < seen.end {
                add(t, odd);
                t += 1;
            }
            while t + 1 < seen.end {
                add(t, even);
                add(t + 1, odd);
                t += 2;
            }
            if t < seen.end {
                add(t, even);
            }
        }
        let [even, odd] = sums;
        for (r, (even, odd)) in even.iter().zip(&odd).enumerate() {
            for (v, (even, odd)) in even.iter().zip(odd).enumerate() {
                let to = out.as_mut_ptr().wrapping_add(r * dim + first + v * 16);
                // SAFETY: what the mask leaves lies inside row `r`.
                unsafe { _mm512_mask_storeu_ps(to, masks[v], _mm512_add_ps(*even, *odd)) };
            }
        }
        V
    }
}
