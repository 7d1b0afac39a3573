//! Packing of published weights.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::{
    Layer,
    attention::{Attention, Latent, Query, Source},
    mlp::{Dense, Mixture, Mlp},
    norm::Norm,
    product::{Layout, Product},
};
use crate::{
    ModelError, Result, WeightFormat,
    config::spec::{
        AttentionSpec, DenseSpec, LatentSpec, LayerSpec, LinearSpec, MlpSpec, NormKind, NormSpec,
        Projections, QuerySpec, Slice,
    },
    kernels::Packed,
    rope::Rope,
};

/// Gives a tensor of a checkpoint by its published name.
pub(super) type Read<'a> = &'a mut dyn FnMut(&str) -> Result<Option<Tensor>>;

/// Reads tensors one by one and packs them.
pub(super) struct Builder<'a> {
    pub(super) read: Read<'a>,
    pub(super) format: WeightFormat,
    pub(super) rope: Option<Arc<Rope>>,
    /// What products consist of, by their numbers.
    pub(super) layouts: Vec<Layout>,
}

impl Builder<'_> {
    pub(super) fn layer(&mut self, index: usize, spec: &LayerSpec) -> Result<Layer> {
        Ok(Layer {
            input_norm: self.norm(&spec.input_norm)?,
            attention: self.attention(index, &spec.attention)?,
            mlp_norm: spec.mlp_norm.as_ref().map(|norm| self.norm(norm)).transpose()?,
            mlp: self.mlp(&spec.mlp)?,
        })
    }

    /// A tensor of a known shape, as f32.
    pub(super) fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = (self.read)(name)?
            .filter(|tensor| tensor.dims() == shape)
            .ok_or_else(|| ModelError::Input(format!("no tensor `{name}` of shape {shape:?}")))?;
        Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    pub(super) fn norm(&mut self, spec: &NormSpec) -> Result<Norm> {
        let NormSpec { ref name, kind, size, eps } = *spec;
        let weight = self.numbers(&format!("{name}.weight"), &[size])?;
        let bias = match kind {
            NormKind::Rms => Vec::new(),
            NormKind::Layer => self.numbers(&format!("{name}.bias"), &[size])?,
        };
        Ok(Norm { kind, eps: eps as f32, weight, bias })
    }

    /// Rows of a table, as a product's weight.
    pub(super) fn table(&mut self, module: &str, rows: usize, width: usize) -> Result<Packed> {
        let data = self.numbers(&format!("{module}.weight"), &[rows, width])?;
        Ok(Packed::new(width, &[&data], None, self.format))
    }

    /// A layer whose weight may be that of another module.
    pub(super) fn head(&mut self, spec: &LinearSpec, weight: &str) -> Result<Product> {
        let tensor = self.weight(&LinearSpec { name: weight.to_owned(), ..spec.clone() })?;
        let bias = self.bias(spec)?;
        let packed = Packed::new(spec.input, &[&tensor], None, self.format).with_bias(bias);
        let run = Slice { linear: 0, start: 0, len: spec.out };
        Ok(self.register(packed, vec![spec.clone()], vec![run]))
    }

    fn attention(&mut self, layer: usize, spec: &AttentionSpec) -> Result<Attention> {
        let AttentionSpec { heads, kv_heads, key_dim, value_dim, scale, window, .. } = *spec;
        let source = match &spec.projections {
            Projections::Direct { linears, q, k, v } => {
                Source::Direct(self.product(linears, [q.as_slice(), k, v].concat())?)
            }
            Projections::Latent(latent) => Source::Latent(Box::new(self.latent(latent)?)),
        };
        let mut norm = |norm: &Option<_>| norm.as_ref().map(|norm| self.norm(norm)).transpose();
        let (q_norm, k_norm) = (norm(&spec.q_norm)?, norm(&spec.k_norm)?);
        Ok(Attention {
            layer,
            heads,
            kv_heads,
            key_dim,
            value_dim,
            scale,
            window,
            rope: self.rope.clone(),
            source,
            q_norm,
            k_norm,
            output: self.whole([&spec.output])?,
        })
    }

    fn latent(&mut self, spec: &LatentSpec) -> Result<Latent> {
        let query = match &spec.query {
            QuerySpec::Direct(q) => Query::Direct(self.whole([q])?),
            QuerySpec::LowRank { a, norm, b } => {
                Query::LowRank { a: self.whole([a])?, norm: self.norm(norm)?, b: self.whole([b])? }
            }
        };
        Ok(Latent {
            query,
            kv_a: self.whole([&spec.kv_a])?,
            kv_a_norm: self.norm(&spec.kv_a_norm)?,
            kv_b: self.whole([&spec.kv_b])?,
            rank: spec.rank,
            nope: spec.nope,
        })
    }

    fn mlp(&mut self, spec: &MlpSpec) -> Result<Mlp> {
        Ok(match spec {
            MlpSpec::Dense(dense) => Mlp::Dense(Box::new(self.dense(dense)?)),
            MlpSpec::Experts(spec) => Mlp::Experts(Box::new(Mixture {
                router: self.whole([&spec.router])?,
                experts: spec
                    .experts
                    .iter()
                    .map(|expert| self.dense(expert))
                    .collect::<Result<_>>()?,
                shared: spec.shared.as_ref().map(|shared| self.dense(shared)).transpose()?,
                spec: (**spec).clone(),
            })),
        })
    }

    fn dense(&mut self, spec: &DenseSpec) -> Result<Dense> {
        Ok(Dense {
            up: self.whole(spec.gate.iter().chain([&spec.up]))?,
            is_gated: spec.gate.is_some(),
            activation: spec.activation,
            down: self.whole([&spec.down])?,
        })
    }

    /// Layers that read the same, one below the other.
    fn whole<'s>(&mut self, linears: impl IntoIterator<Item = &'s LinearSpec>) -> Result<Product> {
        let linears: Vec<LinearSpec> = linears.into_iter().cloned().collect();
        let whole =
            |(linear, spec): (usize, &LinearSpec)| Slice { linear, start: 0, len: spec.out };
        let runs = linears.iter().enumerate().map(whole).collect();
        self.product(&linears, runs)
    }

    /// The outputs of layers in the order of `runs`.
    fn product(&mut self, linears: &[LinearSpec], runs: Vec<Slice>) -> Result<Product> {
        let k = linears[0].input;
        let n = runs.iter().map(|run| run.len).sum();
        let mut packed = Packed::empty(k, n, self.format);
        let mut bias = Vec::new();
        for group in runs.chunk_by(|a, b| a.linear == b.linear) {
            let spec = &linears[group[0].linear];
            let (weight, biases) = (self.weight(spec)?, self.bias(spec)?);
            for run in group {
                packed.push(&weight[run.start * k..(run.start + run.len) * k]);
                match &biases {
                    Some(biases) => bias.extend_from_slice(&biases[run.start..][..run.len]),
                    None => bias.resize(bias.len() + run.len, 0.0),
                }
            }
        }
        let with_bias = linears.iter().any(|linear| linear.bias);
        let packed = packed.with_bias(with_bias.then_some(bias));
        Ok(self.register(packed, linears.to_vec(), runs))
    }

    fn register(&mut self, weight: Packed, linears: Vec<LinearSpec>, runs: Vec<Slice>) -> Product {
        self.layouts.push(Layout { linears, runs });
        Product { id: self.layouts.len() - 1, weight }
    }

    /// `[out, in]`
    fn weight(&mut self, spec: &LinearSpec) -> Result<Vec<f32>> {
        let data = self.numbers(&format!("{}.weight", spec.name), &spec.published_shape())?;
        if !spec.transposed {
            return Ok(data);
        }
        let mut weight = vec![0.0; data.len()];
        for (i, row) in data.chunks_exact(spec.out).enumerate() {
            for (j, value) in row.iter().enumerate() {
                weight[j * spec.input + i] = *value;
            }
        }
        Ok(weight)
    }

    fn bias(&mut self, spec: &LinearSpec) -> Result<Option<Vec<f32>>> {
        spec.bias.then(|| self.numbers(&format!("{}.bias", spec.name), &[spec.out])).transpose()
    }
}
