//! What a recipe minimises.

use serde::{Deserialize, Serialize};

use crate::KlDirection;

/// Factors on the losses of one sample, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossWeights {
    /// Likelihood of utility samples.
    pub utility: f64,
    /// Likelihood of the selected tokens of secure samples.
    pub secure: f64,
    /// Unlikelihood of the selected tokens of vulnerable samples.
    pub unlikelihood: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { utility: 1.0, secure: 1.0, unlikelihood: 1.0 }
    }
}

/// What the losses add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Likelihood of secure samples, unlikelihood of vulnerable ones, likelihood of utility samples (paper 002).
    #[default]
    Safecoder,
    /// Likelihood of secure and utility samples; vulnerable ones are not used. With mask `whole` this is
    /// plain fine-tuning on fixed code, with another mask HexaCoder's masked one (paper 003).
    Nll,
    /// As `nll`, and a divergence from the untrained model at unselected tokens (CoSec's security model, paper 004).
    MaskedKl,
    /// Utility samples alone: what a method must beat.
    UtilityOnly,
}

/// How the selected tokens of a sample are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean (released code).
    #[default]
    Mean,
    /// Their sum (papers 002 to 004).
    Sum,
}

/// Whether the two sides of a pair meet in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Each side is a sample of its own (released code).
    #[default]
    Independent,
    /// Both sides make one sample, whose losses are added (paper 002, Algorithm 1).
    Joint,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// What the losses add up to.
    pub kind: LossKind,
    /// Factors on them.
    pub weights: LossWeights,
    /// Factor on the divergence from the untrained model at unselected tokens; 0 switches it off.
    pub kl_weight: f64,
    /// Which way that divergence points.
    pub kl_direction: KlDirection,
    /// How a sample's tokens are added up.
    pub reduction: Reduction,
    /// Whether the two sides of a pair meet in one step.
    pub pairing: Pairing,
}
