//! `adapter_config.json` of any kind of adapter.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{Ia3Config, LoraConfig, PrefixTuningConfig};
use crate::{ModelError, Result};

/// What an adapter is, by the published `peft_type`. Without any adapter a model's own weights are what is trained.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and they are seldom moved")]
pub enum AdapterConfig {
    /// `LORA`: low-rank terms on linear layers.
    Lora(LoraConfig),
    /// `IA3`: factors on the outputs or inputs of linear layers.
    Ia3(Ia3Config),
    /// `PREFIX_TUNING`: keys and values before the text's own.
    PrefixTuning(PrefixTuningConfig),
}

/// Keys that every kind has and that do not change what a trained adapter computes.
const METADATA: &[&str] = &[
    "auto_mapping",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
    "training_only",
];

impl AdapterConfig {
    /// The published name of the kind.
    pub fn peft_type(&self) -> &'static str {
        match self {
            Self::Lora(_) => "LORA",
            Self::Ia3(_) => "IA3",
            Self::PrefixTuning(_) => "PREFIX_TUNING",
        }
    }

    /// Reads `adapter_config.json` in `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, or keys that are missing or not supported.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("adapter_config.json");
        let bytes = fs::read(&path).map_err(|error| ModelError::read(&path, error))?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::read(&path, error))?;
        Self::from_json(value).map_err(|error| error.in_file(&path))
    }

    /// Reads the configuration from parsed JSON.
    ///
    /// # Errors
    /// Keys that are missing or not supported.
    pub fn from_json(value: Value) -> Result<Self> {
        let kind = value.get("peft_type").cloned().unwrap_or_default();
        let config = match kind.as_str() {
            Some("LORA") => Self::Lora(parse(value)?),
            Some("IA3") => Self::Ia3(parse(value)?),
            Some("PREFIX_TUNING") => Self::PrefixTuning(parse(value)?),
            _ => {
                let message =
                    format!("{kind} is not supported; expected LORA, IA3 or PREFIX_TUNING");
                return Err(ModelError::adapter("peft_type", message));
            }
        };
        config.check()?;
        Ok(config)
    }

    /// Refuses values this crate does not compute.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Lora(config) => config.check(),
            Self::Ia3(config) => config.check(),
            Self::PrefixTuning(config) => config.check(),
        }
    }

    /// The name or path of the model the adapter was made on.
    pub fn base_model_name_or_path(&self) -> Option<&str> {
        match self {
            Self::Lora(config) => config.base_model_name_or_path.as_deref(),
            Self::Ia3(config) => config.base_model_name_or_path.as_deref(),
            Self::PrefixTuning(config) => config.base_model_name_or_path.as_deref(),
        }
    }

    /// The file's contents, with the keys PEFT writes.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, value) in [
            ("auto_mapping", Value::Null),
            ("inference_mode", json!(true)),
            ("modules_to_save", Value::Null),
            ("peft_type", json!(self.peft_type())),
            ("revision", Value::Null),
            ("task_type", json!("CAUSAL_LM")),
        ] {
            map.insert(key.to_owned(), value);
        }
        match self {
            Self::Lora(config) => config.write(&mut map),
            Self::Ia3(config) => config.write(&mut map),
            Self::PrefixTuning(config) => config.write(&mut map),
        }
        map.sort_keys();
        Value::Object(map)
    }
}

impl From<LoraConfig> for AdapterConfig {
    fn from(config: LoraConfig) -> Self {
        Self::Lora(config)
    }
}

impl From<Ia3Config> for AdapterConfig {
    fn from(config: Ia3Config) -> Self {
        Self::Ia3(config)
    }
}

impl From<PrefixTuningConfig> for AdapterConfig {
    fn from(config: PrefixTuningConfig) -> Self {
        Self::PrefixTuning(config)
    }
}

impl ModelError {
    /// An adapter's error with the file whose key it is about.
    pub(super) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Adapter { key, message } => Self::Config { path: path.to_owned(), key, message },
            other => other,
        }
    }
}

/// Adds a configuration's own keys to what is written.
pub(super) fn extend(map: &mut Map<String, Value>, config: &impl Serialize) {
    if let Ok(Value::Object(own)) = serde_json::to_value(config) {
        map.extend(own);
    }
}

/// Refuses keys that say something this crate does not compute. `known` are those that do not matter.
pub(super) fn refuse(extra: &Map<String, Value>, known: &[&str]) -> Result<()> {
    for (key, value) in extra {
        let says_nothing = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !says_nothing && !METADATA.contains(&key.as_str()) && !known.contains(&key.as_str()) {
            return Err(ModelError::adapter(key, format!("{value} is not supported")));
        }
    }
    Ok(())
}

/// Reads a kind's keys, so that errors name the key.
fn parse<T: DeserializeOwned>(value: Value) -> Result<T> {
    let map = match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    // A key is tried for itself where the whole does not read, to find out which it is.
    serde_json::from_value(Value::Object(map.clone())).map_err(|whole| {
        let message = whole.to_string();
        if let Some((_, rest)) = message.split_once("missing field `") {
            let key = rest.split('`').next().unwrap_or(rest);
            return ModelError::adapter(key, "is missing");
        }
        for key in map.keys() {
            let mut without = map.clone();
            without.remove(key);
            let rest = serde_json::from_value::<T>(Value::Object(without));
            let is_it = match rest {
                Ok(_) => true,
                Err(error) => error.to_string().contains(&format!("missing field `{key}`")),
            };
            if is_it {
                return ModelError::adapter(key, message);
            }
        }
        ModelError::adapter("peft_type", message)
    })
}
