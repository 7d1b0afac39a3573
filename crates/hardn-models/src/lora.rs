//! LoRA adapters in PEFT's layout: the configuration and what it selects.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{ModelError, Result};

/// Which modules get a low-rank term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Modules whose name is one of these, or ends in a dot and one of these.
    List(Vec<String>),
    /// A regular expression that must match a whole name, or `all-linear`: every linear layer but the output.
    Pattern(String),
}

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
    pub target_modules: TargetModules,
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks of modules that differ, by a pattern for the end of their names.
    #[serde(default)]
    pub rank_pattern: Map<String, Value>,
    /// Values of `lora_alpha` of modules that differ, likewise.
    #[serde(default)]
    pub alpha_pattern: Map<String, Value>,
    /// Everything else in the file, kept when it is written again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Keys that do not change what the adapter computes once it is trained.
const METADATA: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

impl LoraConfig {
    /// An adapter of rank `r` on every linear layer of the blocks, without dropout.
    pub fn new(r: usize, lora_alpha: f64) -> Self {
        Self {
            base_model_name_or_path: None,
            r,
            lora_alpha,
            lora_dropout: 0.0,
            target_modules: TargetModules::Pattern("all-linear".to_owned()),
            use_rslora: false,
            rank_pattern: Map::new(),
            alpha_pattern: Map::new(),
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
        if let Some(kind) = self.extra.get("peft_type").filter(|kind| **kind != json!("LORA")) {
            return Err(ModelError::adapter(
                "peft_type",
                format!("{kind} is not supported; expected LORA"),
            ));
        }
        for (key, value) in &self.extra {
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::String(text) => key == "bias" && text == "none",
                _ => false,
            };
            if !empty && !METADATA.contains(&key.as_str()) {
                return Err(ModelError::adapter(key, format!("{value} is not supported")));
            }
        }
        Ok(())
    }

    /// Those of `modules` that are targeted, with rank and scale, in the order given.
    ///
    /// # Errors
    /// A pattern that is not a regular expression here, or that selects nothing.
    pub(crate) fn select<'a>(&self, modules: &[&'a str]) -> Result<Vec<(&'a str, usize, f64)>> {
        self.check()?;
        let whole = |key: &str, pattern: &str| {
            Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                ModelError::adapter(key, format!("`{pattern}` is not a supported pattern: {error}"))
            })
        };
        let regex = match &self.target_modules {
            TargetModules::Pattern(pattern) if pattern != "all-linear" => {
                Some(whole("target_modules", pattern)?)
            }
            _ => None,
        };
        let targeted = |module: &str| match (&self.target_modules, &regex) {
            (TargetModules::List(names), _) => names.iter().any(|name| {
                module == name || module.strip_suffix(name).is_some_and(|head| head.ends_with('.'))
            }),
            (_, Some(regex)) => regex.is_match(module),
            (_, None) => module != "lm_head",
        };
        let special = |key: &str, patterns: &Map<String, Value>, module: &str| {
            for (pattern, value) in patterns {
                if whole(key, &format!("(?:.*\\.)?(?:{pattern})"))?.is_match(module) {
                    let number = value.as_f64().filter(|number| *number > 0.0);
                    return number.map(Some).ok_or_else(|| {
                        ModelError::adapter(
                            key,
                            format!("{value} for `{pattern}` is not a positive number"),
                        )
                    });
                }
            }
            Ok(None)
        };
        let mut selected = Vec::new();
        for module in modules.iter().filter(|module| targeted(module)) {
            let r =
                special("rank_pattern", &self.rank_pattern, module)?.map_or(self.r, |r| r as usize);
            let alpha =
                special("alpha_pattern", &self.alpha_pattern, module)?.unwrap_or(self.lora_alpha);
            let divisor = if self.use_rslora { (r as f64).sqrt() } else { r as f64 };
            selected.push((*module, r, alpha / divisor));
        }
        if selected.is_empty() {
            let message = format!("{} selects no module of this model", json!(self.target_modules));
            return Err(ModelError::adapter("target_modules", message));
        }
        Ok(selected)
    }

    /// The file's contents, with the keys PEFT writes.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, value) in [
            ("auto_mapping", Value::Null),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("inference_mode", json!(true)),
            ("init_lora_weights", json!(true)),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("modules_to_save", Value::Null),
            ("peft_type", json!("LORA")),
            ("revision", Value::Null),
            ("task_type", json!("CAUSAL_LM")),
            ("use_dora", json!(false)),
        ] {
            map.insert(key.to_owned(), value);
        }
        if let Ok(Value::Object(own)) = serde_json::to_value(self) {
            map.extend(own);
        }
        // PEFT counts ranks in whole numbers; so does its `lora_alpha` unless it is given otherwise.
        if self.lora_alpha.fract() == 0.0 {
            map.insert("lora_alpha".to_owned(), json!(self.lora_alpha as i64));
        }
        map.sort_keys();
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &[&str] = &[
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.10.self_attn.q_proj",
        "lm_head",
    ];

    fn config(changes: Value) -> LoraConfig {
        let mut json =
            json!({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    #[track_caller]
    fn check(changes: Value, expected: Result<&[(usize, usize, f64)], &str>) {
        match (config(changes).select(MODULES), expected) {
            (Ok(selected), Ok(expected)) => {
                let expected: Vec<_> =
                    expected.iter().map(|(i, r, scale)| (MODULES[*i], *r, *scale)).collect();
                assert_eq!(selected, expected);
            }
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
    }

    #[test]
    fn what_is_not_computed_is_an_error() {
        check(json!({"bias": "all"}), Err("`bias`"));
        check(json!({"use_dora": true}), Err("`use_dora`"));
        check(json!({"modules_to_save": ["lm_head"]}), Err("`modules_to_save`"));
        check(json!({"peft_type": "IA3"}), Err("`peft_type`"));
        check(json!({"target_modules": ["conv"]}), Err("`target_modules`"));
        check(json!({"target_modules": "("}), Err("`target_modules`"));
        check(json!({"lora_dropout": 1.0}), Err("`lora_dropout`"));
        check(json!({"r": 0}), Err("`r`"));
        check(
            json!({"modules_to_save": null, "layers_to_transform": []}),
            Ok(&[(0, 4, 2.0), (2, 4, 2.0)]),
        );
    }

    #[test]
    fn a_written_configuration_is_read_again() {
        let config =
            config(json!({"task_type": "CAUSAL_LM", "peft_version": "0.21", "lora_dropout": 0.1}));
        let json = config.to_json();
        assert_eq!(json["lora_alpha"], json!(8));
        assert_eq!(json["peft_version"], json!("0.21"));
        let again: LoraConfig = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(again.to_json(), json);
    }
}
