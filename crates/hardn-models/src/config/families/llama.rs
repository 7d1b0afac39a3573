//! Llama 2 and 3, CodeLlama and DeepSeek-Coder (`llama`), Mistral, Qwen2.5-Coder (`qwen2`) and Qwen3.

use serde_json::json;

use super::{
    Keys, Read, Sizes, head_dim, rms_norm, separate, usual_scale, window, windowed_layers,
};
use crate::{
    Result,
    config::spec::{AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec},
    ops::Activation,
};

/// What differs between these families.
struct Differences {
    /// Biases of queries, keys and values.
    qkv_bias: bool,
    output_bias: bool,
    mlp_bias: bool,
    /// Norms over each head's queries and keys.
    head_norms: bool,
    head_dim: usize,
    kv_heads: usize,
    context: usize,
    windows: Vec<Option<usize>>,
}

pub(super) fn llama(keys: &Keys, sizes: Sizes) -> Result<Read> {
    keys.only("pretraining_tp", &json!(1))?;
    let bias = keys.flag("attention_bias", false)?;
    decoder(
        keys,
        sizes,
        Differences {
            qkv_bias: bias,
            output_bias: bias,
            mlp_bias: keys.flag("mlp_bias", false)?,
            head_norms: false,
            head_dim: head_dim(keys, sizes)?,
            kv_heads: keys.count_or("num_key_value_heads", sizes.heads)?,
            context: keys.count_or("max_position_embeddings", 2048)?,
            windows: vec![None; sizes.layers],
        },
    )
}

pub(super) fn mistral(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let context = keys.count_or("max_position_embeddings", 4096 * 32)?;
    let window = window(keys, Some(4096), context)?;
    decoder(
        keys,
        sizes,
        Differences {
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            head_dim: head_dim(keys, sizes)?,
            kv_heads: kv_heads(keys, sizes, 8)?,
            context,
            windows: vec![window; sizes.layers],
        },
    )
}

pub(super) fn qwen2(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let context = keys.count_or("max_position_embeddings", 32768)?;
    decoder(
        keys,
        sizes,
        Differences {
            qkv_bias: true,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            head_dim: head_dim(keys, sizes)?,
            kv_heads: kv_heads(keys, sizes, 32)?,
            context,
            windows: qwen_windows(keys, sizes, context)?,
        },
    )
}

pub(super) fn qwen3(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let context = keys.count_or("max_position_embeddings", 32768)?;
    let bias = keys.flag("attention_bias", false)?;
    decoder(
        keys,
        sizes,
        Differences {
            qkv_bias: bias,
            output_bias: bias,
            mlp_bias: false,
            head_norms: true,
            head_dim: keys.count_or("head_dim", 128)?,
            kv_heads: kv_heads(keys, sizes, 32)?,
            context,
            windows: qwen_windows(keys, sizes, context)?,
        },
    )
}

/// Written `null` means as many as queries; where the key is absent, the family's default counts.
fn kv_heads(keys: &Keys, sizes: Sizes, absent: usize) -> Result<usize> {
    let absent = if keys.is_written("num_key_value_heads") { sizes.heads } else { absent };
    keys.count_or("num_key_value_heads", absent)
}

fn qwen_windows(keys: &Keys, sizes: Sizes, context: usize) -> Result<Vec<Option<usize>>> {
    let is_used = keys.flag("use_sliding_window", false)?;
    let size = window(keys, Some(4096), context)?;
    let first = keys.index_or("max_window_layers", 28)?;
    let has_window = windowed_layers(keys, sizes.layers, |layer| is_used && layer >= first)?;
    if !is_used && has_window.iter().any(|has| *has) {
        return Err(
            keys.error("layer_types", "names sliding attention, but use_sliding_window is false")
        );
    }
    Ok(has_window.into_iter().map(|has| size.filter(|_| has)).collect())
}

fn decoder(keys: &Keys, sizes: Sizes, differences: Differences) -> Result<Read> {
    let Sizes { hidden, heads, .. } = sizes;
    let Differences { head_dim, kv_heads, context, .. } = differences;
    let inner = keys.count(&["intermediate_size"])?;
    let eps = keys.epsilon("rms_norm_eps", 1e-6)?;
    let activation = keys.activation("hidden_act", Activation::Silu)?;
    let rope = keys.whole_rope(context)?;
    let layers = differences.windows.iter().enumerate().map(|(i, window)| {
        let linear = |name: &str, out: usize, input: usize, bias: bool| {
            LinearSpec::new(format!("model.layers.{i}.{name}"), out, input, bias)
        };
        let norm =
            |name: &str, size: usize| rms_norm(format!("model.layers.{i}.{name}"), size, eps);
        let head_norm = |name: &str| differences.head_norms.then(|| norm(name, head_dim));
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        LayerSpec {
            input_norm: norm("input_layernorm", hidden),
            attention: AttentionSpec {
                heads,
                kv_heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: usual_scale(head_dim),
                window: *window,
                projections: separate(
                    linear("self_attn.q_proj", queries, hidden, differences.qkv_bias),
                    linear("self_attn.k_proj", keys, hidden, differences.qkv_bias),
                    linear("self_attn.v_proj", keys, hidden, differences.qkv_bias),
                ),
                q_norm: head_norm("self_attn.q_norm"),
                k_norm: head_norm("self_attn.k_norm"),
                output: linear("self_attn.o_proj", hidden, queries, differences.output_bias),
            },
            mlp_norm: Some(norm("post_attention_layernorm", hidden)),
            mlp: MlpSpec::Dense(DenseSpec {
                gate: Some(linear("mlp.gate_proj", inner, hidden, differences.mlp_bias)),
                up: linear("mlp.up_proj", inner, hidden, differences.mlp_bias),
                down: linear("mlp.down_proj", hidden, inner, differences.mlp_bias),
                activation,
            }),
        }
    });
    let vocab = keys.count(&["vocab_size"])?;
    let spec = ModelSpec {
        embed: "model.embed_tokens".to_owned(),
        embed_scale: 1.0,
        positions: rope.rotary(head_dim),
        layers: layers.collect(),
        norm: rms_norm("model.norm", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, false),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", false)?, spec })
}
