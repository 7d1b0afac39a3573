//! The decoder for generation: packed weights, a cache, and logits that do not depend on how work is cut.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::{
    KvCache, Model, ModelConfig, ModelError, Result,
    config::spec::{MlpSpec, Positions},
    kernels::{Packed, silu, softmax},
    kv_cache::{BLOCK, CacheShape},
    ops::inverse_rms,
    rope::Rope,
};

/// Most tokens computed side by side by one thread; bounds the size of buffers.
const MAX_TOKENS: usize = 192;

/// One text's part of a batch.
pub struct DecodeRow<'a> {
    /// What was read so far; grows by `ids`.
    pub cache: &'a mut KvCache,
    /// The tokens to read now; at least one.
    pub ids: &'a [u32],
    /// Logits after every token of `ids`, rather than after the last.
    pub all_logits: bool,
}

/// A model for generation, in f32 on the CPU. An adapter is merged into the weights.
///
/// The logits of a position are bitwise the same whatever shares its batch, however its text is cut into calls,
/// and for any number of threads.
pub struct DecodeModel {
    config: ModelConfig,
    rope: Arc<Rope>,
    sizes: Sizes,
    /// `[vocab_size, hidden_size]`
    embed: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Packed,
    /// Buffers of finished calls, for the next ones.
    scratch: Mutex<Vec<Scratch>>,
}

struct Sizes {
    inner: usize,
    head_dim: usize,
    kv_heads: usize,
    eps: f32,
}

struct Layer {
    input_norm: Vec<f32>,
    qkv: Packed,
    o: Packed,
    mlp_norm: Vec<f32>,
    gate_up: Packed,
    down: Packed,
}

/// Buffers of one thread; `[tokens, ..]`.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    h: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    projected: Vec<f32>,
    gate_up: Vec<f32>,
    inner: Vec<f32>,
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

impl DecodeModel {
    /// Packs a model's weights, with its adapter merged where one is attached.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn new(model: &Model) -> Result<Self> {
        let merged = model.merged()?;
        let weights = merged.weights();
        let config = merged.config().clone();
        let read = |name: &str| -> Result<Vec<f32>> {
            let var = weights.get(name).ok_or_else(|| ModelError::Input(format!("no `{name}`")))?;
            Ok(var.flatten_all()?.to_vec1::<f32>()?)
        };
        let pack = |names: &[String], k: usize| -> Result<Packed> {
            let of = |suffix: &str| -> Result<Vec<Vec<f32>>> {
                names.iter().map(|name| read(&format!("{name}.{suffix}"))).collect()
            };
            let with_bias = weights.contains_key(&format!("{}.bias", names[0]));
            let biases = if with_bias { Some(of("bias")?) } else { None };
            let biases: Option<Vec<&[f32]>> =
                biases.as_ref().map(|b| b.iter().map(Vec::as_slice).collect());
            let weights = of("weight")?;
            let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
            Ok(Packed::new(k, &weights, biases.as_deref()))
        };
        let first = &config.spec.layers[0];
        let (MlpSpec::Dense(dense), Positions::Rotary(rotary)) =
            (&first.mlp, &config.spec.positions)
        else {
            return Err(ModelError::Input(format!("{} cannot be decoded yet", config.model_type)));
        };
        let (hidden, inner) = (config.hidden_size, dense.up.out);
        let sizes = Sizes {
            inner,
            head_dim: first.attention.key_dim,
            kv_heads: first.attention.kv_heads,
            eps: first.input_norm.eps as f32,
        };
        let rope = Arc::new(Rope::new(rotary, config.max_position_embeddings));
        let queries = config.num_attention_heads * sizes.head_dim;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let names = |parts: &[&str]| -> Vec<String> {
                parts.iter().map(|part| format!("model.layers.{i}.{part}")).collect()
            };
            layers.push(Layer {
                input_norm: read(&format!("model.layers.{i}.input_layernorm.weight"))?,
                qkv: pack(
                    &names(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
                    hidden,
                )?,
                o: pack(&names(&["self_attn.o_proj"]), queries)?,
                mlp_norm: read(&format!("model.layers.{i}.post_attention_layernorm.weight"))?,
                gate_up: pack(&names(&["mlp.gate_proj", "mlp.up_proj"]), hidden)?,
                down: pack(&names(&["mlp.down_proj"]), inner)?,
            });
        }
        let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        Ok(Self {
            rope,
            sizes,
            embed: read("model.embed_tokens.weight")?,
            layers,
            norm: read("model.norm.weight")?,
            head: pack(&[head.to_owned()], hidden)?,
            config,
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// The configuration, with the adapter merged.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// An empty cache for at most `capacity` tokens, and at most the model's context.
    pub fn cache(&self, capacity: usize) -> KvCache {
        KvCache::new(self.cache_shape(), capacity.min(self.config.max_position_embeddings))
    }

    /// Reads every row's tokens and returns its logits: `[ids, vocab_size]` or `[1, vocab_size]`, row after row.
    ///
    /// # Errors
    /// A row without tokens, a token outside the vocabulary, a full cache or one of another model; then no cache has changed.
    pub fn forward(&self, batch: &mut [DecodeRow]) -> Result<Vec<Vec<f32>>> {
        for (i, row) in batch.iter().enumerate() {
            self.check(row).map_err(|message| ModelError::Input(format!("row {i}: {message}")))?;
        }
        let threads = rayon::current_num_threads();
        let n_tokens: usize = batch.iter().map(|row| row.ids.len()).sum();
        let longest = batch.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let work = n_tokens * self.embed.len();
        if threads == 1 || batch.len() == 1 || longest * threads > n_tokens * 2 || work < 1 << 20 {
            return Ok(self.group(batch, threads > 1));
        }
        // Whole rows per thread: no thread waits for another between layers.
        let mut groups: Vec<&mut [DecodeRow]> = Vec::new();
        let mut rest = batch;
        let share = n_tokens.div_ceil(threads);
        while !rest.is_empty() {
            let mut taken = 0;
            let mut tokens = 0;
            while taken < rest.len() && (tokens == 0 || tokens + rest[taken].ids.len() <= share) {
                tokens += rest[taken].ids.len();
                taken += 1;
            }
            let (group, others) = rest.split_at_mut(taken);
            groups.push(group);
            rest = others;
        }
        let wide = groups.len() < threads;
        let logits: Vec<Vec<Vec<f32>>> =
            groups.into_par_iter().map(|group| self.group(group, wide)).collect();
        Ok(logits.into_iter().flatten().collect())
    }

    fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.config.num_hidden_layers,
            kv_heads: self.sizes.kv_heads,
            dim: self.sizes.head_dim,
        }
    }

    fn check(&self, row: &DecodeRow) -> Result<(), String> {
        if row.ids.is_empty() {
            return Err("has no tokens".to_owned());
        }
        if row.cache.shape != self.cache_shape() {
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
    fn group(&self, rows: &mut [DecodeRow], parallel: bool) -> Vec<Vec<f32>> {
        let mut scratch = self
            .scratch
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        let vocab = self.config.vocab_size;
        let mut logits: Vec<Vec<f32>> = rows
            .iter()
            .map(|row| Vec::with_capacity(vocab * if row.all_logits { row.ids.len() } else { 1 }))
            .collect();
        let mut tokens = Vec::with_capacity(MAX_TOKENS);
        let most = if parallel { MAX_TOKENS * rayon::current_num_threads() } else { MAX_TOKENS };
        for index in 0..rows.len() {
            let row = &mut rows[index];
            let start = row.cache.len();
            row.cache.reserve(start + row.ids.len());
            let (ids, all) = (row.ids, row.all_logits);
            for (i, id) in ids.iter().enumerate() {
                let wanted = all || i + 1 == ids.len();
                tokens.push(Token { row: index, position: start + i, id: *id, wanted });
                if tokens.len() == most {
                    self.pass(rows, &tokens, &mut scratch, &mut logits, parallel);
                    tokens.clear();
                }
            }
        }
        if !tokens.is_empty() {
            self.pass(rows, &tokens, &mut scratch, &mut logits, parallel);
        }
        self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(scratch);
        logits
    }

    /// Computes tokens of consecutive rows through all layers.
    fn pass(
        &self,
        rows: &mut [DecodeRow],
        tokens: &[Token],
        scratch: &mut Scratch,
        logits: &mut [Vec<f32>],
        parallel: bool,
    ) {
        let config = &self.config;
        let (hidden, dim) = (config.hidden_size, self.sizes.head_dim);
        let (queries, keys) = (config.num_attention_heads * dim, self.sizes.kv_heads * dim);
        let eps = self.sizes.eps;
        let n = tokens.len();
        let Scratch { x, h, qkv, attended, projected, gate_up, inner, logits: out } = scratch;
        x.clear();
        for token in tokens {
            x.extend_from_slice(&self.embed[token.id as usize * hidden..][..hidden]);
        }
        h.resize(n * hidden, 0.0);
        projected.resize(n * hidden, 0.0);
        for (layer, weights) in self.layers.iter().enumerate() {
            norm_rows(x, &weights.input_norm, eps, h);
            qkv.resize(n * weights.qkv.n(), 0.0);
            weights.qkv.multiply(h, qkv, parallel);
            for (token, qkv) in tokens.iter().zip(qkv.chunks_exact_mut(queries + 2 * keys)) {
                let (turned, values) = qkv.split_at_mut(queries + keys);
                for head in turned.chunks_exact_mut(dim) {
                    self.rope.rotate(token.position, head);
                }
                let cache = &mut *rows[token.row].cache;
                let heads = turned[queries..].chunks_exact(dim).zip(values.chunks_exact(dim));
                for (kv_head, (key, value)) in heads.enumerate() {
                    cache.write(layer, kv_head, token.position, key, value);
                }
            }
            attended.resize(n * queries, 0.0);
            let attend = |(token, (qkv, out)): (&Token, (&[f32], &mut [f32]))| {
                self.attend(layer, rows[token.row].cache, token.position, &qkv[..queries], out);
            };
            let width = queries + 2 * keys;
            if parallel && n > 8 {
                tokens
                    .par_iter()
                    .zip(qkv.par_chunks_exact(width).zip(attended.par_chunks_exact_mut(queries)))
                    .for_each(attend);
            } else {
                tokens
                    .iter()
                    .zip(qkv.chunks_exact(width).zip(attended.chunks_exact_mut(queries)))
                    .for_each(attend);
            }
            weights.o.multiply(attended, projected, parallel);
            add(x, projected);
            norm_rows(x, &weights.mlp_norm, eps, h);
            gate_up.resize(n * weights.gate_up.n(), 0.0);
            weights.gate_up.multiply(h, gate_up, parallel);
            let width = self.sizes.inner;
            inner.resize(n * width, 0.0);
            for (inner, gate_up) in
                inner.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width))
            {
                let (gate, up) = gate_up.split_at(width);
                for ((inner, gate), up) in inner.iter_mut().zip(gate).zip(up) {
                    *inner = silu(*gate) * up;
                }
            }
            weights.down.multiply(inner, projected, parallel);
            add(x, projected);
        }
        for token in tokens {
            rows[token.row].cache.set_len(token.position + 1);
        }
        h.clear();
        for (token, x) in tokens.iter().zip(x.chunks_exact(hidden)) {
            if token.wanted {
                let start = h.len();
                h.resize(start + hidden, 0.0);
                norm_rows(x, &self.norm, eps, &mut h[start..]);
            }
        }
        out.resize(h.len() / hidden * config.vocab_size, 0.0);
        self.head.multiply(h, out, parallel);
        let wanted = tokens.iter().filter(|token| token.wanted);
        for (token, out) in wanted.zip(out.chunks_exact(config.vocab_size)) {
            logits[token.row].extend_from_slice(out);
        }
    }

    /// Attention of one position's heads over itself and what precedes it.
    fn attend(
        &self,
        layer: usize,
        cache: &KvCache,
        position: usize,
        queries: &[f32],
        out: &mut [f32],
    ) {
        let dim = self.sizes.head_dim;
        let group = self.config.num_attention_heads / self.sizes.kv_heads;
        let n = position + 1;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0_f32; n.next_multiple_of(BLOCK)];
        for (index, (q, out)) in
            queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate()
        {
            let kv_head = index / group;
            let (blocks, _) = scores.as_chunks_mut::<BLOCK>();
            for (scores, (keys, _)) in blocks.iter_mut().zip(cache.head(layer, kv_head)) {
                let mut sums = [0.0_f32; BLOCK];
                for (q, keys) in q.iter().zip(keys.as_chunks::<BLOCK>().0) {
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = q.mul_add(*key, *sum);
                    }
                }
                *scores = sums;
            }
            softmax(&mut scores[..n], scale);
            let values = cache.head(layer, kv_head).map(|(_, values)| values);
            weigh(&scores[..n], values, out);
        }
    }
}

/// `out[d] = sum of weight[t] * value[t][d]`, even and odd positions in a chain each.
fn weigh<'a>(weights: &[f32], values: impl Iterator<Item = &'a [f32]> + Clone, out: &mut [f32]) {
    let dim = out.len();
    let mut first = 0;
    while first < dim {
        first += match dim - first {
            32.. => weigh_lanes::<32>(weights, values.clone(), first, out),
            8.. => weigh_lanes::<8>(weights, values.clone(), first, out),
            _ => weigh_lanes::<1>(weights, values.clone(), first, out),
        };
    }
}

#[inline]
fn weigh_lanes<'a, const LANES: usize>(
    weights: &[f32],
    values: impl Iterator<Item = &'a [f32]>,
    first: usize,
    out: &mut [f32],
) -> usize {
    let dim = out.len();
    let mut even = [0.0_f32; LANES];
    let mut odd = [0.0_f32; LANES];
    let add = |sums: &mut [f32; LANES], weight: f32, values: &[f32]| {
        let values: &[f32; LANES] = values[first..first + LANES].try_into().expect("LANES values");
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = weight.mul_add(*value, *sum);
        }
    };
    for (weights, values) in weights.chunks(BLOCK).zip(values) {
        let (weights, last_weight) = weights.as_chunks::<2>();
        for (weights, values) in weights.iter().zip(values.chunks_exact(2 * dim)) {
            add(&mut even, weights[0], values);
            add(&mut odd, weights[1], &values[dim..]);
        }
        if let [weight] = last_weight {
            add(&mut even, *weight, &values[weights.len() * 2 * dim..]);
        }
    }
    for ((out, even), odd) in out[first..first + LANES].iter_mut().zip(even).zip(odd) {
        *out = even + odd;
    }
    LANES
}

fn norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
        let inverse = inverse_rms(x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * inverse * weight;
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
