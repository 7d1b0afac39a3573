//! StarCoder2: rotary positions, grouped queries, biases, a window.

use super::{Keys, Read, Sizes, head_dim, layer_norm, separate, usual_scale, window};
use crate::{
    Result,
    config::spec::{AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec},
    ops::Activation,
};

pub(super) fn read(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    let head_dim = head_dim(keys, sizes)?;
    let kv_heads = keys.count_or("num_key_value_heads", 2)?;
    let inner = keys.count(&["intermediate_size"])?;
    let bias = keys.flag("use_bias", true)?;
    let eps = keys.epsilon("norm_epsilon", 1e-5)?;
    let activation = keys.activation("hidden_act", Activation::GeluTanh)?;
    let context = keys.count_or("max_position_embeddings", 4096)?;
    let window = window(keys, None, context)?;
    let rope = keys.whole_rope(context)?;
    // Old files carry these; the published model code has only this norm and this MLP.
    keys.only("norm_type", &"layer_norm".into())?;
    keys.only("mlp_type", &"default".into())?;
    let layers = (0..layers).map(|i| {
        let linear = |name: &str, out: usize, input: usize| {
            LinearSpec::new(format!("model.layers.{i}.{name}"), out, input, bias)
        };
        let norm = |name: &str| layer_norm(format!("model.layers.{i}.{name}"), hidden, eps);
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        LayerSpec {
            input_norm: norm("input_layernorm"),
            attention: AttentionSpec {
                heads,
                kv_heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: usual_scale(head_dim),
                window,
                projections: separate(
                    linear("self_attn.q_proj", queries, hidden),
                    linear("self_attn.k_proj", keys, hidden),
                    linear("self_attn.v_proj", keys, hidden),
                ),
                q_norm: None,
                k_norm: None,
                output: linear("self_attn.o_proj", hidden, queries),
            },
            mlp_norm: Some(norm("post_attention_layernorm")),
            mlp: MlpSpec::Dense(DenseSpec {
                gate: None,
                up: linear("mlp.c_fc", inner, hidden),
                down: linear("mlp.c_proj", hidden, inner),
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
        norm: layer_norm("model.norm", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, false),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", true)?, spec })
}
