//! Losses, masks, data mix and the training loop.

mod adapters;
mod batch;
mod batches;
mod checkpoint;
mod controls;
mod coupling;
mod error;
mod estimate;
mod events;
mod example;
mod identity;
mod inspect;
mod items;
mod loss;
mod mix;
mod objective;
#[cfg(test)]
mod one_sided;
mod optimizer;
#[cfg(test)]
mod parity;
mod prepare;
mod pretrain;
mod recipe;
mod rng;
mod run_loop;
mod schedule;
mod stepper;
mod template;
mod tensorboard;
mod terms;
#[cfg(test)]
mod testing;
mod trainer;
mod wording;

pub use adapters::{
    SECURE_ADAPTER, TRAINING_ONLY, VULNERABLE_ADAPTER, attach_adapters, load_adapters,
};
pub use batch::{Example, ExampleKind};
pub use batches::{BatchSample, Mark, StepBatches, step_batches};
pub use controls::shuffle_labels;
pub use error::{Result, TrainError};
pub use estimate::{Estimate, estimate, memory_used};
pub use events::{Event, read_events};
pub use example::{
    Counts, ExampleBuilder, PairExamples, UtilityItem, read_utility, read_utility_with,
};
pub use inspect::{PairLoss, Preference, pair_examples, pair_losses, preference};
pub use loss::{KlDirection, MIN_COMPLEMENT, Term, kl_divergence, token_loss};
pub use optimizer::{AdamWConfig, Decays, MuonConfig};
pub use pretrain::{ModelShape, PretrainRecipe, TokenizedDocuments, pretrain, read_documents};
pub use recipe::{
    AdapterRecipe, BestBy, ClipPer, Columns, DataRecipe, Format, Granularity, GroupByLength,
    Leftover, LogProbs, LoopRecipe, LossKind, LossRecipe, LossWeights, OneSided, OptimizerRecipe,
    Overlong, OversamplingBy, OversamplingMode, OversamplingRecipe, OversamplingUnit, Pairing,
    Precision, Recipe, Reduction, UtilityLoss,
};
pub use run_loop::{Ended, Outcome, Progress, StepUpdate};
pub use schedule::{Schedule, ScheduleKind, WarmupStart};
pub use stepper::Stepper;
pub use template::InstructionTemplate;
pub use trainer::{Trained, TrainingData, train};
pub use wording::request;
