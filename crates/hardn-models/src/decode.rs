//! The decoder for generation: packed weights, a cache, and logits that do not depend on how work is cut.

use std::sync::{Arc, Mutex};

use crate::{
    KvCache, LlamaConfig, Model, ModelError, Result, WeightFormat,
    kernels::{Packed, Team, silu, softmax},
    kv_cache::{BLOCK, CacheShape},
    ops::inverse_rms,
    rope::Rope,
};

/// Most tokens computed side by side; bounds the size of buffers.
const MAX_TOKENS: usize = 384;
/// Below this many weights times tokens one thread does all.
const MIN_SHARED: usize = 1 << 17;

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
    config: LlamaConfig,
    rope: Arc<Rope>,
    /// `[vocab_size, hidden_size]`, where the head has other weights.
    embed: Option<Vec<f32>>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Packed,
    /// Buffers of finished calls, for the next ones.
    scratch: Mutex<Vec<Scratch>>,
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
        Self::with_weights(model, WeightFormat::F32)
    }

    /// The same with weights of linear modules stored in another format. Results are still added in f32 and do not
    /// depend on how the work is cut.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn with_weights(model: &Model, format: WeightFormat) -> Result<Self> {
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
            Ok(Packed::new(k, &weights, biases.as_deref(), format))
        };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
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
            rope: merged.rope().clone(),
            embed: (!config.tie_word_embeddings)
                .then(|| read("model.embed_tokens.weight"))
                .transpose()?,
            layers,
            norm: read("model.norm.weight")?,
            head: pack(&[head.to_owned()], hidden)?,
            config,
            scratch: Mutex::new(Vec::new()),
        })
    }

    /// The configuration, with the adapter merged.
    pub fn config(&self) -> &LlamaConfig {
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

    fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.config.num_hidden_layers,
            kv_heads: self.config.num_key_value_heads,
            dim: self.config.head_dim,
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
            let start = row.cache.len();
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
        let config = &self.config;
        let (hidden, dim) = (config.hidden_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * dim, config.num_key_value_heads * dim);
        let eps = config.rms_norm_eps as f32;
        let n = tokens.len();
        // Loops over tokens are shared where there are several; a single one is quicker done than handed over.
        let alone = Team::alone();
        let by_token = if n < 4 { &alone } else { team };
        let Scratch { x, h, qkv, attended, projected, gate_up, inner, logits: out } = scratch;
        x.resize(n * hidden, 0.0);
        by_token.chunks(x, hidden, |i, x| {
            let id = tokens[i].id as usize;
            match &self.embed {
                Some(embed) => x.copy_from_slice(&embed[id * hidden..][..hidden]),
                None => self.head.read_row(id, x),
            }
        });
        h.resize(n * hidden, 0.0);
        projected.resize(n * hidden, 0.0);
        for (layer, weights) in self.layers.iter().enumerate() {
            let norm = |i: usize, h: &mut [f32]| {
                norm_row(&x[i * hidden..][..hidden], &weights.input_norm, eps, h);
            };
            by_token.chunks(h, hidden, norm);
            let width = queries + 2 * keys;
            qkv.resize(n * width, 0.0);
            weights.qkv.multiply(h, qkv, team);
            by_token.chunks(qkv, width, |i, qkv| {
                for head in qkv[..queries + keys].chunks_exact_mut(dim) {
                    self.rope.rotate(tokens[i].position, head);
                }
            });
            for (token, qkv) in tokens.iter().zip(qkv.chunks_exact(width)) {
                let (keys, values) = qkv[queries..].split_at(keys);
                let cache = &mut *rows[token.row].cache;
                let heads = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
                for (kv_head, (key, value)) in heads.enumerate() {
                    cache.write(layer, kv_head, token.position, key, value);
                }
            }
            attended.resize(n * queries, 0.0);
            let group = queries / config.num_key_value_heads;
            team.chunks(attended, group, |i, out| {
                let (i, kv_head) = (i / config.num_key_value_heads, i % config.num_key_value_heads);
                let token = tokens[i];
                let queries = &qkv[i * width + kv_head * group..][..group];
                self.attend(layer, kv_head, rows[token.row].cache, token.position, queries, out);
            });
            weights.o.multiply(attended, projected, team);
            by_token.chunks(x, hidden, |i, x| add(x, &projected[i * hidden..][..hidden]));
            let norm = |i: usize, h: &mut [f32]| {
                norm_row(&x[i * hidden..][..hidden], &weights.mlp_norm, eps, h);
            };
            by_token.chunks(h, hidden, norm);
            gate_up.resize(n * weights.gate_up.n(), 0.0);
            weights.gate_up.multiply(h, gate_up, team);
            let width = config.intermediate_size;
            inner.resize(n * width, 0.0);
            by_token.chunks(inner, width, |i, inner| {
                let (gate, up) = gate_up[i * 2 * width..][..2 * width].split_at(width);
                for ((inner, gate), up) in inner.iter_mut().zip(gate).zip(up) {
                    *inner = silu(*gate) * up;
                }
            });
            weights.down.multiply(inner, projected, team);
            by_token.chunks(x, hidden, |i, x| add(x, &projected[i * hidden..][..hidden]));
        }
        for token in tokens {
            rows[token.row].cache.set_len(token.position + 1);
        }
        h.clear();
        for (token, x) in tokens.iter().zip(x.chunks_exact(hidden)) {
            if token.wanted {
                let start = h.len();
                h.resize(start + hidden, 0.0);
                norm_row(x, &self.norm, eps, &mut h[start..]);
            }
        }
        out.resize(h.len() / hidden * config.vocab_size, 0.0);
        self.head.multiply(h, out, team);
        let wanted = tokens.iter().filter(|token| token.wanted);
        for (token, out) in wanted.zip(out.chunks_exact(config.vocab_size)) {
            logits[token.row].extend_from_slice(out);
        }
    }

    /// Attention of one position's heads that share keys over itself and what precedes it.
    fn attend(
        &self,
        layer: usize,
        kv_head: usize,
        cache: &KvCache,
        position: usize,
        queries: &[f32],
        out: &mut [f32],
    ) {
        let dim = self.config.head_dim;
        let n = position + 1;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0_f32; n.next_multiple_of(BLOCK)];
        for (q, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
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

fn norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = inverse_rms(x, eps);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inverse * weight;
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
