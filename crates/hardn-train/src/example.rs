//! From fix pairs and utility items to examples.

use std::{collections::BTreeMap, path::Path};

use hardn_code::{PairMasks, TokenText, mask_pair};
use hardn_models::{Encoding, Tokenizer};
use hardn_types::{FixPair, Language, Side};
use serde::{Deserialize, Serialize};

use crate::{
    DataRecipe, Example, ExampleKind, Format, InstructionTemplate, Result, TrainError, UtilityLoss,
};

/// Something a model must stay good at: a prompt and what should follow it.
///
/// Also reads rows with `instruction`, `input`, `output`, and rows with nothing but a `text`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UtilityItem {
    /// Unique in its file; the row number where the file has none.
    pub id: String,
    /// The text to continue; may be empty.
    #[serde(alias = "input")]
    pub prompt: String,
    /// What should follow.
    #[serde(alias = "output", alias = "text")]
    pub completion: String,
    /// What is asked for, in a sentence.
    #[serde(alias = "description", skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// The language of the code, where it is code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// Reads utility items from a JSON Lines file. Fields hardn does not know are ignored.
///
/// # Errors
/// An unreadable file or the first malformed row.
pub fn read_utility(path: &Path) -> Result<Vec<UtilityItem>> {
    let mut items: Vec<UtilityItem> = hardn_types::read_jsonl(path)?;
    for (i, item) in items.iter_mut().enumerate().filter(|(_, item)| item.id.is_empty()) {
        item.id = i.to_string();
    }
    Ok(items)
}

/// The examples of one pair; a side is missing where it was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairExamples {
    /// What oversampling counts as one class: extension or language, and CWE.
    pub class: [String; 2],
    /// The fixed side.
    pub secure: Option<Example>,
    /// The other side.
    pub vulnerable: Option<Example>,
}

/// How many examples were kept, and how many dropped and why, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Kept, such as `secure`.
    pub kept: BTreeMap<String, usize>,
    /// Dropped, such as `vulnerable: no token selected`.
    pub dropped: BTreeMap<String, usize>,
}

impl Counts {
    fn keep(&mut self, kind: ExampleKind) {
        *self.kept.entry(kind.name().to_owned()).or_default() += 1;
    }

    fn drop(&mut self, kind: ExampleKind, why: &str) {
        *self.dropped.entry(format!("{}: {why}", kind.name())).or_default() += 1;
    }
}

/// Makes examples as a recipe says.
pub struct ExampleBuilder<'a> {
    tokenizer: &'a Tokenizer,
    data: &'a DataRecipe,
    template: InstructionTemplate,
    max_tokens: usize,
    /// An example without selected tokens still has a loss: a divergence.
    keeps_unselected: bool,
}

impl<'a> ExampleBuilder<'a> {
    /// `context` is the model's, in tokens; the smaller of it and the recipe's `max_tokens` counts.
    ///
    /// # Errors
    /// A template file that cannot be used.
    pub fn new(
        tokenizer: &'a Tokenizer,
        data: &'a DataRecipe,
        context: usize,
        with_kl: bool,
    ) -> Result<Self> {
        let template = InstructionTemplate::load(&data.template)?;
        let max_tokens = data.max_tokens.min(context);
        let keeps_unselected = with_kl && !data.drop_none_set;
        Ok(Self { tokenizer, data, template, max_tokens, keeps_unselected })
    }

    /// Both sides of a pair, each an example or the reason why it was dropped.
    ///
    /// The sides' tokens are selected by comparing the code alone; an instruction is put before it afterwards and is
    /// never selected.
    ///
    /// # Errors
    /// Text that cannot be tokenized, or an instruction format without a description.
    pub fn pair(&self, pair: &FixPair) -> Result<[(Side, Result<Example, String>); 2]> {
        let before = self.tokenizer.encode(&pair.before)?;
        let after = self.tokenizer.encode(&pair.after)?;
        let masks = mask_pair(pair, token_text(&before), token_text(&after), self.data.mask)?;
        let prefix = match self.data.format {
            Format::Completion => Vec::new(),
            Format::Instruction => {
                let description = pair.description.as_deref().unwrap_or_default();
                if description.is_empty() {
                    let why = "no description".to_owned();
                    return Ok([(Side::Secure, Err(why.clone())), (Side::Vulnerable, Err(why))]);
                }
                self.tokenizer.encode(&self.template.render(pair.language, description, ""))?.ids
            }
        };
        let make =
            |side: Side, code: &Encoding| (side, self.side(pair, side, code, &masks, &prefix));
        Ok([make(Side::Secure, &after), make(Side::Vulnerable, &before)])
    }

    fn side(
        &self,
        pair: &FixPair,
        side: Side,
        code: &Encoding,
        masks: &PairMasks,
        prefix: &[u32],
    ) -> Result<Example, String> {
        let mut selected = masks.side(side).to_vec();
        if self.data.mask_prompt && !pair.prompt.is_empty() {
            let prompt_chars = pair.prompt.chars().count();
            for (bit, &(_, end)) in selected.iter_mut().zip(&code.offsets) {
                *bit &= u8::from(end > prompt_chars);
            }
        }
        let mut ids = code.ids.clone();
        if self.data.trim {
            if let Some(last) = selected.iter().rposition(|&bit| bit != 0) {
                ids.truncate(last + 1);
                selected.truncate(last + 1);
            }
        } else if self.data.end_of_text
            && side == Side::Secure
            && let Some(eos) = self.tokenizer.eos()
        {
            ids.push(eos);
            selected.push(1);
        }
        let kind = match side {
            Side::Secure => ExampleKind::Secure,
            Side::Vulnerable => ExampleKind::Vulnerable,
        };
        let example = Example {
            id: format!("{}#{}", pair.id, side.name()),
            kind,
            ids: [prefix, &ids].concat(),
            selected: [vec![0; prefix.len()], selected].concat(),
        };
        self.check(example, self.data.drop_all_set)
    }

    /// A utility item as an example, or the reason why it was dropped.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn utility(&self, item: &UtilityItem) -> Result<Result<Example, String>> {
        let prefix = if self.data.format == Format::Instruction && !item.instruction.is_empty() {
            let language = item.language.unwrap_or(Language::Python);
            self.tokenizer.encode(&self.template.render(language, &item.instruction, ""))?.ids
        } else {
            Vec::new()
        };
        // Tokenized as one text, as pretraining saw it: a token may reach over the border.
        let text = self.tokenizer.encode(&format!("{}{}", item.prompt, item.completion))?;
        let prompt_chars = match self.data.utility_loss {
            UtilityLoss::Completion => item.prompt.chars().count(),
            UtilityLoss::All => 0,
        };
        let mut selected = vec![0; prefix.len()];
        selected.extend(text.offsets.iter().map(|&(_, end)| u8::from(end > prompt_chars)));
        let mut ids = [prefix, text.ids].concat();
        if let Some(eos) = self.tokenizer.eos() {
            ids.push(eos);
            selected.push(1);
        }
        let example = Example { id: item.id.clone(), kind: ExampleKind::Utility, ids, selected };
        Ok(self.check(example, false))
    }

    fn check(&self, example: Example, drop_all_set: bool) -> Result<Example, String> {
        if example.ids.len() > self.max_tokens {
            return Err("too long".to_owned());
        }
        // The first token cannot be learnt, so it does not count as selected here.
        if example.n_selected() == 0 && !self.keeps_unselected {
            return Err("no token selected".to_owned());
        }
        if drop_all_set && example.selected.iter().all(|&bit| bit != 0) {
            return Err("every token selected".to_owned());
        }
        Ok(example)
    }

    /// The examples of many pairs. `class_of` names a pair's class for oversampling.
    ///
    /// # Errors
    /// As [`Self::pair`].
    pub fn pairs(
        &self,
        pairs: &[FixPair],
        class_of: impl Fn(&FixPair) -> [String; 2],
        counts: &mut Counts,
    ) -> Result<Vec<PairExamples>> {
        let mut out = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let mut examples =
                PairExamples { class: class_of(pair), secure: None, vulnerable: None };
            for (side, result) in self.pair(pair)? {
                let (kind, slot) = match side {
                    Side::Secure => (ExampleKind::Secure, &mut examples.secure),
                    Side::Vulnerable => (ExampleKind::Vulnerable, &mut examples.vulnerable),
                };
                match result {
                    Ok(example) => {
                        counts.keep(kind);
                        *slot = Some(example);
                    }
                    Err(why) => counts.drop(kind, &why),
                }
            }
            out.push(examples);
        }
        Ok(out)
    }

    /// The examples of many utility items.
    ///
    /// # Errors
    /// As [`Self::utility`].
    pub fn utilities(&self, items: &[UtilityItem], counts: &mut Counts) -> Result<Vec<Example>> {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            match self.utility(item)? {
                Ok(example) => {
                    counts.keep(ExampleKind::Utility);
                    out.push(example);
                }
                Err(why) => counts.drop(ExampleKind::Utility, &why),
            }
        }
        Ok(out)
    }
}

pub(crate) fn token_text(encoding: &Encoding) -> TokenText<'_> {
    TokenText { ids: &encoding.ids, offsets: &encoding.offsets }
}

impl From<hardn_code::CodeError> for TrainError {
    fn from(error: hardn_code::CodeError) -> Self {
        Self::Code(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use hardn_code::MaskKind;

    use super::*;
    use crate::testing::{pair, tokenizer};

    const PROMPT: &str = "def run(name):\n";
    const BEFORE: &str = "    return system(\"ls \" + name)\n";
    const AFTER: &str = "    return call([\"ls\", name])\n";

    fn data() -> DataRecipe {
        DataRecipe { mask: MaskKind::Difflib, ..DataRecipe::default() }
    }

    fn build(data: &DataRecipe, pair: &FixPair) -> [Result<Example, String>; 2] {
        let tokenizer = tokenizer();
        let builder = ExampleBuilder::new(&tokenizer, data, 1024, false).unwrap();
        builder.pair(pair).unwrap().map(|(_, result)| result)
    }

    fn selected_text(example: &Example) -> String {
        let ids: Vec<u32> = example
            .ids
            .iter()
            .zip(&example.selected)
            .filter(|(_, bit)| **bit != 0)
            .map(|(id, _)| *id)
            .collect();
        tokenizer().decode(&ids).unwrap()
    }

    #[test]
    fn changed_tokens_are_selected_and_the_rest_is_cut() {
        let data = DataRecipe { trim: true, ..data() };
        let [secure, vulnerable] = build(&data, &pair("p", PROMPT, BEFORE, AFTER));
        let secure = secure.unwrap();
        assert!(selected_text(&secure).contains("call"), "{}", selected_text(&secure));
        assert_eq!(secure.selected.last(), Some(&1));
        assert!(selected_text(&vulnerable.unwrap()).contains("system"));
    }

    #[test]
    fn an_instruction_is_never_selected() {
        let data = DataRecipe {
            format: Format::Instruction,
            mask: MaskKind::Whole,
            mask_prompt: false,
            drop_all_set: false,
            ..DataRecipe::default()
        };
        let mut example = pair("p", PROMPT, BEFORE, AFTER);
        example.description = Some("List a folder.".to_owned());
        let [secure, _] = build(&data, &example);
        assert_eq!(selected_text(&secure.unwrap()), format!("{PROMPT}{AFTER}"));
        example.description = None;
        assert_eq!(build(&data, &example)[0], Err("no description".to_owned()));
    }

    #[test]
    fn the_shared_prompt_can_be_left_out_and_the_end_learnt() {
        let data = DataRecipe {
            mask: MaskKind::Whole,
            drop_all_set: false,
            end_of_text: true,
            ..DataRecipe::default()
        };
        let [secure, _] = build(&data, &pair("p", PROMPT, BEFORE, AFTER));
        let secure = secure.unwrap();
        assert_eq!(selected_text(&secure), AFTER);
        assert_eq!(
            (secure.ids.last().copied(), secure.selected.last()),
            (tokenizer().eos(), Some(&1))
        );
    }

    #[test]
    fn drop_rules() {
        let check = |data: &DataRecipe, before: &str, after: &str, expected: [Option<&str>; 2]| {
            let results = build(data, &pair("p", PROMPT, before, after));
            assert_eq!(results.each_ref().map(|r| r.as_ref().err().map(String::as_str)), expected);
        };
        let none = Some("no token selected");
        check(&data(), BEFORE, BEFORE, [none, none]);
        // A pure insertion selects nothing on the vulnerable side.
        check(&data(), BEFORE, &format!("    check(name)\n{BEFORE}"), [None, none]);
        let short = DataRecipe { max_tokens: 4, ..data() };
        check(&short, BEFORE, AFTER, [Some("too long"), Some("too long")]);
        let all = DataRecipe { mask: MaskKind::Whole, mask_prompt: false, ..data() };
        check(&all, BEFORE, AFTER, [Some("every token selected"), Some("every token selected")]);
    }

    #[test]
    fn a_utility_item_is_learnt_behind_its_prompt() {
        let tokenizer = tokenizer();
        let data = data();
        let builder = ExampleBuilder::new(&tokenizer, &data, 1024, false).unwrap();
        let item = UtilityItem {
            prompt: PROMPT.to_owned(),
            completion: AFTER.to_owned(),
            ..UtilityItem::default()
        };
        let example = builder.utility(&item).unwrap().unwrap();
        assert_eq!(selected_text(&example), AFTER);
        assert_eq!(example.ids.last().copied(), tokenizer.eos());
    }

    #[test]
    fn published_utility_rows_are_read() {
        let row = r#"{"instruction": "Add.", "input": "", "output": "a + b"}"#;
        let item: UtilityItem = serde_json::from_str(row).unwrap();
        assert_eq!((item.instruction.as_str(), item.completion.as_str()), ("Add.", "a + b"));
    }
}
