//! Which samples take part in a training and how they look.

use std::collections::BTreeMap;

use hardn_code::MaskKind;
use serde::{Deserialize, Serialize};

use super::{AdapterRecipe, Columns, LossKind, Recipe};

/// How a fix pair becomes text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The code alone.
    #[default]
    Completion,
    /// The template with the description, then the code.
    Instruction,
    /// A conversation as the model's chat template writes it: the description is the user's message, the code the
    /// assistant's, and nothing but the code is learnt.
    Chat,
}

/// What one sample is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A side of a pair.
    #[default]
    Pair,
    /// The whole fixed text of a pair: a file, where pairs are files (paper 000, section 5.2).
    File,
    /// Each function of the fixed text that holds a changed line (paper 000, section 5.2).
    Function,
    /// Each smallest block of the fixed text around a changed line (paper 000, section 5.2).
    Block,
    /// Each changed line of the fixed text (paper 000, section 5.2).
    Line,
}

impl Granularity {
    /// As a recipe writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::File => "file",
            Self::Function => "function",
            Self::Block => "block",
            Self::Line => "line",
        }
    }
}

/// What becomes of samples with more tokens than `max_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// They are left out (released code of SVEN, SafeCoder and CoSec).
    #[default]
    Drop,
    /// Their end is cut off (released code of papers 000 and 001).
    Cut,
}

/// Where samples of similar length are computed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupByLength {
    /// Within a step, which changes no result beyond rounding; steps stay as they were drawn. With
    /// `training.clip_per = "micro_batch"` micro-batches are taken as drawn.
    #[default]
    Step,
    /// Steps are made of samples of similar length: the shuffled epoch is cut into stretches of up to 50 steps, and each
    /// is sorted (as `group_by_length` of transformers); within a step as `step`.
    Epoch,
    /// Nowhere: micro-batches of `training.batch_size` samples in the order drawn.
    Off,
}

/// Which tokens of a utility sample are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UtilityLoss {
    /// The completion.
    #[default]
    Completion,
    /// Prompt and completion.
    All,
}

/// Which samples take part and how they look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Which tokens of a pair are selected.
    pub mask: MaskKind,
    /// What one sample is made of.
    pub granularity: Granularity,
    /// How a pair becomes text.
    pub format: Format,
    /// File of the template for `format = "instruction"`, or of the user's message for `format = "chat"`; empty: the
    /// built-in one.
    pub template: String,
    /// File of the template for utility rows with an `input` of their own; empty: the built-in one.
    pub input_template: String,
    /// The system's message for `format = "chat"`; empty: none.
    pub system: String,
    /// Put code in a Markdown fence for `format = "chat"`. The fence is not learnt.
    pub fence: bool,
    /// Text before every item of a `granularity` other than `pair`.
    pub lead: String,
    /// Learn `lead` too (released code of papers 000 and 001).
    pub learn_lead: bool,
    /// The most tokens of a sample; the model's context counts where it is smaller.
    pub max_tokens: usize,
    /// What becomes of longer samples.
    pub overlong: Overlong,
    /// Drop samples without any selected token.
    pub drop_none_set: bool,
    /// Drop samples whose every token is selected.
    pub drop_all_set: bool,
    /// Cut the code behind its last selected token (SafeCoder).
    pub trim: bool,
    /// Never select a token of the part both versions share as prompt.
    pub mask_prompt: bool,
    /// Put the end-of-text token behind secure code that is not trimmed, where it fits, and learn it.
    pub end_of_text: bool,
    /// Utility samples per security sample, drawn without replacement in each epoch; 0: all there are.
    pub utility_ratio: f64,
    /// The same for single sources: the name of a utility file without its ending, or a row's `source`. Sources that are
    /// not named follow `utility_ratio` together.
    pub utility_sources: BTreeMap<String, f64>,
    /// Which tokens of a utility sample are learnt.
    pub utility_loss: UtilityLoss,
    /// Share of the pairs that is trained on, drawn by `training.seed`; below 1 to see what data is worth.
    pub pair_fraction: f64,
    /// Share of the pairs, or of the items of a finer `granularity`, that is kept for validation where no validation
    /// pairs are given; drawn by `training.seed`.
    pub validation_fraction: f64,
    /// Put several samples into one row of up to `max_tokens` tokens. They do not see each other.
    pub packing: bool,
    /// Where samples of similar length are computed together.
    pub group_by_length: GroupByLength,
    /// The names of a user's own columns.
    pub columns: Columns,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            mask: MaskKind::Ndiff,
            granularity: Granularity::Pair,
            format: Format::Completion,
            template: String::new(),
            input_template: String::new(),
            system: String::new(),
            fence: false,
            lead: String::new(),
            learn_lead: true,
            max_tokens: 1024,
            overlong: Overlong::Drop,
            drop_none_set: true,
            drop_all_set: true,
            trim: false,
            mask_prompt: true,
            end_of_text: false,
            utility_ratio: 0.0,
            utility_sources: BTreeMap::new(),
            utility_loss: UtilityLoss::Completion,
            pair_fraction: 1.0,
            validation_fraction: 0.0,
            packing: false,
            group_by_length: GroupByLength::Step,
            columns: Columns::default(),
        }
    }
}

/// What contradicts itself in what a recipe says of data.
pub(super) fn check_data(recipe: &Recipe) -> Result<(), String> {
    let data = &recipe.data;
    if data.mask == MaskKind::Whole && data.drop_all_set {
        return Err("mask `whole` selects every token: set `data.drop_all_set = false`".to_owned());
    }
    for (key, file) in [("template", &data.template), ("input_template", &data.input_template)] {
        if !file.is_empty() && !std::path::Path::new(file).exists() {
            return Err(format!("`data.{key}`: there is no file {file}"));
        }
    }
    let ratios = data.utility_sources.iter().map(|(name, ratio)| (name.as_str(), *ratio));
    for (name, ratio) in ratios.chain([("", data.utility_ratio)]) {
        if !(ratio >= 0.0 && ratio.is_finite()) {
            let key = if name.is_empty() { "utility_ratio" } else { "utility_sources." };
            return Err(format!("`data.{key}{name}` is {ratio}, but must be 0 or more"));
        }
    }
    data.columns.check()?;
    if !(data.pair_fraction > 0.0 && data.pair_fraction <= 1.0) {
        let found = data.pair_fraction;
        return Err(format!("`data.pair_fraction` is {found}, but must be above 0 and at most 1"));
    }
    if !(0.0..1.0).contains(&data.validation_fraction) {
        let found = data.validation_fraction;
        return Err(format!("`data.validation_fraction` is {found}, but must be in 0..1"));
    }
    if data.packing && matches!(recipe.adapter, AdapterRecipe::Prefix { .. }) {
        return Err(
            "`data.packing` does not go with a prefix adapter, which stands before each row: set \
                    `data.packing = false`"
                .to_owned(),
        );
    }
    if data.packing && recipe.loss.kind.is_pairwise() {
        return Err(
            "`data.packing` does not go with a loss that takes both sides of a pair together: set \
                    `data.packing = false`"
                .to_owned(),
        );
    }
    if data.granularity == Granularity::Pair {
        return Ok(());
    }
    let name = data.granularity.name();
    if data.mask != MaskKind::Whole {
        return Err(format!(
            "granularity `{name}` learns whole items: set `data.mask = \"whole\"`"
        ));
    }
    if data.format != Format::Completion {
        return Err(format!(
            "granularity `{name}` needs `data.format = \"completion\"`; use `data.lead`"
        ));
    }
    if !matches!(recipe.loss.kind, LossKind::Nll | LossKind::UtilityOnly) {
        return Err(format!(
            "granularity `{name}` has secure text alone: set `loss.kind = \"nll\"`"
        ));
    }
    Ok(())
}
