//! The text that asks an instruction-tuned model for code.

use std::{fs, path::Path};

use hardn_types::Language;

use crate::{Result, TrainError};

/// Used where a recipe names no file: the form that the lab's models have seen.
const BUILT_IN: &str = "### Task\nIn {language}: {description}\n### Answer\n{context}";

/// A text with the slots `{language}`, `{description}` and, at its end, `{context}`: the code that is there already,
/// which the model continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstructionTemplate {
    text: String,
}

impl Default for InstructionTemplate {
    fn default() -> Self {
        Self { text: BUILT_IN.to_owned() }
    }
}

impl InstructionTemplate {
    /// Reads a template from a file; an empty name gives the built-in one.
    ///
    /// # Errors
    /// An unreadable file, a missing `{description}`, or a `{context}` that is not at the end.
    pub fn load(file: &str) -> Result<Self> {
        if file.is_empty() {
            return Ok(Self::default());
        }
        let path = Path::new(file);
        let text = fs::read_to_string(path).map_err(TrainError::file("read", path))?;
        // Editors end files with a newline; the code must follow `{context}` at once.
        let text = match text.strip_suffix("{context}\n") {
            Some(head) => format!("{head}{{context}}"),
            None => text,
        };
        let error = |message: &str| TrainError::Recipe {
            name: file.to_owned(),
            message: message.to_owned(),
        };
        if !text.contains("{description}") {
            return Err(error("the template must contain {description}"));
        }
        if !text.ends_with("{context}") || text.matches("{context}").count() != 1 {
            return Err(error("the template must contain {context} once, at its end"));
        }
        Ok(Self { text })
    }

    /// The text for one task. Slots in the values themselves are not filled.
    pub fn render(&self, language: Language, description: &str, context: &str) -> String {
        let mut out = String::new();
        let mut rest = self.text.as_str();
        while let Some(brace) = rest.find('{') {
            out.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let slots = [
                ("{language}", language.name()),
                ("{description}", description),
                ("{context}", context),
            ];
            if let Some((slot, value)) = slots.iter().find(|(slot, _)| rest.starts_with(slot)) {
                out.push_str(value);
                rest = &rest[slot.len()..];
            } else {
                out.push('{');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_once() {
        let template =
            InstructionTemplate { text: "{a} {language}: {description}\n{context}".to_owned() };
        assert_eq!(
            template.render(Language::C, "use {language} {}", "int main"),
            "{a} c: use {language} {}\nint main"
        );
    }

    #[test]
    fn files_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("template.txt");
        for (text, good) in [
            ("{description}{context}\n", true),
            ("{description}\n{context}", true),
            ("{context}", false),
            ("{context} {description}", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(InstructionTemplate::load(path.to_str().unwrap()).is_ok(), good, "{text}");
        }
    }
}
