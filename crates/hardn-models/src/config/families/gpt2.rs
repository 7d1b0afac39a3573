//! GPT-2, SantaCoder (GPT-2 with one key and value head) and StarCoderBase (`gpt_bigcode`): learned positions.

use serde_json::json;

use super::{Keys, Read, Sizes, fused, layer_norm, usual_scale};
use crate::{
    Result,
    config::spec::{
        AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec, Positions,
        Projections, Slice,
    },
    ops::Activation,
};

/// GPT-2, whose linear layers keep their weights transposed, and SantaCoder, which is published under the same
/// `model_type` with `attention_head_type` "multiquery".
pub(super) fn read(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let head_dim = head_dim(keys, sizes)?;
    let Sizes { hidden, .. } = sizes;
    let linear = |name: String, out: usize, input: usize| LinearSpec {
        transposed: true,
        ..LinearSpec::new(name, out, input, true)
    };
    let is_multi_query = match keys.text("attention_head_type")? {
        None | Some("multihead") => false,
        Some("multiquery") => true,
        Some(other) => {
            let message = format!("\"{other}\" is not supported; expected multihead or multiquery");
            return Err(keys.error("attention_head_type", message));
        }
    };
    let kv_heads = if is_multi_query { 1 } else { sizes.heads };
    let projections = |name: &str| {
        if !is_multi_query {
            let one = linear(format!("{name}.c_attn"), 3 * hidden, hidden);
            return fused(one, [(0, hidden), (1, hidden), (2, hidden)]);
        }
        let slice = |linear, start, len| vec![Slice { linear, start, len }];
        Projections::Direct {
            linears: vec![
                linear(format!("{name}.q_attn"), hidden, hidden),
                linear(format!("{name}.kv_attn"), 2 * head_dim, hidden),
            ],
            q: slice(0, 0, hidden),
            k: slice(1, 0, head_dim),
            v: slice(1, head_dim, head_dim),
        }
    };
    decoder(keys, sizes, (kv_heads, head_dim), Activation::GeluTanh, projections, linear)
}

pub(super) fn bigcode(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let head_dim = head_dim(keys, sizes)?;
    let Sizes { hidden, heads, .. } = sizes;
    let linear = |name: String, out: usize, input: usize| LinearSpec::new(name, out, input, true);
    let is_multi_query = keys.flag("multi_query", true)?;
    // Published by some exporters beside `multi_query`, which decides.
    keys.get("num_key_value_heads");
    let kv_heads = if is_multi_query { 1 } else { heads };
    let projections = |name: &str| {
        let out = hidden + 2 * kv_heads * head_dim;
        let one = linear(format!("{name}.c_attn"), out, hidden);
        if is_multi_query {
            fused(one, [(0, hidden), (1, head_dim), (2, head_dim)])
        } else {
            fused(one, (0..heads).flat_map(|_| (0..3).map(|part| (part, head_dim))))
        }
    };
    decoder(keys, sizes, (kv_heads, head_dim), Activation::GeluTanh, projections, linear)
}

fn head_dim(keys: &Keys, sizes: Sizes) -> Result<usize> {
    keys.divides("n_head", sizes.heads, "n_embd", sizes.hidden)?;
    Ok(sizes.hidden / sizes.heads)
}

fn decoder(
    keys: &Keys,
    sizes: Sizes,
    (kv_heads, head_dim): (usize, usize),
    activation: Activation,
    projections: impl Fn(&str) -> Projections,
    linear: impl Fn(String, usize, usize) -> LinearSpec,
) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    let inner = keys.count_or("n_inner", 4 * hidden)?;
    let eps = keys.epsilon("layer_norm_epsilon", 1e-5)?;
    let activation = keys.activation("activation_function", activation)?;
    let is_scaled = keys.flag("scale_attn_weights", true)?;
    let is_scaled_by_layer = keys.flag("scale_attn_by_inverse_layer_idx", false)?;
    keys.only("add_cross_attention", &json!(false))?;
    let context = keys.count_or("n_positions", 1024)?;
    let context = keys.count_or("max_position_embeddings", context)?;
    keys.get("n_ctx");
    let layers = (0..layers).map(|i| {
        let name = |part: &str| format!("transformer.h.{i}.{part}");
        let scale = if is_scaled { usual_scale(head_dim) } else { 1.0 };
        LayerSpec {
            input_norm: layer_norm(name("ln_1"), hidden, eps),
            attention: AttentionSpec {
                heads,
                kv_heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: if is_scaled_by_layer { scale / (i + 1) as f32 } else { scale },
                window: None,
                projections: projections(&name("attn")),
                q_norm: None,
                k_norm: None,
                output: linear(name("attn.c_proj"), hidden, hidden),
            },
            mlp_norm: Some(layer_norm(name("ln_2"), hidden, eps)),
            mlp: MlpSpec::Dense(DenseSpec {
                gate: None,
                up: linear(name("mlp.c_fc"), inner, hidden),
                down: linear(name("mlp.c_proj"), hidden, inner),
                activation,
            }),
        }
    });
    let vocab = keys.count(&["vocab_size"])?;
    let spec = ModelSpec {
        embed: "transformer.wte".to_owned(),
        embed_scale: 1.0,
        positions: Positions::Learned { module: "transformer.wpe".to_owned(), rows: context },
        layers: layers.collect(),
        norm: layer_norm("transformer.ln_f", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, false),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", true)?, spec })
}
