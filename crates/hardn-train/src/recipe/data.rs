//! Which samples take part in a training and how they look.

use hardn_code::MaskKind;
use serde::{Deserialize, Serialize};

/// How a fix pair becomes text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The code alone.
    #[default]
    Completion,
    /// The template with the description, then the code.
    Instruction,
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
    /// How a pair becomes text.
    pub format: Format,
    /// File of the template for `format = "instruction"`; empty: the built-in one.
    pub template: String,
    /// Longer samples are dropped.
    pub max_tokens: usize,
    /// Drop samples without any selected token.
    pub drop_none_set: bool,
    /// Drop samples whose every token is selected.
    pub drop_all_set: bool,
    /// Cut the code behind its last selected token (SafeCoder).
    pub trim: bool,
    /// Never select a token of the part both versions share as prompt.
    pub mask_prompt: bool,
    /// Put the end-of-text token behind secure code that is not trimmed, and learn it.
    pub end_of_text: bool,
    /// Utility samples per security sample, drawn without replacement in each epoch; 0: all there are.
    pub utility_ratio: f64,
    /// Which tokens of a utility sample are learnt.
    pub utility_loss: UtilityLoss,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            mask: MaskKind::Ndiff,
            format: Format::Completion,
            template: String::new(),
            max_tokens: 1024,
            drop_none_set: true,
            drop_all_set: true,
            trim: false,
            mask_prompt: true,
            end_of_text: false,
            utility_ratio: 0.0,
            utility_loss: UtilityLoss::Completion,
        }
    }
}
