//! The command line.

mod data;
mod inspect;
mod lab;
mod model;
mod oracle;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    data::{DataCommand, DataUtilityArgs},
    inspect::{InspectBatchArgs, InspectCommand},
    lab::{LabCommand, WorldArgs},
    model::{
        CompleteArgs, DecodeBenchArgs, DecodingModels, ExportArgs, ExportFormat, FetchCommand,
        FetchModelArgs, TrainArgs,
    },
    oracle::{FailOn, NewRuleKind, RulesCommand, ScanArgs, ScanFormat, ScanMode},
    run::{DemoArgs, EvalArgs, ReportArgs, RunArgs, SweepArgs},
};

/// Makes code models write secure code, and proves it.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        hardn demo                         the whole story on a small model, in minutes\n  \
        hardn harden run.toml              train, evaluate before and after, report\n  \
        hardn scan src/                    look for weaknesses in code\n  \
        hardn doctor                       what this machine offers"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say less: no progress on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Where models are trained and scored: cpu, cuda or cuda:N. Text is generated on the CPU
    #[arg(long, global = true, default_value = "cpu")]
    pub(crate) device: String,

    /// Run programs even where the kernel has no Landlock to keep them from files
    #[arg(long, global = true)]
    pub(crate) allow_weaker_sandbox: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The whole story on the lab model: base, hardened, controls, report.html
    Demo(DemoArgs),
    /// Train, evaluate before and after, and report: the main job
    #[command(
        after_help = "Examples:\n  hardn harden examples/sven.toml\n  hardn harden run.toml --out runs/second --set train.set.training.epochs=2\n\n\
    Killed at any moment, the same command goes on where it stopped."
    )]
    Harden(RunArgs),
    /// Train a model on its own samples, as the oracle and tests judge them, and report
    #[command(after_help = "Examples:\n  hardn improve examples/improve-lab.toml\n  \
    hardn improve run.toml --out runs/one-round --set improve.rounds=1 --set improve.samples=16\n  \
    hardn improve run.toml --set improve.keep=secure        rejection sampling: no pairs\n\n\
    The configuration is that of `hardn harden` with [improve]:\n  \
    model = \"lab-1m\"\n  \
    world = {}\n  \
    train.recipe = \"lab/simpo\"          # how each round trains\n  \
    [improve]\n  \
    rounds = 2                         # of sampling, judging and training\n  \
    samples = 8                        # of each training scenario\n  \
    suites = [\"scenarios.jsonl\"]       # rows of the split `train`; without any, the lab's own\n  \
    judge = \"oracle\"                   # or \"attack\"; function tests always decide too\n  \
    keep = \"pairs\"                     # or \"secure\", or \"both\"\n  \
    from = \"base\"                      # or \"previous\": each round goes on from the one before\n\n\
    Killed at any moment, the same command goes on where it stopped. docs/training.md says more.")]
    Improve(RunArgs),
    /// Many runs from one file: lists of values and seeds, with mean and deviation in the end
    Sweep(SweepArgs),
    /// Look for weaknesses in code; exit status 1 where there are findings
    Scan(Box<ScanArgs>),
    /// The oracle's rules
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Train a model by a recipe
    Train(TrainArgs),
    /// Complete a prompt
    Complete(CompleteArgs),
    /// Judge samples: a model's, or samples made elsewhere
    Eval(EvalArgs),
    /// Fetch a model from the hub, to be used by its name
    Fetch {
        #[command(subcommand)]
        command: FetchCommand,
    },
    /// Write a model with its adapter worked in, as other tools load it
    Export(ExportArgs),
    /// Make report.html of a run folder again
    Report(ReportArgs),
    /// Look inside: logits, tokens, masks, losses, preference, statistics (JSON Lines)
    Inspect {
        #[command(subcommand)]
        command: InspectCommand,
    },
    /// Make what is trained on
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Run one program in the sandbox
    Sandbox(SandboxArgs),
    /// The lab: our own small world
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
    /// What this machine offers and what is missing
    Doctor {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Speed, side by side with the peer it names
    Bench(BenchArgs),
    /// Speed of co-decoding beside the bare model, and proof that drafts change nothing
    DecodeBench(DecodeBenchArgs),
    /// Shell completions
    #[command(
        after_help = "Example:\n  hardn completions bash > ~/.local/share/bash-completion/completions/hardn"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
#[command(after_help = "Example:\n  hardn sandbox --json --language python program.py")]
pub(crate) struct SandboxArgs {
    /// The program, or - for standard input
    pub(crate) file: PathBuf,
    /// Its language; default: by the file's extension
    #[arg(long)]
    pub(crate) language: Option<hardn_types::Language>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Limit on CPU time, in seconds
    #[arg(long, default_value_t = 5)]
    pub(crate) cpu_secs: u64,
    /// Limit on memory, in MiB
    #[arg(long, default_value_t = 512)]
    pub(crate) memory_mib: u64,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn bench --peer-python .venv/bin/python --write BENCHMARKS.md\n  hardn bench --only scan\n  \
    hardn bench --only decode --shape 17m --peer-python .venv/bin/python --peer-llama llama.cpp\n\n\
    scripts/peers.sh makes an environment with PyTorch, transformers and PEFT, and builds llama.cpp."
)]
pub(crate) struct BenchArgs {
    /// A Python with torch, transformers and peft: the peer runs in turns with us
    #[arg(long)]
    pub(crate) peer_python: Option<PathBuf>,
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long, default_value = "lab-4m")]
    pub(crate) model: String,
    /// A folder with `llama-batched-bench`: llama.cpp decodes in turns with us, models that --peer-python writes
    #[arg(long)]
    pub(crate) peer_llama: Option<PathBuf>,
    /// Only these: lora-step, train-step, safecoder-step, sven-step, decode, sampling, scan
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Steps timed of each, at most; methods and large models take fewer
    #[arg(long, default_value_t = 20)]
    pub(crate) steps: usize,
    /// Sizes that `decode` is measured of: 17m, 0.5b (default: both)
    #[arg(long, value_delimiter = ',')]
    pub(crate) shape: Vec<String>,
    /// Runs of `decode` on each side
    #[arg(long, default_value_t = 5)]
    pub(crate) turns: usize,
    /// A folder of code for `scan`; without it, the rules' own samples are scanned
    #[arg(long)]
    pub(crate) snippets: Option<PathBuf>,
    /// Write the table to this file
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,
    /// JSON Lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Our side of training steps, told what to do on standard input
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
}
