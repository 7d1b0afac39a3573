//! What stands before a sample's code, and what ends it, as a recipe's format says.

use hardn_models::{ChatOptions, Tokenizer};
use hardn_types::Language;
use serde_json::{Value, json};

use crate::{DataRecipe, Format, InstructionTemplate, Result};

/// Stands for an answer while a chat template shows what it writes behind one.
const ANSWER: &str = "answer";

/// A recipe's templates, read.
pub(crate) struct Wording<'a> {
    tokenizer: &'a Tokenizer,
    data: &'a DataRecipe,
    template: InstructionTemplate,
    input_template: InstructionTemplate,
}

impl<'a> Wording<'a> {
    /// # Errors
    /// A template file that cannot be used.
    pub(crate) fn load(tokenizer: &'a Tokenizer, data: &'a DataRecipe) -> Result<Self> {
        let (template, input_template) = match data.format {
            Format::Chat => (
                InstructionTemplate::load_message(&data.template)?,
                InstructionTemplate::load_message_with_input(&data.input_template)?,
            ),
            Format::Completion | Format::Instruction => (
                InstructionTemplate::load(&data.template)?,
                InstructionTemplate::load_with_input(&data.input_template)?,
            ),
        };
        Ok(Self { tokenizer, data, template, input_template })
    }

    /// The format asks for code by a description.
    pub(crate) fn asks(&self) -> bool {
        self.data.format != Format::Completion
    }

    /// The text before the code: empty for bare code.
    ///
    /// # Errors
    /// A chat template that is missing or refuses the conversation.
    pub(crate) fn before(
        &self,
        language: Language,
        description: &str,
        input: &str,
    ) -> Result<String> {
        let request = if input.is_empty() {
            self.template.render(language, description, "")
        } else {
            self.input_template.render_input(language, description, input)
        };
        Ok(match self.data.format {
            Format::Completion => String::new(),
            Format::Instruction => request,
            Format::Chat => {
                let fence = if self.data.fence {
                    format!("```{}\n", language.name())
                } else {
                    String::new()
                };
                self.conversation(&request, None)? + &fence
            }
        })
    }

    /// What ends code that is learnt to its end: the end-of-text token, or, in a conversation, the token that the chat
    /// template puts behind an answer, after a fence's end.
    ///
    /// # Errors
    /// As [`Self::before`].
    pub(crate) fn end(&self, code: &str) -> Result<Vec<u32>> {
        let eos = Vec::from_iter(self.tokenizer.eos());
        if self.data.format != Format::Chat {
            return Ok(eos);
        }
        let mut end = Vec::new();
        if self.data.fence {
            let fence = if code.ends_with('\n') { "```" } else { "\n```" };
            end = self.tokenizer.encode(fence)?.ids;
        }
        let open = self.conversation("request", None)?;
        let whole = self.conversation("request", Some(ANSWER))?;
        let behind = whole.strip_prefix(&open).and_then(|rest| rest.strip_prefix(ANSWER));
        let behind = self.tokenizer.encode(behind.unwrap_or_default().trim_start())?.ids;
        // A token written out in the template is one id; ordinary text would be learnt in part.
        match behind.first() {
            Some(&id) if self.tokenizer.decode(&[id])?.is_empty() => end.push(id),
            _ => end.extend(eos),
        }
        Ok(end)
    }

    /// A conversation of one request, open for an answer where there is none.
    fn conversation(&self, request: &str, answer: Option<&str>) -> Result<String> {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let mut messages = Vec::new();
        if !self.data.system.is_empty() {
            messages.push(message("system", &self.data.system));
        }
        messages.push(message("user", request));
        messages.extend(answer.map(|answer| message("assistant", answer)));
        let options =
            ChatOptions { add_generation_prompt: answer.is_none(), ..ChatOptions::default() };
        Ok(self.tokenizer.render_chat(&Value::Array(messages), &options)?)
    }
}
