//! Prefix tuning in PEFT's layout.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{extend, refuse};
use crate::{
    ModelConfig, ModelError, Result,
    config::spec::{AttentionSpec, Projections},
};

/// `adapter_config.json` of a prefix: keys and values before the text's own, in every layer. Field names are the
/// published keys.
///
/// Sizes that are absent are the model's. Keys are used as they are stored, neither rotated nor normalised; the text
/// begins at position `num_virtual_tokens`.
///
/// # Source
/// Li and Liang 2021 (arXiv:2101.00190), section 4.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct PrefixTuningConfig {
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    pub num_virtual_tokens: usize,
    /// Width of a layer's keys: heads times their size.
    #[serde(default)]
    pub token_dim: Option<usize>,
    /// Heads of keys and values.
    #[serde(default)]
    pub num_attention_heads: Option<usize>,
    #[serde(default)]
    pub num_layers: Option<usize>,
    #[serde(default)]
    pub num_transformer_submodules: Option<usize>,
    #[serde(default)]
    pub encoder_hidden_size: Option<usize>,
    /// The stored prefix was made by a network that is not stored, so that it cannot be trained on.
    #[serde(default)]
    pub prefix_projection: bool,
    /// Everything else in the file, kept when it is written again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// Share of a key's or value's numbers that is dropped in training. Not part of the file.
    #[serde(skip)]
    pub dropout: f64,
    /// A new prefix is zero rather than normal. Not part of the file.
    #[serde(skip)]
    pub zero_init: bool,
}

/// The columns of the stored tensor that a layer's keys and values are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixLayout {
    /// Columns between the keys of a layer and its values, and between these and the next layer's keys.
    pub(crate) token_dim: usize,
    /// Columns that are used of them.
    pub(crate) width: usize,
    pub(crate) layers: usize,
}

impl PrefixTuningConfig {
    /// A prefix of `num_virtual_tokens`, as PEFT starts it: normal, without dropout.
    pub fn new(num_virtual_tokens: usize) -> Self {
        Self { num_virtual_tokens, ..Self::default() }
    }

    /// Refuses values this crate does not compute.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<()> {
        if self.num_virtual_tokens == 0 {
            return Err(ModelError::adapter("num_virtual_tokens", "must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let message = format!("{} is not in [0, 1)", self.dropout);
            return Err(ModelError::adapter("dropout", message));
        }
        match self.num_transformer_submodules {
            None | Some(1) => refuse(&self.extra, &["init_weights"]),
            Some(n) => {
                let message = format!("{n} is not supported; expected 1");
                Err(ModelError::adapter("num_transformer_submodules", message))
            }
        }
    }

    /// Fills sizes that are absent, and says where a layer's keys and values are.
    ///
    /// Files of multi-query models that were made with transformers up to 4.53 hold as many heads as there are query
    /// heads, of which only the first is used.
    ///
    /// # Errors
    /// Sizes that are not the model's, or a model that prefixes do not work on.
    pub(crate) fn resolve(&mut self, model: &ModelConfig) -> Result<PrefixLayout> {
        self.check()?;
        let layers = &model.spec.layers;
        let Some(AttentionSpec { heads, kv_heads, key_dim, .. }) =
            layers.first().map(|layer| &layer.attention)
        else {
            return Err(ModelError::adapter("num_layers", "the model has no layers"));
        };
        let same = |attention: &AttentionSpec| {
            matches!(attention.projections, Projections::Direct { .. })
                && attention.kv_heads == *kv_heads
                && attention.key_dim == *key_dim
                && attention.value_dim == *key_dim
        };
        if !layers.iter().all(|layer| same(&layer.attention)) {
            let message = format!(
                "prefix tuning does not work on the attention of {}; use LORA or IA3",
                model.model_type
            );
            return Err(ModelError::adapter("peft_type", message));
        }
        if self.num_virtual_tokens >= model.max_position_embeddings {
            let message = format!(
                "{} leave no room in the model's context of {}",
                self.num_virtual_tokens, model.max_position_embeddings
            );
            return Err(ModelError::adapter("num_virtual_tokens", message));
        }
        let fit = |key: &str, value: &mut Option<usize>, expected: usize| {
            let given = *value.get_or_insert(expected);
            if given == expected {
                return Ok(());
            }
            let message = format!("is {given}, but the model has {expected}");
            Err(ModelError::adapter(key, message))
        };
        fit("num_layers", &mut self.num_layers, layers.len())?;
        let only_first = *kv_heads == 1 && self.num_attention_heads == Some(*heads) && *heads > 1;
        let n_heads = if only_first { *heads } else { *kv_heads };
        fit("num_attention_heads", &mut self.num_attention_heads, n_heads)?;
        fit("token_dim", &mut self.token_dim, n_heads * key_dim)?;
        self.num_transformer_submodules = Some(1);
        self.encoder_hidden_size.get_or_insert(n_heads * key_dim);
        Ok(PrefixLayout {
            token_dim: n_heads * key_dim,
            width: kv_heads * key_dim,
            layers: layers.len(),
        })
    }

    /// Adds the keys of the file.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        extend(map, self);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::AdapterConfig;

    #[track_caller]
    fn check(changes: Value, expected: Result<usize, &str>) {
        let model = ModelConfig::llama(64, 16, 2, 4, 24, 32).unwrap();
        let model = model.with(&json!({"num_key_value_heads": 1})).unwrap();
        let mut json = json!({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let layout = AdapterConfig::from_json(json).and_then(|config| match config {
            AdapterConfig::PrefixTuning(mut config) => config.resolve(&model),
            other => panic!("{other:?}"),
        });
        match (layout, expected) {
            (Ok(layout), Ok(token_dim)) => {
                assert_eq!(layout, PrefixLayout { token_dim, width: 4, layers: 2 });
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (layout, expected) => panic!("{layout:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn sizes_are_the_models() {
        check(json!({}), Ok(4));
        check(json!({"token_dim": 4, "num_attention_heads": 1, "num_layers": 2}), Ok(4));
        check(json!({"token_dim": 16, "num_attention_heads": 4}), Ok(16));
        check(json!({"token_dim": 16, "num_attention_heads": 2}), Err("num_attention_heads"));
        check(json!({"token_dim": 8}), Err("token_dim"));
        check(json!({"num_layers": 3}), Err("num_layers"));
        check(json!({"num_virtual_tokens": 32}), Err("num_virtual_tokens"));
        check(json!({"num_virtual_tokens": 0}), Err("num_virtual_tokens"));
        check(json!({"num_virtual_tokens": null}), Err("num_virtual_tokens"));
        check(json!({"num_transformer_submodules": 2}), Err("num_transformer_submodules"));
    }
}
