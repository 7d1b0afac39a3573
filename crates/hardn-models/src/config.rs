//! `config.json` of Llama-style checkpoints, with its published keys.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{ModelError, Result};

/// Keys that do not change what the model computes here.
const METADATA: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "attention_dropout",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// Keys with a meaning, whatever their value.
const KNOWN: &[&str] = &[
    "architectures",
    "attention_bias",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "pretraining_tp",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
];

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

/// How rotary frequencies are stretched to longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions are divided by the factor.
    Linear {
        /// The factor, at least 1.
        factor: f64,
    },
    /// Long wavelengths are divided by the factor, short ones kept, those between interpolated (Llama 3.1).
    #[expect(missing_docs, reason = "published names")]
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
}

/// The configuration of a Llama-style checkpoint. Field names are the published keys of `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "published names")]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// `hidden_size / num_attention_heads` where the file has none.
    pub head_dim: usize,
    /// The context, in tokens.
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<RopeScaling>,
    pub tie_word_embeddings: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<TokenIds>,
    pub pad_token_id: Option<u32>,
    /// Keys of the file that hardn does not know; a caller should report them. They are not written again.
    pub unknown_keys: Vec<String>,
}

impl LlamaConfig {
    /// A tied model with full attention, no biases and plain rotary positions; token ids are unset.
    pub fn small(
        vocab_size: usize,
        hidden_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        intermediate_size: usize,
        max_position_embeddings: usize,
    ) -> Self {
        Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            unknown_keys: Vec::new(),
        }
    }

    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// An unreadable file, a model this crate does not compute, or shapes that contradict each other; the key is named.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
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
        let keys = Keys { map, path };
        keys.expect_text("model_type", &["llama"])?;
        if let Some(list) = keys.get("architectures") {
            let supported = |value: &Value| value.as_str() == Some("LlamaForCausalLM");
            if !list.as_array().is_some_and(|list| list.iter().all(supported)) {
                return Err(keys.error(
                    "architectures",
                    format!("{list} is not supported; expected [\"LlamaForCausalLM\"]"),
                ));
            }
        }
        if keys.get("hidden_act").is_some() {
            keys.expect_text("hidden_act", &["silu", "swish"])?;
        }
        if keys.get("pretraining_tp").is_some_and(|value| value.as_u64() != Some(1)) {
            return Err(keys.error("pretraining_tp", "only 1 is supported"));
        }
        let hidden_size = keys.count("hidden_size")?;
        let num_attention_heads = keys.count("num_attention_heads")?;
        let head_dim = match keys.get("head_dim") {
            Some(_) => keys.count("head_dim")?,
            None if hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                return Err(keys.error(
                    "num_attention_heads",
                    format!("{num_attention_heads} does not divide hidden_size {hidden_size}"),
                ));
            }
        };
        let num_key_value_heads = match keys.get("num_key_value_heads") {
            Some(_) => keys.count("num_key_value_heads")?,
            None => num_attention_heads,
        };
        let (rope_theta, rope_scaling) = keys.rope()?;
        let config = Self {
            vocab_size: keys.count("vocab_size")?,
            hidden_size,
            intermediate_size: keys.count("intermediate_size")?,
            num_hidden_layers: keys.count("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            max_position_embeddings: match keys.get("max_position_embeddings") {
                Some(_) => keys.count("max_position_embeddings")?,
                None => 2048,
            },
            rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
            attention_bias: keys.flag("attention_bias")?,
            mlp_bias: keys.flag("mlp_bias")?,
            bos_token_id: keys.token("bos_token_id")?,
            eos_token_id: keys.tokens("eos_token_id")?,
            pad_token_id: keys.token("pad_token_id")?,
            unknown_keys: map
                .keys()
                .filter(|key| !KNOWN.contains(&key.as_str()) && !METADATA.contains(&key.as_str()))
                .cloned()
                .collect(),
        };
        config.check(path)?;
        Ok(config)
    }

    /// Looks for shapes that contradict each other.
    ///
    /// # Errors
    /// The first contradiction, with its key.
    pub fn check(&self, path: &Path) -> Result<()> {
        let error = |key: &str, message: String| {
            Err(ModelError::Config { path: path.to_owned(), key: key.to_owned(), message })
        };
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 || value > 1 << 28 {
                return error(key, format!("{value} is out of range"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return error(
                "num_key_value_heads",
                format!(
                    "{} does not divide num_attention_heads {}",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return error(
                "head_dim",
                format!("{} is odd; rotary positions need pairs", self.head_dim),
            );
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return error("rms_norm_eps", format!("{} is out of range", self.rms_norm_eps));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return error("rope_theta", format!("{} is out of range", self.rope_theta));
        }
        Ok(())
    }

    /// The file's contents, such that `LlamaForCausalLM.from_pretrained` reads the same model.
    pub fn to_json(&self, dtype: &str) -> Value {
        // `rope_theta` and `rope_scaling` are read by transformers 4, `rope_parameters` by transformers 5.
        let mut rope = match &self.rope_scaling {
            None => json!({"rope_type": "default"}),
            Some(RopeScaling::Linear { factor }) => {
                json!({"rope_type": "linear", "factor": factor})
            }
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        };
        let scaling = if self.rope_scaling.is_some() { rope.clone() } else { Value::Null };
        rope["rope_theta"] = json!(self.rope_theta);
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "dtype": dtype,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.mlp_bias,
            "model_type": "llama",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_scaling": scaling,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        })
    }

    /// Names and shapes of every tensor of the checkpoint, sorted by name.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let mut shapes = BTreeMap::from([
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ]);
        if !self.tie_word_embeddings {
            shapes.insert("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]);
        }
        for layer in 0..self.num_hidden_layers {
            for (name, out, input, bias) in [
                ("self_attn.q_proj", queries, hidden, self.attention_bias),
                ("self_attn.k_proj", keys, hidden, self.attention_bias),
                ("self_attn.v_proj", keys, hidden, self.attention_bias),
                ("self_attn.o_proj", hidden, queries, self.attention_bias),
                ("mlp.gate_proj", inner, hidden, self.mlp_bias),
                ("mlp.up_proj", inner, hidden, self.mlp_bias),
                ("mlp.down_proj", hidden, inner, self.mlp_bias),
            ] {
                let name = format!("model.layers.{layer}.{name}");
                if bias {
                    shapes.insert(format!("{name}.bias"), vec![out]);
                }
                shapes.insert(format!("{name}.weight"), vec![out, input]);
            }
            for name in ["input_layernorm", "post_attention_layernorm"] {
                shapes.insert(format!("model.layers.{layer}.{name}.weight"), vec![hidden]);
            }
        }
        shapes
    }

    /// The number of weights.
    pub fn parameters(&self) -> usize {
        self.tensors().values().map(|shape| shape.iter().product::<usize>()).sum()
    }
}

/// Typed access to the file's keys.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, message: impl Into<String>) -> ModelError {
        ModelError::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            message: message.into(),
        }
    }

    fn expect_text(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.get(key) {
            Some(Value::String(text)) if allowed.contains(&text.as_str()) => Ok(()),
            Some(other) => Err(self.error(
                key,
                format!("{other} is not supported; expected {}", allowed.join(" or ")),
            )),
            None => Err(self.error(key, format!("is missing; expected {}", allowed.join(" or ")))),
        }
    }

    fn count(&self, key: &str) -> Result<usize> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        value
            .as_u64()
            .filter(|count| *count > 0)
            .map(|count| count as usize)
            .ok_or_else(|| self.error(key, format!("{value} is not a positive whole number")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| self.error(key, "is not a number"));
        self.get(key).map(number).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| self.error(key, "is not true or false"));
        Ok(self.get(key).map(flag).transpose()?.unwrap_or(false))
    }

    fn tokens(&self, key: &str) -> Result<Option<TokenIds>> {
        let read = |value: &Value| {
            serde_json::from_value(value.clone())
                .map_err(|_| self.error(key, format!("{value} is neither a token id nor a list")))
        };
        self.get(key).map(read).transpose()
    }

    fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.tokens(key)?.and_then(|ids| ids.as_slice().first().copied()))
    }

    fn rope(&self) -> Result<(f64, Option<RopeScaling>)> {
        let mut theta = self.number("rope_theta")?;
        let mut scaling = None;
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(value) = self.get(key) else { continue };
            let map = value.as_object().ok_or_else(|| self.error(key, "is not an object"))?;
            let inner = Keys { map, path: self.path };
            let number = |name: &str| {
                inner.number(name)?.ok_or_else(|| self.error(key, format!("lacks `{name}`")))
            };
            theta = theta.or(inner.number("rope_theta")?);
            let kind = ["rope_type", "type"].iter().find_map(|name| inner.get(name)?.as_str());
            scaling = match kind.unwrap_or("default") {
                "default" => None,
                "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
                "llama3" => Some(RopeScaling::Llama3 {
                    factor: number("factor")?,
                    low_freq_factor: number("low_freq_factor")?,
                    high_freq_factor: number("high_freq_factor")?,
                    original_max_position_embeddings: inner
                        .count("original_max_position_embeddings")?,
                }),
                other => {
                    return Err(self.error(
                        key,
                        format!("rope type `{other}` is not supported; expected default, linear or llama3"),
                    ));
                }
            };
            break;
        }
        Ok((theta.unwrap_or(10_000.0), scaling))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        LlamaConfig::small(64, 16, 2, 4, 24, 32).to_json("float32")
    }

    #[track_caller]
    fn check(key: &str, value: Value, expected: Result<(), &str>) {
        let mut json = sample();
        json[key] = value;
        let read = LlamaConfig::from_json(&json, Path::new("config.json"));
        match (read, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error} lacks {part}");
            }
            (read, expected) => panic!("{key}: {read:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_it_writes_it_reads() {
        let mut config = LlamaConfig::small(64, 16, 2, 4, 24, 32);
        config.eos_token_id = Some(TokenIds::Many(vec![1, 2]));
        for scaling in [
            None,
            Some(RopeScaling::Linear { factor: 2.0 }),
            Some(RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 16,
            }),
        ] {
            config.rope_scaling = scaling;
            let read = LlamaConfig::from_json(&config.to_json("float32"), Path::new("c")).unwrap();
            assert_eq!(read, config);
        }
    }

    #[test]
    fn what_is_not_computed_is_an_error_that_names_the_key() {
        check("hidden_act", json!("silu"), Ok(()));
        check("model_type", json!("gpt2"), Err("`model_type`"));
        check("architectures", json!(["MistralForCausalLM"]), Err("`architectures`"));
        check("hidden_act", json!("gelu"), Err("`hidden_act`"));
        check("rope_parameters", json!({"rope_type": "yarn", "factor": 2.0}), Err("yarn"));
        check("rope_parameters", json!({"rope_type": "linear"}), Err("lacks `factor`"));
        check("num_key_value_heads", json!(3), Err("`num_key_value_heads`"));
        check("hidden_size", json!(-1), Err("`hidden_size`"));
        check("head_dim", json!(5), Err("`head_dim`"));
        check("vocab_size", json!(null), Err("`vocab_size`"));
        check("pretraining_tp", json!(2), Err("`pretraining_tp`"));
        check("eos_token_id", json!("end"), Err("`eos_token_id`"));
    }

    #[test]
    fn unknown_keys_are_reported() {
        let mut json = sample();
        json["sliding_window"] = json!(64);
        json["initializer_range"] = json!(0.1);
        let config = LlamaConfig::from_json(&json, Path::new("c")).unwrap();
        assert_eq!(config.unknown_keys, ["sliding_window"]);
    }
}
