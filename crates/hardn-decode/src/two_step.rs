//! Two-step generation: the import block first, then the rest (paper 003, "HexaCoder", section 4.3).

use hardn_code::{
    Import, complete_imports, import_block, import_place, imports, open_block, unused_imports,
    without,
};
use hardn_models::Tokenizer;
use hardn_types::Language;
use serde::{Deserialize, Serialize};

use crate::Result;

/// How often imports are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Once; all samples of the prompt go on from them (released code).
    #[default]
    Prompt,
    /// Anew for each sample.
    Sample,
}

/// What the model reads in the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The imports alone, to go on from them. A prompt without imports is completed in one step.
    #[default]
    Continue,
    /// The whole prompt with a gap after its imports (paper 003, section 6). A prompt without imports has the gap where
    /// they would stand.
    FillInTheMiddle,
}

/// What becomes of added imports that the finished program does not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    /// They stay (released code).
    #[default]
    Keep,
    /// They are taken out again.
    Drop,
}

/// The section `[two_step]` of a decoder. The second step is bounded by the decoder's `max_new_tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TwoStep {
    /// Tokens of the first step at most.
    pub import_tokens: usize,
    /// How often imports are drawn.
    pub per: Per,
    /// What the model reads in the first step.
    pub form: Form,
    /// What becomes of added imports that are not used.
    pub unused: Unused,
}

impl Default for TwoStep {
    fn default() -> Self {
        Self {
            import_tokens: 20,
            per: Per::default(),
            form: Form::default(),
            unused: Unused::default(),
        }
    }
}

impl TwoStep {
    pub(crate) fn problem(&self) -> Option<String> {
        (self.import_tokens == 0).then(|| "`import_tokens` must be at least 1".to_owned())
    }
}

/// A prompt around the place where imports are added.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    language: Language,
    before: String,
    /// What the model goes on from.
    block: String,
    /// The imports as the prompt has them; empty where it has none.
    original: String,
    after: String,
}

/// What is read in the first step.
pub(crate) struct FirstStep {
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
    /// A token that ends the middle.
    pub(crate) end: Option<u32>,
}

impl Split {
    /// None for a prompt that is completed in one step.
    pub(crate) fn new(prompt: &str, language: Language, form: Form) -> Result<Option<Self>> {
        let range = match (import_block(prompt, language)?, form) {
            (Some(range), _) => range,
            (None, Form::Continue) => return Ok(None),
            (None, Form::FillInTheMiddle) => {
                let place = import_place(prompt, language)?;
                place..place
            }
        };
        let original = prompt[range.clone()].to_owned();
        let block = open_block(&original, language)?.to_owned();
        let (before, after) = (prompt[..range.start].to_owned(), prompt[range.end..].to_owned());
        Ok(Some(Self { language, before, block, original, after }))
    }

    /// What the model reads first.
    ///
    /// # Errors
    /// A tokenizer without fill-in-the-middle tokens where they are needed.
    pub(crate) fn first_step(&self, form: Form, tokenizer: &Tokenizer) -> Result<FirstStep> {
        match form {
            Form::Continue => {
                let ids = tokenizer.encode_prompt(&self.block)?.ids;
                Ok(FirstStep { ids, text: self.block.clone(), end: None })
            }
            Form::FillInTheMiddle => {
                let text = format!("{}{}", self.before, self.block);
                let ids = tokenizer.fim_prompt(&text, &self.after)?;
                Ok(FirstStep { ids, text, end: tokenizer.fim_end() })
            }
        }
    }

    /// The prompt with the imports of the first step's text. `ended`: the model ended it, so that its last line is whole.
    pub(crate) fn joined(&self, text: &str, ended: bool) -> Result<String> {
        let end = if ended { "\n" } else { "" };
        let completed = complete_imports(&self.block, &format!("{text}{end}"), self.language)?;
        if completed.trim_end() == self.block.trim_end() {
            return Ok(format!("{}{}{}", self.before, self.original, self.after));
        }
        let gap = if self.original.is_empty() && !completed.is_empty() { "\n" } else { "" };
        Ok(format!("{}{completed}{gap}{}", self.before, self.after))
    }

    /// A joined prompt without the added imports that the program made of it does not use.
    pub(crate) fn without_unused(&self, prompt: &str, completion: &str) -> Result<String> {
        let own = imports(&format!("{}{}", self.before, self.original), self.language)?;
        let is_added = |import: &Import| {
            import.span.end <= prompt.len() && !own.iter().any(|other| other.is_same(import))
        };
        let program = format!("{prompt}{completion}");
        let mut unused = unused_imports(&program, self.language)?;
        unused.retain(is_added);
        Ok(without(prompt, &unused, self.language)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str =
        "\"\"\"Shows a page.\"\"\"\nfrom flask import request\nimport os\n\n\ndef show():\n";

    fn split(prompt: &str, form: Form) -> Option<Split> {
        Split::new(prompt, Language::Python, form).unwrap()
    }

    #[test]
    fn imports_are_added_where_they_stand() {
        let split = split(PROMPT, Form::Continue).unwrap();
        assert_eq!(split.block, "from flask import request\nimport os");
        for (text, ended, expected) in [
            (
                "\nfrom markupsafe import escape\nimport re",
                false,
                "import os\nfrom markupsafe import escape\n",
            ),
            (
                "\nfrom markupsafe import escape\nimport re",
                true,
                "import os\nfrom markupsafe import escape\nimport re\n",
            ),
            ("\n\ndef show():\n    import re\n", true, "import os\n\n"),
            ("", true, "import os\n\n"),
        ] {
            let joined = split.joined(text, ended).unwrap();
            assert!(joined.contains(expected), "{text:?}: {joined}");
            assert!(joined.starts_with("\"\"\"Shows") && joined.ends_with("\n\ndef show():\n"));
        }
    }

    #[test]
    fn prompts_without_imports_are_completed_in_one_step() {
        assert!(split("def show():\n", Form::Continue).is_none());
        let split = split("# Shows.\n\ndef show():\n", Form::FillInTheMiddle).unwrap();
        assert_eq!(
            split.joined("import re\n", false).unwrap(),
            "# Shows.\nimport re\n\ndef show():\n"
        );
        assert_eq!(split.joined("x = 1\n", false).unwrap(), "# Shows.\n\ndef show():\n");
    }

    #[test]
    fn only_added_imports_are_dropped() {
        let split = split(PROMPT, Form::Continue).unwrap();
        let joined = split.joined("\nimport re\nimport json\n", true).unwrap();
        let kept = split
            .without_unused(&joined, "    return re.sub('a', 'b', request.args['x'])\n")
            .unwrap();
        assert!(kept.contains("import re\n") && kept.contains("import os\n"), "{kept}");
        assert!(!kept.contains("json"), "{kept}");
    }
}
