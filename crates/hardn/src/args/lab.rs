//! The small world.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Clone)]
pub(crate) struct WorldArgs {
    /// Seed of the generator
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A file of further idioms, names and wordings (see examples/idioms.toml)
    #[arg(long)]
    pub(crate) idioms: Option<PathBuf>,
    /// Real code to mix into the pretraining text
    #[arg(long)]
    pub(crate) extra: Option<PathBuf>,
    /// Pretraining documents
    #[arg(long)]
    pub(crate) documents: Option<usize>,
    /// Fix pairs for training
    #[arg(long)]
    pub(crate) pairs: Option<usize>,
}

#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Writes a world: pretraining text, fix pairs, utility rows, scenarios and tasks
    #[command(
        after_help = "Example:\n  hardn lab generate --seed 7 --idioms my-idioms.toml --out world\n  hardn demo --world world"
    )]
    Generate {
        #[command(flatten)]
        world: WorldArgs,
        /// The folder to write
        #[arg(long, default_value = "world")]
        out: PathBuf,
        /// The manifest as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Runs every idiom's function test and attack, and says what fails
    Check {
        /// Only this theme, such as python/cwe-089-sql
        #[arg(long)]
        theme: Option<String>,
        /// A file of further idioms
        #[arg(long)]
        idioms: Option<PathBuf>,
        /// Programs drawn per operation, setting and idiom
        #[arg(short, default_value_t = 1)]
        n: usize,
    },
    /// Trains a tokenizer and a model from nothing
    #[command(
        after_help = "Example:\n  hardn lab pretrain --recipe pretrain-lab-1m --out lab/lab-1m\n\n\
        Killed at any moment, the same command goes on where it stopped."
    )]
    Pretrain {
        /// pretrain-lab-1m, pretrain-lab-4m or a TOML file
        #[arg(long)]
        recipe: String,
        #[command(flatten)]
        world: WorldArgs,
        /// Where the model goes
        #[arg(long)]
        out: PathBuf,
        /// Override a key of the recipe, as KEY=VALUE; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Writes a wider model that computes the same, to measure decoding with a large base
    #[command(
        after_help = "Example:\n  hardn lab widen --model lab-4m --times 3 --out lab-4m-x3      33 M parameters"
    )]
    Widen {
        /// A shipped lab model or a checkpoint folder, of the Llama, Mistral or Qwen2 family
        #[arg(long)]
        model: String,
        /// How many copies of every unit; weights grow with its square
        #[arg(long)]
        times: usize,
        /// The folder to write
        #[arg(long)]
        out: PathBuf,
    },
    /// The lab card: what is in the world, leaks, agreement of the oracle with the ground truth
    Card {
        #[command(flatten)]
        world: WorldArgs,
        /// One JSON object instead of Markdown
        #[arg(long)]
        json: bool,
    },
}
