//! Which weights a recipe trains.

use serde::{Deserialize, Serialize};

/// Which weights are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterRecipe {
    /// All of the model's own weights.
    Full {},
    /// A low-rank update of some matrices (Hu et al. 2021, arXiv:2106.09685).
    Lora {
        /// Rank of the update.
        #[serde(default = "default_rank")]
        r: usize,
        /// The update is scaled by `lora_alpha / r`.
        #[serde(default = "default_alpha")]
        lora_alpha: f64,
        /// Share of the update's inputs set to zero while training.
        #[serde(default)]
        dropout: f64,
        /// Names of the matrices, such as `q_proj`; empty: every matrix of the blocks.
        #[serde(default)]
        target_modules: Vec<String>,
        /// Scaled by `lora_alpha / sqrt(r)` instead (Kalajdzievski 2023, arXiv:2312.03732).
        #[serde(default)]
        use_rslora: bool,
    },
    /// Factors on the outputs or inputs of some matrices (Liu et al. 2022, arXiv:2205.05638).
    Ia3 {
        /// Names of the matrices; empty: those PEFT takes for the model's family.
        #[serde(default)]
        target_modules: Vec<String>,
        /// Those of them whose input is scaled rather than the output.
        #[serde(default)]
        feedforward_modules: Vec<String>,
    },
    /// Keys and values before the text's own in every layer (Li and Liang 2021, arXiv:2101.00190).
    Prefix {
        /// Positions of the prefix; SVEN has 5, 8 and 12 for models of 350 M, 2 B and 6 B parameters.
        #[serde(default = "default_prefix")]
        num_virtual_tokens: usize,
        /// Share of the prefix's numbers set to zero while training; 0.1 in SVEN.
        #[serde(default)]
        dropout: f64,
        /// Begins at zero, as in SVEN, rather than at random, as in PEFT.
        #[serde(default)]
        zero_init: bool,
    },
}

fn default_rank() -> usize {
    16
}

fn default_prefix() -> usize {
    5
}

fn default_alpha() -> f64 {
    32.0
}
