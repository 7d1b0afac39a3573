//! Losses, masks, data mix and the training loop.

mod batch;
mod checkpoint;
mod controls;
mod error;
mod events;
mod example;
mod identity;
mod inspect;
mod loss;
mod mix;
mod objective;
mod optimizer;
mod pretrain;
mod recipe;
mod rng;
mod run_loop;
mod schedule;
mod stepper;
mod template;
mod tensorboard;
#[cfg(test)]
mod testing;
mod trainer;

pub use batch::{Example, ExampleKind};
pub use controls::shuffle_labels;
pub use error::{Result, TrainError};
pub use events::{Event, read_events};
pub use example::{Counts, ExampleBuilder, PairExamples, UtilityItem, read_utility};
pub use inspect::{PairLoss, Preference, pair_examples, pair_loss, preference};
pub use loss::{KlDirection, MIN_COMPLEMENT, Term, kl_divergence, token_loss};
pub use optimizer::{AdamWConfig, Decays, MuonConfig};
pub use pretrain::{ModelShape, PretrainRecipe, TokenizedDocuments, pretrain, read_documents};
pub use recipe::{
    AdapterRecipe, BestBy, ClipPer, DataRecipe, Format, LoopRecipe, LossKind, LossRecipe,
    LossWeights, OptimizerRecipe, OversamplingBy, OversamplingMode, OversamplingRecipe,
    OversamplingUnit, Pairing, Precision, Recipe, Reduction, UtilityLoss,
};
pub use run_loop::{Ended, Outcome, Progress, StepUpdate};
pub use schedule::{Schedule, ScheduleKind, WarmupStart};
pub use stepper::Stepper;
pub use template::InstructionTemplate;
pub use trainer::{Trained, TrainingData, train};
