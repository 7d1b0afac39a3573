//! The decoder for generation: packed weights, a cache, and logits that do not depend on how work is cut.

mod adapter;
mod attention;
mod build;
mod mlp;
mod norm;
mod product;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use candle_core::{DType, Device, Tensor};

use self::{
    attention::{Attention, AttentionScratch},
    build::{Builder, Read},
    mlp::{Mlp, MlpScratch},
    norm::Norm,
    product::{Layout, Product, Users},
};
use crate::{
    KvCache, Model, ModelConfig, ModelError, Result, UseAdapter, WeightFormat,
    adapter::{own_name, read_folder},
    checkpoint::{BaseWeights, Stock, Weights},
    config::spec::Positions,
    kernels::{Packed, Team},
    kv_cache::CacheShape,
    model::sinusoidal,
    rng::Stream,
    rope::Rope,
};
pub(crate) use adapter::AdapterTerms;
pub use adapter::{AdapterWeights, DecodeAdapter, ModuleTerm, PrefixWeights};

/// Most tokens computed side by side; bounds the size of buffers.
const MAX_TOKENS: usize = 384;
/// Below this many weights times tokens one thread does all.
const MIN_SHARED: usize = 1 << 17;

/// One text's part of a batch.
pub struct DecodeRow<'a> {
    /// What was read so far; grows by `ids`. It carries the adapter the row is computed with.
    pub cache: &'a mut KvCache,
    /// The tokens to read now; at least one.
    pub ids: &'a [u32],
    /// Logits after every token of `ids`, rather than after the last.
    pub all_logits: bool,
}

/// A model for generation, on the CPU.
///
/// The logits of a position are bitwise the same whatever shares its batch, however its text is cut into calls,
/// and for any number of threads.
pub struct DecodeModel {
    config: ModelConfig,
    shape: Arc<CacheShape>,
    /// `[vocab_size, hidden_size]`, where the head has other weights.
    embed: Option<Packed>,
    /// `[context, hidden_size]`, added to embeddings.
    places: Option<Vec<f32>>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Product,
    layouts: Vec<Layout>,
    /// What stands before texts without an adapter of their own.
    prefix: Option<DecodeAdapter>,
    /// Buffers of finished calls, for the next ones.
    scratch: Mutex<Vec<Scratch>>,
}

struct Layer {
    input_norm: Norm,
    attention: Attention,
    /// `None`: the MLP reads what attention reads.
    mlp_norm: Option<Norm>,
    mlp: Mlp,
}

/// Buffers of one call; `[tokens, ..]`.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    h: Vec<f32>,
    projected: Vec<f32>,
    attention: AttentionScratch,
    mlp: MlpScratch,
    logits: Vec<f32>,
}

/// A token of a pass.
#[derive(Clone, Copy)]
struct Token {
    row: usize,
    position: usize,
    id: u32,
    wanted: bool,
}

/// Tokens of consecutive rows that go through the layers together.
struct Pass<'a, 'r> {
    rows: &'a mut [DecodeRow<'r>],
    tokens: &'a [Token],
    users: &'a Users,
    team: &'a Team<'a>,
}

impl DecodeModel {
    /// Packs a model's weights, with its active adapter merged; a prefix, which cannot be, stands before every text.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn new(model: &Model) -> Result<Self> {
        Self::with_weights(model, WeightFormat::F32)
    }

    /// The same with weights of linear modules stored in another format. Results are still added in f32 and do not
    /// depend on how the work is cut.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn with_weights(model: &Model, format: WeightFormat) -> Result<Self> {
        let attached = model.adapters.chosen(UseAdapter::Active)?;
        let has_prefix = attached.is_some_and(|slot| slot.prefix_len() > 0);
        let merged = if has_prefix { UseAdapter::Base } else { UseAdapter::Active };
        let merged = model.merged_with(merged)?;
        let weights = merged.published_weights()?;
        let mut read = |name: &str| Ok(weights.get(name).cloned());
        let mut packed = Self::build(merged.config().clone(), &mut read, format)?;
        if has_prefix {
            packed.prefix = Some(packed.adapter(&AdapterWeights::of(model, UseAdapter::Active)?)?);
        }
        Ok(packed)
    }

    /// Reads `config.json` and the weights in `dir`. Tensors are packed one by one, so that the model is never in
    /// memory twice.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(dir: &Path, format: WeightFormat) -> Result<Self> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        let base = BaseWeights::Float(DType::F32);
        let stock = Stock::open(weights, &config.tensors(), base, &Device::Cpu)?;
        Self::build(config, &mut |name| stock.tensor(name), format)
    }

    /// A model of random weights, to measure how fast models of its sizes are.
    ///
    /// # Errors
    /// A model this crate does not compute.
    pub fn random(config: ModelConfig, seed: u64, format: WeightFormat) -> Result<Self> {
        let shapes = config.tensors();
        let mut read = |name: &str| {
            let Some(shape) = shapes.get(name) else { return Ok(None) };
            let mut stream = Stream::new(seed, name);
            // Uniform, with the spread of a fresh model's weights; normalisation changes nothing.
            let mut draw = || ((stream.uniform() - 0.5) * 0.07) as f32;
            let is_matrix = shape.len() > 1;
            let n = shape.iter().product();
            let data: Vec<f32> = (0..n).map(|_| if is_matrix { draw() } else { 1.0 }).collect();
            Ok(Some(Tensor::from_vec(data, shape.as_slice(), &Device::Cpu)?))
        };
        Self::build(config, &mut read, format)
    }

    fn build(config: ModelConfig, read: Read, format: WeightFormat) -> Result<Self> {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let context = config.max_position_embeddings;
        let spec = &config.spec;
        let rope = match &spec.positions {
            Positions::Rotary(rotary) => Some(Arc::new(Rope::new(rotary, context))),
            _ => None,
        };
        let mut builder = Builder { read, format, rope, layouts: Vec::new() };
        let places = match &spec.positions {
            Positions::Rotary(_) => None,
            Positions::Learned { module, rows } => {
                Some(builder.numbers(&format!("{module}.weight"), &[*rows, hidden])?)
            }
            Positions::Sinusoidal { offset, zero_row } => {
                Some(sinusoidal(context, hidden, *offset, *zero_row))
            }
        };
        let is_tied = config.tie_word_embeddings;
        let embed = if is_tied { None } else { Some(builder.table(&spec.embed, vocab, hidden)?) };
        let layers = spec
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| builder.layer(i, layer))
            .collect::<Result<_>>()?;
        let norm = builder.norm(&spec.norm)?;
        let head = builder.head(&spec.head, if is_tied { &spec.embed } else { &spec.head.name })?;
        let shape = CacheShape::new(spec.layers.iter().map(|layer| {
            let attention = &layer.attention;
            (attention.kv_heads, attention.key_dim, attention.value_dim)
        }));
        Ok(Self {
            shape: Arc::new(shape),
            embed,
            places,
            layers,
            norm,
            head,
            layouts: builder.layouts,
            prefix: None,
            config,
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// The configuration, with the adapter merged.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Packs an adapter, to be used beside the weights. The base is not copied.
    ///
    /// # Errors
    /// A module this model does not have, or numbers of another count than its sizes ask for.
    pub fn adapter(&self, weights: &AdapterWeights) -> Result<DecodeAdapter> {
        let terms = AdapterTerms::new(weights, &self.layouts, &self.shape, self.context())?;
        Ok(DecodeAdapter(Arc::new(terms)))
    }

    /// Packs the adapter in `dir`, a folder of PEFT's.
    ///
    /// # Errors
    /// As [`Model::load_adapter`].
    pub fn load_adapter(&self, dir: &Path) -> Result<DecodeAdapter> {
        let own_copy = |name: &str, tensor: &Tensor| self.own_copy(name, tensor);
        let (_, plan, variables) = read_folder(dir, &self.config, &Device::Cpu, &own_copy)?;
        self.adapter(&AdapterWeights::of_plan(&plan, &variables, &self.config)?)
    }

    /// Whether a tensor of an adapter's file is, as it is stored here, the model's own embedding or output; `None` if
    /// it is neither of them.
    fn own_copy(&self, name: &str, tensor: &Tensor) -> Result<Option<bool>> {
        let spec = &self.config.spec;
        let Some(name) = own_name(name) else { return Ok(None) };
        let own = match name.strip_suffix(".weight") {
            Some(module) if module == spec.head.name => &self.head.weight,
            Some(module) if module == spec.embed => {
                self.embed.as_ref().unwrap_or(&self.head.weight)
            }
            _ => return Ok(None),
        };
        if tensor.dims() != [own.n(), own.k()] {
            return Ok(Some(false));
        }
        let data = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Some(own.same_as(&data)))
    }

    /// An empty cache for at most `capacity` tokens, and at most the model's context.
    pub fn cache(&self, capacity: usize) -> KvCache {
        match &self.prefix {
            None => KvCache::new(self.shape.clone(), capacity.min(self.context())),
            Some(prefix) => prefix.cache(capacity, self.context()),
        }
    }

    /// The same for a text that is computed with an adapter, whose virtual tokens take places of the context.
    ///
    /// # Errors
    /// An adapter that was packed for another model.
    pub fn cache_with(&self, adapter: &DecodeAdapter, capacity: usize) -> Result<KvCache> {
        if !Arc::ptr_eq(&adapter.0.shape, &self.shape) {
            return Err(ModelError::Input("the adapter was packed for another model".to_owned()));
        }
        Ok(adapter.cache(capacity, self.context()))
    }

    /// Tokens that a text can have: what a prefix leaves of the context.
    pub fn longest_text(&self) -> usize {
        self.context() - self.prefix.as_ref().map_or(0, DecodeAdapter::n_virtual_tokens)
    }

    /// Positions of a text. Those that dynamic scaling would add are left out: they would change what comes before.
    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Reads every row's tokens and returns its logits: `[ids, vocab_size]` or `[1, vocab_size]`, row after row.
    ///
    /// # Errors
    /// A row without tokens, a token outside the vocabulary, a full cache or one of another model; then no cache has changed.
    pub fn forward(&self, batch: &mut [DecodeRow]) -> Result<Vec<Vec<f32>>> {
        for (i, row) in batch.iter().enumerate() {
            self.check(row).map_err(|message| ModelError::Input(format!("row {i}: {message}")))?;
        }
        let vocab = self.config.vocab_size;
        let mut logits: Vec<Vec<f32>> = batch
            .iter()
            .map(|row| Vec::with_capacity(vocab * if row.all_logits { row.ids.len() } else { 1 }))
            .collect();
        let n_tokens: usize = batch.iter().map(|row| row.ids.len()).sum();
        if n_tokens * self.config.vocab_size * self.config.hidden_size < MIN_SHARED {
            self.passes(batch, &mut logits, &Team::alone());
        } else {
            Team::with(|team| self.passes(batch, &mut logits, team));
        }
        Ok(logits)
    }

    fn check(&self, row: &DecodeRow) -> Result<(), String> {
        if row.ids.is_empty() {
            return Err("has no tokens".to_owned());
        }
        if !Arc::ptr_eq(&row.cache.shape, &self.shape) {
            return Err("its cache belongs to another model".to_owned());
        }
        if let Some(id) = row.ids.iter().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(format!(
                "token {id} is outside the vocabulary of {}",
                self.config.vocab_size
            ));
        }
        let end = row.cache.len() + row.ids.len();
        if end > row.cache.capacity() {
            return Err(format!(
                "{end} tokens exceed the cache's capacity of {}",
                row.cache.capacity()
            ));
        }
        Ok(())
    }

    /// Runs rows in passes of a bounded number of tokens.
    fn passes(&self, rows: &mut [DecodeRow], logits: &mut [Vec<f32>], team: &Team) {
        let mut scratch = self
            .scratch
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        let mut tokens = Vec::with_capacity(MAX_TOKENS);
        for index in 0..rows.len() {
            let row = &mut rows[index];
            let start = row.cache.end();
            row.cache.reserve(start + row.ids.len());
            let (ids, all) = (row.ids, row.all_logits);
            for (i, id) in ids.iter().enumerate() {
                let wanted = all || i + 1 == ids.len();
                tokens.push(Token { row: index, position: start + i, id: *id, wanted });
                if tokens.len() == MAX_TOKENS {
                    self.pass(rows, &tokens, &mut scratch, logits, team);
                    tokens.clear();
                }
            }
        }
        if !tokens.is_empty() {
            self.pass(rows, &tokens, &mut scratch, logits, team);
        }
        self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(scratch);
    }

    /// Computes tokens of consecutive rows through all layers.
    fn pass(
        &self,
        rows: &mut [DecodeRow],
        tokens: &[Token],
        scratch: &mut Scratch,
        logits: &mut [Vec<f32>],
        team: &Team,
    ) {
        let hidden = self.config.hidden_size;
        let users = Users::new(tokens.iter().map(|token| rows[token.row].cache.adapter.as_ref()));
        let Scratch { x, h, projected, attention, mlp, logits: out } = scratch;
        x.resize(tokens.len() * hidden, 0.0);
        h.resize(tokens.len() * hidden, 0.0);
        each_row(team, x, hidden, |i, x| self.embed(tokens[i], x));
        let mut pass = Pass { rows, tokens, users: &users, team };
        for layer in &self.layers {
            each_row(team, h, hidden, |i, h| {
                layer.input_norm.forward(&x[i * hidden..][..hidden], h);
            });
            layer.attention.forward(h, projected, &mut pass, attention);
            add_rows(team, x, projected, hidden);
            if let Some(norm) = &layer.mlp_norm {
                each_row(team, h, hidden, |i, h| norm.forward(&x[i * hidden..][..hidden], h));
            }
            layer.mlp.forward(h, projected, &users, mlp, team);
            add_rows(team, x, projected, hidden);
        }
        let rows = pass.rows;
        for token in tokens {
            rows[token.row].cache.set_end(token.position + 1);
        }
        h.clear();
        let mut wanted = Vec::new();
        for (i, (token, x)) in tokens.iter().zip(x.chunks_exact(hidden)).enumerate() {
            if token.wanted {
                wanted.push(i);
                let start = h.len();
                h.resize(start + hidden, 0.0);
                self.norm.forward(x, &mut h[start..]);
            }
        }
        self.head.forward(h, out, &users.select(&wanted), team);
        for (i, out) in wanted.iter().zip(out.chunks_exact(self.config.vocab_size)) {
            logits[tokens[*i].row].extend_from_slice(out);
        }
    }

    fn embed(&self, token: Token, x: &mut [f32]) {
        self.embed.as_ref().unwrap_or(&self.head.weight).read_row(token.id as usize, x);
        let scale = self.config.spec.embed_scale;
        if scale != 1.0 {
            for x in x.iter_mut() {
                *x *= scale;
            }
        }
        if let Some(places) = &self.places {
            add(x, &places[token.position * x.len()..]);
        }
    }
}

/// Calls `body` for every row of `data`. Rows are shared where there are several; a single one is quicker done than
/// handed over.
fn each_row(team: &Team, data: &mut [f32], width: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() < 4 * width {
        data.chunks_exact_mut(width).enumerate().for_each(|(i, row)| body(i, row));
    } else {
        team.chunks(data, width, body);
    }
}

fn add_rows(team: &Team, x: &mut [f32], y: &[f32], width: usize) {
    each_row(team, x, width, |i, x| add(x, &y[i * width..]));
}

/// Adds as many of `y` as `x` has.
fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
