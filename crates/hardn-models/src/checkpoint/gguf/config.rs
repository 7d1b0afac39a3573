//! Metadata of a GGUF file as a published `config.json`.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::{
    header::{Header, Value, texts},
    names, rope,
};
use crate::{ModelConfig, ModelError, Result};

/// The configuration of a file.
pub(super) fn read(path: &Path, file: &[u8], header: &Header) -> Result<ModelConfig> {
    let metadata = Metadata { path, file, header };
    let architecture = metadata.text("general.architecture")?;
    let Some(model_type) = names::model_type(&architecture) else {
        let message = format!("\"{architecture}\" is not supported; {SUPPORTED}");
        return Err(metadata.error("general.architecture", message));
    };
    let mut map = Map::from_iter([("model_type".to_owned(), json!(model_type))]);
    let keys = Keys { metadata: &metadata, architecture: &architecture };
    match model_type {
        "gpt2" | "gpt_bigcode" => keys.gpt2(&mut map, model_type)?,
        _ => keys.rotary(&mut map, model_type)?,
    }
    let vocab = metadata.tensor("token_embd.weight").and_then(|shape| shape.first().copied());
    map.insert("vocab_size".to_owned(), json!(vocab));
    let is_tied = metadata.tensor("output.weight").is_none();
    map.insert("tie_word_embeddings".to_owned(), json!(is_tied));
    for (key, published) in [
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("padding_token_id", "pad_token_id"),
    ] {
        if let Some(Value::Unsigned(id)) = header.metadata.get(&format!("tokenizer.ggml.{key}")) {
            map.insert(published.to_owned(), json!(id));
        }
    }
    ModelConfig::from_json(&Json::Object(map), path)
}

const SUPPORTED: &str =
    "expected llama, qwen2, qwen3, deepseek2, starcoder, starcoder2, phi2 or gpt2";

pub(super) struct Metadata<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a [u8],
    pub(super) header: &'a Header,
}

impl Metadata<'_> {
    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> ModelError {
        ModelError::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.header.metadata.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Result<String> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => Err(self.error(key, "is missing, or not a text")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>> {
        self.get(key)
            .and_then(|value| texts(self.file, value))
            .ok_or_else(|| self.error(key, "is missing, or not a list of texts"))
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&[usize]> {
        self.header.tensors.get(name).map(|info| &info.shape[..])
    }
}

struct Keys<'a> {
    metadata: &'a Metadata<'a>,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&self.key(key))
    }

    fn has(&self, tensor: &str) -> bool {
        self.metadata.tensor(tensor).is_some()
    }

    /// A whole number, if it is there.
    fn whole(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(*n as u64)),
            Some(other) => Err(self.error(key, format!("{other:?} is not one whole number"))),
        }
    }

    fn count(&self, key: &str) -> Result<u64> {
        self.whole(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            // Printed as f32, so that 1e-5 is 1e-5 again.
            Some(Value::Float(value)) => Ok((*value as f32).to_string().parse().ok()),
            Some(_) => Err(self.error(key, "is not a number")),
        }
    }

    fn error(&self, key: &str, message: impl Into<String>) -> ModelError {
        self.metadata.error(&self.key(key), message)
    }

    /// The number of layers, each of which has tensors.
    fn layers(&self) -> Result<u64> {
        let key = "block_count";
        let next = self.whole("nextn_predict_layers")?.unwrap_or(0);
        let layers = self.count(key)?.saturating_sub(next);
        match layers.checked_sub(1) {
            Some(last) if self.has(&format!("blk.{last}.attn_norm.weight")) => Ok(layers),
            _ => Err(self.error(key, format!("{layers}: the last layer has no tensors"))),
        }
    }

    /// The width of the MLP; converters write four times the hidden size whatever it is.
    fn inner(&self) -> Result<u64> {
        match self.metadata.tensor("blk.0.ffn_up.weight") {
            Some([inner, _]) => Ok(*inner as u64),
            _ => self.count("feed_forward_length"),
        }
    }

    /// GPT-2 and StarCoderBase.
    fn gpt2(&self, map: &mut Map<String, Json>, model_type: &str) -> Result<()> {
        let context = self.metadata.tensor("position_embd.weight").and_then(|s| s.first().copied());
        let heads = self.count("attention.head_count")?;
        for (key, value) in [
            ("n_embd", json!(self.count("embedding_length")?)),
            ("n_layer", json!(self.layers()?)),
            ("n_head", json!(heads)),
            ("n_inner", json!(self.inner()?)),
            ("n_positions", json!(context)),
            ("layer_norm_epsilon", json!(self.number("attention.layer_norm_epsilon")?)),
            ("activation_function", json!("gelu_new")),
        ] {
            map.insert(key.to_owned(), value);
        }
        let kv_heads = self.whole("attention.head_count_kv")?.unwrap_or(heads);
        if model_type == "gpt_bigcode" {
            map.insert("multi_query".to_owned(), json!(kv_heads == 1 && heads != 1));
        } else if kv_heads != heads {
            return Err(
                self.error("attention.head_count_kv", format!("{kv_heads} of {heads} heads"))
            );
        }
        Ok(())
    }

    /// The families with rotary positions.
    fn rotary(&self, map: &mut Map<String, Json>, model_type: &str) -> Result<()> {
        let hidden = self.count("embedding_length")?;
        let heads = self.count("attention.head_count")?;
        let layers = self.layers()?;
        let context = self.count("context_length")?;
        let kv_heads = self.whole("attention.head_count_kv")?.unwrap_or(heads);
        let activation =
            if ["phi", "starcoder2"].contains(&model_type) { "gelu_new" } else { "silu" };
        for (key, value) in [
            ("hidden_size", json!(hidden)),
            ("num_hidden_layers", json!(layers)),
            ("num_attention_heads", json!(heads)),
            ("num_key_value_heads", json!(kv_heads)),
            ("intermediate_size", json!(self.inner()?)),
            ("max_position_embeddings", json!(context)),
            ("hidden_act", json!(activation)),
        ] {
            map.insert(key.to_owned(), value);
        }
        let (epsilon, published) = match model_type {
            "starcoder2" => ("attention.layer_norm_epsilon", "norm_epsilon"),
            "phi" => ("attention.layer_norm_epsilon", "layer_norm_eps"),
            _ => ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        };
        let epsilon = self.number(epsilon)?.ok_or_else(|| self.error(epsilon, "is missing"))?;
        map.insert(published.to_owned(), json!(epsilon));
        let rotated = self.whole("rope.dimension_count")?;
        if model_type == "deepseek_v2" {
            self.deepseek(map, heads)?;
        } else {
            let head_dim = self.whole("attention.key_length")?.or(hidden.checked_div(heads));
            map.insert("head_dim".to_owned(), json!(head_dim));
            if let (Some(rotated), Some(head_dim)) = (rotated, head_dim) {
                if model_type == "phi" && head_dim > 0 {
                    let share = rotated as f64 / head_dim as f64;
                    map.insert("partial_rotary_factor".to_owned(), json!(share));
                } else if rotated != head_dim {
                    let message = format!("{rotated} of {head_dim} dimensions are not supported");
                    return Err(self.error("rope.dimension_count", message));
                }
            }
        }
        match model_type {
            "llama" => {
                map.insert("attention_bias".to_owned(), json!(self.has("blk.0.attn_q.bias")));
                map.insert("mlp_bias".to_owned(), json!(self.has("blk.0.ffn_up.bias")));
            }
            "qwen3" => {
                map.insert("attention_bias".to_owned(), json!(self.has("blk.0.attn_q.bias")));
            }
            "starcoder2" => {
                map.insert(
                    "use_bias".to_owned(),
                    json!(self.has("blk.0.attn_q.bias") || self.has("blk.0.attn_qkv.bias")),
                );
            }
            _ => {}
        }
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        map.insert("rope_theta".to_owned(), json!(theta));
        if let Some(scaling) = self.scaling(theta, context)? {
            map.insert("rope_scaling".to_owned(), scaling);
        }
        Ok(())
    }

    fn deepseek(&self, map: &mut Map<String, Json>, heads: u64) -> Result<()> {
        let rope = self.count("rope.dimension_count")?;
        let length = |key: &str| match self.whole(&format!("attention.{key}_mla"))? {
            Some(length) => Ok(length),
            None => self.count(&format!("attention.{key}")),
        };
        let (key, value) = (length("key_length")?, length("value_length")?);
        let nope = key.checked_sub(rope).ok_or_else(|| {
            self.error("rope.dimension_count", format!("{rope} of a key of {key}"))
        })?;
        if matches!(self.whole("expert_gating_func")?, Some(gating) if gating > 1) {
            return Err(self.error("expert_gating_func", "is not a softmax"));
        }
        if matches!(self.get("expert_weights_norm"), Some(Value::Bool(true))) {
            return Err(self.error("expert_weights_norm", "is not supported"));
        }
        let experts = self.count("expert_count")?;
        let stacks: Vec<_> = (0..3)
            .filter_map(|i| self.metadata.tensor(&format!("blk.{i}.ffn_gate_exps.weight")))
            .collect();
        if stacks.iter().any(|shape| shape.first() != Some(&(experts as usize))) || experts > 4096 {
            return Err(
                self.error("expert_count", format!("{experts}, but stacks have another number"))
            );
        }
        for (key, value) in [
            ("num_key_value_heads", json!(heads)),
            ("qk_rope_head_dim", json!(rope)),
            ("qk_nope_head_dim", json!(nope)),
            ("v_head_dim", json!(value)),
            ("kv_lora_rank", json!(self.count("attention.kv_lora_rank")?)),
            ("q_lora_rank", json!(self.whole("attention.q_lora_rank")?.filter(|rank| *rank > 0))),
            ("first_k_dense_replace", json!(self.whole("leading_dense_block_count")?.unwrap_or(0))),
            ("moe_intermediate_size", json!(self.count("expert_feed_forward_length")?)),
            ("n_routed_experts", json!(experts)),
            ("num_experts_per_tok", json!(self.count("expert_used_count")?)),
            ("n_shared_experts", json!(self.whole("expert_shared_count")?.unwrap_or(0))),
            ("routed_scaling_factor", json!(self.number("expert_weights_scale")?.unwrap_or(1.0))),
            ("topk_method", json!("greedy")),
            ("norm_topk_prob", json!(false)),
        ] {
            map.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// `rope_scaling`, from the keys or from factors of the frequencies.
    fn scaling(&self, theta: f64, context: u64) -> Result<Option<Json>> {
        let metadata = self.metadata;
        if let Some(info) = metadata.header.tensors.get("rope_freqs.weight") {
            let found = rope::factors(metadata.file, info)
                .and_then(|factors| rope::llama3(&factors, theta))
                .map_err(|message| {
                    crate::checkpoint::tensor_error(metadata.path, "rope_freqs.weight", message)
                })?;
            return Ok(Some(found));
        }
        let factor = self.number("rope.scaling.factor")?;
        let kind = match self.get("rope.scaling.type") {
            None => "none",
            Some(Value::Text(kind)) => kind,
            Some(_) => return Err(self.error("rope.scaling.type", "is not a text")),
        };
        match (kind, factor) {
            ("none", _) | ("linear" | "yarn", None) => Ok(None),
            ("linear", Some(factor)) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
            ("yarn", Some(factor)) => self.yarn(factor, context).map(Some),
            (kind, _) => {
                Err(self.error("rope.scaling.type", format!("\"{kind}\" is not supported")))
            }
        }
    }

    fn yarn(&self, factor: f64, context: u64) -> Result<Json> {
        let original = self.whole("rope.scaling.original_context_length")?;
        let original = original.unwrap_or((context as f64 / factor) as u64);
        let mut scaling = json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        });
        for (key, published) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
            if let Some(value) = self.number(&format!("rope.scaling.{key}"))? {
                scaling[published] = json!(value);
            }
        }
        // DeepSeek-V2 has a tenth of `mscale_all_dim` here, and `mscale` the same.
        if let Some(value) = self.number("rope.scaling.yarn_log_multiplier")? {
            let value = ((value / 0.1) as f32).to_string().parse().unwrap_or(value / 0.1);
            scaling["mscale"] = json!(value);
            scaling["mscale_all_dim"] = json!(value);
        } else if let Some(stretch) = self.number("rope.scaling.attn_factor")? {
            let stretch = stretch * (1.0 + 0.1 * factor.max(1.0).ln());
            // To the digits an f32 has.
            scaling["attention_factor"] =
                json!(format!("{stretch:.6e}").parse().unwrap_or(stretch));
        }
        Ok(scaling)
    }
}
