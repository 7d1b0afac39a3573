//! Projections, attention and output of a block.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::parts::{Norm, Parts};
use crate::{
    Result,
    adapter::{ByAdapter, Prefix},
    config::spec::{AttentionSpec, LatentSpec, Projections, QuerySpec, Slice},
    linear::{Linear, Pass},
    ops::{self, AttentionShape, elementary},
    rope::Rope,
    segments::Segments,
};

#[derive(Clone)]
pub(super) struct Attention {
    /// Without rotation, prefix and segments, which differ from call to call.
    shape: AttentionShape,
    projections: Source,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    output: Linear,
    /// Keys and values before the text's own.
    pub(super) prefixes: ByAdapter<Prefix>,
}

/// Where queries, keys and values come from.
#[derive(Clone)]
enum Source {
    Direct { linears: Vec<Linear>, parts: [Vec<Slice>; 3] },
    Latent(Box<Latent>),
}

#[derive(Clone)]
struct Latent {
    query: Query,
    kv_a: Linear,
    kv_a_norm: Norm,
    kv_b: Linear,
    /// Sizes: width of the latent vector, unrotated and rotated part of a key.
    rank: usize,
    nope: usize,
    rope: usize,
}

#[derive(Clone)]
enum Query {
    Direct(Linear),
    LowRank { a: Linear, norm: Norm, b: Linear },
}

impl Attention {
    pub(super) fn new(spec: &AttentionSpec, parts: &mut Parts) -> Result<Self> {
        let AttentionSpec { heads, kv_heads, key_dim, value_dim, scale, window, .. } = *spec;
        let mut norm = |norm: &Option<_>| norm.as_ref().map(|norm| parts.norm(norm)).transpose();
        let (q_norm, k_norm) = (norm(&spec.q_norm)?, norm(&spec.k_norm)?);
        let projections = match &spec.projections {
            Projections::Direct { linears, q, k, v } => Source::Direct {
                linears: linears.iter().map(|spec| parts.linear(spec)).collect::<Result<_>>()?,
                parts: [q.clone(), k.clone(), v.clone()],
            },
            Projections::Latent(latent) => Source::Latent(Box::new(Latent::new(latent, parts)?)),
        };
        let (rope, prefix, segments) = (None, 0, None);
        let shape = AttentionShape {
            heads,
            kv_heads,
            key_dim,
            value_dim,
            scale,
            rope,
            window,
            prefix,
            segments,
        };
        let (output, prefixes) = (parts.linear(&spec.output)?, ByAdapter::default());
        Ok(Self { shape, projections, q_norm, k_norm, output, prefixes })
    }

    pub(super) fn norms(&self) -> impl Iterator<Item = &Norm> {
        let latent = match &self.projections {
            Source::Direct { .. } => None,
            Source::Latent(latent) => Some(latent),
        };
        let query = latent.and_then(|latent| match &latent.query {
            Query::Direct(_) => None,
            Query::LowRank { norm, .. } => Some(norm),
        });
        let latent = latent.map(|latent| &latent.kv_a_norm);
        self.q_norm.iter().chain(&self.k_norm).chain(latent).chain(query)
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut linears = match &self.projections {
            Source::Direct { linears, .. } => linears.iter().collect(),
            Source::Latent(latent) => {
                let mut linears = match &latent.query {
                    Query::Direct(q) => vec![q],
                    Query::LowRank { a, b, .. } => vec![a, b],
                };
                linears.extend([&latent.kv_a, &latent.kv_b]);
                linears
            }
        };
        linears.push(&self.output);
        linears
    }

    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mut linears = match &mut self.projections {
            Source::Direct { linears, .. } => linears.iter_mut().collect(),
            Source::Latent(latent) => {
                let Latent { query, kv_a, kv_b, .. } = &mut **latent;
                let mut linears = match query {
                    Query::Direct(q) => vec![q],
                    Query::LowRank { a, b, .. } => vec![a, b],
                };
                linears.extend([kv_a, kv_b]);
                linears
            }
        };
        linears.push(&mut self.output);
        linears
    }

    /// `[b, s, hidden_size]` to the same.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        rope: Option<Arc<Rope>>,
        segments: Option<Arc<Segments>>,
        pass: Pass,
    ) -> Result<Tensor> {
        let [mut q, mut k, mut v] = match &self.projections {
            Source::Direct { linears, parts } => direct(linears, parts, x, pass)?,
            Source::Latent(latent) => latent.forward(x, &self.shape, pass)?,
        };
        if let Some(norm) = &self.q_norm {
            q = norm.forward_heads(&q, self.shape.heads, pass)?;
        }
        if let Some(norm) = &self.k_norm {
            k = norm.forward_heads(&k, self.shape.kv_heads, pass)?;
        }
        let mut shape = AttentionShape { rope, segments, ..self.shape.clone() };
        if let Some(prefix) = self.prefixes.get(pass.adapter) {
            [k, v] = prefix.before([&k, &v], pass)?;
            shape.prefix = prefix.len()?;
        }
        let attended = if pass.fused {
            ops::attention(&q, &k, &v, &shape)?
        } else {
            elementary::attention(&q, &k, &v, &shape)?
        };
        self.output.forward(&attended, pass)
    }
}

/// Queries, keys and values, as columns of the layers' outputs.
fn direct(
    linears: &[Linear],
    parts: &[Vec<Slice>; 3],
    x: &Tensor,
    pass: Pass,
) -> Result<[Tensor; 3]> {
    let outputs =
        linears.iter().map(|linear| linear.forward(x, pass)).collect::<Result<Vec<_>>>()?;
    let gather = |slices: &Vec<Slice>| -> Result<Tensor> {
        let columns = slices
            .iter()
            .map(|slice| outputs[slice.linear].narrow(D::Minus1, slice.start, slice.len))
            .collect::<candle_core::Result<Vec<_>>>()?;
        Ok(match columns.as_slice() {
            [one] => one.clone(),
            several => Tensor::cat(several, D::Minus1)?,
        })
    };
    Ok([gather(&parts[0])?, gather(&parts[1])?, gather(&parts[2])?])
}

impl Latent {
    fn new(spec: &LatentSpec, parts: &mut Parts) -> Result<Self> {
        let query = match &spec.query {
            QuerySpec::Direct(q) => Query::Direct(parts.linear(q)?),
            QuerySpec::LowRank { a, norm, b } => {
                Query::LowRank { a: parts.linear(a)?, norm: parts.norm(norm)?, b: parts.linear(b)? }
            }
        };
        Ok(Self {
            query,
            kv_a: parts.linear(&spec.kv_a)?,
            kv_a_norm: parts.norm(&spec.kv_a_norm)?,
            kv_b: parts.linear(&spec.kv_b)?,
            rank: spec.rank,
            nope: spec.nope,
            rope: spec.rope,
        })
    }

    /// Queries, keys and values of all heads, `[b, s, heads * dim]`.
    fn forward(&self, x: &Tensor, shape: &AttentionShape, pass: Pass) -> Result<[Tensor; 3]> {
        let (batch, seq, _) = x.dims3()?;
        let heads = shape.heads;
        let q = match &self.query {
            Query::Direct(q) => q.forward(x, pass)?,
            Query::LowRank { a, norm, b } => {
                b.forward(&norm.forward(&a.forward(x, pass)?, pass)?, pass)?
            }
        };
        let compressed = self.kv_a.forward(x, pass)?; // [b, s, rank + rope]
        let latent = compressed.narrow(D::Minus1, 0, self.rank)?.contiguous()?;
        let common = compressed.narrow(D::Minus1, self.rank, self.rope)?;
        let expanded = self.kv_b.forward(&self.kv_a_norm.forward(&latent, pass)?, pass)?;
        let expanded = expanded.reshape((batch, seq, heads, self.nope + shape.value_dim))?;
        let own = expanded.narrow(D::Minus1, 0, self.nope)?;
        let v = expanded.narrow(D::Minus1, self.nope, shape.value_dim)?;
        let common = common.unsqueeze(2)?.broadcast_as((batch, seq, heads, self.rope))?;
        let k = Tensor::cat(&[own, common], D::Minus1)?; // [b, s, heads, key_dim]
        Ok([
            q,
            k.reshape((batch, seq, heads * shape.key_dim))?,
            v.contiguous()?.reshape((batch, seq, heads * shape.value_dim))?,
        ])
    }
}
