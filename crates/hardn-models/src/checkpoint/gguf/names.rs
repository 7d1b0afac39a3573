//! Tensor names: published ones and those of GGUF, and how a tensor is laid out there.

/// How llama.cpp keeps a published tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Same,
    /// Transposed: `[in, out]` is published.
    Transposed,
    /// Rows of each head in another order: pairs `(i, i + d / 2)` of rotary positions become neighbours.
    Pairs,
    /// Rows of each head's query, key and value become all queries, all keys, all values.
    Grouped,
    /// One of the matrices of a stack.
    Expert(usize),
    /// Each head's key part transposed in one stack, each head's value part in another.
    SplitKv,
}

/// Where a published tensor is in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) name: String,
    pub(super) layout: Layout,
}

struct Family {
    /// llama.cpp's name.
    architecture: &'static str,
    /// What comes before a layer's number.
    layers: &'static str,
    /// Modules outside of layers, then those inside.
    top: &'static [(&'static str, &'static str)],
    layer: &'static [(&'static str, &'static str)],
}

const MODEL_TOP: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

const GPT2_TOP: &[(&str, &str)] = &[
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("lm_head", "output"),
];

const GPT2_LAYER: &[(&str, &str)] = &[
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

const LLAMA_LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

const DEEPSEEK_LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

const EXPERTS: &[(&str, &str)] =
    &[("gate_proj", "ffn_gate_exps"), ("up_proj", "ffn_up_exps"), ("down_proj", "ffn_down_exps")];

const STARCODER2_LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

const PHI_TOP: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.final_layernorm", "output_norm"),
    ("lm_head", "output"),
];

const PHI_LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.dense", "attn_output"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];

fn family(model_type: &str) -> Option<Family> {
    let family = |architecture, layers, top, layer| Family { architecture, layers, top, layer };
    Some(match model_type {
        "llama" | "mistral" => family("llama", "model.layers.", MODEL_TOP, LLAMA_LAYER),
        "qwen2" => family("qwen2", "model.layers.", MODEL_TOP, LLAMA_LAYER),
        "qwen3" => family("qwen3", "model.layers.", MODEL_TOP, LLAMA_LAYER),
        "deepseek_v2" => family("deepseek2", "model.layers.", MODEL_TOP, DEEPSEEK_LAYER),
        "starcoder2" => family("starcoder2", "model.layers.", MODEL_TOP, STARCODER2_LAYER),
        "phi" => family("phi2", "model.layers.", PHI_TOP, PHI_LAYER),
        "gpt2" => family("gpt2", "transformer.h.", GPT2_TOP, GPT2_LAYER),
        "gpt_bigcode" => family("starcoder", "transformer.h.", GPT2_TOP, GPT2_LAYER),
        _ => return None,
    })
}

/// llama.cpp's name of a published `model_type`, where it has one.
pub(super) fn architecture(model_type: &str) -> Option<&'static str> {
    family(model_type).map(|family| family.architecture)
}

/// The published `model_type` of an architecture of llama.cpp.
pub(super) fn model_type(architecture: &str) -> Option<&'static str> {
    ["llama", "qwen2", "qwen3", "deepseek_v2", "starcoder2", "phi", "gpt2", "gpt_bigcode"]
        .into_iter()
        .find(|name| family(name).is_some_and(|family| family.architecture == architecture))
}

/// Where llama.cpp keeps a published tensor; `None` if it has no place for it.
pub(super) fn mapped(model_type: &str, published: &str) -> Option<Mapped> {
    let family = family(model_type)?;
    let (module, part) = published.rsplit_once('.')?;
    let find = |table: &[(&str, &'static str)], module: &str| {
        table.iter().find(|(name, _)| *name == module).map(|(_, name)| *name)
    };
    let Some(rest) = module.strip_prefix(family.layers) else {
        let name = format!("{}.{part}", find(family.top, module)?);
        return Some(Mapped { name, layout: Layout::Same });
    };
    let (layer, module) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    if let Some((expert, module)) =
        module.strip_prefix("mlp.experts.").and_then(|rest| rest.split_once('.'))
    {
        let name = format!("blk.{layer}.{}.{part}", find(EXPERTS, module)?);
        return Some(Mapped { name, layout: Layout::Expert(expert.parse().ok()?) });
    }
    let gguf = find(family.layer, module)?;
    let layout = match (family.architecture, gguf) {
        ("llama", "attn_q" | "attn_k") => Layout::Pairs,
        ("starcoder", "attn_qkv") => Layout::Grouped,
        ("deepseek2", "attn_kv_b") => Layout::SplitKv,
        ("gpt2", _) if part == "weight" && !gguf.ends_with("norm") => Layout::Transposed,
        _ => Layout::Same,
    };
    Some(Mapped { name: format!("blk.{layer}.{gguf}.{part}"), layout })
}
