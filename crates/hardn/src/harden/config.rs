//! The configuration of a run, as written and as resolved.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hardn_decode::DecoderConfig;
use hardn_types::{Split, toml_number};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Context, Failure, Outcome},
    improve::ImproveConfig,
};

/// A run's configuration (RUN.toml). Relative paths are relative to the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// Head of the report.
    #[serde(default)]
    pub(crate) title: Option<String>,
    /// A shipped lab model (`lab-1m`), a checkpoint folder, or a hub name (`owner/name` or `owner/name@revision`).
    pub(crate) model: String,
    /// Seed of training and sampling.
    #[serde(default = "one")]
    pub(crate) seed: u64,
    /// Where the run folder goes.
    #[serde(default, skip_serializing)]
    pub(crate) out: Option<PathBuf>,
    /// The lab as source of pairs, utility rows, scenarios and tasks.
    #[serde(default)]
    pub(crate) world: Option<WorldConfig>,
    /// How to harden; without it the run only evaluates.
    #[serde(default)]
    pub(crate) train: Option<TrainConfig>,
    /// How to train on the model's own samples; for `hardn improve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) improve: Option<ImproveConfig>,
    /// How to evaluate.
    #[serde(default)]
    pub(crate) eval: EvalConfig,
    /// The run's models under further decoders, an arm each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) decoding: Vec<DecodingConfig>,
    /// What the method has to beat.
    #[serde(default)]
    pub(crate) controls: Controls,
}

/// Which world of the lab.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorldConfig {
    /// A folder written by `hardn lab generate`; without it the world is generated.
    pub(crate) path: Option<PathBuf>,
    /// Seed of the generator.
    pub(crate) seed: Option<u64>,
    /// Further idioms, names and wordings.
    pub(crate) idioms: Option<PathBuf>,
}

/// How to harden.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainConfig {
    /// A shipped recipe's name or a TOML file.
    pub(crate) recipe: String,
    /// Overrides of the recipe's keys.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, toml::Value>,
    /// Fix pairs: files or folders.
    #[serde(default)]
    pub(crate) pairs: Vec<PathBuf>,
    /// Fix pairs for validation.
    #[serde(default)]
    pub(crate) validation_pairs: Vec<PathBuf>,
    /// Utility rows.
    #[serde(default)]
    pub(crate) utility: Vec<PathBuf>,
    /// Suites on which the model is sampled at every validation; only their rows of the split `val` are used.
    #[serde(default)]
    pub(crate) validation_suites: Vec<PathBuf>,
    /// Security scenarios, and utility tasks, that are taken of them at most.
    #[serde(default = "default_validation_scenarios")]
    pub(crate) validation_scenarios: usize,
    /// Samples drawn of each.
    #[serde(default = "default_validation_samples")]
    pub(crate) validation_samples: u32,
}

fn default_validation_scenarios() -> usize {
    40
}

fn default_validation_samples() -> u32 {
    1
}

/// A model of the run under another decoder (`[[decoding]]`).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodingConfig {
    /// The arm's name in tables and files.
    pub(crate) name: String,
    /// A shipped decoder's name or a TOML file. With `[co_decoding]` the hardened model is the security model, unless
    /// another one is named.
    pub(crate) decoder: String,
    /// A security model that is not of this run: a lab model, a checkpoint folder or a hub name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) security_model: Option<String>,
    /// An adapter on the security model, or on the base where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) security_adapter: Option<PathBuf>,
    /// Overrides of the decoder's keys.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, toml::Value>,
    /// Whose text it is.
    #[serde(default)]
    pub(crate) model: DecodedModel,
}

impl DecodingConfig {
    /// Whether a model that the run hardens takes part.
    pub(crate) fn needs_hardened(&self) -> Outcome<bool> {
        let names_security = self.security_model.is_some() || self.security_adapter.is_some();
        let is_watched = self.decoder()?.co_decoding.is_some();
        Ok(self.model == DecodedModel::Hardened || (is_watched && !names_security))
    }

    /// The decoder it names.
    pub(crate) fn decoder(&self) -> Outcome<DecoderConfig> {
        let sets: Vec<String> =
            self.set.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        Ok(DecoderConfig::load(&self.decoder, &sets)?)
    }
}

/// Whose text an arm of `[[decoding]]` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DecodedModel {
    #[default]
    Base,
    Hardened,
}

/// How to evaluate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalConfig {
    /// Scenario files (JSON Lines) or published folders; beside the world's.
    pub(crate) suites: Vec<PathBuf>,
    /// Which split is reported: `train`, `val`, `test` or `all`.
    pub(crate) split: Reported,
    /// Samples per scenario and task.
    pub(crate) samples: u32,
    /// A shipped decoder's name or a TOML file.
    pub(crate) decoder: String,
    /// Overrides of the decoder's keys.
    pub(crate) set: BTreeMap<String, toml::Value>,
    /// Which duplicates are taken out before judging.
    pub(crate) dedup: Dedup,
    /// Fix pairs on which likelihood preference is measured; default: the validation pairs.
    pub(crate) preference_pairs: Vec<PathBuf>,
}

/// Scenarios that are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reported {
    Train,
    Val,
    #[default]
    Test,
    /// Those of every split: for suites on which nothing was chosen.
    All,
}

impl Reported {
    /// Whether scenarios of a split are among them.
    pub(crate) fn takes(self, split: Split) -> bool {
        match self {
            Self::Train => split == Split::Train,
            Self::Val => split == Split::Val,
            Self::Test => split == Split::Test,
            Self::All => true,
        }
    }
}

/// Which duplicates are taken out before judging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dedup {
    /// None: every sample counts (SafeCoder).
    #[default]
    None,
    /// Equal texts of one scenario and arm count once (SVEN).
    Sven,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            suites: Vec::new(),
            split: Reported::Test,
            samples: 10,
            decoder: "plain".to_owned(),
            set: BTreeMap::new(),
            dedup: Dedup::None,
            preference_pairs: Vec::new(),
        }
    }
}

/// What a method has to beat to count (DESIGN 7.5).
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Controls {
    /// The same steps on utility rows alone.
    pub(crate) utility_only: bool,
    /// The same training with the two sides of a seeded half of the pairs swapped.
    pub(crate) shuffled_labels: bool,
    /// The commonest secure completion of the pairs' weakness, whatever the prompt says.
    pub(crate) constant_idiom: bool,
    /// The base model with a prompt that asks for secure code.
    pub(crate) secure_prompt: bool,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            utility_only: true,
            shuffled_labels: true,
            constant_idiom: true,
            secure_prompt: true,
        }
    }
}

impl Controls {
    /// None of them.
    pub(crate) const NONE: Self = Self {
        utility_only: false,
        shuffled_labels: false,
        constant_idiom: false,
        secure_prompt: false,
    };

    /// Whether there is any.
    #[cfg(test)]
    pub(crate) fn any(self) -> bool {
        self.utility_only || self.shuffled_labels || self.constant_idiom || self.secure_prompt
    }
}

impl TrainConfig {
    /// A recipe, and no data yet.
    pub(crate) fn new(recipe: &str) -> Self {
        Self {
            recipe: recipe.to_owned(),
            set: BTreeMap::new(),
            pairs: Vec::new(),
            validation_pairs: Vec::new(),
            utility: Vec::new(),
            validation_suites: Vec::new(),
            validation_scenarios: default_validation_scenarios(),
            validation_samples: default_validation_samples(),
        }
    }

    /// The overrides of the recipe, as `--set` takes them.
    pub(crate) fn assignments(&self) -> Vec<String> {
        self.set.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect()
    }
}

/// A TOML value as `--set` takes it.
pub(crate) fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn one() -> u64 {
    1
}

impl RunConfig {
    /// Reads a configuration, applies `KEY=VALUE` overrides, and makes its paths absolute.
    pub(crate) fn read(path: &Path, overrides: &[String]) -> Outcome<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        let mut table: toml::Table =
            text.parse().context(format!("{} is not valid TOML", path.display()))?;
        for text in overrides {
            set_key(&mut table, text)?;
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Self::from_table(table, folder).context(format!("in {}", path.display()))
    }

    /// A configuration whose relative paths are relative to `folder`.
    pub(crate) fn from_table(table: toml::Table, folder: &Path) -> Outcome<Self> {
        let mut config: Self = toml::Value::Table(table).try_into()?;
        config.resolve_paths(folder);
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let fix = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        let fix_all = |paths: &mut Vec<PathBuf>| paths.iter_mut().for_each(fix);
        if let Some(out) = &mut self.out {
            fix(out);
        }
        if let Some(world) = &mut self.world {
            world.path.as_mut().map(fix);
            world.idioms.as_mut().map(fix);
        }
        if let Some(train) = &mut self.train {
            fix_all(&mut train.pairs);
            fix_all(&mut train.validation_pairs);
            fix_all(&mut train.utility);
            fix_all(&mut train.validation_suites);
            if has_toml_extension(&train.recipe) {
                train.recipe = folder.join(&train.recipe).to_string_lossy().into_owned();
            }
        }
        if let Some(improve) = &mut self.improve {
            fix_all(&mut improve.suites);
        }
        fix_all(&mut self.eval.suites);
        fix_all(&mut self.eval.preference_pairs);
        if has_toml_extension(&self.eval.decoder) {
            self.eval.decoder = folder.join(&self.eval.decoder).to_string_lossy().into_owned();
        }
        for section in &mut self.decoding {
            if has_toml_extension(&section.decoder) {
                section.decoder = folder.join(&section.decoder).to_string_lossy().into_owned();
            }
            section
                .security_adapter
                .iter_mut()
                .filter(|path| folder.join(path).exists())
                .for_each(fix);
            section.security_model.iter_mut().for_each(|model| fix_model(model, folder));
        }
        fix_model(&mut self.model, folder);
    }
}

/// Makes a model's path absolute where it is one.
fn fix_model(model: &mut String, folder: &Path) {
    let path = folder.join(&*model);
    if !crate::assets::is_shipped(model) && path.exists() {
        *model = path.to_string_lossy().into_owned();
    }
}

fn has_toml_extension(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// Sets `a.b.c=value` in a table. A value that is not valid TOML is a string.
pub(crate) fn set_key(table: &mut toml::Table, text: &str) -> Outcome {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Failure::new(format!("`--set {text}` has no `=`")).help("write --set KEY=VALUE")
    })?;
    put_key(table, key, parse_value(value.trim()))
}

/// Puts a value at `a.b.c` of a table.
pub(crate) fn put_key(table: &mut toml::Table, key: &str, value: toml::Value) -> Outcome {
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    // A recipe's own keys contain dots and are one key here.
    if let Some(at) = parts.iter().position(|part| *part == "set").filter(|at| at + 1 < parts.len())
    {
        let rest = key.trim().splitn(at + 2, '.').last().unwrap_or_default();
        parts.truncate(at + 1);
        parts.push(rest);
    }
    let Some((last, folders)) = parts.split_last() else { return Ok(()) };
    let mut place = table;
    for folder in folders {
        place = place
            .entry((*folder).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| Failure::new(format!("`{key}`: `{folder}` is not a table")))?;
    }
    place.insert((*last).to_owned(), value);
    Ok(())
}

/// Reads a TOML value; what is not one is a string.
pub(crate) fn parse_value(text: &str) -> toml::Value {
    format!("v = {}", toml_number(text))
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_reach_nested_and_dotted_keys() {
        let mut table = toml::Table::new();
        set_key(&mut table, "eval.samples=3").unwrap();
        set_key(&mut table, "train.set.optimizer.learning_rate=1e-3").unwrap();
        set_key(&mut table, "model=lab-1m").unwrap();
        assert_eq!(table["eval"]["samples"].as_integer(), Some(3));
        assert_eq!(table["train"]["set"]["optimizer.learning_rate"].as_float(), Some(1e-3));
        assert_eq!(table["model"].as_str(), Some("lab-1m"));
        assert!(set_key(&mut table, "model").is_err());
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, "model = \"lab-1m\"\nmodle = 1\n").unwrap();
        let failure = RunConfig::read(&path, &[]).unwrap_err();
        assert!(format!("{failure:?}").contains("modle"), "{failure:?}");
    }
}
