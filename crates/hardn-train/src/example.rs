//! From fix pairs and utility items to examples.

use std::{collections::BTreeMap, path::Path};

use hardn_code::{TokenText, mask_pair};
use hardn_models::{Encoding, Tokenizer};
use hardn_types::{FixPair, Language, Side};
use serde::{Deserialize, Serialize};

use crate::{
    Columns, DataRecipe, Example, ExampleKind, LossRecipe, OneSided, Overlong, Result, TrainError,
    UtilityLoss, wording::Wording,
};

/// Something a model must stay good at: a prompt and what should follow it.
///
/// Also reads rows with `instruction`, `input`, `output` (alpaca), and rows with nothing but a `text`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UtilityItem {
    /// Unique in its file; the row number where the file has none.
    pub id: String,
    /// The text to continue; may be empty.
    pub prompt: String,
    /// What should follow.
    #[serde(alias = "output", alias = "text")]
    pub completion: String,
    /// What is asked for, in a sentence.
    #[serde(alias = "description", skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// What the instruction is about; a format without instructions has it before `prompt`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// Where it comes from, for `data.utility_sources`; the file's name without its ending where a row does not say it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The language of the code, where it is code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
}

/// Reads utility items from a file; [`hardn_code::read_rows`] says what it may be. Fields hardn does not know are ignored.
///
/// # Errors
/// An unreadable file, or the first malformed row, with its column.
pub fn read_utility(path: &Path) -> Result<Vec<UtilityItem>> {
    read_utility_with(path, &Columns::default())
}

/// As [`read_utility`], with a user's own names of columns.
///
/// # Errors
/// As [`read_utility`].
pub fn read_utility_with(path: &Path, columns: &Columns) -> Result<Vec<UtilityItem>> {
    let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = stem.split('.').next().unwrap_or_default();
    let mut items: Vec<UtilityItem> = Vec::new();
    for (line, row) in hardn_code::read_rows(path)? {
        let item = row.and_then(|row| columns.utility_row(row)).map_err(|why| {
            let error = hardn_code::RowError { path: path.to_owned(), line, why };
            TrainError::from(hardn_code::CodeError::from(error))
        })?;
        let id = if item.id.is_empty() { items.len().to_string() } else { item.id.clone() };
        let source = if item.source.is_empty() { source.to_owned() } else { item.source.clone() };
        items.push(UtilityItem { id, source, ..item });
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
    pub(crate) fn keep(&mut self, kind: ExampleKind) {
        *self.kept.entry(kind.name().to_owned()).or_default() += 1;
    }

    /// What is wrong where nothing was kept.
    pub(crate) fn nothing(&self) -> TrainError {
        let reasons: Vec<String> =
            self.dropped.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let reasons =
            if reasons.is_empty() { "no data given".to_owned() } else { reasons.join(", ") };
        TrainError::NothingToTrain { reasons }
    }

    pub(crate) fn drop(&mut self, kind: ExampleKind, why: &str) {
        *self.dropped.entry(format!("{}: {why}", kind.name())).or_default() += 1;
    }
}

/// Makes examples as a recipe says.
pub struct ExampleBuilder<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) data: &'a DataRecipe,
    wording: Wording<'a>,
    pub(crate) max_tokens: usize,
    /// An example without selected tokens still has a loss: a divergence.
    keeps_unselected: bool,
    /// A side without selected tokens has those at which it parts from the other.
    completes: bool,
}

impl<'a> ExampleBuilder<'a> {
    /// `loss` must be resolved. `context` is the model's, in tokens; the smaller of it and the recipe's `max_tokens` counts.
    ///
    /// # Errors
    /// A template file that cannot be used.
    pub fn new(
        tokenizer: &'a Tokenizer,
        data: &'a DataRecipe,
        loss: &LossRecipe,
        context: usize,
    ) -> Result<Self> {
        let wording = Wording::load(tokenizer, data)?;
        let max_tokens = data.max_tokens.min(context);
        let keeps_unselected = loss.keeps_unselected() && !data.drop_none_set;
        let completes = loss.one_sided == OneSided::NextToken;
        Ok(Self { tokenizer, data, wording, max_tokens, keeps_unselected, completes })
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
        let kind = self.data.mask;
        let mut masks = mask_pair(pair, token_text(&before), token_text(&after), kind)?;
        let description = pair.description.as_deref().unwrap_or_default();
        if self.wording.asks() && description.is_empty() {
            let why = "no description".to_owned();
            return Ok([(Side::Secure, Err(why.clone())), (Side::Vulnerable, Err(why))]);
        }
        // By itself, as the released trainer has it: no token reaches from the instruction into the code.
        let prefix = self.wording.before(pair.language, description, "")?;
        let prefix = self.tokenizer.encode(&prefix)?.ids;
        if self.data.mask_prompt {
            let n_chars = pair.prompt.chars().count();
            unselect_prompt(&mut masks.secure, &after, n_chars);
            unselect_prompt(&mut masks.vulnerable, &before, n_chars);
        }
        if self.completes {
            masks.complete(&before.ids, &after.ids, kind, usize::from(prefix.is_empty()));
        }
        let make = |side: Side, code: Encoding| -> Result<_> {
            let selected = masks.side(side).to_vec();
            Ok((side, self.side(pair, side, code.ids, selected, &prefix)?))
        };
        Ok([make(Side::Secure, after)?, make(Side::Vulnerable, before)?])
    }

    /// A side, its selection being of its tokens, or of these and what ends them.
    fn side(
        &self,
        pair: &FixPair,
        side: Side,
        mut ids: Vec<u32>,
        mut selected: Vec<u8>,
        prefix: &[u32],
    ) -> Result<Result<Example, String>> {
        let text = pair.text(side);
        if text.is_empty() {
            return Ok(Err("not given".to_owned()));
        }
        let end = if self.data.end_of_text || selected.len() > ids.len() {
            self.wording.end(text)?
        } else {
            Vec::new()
        };
        let fits = prefix.len() + ids.len() + end.len() <= self.max_tokens;
        if self.data.end_of_text && !self.data.trim && side == Side::Secure && fits {
            ids.extend(end);
            selected.resize(ids.len(), 1);
        } else if selected.len() > ids.len() {
            ids.extend(end.first());
            selected.truncate(ids.len());
        }
        if self.data.trim
            && let Some(last) = selected.iter().rposition(|&bit| bit != 0)
        {
            ids.truncate(last + 1);
            selected.truncate(last + 1);
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
        Ok(self.check(example, self.data.drop_all_set))
    }

    /// A utility item as an example, or the reason why it was dropped.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn utility(&self, item: &UtilityItem) -> Result<Result<Example, String>> {
        let UtilityItem { id, prompt, completion, instruction, input, language, .. } = item;
        let asks = self.wording.asks() && !instruction.is_empty();
        let before = if asks {
            self.wording.before(language.unwrap_or(Language::Python), instruction, input)?
        } else {
            input.clone()
        };
        // Tokenized as one text, as pretraining saw it: a token may reach over the border.
        let text = self.tokenizer.encode(&format!("{before}{prompt}{completion}"))?;
        let n_before = before.chars().count();
        let n_given = match self.data.utility_loss {
            UtilityLoss::Completion => n_before + prompt.chars().count(),
            UtilityLoss::All if asks => n_before,
            UtilityLoss::All => 0,
        };
        // A token that reaches out of the instruction is not learnt (released code of SafeCoder), one that reaches out of
        // code is.
        let strict = asks && n_given == n_before;
        let is_learnt = |&(start, end): &(usize, usize)| {
            u8::from(if strict { start >= n_given } else { end > n_given })
        };
        let mut selected: Vec<u8> = text.offsets.iter().map(is_learnt).collect();
        let mut ids = text.ids;
        let end =
            if asks { self.wording.end(completion)? } else { Vec::from_iter(self.tokenizer.eos()) };
        if self.data.overlong == Overlong::Drop || ids.len() + end.len() <= self.max_tokens {
            ids.extend(end);
            selected.resize(ids.len(), 1);
        }
        let example = Example { id: id.clone(), kind: ExampleKind::Utility, ids, selected };
        Ok(self.check(example, false))
    }

    /// The example, if it can be trained on; cut where the recipe cuts.
    pub(crate) fn check(
        &self,
        mut example: Example,
        drop_all_set: bool,
    ) -> Result<Example, String> {
        if example.ids.len() > self.max_tokens {
            match self.data.overlong {
                Overlong::Drop => return Err("too long".to_owned()),
                Overlong::Cut => {
                    example.ids.truncate(self.max_tokens);
                    example.selected.truncate(self.max_tokens);
                }
            }
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

/// Takes tokens that end within the first characters out of a selection.
fn unselect_prompt(selected: &mut [u8], code: &Encoding, n_chars: usize) {
    for (bit, &(_, end)) in selected.iter_mut().zip(&code.offsets) {
        *bit &= u8::from(end > n_chars);
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
    use crate::{
        Format,
        testing::{pair, tokenizer},
    };

    const PROMPT: &str = "def run(name):\n";
    const BEFORE: &str = "    return system(\"ls \" + name)\n";
    const AFTER: &str = "    return call([\"ls\", name])\n";

    fn data() -> DataRecipe {
        DataRecipe { mask: MaskKind::Difflib, ..DataRecipe::default() }
    }

    fn build(data: &DataRecipe, pair: &FixPair) -> [Result<Example, String>; 2] {
        let tokenizer = tokenizer();
        let builder = ExampleBuilder::new(&tokenizer, data, &LossRecipe::default(), 1024).unwrap();
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
        let builder = ExampleBuilder::new(&tokenizer, &data, &LossRecipe::default(), 1024).unwrap();
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
