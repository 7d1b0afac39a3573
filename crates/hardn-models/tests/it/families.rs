//! One odd configuration or more of every family, all with a vocabulary of 67 and a context of 96.

use std::path::Path;

use candle_core::Tensor;
use hardn_models::{Model, ModelConfig};
use serde_json::{Value, json};

/// Names, and the keys that are read.
pub(crate) fn families() -> Vec<(&'static str, ModelConfig)> {
    let gpt = |model_type: &str, changes: Value| {
        let mut config = json!({
            "model_type": model_type, "n_embd": 30, "n_head": 5, "n_layer": 2, "n_positions": 96, "vocab_size": 67,
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    };
    let llama = |model_type: &str, changes: Value| {
        let mut config = json!({
            "model_type": model_type, "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2,
            "num_hidden_layers": 3, "intermediate_size": 36, "max_position_embeddings": 96, "vocab_size": 67,
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    };
    let rope = |share: f64, theta: f64| json!({"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share});
    let deepseek = json!({
        "moe_intermediate_size": 7, "num_experts_per_tok": 2, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4, "v_head_dim": 5, "num_key_value_heads": 6,
    });
    let lite = json!({
        "n_routed_experts": 5, "n_shared_experts": 2, "first_k_dense_replace": 1, "q_lora_rank": null,
        "topk_method": "greedy",
    });
    let groups = json!({
        "n_routed_experts": 9, "n_shared_experts": null, "n_group": 3, "topk_group": 2, "q_lora_rank": 9,
        "topk_method": "group_limited_greedy", "attention_bias": true, "routed_scaling_factor": 2.5,
        "num_experts_per_tok": 4, "tie_word_embeddings": true,
    });
    let both = |a: &Value, b: Value| {
        let mut all = a.clone();
        all.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
        all
    };
    let windowed = json!({
        "use_sliding_window": true, "sliding_window": 19, "max_window_layers": 1, "tie_word_embeddings": true,
    });
    let normed = json!({
        "qk_layernorm": true, "rope_parameters": rope(0.5, 300.0), "num_attention_heads": 3,
        "num_key_value_heads": 1,
    });
    [
        ("codegen", gpt("codegen", json!({"n_embd": 40, "n_head": 4, "rotary_dim": 6, "n_inner": 50}))),
        ("codegen wide", gpt("codegen", json!({"n_embd": 48, "n_head": 16, "head_dim": 3, "rotary_dim": 2}))),
        ("deepseek lite", llama("deepseek_v2", both(&deepseek, lite))),
        ("deepseek groups", llama("deepseek_v2", both(&deepseek, groups))),
        ("gpt2", gpt("gpt2", json!({"scale_attn_by_inverse_layer_idx": true}))),
        ("gpt_bigcode", gpt("gpt_bigcode", json!({"n_inner": 44}))),
        ("gpt_bigcode multi-head", gpt("gpt_bigcode", json!({"multi_query": false}))),
        ("gptj", gpt("gptj", json!({"rotary_dim": 4}))),
        ("llama", llama("llama", json!({"head_dim": 10, "attention_bias": true, "mlp_bias": true}))),
        ("mistral", llama("mistral", json!({"sliding_window": 7}))),
        ("phi", llama("phi", json!({"hidden_size": 30, "num_key_value_heads": 3, "partial_rotary_factor": 0.4}))),
        ("phi normed", llama("phi", normed)),
        ("qwen2", llama("qwen2", windowed)),
        ("qwen3", llama("qwen3", json!({"hidden_size": 20, "num_attention_heads": 4, "head_dim": 6}))),
        ("starcoder2", llama("starcoder2", json!({"sliding_window": 33}))),
        ("starcoder2 plain", llama("starcoder2", json!({"use_bias": false, "tie_word_embeddings": false}))),
        (
            "xglm",
            json!({
                "model_type": "xglm", "d_model": 20, "attention_heads": 5, "num_layers": 2, "ffn_dim": 36,
                "max_position_embeddings": 96, "vocab_size": 67,
            }),
        ),
    ]
    .into_iter()
    .map(|(name, json)| {
        let config = ModelConfig::from_json(&json, Path::new(name));
        (name, config.unwrap_or_else(|error| panic!("{name}: {error}")))
    })
    .collect()
}

/// Random weights that are large enough to matter, norms and biases included.
pub(crate) fn noisy(config: &ModelConfig, seed: u64) -> Model {
    let model = Model::random(config, seed).unwrap();
    for (index, (name, var)) in model.trainable().into_iter().enumerate() {
        let value = var.as_detached_tensor();
        let value = if var.rank() == 1 {
            let n = var.elem_count();
            let wave: Vec<f32> =
                (0..n).map(|i| ((i * 7 + index * 5) % 11) as f32 * 0.04 - 0.2).collect();
            (value + Tensor::from_vec(wave, n, var.device()).unwrap()).unwrap()
        } else if name.contains("wpe") {
            (value * 3.0).unwrap()
        } else {
            (value * 10.0).unwrap()
        };
        var.set(&value).unwrap();
    }
    model
}
