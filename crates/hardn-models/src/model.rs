//! A Llama-style decoder as a differentiable function.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use candle_core::{Device, Tensor, Var};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    LlamaConfig, LoraConfig, ModelError, Result, SaveDtype,
    checkpoint::{load_weights, write_file},
    linear::{Linear, Pass},
    ops::{self, Activation, AttentionShape, elementary},
    rng::Stream,
    rope::Rope,
    tokenizer::write_json,
};

/// Spread of random initial weights, as in GPT-2; also transformers' `initializer_range`.
const INITIAL_STD: f64 = 0.02;

/// What counts in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// The attached adapter counts; `false` gives the base model.
    pub adapter: bool,
    /// Dropout of the adapter, as a function of this seed; `None` for evaluation.
    pub dropout_seed: Option<u64>,
    /// The result can be differentiated; `false` keeps no intermediate results.
    pub grad: bool,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self { adapter: true, dropout_seed: None, grad: true }
    }
}

impl ForwardOptions {
    /// Adapter on, no dropout, no gradient.
    pub fn evaluate() -> Self {
        Self { grad: false, ..Self::default() }
    }

    /// The base model, without gradient.
    pub fn base() -> Self {
        Self { adapter: false, grad: false, dropout_seed: None }
    }
}

/// A Llama-style model in f32, with or without a LoRA adapter.
///
/// Without an adapter all weights can be trained; with one the weights are frozen.
pub struct Model {
    config: LlamaConfig,
    device: Device,
    fused: bool,
    embed: Var,
    layers: Vec<Layer>,
    norm: Var,
    head: Linear,
    rope: Arc<Rope>,
    shape: AttentionShape,
    adapter: Option<LoraConfig>,
}

struct Layer {
    input_norm: Var,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    mlp_norm: Var,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn linears(&self) -> [&Linear; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.q,
            &mut self.k,
            &mut self.v,
            &mut self.o,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
    }
}

impl Model {
    /// Reads `config.json` and `model.safetensors` (or its shards) in `dir`; weights become f32.
    ///
    /// # Errors
    /// Files that cannot be read, a model this crate does not compute, or tensors that are missing, too many or misshapen.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let config = LlamaConfig::load(dir)?;
        let weights = load_weights(dir, &config.tensors(), device)?;
        Self::from_weights(config, weights, device)
    }

    /// A model with random weights, on the CPU: normal with standard deviation 0.02, divided by the root of the
    /// number of residual additions for the projections that end in one; norms are 1, biases 0.
    ///
    /// # Errors
    /// A configuration whose sizes contradict each other.
    pub fn random(config: &LlamaConfig, seed: u64) -> Result<Self> {
        config.check(Path::new("config"))?;
        let residual = INITIAL_STD / (2.0 * config.num_hidden_layers as f64).sqrt();
        let mut weights = BTreeMap::new();
        for (name, shape) in config.tensors() {
            let n = shape.iter().product();
            let data = if name.ends_with("norm.weight") {
                vec![1.0; n]
            } else if name.ends_with("bias") {
                vec![0.0; n]
            } else {
                let ends_in_sum = name.contains("o_proj") || name.contains("down_proj");
                let std = if ends_in_sum { residual } else { INITIAL_STD };
                let mut stream = Stream::new(seed, &name);
                (0..n).map(|_| (stream.normal() * std) as f32).collect()
            };
            weights.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
        }
        Self::from_weights(config.clone(), weights, &Device::Cpu)
    }

    /// A model of the given weights, named as in a checkpoint.
    ///
    /// # Errors
    /// Weights that are missing or misshapen.
    pub fn from_weights(
        config: LlamaConfig,
        mut weights: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let wanted = config.tensors();
        let mut take = |name: &str| {
            let error = |message: String| ModelError::Tensor {
                path: "weights".into(),
                name: name.to_owned(),
                message,
            };
            let tensor = weights.remove(name).ok_or_else(|| error("is missing".to_owned()))?;
            if wanted.get(name).map(Vec::as_slice) != Some(tensor.dims()) {
                return Err(error(format!("has the unexpected shape {:?}", tensor.dims())));
            }
            Ok(Var::from_tensor(&tensor)?)
        };
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            let mut linear = |name: &str, bias: bool| {
                let name = format!("model.layers.{i}.{name}");
                let weight = take(&format!("{name}.weight"))?;
                let bias = bias.then(|| take(&format!("{name}.bias"))).transpose()?;
                Ok::<_, ModelError>(Linear { name, weight, bias, lora: None })
            };
            layers.push(Layer {
                q: linear("self_attn.q_proj", config.attention_bias)?,
                k: linear("self_attn.k_proj", config.attention_bias)?,
                v: linear("self_attn.v_proj", config.attention_bias)?,
                o: linear("self_attn.o_proj", config.attention_bias)?,
                gate: linear("mlp.gate_proj", config.mlp_bias)?,
                up: linear("mlp.up_proj", config.mlp_bias)?,
                down: linear("mlp.down_proj", config.mlp_bias)?,
                input_norm: take(&format!("model.layers.{i}.input_layernorm.weight"))?,
                mlp_norm: take(&format!("model.layers.{i}.post_attention_layernorm.weight"))?,
            });
        }
        let embed = take("model.embed_tokens.weight")?;
        let norm = take("model.norm.weight")?;
        let weight =
            if config.tie_word_embeddings { embed.clone() } else { take("lm_head.weight")? };
        let head = Linear { name: "lm_head".to_owned(), weight, bias: None, lora: None };
        let rope = Arc::new(Rope::new(&config));
        let shape = AttentionShape {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            key_dim: config.head_dim,
            value_dim: config.head_dim,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            rope: Some(rope.clone()),
            window: None,
            prefix: 0,
        };
        let (device, fused) = (device.clone(), device.is_cpu());
        Ok(Self { config, device, fused, embed, layers, norm, head, rope, shape, adapter: None })
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
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

    /// The attached adapter's configuration.
    pub fn adapter_config(&self) -> Option<&LoraConfig> {
        self.adapter.as_ref()
    }

    pub(crate) fn set_adapter(&mut self, adapter: Option<LoraConfig>) {
        self.adapter = adapter;
    }

    /// Fused CPU kernels (the default on the CPU), or elementary operations, which any device has.
    pub fn set_fused(&mut self, fused: bool) {
        self.fused = fused && self.device.is_cpu();
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
    /// `ids`: `[b, s]` u32; returns `[b, s, hidden_size]` f32.
    ///
    /// # Errors
    /// An id outside the vocabulary, or a text longer than the context.
    pub fn hidden(&self, ids: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        let (batch, seq) = ids.dims2()?;
        if seq > self.config.max_position_embeddings {
            return Err(ModelError::Input(format!(
                "{seq} tokens exceed the model's context of {}",
                self.config.max_position_embeddings
            )));
        }
        let pass = self.pass(options);
        let ids = ids.flatten_all()?;
        let mut x = pass.weight(&self.embed).index_select(&ids, 0)?.reshape((
            batch,
            seq,
            self.config.hidden_size,
        ))?;
        for layer in &self.layers {
            let h = self.rms_norm(&x, &layer.input_norm, pass)?;
            let q = layer.q.forward(&h, pass)?;
            let k = layer.k.forward(&h, pass)?;
            let v = layer.v.forward(&h, pass)?;
            let h = if pass.fused {
                ops::attention(&q, &k, &v, &self.shape)?
            } else {
                elementary::attention(&q, &k, &v, &self.shape)?
            };
            x = (x + layer.o.forward(&h, pass)?)?;
            let h = self.rms_norm(&x, &layer.mlp_norm, pass)?;
            let (gate, up) = (layer.gate.forward(&h, pass)?, layer.up.forward(&h, pass)?);
            let h = if pass.fused {
                ops::gated(Activation::Silu, &gate, &up)?
            } else {
                elementary::gated(Activation::Silu, &gate, &up)?
            };
            x = (x + layer.down.forward(&h, pass)?)?;
        }
        self.rms_norm(&x, &self.norm, pass)
    }

    /// Logits of hidden states.
    ///
    /// # Shapes
    /// `hidden`: `[n, hidden_size]` f32; returns `[n, vocab_size]` f32.
    ///
    /// # Errors
    /// A tensor of another width.
    pub fn head(&self, hidden: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        self.head.forward(hidden, self.pass(options))
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

    /// What is trained, sorted by name: the adapter's tensors under PEFT's names where one is attached, else all weights.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let variables = match &self.adapter {
            Some(_) => self.adapter_variables(),
            None => self.weights(),
        };
        variables.into_iter().collect()
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors`, such that
    /// `LlamaForCausalLM.from_pretrained` reads the same model. The adapter is not part of it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<()> {
        fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))?;
        let tensors: BTreeMap<String, Tensor> = self
            .weights()
            .into_iter()
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        write_file(&dir.join("model.safetensors"), &tensors, dtype)?;
        let mut generation = Map::new();
        for (key, value) in [
            ("bos_token_id", json!(self.config.bos_token_id)),
            ("eos_token_id", json!(self.config.eos_token_id)),
            ("pad_token_id", json!(self.config.pad_token_id)),
        ] {
            if !value.is_null() {
                generation.insert(key.to_owned(), value);
            }
        }
        write_json(&dir.join("generation_config.json"), &Value::Object(generation))?;
        write_json(&dir.join("config.json"), &self.config.to_json(dtype.name()))
    }

    /// SHA-256, in hexadecimal, of everything that determines logits: configuration, weights and adapter.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(self.config.to_json("float32").to_string());
        if let Some(adapter) = &self.adapter {
            hash.update(adapter.to_json().to_string());
        }
        let adapter = self.adapter_variables();
        for (name, var) in self.weights().iter().chain(&adapter) {
            hash.update(name);
            hash.update(format!("{:?}", var.dims()));
            let data = var.flatten_all()?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
            hash.update(bytes);
        }
        Ok(format!("{:x}", hash.finalize()))
    }

    /// A model without adapter whose weights include it. A copy: training one does not change the other.
    ///
    /// # Errors
    /// Whatever the tensor library reports.
    pub fn merged(&self) -> Result<Self> {
        let mut config = self.config.clone();
        // A term on a tied output must not change the embedding.
        if self.head.lora.is_some() {
            config.tie_word_embeddings = false;
        }
        let mut weights = BTreeMap::new();
        for (name, var) in self.weights() {
            weights.insert(name, var.as_detached_tensor());
        }
        for linear in self.linears() {
            let name = format!("{}.weight", linear.name);
            if linear.lora.is_some() {
                weights.insert(name, linear.merged()?);
            }
        }
        Self::from_weights(config, weights, &self.device)
    }

    /// Names and tensors of the checkpoint, sorted.
    pub(crate) fn weights(&self) -> BTreeMap<String, Var> {
        let mut weights = BTreeMap::from([
            ("model.embed_tokens.weight".to_owned(), self.embed.clone()),
            ("model.norm.weight".to_owned(), self.norm.clone()),
        ]);
        for (i, layer) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            weights.insert(name("input_layernorm"), layer.input_norm.clone());
            weights.insert(name("post_attention_layernorm"), layer.mlp_norm.clone());
        }
        for linear in self.linears() {
            if linear.name == "lm_head" && self.config.tie_word_embeddings {
                continue;
            }
            weights.insert(format!("{}.weight", linear.name), linear.weight.clone());
            if let Some(bias) = &linear.bias {
                weights.insert(format!("{}.bias", linear.name), bias.clone());
            }
        }
        weights
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::linears).chain([&self.head])
    }

    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(Layer::linears_mut).chain([&mut self.head])
    }

    pub(crate) fn rope(&self) -> &Arc<Rope> {
        &self.rope
    }

    pub(crate) fn pass(&self, options: &ForwardOptions) -> Pass {
        Pass {
            fused: self.fused,
            adapter: options.adapter,
            weights_grad: options.grad && self.adapter.is_none(),
            adapter_grad: options.grad,
            dropout_seed: options.dropout_seed,
        }
    }

    fn rms_norm(&self, x: &Tensor, weight: &Var, pass: Pass) -> Result<Tensor> {
        let weight = pass.weight(weight);
        let eps = self.config.rms_norm_eps;
        Ok(if pass.fused {
            ops::rms_norm(x, &weight, eps)?
        } else {
            elementary::rms_norm(x, &weight, eps)?
        })
    }
}
