//! How long and in what portions is trained, and when it ends.

use serde::{Deserialize, Serialize};

/// When gradients are clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipPer {
    /// Once, before each update.
    #[default]
    Step,
    /// After every micro-batch, on the running sum (released code of SVEN, SafeCoder and CoSec).
    MicroBatch,
}

/// What becomes of the micro-batches at an epoch's end that are too few for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftover {
    /// They make a smaller step.
    #[default]
    Step,
    /// Their gradient stays and is added to that of the next epoch's first step; that of the last epoch is lost. A
    /// step's losses are then divided by `batch_size * accumulation`, whatever it holds (released code
    /// of SVEN, SafeCoder and CoSec).
    Carry,
}

/// What says which weights are the best, and when a training no longer gets better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestBy {
    /// The lowest validation loss.
    #[default]
    Loss,
    /// The largest share of samples that are valid and secure, on a suite of validation scenarios.
    Security,
    /// The largest share of samples that pass their tests, on a suite of utility tasks.
    Utility,
    /// The largest share of samples that pass their tests and are secure, on a suite of validation scenarios.
    SecurePass,
}

impl BestBy {
    /// The name of the score that decides; `None` for the loss.
    pub fn score(self) -> Option<&'static str> {
        match self {
            Self::Loss => None,
            Self::Security => Some("security"),
            Self::Utility => Some("utility"),
            Self::SecurePass => Some("secure_pass"),
        }
    }
}

/// In what numbers a model is computed while it is trained. What is trained, its gradients, the optimiser's moments and the losses are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As the base is loaded: in f32, unless the caller chose another form for it (`--base-weights`).
    #[default]
    F32,
    /// The frozen base and the states between its layers in bf16, under an adapter in f32. No loss scaling: bf16 has the
    /// range of f32. Not for `adapter.kind = "full"`. On the CPU this halves the base's memory, but takes longer: only
    /// f32 has fused operations there.
    Bf16,
}

/// How long and in what portions is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoopRecipe {
    /// Passes over the data; counts where `max_steps` is 0.
    pub epochs: f64,
    /// Optimiser steps; 0: as many as `epochs` takes.
    pub max_steps: usize,
    /// Samples per micro-batch. With `clip_per = "step"` only `batch_size * accumulation` matters, and
    /// samples of similar length are computed together.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulation: usize,
    /// What becomes of the micro-batches at an epoch's end that are too few for a step.
    pub leftover: Leftover,
    /// Largest Euclidean norm of the gradient; 0: no clipping.
    pub clip_norm: f64,
    /// When gradients are clipped.
    pub clip_per: ClipPer,
    /// Everything random derives from it.
    pub seed: u64,
    /// Steps between validations; 0: at the end only.
    pub eval_every: usize,
    /// Steps between checkpoints, besides those at validations; 0: none besides.
    pub checkpoint_every: usize,
    /// Checkpoints kept, besides the best.
    pub keep_checkpoints: usize,
    /// End with the best weights (see `best_by`), not with the last ones.
    pub keep_best: bool,
    /// Which validation is the best. Every choice but `loss` needs a suite to sample on.
    pub best_by: BestBy,
    /// Validations in a row that may pass without getting better before the training ends; 0: it never ends early.
    pub patience: usize,
    /// What a validation must be better by than the best before it to count as better for `patience`: nats, or for scores
    /// a share of 1.
    pub min_delta: f64,
    /// In what numbers is computed.
    pub precision: Precision,
    /// Keep only the states between layers for the backward pass and compute the rest again: the same gradients with
    /// less memory, for about a third more time.
    pub gradient_checkpointing: bool,
}

impl Default for LoopRecipe {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            max_steps: 0,
            batch_size: 1,
            accumulation: 16,
            leftover: Leftover::Step,
            clip_norm: 1.0,
            clip_per: ClipPer::Step,
            seed: 1,
            eval_every: 0,
            checkpoint_every: 100,
            keep_checkpoints: 2,
            keep_best: false,
            best_by: BestBy::Loss,
            patience: 0,
            min_delta: 0.0,
            precision: Precision::F32,
            gradient_checkpointing: false,
        }
    }
}

impl LoopRecipe {
    /// What is wrong with the values that say when a training ends.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            return Err(format!(
                "`training.min_delta` is {}, but must not be negative",
                self.min_delta
            ));
        }
        if self.patience > 0 && self.eval_every == 0 {
            return Err(
                "`training.patience` counts validations: set `training.eval_every`".to_owned()
            );
        }
        Ok(())
    }
}
