//! A decoder as a differentiable function, for every family of [`ModelConfig`].

mod attention;
mod files;
mod mlp;
mod parts;

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Device, Tensor, Var};

use self::{attention::Attention, mlp::Mlp, parts::Norm};
use crate::{
    ModelConfig, ModelError, Result,
    adapter::{Adapters, ByAdapter, Prefix, Slot, UseAdapter},
    config::spec::{LayerSpec, Positions},
    linear::{Linear, Pass, Weight},
    rope::Rope,
    segments::Segments,
};
pub(crate) use parts::Parts;

/// What counts in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// The adapter that counts.
    pub adapter: UseAdapter,
    /// Dropout of the adapter, as a function of this seed; `None` for evaluation.
    pub dropout_seed: Option<u64>,
    /// The result can be differentiated; `false` keeps no intermediate results.
    pub grad: bool,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self { adapter: UseAdapter::Active, dropout_seed: None, grad: true }
    }
}

impl ForwardOptions {
    /// The active adapter, no dropout, no gradient.
    pub fn evaluate() -> Self {
        Self { grad: false, ..Self::default() }
    }

    /// The base model, without gradient.
    pub fn base() -> Self {
        Self { adapter: UseAdapter::Base, grad: false, dropout_seed: None }
    }
}

/// A model with or without adapters.
///
/// Without adapters all weights can be trained; with one or more the weights are frozen.
#[derive(Clone)]
pub struct Model {
    config: ModelConfig,
    device: Device,
    dtype: DType,
    fused: bool,
    embed: Var,
    positions: Places,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    pub(crate) adapters: Adapters,
}

/// How a token's place enters.
#[derive(Clone)]
enum Places {
    /// Queries and keys are rotated.
    Rotary(Arc<Rope>),
    /// Added to the embedding, `[positions, hidden_size]`.
    Learned(Var),
    /// Added to the embedding, `[positions, hidden_size]`.
    Fixed(Tensor),
}

#[derive(Clone)]
struct Layer {
    input_norm: Norm,
    attention: Attention,
    mlp_norm: Option<Norm>,
    mlp: Mlp,
}

impl Layer {
    fn new(spec: &LayerSpec, parts: &mut Parts) -> Result<Self> {
        Ok(Self {
            input_norm: parts.norm(&spec.input_norm)?,
            attention: Attention::new(&spec.attention, parts)?,
            mlp_norm: spec.mlp_norm.as_ref().map(|norm| parts.norm(norm)).transpose()?,
            mlp: Mlp::new(&spec.mlp, parts)?,
        })
    }

    fn norms(&self) -> impl Iterator<Item = &Norm> {
        [&self.input_norm].into_iter().chain(self.attention.norms()).chain(&self.mlp_norm)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attention.linears().into_iter().chain(self.mlp.linears())
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.attention.linears_mut().into_iter().chain(self.mlp.linears_mut())
    }

    /// `[b, s, hidden_size]` to the same.
    fn forward(
        &self,
        x: &Tensor,
        rope: Option<Arc<Rope>>,
        segments: Option<Arc<Segments>>,
        pass: Pass,
    ) -> Result<Tensor> {
        let h = self.input_norm.forward(x, pass)?;
        let attended = self.attention.forward(&h, rope, segments, pass)?;
        match &self.mlp_norm {
            None => Ok(((attended + self.mlp.forward(&h, pass)?)? + x)?),
            Some(norm) => {
                let x = (x + attended)?;
                let h = norm.forward(&x, pass)?;
                Ok((x + self.mlp.forward(&h, pass)?)?)
            }
        }
    }
}

impl Model {
    /// A model of the given weights, named and shaped as in a checkpoint.
    ///
    /// # Errors
    /// Weights that are missing or misshapen.
    pub fn from_weights(
        config: ModelConfig,
        weights: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        Self::assemble(config, Parts::Memory(weights), DType::F32, device)
    }

    pub(crate) fn assemble(
        config: ModelConfig,
        mut parts: Parts,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let spec = &config.spec;
        let hidden = config.hidden_size;
        let embed = parts.take(&format!("{}.weight", spec.embed), &[config.vocab_size, hidden])?;
        let context = config.max_position_embeddings;
        let positions = match &spec.positions {
            Positions::Rotary(rotary) => Places::Rotary(Arc::new(Rope::new(rotary, context))),
            Positions::Learned { module, rows } => {
                Places::Learned(parts.take(&format!("{module}.weight"), &[*rows, hidden])?)
            }
            Positions::Sinusoidal { offset, zero_row } => {
                let table = sinusoidal(context, hidden, *offset, *zero_row);
                let table = Tensor::from_vec(table, (context, hidden), device)?;
                Places::Fixed(table.to_dtype(dtype)?)
            }
        };
        let layers =
            spec.layers.iter().map(|layer| Layer::new(layer, &mut parts)).collect::<Result<_>>()?;
        let norm = parts.norm(&spec.norm)?;
        let head = if config.tie_word_embeddings {
            parts.linear_of(&spec.head, Weight::Dense(embed.clone()))?
        } else {
            parts.dense_linear(&spec.head)?
        };
        let fused = device.is_cpu() && dtype == DType::F32;
        let (device, adapters) = (device.clone(), Adapters::default());
        Ok(Self { config, device, dtype, fused, embed, positions, layers, norm, head, adapters })
    }

    /// A model without adapters on the same weights, which are not copied: to train all weights of one changes both.
    #[must_use]
    pub fn sharing_weights(&self) -> Self {
        let mut model = self.clone();
        for linear in model.linears_mut() {
            linear.terms = ByAdapter::default();
        }
        for prefixes in model.prefixes_mut() {
            *prefixes = ByAdapter::default();
        }
        model.adapters = Adapters::default();
        model
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The token ids that begin, end and pad a text, which `config.json` then carries.
    pub fn config_mut_tokens(&mut self, bos: Option<u32>, eos: Option<u32>, pad: Option<u32>) {
        self.config.bos_token_id = bos;
        self.config.eos_token_id = eos.map(crate::TokenIds::One);
        self.config.pad_token_id = pad;
    }

    /// Where the weights lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The longest text, in tokens: what an adapter's prefix leaves of the context.
    ///
    /// # Errors
    /// An adapter that is not attached.
    pub fn longest_text(&self, options: &ForwardOptions) -> Result<usize> {
        Ok(self.config.longest_text().saturating_sub(self.prefix_len(options)?))
    }

    /// Positions that an adapter's prefix takes before a text.
    fn prefix_len(&self, options: &ForwardOptions) -> Result<usize> {
        Ok(self.adapters.chosen(options.adapter)?.map_or(0, Slot::prefix_len))
    }

    /// The type of the weights and of what is computed between them.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Some weights are quantised: then only adapters can be trained.
    pub fn is_quantised(&self) -> bool {
        self.linears().any(|linear| matches!(linear.weight, Weight::Quantised(_)))
    }

    /// Fused CPU kernels (the default for f32 on the CPU), or elementary operations, which any device and type has.
    pub fn set_fused(&mut self, fused: bool) {
        self.fused = fused && self.device.is_cpu() && self.dtype == DType::F32;
    }

    /// Whether fused CPU kernels are used.
    pub fn is_fused(&self) -> bool {
        self.fused
    }

    /// The output layer.
    pub(crate) fn head_linear(&self) -> &Linear {
        &self.head
    }

    /// The last hidden states, normalised: what [`Self::head`] takes.
    ///
    /// Batches are padded on the right. Attention is causal, so padding changes nothing before it.
    ///
    /// # Shapes
    /// `ids`: `[b, s]` u32; returns `[b, s, hidden_size]` in the weights' type.
    ///
    /// # Errors
    /// An id outside the vocabulary, or a text longer than the context.
    pub fn hidden(&self, ids: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        self.hidden_packed(ids, None, options)
    }

    /// As [`Self::hidden`], for rows that may hold several texts: each text's states are those it has alone.
    ///
    /// # Errors
    /// As [`Self::hidden`], where a text's length counts, not a row's; an adapter with a prefix; texts that do not fit
    /// the rows.
    pub fn hidden_packed(
        &self,
        ids: &Tensor,
        segments: Option<&Arc<Segments>>,
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        let mut x = self.embed(ids, segments, options)?;
        for layer in 0..self.layers.len() {
            x = self.layer(layer, &x, segments, options)?;
        }
        self.normalise(&x, options)
    }

    /// Embeddings, with positions where they are added: what the first layer takes.
    ///
    /// # Shapes
    /// `ids`: `[b, s]` u32; returns `[b, s, hidden_size]`.
    ///
    /// # Errors
    /// As [`Self::hidden_packed`].
    pub fn embed(
        &self,
        ids: &Tensor,
        segments: Option<&Arc<Segments>>,
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        let (batch, seq) = ids.dims2()?;
        let prefix = self.prefix_len(options)?;
        let context = self.config.longest_text();
        if let Some(segments) = segments
            && (prefix > 0 || segments.shape() != (batch, seq))
        {
            return Err(ModelError::Input(if prefix > 0 {
                "an adapter with a prefix does not go with several texts in a row".to_owned()
            } else {
                format!("texts packed into {:?} in a batch of {:?}", segments.shape(), (batch, seq))
            }));
        }
        let longest = segments.map_or(seq, |segments| segments.longest());
        // Stretched rotations depend on a text's length, so that texts of one row would need different ones.
        let context =
            if segments.is_some() { self.config.max_position_embeddings } else { context };
        if prefix + longest > context {
            let before =
                if prefix == 0 { String::new() } else { format!("a prefix of {prefix} and ") };
            return Err(ModelError::Input(format!(
                "{before}{longest} tokens exceed the model's context of {context}"
            )));
        }
        let pass = self.pass(options)?;
        let ids = ids.flatten_all()?;
        let hidden = self.config.hidden_size;
        let x = pass.weight(&self.embed).index_select(&ids, 0)?.reshape((batch, seq, hidden))?;
        let scale = f64::from(self.config.spec.embed_scale);
        let x = if scale == 1.0 { x } else { (x * scale)? };
        let places = match &self.positions {
            Places::Rotary(_) => return Ok(x),
            Places::Learned(table) => pass.weight(table),
            Places::Fixed(table) => table.clone(),
        };
        let Some(segments) = segments else {
            return Ok(x.broadcast_add(&places.narrow(0, prefix, seq)?)?);
        };
        let positions = Tensor::from_vec(segments.positions(), batch * seq, &self.device)?;
        Ok((x + places.index_select(&positions, 0)?.reshape((batch, seq, hidden))?)?)
    }

    /// One block.
    ///
    /// # Shapes
    /// `x`: `[b, s, hidden_size]`; returns the same.
    ///
    /// # Errors
    /// A tensor of another width, or a layer the model does not have.
    pub fn layer(
        &self,
        index: usize,
        x: &Tensor,
        segments: Option<&Arc<Segments>>,
        options: &ForwardOptions,
    ) -> Result<Tensor> {
        let layer = self
            .layers
            .get(index)
            .ok_or_else(|| ModelError::Input(format!("layer {index} of {}", self.layers.len())))?;
        let longest = match segments {
            Some(segments) => segments.longest(),
            None => x.dim(1)?,
        };
        let rope = self.rope(self.prefix_len(options)? + longest);
        layer.forward(x, rope, segments.cloned(), self.pass(options)?)
    }

    /// The rotation for a prefix and a text of so many tokens.
    fn rope(&self, length: usize) -> Option<Arc<Rope>> {
        let (Places::Rotary(rope), Positions::Rotary(rotary)) =
            (&self.positions, &self.config.spec.positions)
        else {
            return None;
        };
        let is_stretched = length > self.config.max_position_embeddings;
        Some(if is_stretched { Arc::new(Rope::new(rotary, length)) } else { rope.clone() })
    }

    /// The norm after the last block.
    ///
    /// # Errors
    /// A tensor of another width.
    pub fn normalise(&self, x: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        self.norm.forward(x, self.pass(options)?)
    }

    /// Logits of hidden states.
    ///
    /// # Shapes
    /// `hidden`: `[n, hidden_size]`; returns `[n, vocab_size]` f32, whatever the weights' type.
    ///
    /// # Errors
    /// A tensor of another width.
    pub fn head(&self, hidden: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        Ok(self.head.forward(hidden, self.pass(options)?)?.to_dtype(DType::F32)?)
    }

    /// Logits of every position: [`Self::head`] of [`Self::hidden`].
    ///
    /// # Shapes
    /// `ids`: `[b, s]` u32; returns `[b, s, vocab_size]` f32.
    ///
    /// # Errors
    /// As [`Self::hidden`].
    pub fn logits(&self, ids: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        let hidden = self.hidden(ids, options)?;
        self.head(&hidden, options)
    }

    /// What is trained, sorted by name: all weights, or, where adapters are attached, the tensors of those that are
    /// trained, under PEFT's names. Before the names of an adapter that is not the default one stands its own and a slash.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        if self.adapters.is_empty() {
            return self.weights().into_iter().collect();
        }
        let trained = self.adapters.iter().filter(|slot| slot.trained);
        let variables: BTreeMap<String, Var> =
            trained.flat_map(Slot::variables).map(|(name, var)| (name, var.clone())).collect();
        variables.into_iter().collect()
    }

    /// Names and weights that are not quantised, linear layers as `[out, in]`, sorted.
    pub(crate) fn weights(&self) -> BTreeMap<String, Var> {
        let spec = &self.config.spec;
        let mut weights = BTreeMap::from([(format!("{}.weight", spec.embed), self.embed.clone())]);
        if let (Places::Learned(table), Positions::Learned { module, .. }) =
            (&self.positions, &spec.positions)
        {
            weights.insert(format!("{module}.weight"), table.clone());
        }
        for norm in self.layers.iter().flat_map(Layer::norms).chain([&self.norm]) {
            weights.insert(format!("{}.weight", norm.name), norm.weight.clone());
            if let Some(bias) = &norm.bias {
                weights.insert(format!("{}.bias", norm.name), bias.clone());
            }
        }
        let routers = self.layers.iter().filter_map(|layer| layer.mlp.router());
        for linear in self.linears().chain(routers) {
            let is_tied = self.config.tie_word_embeddings && linear.name == self.head.name;
            if let (Weight::Dense(weight), false) = (&linear.weight, is_tied) {
                weights.insert(format!("{}.weight", linear.name), weight.clone());
            }
            if let Some(bias) = &linear.bias {
                weights.insert(format!("{}.bias", linear.name), bias.clone());
            }
        }
        weights
    }

    /// Linear layers that adapters can be put on, the output last.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::linears).chain([&self.head])
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(Layer::linears_mut).chain([&mut self.head])
    }

    /// What adapters have put before each layer's keys and values.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &ByAdapter<Prefix>> {
        self.layers.iter().map(|layer| &layer.attention.prefixes)
    }

    pub(crate) fn prefixes_mut(&mut self) -> impl Iterator<Item = &mut ByAdapter<Prefix>> {
        self.layers.iter_mut().map(|layer| &mut layer.attention.prefixes)
    }

    pub(crate) fn pass(&self, options: &ForwardOptions) -> Result<Pass> {
        let slot = self.adapters.chosen(options.adapter)?;
        Ok(Pass {
            fused: self.fused,
            adapter: slot.map(|slot| slot.id),
            weights_grad: options.grad && self.adapters.is_empty(),
            adapter_grad: options.grad && slot.is_some_and(|slot| slot.trained),
            dropout_seed: options.dropout_seed,
        })
    }
}

/// Sines, then cosines, `[positions, hidden]`, computed in f32 as transformers does.
pub(crate) fn sinusoidal(
    positions: usize,
    hidden: usize,
    offset: usize,
    zero_row: Option<usize>,
) -> Vec<f32> {
    let half = hidden / 2;
    let step = (10_000.0_f64.ln() / (half as f64 - 1.0)) as f32;
    let mut table = vec![0.0; positions * hidden];
    for (position, row) in table.chunks_exact_mut(hidden).enumerate() {
        let place = position + offset;
        if zero_row == Some(place) {
            continue;
        }
        for i in 0..half {
            let angle = place as f32 * (i as f32 * -step).exp();
            (row[i], row[half + i]) = angle.sin_cos();
        }
    }
    table
}
