//! DeepSeek-V2 and DeepSeek-Coder-V2: latent attention, a mixture of experts with shared ones
//! (arXiv:2405.04434, sections 2.1 and 2.2).

use serde_json::json;

use super::{Keys, MOST, Read, Sizes, rms_norm};
use crate::{
    Result,
    config::{
        RopeScaling,
        keys::RopeKeys,
        spec::{
            AttentionSpec, DenseSpec, ExpertsSpec, LatentSpec, LayerSpec, LinearSpec, MlpSpec,
            ModelSpec, Positions, Projections, QuerySpec, Rotary,
        },
    },
    ops::Activation,
};

/// The norms of latent vectors do not take their epsilon from the file.
const LATENT_EPS: f64 = 1e-6;

pub(super) fn read(keys: &Keys, sizes: Sizes) -> Result<Read> {
    let Sizes { hidden, layers, heads } = sizes;
    keys.only("pretraining_tp", &json!(1))?;
    keys.only("moe_layer_freq", &json!(1))?;
    keys.only("scoring_func", &json!("softmax"))?;
    // Published code normalises chosen probabilities then, transformers does not.
    keys.only("norm_topk_prob", &json!(false))?;
    // Derived from the others by transformers 5.
    keys.get("head_dim");
    keys.get("qk_head_dim");
    let kv_heads = keys.count_or("num_key_value_heads", heads)?;
    if kv_heads != heads {
        return Err(keys.error(
            "num_key_value_heads",
            format!("{kv_heads}: latent attention has as many as num_attention_heads, {heads}"),
        ));
    }
    let nope = keys.count_or("qk_nope_head_dim", 128)?;
    let rope = keys.count_or("qk_rope_head_dim", 64)?;
    let value_dim = keys.count_or("v_head_dim", 128)?;
    let rank = keys.count_or("kv_lora_rank", 512)?;
    let query_rank = match keys.get("q_lora_rank") {
        Some(_) => Some(keys.count(&["q_lora_rank"])?),
        None if keys.is_written("q_lora_rank") => None,
        None => Some(1536),
    };
    let bias = keys.flag("attention_bias", false)?;
    let mlp_bias = keys.flag("mlp_bias", false)?;
    let inner = keys.count(&["intermediate_size"])?;
    let eps = keys.epsilon("rms_norm_eps", 1e-6)?;
    let activation = keys.activation("hidden_act", Activation::Silu)?;
    let context = keys.count_or("max_position_embeddings", 2048)?;
    let RopeKeys { theta, scaling, .. } = keys.whole_rope(context)?;
    let key_dim = nope + rope;
    let scale = (attention_stretch(keys, scaling.as_ref()) / (key_dim as f64).sqrt()) as f32;
    let first_moe = keys.index_or("first_k_dense_replace", 0)?;
    let mixture = if first_moe < layers {
        Some(Mixture::read(keys)?)
    } else {
        for key in Mixture::KEYS {
            keys.get(key);
        }
        None
    };

    let layers = (0..layers).map(|i| {
        let linear = |name: &str, out: usize, input: usize, bias: bool| {
            LinearSpec::new(format!("model.layers.{i}.{name}"), out, input, bias)
        };
        let norm = |name: &str, size: usize, eps: f64| {
            rms_norm(format!("model.layers.{i}.{name}"), size, eps)
        };
        let query = match query_rank {
            None => QuerySpec::Direct(linear("self_attn.q_proj", heads * key_dim, hidden, false)),
            Some(rank) => QuerySpec::LowRank {
                a: linear("self_attn.q_a_proj", rank, hidden, bias),
                norm: norm("self_attn.q_a_layernorm", rank, LATENT_EPS),
                b: linear("self_attn.q_b_proj", heads * key_dim, rank, false),
            },
        };
        let dense = |name: &str, inner: usize, bias: bool| DenseSpec {
            gate: Some(linear(&format!("{name}.gate_proj"), inner, hidden, bias)),
            up: linear(&format!("{name}.up_proj"), inner, hidden, bias),
            down: linear(&format!("{name}.down_proj"), hidden, inner, bias),
            activation,
        };
        let mlp = match mixture.as_ref().filter(|_| i >= first_moe) {
            None => MlpSpec::Dense(dense("mlp", inner, mlp_bias)),
            Some(mixture) => MlpSpec::Experts(Box::new(ExpertsSpec {
                router: linear("mlp.gate", mixture.experts, hidden, false),
                experts: (0..mixture.experts)
                    .map(|expert| dense(&format!("mlp.experts.{expert}"), mixture.inner, false))
                    .collect(),
                shared: (mixture.shared > 0)
                    .then(|| dense("mlp.shared_experts", mixture.inner * mixture.shared, mlp_bias)),
                top_k: mixture.top_k,
                groups: mixture.groups,
                scale: mixture.scale,
            })),
        };
        LayerSpec {
            input_norm: norm("input_layernorm", hidden, eps),
            attention: AttentionSpec {
                heads,
                kv_heads: heads,
                key_dim,
                value_dim,
                scale,
                window: None,
                projections: Projections::Latent(Box::new(LatentSpec {
                    query,
                    kv_a: linear("self_attn.kv_a_proj_with_mqa", rank + rope, hidden, bias),
                    kv_a_norm: norm("self_attn.kv_a_layernorm", rank, LATENT_EPS),
                    kv_b: linear("self_attn.kv_b_proj", heads * (nope + value_dim), rank, false),
                    rank,
                    nope,
                    rope,
                })),
                q_norm: None,
                k_norm: None,
                output: linear("self_attn.o_proj", hidden, heads * value_dim, bias),
            },
            mlp_norm: Some(norm("post_attention_layernorm", hidden, eps)),
            mlp,
        }
    });
    let vocab = keys.count(&["vocab_size"])?;
    let spec = ModelSpec {
        embed: "model.embed_tokens".to_owned(),
        embed_scale: 1.0,
        positions: Positions::Rotary(Rotary {
            first: nope,
            dims: rope,
            interleaved: true,
            theta,
            scaling,
        }),
        layers: layers.collect(),
        norm: rms_norm("model.norm", hidden, eps),
        head: LinearSpec::new("lm_head", vocab, hidden, false),
    };
    Ok(Read { hidden_size: hidden, context, tied: keys.flag("tie_word_embeddings", false)?, spec })
}

/// With `mscale_all_dim` products of queries and keys are stretched as well.
fn attention_stretch(keys: &Keys, scaling: Option<&RopeScaling>) -> f64 {
    let factor = match scaling {
        None => return 1.0,
        Some(
            RopeScaling::Linear { factor }
            | RopeScaling::Dynamic { factor, .. }
            | RopeScaling::Llama3 { factor, .. }
            | RopeScaling::Yarn { factor, .. },
        ) => *factor,
    };
    let rope = ["rope_scaling", "rope_parameters"].iter().find_map(|key| keys.get(key));
    let mscale = rope.and_then(|rope| rope["mscale_all_dim"].as_f64()).unwrap_or(0.0);
    let stretch =
        if factor <= 1.0 || mscale == 0.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    stretch * stretch
}

struct Mixture {
    experts: usize,
    shared: usize,
    inner: usize,
    top_k: usize,
    groups: Option<(usize, usize)>,
    scale: f32,
}

impl Mixture {
    const KEYS: [&str; 8] = [
        "moe_intermediate_size",
        "n_group",
        "n_routed_experts",
        "n_shared_experts",
        "num_experts_per_tok",
        "routed_scaling_factor",
        "topk_group",
        "topk_method",
    ];

    fn read(keys: &Keys) -> Result<Self> {
        let experts = keys.count_or("n_routed_experts", 64)?;
        if experts > MOST {
            return Err(keys.error("n_routed_experts", format!("{experts} are more than {MOST}")));
        }
        let top_k = keys.count(&["num_experts_per_tok"])?;
        if top_k > experts {
            return Err(
                keys.error("num_experts_per_tok", format!("{top_k} of n_routed_experts {experts}"))
            );
        }
        let groups = match keys.text("topk_method")?.unwrap_or("greedy") {
            "greedy" => {
                keys.get("n_group");
                keys.get("topk_group");
                None
            }
            "group_limited_greedy" => {
                let (all, best) = (keys.count(&["n_group"])?, keys.count(&["topk_group"])?);
                keys.divides("n_group", all, "n_routed_experts", experts)?;
                if best > all {
                    return Err(keys.error("topk_group", format!("{best} of n_group {all}")));
                }
                Some((all, best))
            }
            other => {
                let message = format!(
                    "\"{other}\" is not supported; expected greedy or group_limited_greedy"
                );
                return Err(keys.error("topk_method", message));
            }
        };
        Ok(Self {
            experts,
            shared: keys.index_or("n_shared_experts", 2)?,
            inner: keys.count_or("moe_intermediate_size", 1407)?,
            top_k,
            groups,
            scale: keys.positive("routed_scaling_factor", 1.0)? as f32,
        })
    }
}
