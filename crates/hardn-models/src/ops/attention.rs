//! Causal self-attention of every kind of head, in one operation.

use std::{ops::Range, sync::Arc};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::storage::{argument, elements, tensor};
use crate::{
    kernels::{filled, softmax, tile_mm},
    rope::Rope,
    segments::Segments,
};

/// Queries handled together.
const BLOCK: usize = 32;

/// Columns of scores are handled in whole groups of this many.
const LANES: usize = 16;

/// How vectors are cut into heads, and which positions they see.
#[derive(Clone, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    /// Divides `heads`; each key and value head serves `heads / kv_heads` query heads.
    pub(crate) kv_heads: usize,
    /// Dimensions of a query or key.
    pub(crate) key_dim: usize,
    /// Dimensions of a value; differs from `key_dim` in latent attention.
    pub(crate) value_dim: usize,
    /// Factor on the products of queries and keys; most often `1 / sqrt(key_dim)`.
    pub(crate) scale: f32,
    /// Rotary positions, if there are any.
    pub(crate) rope: Option<Arc<Rope>>,
    /// A query sees this many positions, its own and those before it; all of them without a window.
    pub(crate) window: Option<usize>,
    /// Leading keys and values that belong to no query. They are not rotated and take the positions
    /// `0..prefix`, so that the first query is at position `prefix`.
    pub(crate) prefix: usize,
    /// Where rows hold several texts, which do not see each other. Does not go with a prefix.
    pub(crate) segments: Option<Arc<Segments>>,
}

/// Softmax over the seen positions of `scale * q k^T`, times `v`; `q` and `k` are rotated first.
///
/// Probabilities are not kept but computed again in the backward pass.
///
/// # Shapes
/// `q`: `[b, s, heads * key_dim]`, `k`: `[b, prefix + s, kv_heads * key_dim]`,
/// `v`: `[b, prefix + s, kv_heads * value_dim]`, f32; returns `[b, s, heads * value_dim]`.
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

impl Attention {
    fn rope(&self) -> Option<&Rope> {
        self.0.rope.as_deref()
    }

    /// What rows of one text each give: `[batch, seq, heads * value_dim]`.
    fn values(&self, data: [&[f32]; 3], sizes: Sizes) -> Vec<f32> {
        let Sizes { batch, seq, kv_heads, group, value_dim, .. } = sizes;
        let parts: Vec<Vec<f32>> = (0..batch * kv_heads)
            .into_par_iter()
            .map(|unit| unit_value((unit / kv_heads, unit % kv_heads), data, sizes, self.rope()))
            .collect();
        scatter(&parts, sizes, group, seq, value_dim)
    }

    /// Gradients of queries, keys and values of rows of one text each.
    fn gradients(&self, data: [&[f32]; 5], sizes: Sizes) -> [Vec<f32>; 3] {
        let Sizes { batch, seq, kv_heads, group, key_dim, value_dim, .. } = sizes;
        let parts: Vec<[Vec<f32>; 3]> = (0..batch * kv_heads)
            .into_par_iter()
            .map(|unit| unit_gradient((unit / kv_heads, unit % kv_heads), data, sizes, self.rope()))
            .collect();
        let [dq, dk, dv] = columns(parts);
        [
            scatter(&dq, sizes, group, seq, key_dim),
            scatter(&dk, sizes, 1, sizes.keys(), key_dim),
            scatter(&dv, sizes, 1, sizes.keys(), value_dim),
        ]
    }
}

/// The parts by what they belong to.
fn columns(parts: Vec<[Vec<f32>; 3]>) -> [Vec<Vec<f32>>; 3] {
    let mut columns: [Vec<Vec<f32>>; 3] = Default::default();
    for part in parts {
        for (column, part) in columns.iter_mut().zip(part) {
            column.push(part);
        }
    }
    columns
}

/// Some of `rows` rows.
fn rows_of<'a>(data: &'a [f32], rows: usize, span: &Range<usize>) -> &'a [f32] {
    let width = data.len() / rows;
    &data[span.start * width..span.end * width]
}

/// Sizes of one call.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    /// Queries.
    pub(super) seq: usize,
    pub(super) prefix: usize,
    pub(super) kv_heads: usize,
    /// Query heads per key head.
    group: usize,
    key_dim: usize,
    value_dim: usize,
    scale: f32,
    window: usize,
}

impl AttentionShape {
    /// Checks the shapes of queries, keys and values.
    pub(super) fn sizes(&self, q: &Shape, k: &Shape, v: &Shape) -> Result<Sizes> {
        let Self { heads, kv_heads, key_dim, value_dim, scale, rope, window, prefix, segments } =
            self;
        let (batch, seq, width) = q.dims3()?;
        let keys = prefix + seq;
        let fits = *kv_heads > 0
            && heads % kv_heads == 0
            && width == heads * key_dim
            && k.dims() == [batch, keys, kv_heads * key_dim]
            && v.dims() == [batch, keys, kv_heads * value_dim];
        if !fits {
            bail!(
                "attention: queries {q:?}, keys {k:?} and values {v:?} do not fit {heads} heads of {key_dim} and \
                 {value_dim}, {kv_heads} of keys, after {prefix} positions"
            )
        }
        if let Some(segments) = segments
            && (*prefix > 0 || segments.shape() != (batch, seq))
        {
            bail!(
                "attention: texts packed as {:?} do not fit [{batch}, {seq}] after {prefix} positions",
                segments.shape()
            )
        }
        if let Some(rope) = rope {
            let keys = segments.as_ref().map_or(keys, |segments| segments.longest());
            if rope.first + 2 * rope.half > *key_dim {
                bail!("attention: {} rotated pairs do not fit heads of {key_dim}", rope.half)
            }
            if keys * rope.half > rope.cos.len() {
                let positions = rope.cos.len() / rope.half.max(1);
                bail!("attention: {keys} positions, but the model has {positions}")
            }
        }
        if *window == Some(0) {
            bail!("attention: a window of no positions")
        }
        Ok(Sizes {
            batch,
            seq,
            prefix: *prefix,
            kv_heads: *kv_heads,
            group: heads / kv_heads,
            key_dim: *key_dim,
            value_dim: *value_dim,
            scale: *scale,
            window: window.unwrap_or(usize::MAX),
        })
    }
}

impl Sizes {
    pub(super) fn keys(self) -> usize {
        self.prefix + self.seq
    }

    /// The number of keys rounded up, so that blocks of columns are whole.
    fn padded(self) -> usize {
        self.keys().next_multiple_of(LANES)
    }

    /// Keys that a query sees.
    pub(super) fn seen(self, query: usize) -> Range<usize> {
        let end = self.prefix + query + 1;
        end.saturating_sub(self.window)..end
    }

    /// Whole groups of keys that hold all that any of the queries sees.
    fn columns(self, queries: &Range<usize>) -> Range<usize> {
        let first = self.seen(queries.start).start / LANES * LANES;
        first..self.seen(queries.end - 1).end.next_multiple_of(LANES)
    }

    /// Queries in blocks.
    fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.seq).step_by(BLOCK).map(move |first| first..self.seq.min(first + BLOCK))
    }
}

/// Head `index` of entry `b` of `[batch, rows, heads * dim]` as `[rows, dim]`.
fn head(
    data: &[f32],
    (b, rows): (usize, usize),
    (index, heads): (usize, usize),
    dim: usize,
) -> Vec<f32> {
    let width = heads * dim;
    let mut out = Vec::with_capacity(rows * dim);
    for row in data[b * rows * width..][..rows * width].chunks_exact(width) {
        out.extend_from_slice(&row[index * dim..][..dim]);
    }
    out
}

/// Rotates the rows of a head that follow `skip` unrotated ones; the first row is at position 0.
fn rotate(head: &mut [f32], dim: usize, skip: usize, first: usize, rope: Option<&Rope>) {
    if let Some(rope) = rope {
        for (i, row) in head.chunks_exact_mut(dim).enumerate().skip(skip) {
            rope.rotate(first + i, row);
        }
    }
}

/// The gradient of [`rotate`].
fn rotate_back(head: &mut [f32], dim: usize, skip: usize, first: usize, rope: Option<&Rope>) {
    if let Some(rope) = rope {
        for (i, row) in head.chunks_exact_mut(dim).enumerate().skip(skip) {
            rope.rotate_back(first + i, row);
        }
    }
}

/// `[keys, dim]` as `[dim, padded]`, zero beyond the keys.
fn transposed(head: &[f32], dim: usize, padded: usize) -> Vec<f32> {
    let mut out = vec![0.0; dim * padded];
    for (position, row) in head.chunks_exact(dim).enumerate() {
        for (d, value) in row.iter().enumerate() {
            out[d * padded + position] = *value;
        }
    }
    out
}

/// Probabilities of some queries, in rows of `padded`: zero within `columns` for what is not seen.
fn probabilities(
    q: &[f32],
    k_columns: &[f32],
    sizes: Sizes,
    queries: &Range<usize>,
    out: &mut [f32],
) {
    let (padded, dim) = (sizes.padded(), sizes.key_dim);
    let columns = sizes.columns(queries);
    let q = &q[queries.start * dim..queries.end * dim];
    let keys = (&k_columns[columns.start..], padded);
    let shape = (queries.len(), columns.len(), dim);
    tile_mm(shape, (q, (dim, 1)), keys, (&mut out[columns.start..], padded), false);
    for (query, row) in queries.clone().zip(out.chunks_mut(padded)) {
        let seen = sizes.seen(query);
        row[columns.start..seen.start].fill(0.0);
        softmax(&mut row[seen.clone()], sizes.scale);
        row[seen.end..columns.end].fill(0.0);
    }
}

/// Puts heads `[units][group][rows, dim]` back into `[batch, rows, heads * dim]`.
fn scatter(parts: &[Vec<f32>], sizes: Sizes, group: usize, rows: usize, dim: usize) -> Vec<f32> {
    let kv_heads = sizes.kv_heads;
    let width = kv_heads * group * dim;
    filled(sizes.batch * rows * width, rows * width, |b, out| {
        for unit in 0..kv_heads {
            for (g, head) in parts[b * kv_heads + unit].chunks_exact(rows * dim).enumerate() {
                let column = (unit * group + g) * dim;
                for (row, head) in out.chunks_exact_mut(width).zip(head.chunks_exact(dim)) {
                    row[column..column + dim].copy_from_slice(head);
                }
            }
        }
    })
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
        let sizes = self.0.sizes(q_layout.shape(), k_layout.shape(), v_layout.shape())?;
        let data = [argument(q, q_layout)?, argument(k, k_layout)?, argument(v, v_layout)?];
        let Sizes { batch, seq, kv_heads, group, value_dim, .. } = sizes;
        let y = match &self.0.segments {
            None => self.values(data, sizes),
            Some(segments) => {
                let values = |span: Range<usize>| {
                    let data = data.map(|data| rows_of(data, batch * seq, &span));
                    self.values(data, Sizes { batch: 1, seq: span.len(), ..sizes })
                };
                segments.spans().into_par_iter().map(values).collect::<Vec<_>>().concat()
            }
        };
        let shape = Shape::from((batch, seq, kv_heads * group * value_dim));
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.0.sizes(q.shape(), k.shape(), v.shape())?;
        let grad = grad.contiguous()?;
        let (q_data, k_data, v_data) = (elements(q)?, elements(k)?, elements(v)?);
        let (y_data, dy_data) = (elements(result)?, elements(&grad)?);
        let data: [&[f32]; 5] = [&q_data, &k_data, &v_data, &y_data, &dy_data];
        let [dq, dk, dv] = match &self.0.segments {
            None => self.gradients(data, sizes),
            Some(segments) => {
                let rows = sizes.batch * sizes.seq;
                let gradients = |span: Range<usize>| {
                    let data = data.map(|data| rows_of(data, rows, &span));
                    self.gradients(data, Sizes { batch: 1, seq: span.len(), ..sizes })
                };
                let parts: Vec<_> = segments.spans().into_par_iter().map(gradients).collect();
                columns(parts).map(|parts| parts.concat())
            }
        };
        Ok((
            Some(tensor(dq, q.shape())?),
            Some(tensor(dk, k.shape())?),
            Some(tensor(dv, v.shape())?),
        ))
    }
}

/// What the query heads of one key head give: `[group, seq, value_dim]`.
fn unit_value(
    (b, kv_head): (usize, usize),
    [q, k, v]: [&[f32]; 3],
    sizes: Sizes,
    rope: Option<&Rope>,
) -> Vec<f32> {
    let Sizes { seq, prefix, kv_heads, group, key_dim, value_dim, .. } = sizes;
    let padded = sizes.padded();
    let mut k = head(k, (b, sizes.keys()), (kv_head, kv_heads), key_dim);
    rotate(&mut k, key_dim, prefix, 0, rope);
    let k_columns = transposed(&k, key_dim, padded);
    let mut v = head(v, (b, sizes.keys()), (kv_head, kv_heads), value_dim);
    v.resize(padded * value_dim, 0.0);
    let mut probs = vec![0.0; BLOCK * padded];
    let mut out = vec![0.0; group * seq * value_dim];
    for (g, out) in out.chunks_exact_mut(seq * value_dim).enumerate() {
        let mut q = head(q, (b, seq), (kv_head * group + g, kv_heads * group), key_dim);
        rotate(&mut q, key_dim, 0, prefix, rope);
        for queries in sizes.blocks() {
            probabilities(&q, &k_columns, sizes, &queries, &mut probs);
            let columns = sizes.columns(&queries);
            let shape = (queries.len(), value_dim, columns.len());
            let v = (&v[columns.start * value_dim..], value_dim);
            let out = (&mut out[queries.start * value_dim..], value_dim);
            tile_mm(shape, (&probs[columns.start..], (padded, 1)), v, out, false);
        }
    }
    out
}

/// Gradients of the query heads `[group, seq, key_dim]`, the key head `[keys, key_dim]` and the value head
/// `[keys, value_dim]` of one unit.
fn unit_gradient(
    (b, kv_head): (usize, usize),
    [q, k, v, y, dy]: [&[f32]; 5],
    sizes: Sizes,
    rope: Option<&Rope>,
) -> [Vec<f32>; 3] {
    let Sizes { seq, prefix, kv_heads, group, key_dim, value_dim, .. } = sizes;
    let (keys, padded) = (sizes.keys(), sizes.padded());
    let mut k_rows = head(k, (b, keys), (kv_head, kv_heads), key_dim);
    rotate(&mut k_rows, key_dim, prefix, 0, rope);
    let k_columns = transposed(&k_rows, key_dim, padded);
    k_rows.resize(padded * key_dim, 0.0);
    let v_columns =
        transposed(&head(v, (b, keys), (kv_head, kv_heads), value_dim), value_dim, padded);
    let mut probs = vec![0.0; BLOCK * padded];
    let mut scores = vec![0.0; BLOCK * padded];
    let mut dq = vec![0.0; group * seq * key_dim];
    let mut dk = vec![0.0; padded * key_dim];
    let mut dv = vec![0.0; padded * value_dim];
    for (g, dq) in dq.chunks_exact_mut(seq * key_dim).enumerate() {
        let place = (kv_head * group + g, kv_heads * group);
        let mut q = head(q, (b, seq), place, key_dim);
        rotate(&mut q, key_dim, 0, prefix, rope);
        let y = head(y, (b, seq), place, value_dim);
        let dy = head(dy, (b, seq), place, value_dim);
        for queries in sizes.blocks() {
            probabilities(&q, &k_columns, sizes, &queries, &mut probs);
            let columns = sizes.columns(&queries);
            let (rows, first) = (queries.len(), columns.start);
            let keys = queries.start * key_dim..queries.end * key_dim;
            let values = queries.start * value_dim..queries.end * value_dim;
            let (q, y, dy) = (&q[keys.clone()], &y[values.clone()], &dy[values]);
            let inward = (rows, columns.len(), value_dim);
            let v_columns = (&v_columns[first..], padded);
            tile_mm(inward, (dy, (value_dim, 1)), v_columns, (&mut scores[first..], padded), false);
            // A softmax passes on p * (dp - sum(p dp)), and sum(p dp) is the output times its gradient.
            for (i, (y, dy)) in
                y.chunks_exact(value_dim).zip(dy.chunks_exact(value_dim)).enumerate()
            {
                let mean: f32 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
                let line = i * padded + first..i * padded + columns.end;
                for (score, p) in scores[line.clone()].iter_mut().zip(&probs[line]) {
                    *score = p * (*score - mean) * sizes.scale;
                }
            }
            let (probs, scores) = (&probs[first..], &scores[first..]);
            let to_values = (columns.len(), value_dim, rows);
            let dv = (&mut dv[first * value_dim..], value_dim);
            tile_mm(to_values, (probs, (1, padded)), (dy, value_dim), dv, true);
            let to_keys = (columns.len(), key_dim, rows);
            let dk = (&mut dk[first * key_dim..], key_dim);
            tile_mm(to_keys, (scores, (1, padded)), (q, key_dim), dk, true);
            let back = (rows, key_dim, columns.len());
            let k_rows = (&k_rows[first * key_dim..], key_dim);
            tile_mm(back, (scores, (padded, 1)), k_rows, (&mut dq[keys], key_dim), false);
        }
        rotate_back(dq, key_dim, 0, prefix, rope);
    }
    dk.truncate(keys * key_dim);
    dv.truncate(keys * value_dim);
    rotate_back(&mut dk, key_dim, prefix, 0, rope);
    [dq, dk, dv]
}
