//! Decoding methods as data.

use std::{collections::BTreeMap, fs, path::Path};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

use crate::{DecodeError, Result, Sampling};

/// The decoders that come with hardn.
static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../decoders");

/// A decoding method, tagged by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DecoderConfig {
    /// One model, token after token.
    Plain(PlainDecoder),
}

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

/// Settings of plain decoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlainDecoder {
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
}

impl Default for PlainDecoder {
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
        }
    }
}

impl PlainDecoder {
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
}

impl DecoderConfig {
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
            let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
                .ok()
                .and_then(|mut table| table.remove("value"))
                .unwrap_or_else(|| toml::Value::String(value.to_owned()));
            table.insert(key.trim().to_owned(), value);
        }
        // By hand and not by the tag: so messages name the key.
        let config = match table.remove("kind").as_ref().map(toml::Value::as_str) {
            None | Some(Some("plain")) => {
                Self::Plain(table.try_into().map_err(|error| problem(name, error))?)
            }
            Some(kind) => {
                let kind = kind.unwrap_or("what it says");
                return Err(problem(name, format!("kind `{kind}` does not exist; `plain` does")));
            }
        };
        let Self::Plain(plain) = &config;
        if let Some(message) = plain.sampling().problem() {
            return Err(problem(name, message));
        }
        if plain.max_new_tokens == 0 {
            return Err(problem(name, "`max_new_tokens` must be at least 1"));
        }
        Ok(config)
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
        let sorted: BTreeMap<&String, &serde_json::Value> = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.as_str() != "about")
            .collect();
        serde_json::to_string(&sorted).unwrap_or_default()
    }
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
        let DecoderConfig::Plain(plain) = DecoderConfig::load("plain", &[]).unwrap();
        assert_eq!((plain.temperature, plain.top_p, plain.max_new_tokens), (0.4, 0.95, 300));
    }

    #[test]
    fn overrides_win_and_are_checked() {
        let overrides =
            ["temperature=0.8", "stop=[\"\\n\\n\"]", "long_prompt=error"].map(str::to_owned);
        let DecoderConfig::Plain(plain) = DecoderConfig::load("plain", &overrides).unwrap();
        assert_eq!((plain.temperature, plain.stop), (0.8, vec!["\n\n".to_owned()]));
        assert_eq!(plain.long_prompt, LongPrompt::Error);
        fails("", &["temprature=1"], "temprature");
        fails("", &["temperature"], "key=value");
        fails("", &["temperature=warm"], "temperature");
        fails("", &["temperature=-1"], "temperature");
        fails("", &["max_new_tokens=0"], "max_new_tokens");
        fails("kind = 'two-stpe'", &[], "two-stpe");
        fails("top_q = 1", &[], "top_q");
        let message = DecoderConfig::load("gredy", &[]).unwrap_err().to_string();
        assert!(message.contains("greedy"), "{message}");
    }

    #[test]
    fn the_canonical_form_names_what_matters() {
        let base = DecoderConfig::load("plain", &[]).unwrap();
        let other = DecoderConfig::load("plain", &["about=x".to_owned()]).unwrap();
        assert_eq!(base.canonical(), other.canonical());
        let other = DecoderConfig::load("plain", &["top_p=0.9".to_owned()]).unwrap();
        assert_ne!(base.canonical(), other.canonical());
        assert!(
            base.canonical().starts_with("{\"bias\":[],\"kind\":\"plain\""),
            "{}",
            base.canonical()
        );
    }
}
