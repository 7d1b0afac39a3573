//! Causal self-attention with rotary positions, in one operation.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::storage::{argument, elements, tensor};
use crate::{
    kernels::{softmax, tile_mm},
    rope::Rope,
};

/// Queries handled together.
const BLOCK: usize = 32;

/// How vectors are cut into heads.
#[derive(Clone, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    /// Divides `heads`; each key and value head serves `heads / kv_heads` query heads.
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rope: Arc<Rope>,
}

/// Softmax over earlier and own positions of `q k^T / sqrt(head_dim)`, times `v`; `q` and `k` are rotated first.
///
/// Probabilities are not kept but computed again in the backward pass.
///
/// # Shapes
/// `q`: `[b, s, heads * head_dim]`, `k`, `v`: `[b, s, kv_heads * head_dim]`, f32; returns the shape of `q`.
///
/// # Errors
/// Sizes that do not fit, or more positions than the rotary table has.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
) -> Result<Tensor> {
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Attention(shape.clone()))
}

struct Attention(AttentionShape);

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    seq: usize,
    kv_heads: usize,
    /// Query heads per key head.
    group: usize,
    dim: usize,
}

impl Sizes {
    /// `seq` rounded up, so that blocks of columns are whole.
    fn padded(self) -> usize {
        self.seq.next_multiple_of(16)
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

impl Attention {
    fn sizes(&self, q: &Shape, k: &Shape, v: &Shape) -> Result<Sizes> {
        let AttentionShape { heads, kv_heads, head_dim, rope } = &self.0;
        let (batch, seq, width) = q.dims3()?;
        if width != heads * head_dim || k.dims() != [batch, seq, kv_heads * head_dim] || k != v {
            bail!("attention: queries {q:?}, keys {k:?} and values {v:?} do not fit")
        }
        if seq * rope.half > rope.cos.len() {
            bail!("attention: {seq} positions, but the model has {}", rope.cos.len() / rope.half)
        }
        let group = heads / kv_heads;
        Ok(Sizes { batch, seq, kv_heads: *kv_heads, group, dim: *head_dim })
    }
}

/// One head of `[s, heads * dim]` as `[s, dim]`.
fn head(data: &[f32], heads: usize, index: usize, dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(data.len() / heads);
    for row in data.chunks_exact(heads * dim) {
        out.extend_from_slice(&row[index * dim..][..dim]);
    }
    out
}

fn rotated(mut head: Vec<f32>, dim: usize, rope: &Rope) -> Vec<f32> {
    for (position, row) in head.chunks_exact_mut(dim).enumerate() {
        rope.rotate(position, row);
    }
    head
}

/// `[s, dim]` as `[dim, padded]`, zero beyond `s`.
fn transposed(head: &[f32], dim: usize, padded: usize) -> Vec<f32> {
    let mut out = vec![0.0; dim * padded];
    for (position, row) in head.chunks_exact(dim).enumerate() {
        for (d, value) in row.iter().enumerate() {
            out[d * padded + position] = *value;
        }
    }
    out
}

/// Probabilities of the queries `first..first + rows`, in rows of `padded`; zero for later positions.
/// Returns how many columns are filled.
fn probabilities(
    q: &[f32],
    k_columns: &[f32],
    sizes: Sizes,
    first: usize,
    rows: usize,
    out: &mut [f32],
) -> usize {
    let (padded, dim) = (sizes.padded(), sizes.dim);
    let columns = (first + rows).next_multiple_of(16);
    let q = &q[first * dim..(first + rows) * dim];
    tile_mm((rows, columns, dim), (q, (dim, 1)), (k_columns, padded), (out, padded), false);
    let scale = sizes.scale();
    for (i, row) in out.chunks_mut(padded).take(rows).enumerate() {
        let (seen, later) = row[..columns].split_at_mut(first + i + 1);
        softmax(seen, scale);
        later.fill(0.0);
    }
    columns
}

/// Puts heads `[units][group][s, dim]` of one batch entry back into `[s, heads * dim]`.
fn scatter(parts: &[Vec<f32>], sizes: Sizes, group: usize) -> Vec<f32> {
    let Sizes { batch, seq, kv_heads, dim, .. } = sizes;
    let heads = kv_heads * group;
    let mut out = vec![0.0; batch * seq * heads * dim];
    out.par_chunks_mut(seq * heads * dim).enumerate().for_each(|(b, out)| {
        for unit in 0..kv_heads {
            for (g, head) in parts[b * kv_heads + unit].chunks_exact(seq * dim).enumerate() {
                let column = (unit * group + g) * dim;
                for (row, head) in out.chunks_exact_mut(heads * dim).zip(head.chunks_exact(dim)) {
                    row[column..column + dim].copy_from_slice(head);
                }
            }
        }
    });
    out
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(q_layout.shape(), k_layout.shape(), v_layout.shape())?;
        let (q, k, v) = (argument(q, q_layout)?, argument(k, k_layout)?, argument(v, v_layout)?);
        let rope = &self.0.rope;
        let Sizes { batch, seq, kv_heads, group, dim } = sizes;
        let padded = sizes.padded();
        let parts: Vec<Vec<f32>> = (0..batch * kv_heads)
            .into_par_iter()
            .map(|unit| {
                let (b, kv_head) = (unit / kv_heads, unit % kv_heads);
                let of = |data: &[f32], heads: usize, index: usize| {
                    head(&data[b * seq * heads * dim..][..seq * heads * dim], heads, index, dim)
                };
                let k_columns =
                    transposed(&rotated(of(k, kv_heads, kv_head), dim, rope), dim, padded);
                let mut v_rows = of(v, kv_heads, kv_head);
                v_rows.resize(padded * dim, 0.0);
                let mut probs = vec![0.0; BLOCK * padded];
                let mut out = vec![0.0; group * seq * dim];
                for (g, out) in out.chunks_exact_mut(seq * dim).enumerate() {
                    let q = rotated(of(q, kv_heads * group, kv_head * group + g), dim, rope);
                    for first in (0..seq).step_by(BLOCK) {
                        let rows = BLOCK.min(seq - first);
                        let columns = probabilities(&q, &k_columns, sizes, first, rows, &mut probs);
                        let out = &mut out[first * dim..];
                        let shape = (rows, dim, columns);
                        tile_mm(shape, (&probs, (padded, 1)), (&v_rows, dim), (out, dim), false);
                    }
                }
                out
            })
            .collect();
        Ok((CpuStorage::F32(scatter(&parts, sizes, group)), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(q.shape(), k.shape(), v.shape())?;
        let grad = grad.contiguous()?;
        let (q_data, k_data, v_data) = (elements(q)?, elements(k)?, elements(v)?);
        let (y_data, dy_data) = (elements(result)?, elements(&grad)?);
        let data: [&[f32]; 5] = [&q_data, &k_data, &v_data, &y_data, &dy_data];
        let rope = &self.0.rope;
        let Sizes { batch, kv_heads, group, .. } = sizes;
        let parts: Vec<[Vec<f32>; 3]> = (0..batch * kv_heads)
            .into_par_iter()
            .map(|unit| unit_gradient(unit / kv_heads, unit % kv_heads, data, sizes, rope))
            .collect();
        let mut columns: [Vec<Vec<f32>>; 3] = Default::default();
        for part in parts {
            for (column, part) in columns.iter_mut().zip(part) {
                column.push(part);
            }
        }
        let [dq, dk, dv] = columns;
        Ok((
            Some(tensor(scatter(&dq, sizes, group), q.shape())?),
            Some(tensor(scatter(&dk, sizes, 1), k.shape())?),
            Some(tensor(scatter(&dv, sizes, 1), v.shape())?),
        ))
    }
}

/// Gradients of the query heads `[group, s, dim]`, the key head and the value head `[s, dim]` of one unit.
fn unit_gradient(
    b: usize,
    kv_head: usize,
    [q, k, v, y, dy]: [&[f32]; 5],
    sizes: Sizes,
    rope: &Rope,
) -> [Vec<f32>; 3] {
    let Sizes { seq, kv_heads, group, dim, .. } = sizes;
    let padded = sizes.padded();
    let of = |data: &[f32], heads: usize, index: usize| {
        head(&data[b * seq * heads * dim..][..seq * heads * dim], heads, index, dim)
    };
    let mut k_rows = rotated(of(k, kv_heads, kv_head), dim, rope);
    let k_columns = transposed(&k_rows, dim, padded);
    k_rows.resize(padded * dim, 0.0);
    let v_columns = transposed(&of(v, kv_heads, kv_head), dim, padded);
    let mut probs = vec![0.0; BLOCK * padded];
    let mut scores = vec![0.0; BLOCK * padded];
    let mut dq = vec![0.0; group * seq * dim];
    let mut dk = vec![0.0; padded * dim];
    let mut dv = vec![0.0; padded * dim];
    for (g, dq) in dq.chunks_exact_mut(seq * dim).enumerate() {
        let index = kv_head * group + g;
        let q = rotated(of(q, kv_heads * group, index), dim, rope);
        let y = of(y, kv_heads * group, index);
        let dy = of(dy, kv_heads * group, index);
        for first in (0..seq).step_by(BLOCK) {
            let rows = BLOCK.min(seq - first);
            let columns = probabilities(&q, &k_columns, sizes, first, rows, &mut probs);
            let block = first * dim..(first + rows) * dim;
            let (q, y, dy) = (&q[block.clone()], &y[block.clone()], &dy[block.clone()]);
            let inward = (rows, columns, dim);
            tile_mm(inward, (dy, (dim, 1)), (&v_columns, padded), (&mut scores, padded), false);
            // A softmax passes on p * (dp - sum(p dp)), and sum(p dp) is the output times its gradient.
            for i in 0..rows {
                let row = i * dim..(i + 1) * dim;
                let mean: f32 = y[row.clone()].iter().zip(&dy[row]).map(|(y, dy)| y * dy).sum();
                let line = i * padded..i * padded + columns;
                for (score, p) in scores[line.clone()].iter_mut().zip(&probs[line]) {
                    *score = p * (*score - mean) * sizes.scale();
                }
            }
            let outward = (columns, dim, rows);
            tile_mm(outward, (&probs, (1, padded)), (dy, dim), (&mut dv, dim), true);
            tile_mm(outward, (&scores, (1, padded)), (q, dim), (&mut dk, dim), true);
            let back = (rows, dim, columns);
            tile_mm(back, (&scores, (padded, 1)), (&k_rows, dim), (&mut dq[block], dim), false);
        }
        for (position, row) in dq.chunks_exact_mut(dim).enumerate() {
            rope.rotate_back(position, row);
        }
    }
    dk.truncate(seq * dim);
    dv.truncate(seq * dim);
    for (position, row) in dk.chunks_exact_mut(dim).enumerate() {
        rope.rotate_back(position, row);
    }
    [dq, dk, dv]
}
