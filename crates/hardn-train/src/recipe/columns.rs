//! The names of a user's own columns.

use hardn_code::PairColumns;
use hardn_types::Language;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::UtilityItem;

/// Where a row has what hardn needs. An empty name: as hardn's own rows have it; rows that SVEN, SafeCoder and HexaCoder
/// publish are known too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Unique in its file.
    pub id: String,
    /// The vulnerable code.
    pub before: String,
    /// The fixed code.
    pub after: String,
    /// The language, by name or file extension.
    pub language: String,
    /// The weakness, such as `CWE-79` or `79`.
    pub cwe: String,
    /// What the code does, in a sentence.
    pub description: String,
    /// The file's name in its project; tells the language where there is no column for it.
    pub file_name: String,
    /// The text both versions start with; of a utility row, the text to continue.
    pub prompt: String,
    /// Of a utility row: what should follow the prompt.
    pub completion: String,
    /// Of a utility row: what is asked for.
    pub instruction: String,
    /// Of a utility row: what the instruction is about.
    pub input: String,
    /// The language of rows that do not say it; empty: such rows are errors.
    pub default_language: String,
}

impl Columns {
    /// What a reader of pairs needs.
    pub fn of_pairs(&self) -> PairColumns {
        PairColumns {
            id: self.id.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            language: self.language.clone(),
            cwe: self.cwe.clone(),
            description: self.description.clone(),
            file_name: self.file_name.clone(),
            prompt: self.prompt.clone(),
            default_language: self.default_language.parse().ok(),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.default_language.is_empty() {
            return Ok(());
        }
        let parsed = self.default_language.parse::<Language>();
        parsed.map(|_| ()).map_err(|error| format!("`data.columns.default_language`: {error}"))
    }

    /// A utility row with our names, or what is wrong with it. A file of pairs and one of utility rows may both have a
    /// mapped column or not, so that a missing one is an error where a row then has nothing to learn.
    pub(crate) fn utility_row(&self, mut row: Map<String, Value>) -> Result<UtilityItem, String> {
        let names = [
            ("id", &self.id),
            ("prompt", &self.prompt),
            ("completion", &self.completion),
            ("instruction", &self.instruction),
            ("input", &self.input),
            ("language", &self.language),
        ];
        let published =
            [("output", "completion"), ("text", "completion"), ("description", "instruction")];
        let mut item = UtilityItem::default();
        let given = names.into_iter().filter(|(_, given)| !given.is_empty());
        let mut found: Vec<(&str, &str, Value)> = Vec::new();
        for (own, given) in given {
            if let Some(value) = row.shift_remove(given.as_str()) {
                found.push((own, given, value));
            }
        }
        let own = ["id", "prompt", "completion", "instruction", "input", "language", "source"];
        for (key, own) in own.into_iter().map(|own| (own, own)).chain(published) {
            if !found.iter().any(|(known, _, _)| *known == own)
                && let Some(value) = row.shift_remove(key)
            {
                found.push((own, key, value));
            }
        }
        let mut is_complete = false;
        for (own, key, value) in found {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Number(number) if own == "id" => number.to_string(),
                _ => return Err(format!("`{key}` is not a text")),
            };
            match own {
                "id" => item.id = text,
                "prompt" => item.prompt = text,
                "completion" => {
                    is_complete = true;
                    item.completion = text;
                }
                "instruction" => item.instruction = text,
                "input" => item.input = text,
                "source" => item.source = text,
                _ if text.is_empty() => {}
                _ => item.language = Some(text.parse().map_err(|e| format!("`{key}`: {e}"))?),
            }
        }
        if !is_complete {
            let name = if self.completion.is_empty() { "completion" } else { &self.completion };
            return Err(format!("has no column `{name}` to learn (nor `output` or `text`)"));
        }
        Ok(item)
    }
}
