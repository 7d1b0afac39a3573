//! One completion drawn from a model.

use serde::{Deserialize, Serialize};

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// End of text, a stop token or a stop string.
    Stop,
    /// The length limit.
    Length,
}

/// One completion. Keyed by (`arm`, `task`, `index`) within a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The arm of the comparison, such as `base` or `hardened`.
    pub arm: String,
    /// The scenario's or task's id.
    pub task: String,
    /// The number of the sample, from 0.
    pub index: u32,
    /// SHA-256 of what determines the sample: model fingerprint, prompt, decoder, seed, index.
    pub key: String,
    /// The generated text, uncut.
    pub text: String,
    /// Generated token ids, without the end-of-text token. Empty where unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u32>,
    /// What the text continues where that is not the task's prompt: two-step generation adds imports to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Code-point length of each token's text in `text`; same length as `ids`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_chars: Vec<u32>,
    /// Natural log-probability of each token under the sampled distribution before warping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probs: Vec<f32>,
    /// Who chose each token, one letter a token: `s` the security model of co-decoding, `b` the base model. Empty where
    /// one model writes alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authors: String,
    /// How often an oracle that read along had the text written again from some place on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repairs: u32,
    /// Why generation ended.
    pub finish: FinishReason,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
