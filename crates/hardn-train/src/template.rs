//! The text that asks an instruction-tuned model for code.

use std::{fs, path::Path};

use hardn_types::Language;

use crate::{Result, TrainError};

/// Used where a recipe names no file: the form that the lab's models have seen.
const BUILT_IN: &str = "### Task\nIn {language}: {description}\n### Answer\n{context}";

/// The same for a task about something given.
const WITH_INPUT: &str =
    "### Task\nIn {language}: {description}\n### Given\n{input}\n### Answer\n{context}";

/// What a user says in a conversation.
const MESSAGE: &str = "{description}";

/// What a user says of something given.
const MESSAGE_WITH_INPUT: &str = "{description}\n\n{input}";

/// A text with the slots `{language}`, `{description}`, `{input}` where a task has one, and, at the end of what a model
/// continues, `{context}`: the code that is there already.
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
        Self::read(file, BUILT_IN, &["{description}"], true)
    }

    /// As [`Self::load`], for tasks with an input: the template must have a place for it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_input(file: &str) -> Result<Self> {
        Self::read(file, WITH_INPUT, &["{description}", "{input}"], true)
    }

    /// A user's message in a conversation, which has no `{context}`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_message(file: &str) -> Result<Self> {
        Self::read(file, MESSAGE, &["{description}"], false)
    }

    /// As [`Self::load_message`], for tasks with an input.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_message_with_input(file: &str) -> Result<Self> {
        Self::read(file, MESSAGE_WITH_INPUT, &["{description}", "{input}"], false)
    }

    fn read(file: &str, built_in: &str, slots: &[&str], continues: bool) -> Result<Self> {
        if file.is_empty() {
            return Ok(Self { text: built_in.to_owned() });
        }
        let path = Path::new(file);
        let text = fs::read_to_string(path).map_err(TrainError::file("read", path))?;
        let error = |message: String| TrainError::Recipe { name: file.to_owned(), message };
        if let Some(slot) = slots.iter().find(|slot| !text.contains(**slot)) {
            return Err(error(format!("the template must contain {slot}")));
        }
        if !continues {
            if text.contains("{context}") {
                return Err(error("a user's message has no {context}".to_owned()));
            }
            return Ok(Self { text: text.strip_suffix('\n').unwrap_or(&text).to_owned() });
        }
        // Editors end files with a newline; the code must follow `{context}` at once.
        let text = match text.strip_suffix("{context}\n") {
            Some(head) => format!("{head}{{context}}"),
            None => text,
        };
        if !text.ends_with("{context}") || text.matches("{context}").count() != 1 {
            return Err(error("the template must contain {context} once, at its end".to_owned()));
        }
        Ok(Self { text })
    }

    /// The text for one task. Slots in the values themselves are not filled.
    pub fn render(&self, language: Language, description: &str, context: &str) -> String {
        self.fill([language.name(), description, "", context])
    }

    /// The text for one task about something given.
    pub fn render_input(&self, language: Language, description: &str, input: &str) -> String {
        self.fill([language.name(), description, input, ""])
    }

    fn fill(&self, values: [&str; 4]) -> String {
        let mut out = String::new();
        let mut rest = self.text.as_str();
        while let Some(brace) = rest.find('{') {
            out.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let slots = ["{language}", "{description}", "{input}", "{context}"];
            let found = slots.iter().zip(values).find(|(slot, _)| rest.starts_with(**slot));
            if let Some((slot, value)) = found {
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
            let message = InstructionTemplate::load_message(path.to_str().unwrap());
            assert!(message.is_err(), "{text}");
        }
    }
}
