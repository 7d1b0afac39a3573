//! A constraint as data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DecodeError, Result};

/// The section `[constraint]` of a decoder: exactly one of its keys.
///
/// A form is written in the file itself or, under the key with `_file` behind it, named by a path from where the command
/// runs. The whole text, up to the end token, has the form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConstraintConfig {
    /// A regular expression, in the syntax of Rust's `regex` without anchors within and look-around; `^` and `$` around the
    /// whole say nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// A context-free grammar in llguidance's Lark dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// A JSON schema: a table, or its text. Properties come in the schema's order. White space
    /// between JSON's parts is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<Value>,
    /// One of these texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Vec<String>>,
    /// See [`Self::regex`]; a line end at the file's end is not part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex_file: Option<PathBuf>,
    /// See [`Self::grammar`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar_file: Option<PathBuf>,
    /// See [`Self::json_schema`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_schema_file: Option<PathBuf>,
    /// See [`Self::choice`]; one text a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice_file: Option<PathBuf>,
}

/// What a text is to look like.
pub(super) enum Form {
    Regex(String),
    Grammar(String),
    JsonSchema(Value),
    Choice(Vec<String>),
}

impl Form {
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Regex(_) => "regex",
            Self::Grammar(_) => "grammar",
            Self::JsonSchema(_) => "json_schema",
            Self::Choice(_) => "choice",
        }
    }
}

impl ConstraintConfig {
    /// The same with the text of its file in it, so that it says all that determines a sample.
    ///
    /// # Errors
    /// [`DecodeError::Constraint`] if not exactly one key is given or a file cannot be read.
    pub fn resolved(&self) -> Result<Self> {
        let none = Self::default();
        Ok(match self.form()? {
            Form::Regex(regex) => Self { regex: Some(regex), ..none },
            Form::Grammar(grammar) => Self { grammar: Some(grammar), ..none },
            Form::JsonSchema(schema) => Self { json_schema: Some(schema), ..none },
            Form::Choice(choice) => Self { choice: Some(choice), ..none },
        })
    }

    pub(super) fn form(&self) -> Result<Form> {
        let given = [
            ("regex", self.regex.is_some()),
            ("grammar", self.grammar.is_some()),
            ("json_schema", self.json_schema.is_some()),
            ("choice", self.choice.is_some()),
            ("regex_file", self.regex_file.is_some()),
            ("grammar_file", self.grammar_file.is_some()),
            ("json_schema_file", self.json_schema_file.is_some()),
            ("choice_file", self.choice_file.is_some()),
        ];
        let given: Vec<&str> =
            given.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if given.len() != 1 {
            let found = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
            let message = format!(
                "give exactly one of `regex`, `grammar`, `json_schema`, `choice` or one of these with `_file` behind it; \
                 there is {found}"
            );
            return Err(DecodeError::Constraint { key: "[constraint]", message });
        }
        let text = |inline: &Option<String>, file: &Option<PathBuf>, key| match (inline, file) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(path)) => read(path, key).map(Some),
            (None, None) => Ok(None),
        };
        if let Some(regex) = text(&self.regex, &self.regex_file, "regex")? {
            let line = regex.strip_suffix('\n').filter(|_| self.regex.is_none());
            return Ok(Form::Regex(
                line.map_or(regex.clone(), |line| line.trim_end_matches('\r').to_owned()),
            ));
        }
        if let Some(grammar) = text(&self.grammar, &self.grammar_file, "grammar")? {
            return Ok(Form::Grammar(grammar));
        }
        if let Some(path) = &self.json_schema_file {
            return schema(&read(path, "json_schema")?);
        }
        match &self.json_schema {
            Some(Value::String(text)) => return schema(text),
            Some(value) => return Ok(Form::JsonSchema(value.clone())),
            None => {}
        }
        let choice = match &self.choice_file {
            Some(path) => read(path, "choice")?.lines().map(str::to_owned).collect(),
            None => self.choice.clone().unwrap_or_default(),
        };
        if choice.is_empty() || choice.iter().any(String::is_empty) {
            let message = "give at least one text, and no empty one".to_owned();
            return Err(DecodeError::Constraint { key: "choice", message });
        }
        Ok(Form::Choice(choice))
    }
}

fn schema(text: &str) -> Result<Form> {
    serde_json::from_str(text).map(Form::JsonSchema).map_err(|error| DecodeError::Constraint {
        key: "json_schema",
        message: format!("not JSON: {error}"),
    })
}

fn read(path: &Path, key: &'static str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| DecodeError::Constraint {
        key,
        message: format!("cannot read {}: {error}", path.display()),
    })
}
