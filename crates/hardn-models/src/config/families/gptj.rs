//! GPT-J, CodeGen and CodeGen2: attention and MLP side by side, interleaved partial rotary positions.

use super::{Keys, Read, Sizes, fused, head_dim, layer_norm, separate, usual_scale};
use crate::{
    Result,
    config::spec::{
        AttentionSpec, DenseSpec, LayerSpec, LinearSpec, MlpSpec, ModelSpec, Positions,
        Projections, Rotary,
    },
    ops::Activation,
};

pub(super) fn gptj(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let head_dim = head_dim(keys, sizes)?;
    decoder(keys, sizes, head_dim, |name, hidden| {
        let linear =
            |part: &str| LinearSpec::new(format!("{name}.{part}_proj"), hidden, hidden, false);
        separate(linear("q"), linear("k"), linear("v"))
    })
}

/// The fused projection holds one part for each core the model was trained on, and in each part queries, values
/// and keys in this order. CodeGen has 4 parts; so have the larger models of CodeGen2, while those of 1 and 3.7
/// billion weights have 8. No key says so, but only these two write `head_dim`. `mp_num` is our own key, for others.
pub(super) fn codegen(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let head_dim = head_dim(keys, sizes)?;
    if head_dim * sizes.heads != sizes.hidden {
        return Err(keys.error(
            "head_dim",
            format!("{head_dim} times n_head {} is not n_embd {}", sizes.heads, sizes.hidden),
        ));
    }
    let parts = keys.count_or("mp_num", if keys.has("head_dim") { 8 } else { 4 })?;
    let width = sizes.heads * head_dim;
    keys.divides("n_head", parts, "the number of attention heads", sizes.heads)?;
    decoder(keys, sizes, head_dim, |name, hidden| {
        let linear = LinearSpec::new(format!("{name}.qkv_proj"), 3 * width, hidden, false);
        fused(linear, (0..parts).flat_map(|_| [0, 2, 1]).map(|part| (part, width / parts)))
    })
}

fn decoder(
    keys: &Keys,
    sizes: Sizes,
    head_dim: usize,
    projections: impl Fn(&str, usize) -> Projections,
) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    let inner = keys.count_or("n_inner", 4 * hidden)?;
    let eps = keys.epsilon("layer_norm_epsilon", 1e-5)?;
    let activation = keys.activation("activation_function", Activation::GeluTanh)?;
    let context = keys.count_or("n_positions", 2048)?;
    let context = keys.count_or("max_position_embeddings", context)?;
    keys.get("n_ctx");
    let layers = (0..layers).map(|i| {
        let name = |part: &str| format!("transformer.h.{i}.{part}");
        LayerSpec {
            input_norm: layer_norm(name("ln_1"), hidden, eps),
            attention: AttentionSpec {
                heads,
                kv_heads: heads,
                key_dim: head_dim,
                value_dim: head_dim,
                scale: usual_scale(head_dim),
                window: None,
                projections: projections(&name("attn"), hidden),
                q_norm: None,
                k_norm: None,
                output: LinearSpec::new(name("attn.out_proj"), hidden, heads * head_dim, false),
            },
            mlp_norm: None,
            mlp: MlpSpec::Dense(DenseSpec {
                gate: None,
                up: LinearSpec::new(name("mlp.fc_in"), inner, hidden, true),
                down: LinearSpec::new(name("mlp.fc_out"), hidden, inner, true),
                activation,
            }),
        }
    });
    let vocab = keys.count(&["vocab_size"])?;
    let spec = ModelSpec {
        embed: "transformer.wte".to_owned(),
        embed_scale: 1.0,
        positions: Positions::Rotary(Rotary {
            first: 0,
            dims: keys.count_or("rotary_dim", 64)?,
            interleaved: true,
            theta: 10_000.0,
            scaling: None,
        }),
        layers: layers.collect(),
        norm: layer_norm("transformer.ln_f", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, true),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", false)?, spec })
}
