//! Models: training, fetching, completing, exporting.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use hardn_models::{BaseWeights, WeightFormat};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn train safecoder-lab --model lab-1m --world --out runs/adapter\n  \
    hardn train safecoder --model owner/name --pairs data_train_val/train --validation-pairs data_train_val/val \\\n    \
    --utility utility.jsonl --out runs/adapter --dry-run\n  \
    hardn train safecoder-lab --model lab-1m --world --set training.best_by=secure_pass --set training.keep_best=true \\\n    \
    --set training.patience=3 --out runs/best\n\n\
    Killed at any moment, the same command goes on where it stopped. tensorboard --logdir runs shows the curves."
)]
pub(crate) struct TrainArgs {
    /// A shipped recipe's name or a TOML file
    pub(crate) recipe: String,
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long)]
    pub(crate) model: String,
    /// Fix pairs: files or folders, of JSON Lines or as published
    #[arg(long, num_args = 1.., required_unless_present = "world")]
    pub(crate) pairs: Vec<PathBuf>,
    /// Fix pairs for validation
    #[arg(long, num_args = 1..)]
    pub(crate) validation_pairs: Vec<PathBuf>,
    /// Utility rows (prompt, completion, instruction)
    #[arg(long, num_args = 1..)]
    pub(crate) utility: Vec<PathBuf>,
    /// The lab's pairs and utility rows: of a folder that `hardn lab generate` wrote, or generated
    #[arg(long, num_args = 0..=1, value_name = "DIR")]
    #[expect(clippy::option_option, reason = "how clap takes an option with or without a value")]
    pub(crate) world: Option<Option<PathBuf>>,
    /// Seed of the lab's generator
    #[arg(long, default_value_t = 1)]
    pub(crate) world_seed: u64,
    /// A file of further idioms, names and wordings for the lab
    #[arg(long)]
    pub(crate) idioms: Option<PathBuf>,
    /// Scenarios and tasks to sample the model on at every validation; only rows of the split `val` are used
    #[arg(long, num_args = 1..)]
    pub(crate) validation_suite: Vec<PathBuf>,
    /// Security scenarios, and utility tasks, taken of them at most (default: 40)
    #[arg(long)]
    pub(crate) validation_scenarios: Option<usize>,
    /// Samples drawn of each (default: 1)
    #[arg(long)]
    pub(crate) validation_samples: Option<u32>,
    /// Override a key of the recipe, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// How the base's weights are kept (default: as `training.precision` says): f32; under a trained adapter also bf16,
    /// f16, int8, or stored (as a GGUF file has them)
    #[arg(long)]
    pub(crate) base_weights: Option<BaseWeights>,
    /// Where checkpoints and the result go
    #[arg(long, required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// Go on from the last checkpoint; an error where there is none
    #[arg(long, conflicts_with_all = ["fresh", "dry_run"])]
    pub(crate) resume: bool,
    /// Throw away the training in the folder and begin anew
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) fresh: bool,
    /// Count examples, steps and tokens, measure time and memory of a step, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The summary as JSON on standard output when done
    #[arg(long)]
    pub(crate) json: bool,
}

/// The files of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A folder as transformers and hardn load it
    Safetensors,
    /// One file, model.gguf, as llama.cpp loads it
    Gguf,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    hardn export lab-1m --adapter runs/demo/training/hardened/adapter --out hardened --verify\n  \
    hardn export owner/name --adapter a --format gguf --dtype q8_0 --out hardened-gguf --verify\n  \
    hardn export owner/name --adapter a --adapter-only --out a-copy")]
pub(crate) struct ExportArgs {
    /// A shipped lab model, a checkpoint folder, a GGUF file, or a hub name (owner/name or owner/name@revision)
    pub(crate) model: String,
    /// An adapter folder in PEFT layout, or its hub name; LoRA and IA3 are worked into the weights
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// The folder to write; it is there whole or not at all
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Which files
    #[arg(long, value_enum, default_value_t = ExportFormat::Safetensors)]
    pub(crate) format: ExportFormat,
    /// Numbers: f32, bf16, f16; in GGUF also q8_0, q6_k, q5_k, q4_k, q4_0
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    /// GGUF without a tokenizer in it; its files are copied beside, where hardn finds them
    #[arg(long)]
    pub(crate) tokenizer_beside: bool,
    /// Read it back and compare logits with those of the model and its adapter; fail if they differ
    #[arg(long)]
    pub(crate) verify: bool,
    /// Write the adapter alone, in PEFT layout
    #[arg(long, requires = "adapter")]
    pub(crate) adapter_only: bool,
    /// Replace an earlier export
    #[arg(long)]
    pub(crate) force: bool,
}

/// The models of a decoder.
#[derive(Args)]
pub(crate) struct DecodingModels {
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long)]
    pub(crate) model: String,
    /// An adapter folder in PEFT layout, or its hub name
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// The security model of co-decoding: smaller, with the same tokenizer
    #[arg(long, value_name = "MODEL")]
    pub(crate) security_model: Option<String>,
    /// An adapter on the security model; without --security-model, on the model itself, whose weights then serve both
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) security_adapter: Option<PathBuf>,
    /// How weights are kept while decoding: f32, bf16, f16 or int8; sums are in f32 in any case
    #[arg(long, default_value = "f32", value_parser = weight_format)]
    pub(crate) dtype: WeightFormat,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn complete --model lab-1m --prompt-file prompt.py -n 3\n  \
    echo 'def add(a, b):' | hardn complete --model lab-1m --json --seed 7\n  \
    hardn complete --model DIR --adapter runs/demo/training/hardened/adapter --decoder plain --set temperature=0.2 --prompt-file p.py\n  \
    hardn complete --model lab-4m --security-model lab-1m --security-adapter DIR --decoder co-decoding --set threshold=.3 --prompt-file p.py"
)]
pub(crate) struct CompleteArgs {
    /// The prompt; or use --prompt-file
    #[arg(conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt, or - for standard input
    #[arg(long)]
    pub(crate) prompt_file: Option<PathBuf>,
    /// A file with what comes after the gap that is filled, for models with fill-in-the-middle tokens
    #[arg(long)]
    pub(crate) suffix_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) models: DecodingModels,
    /// A shipped decoder's name or a TOML file
    #[arg(long, default_value = "plain")]
    pub(crate) decoder: String,
    /// Override a key of the decoder, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many samples
    #[arg(short, default_value_t = 1)]
    pub(crate) n: u32,
    /// A list of packages that exist, one name a line, beside those hardn knows; for decoders that write imports first
    #[arg(long, value_name = "FILE")]
    pub(crate) packages: Option<PathBuf>,
    /// What the prompt is written in, for decoders that repair or write imports first; default: by the prompt file's extension
    #[arg(long)]
    pub(crate) language: Option<hardn_types::Language>,
    /// With --json: a field "trace" with every token, who chose it and its log-probability
    #[arg(long, requires = "json")]
    pub(crate) trace: bool,
    /// Whether tokens the security model chose are coloured
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: clap::ColorChoice,
    /// JSON Lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum FetchCommand {
    /// A model, or an adapter, by its hub name
    Model(FetchModelArgs),
}

#[derive(Args)]
#[command(after_help = "Examples:\n  hardn fetch model bigcode/starcoder2-3b\n  \
    hardn fetch model Qwen/Qwen2.5-Coder-0.5B --revision v1.0 --out models/qwen\n  \
    hardn fetch model owner/name:FILE.gguf       one file of a repository\n  \
    hardn complete --model owner/name \"def add(\"    fetches what is not there yet\n\n\
    Killed at any moment, the same command goes on where it stopped.\n\
    The cache is the one Python's tools use: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub.\n\
    HF_ENDPOINT names another hub, HF_TOKEN opens private and gated repositories,\n\
    HF_HUB_OFFLINE=1 asks no hub. Code of a repository is never fetched.")]
pub(crate) struct FetchModelArgs {
    /// owner/name, owner/name@revision or owner/name:FILE
    pub(crate) name: String,
    /// A branch, a tag or a commit; a full commit hash pins the files for ever
    #[arg(long)]
    pub(crate) revision: Option<String>,
    /// Copy the files to this folder as well
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// One JSON object: pinned name, commit, path, files
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) fn weight_format(name: &str) -> Result<WeightFormat, String> {
    Ok(match name {
        "f32" => WeightFormat::F32,
        "bf16" => WeightFormat::Bf16,
        "f16" => WeightFormat::F16,
        "int8" => WeightFormat::Int8,
        _ => return Err("expected f32, bf16, f16 or int8".to_owned()),
    })
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn decode-bench --model BASE --security-model lab-4m --security-adapter DIR\n  \
    hardn decode-bench --model BASE --security-model lab-4m --security-adapter DIR --peer-python .venv/bin/python\n  \
    hardn decode-bench --model lab-4m --security-adapter DIR --verify --prompts 100 --drafts 2,4,8,16,adaptive"
)]
pub(crate) struct DecodeBenchArgs {
    #[command(flatten)]
    pub(crate) models: DecodingModels,
    /// A decoder with a section `co_decoding`: a shipped one's name or a TOML file
    #[arg(long, default_value = "co-decoding")]
    pub(crate) decoder: String,
    /// Override a key of the decoder, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Draft lengths beside step by step: numbers from 1 to 16, or adaptive
    #[arg(long, value_delimiter = ',', default_value = "2,4,8,adaptive")]
    pub(crate) drafts: Vec<String>,
    /// How many of the lab's scenarios are completed
    #[arg(long, default_value_t = 16)]
    pub(crate) prompts: usize,
    /// A file to complete instead; may be repeated
    #[arg(long)]
    pub(crate) prompt_file: Vec<PathBuf>,
    /// Samples of each
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) samples: u32,
    /// Texts drawn side by side
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Runs of each way
    #[arg(long, default_value_t = 3)]
    pub(crate) turns: usize,
    /// A Python with torch, transformers and peft: the released loop runs in turns with us
    #[arg(long)]
    pub(crate) peer_python: Option<PathBuf>,
    /// Only hold all draft lengths against step by step; exit status 1 where a sample differs
    #[arg(long)]
    pub(crate) verify: bool,
    /// Seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Write the tables to this file
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
