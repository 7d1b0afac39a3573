//! How long and in what portions is trained.

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
    /// step's losses are then divided by `batch_size * accumulation`, whatever it holds (released code of SVEN, SafeCoder
    /// and CoSec).
    Carry,
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
    /// End with the weights of the lowest validation loss, not with the last ones.
    pub keep_best: bool,
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
            gradient_checkpointing: false,
        }
    }
}
