//! Decoding methods as data.

use std::{collections::BTreeMap, fs, path::Path};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

mod co_decoding;

pub(crate) use self::co_decoding::MAX_DRAFT;
pub use self::co_decoding::{CoDecoding, DraftLength, Law, Preset};
use hardn_types::toml_number;

use crate::{ConstraintConfig, DecodeError, RepairConfig, Result, Sampling, TwoStep};

/// What a decoder's file can have beside the keys of plain decoding.
const SECTIONS: &[&str] = &["co_decoding", "repair", "two_step", "constraint"];

/// The decoders that come with hardn.
static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../decoders");

/// What happens to a prompt that does not fit into the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LongPrompt {
    /// Its beginning is left out, and counted.
    #[default]
    Truncate,
    /// It is an error.
    Error,
}

/// A decoding method: how tokens are drawn and where texts end, and sections for what is done beyond that. Sections
/// compose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderConfig {
    /// One line for tables; changes nothing.
    pub about: String,
    /// See [`Sampling::temperature`].
    pub temperature: f64,
    /// See [`Sampling::top_k`].
    pub top_k: usize,
    /// See [`Sampling::top_p`].
    pub top_p: f64,
    /// See [`Sampling::min_p`].
    pub min_p: f64,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: f64,
    /// See [`Sampling::bias`].
    pub bias: Vec<(u32, f64)>,
    /// Tokens generated at most.
    pub max_new_tokens: usize,
    /// Strings that end the text before them.
    pub stop: Vec<String>,
    /// Tokens that end the text, by their text, beside the end-of-text tokens of model and tokenizer.
    pub stop_tokens: Vec<String>,
    /// What happens to a prompt that does not fit.
    pub long_prompt: LongPrompt,
    /// A security model watches over the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub co_decoding: Option<CoDecoding>,
    /// An oracle reads along, and what it flags is written again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairConfig>,
    /// The import block is written before the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_step: Option<TwoStep>,
    /// What the text is to look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<ConstraintConfig>,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, bias } =
            Sampling::default();
        Self {
            about: String::new(),
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            bias,
            max_new_tokens: 300,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            long_prompt: LongPrompt::Truncate,
            co_decoding: None,
            repair: None,
            two_step: None,
            constraint: None,
        }
    }
}

impl DecoderConfig {
    /// How the distribution is warped.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            bias: self.bias.clone(),
        }
    }

    /// Reads a shipped decoder by name or a TOML file by path, and applies `key=value` overrides.
    ///
    /// # Errors
    /// [`DecodeError::Decoder`] for an unknown name or key, a malformed file or a value that makes no sense.
    pub fn load(name: &str, overrides: &[String]) -> Result<Self> {
        let text = match SHIPPED.get_file(format!("{name}.toml")) {
            Some(file) => file.contents_utf8().unwrap_or_default().to_owned(),
            None if name.contains(['/', '\\']) || Path::new(name).extension().is_some() => {
                fs::read_to_string(name).map_err(|error| problem(name, error))?
            }
            None => {
                let known = Self::shipped().into_keys().collect::<Vec<_>>().join(", ");
                let message = format!(
                    "there is no such decoder; help: one of {known}, or the path of a TOML file"
                );
                return Err(problem(name, message));
            }
        };
        Self::parse(name, &text, overrides)
    }

    /// Reads a decoder from TOML text; `name` stands in messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| problem(name, error))?;
        for item in overrides {
            let Some((key, value)) = item.split_once('=') else {
                return Err(problem(name, format!("`{item}` is not of the form key=value")));
            };
            // What is not a TOML value is text without its quotes.
            let value =
                toml::from_str::<toml::Table>(&format!("value = {}", toml_number(value.trim())))
                    .ok()
                    .and_then(|mut table| table.remove("value"))
                    .unwrap_or_else(|| toml::Value::String(value.to_owned()));
            set(&mut table, key.trim(), value).map_err(|message| problem(name, message))?;
        }
        match table.remove("kind") {
            None => {}
            Some(toml::Value::String(kind)) if kind == "plain" && !sectioned(&table) => {}
            Some(kind) => {
                let message = format!(
                    "kind {kind} does not fit; help: leave it out, a decoder is what its sections say: {}",
                    SECTIONS.join(", ")
                );
                return Err(problem(name, message));
            }
        }
        let config: Self = table.try_into().map_err(|error| problem(name, error))?;
        match config.problem() {
            Some(message) => Err(problem(name, message)),
            None => Ok(config),
        }
    }

    /// What makes no sense, by key.
    fn problem(&self) -> Option<String> {
        let sampling = self.sampling();
        if let Some(message) = sampling.problem() {
            return Some(message.to_owned());
        }
        if self.max_new_tokens == 0 {
            return Some("`max_new_tokens` must be at least 1".to_owned());
        }
        let watched = self.co_decoding.is_some();
        let co_decoding = self.co_decoding.as_ref().and_then(|section| section.problem(&sampling));
        co_decoding
            .or_else(|| self.repair.as_ref()?.problem(watched))
            .or_else(|| self.two_step.as_ref()?.problem())
    }

    /// Names of the shipped decoders and what each is.
    pub fn shipped() -> BTreeMap<String, String> {
        SHIPPED
            .files()
            .filter_map(|file| {
                let name = file.path().file_stem()?.to_str()?.to_owned();
                let table: toml::Table = toml::from_str(file.contents_utf8()?).ok()?;
                let about = table.get("about").and_then(toml::Value::as_str).unwrap_or_default();
                Some((name, about.to_owned()))
            })
            .collect()
    }

    /// JSON with every setting that changes a sample, keys sorted: equal text means equal samples.
    pub fn canonical(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        let mut sorted: BTreeMap<&str, serde_json::Value> = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        sorted.remove("about");
        if let Some(section) = sorted.get_mut("co_decoding").and_then(|v| v.as_object_mut()) {
            section.remove("draft");
        }
        if !SECTIONS.iter().any(|section| sorted.contains_key(*section)) {
            sorted.insert("kind", "plain".into());
        }
        serde_json::to_string(&sorted).unwrap_or_default()
    }
}

/// Sets a key: `key` of the file, `section.key`, or a key that one of the file's sections knows and the file does not.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    let (section, key) = match key.split_once('.') {
        Some((section, key)) => (Some(section.trim()), key.trim()),
        None if knows::<DecoderConfig>(key, &value) => (None, key),
        None => {
            let present = |section: &&&str| table.contains_key(**section);
            let section = SECTIONS.iter().filter(present).find(|section| match **section {
                "co_decoding" => knows::<CoDecoding>(key, &value),
                "repair" => knows::<RepairConfig>(key, &value),
                "two_step" => knows::<TwoStep>(key, &value),
                "constraint" => knows::<ConstraintConfig>(key, &value),
                _ => false,
            });
            (section.copied(), key)
        }
    };
    let table = match section {
        None => table,
        Some(section) => table
            .entry(section.to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{section}` is not a section"))?,
    };
    table.insert(key.to_owned(), value);
    Ok(())
}

/// Whether a configuration has a key, be the value right or wrong.
fn knows<T: serde::de::DeserializeOwned>(key: &str, value: &toml::Value) -> bool {
    let table = toml::Table::from_iter([(key.to_owned(), value.clone())]);
    table.try_into::<T>().err().is_none_or(|error| !error.to_string().contains("unknown field"))
}

fn sectioned(table: &toml::Table) -> bool {
    SECTIONS.iter().any(|section| table.contains_key(*section))
}

fn problem(name: &str, message: impl ToString) -> DecodeError {
    DecodeError::Decoder { name: name.to_owned(), message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fails(text: &str, overrides: &[&str], expected: &str) {
        let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
        let message = DecoderConfig::parse("test", text, &overrides).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn every_shipped_decoder_reads() {
        let shipped = DecoderConfig::shipped();
        assert!(shipped.len() >= 4, "{shipped:?}");
        for (name, about) in shipped {
            DecoderConfig::load(&name, &[]).unwrap();
            assert!(!about.is_empty(), "{name}");
        }
        let plain = DecoderConfig::load("plain", &[]).unwrap();
        assert_eq!((plain.temperature, plain.top_p, plain.max_new_tokens), (0.4, 0.95, 300));
    }

    #[test]
    fn overrides_win_and_are_checked() {
        let overrides =
            ["temperature=0.8", "stop=[\"\\n\\n\"]", "long_prompt=error"].map(str::to_owned);
        let plain = DecoderConfig::load("plain", &overrides).unwrap();
        assert_eq!((plain.temperature, plain.stop), (0.8, vec!["\n\n".to_owned()]));
        assert_eq!(plain.long_prompt, LongPrompt::Error);
        fails("", &["temprature=1"], "temprature");
        fails("", &["temperature"], "key=value");
        fails("", &["temperature=warm"], "temperature");
        fails("", &["temperature=-1"], "temperature");
        fails("", &["max_new_tokens=0"], "max_new_tokens");
        fails("kind = 'two-stpe'", &[], "two-stpe");
        fails("kind = 'plain'\n[co_decoding]", &[], "co_decoding");
        fails("top_q = 1", &[], "top_q");
        let message = DecoderConfig::load("gredy", &[]).unwrap_err().to_string();
        assert!(message.contains("greedy"), "{message}");
    }

    #[test]
    fn keys_of_sections_are_found() {
        let parse = |text: &str, overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
            DecoderConfig::parse("test", text, &overrides).unwrap().co_decoding.unwrap()
        };
        let found = parse("[co_decoding]", &["threshold=.5", "draft=4", "top_p=0.9"]);
        assert_eq!((found.threshold, found.draft), (0.5, DraftLength::Fixed(4)));
        let found = parse("", &["co_decoding.preset=cosec-warped", "draft=adaptive"]);
        assert_eq!((found.preset, found.draft), (Preset::CosecWarped, DraftLength::Adaptive));
        fails("[co_decoding]", &["draft=17"], "from 1 to 16");
        fails("[co_decoding]", &["draft=sometimes"], "from 1 to 16");
        fails("[co_decoding]", &["threshold=-1"], "threshold");
        fails("[co_decoding]", &["threshold=nan"], "threshold");
        fails("[co_decoding]", &["security_temperature=-1"], "security");
        fails("[co_decoding]", &["treshold=1"], "treshold");
        fails("", &["threshold=0.3"], "threshold");
        fails("", &["top_p.threshold=0.3"], "top_p");
    }

    #[test]
    fn the_canonical_form_names_what_matters() {
        let base = DecoderConfig::load("plain", &[]).unwrap();
        let other = DecoderConfig::load("plain", &["about=x".to_owned()]).unwrap();
        assert_eq!(base.canonical(), other.canonical());
        let other = DecoderConfig::load("plain", &["top_p=0.9".to_owned()]).unwrap();
        assert_ne!(base.canonical(), other.canonical());
        let drafted = |length: usize| {
            let draft = format!("draft={length}");
            DecoderConfig::parse("test", "[co_decoding]", &[draft]).unwrap().canonical()
        };
        assert_eq!(drafted(1), drafted(4));
        assert_ne!(drafted(1), base.canonical());
        assert!(
            base.canonical().starts_with("{\"bias\":[],\"kind\":\"plain\""),
            "{}",
            base.canonical()
        );
    }
}
