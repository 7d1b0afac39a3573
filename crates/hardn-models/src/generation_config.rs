//! `generation_config.json`: how a checkpoint's authors sample from it, and where a text ends.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ModelError, Result, TokenIds, Tokenizer};

/// The published keys that sampling uses. What a file does not say is `None`; other keys are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "published names")]
pub struct GenerationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<TokenIds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub do_sample: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppress_tokens: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Every other key of the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` in `dir`; all is unset where there is no such file.
    ///
    /// # Errors
    /// A file that is not JSON, and a key whose value has the wrong kind.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("generation_config.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = fs::read(&path).map_err(|error| ModelError::read(&path, error))?;
        let file: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::read(&path, error))?;
        // One key at a time, so that an error can name it.
        for (key, value) in &file {
            let alone = Map::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = serde_json::from_value::<Self>(Value::Object(alone)) {
                let (key, message) = (key.clone(), format!("{value}: {error}"));
                return Err(ModelError::Config { path, key, message });
            }
        }
        serde_json::from_value(Value::Object(file)).map_err(|error| ModelError::read(&path, error))
    }

    /// Every token that ends a text: those of this file, of `config.json` (`model`), and the tokenizer's own; in that order,
    /// each once.
    pub fn end_tokens(&self, model: Option<&TokenIds>, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: Vec<u32> = Vec::new();
        let stated =
            self.eos_token_id.iter().chain(model).flat_map(|ids| ids.as_slice().iter().copied());
        for id in stated.chain(tokenizer.eos()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// The token that fills a batch: this file's, else that of `config.json` (`model`), else the tokenizer's, else its
    /// end-of-text token.
    pub fn pad_token(&self, model: Option<u32>, tokenizer: &Tokenizer) -> Option<u32> {
        self.pad_token_id.or(model).or_else(|| tokenizer.pad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LAB_SPECIALS, train_bpe};

    fn load(text: &str) -> Result<GenerationConfig> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("generation_config.json"), text).unwrap();
        GenerationConfig::load(dir.path())
    }

    #[test]
    fn published_keys_are_read_and_others_kept() {
        let config = load(
            r#"{"eos_token_id": [2, 32000], "pad_token_id": null, "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.31.0"}"#,
        )
        .unwrap();
        assert_eq!(config.eos_token_id, Some(TokenIds::Many(vec![2, 32000])));
        assert_eq!((config.temperature, config.top_p, config.top_k), (Some(0.6), Some(0.95), None));
        assert_eq!(config.other["transformers_version"], "4.31.0");
        let tokenizer = train_bpe(["a b"].into_iter(), 300, LAB_SPECIALS).unwrap();
        assert_eq!(config.end_tokens(Some(&TokenIds::One(2)), &tokenizer), [2, 32000, 0]);
        assert_eq!(config.pad_token(None, &tokenizer), tokenizer.special("<|pad|>"));
        assert_eq!(config.pad_token(Some(7), &tokenizer), Some(7));
    }

    #[test]
    fn an_error_names_the_key() {
        let message = load(r#"{"top_k": 50, "temperature": "hot"}"#).unwrap_err().to_string();
        assert!(message.contains("key `temperature`"), "{message}");
    }

    #[test]
    fn a_missing_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(GenerationConfig::load(dir.path()).unwrap(), GenerationConfig::default());
    }
}
