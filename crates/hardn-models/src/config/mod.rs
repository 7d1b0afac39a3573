//! `config.json` of published checkpoints: read as written, and what it makes a model compute.

mod families;
mod keys;
mod rope_scaling;
pub(crate) mod spec;

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::{
    keys::Keys,
    spec::{ModelSpec, Positions, Rotary},
};
pub use rope_scaling::RopeScaling;

use crate::{ModelError, Result, checkpoint::gguf};

/// One token id, or several that mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// A single id.
    One(u32),
    /// Any of these.
    Many(Vec<u32>),
}

impl TokenIds {
    /// The ids as a slice.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// The configuration of a checkpoint: the sizes that all families share, under their usual names, and the file.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "published names")]
pub struct ModelConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// The context, in tokens.
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<TokenIds>,
    pub pad_token_id: Option<u32>,
    pub(crate) spec: ModelSpec,
    /// The file's keys as they were read.
    published: Map<String, Value>,
}

impl ModelConfig {
    /// A tied Llama model with full attention, no biases and plain rotary positions; token ids are unset.
    ///
    /// # Errors
    /// Sizes that contradict each other.
    pub fn llama(
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        intermediate_size: usize,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        // `rope_theta` is read by transformers 4, `rope_parameters` by transformers 5.
        let value = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": null,
            "dtype": "float32",
            "eos_token_id": null,
            "hidden_act": "silu",
            "hidden_size": hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": intermediate_size,
            "max_position_embeddings": max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": num_attention_heads,
            "num_hidden_layers": num_hidden_layers,
            "num_key_value_heads": num_attention_heads,
            "pad_token_id": null,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "rope_scaling": null,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": true,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": vocab_size,
        });
        Self::from_json(&value, Path::new("config.json"))
    }

    /// The same with keys of the file set anew.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn with(&self, changes: &Value) -> Result<Self> {
        let mut map = self.to_map();
        for (key, value) in changes.as_object().into_iter().flatten() {
            map.insert(key.clone(), value.clone());
        }
        Self::from_json(&Value::Object(map), Path::new("config.json"))
    }

    /// Reads `config.json` in `dir`, or the metadata of a GGUF file that has none beside it.
    ///
    /// # Errors
    /// An unreadable file, a model this crate does not compute, unknown keys, or sizes that contradict each
    /// other; the key is named.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        if let Some(gguf) = gguf::find(dir).filter(|_| !path.exists()) {
            return gguf::config(&gguf);
        }
        let text = fs::read_to_string(&path).map_err(|error| ModelError::read(&path, error))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| ModelError::read(&path, error))?;
        Self::from_json(&value, &path)
    }

    /// Reads the configuration from parsed JSON; `path` is what messages name.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_json(value: &Value, path: &Path) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| ModelError::read(path, "not a JSON object"))?;
        let keys = Keys::new(map, path);
        let (model_type, read) = families::read(&keys)?;
        let first = read.spec.layers.first().map(|layer| layer.attention.heads);
        let config = Self {
            model_type,
            vocab_size: read.spec.head.out,
            hidden_size: read.hidden_size,
            num_hidden_layers: read.spec.layers.len(),
            num_attention_heads: first.unwrap_or_default(),
            max_position_embeddings: read.context,
            tie_word_embeddings: read.tied,
            bos_token_id: keys.token("bos_token_id")?,
            eos_token_id: keys.tokens("eos_token_id")?,
            pad_token_id: keys.token("pad_token_id")?,
            spec: read.spec,
            published: map.clone(),
        };
        keys.finish()?;
        Ok(config)
    }

    /// The file's contents, such that `from_pretrained` reads the same model.
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut map = self.to_map();
        for key in ["dtype", "torch_dtype"] {
            map.insert(key.to_owned(), json!(dtype));
        }
        Value::Object(map)
    }

    fn to_map(&self) -> Map<String, Value> {
        let mut map = self.published.clone();
        for (key, value) in [
            ("bos_token_id", json!(self.bos_token_id)),
            ("eos_token_id", json!(self.eos_token_id)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
        ] {
            map.insert(key.to_owned(), value);
        }
        map
    }

    /// Tokens a text can have: the context, or what dynamically scaled positions stretch it to.
    pub fn longest_text(&self) -> usize {
        let stretch = match &self.spec.positions {
            Positions::Rotary(Rotary {
                scaling: Some(RopeScaling::Dynamic { factor, .. }),
                ..
            }) => factor.max(1.0),
            _ => 1.0,
        };
        (self.max_position_embeddings as f64 * stretch) as usize
    }

    /// What the file says, as far as logits depend on it.
    pub(crate) fn identity(&self) -> String {
        format!("{} {} {:?}", self.model_type, self.max_position_embeddings, self.spec)
    }

    /// Names and published shapes of every tensor of the checkpoint, sorted by name.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        self.spec.tensors(self.vocab_size, self.hidden_size, self.tie_word_embeddings)
    }

    /// The number of weights.
    pub fn parameters(&self) -> usize {
        self.tensors().values().map(|shape| shape.iter().product::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        ModelConfig::llama(64, 16, 2, 4, 24, 32).unwrap().to_json("float32")
    }

    #[track_caller]
    fn check(changes: Value, expected: Result<(), &str>) {
        let mut json = sample();
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let read = ModelConfig::from_json(&json, Path::new("config.json"));
        match (read, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} lacks {part}");
            }
            (read, expected) => panic!("{changes}: {read:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_it_writes_it_reads() {
        let config = ModelConfig::llama(64, 16, 2, 4, 24, 32).unwrap();
        for changes in [
            json!({"eos_token_id": [1, 2]}),
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": null}),
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e5}}),
            json!({"tie_word_embeddings": false, "attention_bias": true}),
        ] {
            let config = config.with(&changes).unwrap();
            let read = ModelConfig::from_json(&config.to_json("float32"), Path::new("c")).unwrap();
            assert_eq!(read.spec, config.spec, "{changes}");
            assert_eq!(read.eos_token_id, config.eos_token_id);
        }
    }

    #[test]
    fn what_is_not_computed_is_an_error_that_names_the_key() {
        check(json!({"hidden_act": "silu"}), Ok(()));
        check(json!({"model_type": "bert"}), Err("`model_type`"));
        check(json!({"architectures": ["MistralForCausalLM"]}), Err("`architectures`"));
        check(json!({"hidden_act": "mish"}), Err("`hidden_act`"));
        check(json!({"rope_parameters": {"rope_type": "ntk", "factor": 2.0}}), Err("ntk"));
        check(json!({"rope_parameters": {"rope_type": "linear"}}), Err("`factor`"));
        check(json!({"num_key_value_heads": 3}), Err("`num_key_value_heads`"));
        check(json!({"hidden_size": -1}), Err("`hidden_size`"));
        check(json!({"head_dim": 5}), Err("`head_dim`"));
        check(json!({"vocab_size": null}), Err("`vocab_size`"));
        check(json!({"pretraining_tp": 2}), Err("`pretraining_tp`"));
        check(json!({"eos_token_id": "end"}), Err("`eos_token_id`"));
        check(json!({"quantization_config": {"bits": 4}}), Err("GGUF"));
    }

    #[test]
    fn unknown_keys_are_refused_unless_they_say_nothing() {
        check(json!({"residual_multiplier": 0.5}), Err("`residual_multiplier`"));
        check(json!({"sliding_window": 64}), Err("`sliding_window`"));
        check(json!({"sliding_window": null, "initializer_range": 0.1}), Ok(()));
        check(json!({"some_new_switch": false}), Ok(()));
    }
}
