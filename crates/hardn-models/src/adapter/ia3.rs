//! (IA)³ adapters in PEFT's layout: the configuration and what it selects.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    TargetModules,
    config::{extend, refuse},
    targets::{ModuleFilter, Pattern, Selection},
};
use crate::Result;

/// `adapter_config.json` of an (IA)³ adapter. Field names are the published keys.
///
/// # Source
/// Liu et al. 2022 (arXiv:2205.05638), section 3.3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct Ia3Config {
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    #[serde(default)]
    pub target_modules: TargetModules,
    /// Modules that are left out though they are targeted.
    #[serde(default)]
    pub exclude_modules: TargetModules,
    /// Targeted modules whose input is scaled rather than their output: those whose name ends in one of a list.
    /// A name that is not targeted has no effect.
    #[serde(default)]
    pub feedforward_modules: TargetModules,
    /// Everything else in the file, kept when it is written again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a module's factors apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// After the bias; `[out, 1]` in files.
    Output,
    /// `[1, in]` in files.
    Input,
}

/// What a configuration selects, with its patterns compiled.
pub(crate) struct Ia3Selection {
    filter: ModuleFilter,
    feedforward: Feedforward,
}

enum Feedforward {
    Endings(Vec<String>),
    Pattern(Pattern),
}

impl Ia3Config {
    /// Refuses values this crate does not compute.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<()> {
        refuse(&self.extra, &["fan_in_fan_out", "init_ia3_weights"])
    }

    /// The configuration ready to be asked for modules.
    ///
    /// # Errors
    /// Keys that are not supported, or patterns that are not regular expressions here.
    pub(crate) fn selection(&self) -> Result<Ia3Selection> {
        self.check()?;
        let filter = ModuleFilter::new(&Selection {
            target_modules: &self.target_modules,
            exclude_modules: Some(&self.exclude_modules),
            layers_to_transform: &[],
            layers_pattern: &[],
        })?;
        let feedforward = match &self.feedforward_modules {
            TargetModules::List(names) => Feedforward::Endings(names.clone()),
            TargetModules::Default => Feedforward::Endings(Vec::new()),
            TargetModules::Pattern(text) => {
                Feedforward::Pattern(Pattern::new("feedforward_modules", text)?)
            }
        };
        Ok(Ia3Selection { filter, feedforward })
    }

    /// Adds the keys of the file.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        map.insert("fan_in_fan_out".to_owned(), json!(false));
        map.insert("init_ia3_weights".to_owned(), json!(true));
        extend(map, self);
    }
}

impl Ia3Selection {
    /// Where a module's factors apply, or `None` if it gets none. `is_output`: it is the model's output layer.
    pub(crate) fn of(&self, module: &str, is_output: bool) -> Result<Option<Side>> {
        if !self.filter.selects(module, is_output)? {
            return Ok(None);
        }
        let is_feedforward = match &self.feedforward {
            // Unlike targets, these are compared without a dot before them.
            Feedforward::Endings(names) => names.iter().any(|name| module.ends_with(name)),
            Feedforward::Pattern(pattern) => pattern.matches(module)?,
        };
        Ok(Some(if is_feedforward { Side::Input } else { Side::Output }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;

    #[track_caller]
    fn check(feedforward: Value, module: &str, expected: Option<Side>) {
        let json = json!({
            "peft_type": "IA3",
            "target_modules": ["k_proj", "mlp.c_proj"],
            "feedforward_modules": feedforward,
            "init_ia3_weights": true,
        });
        let AdapterConfig::Ia3(config) = AdapterConfig::from_json(json).unwrap() else {
            panic!("not read as IA3")
        };
        assert_eq!(config.selection().unwrap().of(module, false).unwrap(), expected);
    }

    #[test]
    fn factors_apply_to_outputs_or_inputs() {
        check(json!(["mlp.c_proj"]), "h.0.attn.k_proj", Some(Side::Output));
        check(json!(["mlp.c_proj"]), "h.0.attn.c_proj", None);
        check(json!(["mlp.c_proj"]), "h.0.mlp.c_proj", Some(Side::Input));
        check(json!(["proj"]), "h.0.mlp.c_proj", Some(Side::Input));
        check(json!([]), "h.0.mlp.c_proj", Some(Side::Output));
        check(json!(["fc_in"]), "h.0.mlp.c_proj", Some(Side::Output));
        check(json!(r".*\.k_proj"), "h.0.attn.k_proj", Some(Side::Input));
        check(json!("k_proj"), "h.0.attn.k_proj", Some(Side::Output));
    }

    #[test]
    fn what_is_not_computed_is_an_error() {
        let json = json!({"peft_type": "IA3", "modules_to_save": ["lm_head"]});
        let error = AdapterConfig::from_json(json).unwrap_err().to_string();
        assert!(error.contains("modules_to_save"), "{error}");
        let json = json!({"peft_type": "IA3", "target_modules": 3});
        let error = AdapterConfig::from_json(json).unwrap_err().to_string();
        assert!(error.contains("target_modules"), "{error}");
    }
}
