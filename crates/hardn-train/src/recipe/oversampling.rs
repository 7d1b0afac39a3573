//! Duplicates of the members of small classes.

use serde::{Deserialize, Serialize};

/// Which classes are oversampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingMode {
    /// None.
    #[default]
    None,
    /// Classes with fewer than `k` items are filled up to `k`.
    Minority,
    /// Every class is filled up to the largest class, or to `k` where that is more.
    All,
}

/// What `k` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingUnit {
    /// Secure and vulnerable samples together (released code).
    #[default]
    Sides,
    /// Pairs (paper 002).
    Pairs,
}

/// What a class's language is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingBy {
    /// The file's extension (released code); the language's own where the pair has no file name.
    #[default]
    Extension,
    /// The language.
    Language,
}

/// Duplicates of the members of small (language, CWE) classes, drawn with replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OversamplingRecipe {
    /// Which classes are filled up.
    pub mode: OversamplingMode,
    /// To how many items.
    pub k: usize,
    /// What `k` counts.
    pub unit: OversamplingUnit,
    /// What a class's language is.
    pub by: OversamplingBy,
}

impl Default for OversamplingRecipe {
    fn default() -> Self {
        Self {
            mode: OversamplingMode::None,
            k: 20,
            unit: OversamplingUnit::Sides,
            by: OversamplingBy::Extension,
        }
    }
}
