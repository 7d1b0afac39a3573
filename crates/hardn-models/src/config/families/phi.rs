//! Phi-1 and Phi-2: attention and MLP side by side, partial rotary positions.

use super::{Keys, Read, Sizes, head_dim, layer_norm, separate, usual_scale};
use crate::{
    Result,
    config::spec::{AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec},
    ops::Activation,
};

pub(super) fn read(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    let head_dim = head_dim(keys, sizes)?;
    let kv_heads = keys.count_or("num_key_value_heads", heads)?;
    let inner = keys.count_or("intermediate_size", 8192)?;
    let eps = keys.epsilon("layer_norm_eps", 1e-5)?;
    let activation = keys.activation("hidden_act", Activation::GeluTanh)?;
    let context = keys.count_or("max_position_embeddings", 2048)?;
    let rope = keys.rope(0.5, context)?;
    let has_head_norms = keys.flag("qk_layernorm", false)?;
    let layers = (0..layers).map(|i| {
        let linear = |name: &str, out: usize, input: usize| {
            LinearSpec::new(format!("model.layers.{i}.{name}"), out, input, true)
        };
        let norm =
            |name: &str, size: usize| layer_norm(format!("model.layers.{i}.{name}"), size, eps);
        let head_norm = |name: &str| has_head_norms.then(|| norm(name, head_dim));
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        LayerSpec {
            input_norm: norm("input_layernorm", hidden),
            attention: AttentionSpec {
                heads,
                kv_heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: usual_scale(head_dim),
                window: None,
                projections: separate(
                    linear("self_attn.q_proj", queries, hidden),
                    linear("self_attn.k_proj", keys, hidden),
                    linear("self_attn.v_proj", keys, hidden),
                ),
                q_norm: head_norm("self_attn.q_layernorm"),
                k_norm: head_norm("self_attn.k_layernorm"),
                output: linear("self_attn.dense", hidden, queries),
            },
            mlp_norm: None,
            mlp: MlpSpec::Dense(DenseSpec {
                gate: None,
                up: linear("mlp.fc1", inner, hidden),
                down: linear("mlp.fc2", hidden, inner),
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
        norm: layer_norm("model.final_layernorm", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, true),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", false)?, spec })
}
