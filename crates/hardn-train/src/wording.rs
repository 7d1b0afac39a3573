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

/// What a model trained by a recipe is asked for code with: the text that stands before code in its training, and the code
/// that is there already.
///
/// # Errors
/// A template file or a chat template that cannot be used.
pub fn request(
    tokenizer: &Tokenizer,
    data: &DataRecipe,
    language: Language,
    description: &str,
    context: &str,
) -> Result<String> {
    let before = Wording::load(tokenizer, data)?.before(language, description, "")?;
    Ok(before + context)
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

#[cfg(test)]
mod tests {
    use hardn_code::MaskKind;
    use hardn_types::Side;

    use super::*;
    use crate::{
        ExampleBuilder, LossRecipe, UtilityItem,
        testing::{pair, tokenizer},
    };

    /// The test tokenizer with a chat template.
    fn with_chat() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        tokenizer().save(dir.path()).unwrap();
        let path = dir.path().join("tokenizer_config.json");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["chat_template"] = Value::from(
            "{% for m in messages %}{{ m.role }}> {{ m.content }}{{ eos_token }}\n{% endfor %}\
             {% if add_generation_prompt %}assistant> {% endif %}",
        );
        std::fs::write(&path, config.to_string()).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    }

    /// All of an example's text, and what of it is learnt.
    fn texts(tokenizer: &Tokenizer, example: &crate::Example) -> [String; 2] {
        let bytes = |ids: Vec<u32>| -> String {
            let bytes = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
            String::from_utf8(bytes).unwrap()
        };
        let learnt = example.ids.iter().zip(&example.selected).filter(|(_, bit)| **bit != 0);
        [bytes(example.ids.clone()), bytes(learnt.map(|(id, _)| *id).collect())]
    }

    #[test]
    fn only_the_answer_of_a_conversation_is_learnt() {
        let tokenizer = with_chat();
        let eos =
            String::from_utf8(tokenizer.token_bytes(tokenizer.eos().unwrap()).to_vec()).unwrap();
        let mut fix = pair("p", "", "system(a)\n", "call([a])\n");
        fix.description = Some("Run it.".to_owned());
        for (system, fence) in [("", false), ("Be safe.", true)] {
            let data = DataRecipe {
                format: Format::Chat,
                mask: MaskKind::Whole,
                drop_all_set: false,
                end_of_text: true,
                system: system.to_owned(),
                fence,
                ..DataRecipe::default()
            };
            let builder =
                ExampleBuilder::new(&tokenizer, &data, &LossRecipe::default(), 1024).unwrap();
            let head = if fence { format!("system> Be safe.{eos}\n") } else { String::new() };
            let (open, close) = if fence { ("```python\n", "```") } else { ("", "") };
            let before = format!("{head}user> Run it.{eos}\nassistant> {open}");
            for (side, example) in builder.pair(&fix).unwrap() {
                let end =
                    if side == Side::Secure { format!("{close}{eos}") } else { String::new() };
                let [all, learnt] = texts(&tokenizer, &example.unwrap());
                assert_eq!(learnt, format!("{}{end}", fix.text(side)));
                assert_eq!(all, format!("{before}{learnt}"));
            }
            let item = UtilityItem {
                instruction: "Run it.".to_owned(),
                completion: "call([a])\n".to_owned(),
                ..UtilityItem::default()
            };
            let [all, learnt] = texts(&tokenizer, &builder.utility(&item).unwrap().unwrap());
            assert_eq!(all, format!("{before}call([a])\n{close}{eos}"));
            assert!(all.ends_with(&learnt) && learnt.len() > eos.len(), "{learnt:?}");
        }
        let data = DataRecipe { format: Format::Chat, ..DataRecipe::default() };
        let plain = crate::testing::tokenizer();
        let builder = ExampleBuilder::new(&plain, &data, &LossRecipe::default(), 1024).unwrap();
        assert!(builder.pair(&fix).unwrap_err().to_string().contains("template"));
    }
}
