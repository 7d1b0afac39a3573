//! What llama.cpp is told about a model; what its graphs do not compute is an error.

use std::path::Path;

use super::{meta::Meta, names};
use crate::{
    ModelConfig, ModelError, Result, RopeScaling,
    config::spec::{ExpertsSpec, MlpSpec, NormKind, Positions, Projections, QuerySpec, Rotary},
    ops::Activation,
};

/// Metadata without that about tokens.
pub(super) fn metadata(path: &Path, config: &ModelConfig) -> Result<Vec<(String, Meta)>> {
    let error = |key: &str, message: String| ModelError::Config {
        path: path.to_owned(),
        key: key.to_owned(),
        message,
    };
    let Some(architecture) = names::architecture(&config.model_type) else {
        let message = format!(
            "llama.cpp has no graph for \"{}\"; it computes llama, mistral, qwen2, qwen3, deepseek_v2, gpt2, \
             gpt_bigcode, starcoder2 and phi",
            config.model_type
        );
        return Err(error("model_type", message));
    };
    check(config, architecture).map_err(|(key, message)| error(key, message))?;
    let spec = &config.spec;
    let Some(first) = spec.layers.first() else {
        return Err(error("num_hidden_layers", "0: nothing to compute".to_owned()));
    };
    let attention = &first.attention;
    let mut all = Metadata { architecture, entries: Vec::new() };
    all.entries.push(("general.architecture".to_owned(), Meta::Text(architecture.to_owned())));
    all.entries.push(("general.type".to_owned(), Meta::Text("model".to_owned())));
    all.whole("vocab_size", config.vocab_size);
    // Its graphs see everything; within the window that is the same.
    let windows = spec.layers.iter().filter_map(|layer| layer.attention.window);
    all.whole("context_length", windows.fold(config.max_position_embeddings, usize::min));
    all.whole("embedding_length", config.hidden_size);
    all.whole("block_count", spec.layers.len());
    let inner = spec.layers.iter().find_map(|layer| match &layer.mlp {
        MlpSpec::Dense(dense) => Some(dense.up.out),
        MlpSpec::Experts(_) => None,
    });
    let expert_inner = |moe: &ExpertsSpec| moe.experts.first().map_or(0, |expert| expert.up.out);
    all.whole(
        "feed_forward_length",
        inner.unwrap_or_else(|| match &first.mlp {
            MlpSpec::Experts(moe) => expert_inner(moe),
            MlpSpec::Dense(dense) => dense.up.out,
        }),
    );
    all.whole("attention.head_count", attention.heads);
    let epsilon = match spec.norm.kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    all.float(epsilon, spec.norm.eps);
    match &attention.projections {
        Projections::Direct { .. } => {
            all.whole("attention.head_count_kv", attention.kv_heads);
            all.whole("attention.key_length", attention.key_dim);
            all.whole("attention.value_length", attention.value_dim);
        }
        Projections::Latent(latent) => {
            // Computed as one common key and value of the latent vector.
            all.whole("attention.head_count_kv", 1);
            all.whole("attention.key_length", latent.rank + latent.rope);
            all.whole("attention.value_length", latent.rank);
            all.whole("attention.key_length_mla", attention.key_dim);
            all.whole("attention.value_length_mla", attention.value_dim);
            all.whole("attention.kv_lora_rank", latent.rank);
            if let QuerySpec::LowRank { a, .. } = &latent.query {
                all.whole("attention.q_lora_rank", a.out);
            }
        }
    }
    if let Some((dense, moe)) =
        spec.layers.iter().enumerate().find_map(|(i, layer)| match &layer.mlp {
            MlpSpec::Experts(moe) => Some((i, moe)),
            MlpSpec::Dense(_) => None,
        })
    {
        let inner = expert_inner(moe);
        all.whole("leading_dense_block_count", dense);
        all.whole("expert_count", moe.experts.len());
        all.whole("expert_used_count", moe.top_k);
        all.whole("expert_feed_forward_length", inner);
        let shared = moe.shared.as_ref().map_or(0, |shared| shared.up.out / inner.max(1));
        all.whole("expert_shared_count", shared);
        all.float("expert_weights_scale", f64::from(moe.scale));
        all.whole("expert_gating_func", 1);
    }
    if let Positions::Rotary(rotary) = &spec.positions {
        all.rotary(rotary, attention.scale, attention.key_dim);
    }
    Ok(all.entries)
}

struct Metadata {
    architecture: &'static str,
    entries: Vec<(String, Meta)>,
}

impl Metadata {
    fn push(&mut self, key: &str, value: Meta) {
        self.entries.push((format!("{}.{key}", self.architecture), value));
    }

    fn whole(&mut self, key: &str, value: usize) {
        self.push(key, Meta::Whole(value as u32));
    }

    fn float(&mut self, key: &str, value: f64) {
        self.push(key, Meta::Float(value as f32));
    }

    fn rotary(&mut self, rotary: &Rotary, scale: f32, key_dim: usize) {
        self.whole("rope.dimension_count", rotary.dims);
        self.float("rope.freq_base", rotary.theta);
        match &rotary.scaling {
            Some(RopeScaling::Linear { factor }) => {
                self.push("rope.scaling.type", Meta::Text("linear".to_owned()));
                self.float("rope.scaling.factor", *factor);
            }
            Some(RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_position_embeddings,
                ..
            }) => {
                self.push("rope.scaling.type", Meta::Text("yarn".to_owned()));
                self.float("rope.scaling.factor", *factor);
                self.whole(
                    "rope.scaling.original_context_length",
                    *original_max_position_embeddings,
                );
                self.float("rope.scaling.yarn_beta_fast", *beta_fast);
                self.float("rope.scaling.yarn_beta_slow", *beta_slow);
                if self.architecture == "deepseek2" {
                    self.float(
                        "rope.scaling.yarn_log_multiplier",
                        0.1 * mscale(scale, key_dim, *factor),
                    );
                } else {
                    let usual = 1.0 + 0.1 * factor.max(1.0).ln();
                    self.float("rope.scaling.attn_factor", attention_factor / usual);
                }
            }
            // Llama 3's factors are a tensor; dynamic stretching begins beyond the context.
            Some(RopeScaling::Llama3 { .. } | RopeScaling::Dynamic { .. }) | None => {}
        }
    }
}

/// `mscale_all_dim`, from how much it stretches products of queries and keys.
fn mscale(scale: f32, key_dim: usize, factor: f64) -> f64 {
    let stretch = (f64::from(scale) * (key_dim as f64).sqrt()).sqrt();
    if factor <= 1.0 { 0.0 } else { (stretch - 1.0) / (0.1 * factor.ln()) }
}

/// What the graph of an architecture takes for granted; an error is a key and what is wrong with it.
fn check(config: &ModelConfig, architecture: &str) -> Result<(), (&'static str, String)> {
    let spec = &config.spec;
    let fail = |key, message: &str| {
        Err((key, format!("{message}, which llama.cpp's graph of {architecture} does not compute")))
    };
    let activation = match architecture {
        "gpt2" | "starcoder" | "starcoder2" | "phi2" => Activation::GeluTanh,
        _ => Activation::Silu,
    };
    if spec.embed_scale != 1.0 {
        return fail("scale_embedding", "embeddings are scaled");
    }
    for layer in &spec.layers {
        let attention = &layer.attention;
        let usual = 1.0 / (attention.key_dim as f64).sqrt();
        if architecture != "deepseek2" && (f64::from(attention.scale) / usual - 1.0).abs() > 1e-6 {
            return fail("scale_attn_weights", "attention is scaled otherwise");
        }
        let has_other = |dense: &crate::config::spec::DenseSpec| dense.activation != activation;
        let other = match &layer.mlp {
            MlpSpec::Dense(dense) => has_other(dense),
            MlpSpec::Experts(moe) => moe.experts.iter().chain(&moe.shared).any(has_other),
        };
        if other {
            return fail("hidden_act", "the activation is another");
        }
        if layer.norms().iter().any(|norm| (norm.eps / spec.norm.eps - 1.0).abs() > 1e-9) {
            return fail("rms_norm_eps", "norms have several epsilons (latent ones always 1e-6)");
        }
        if matches!(&layer.mlp, MlpSpec::Experts(moe) if moe.groups.is_some()) {
            return fail("topk_method", "experts are chosen by group");
        }
        let biased = match architecture {
            "qwen3" => attention.output.bias,
            "deepseek2" => layer.linears().iter().any(|linear| linear.bias),
            _ => false,
        };
        if biased {
            return fail("attention_bias", "a projection has a bias");
        }
        if attention.key_dim * attention.heads != config.hidden_size
            && !["llama", "qwen3", "deepseek2"].contains(&architecture)
        {
            return fail("head_dim", "heads together are not as wide as the model");
        }
    }
    if let Positions::Rotary(Rotary {
        scaling: Some(RopeScaling::Yarn { truncate: false, .. }),
        ..
    }) = &spec.positions
    {
        return fail("truncate", "yarn's bounds are not rounded");
    }
    if let Positions::Rotary(Rotary {
        scaling: Some(RopeScaling::Yarn { attention_factor, .. }),
        ..
    }) = &spec.positions
        && architecture == "deepseek2"
        && (attention_factor - 1.0).abs() > 1e-6
    {
        return fail("mscale", "mscale and mscale_all_dim differ");
    }
    if architecture == "deepseek2"
        && matches!(
            &spec.positions,
            Positions::Rotary(Rotary { scaling: Some(RopeScaling::Llama3 { .. }), .. })
        )
    {
        return fail("rope_scaling", "positions are scaled as in Llama 3");
    }
    // The number of layers tells llama.cpp whether queries are of low rank.
    if let Some(layer) = spec.layers.first()
        && let Projections::Latent(latent) = &layer.attention.projections
        && matches!(latent.query, QuerySpec::Direct(_)) != [26, 27].contains(&spec.layers.len())
    {
        return fail(
            "q_lora_rank",
            "only models of 26 or 27 layers have queries of full rank, and only those",
        );
    }
    Ok(())
}
