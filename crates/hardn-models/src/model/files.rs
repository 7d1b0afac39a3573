//! A model from files, at random, and into files.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Model, Parts};
use crate::{
    ModelConfig, ModelError, Result, SaveDtype,
    adapter::{Slot, UseAdapter},
    checkpoint::{BaseWeights, SHARD_BYTES, Stock, Weights, write_weights},
    linear::{Linear, Weight},
    rng::Stream,
    tokenizer::write_json,
};

/// Spread of random initial weights, as in GPT-2; also transformers' `initializer_range`.
const INITIAL_STD: f64 = 0.02;

impl Model {
    /// Reads `config.json` and the weights in `dir`, or a GGUF file; weights become f32.
    ///
    /// # Errors
    /// Files that cannot be read, a model this crate does not compute, or tensors that are missing, too many or misshapen.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_as(dir, BaseWeights::Float(DType::F32), device)
    }

    /// The same with weights in another form.
    ///
    /// # Errors
    /// As [`Self::load`]; also quantised weights on another device than the CPU.
    pub fn load_as(dir: &Path, base: BaseWeights, device: &Device) -> Result<Self> {
        if !device.is_cpu() && !matches!(base, BaseWeights::Float(_)) {
            return Err(ModelError::Input(
                "quantised weights are computed on the CPU only".to_owned(),
            ));
        }
        let config = ModelConfig::load(dir)?;
        let stock = Stock::open(Weights::open(dir)?, &config.tensors(), base, device)?;
        Self::assemble(config, Parts::Files(stock), base.dtype(), device)
    }

    /// A model with random weights, on the CPU: normal with standard deviation 0.02, divided by the root of the
    /// number of residual additions for the projections that end in one; norms are 1, biases 0.
    ///
    /// # Errors
    /// Whatever the tensor library reports.
    pub fn random(config: &ModelConfig, seed: u64) -> Result<Self> {
        let residual = INITIAL_STD / (2.0 * config.num_hidden_layers as f64).sqrt();
        let spec = &config.spec;
        let is_norm = |module: &str| {
            spec.norm.name == module
                || spec.layers.iter().any(|layer| layer.norms().iter().any(|n| n.name == module))
        };
        let ends_in_sum = |module: &str| {
            ["o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc_out", "fc2"]
                .iter()
                .any(|name| module.ends_with(name))
        };
        let mut weights = BTreeMap::new();
        for (name, shape) in config.tensors() {
            let n = shape.iter().product();
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
            let is_bias = name.strip_prefix(module) == Some(".bias");
            let data = if is_bias {
                vec![0.0; n]
            } else if is_norm(module) {
                vec![1.0; n]
            } else {
                let std = if ends_in_sum(module) { residual } else { INITIAL_STD };
                let mut stream = Stream::new(seed, &name);
                (0..n).map(|_| (stream.normal() * std) as f32).collect()
            };
            weights.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
        }
        Self::from_weights(config.clone(), weights, &Device::Cpu)
    }

    /// Names and tensors as a checkpoint has them.
    pub(crate) fn published_weights(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut weights: BTreeMap<String, Tensor> = self
            .weights()
            .into_iter()
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        let is_other =
            |linear: &&Linear| linear.transposed || matches!(linear.weight, Weight::Quantised(_));
        for linear in self.linears().filter(is_other) {
            let name = format!("{}.weight", linear.name);
            weights.insert(name, linear.published(&linear.weight.dense()?)?);
        }
        Ok(weights)
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors` (in shards of 5 GB), such that
    /// `from_pretrained` reads the same model. Adapters are not part of it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: &Path, dtype: SaveDtype) -> Result<()> {
        fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))?;
        let weights = self.published_weights()?;
        let shapes = weights.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
        write_weights(
            dir,
            &shapes.collect(),
            dtype,
            SHARD_BYTES,
            |name| Ok(weights[name].clone()),
        )?;
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

    /// SHA-256, in hexadecimal, of everything that determines logits: configuration, weights and the
    /// active adapter.
    ///
    /// # Errors
    /// Weights that cannot be copied from their device.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(self.config.identity());
        let adapter = self.adapters.chosen(UseAdapter::Active)?;
        if let Some(adapter) = adapter {
            hash.update(adapter.config.to_json().to_string());
        }
        let mut add = |name: &str, tensor: &Tensor| -> Result<()> {
            hash.update(name);
            hash.update(format!("{:?}", tensor.dims()));
            let data = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
            hash.update(bytes);
            Ok(())
        };
        for (name, var) in self.weights() {
            add(&name, &var)?;
        }
        // One at a time: together they may not fit into memory.
        for linear in self.linears() {
            if let Weight::Quantised(weight) = &linear.weight {
                add(&linear.name, &weight.dequantise()?)?;
            }
        }
        for (name, var) in adapter.into_iter().flat_map(Slot::variables) {
            add(&name, var)?;
        }
        Ok(format!("{:x}", hash.finalize()))
    }
}

impl Linear {
    /// A weight `[out, in]` in the layout the checkpoint has.
    pub(crate) fn published(&self, weight: &Tensor) -> Result<Tensor> {
        Ok(if self.transposed { weight.t()?.contiguous()? } else { weight.clone() })
    }
}
