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
    /// Security samples are filled up to `percent` of the utility samples, each sample as likely as any other.
    Uniform,
    /// As `uniform`, but each class as likely as any other: a sample counts as one over the size of its class.
    InverseProportional,
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

/// Duplicates of the members of small (language, CWE) classes, drawn with replacement (paper 002, section 4.3; the modes
/// by `percent` are the released trainer's).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OversamplingRecipe {
    /// Which classes are filled up.
    pub mode: OversamplingMode,
    /// To how many items, for the modes `minority` and `all`.
    pub k: usize,
    /// Security samples wanted per hundred utility samples given, for the modes `uniform` and `inverse_proportional`;
    /// halved where vulnerable sides are not used, as `k` is.
    pub percent: f64,
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
            percent: 0.0,
            unit: OversamplingUnit::Sides,
            by: OversamplingBy::Extension,
        }
    }
}

impl OversamplingRecipe {
    pub(super) fn check(&self) -> Result<(), String> {
        let by_percent =
            matches!(self.mode, OversamplingMode::Uniform | OversamplingMode::InverseProportional);
        if by_percent && !(self.percent > 0.0 && self.percent.is_finite()) {
            return Err(
                "this `oversampling.mode` needs an `oversampling.percent` above 0".to_owned()
            );
        }
        Ok(())
    }
}
