//! What a checkpoint computes, in one form for every family: modules by their published names, with shapes.

use std::collections::BTreeMap;

use super::RopeScaling;
use crate::ops::Activation;

/// A whole decoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelSpec {
    /// The module of the token embedding.
    pub(crate) embed: String,
    /// What embeddings are multiplied by.
    pub(crate) embed_scale: f32,
    pub(crate) positions: Positions,
    pub(crate) layers: Vec<LayerSpec>,
    pub(crate) norm: NormSpec,
    /// The output. Where it is tied its weight is the embedding's.
    pub(crate) head: LinearSpec,
}

/// How a token's place enters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Positions {
    Rotary(Rotary),
    /// A trained row for each position, added to the embedding.
    Learned {
        module: String,
        rows: usize,
    },
    /// Fixed sines, then cosines, added to the embedding; position `p` takes row `p + offset`.
    Sinusoidal {
        offset: usize,
        /// A row that is zero, as the padding token's is in XGLM.
        zero_row: Option<usize>,
    },
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// The first rotated dimension of a head.
    pub(crate) first: usize,
    /// Rotated dimensions; even.
    pub(crate) dims: usize,
    /// Pairs are `(2i, 2i + 1)`, as in GPT-J, rather than `(i, i + dims / 2)`.
    pub(crate) interleaved: bool,
    pub(crate) theta: f64,
    pub(crate) scaling: Option<RopeScaling>,
}

/// One block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerSpec {
    pub(crate) input_norm: NormSpec,
    pub(crate) attention: AttentionSpec,
    /// `None`: the MLP reads what attention reads, and both are added at once.
    pub(crate) mlp_norm: Option<NormSpec>,
    pub(crate) mlp: MlpSpec,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionSpec {
    pub(crate) heads: usize,
    /// Divides `heads`.
    pub(crate) kv_heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    /// What products of queries and keys are multiplied by.
    pub(crate) scale: f32,
    /// The positions a token sees, its own included.
    pub(crate) window: Option<usize>,
    pub(crate) projections: Projections,
    /// Norms over a head's vector before it is rotated.
    pub(crate) q_norm: Option<NormSpec>,
    pub(crate) k_norm: Option<NormSpec>,
    pub(crate) output: LinearSpec,
}

/// Where queries, keys and values come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Projections {
    /// Columns of the outputs of one or more linear layers, in the order given.
    Direct { linears: Vec<LinearSpec>, q: Vec<Slice>, k: Vec<Slice>, v: Vec<Slice> },
    /// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).
    Latent(Box<LatentSpec>),
}

/// Columns `start..start + len` of the output of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) linear: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// Keys and values of all heads are expanded from a narrow vector; one rotated key part is common to all heads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LatentSpec {
    pub(crate) query: QuerySpec,
    /// Gives the latent vector, then the common rotated key part.
    pub(crate) kv_a: LinearSpec,
    pub(crate) kv_a_norm: NormSpec,
    /// For each head the unrotated key part, then the value.
    pub(crate) kv_b: LinearSpec,
    /// Width of the latent vector.
    pub(crate) rank: usize,
    /// Dimensions of a key that are not rotated; they come first.
    pub(crate) nope: usize,
    /// Dimensions that are rotated.
    pub(crate) rope: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QuerySpec {
    Direct(LinearSpec),
    LowRank { a: LinearSpec, norm: NormSpec, b: LinearSpec },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MlpSpec {
    Dense(DenseSpec),
    Experts(Box<ExpertsSpec>),
}

/// `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))` with a gate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DenseSpec {
    pub(crate) gate: Option<LinearSpec>,
    pub(crate) up: LinearSpec,
    pub(crate) down: LinearSpec,
    pub(crate) activation: Activation,
}

/// A mixture: the best experts of a softmax over all, and shared ones that always count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpertsSpec {
    /// Scores, without bias.
    pub(crate) router: LinearSpec,
    pub(crate) experts: Vec<DenseSpec>,
    pub(crate) shared: Option<DenseSpec>,
    pub(crate) top_k: usize,
    /// Experts are in `groups.0` groups, and only those of the best `groups.1` groups can be chosen.
    pub(crate) groups: Option<(usize, usize)>,
    /// What chosen probabilities are multiplied by.
    pub(crate) scale: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Root mean square; a weight.
    Rms,
    /// Mean and variance; a weight and a bias.
    Layer,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) name: String,
    pub(crate) kind: NormKind,
    pub(crate) size: usize,
    pub(crate) eps: f64,
}

/// A linear layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearSpec {
    /// The module's published name, without `.weight`.
    pub(crate) name: String,
    pub(crate) out: usize,
    pub(crate) input: usize,
    pub(crate) bias: bool,
    /// The published weight is `[in, out]` (GPT-2's `Conv1D`).
    pub(crate) transposed: bool,
}

impl LinearSpec {
    pub(crate) fn new(name: impl Into<String>, out: usize, input: usize, bias: bool) -> Self {
        Self { name: name.into(), out, input, bias, transposed: false }
    }

    /// The shape of the published weight.
    pub(crate) fn published_shape(&self) -> Vec<usize> {
        if self.transposed { vec![self.input, self.out] } else { vec![self.out, self.input] }
    }
}

impl DenseSpec {
    pub(crate) fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        self.gate.iter().chain([&self.up, &self.down])
    }
}

impl LayerSpec {
    /// Linear layers that adapters can be put on, in the order of computation.
    pub(crate) fn linears(&self) -> Vec<&LinearSpec> {
        let mut linears = match &self.attention.projections {
            Projections::Direct { linears, .. } => linears.iter().collect(),
            Projections::Latent(latent) => {
                let mut linears = match &latent.query {
                    QuerySpec::Direct(q) => vec![q],
                    QuerySpec::LowRank { a, b, .. } => vec![a, b],
                };
                linears.extend([&latent.kv_a, &latent.kv_b]);
                linears
            }
        };
        linears.push(&self.attention.output);
        match &self.mlp {
            MlpSpec::Dense(dense) => linears.extend(dense.linears()),
            MlpSpec::Experts(moe) => {
                linears.extend(moe.experts.iter().chain(&moe.shared).flat_map(DenseSpec::linears));
            }
        }
        linears
    }

    pub(crate) fn norms(&self) -> Vec<&NormSpec> {
        let mut norms = vec![&self.input_norm];
        norms.extend(self.attention.q_norm.iter().chain(&self.attention.k_norm));
        if let Projections::Latent(latent) = &self.attention.projections {
            norms.push(&latent.kv_a_norm);
            if let QuerySpec::LowRank { norm, .. } = &latent.query {
                norms.push(norm);
            }
        }
        norms.extend(&self.mlp_norm);
        norms
    }

    fn router(&self) -> Option<&LinearSpec> {
        match &self.mlp {
            MlpSpec::Experts(moe) => Some(&moe.router),
            MlpSpec::Dense(_) => None,
        }
    }
}

impl ModelSpec {
    /// Every linear layer, the output last.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        self.layers.iter().flat_map(LayerSpec::linears).chain([&self.head])
    }

    /// Names and published shapes of every tensor of the checkpoint.
    pub(crate) fn tensors(
        &self,
        vocab: usize,
        hidden: usize,
        tied: bool,
    ) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::from([(format!("{}.weight", self.embed), vec![vocab, hidden])]);
        if let Positions::Learned { module, rows } = &self.positions {
            shapes.insert(format!("{module}.weight"), vec![*rows, hidden]);
        }
        let norms = self.layers.iter().flat_map(LayerSpec::norms).chain([&self.norm]);
        for norm in norms {
            shapes.insert(format!("{}.weight", norm.name), vec![norm.size]);
            if norm.kind == NormKind::Layer {
                shapes.insert(format!("{}.bias", norm.name), vec![norm.size]);
            }
        }
        let routers = self.layers.iter().filter_map(LayerSpec::router);
        for linear in self.linears().chain(routers) {
            if !(tied && linear.name == self.head.name) {
                shapes.insert(format!("{}.weight", linear.name), linear.published_shape());
            }
            if linear.bias {
                shapes.insert(format!("{}.bias", linear.name), vec![linear.out]);
            }
        }
        shapes
    }
}
