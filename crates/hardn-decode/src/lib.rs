//! Completing prompts with a model of this machine: sampling, stopping, batching.
//!
//! A sample depends on the model, the prompt, the decoder, the seed and its number, and on nothing else: not on what
//! shares its batch, the order of the work, the number of threads or an interruption.

mod complete;
mod constraint;
mod decoder;
mod engine;
mod error;
mod function_end;
mod generator;
mod model;
mod pace;
mod repair;
mod rng;
mod sampler;
mod sequence;
mod stop;
mod two_step;

pub use complete::{Completion, Piece, Token, complete, stream};
pub use constraint::{AllowedTokens, Constraint, ConstraintConfig, ConstraintState};
pub use decoder::{CoDecoding, DecoderConfig, DraftLength, Law, LongPrompt, Preset};
pub use error::{DecodeError, Result};
pub use function_end::{FunctionEnd, StopRule};
pub use generator::LocalGenerator;
pub use model::{LanguageModel, LocalModel, Memory, Row};
pub use repair::{Back, By, Inspector, RepairConfig};
pub use rng::{Draws, Phase, Role, arm_seed, prompt_hash};
pub use sampler::{Sampling, distribution, draw, log_prob};
pub use sequence::{Author, Vocabulary};
pub use stop::{Stops, TextStream};
pub use two_step::{Form, Per, TwoStep, Unused};
