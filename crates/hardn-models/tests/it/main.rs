//! Models as a whole: training form, decoding form, files, and agreement with transformers.

mod adapters;
mod chat;
mod decode;
mod decode_adapters;
mod families;
mod files;
mod gradients;
mod packed;
mod parity;
mod quantised;
mod tokenizers;

use hardn_models::{Model, ModelConfig};
use serde_json::json;

/// A small model with grouped queries and a head size of its own; weights are large enough to matter.
fn grouped() -> ModelConfig {
    let config = ModelConfig::llama(67, 24, 2, 4, 40, 96).unwrap();
    config.with(&json!({"num_key_value_heads": 2, "head_dim": 8})).unwrap()
}

/// The same with an own output, biases and stretched positions.
fn untied() -> ModelConfig {
    let changes = json!({
        "tie_word_embeddings": false,
        "attention_bias": true,
        "mlp_bias": true,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0},
    });
    grouped().with(&changes).unwrap()
}

/// Random weights ten times the initial size, so that attention is far from uniform.
fn lively(config: &ModelConfig, seed: u64) -> Model {
    let model = Model::random(config, seed).unwrap();
    for (name, var) in model.trainable() {
        if !name.contains("norm") {
            let noise = (var.as_detached_tensor() * 10.0).unwrap();
            var.set(&noise).unwrap();
        }
    }
    model
}
