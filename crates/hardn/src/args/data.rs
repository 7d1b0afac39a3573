//! Making data.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hardn_models::{BaseWeights, WeightFormat};

use super::model::weight_format;

#[derive(Subcommand)]
pub(crate) enum DataCommand {
    /// A utility set of the model's own answers to tasks, kept where their tests pass
    Utility(DataUtilityArgs),
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  hardn data utility --model path/to/checkpoint --tasks HumanEval.jsonl.gz -n 10 --out utility.jsonl\n\n\
    A task is a row with `id`, `prompt`, `tests` and, where wanted, `language`, `instruction`, `stop` (texts that end an answer)\n\
    and `cut`; rows of HumanEval, MBPP and scenarios are read as published. Killed at any moment, the same command goes on."
)]
pub(crate) struct DataUtilityArgs {
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long)]
    pub(crate) model: String,
    /// Tasks with tests; may be repeated
    #[arg(long, required = true)]
    pub(crate) tasks: Vec<PathBuf>,
    /// Where the utility rows go; all answers and their verdicts go beside it
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Answers drawn per task
    #[arg(short = 'n', default_value_t = 10)]
    pub(crate) n: u32,
    /// Answers kept per task, at most; 0: all that differ
    #[arg(long, default_value_t = 0)]
    pub(crate) keep: usize,
    /// A shipped decoder's name or a TOML file
    #[arg(long, default_value = "plain")]
    pub(crate) decoder: String,
    /// Override a key of the decoder, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of the draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How weights are kept while they are read: f32, bf16, f16, int8, or stored (as a GGUF file has them)
    #[arg(long, default_value = "f32")]
    pub(crate) base_weights: BaseWeights,
    /// How weights are kept for generation: f32, bf16, f16 or int8
    #[arg(long, default_value = "f32", value_parser = weight_format)]
    pub(crate) dtype: WeightFormat,
    /// The counts as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
