//! LoRA adapters in PEFT's layout: the configuration and what it selects.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    OneOrMany, TargetModules,
    config::{extend, refuse},
    targets::{ModuleFilter, Pattern, Selection},
};
use crate::{ModelError, Result};

/// `adapter_config.json` of a LoRA adapter. Field names are the published keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct LoraConfig {
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    pub r: usize,
    pub lora_alpha: f64,
    #[serde(default)]
    pub lora_dropout: f64,
    #[serde(default)]
    pub target_modules: TargetModules,
    /// Modules that are left out though they are targeted.
    #[serde(default)]
    pub exclude_modules: TargetModules,
    /// The only layers that are adapted, where `target_modules` is a list.
    #[serde(default)]
    pub layers_to_transform: Option<OneOrMany<usize>>,
    /// The component of a module's name after which its layer's number stands.
    #[serde(default)]
    pub layers_pattern: Option<OneOrMany<String>>,
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks of modules that differ, by a pattern for the end of their names.
    #[serde(default)]
    pub rank_pattern: Map<String, Value>,
    /// Values of `lora_alpha` of modules that differ, likewise.
    #[serde(default)]
    pub alpha_pattern: Map<String, Value>,
    /// Common tensors of a layer's experts, as transformers 5 names them: `gate_up_proj`, `down_proj`.
    #[serde(default)]
    pub target_parameters: Option<Vec<String>>,
    /// Everything else in the file, kept when it is written again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Keys that do not change what the adapter computes once it is trained.
const METADATA: &[&str] = &[
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "monteclora_config",
    "qalora_group_size",
    "runtime_config",
];

/// Rank and scale of one module's term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rank {
    pub(crate) r: usize,
    pub(crate) scale: f64,
}

/// What a configuration selects, with its patterns compiled.
pub(crate) struct LoraSelection<'a> {
    config: &'a LoraConfig,
    filter: ModuleFilter,
    ranks: Vec<(Pattern, usize)>,
    alphas: Vec<(Pattern, f64)>,
}

impl LoraConfig {
    /// An adapter of rank `r` on every linear layer of the blocks, without dropout.
    pub fn new(r: usize, lora_alpha: f64) -> Self {
        Self {
            base_model_name_or_path: None,
            r,
            lora_alpha,
            lora_dropout: 0.0,
            target_modules: TargetModules::all_linear(),
            exclude_modules: TargetModules::Default,
            layers_to_transform: None,
            layers_pattern: None,
            use_rslora: false,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
            target_parameters: None,
            extra: Map::new(),
        }
    }

    /// Refuses values this crate does not compute.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<()> {
        if self.r == 0 {
            return Err(ModelError::adapter("r", "must be at least 1"));
        }
        if !self.lora_alpha.is_finite() {
            return Err(ModelError::adapter("lora_alpha", "is not a number"));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let message = format!("{} is not in [0, 1)", self.lora_dropout);
            return Err(ModelError::adapter("lora_dropout", message));
        }
        if let Some(bias) = self.extra.get("bias").filter(|bias| **bias != json!("none")) {
            let message = format!("{bias} is not supported; expected \"none\"");
            return Err(ModelError::adapter("bias", message));
        }
        let mut extra = self.extra.clone();
        extra.remove("bias");
        refuse(&extra, METADATA)
    }

    /// The configuration ready to be asked for modules.
    ///
    /// # Errors
    /// Keys that are not supported, or patterns that are not regular expressions here.
    pub(crate) fn selection(&self) -> Result<LoraSelection<'_>> {
        self.check()?;
        let layers = self.layers_to_transform.as_ref().map_or(&[][..], OneOrMany::as_slice);
        let pattern = self.layers_pattern.as_ref().map_or(&[][..], OneOrMany::as_slice);
        let filter = ModuleFilter::new(&Selection {
            target_modules: &self.target_modules,
            exclude_modules: Some(&self.exclude_modules),
            layers_to_transform: layers,
            layers_pattern: pattern,
        })?;
        let end_of_name =
            |key, pattern: &str| Pattern::new(key, &format!("(?:.*\\.)?(?:{pattern})"));
        let wrong = |key: &str, value: &Value, pattern: &str, what: &str| {
            ModelError::adapter(key, format!("{value} for `{pattern}` is not {what}"))
        };
        let ranks = self.rank_pattern.iter().map(|(pattern, value)| {
            let rank = value.as_u64().filter(|rank| *rank > 0);
            let rank = rank
                .ok_or_else(|| wrong("rank_pattern", value, pattern, "a positive whole number"))?;
            Ok((end_of_name("rank_pattern", pattern)?, rank as usize))
        });
        let alphas = self.alpha_pattern.iter().map(|(pattern, value)| {
            let alpha = value.as_f64().filter(|alpha| alpha.is_finite());
            let alpha = alpha.ok_or_else(|| wrong("alpha_pattern", value, pattern, "a number"))?;
            Ok((end_of_name("alpha_pattern", pattern)?, alpha))
        });
        Ok(LoraSelection {
            config: self,
            filter,
            ranks: ranks.collect::<Result<_>>()?,
            alphas: alphas.collect::<Result<_>>()?,
        })
    }

    /// Adds the keys of the file.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        for (key, value) in [
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_lora_weights", json!(true)),
            ("use_dora", json!(false)),
        ] {
            map.insert(key.to_owned(), value);
        }
        extend(map, self);
        // PEFT counts ranks in whole numbers; so does its `lora_alpha` unless it is given otherwise.
        if self.lora_alpha.fract() == 0.0 {
            map.insert("lora_alpha".to_owned(), json!(self.lora_alpha as i64));
        }
    }
}

impl LoraSelection<'_> {
    /// Rank and scale of a module's term, or `None` if it gets none. `is_output`: it is the model's output layer.
    pub(crate) fn of(&self, module: &str, is_output: bool) -> Result<Option<Rank>> {
        Ok(if self.filter.selects(module, is_output)? { Some(self.rank(module)?) } else { None })
    }

    /// Rank and scale of what is named so, targeted or not.
    pub(crate) fn rank(&self, name: &str) -> Result<Rank> {
        let r = first(&self.ranks, name)?.unwrap_or(self.config.r);
        let alpha = first(&self.alphas, name)?.unwrap_or(self.config.lora_alpha);
        let divisor = if self.config.use_rslora { (r as f64).sqrt() } else { r as f64 };
        Ok(Rank { r, scale: alpha / divisor })
    }
}

/// The value of the first pattern that matches.
fn first<T: Copy>(patterns: &[(Pattern, T)], name: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if pattern.matches(name)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;

    const MODULES: &[&str] = &[
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.10.self_attn.q_proj",
        "lm_head",
    ];

    fn config(changes: &Value) -> Result<LoraConfig> {
        let mut json = json!({
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj"],
            "bias": "none",
        });
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        match AdapterConfig::from_json(json)? {
            AdapterConfig::Lora(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    fn select(changes: &Value) -> Result<Vec<(usize, usize, f64)>> {
        let config = config(changes)?;
        let selection = config.selection()?;
        let mut selected = Vec::new();
        for (i, module) in MODULES.iter().enumerate() {
            if let Some(rank) = selection.of(module, *module == "lm_head")? {
                selected.push((i, rank.r, rank.scale));
            }
        }
        Ok(selected)
    }

    #[track_caller]
    fn check(changes: Value, expected: Result<&[(usize, usize, f64)], &str>) {
        match (select(&changes), expected) {
            (Ok(selected), Ok(expected)) => assert_eq!(selected, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (selected, expected) => panic!("{selected:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn targets_ranks_and_scales() {
        check(json!({}), Ok(&[(0, 4, 2.0), (2, 4, 2.0)]));
        check(json!({"use_rslora": true}), Ok(&[(0, 4, 4.0), (2, 4, 4.0)]));
        check(
            json!({"target_modules": "all-linear"}),
            Ok(&[(0, 4, 2.0), (1, 4, 2.0), (2, 4, 2.0)]),
        );
        check(json!({"target_modules": ["lm_head", "proj"]}), Ok(&[(3, 4, 2.0)]));
        check(json!({"target_modules": r".*\.0\..*_proj"}), Ok(&[(0, 4, 2.0), (1, 4, 2.0)]));
        check(
            json!({"rank_pattern": {"layers.10.self_attn.q_proj": 2}, "alpha_pattern": {"10.self_attn.q_proj": 3}}),
            Ok(&[(0, 4, 2.0), (2, 2, 1.5)]),
        );
        check(json!({"layers_to_transform": 10}), Ok(&[(2, 4, 2.0)]));
        check(
            json!({"layers_to_transform": [0, 3], "layers_pattern": "layers"}),
            Ok(&[(0, 4, 2.0)]),
        );
        check(json!({"exclude_modules": ["layers.0.self_attn.q_proj"]}), Ok(&[(2, 4, 2.0)]));
    }

    #[test]
    fn what_is_not_computed_is_an_error() {
        check(json!({"bias": "all"}), Err("`bias`"));
        check(json!({"use_dora": true}), Err("`use_dora`"));
        check(json!({"modules_to_save": ["lm_head"]}), Err("`modules_to_save`"));
        check(json!({"peft_type": "VERA"}), Err("`peft_type`"));
        check(json!({"target_modules": "("}), Err("`target_modules`"));
        check(json!({"lora_dropout": 1.0}), Err("`lora_dropout`"));
        check(json!({"lora_dropout": "much"}), Err("`lora_dropout`"));
        check(json!({"r": 0}), Err("`r`"));
        check(json!({"r": -1}), Err("`r`"));
        check(json!({"r": null}), Err("`r`"));
        check(json!({"rank_pattern": {"q_proj": 0.5}}), Err("`rank_pattern`"));
        check(json!({"layers_to_transform": [0], "target_modules": ".*"}), Err("layers_to"));
        check(json!({"layers_pattern": "h"}), Err("layers_pattern"));
        check(
            json!({"modules_to_save": null, "layers_to_transform": []}),
            Ok(&[(0, 4, 2.0), (2, 4, 2.0)]),
        );
    }

    #[test]
    fn a_written_configuration_is_read_again() {
        let changes = json!({
            "task_type": "CAUSAL_LM",
            "peft_version": "0.21",
            "lora_dropout": 0.1,
            "exclude_modules": "lm_head",
            "layers_to_transform": 10,
        });
        let json = AdapterConfig::from(config(&changes).unwrap()).to_json();
        assert_eq!(json["lora_alpha"], json!(8));
        assert_eq!(json["peft_version"], json!("0.21"));
        assert_eq!(AdapterConfig::from_json(json.clone()).unwrap().to_json(), json);
        for (key, value) in changes.as_object().unwrap() {
            assert_eq!(json[key], *value);
        }
    }
}
