//! Models as a whole: training form, decoding form, files, and agreement with transformers.

mod chat;
mod decode;
mod files;
mod gradients;
mod parity;
mod tokenizers;

use hardn_models::{LlamaConfig, Model, RopeScaling};

/// A small model with grouped queries and a head size of its own; weights are large enough to matter.
fn grouped() -> LlamaConfig {
    let mut config = LlamaConfig::small(67, 24, 2, 4, 40, 96);
    config.num_key_value_heads = 2;
    config.head_dim = 8;
    config
}

/// The same with an own output, biases and stretched positions.
fn untied() -> LlamaConfig {
    LlamaConfig {
        tie_word_embeddings: false,
        attention_bias: true,
        mlp_bias: true,
        rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }),
        ..grouped()
    }
}

/// Random weights ten times the initial size, so that attention is far from uniform.
fn lively(config: &LlamaConfig, seed: u64) -> Model {
    let model = Model::random(config, seed).unwrap();
    for (name, var) in model.trainable() {
        if !name.contains("norm") {
            let noise = (var.as_detached_tensor() * 10.0).unwrap();
            var.set(&noise).unwrap();
        }
    }
    model
}
