//! Modules an adapter is put on where its configuration names none.

use super::{AdapterConfig, TargetModules};
use crate::ModelConfig;

type Names = &'static [&'static str];

/// PEFT's defaults by `model_type`: modules of LoRA and of (IA)³, and those of the latter whose input is scaled.
///
/// `starcoder2`, `xglm` and `deepseek_v2`, and (IA)³ on `codegen`, have none in PEFT: theirs are what is closest to
/// the papers, which is, for LoRA, every linear layer, but those of attention alone where PEFT would take the names of
/// others for experts'.
const DEFAULTS: &[(&str, Names, Names, Names)] = &[
    ("codegen", &["qkv_proj"], &["qkv_proj", "fc_out"], &["fc_out"]),
    ("deepseek_v2", LATENT, &["kv_b_proj", "down_proj"], &["down_proj"]),
    ("gpt2", &["c_attn"], &["c_attn", "mlp.c_proj"], &["mlp.c_proj"]),
    ("gpt_bigcode", &["c_attn"], &["c_attn", "mlp.c_proj"], &["mlp.c_proj"]),
    ("gptj", &["q_proj", "v_proj"], &["q_proj", "v_proj", "fc_out"], &["fc_out"]),
    ("llama", &["q_proj", "v_proj"], &["k_proj", "v_proj", "down_proj"], &["down_proj"]),
    ("mistral", &["q_proj", "v_proj"], &["k_proj", "v_proj", "down_proj"], &["down_proj"]),
    ("phi", &["q_proj", "v_proj", "fc1", "fc2"], &["q_proj", "v_proj", "fc2"], &["fc2"]),
    ("qwen2", &["q_proj", "v_proj"], &["q_proj", "v_proj", "down_proj"], &["down_proj"]),
    ("qwen3", &["q_proj", "v_proj"], &["q_proj", "v_proj", "down_proj"], &["down_proj"]),
    ("starcoder2", &[], &["k_proj", "v_proj", "c_proj"], &["c_proj"]),
    ("xglm", &[], &["k_proj", "v_proj", "fc2"], &["fc2"]),
];

/// Linear layers of latent attention.
const LATENT: Names =
    &["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"];

/// SantaCoder says it is GPT-2, but has other projections.
const SANTACODER: (&str, Names, Names, Names) =
    ("santacoder", &["q_attn", "kv_attn"], &["kv_attn", "mlp.c_proj"], &["mlp.c_proj"]);

/// Replaces what a configuration leaves to the default.
pub(super) fn resolve(config: &mut AdapterConfig, model: &ModelConfig) {
    let is_santacoder = model.spec.linears().any(|linear| linear.name.ends_with(".kv_attn"));
    let found = DEFAULTS.iter().find(|(name, ..)| *name == model.model_type);
    let (_, lora, ia3, feedforward) =
        if is_santacoder { SANTACODER } else { found.copied().unwrap_or(("", &[], &[], &[])) };
    let fill = |modules: &mut TargetModules, names: &[&str]| {
        if *modules == TargetModules::Default {
            *modules = match names {
                [] => TargetModules::all_linear(),
                names => TargetModules::List(names.iter().map(|&name| name.to_owned()).collect()),
            };
        }
    };
    match config {
        AdapterConfig::Lora(config) => {
            let has_parameters = config.target_parameters.as_ref().is_some_and(|p| !p.is_empty());
            if has_parameters && config.target_modules == TargetModules::Default {
                config.target_modules = TargetModules::List(Vec::new());
            }
            fill(&mut config.target_modules, lora);
        }
        AdapterConfig::Ia3(config) => {
            fill(&mut config.target_modules, ia3);
            if config.feedforward_modules == TargetModules::Default {
                let names = feedforward.iter().map(|&name| name.to_owned());
                config.feedforward_modules = TargetModules::List(names.collect());
            }
        }
        AdapterConfig::PrefixTuning(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Ia3Config, LoraConfig};

    #[test]
    fn modules_are_those_of_the_family() {
        let model = ModelConfig::llama(64, 16, 2, 4, 24, 32).unwrap();
        let mut lora = LoraConfig::new(4, 8.0);
        lora.target_modules = TargetModules::Default;
        let mut config = AdapterConfig::from(lora);
        resolve(&mut config, &model);
        assert_eq!(config.to_json()["target_modules"], json!(["q_proj", "v_proj"]));
        let mut config = AdapterConfig::from(Ia3Config::default());
        resolve(&mut config, &model);
        assert_eq!(config.to_json()["target_modules"], json!(["k_proj", "v_proj", "down_proj"]));
        assert_eq!(config.to_json()["feedforward_modules"], json!(["down_proj"]));
    }
}
