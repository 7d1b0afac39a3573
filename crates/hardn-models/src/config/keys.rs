//! Typed access to the keys of `config.json`, and which of them are known.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::{
    RopeScaling, TokenIds,
    spec::{Positions, Rotary},
};
use crate::{ModelError, Result, ops::Activation};

/// Keys that do not change the logits of a trained model.
const METADATA: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "activation_dropout",
    "architectures",
    "attention_dropout",
    "attention_softmax_in_fp32",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "aux_loss_alpha",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "ep_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "inference_runner",
    "init_std",
    "initializer_range",
    "is_decoder",
    "label2id",
    "language",
    "layerdrop",
    "length_penalty",
    "max_batch_size",
    "max_length",
    "max_sequence_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_router_logits",
    "output_scores",
    "pre_allocate_kv_cache",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "residual_dropout",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "scale_attention_softmax_in_fp32",
    "sep_token_id",
    "seq_aux",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_mamba_kernels",
    "validate_runner_input",
];

/// What a file says of rotary positions.
pub(crate) struct RopeKeys {
    pub(crate) theta: f64,
    pub(crate) scaling: Option<RopeScaling>,
    /// The share of a head's dimensions that is rotated.
    pub(crate) share: f64,
}

impl RopeKeys {
    /// Positions of heads of `head_dim`, in halves.
    pub(crate) fn rotary(self, head_dim: usize) -> Positions {
        Positions::Rotary(Rotary {
            first: 0,
            dims: (head_dim as f64 * self.share) as usize,
            interleaved: false,
            theta: self.theta,
            scaling: self.scaling,
        })
    }
}

/// The file's keys. Remembers which were asked for, so that what nobody asked for can be refused.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, path, asked: RefCell::default() }
    }

    /// A key's value; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The file has the key, be it `null`.
    pub(crate) fn is_written(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn error(&self, key: &str, message: impl Into<String>) -> ModelError {
        ModelError::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// The first of several spellings of a key that the file has.
    fn spelling<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        keys.iter().copied().find(|key| self.has(key))
    }

    /// A positive whole number under one of several spellings.
    pub(crate) fn count(&self, keys: &[&str]) -> Result<usize> {
        let key = self.spelling(keys).ok_or_else(|| self.error(keys[0], "is missing"))?;
        self.count_or(key, 0)
    }

    /// A positive whole number, or what counts where the key is absent.
    pub(crate) fn count_or(&self, key: &str, absent: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(absent) };
        whole(value)
            .filter(|count| *count > 0 && *count <= 1 << 28)
            .ok_or_else(|| self.error(key, format!("{value} is not a whole number from 1 to 2^28")))
    }

    /// A whole number, 0 included.
    pub(crate) fn index_or(&self, key: &str, absent: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(absent) };
        whole(value)
            .filter(|count| *count <= 1 << 28)
            .ok_or_else(|| self.error(key, format!("{value} is not a whole number up to 2^28")))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        let number = |value: &Value| {
            value
                .as_f64()
                .filter(|number| number.is_finite())
                .ok_or_else(|| self.error(key, format!("{value} is not a number")))
        };
        self.get(key).map(number).transpose()
    }

    pub(crate) fn positive(&self, key: &str, absent: f64) -> Result<f64> {
        let value = self.number(key)?.unwrap_or(absent);
        if value > 0.0 {
            Ok(value)
        } else {
            Err(self.error(key, format!("{value} is out of range")))
        }
    }

    /// An epsilon of a norm.
    pub(crate) fn epsilon(&self, key: &str, absent: f64) -> Result<f64> {
        let value = self.number(key)?.unwrap_or(absent);
        if value >= 0.0 {
            Ok(value)
        } else {
            Err(self.error(key, format!("{value} is out of range")))
        }
    }

    pub(crate) fn flag(&self, key: &str, absent: bool) -> Result<bool> {
        let flag = |value: &Value| {
            value.as_bool().ok_or_else(|| self.error(key, format!("{value} is not true or false")))
        };
        Ok(self.get(key).map(flag).transpose()?.unwrap_or(absent))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let text = |value: &'a Value| {
            value.as_str().ok_or_else(|| self.error(key, format!("{value} is not a text")))
        };
        self.get(key).map(text).transpose()
    }

    pub(crate) fn activation(&self, key: &str, absent: Activation) -> Result<Activation> {
        let Some(name) = self.text(key)? else { return Ok(absent) };
        Activation::from_name(name).ok_or_else(|| {
            let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu or relu2";
            self.error(key, format!("\"{name}\" is not supported; expected {known}"))
        })
    }

    /// Refuses any value of a key but the one that is computed.
    pub(crate) fn only(&self, key: &str, computed: &Value) -> Result<()> {
        match self.get(key) {
            Some(value) if value != computed => {
                Err(self.error(key, format!("{value} is not supported; expected {computed}")))
            }
            _ => Ok(()),
        }
    }

    /// `a` must be a multiple of `b`, which key `key` gives.
    pub(crate) fn divides(&self, key: &str, b: usize, name: &str, a: usize) -> Result<()> {
        if b > 0 && a.is_multiple_of(b) {
            return Ok(());
        }
        Err(self.error(key, format!("{b} does not divide {name} {a}")))
    }

    pub(crate) fn tokens(&self, key: &str) -> Result<Option<TokenIds>> {
        let read = |value: &Value| {
            serde_json::from_value(value.clone())
                .map_err(|_| self.error(key, format!("{value} is neither a token id nor a list")))
        };
        // Some published files have -1 for "none".
        self.get(key).filter(|value| value.as_i64() != Some(-1)).map(read).transpose()
    }

    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.tokens(key)?.and_then(|ids| ids.as_slice().first().copied()))
    }

    /// Base, scaling and share of a head of rotary positions, in the spellings of transformers 4 (`rope_theta`,
    /// `rope_scaling`) and 5 (`rope_parameters`); `share` is the share where the file has none.
    pub(crate) fn rope(&self, share: f64, context: usize) -> Result<RopeKeys> {
        let mut theta = self.number("rope_theta")?;
        let mut share_read = self.number("partial_rotary_factor")?;
        let mut scaling = None;
        let says_something = |value: &&Value| value.as_object().is_none_or(|map| !map.is_empty());
        let given = ["rope_scaling", "rope_parameters"].map(|key| (key, self.get(key)));
        let given = given.into_iter().find(|(_, value)| value.as_ref().is_some_and(says_something));
        if let Some((key, Some(value))) = given {
            let map = value.as_object().ok_or_else(|| self.error(key, "is not an object"))?;
            let inner = Keys::new(map, self.path);
            theta = inner.number("rope_theta")?.or(theta);
            share_read = inner.number("partial_rotary_factor")?.or(share_read);
            let original = inner.count_or("original_max_position_embeddings", context)?;
            let original = self.count_or("original_max_position_embeddings", original)?;
            let kind = ["rope_type", "type"].iter().find_map(|name| inner.get(name)?.as_str());
            scaling = RopeScaling::read(kind.unwrap_or("default"), &inner, context, original)
                .map_err(|error| match error {
                    ModelError::Config { key: inner, message, .. } => {
                        self.error(key, format!("`{inner}`: {message}"))
                    }
                    other => other,
                })?;
        }
        let theta = theta.unwrap_or(10_000.0);
        if theta <= 0.0 {
            return Err(self.error("rope_theta", format!("{theta} is out of range")));
        }
        let share = share_read.unwrap_or(share);
        if !(0.0..=1.0).contains(&share) {
            return Err(self.error("partial_rotary_factor", format!("{share} is out of range")));
        }
        Ok(RopeKeys { theta, scaling, share })
    }

    /// As [`Self::rope`], for families that rotate whole heads.
    pub(crate) fn whole_rope(&self, context: usize) -> Result<RopeKeys> {
        let rope = self.rope(1.0, context)?;
        if rope.share != 1.0 {
            let message =
                format!("{} is not supported; this family rotates whole heads", rope.share);
            return Err(self.error("partial_rotary_factor", message));
        }
        Ok(rope)
    }

    /// Refuses keys that nobody asked for, unless they say nothing.
    pub(crate) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        for (key, value) in self.map {
            let says_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if says_nothing || asked.contains(key) || METADATA.contains(&key.as_str()) {
                continue;
            }
            let message = if key == "quantization_config" {
                "checkpoints quantised by other tools are not read; use GGUF or the original weights".to_owned()
            } else {
                format!(
                    "{value} is not known for this model_type; if it does not change what the model computes, remove the key"
                )
            };
            return Err(self.error(key, message));
        }
        Ok(())
    }
}

/// A whole number, also written as `4096.0`.
fn whole(value: &Value) -> Option<usize> {
    value.as_u64().map(|n| n as usize).or_else(|| {
        value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n < 1e15).map(|n| n as usize)
    })
}
