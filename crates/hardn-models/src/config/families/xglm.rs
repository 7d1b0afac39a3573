//! InCoder (`xglm`): sinusoidal positions, scaled embeddings.

use serde_json::json;

use super::{Keys, Read, Sizes, layer_norm, separate, usual_scale};
use crate::{
    Result,
    config::spec::{
        AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec, Positions,
    },
    ops::Activation,
};

/// The layer norms of this family do not take their epsilon from the file.
const EPS: f64 = 1e-5;

pub(super) fn read(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    keys.divides("attention_heads", heads, "d_model", hidden)?;
    keys.only("add_cross_attention", &json!(false))?;
    let head_dim = hidden / heads;
    let inner = keys.count_or("ffn_dim", 4096)?;
    let activation = keys.activation("activation_function", Activation::Gelu)?;
    let context = keys.count_or("max_position_embeddings", 2048)?;
    let is_scaled = keys.flag("scale_embedding", true)?;
    let layers = (0..layers).map(|i| {
        let linear = |name: &str, out: usize, input: usize| {
            LinearSpec::new(format!("model.layers.{i}.{name}"), out, input, true)
        };
        let norm = |name: &str| layer_norm(format!("model.layers.{i}.{name}"), hidden, EPS);
        LayerSpec {
            input_norm: norm("self_attn_layer_norm"),
            attention: AttentionSpec {
                heads,
                kv_heads: heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: usual_scale(head_dim),
                window: None,
                projections: separate(
                    linear("self_attn.q_proj", hidden, hidden),
                    linear("self_attn.k_proj", hidden, hidden),
                    linear("self_attn.v_proj", hidden, hidden),
                ),
                q_norm: None,
                k_norm: None,
                output: linear("self_attn.out_proj", hidden, hidden),
            },
            mlp_norm: Some(norm("final_layer_norm")),
            mlp: MlpSpec::Dense(DenseSpec {
                gate: None,
                up: linear("fc1", inner, hidden),
                down: linear("fc2", hidden, inner),
                activation,
            }),
        }
    });
    let vocab = keys.count(&["vocab_size"])?;
    let padding =
        if keys.is_written("pad_token_id") { keys.token("pad_token_id")? } else { Some(1) };
    let spec = ModelSpec {
        embed: "model.embed_tokens".to_owned(),
        embed_scale: if is_scaled { (hidden as f64).sqrt() as f32 } else { 1.0 },
        positions: Positions::Sinusoidal { offset: 2, zero_row: padding.map(|id| id as usize) },
        layers: layers.collect(),
        norm: layer_norm("model.layer_norm", hidden, EPS),
        head: LinearSpec::new("lm_head", vocab, hidden, false),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", true)?, spec })
}
