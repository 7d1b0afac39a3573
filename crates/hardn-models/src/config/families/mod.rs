//! One reader per family: published keys to a [`ModelSpec`].
//!
//! Keys, their defaults where a file has none, and the order of operations are those of `transformers` 5.23,
//! but where a file says otherwise.

mod deepseek_v2;
mod gpt2;
mod gptj;
mod llama;
mod phi;
mod starcoder2;
mod xglm;

use super::{
    keys::Keys,
    spec::{LinearSpec, ModelSpec, NormKind, NormSpec, Projections, Slice},
};
use crate::{ModelError, Result};

/// What every family's reader finds out.
pub(super) struct Read {
    pub(super) hidden_size: usize,
    pub(super) context: usize,
    pub(super) tied: bool,
    pub(super) spec: ModelSpec,
}

type Reader = fn(&Keys, Sizes) -> Result<Read>;

/// Families by `model_type`; further down, names of `architectures` that are understood.
const FAMILIES: &[(&str, Reader, &[&str])] = &[
    ("codegen", gptj::codegen, &["CodeGenForCausalLM"]),
    ("deepseek_v2", deepseek_v2::read, &["DeepseekV2ForCausalLM"]),
    ("gpt2", gpt2::read, &["GPT2LMHeadModel", "GPT2LMHeadCustomModel"]),
    ("gpt_bigcode", gpt2::bigcode, &["GPTBigCodeForCausalLM", "GPTBigCodeLMHeadModel"]),
    ("gptj", gptj::gptj, &["GPTJForCausalLM"]),
    ("llama", llama::llama, &["LlamaForCausalLM"]),
    ("mistral", llama::mistral, &["MistralForCausalLM"]),
    ("phi", phi::read, &["PhiForCausalLM"]),
    ("qwen2", llama::qwen2, &["Qwen2ForCausalLM"]),
    ("qwen3", llama::qwen3, &["Qwen3ForCausalLM"]),
    ("starcoder2", starcoder2::read, &["Starcoder2ForCausalLM"]),
    ("xglm", xglm::read, &["XGLMForCausalLM"]),
];

/// Most layers, heads of a layer, and experts of a layer.
const MOST: usize = 4096;

/// Sizes that every family has, under some spelling.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
}

/// Reads the keys that say what is computed.
///
/// # Errors
/// An unknown family, or keys that are missing, out of range or contradict each other.
pub(super) fn read(keys: &Keys) -> Result<(String, Read)> {
    let known = || FAMILIES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let Some(name) = keys.text("model_type")? else {
        return Err(keys.error("model_type", format!("is missing; expected one of {}", known())));
    };
    let Some((_, reader, architectures)) = FAMILIES.iter().find(|(known, ..)| *known == name)
    else {
        let message = format!("\"{name}\" is not supported; expected one of {}", known());
        return Err(keys.error("model_type", message));
    };
    if let Some(list) = keys.get("architectures") {
        let supported = |value: &serde_json::Value| {
            value.as_str().is_some_and(|name| architectures.contains(&name))
        };
        if !list.as_array().is_some_and(|list| list.iter().all(supported)) {
            let message =
                format!("{list} is not supported; expected {}", architectures.join(" or "));
            return Err(keys.error("architectures", message));
        }
    }
    let sizes = Sizes {
        hidden: keys.count(&["hidden_size", "n_embd", "d_model"])?,
        layers: keys.count(&["num_hidden_layers", "n_layer", "num_layers"])?,
        heads: keys.count(&["num_attention_heads", "n_head", "attention_heads"])?,
    };
    // A damaged file must not ask for memory without bound.
    for (name, spellings, count) in [
        ("layers", ["num_hidden_layers", "n_layer", "num_layers"], sizes.layers),
        ("heads", ["num_attention_heads", "n_head", "attention_heads"], sizes.heads),
    ] {
        if count > MOST {
            let key = spellings.into_iter().find(|key| keys.has(key)).unwrap_or(spellings[0]);
            return Err(keys.error(key, format!("{count} {name} are more than {MOST}")));
        }
    }
    let read = reader(keys, sizes)?;
    check(keys, &read)?;
    Ok((name.to_owned(), read))
}

/// Contradictions that no family allows.
fn check(keys: &Keys, read: &Read) -> Result<()> {
    for layer in &read.spec.layers {
        let attention = &layer.attention;
        keys.divides(
            "num_key_value_heads",
            attention.kv_heads,
            "num_attention_heads",
            attention.heads,
        )?;
    }
    if let super::spec::Positions::Rotary(rotary) = &read.spec.positions {
        let head = read.spec.layers.first().map_or(0, |layer| layer.attention.key_dim);
        if rotary.dims == 0 || !rotary.dims.is_multiple_of(2) || rotary.first + rotary.dims > head {
            let message = format!(
                "{} rotated dimensions of a head of {head}: must be even and fit",
                rotary.dims
            );
            let key = ["rotary_dim", "qk_rope_head_dim", "partial_rotary_factor"];
            let key = key.into_iter().find(|key| keys.has(key)).unwrap_or("head_dim");
            return Err(keys.error(key, message));
        }
    }
    Ok(())
}

/// `head_dim`, or the hidden size divided by the heads.
fn head_dim(keys: &Keys, sizes: Sizes) -> Result<usize> {
    if keys.has("head_dim") {
        return keys.count(&["head_dim"]);
    }
    keys.divides("num_attention_heads", sizes.heads, "hidden_size", sizes.hidden)?;
    Ok(sizes.hidden / sizes.heads)
}

/// `1 / sqrt(head_dim)`.
fn usual_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

fn layer_norm(name: impl Into<String>, size: usize, eps: f64) -> NormSpec {
    NormSpec { name: name.into(), kind: NormKind::Layer, size, eps }
}

fn rms_norm(name: impl Into<String>, size: usize, eps: f64) -> NormSpec {
    NormSpec { name: name.into(), kind: NormKind::Rms, size, eps }
}

/// A layer each for queries, keys and values.
fn separate(q: LinearSpec, k: LinearSpec, v: LinearSpec) -> Projections {
    let all = |linear: usize, spec: &LinearSpec| vec![Slice { linear, start: 0, len: spec.out }];
    let (q_all, k_all, v_all) = (all(0, &q), all(1, &k), all(2, &v));
    Projections::Direct { linears: vec![q, k, v], q: q_all, k: k_all, v: v_all }
}

/// One layer for all three; `parts` says of each stretch of its output, in order, what it is (0 queries, 1 keys,
/// 2 values) and how long.
fn fused(linear: LinearSpec, parts: impl IntoIterator<Item = (usize, usize)>) -> Projections {
    let mut slices: [Vec<Slice>; 3] = Default::default();
    let mut start = 0;
    for (part, len) in parts {
        slices[part].push(Slice { linear: 0, start, len });
        start += len;
    }
    let [q, k, v] = slices;
    Projections::Direct { linears: vec![linear], q, k, v }
}

/// `sliding_window`, or `absent` where the file lacks the key; `null` means none. A window as long as the context
/// changes nothing.
fn window(keys: &Keys, absent: Option<usize>, context: usize) -> Result<Option<usize>> {
    const KEY: &str = "sliding_window";
    let absent = absent.filter(|_| !keys.is_written(KEY)).unwrap_or(context);
    let window = keys.count_or(KEY, absent)?;
    Ok((window < context).then_some(window))
}

/// The layers that `layer_types` says have a window, or those that `absent` does where the file has none.
fn windowed_layers(
    keys: &Keys,
    layers: usize,
    absent: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let Some(list) = keys.get("layer_types") else { return Ok((0..layers).map(absent).collect()) };
    let read = |value: &serde_json::Value| match value.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    };
    let types: Option<Vec<bool>> = list.as_array().and_then(|list| list.iter().map(read).collect());
    types.filter(|types| types.len() == layers).ok_or_else(|| {
        let expected =
            format!("expected {layers} times \"full_attention\" or \"sliding_attention\"");
        keys.error("layer_types", format!("{list}: {expected}"))
    })
}
