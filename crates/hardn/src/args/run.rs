//! Runs: training and evaluating, from a file or a preset.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn demo\n  hardn demo --model path/to/checkpoint --out runs/mine\n  \
    hardn demo --seed 7 --world-seed 99 --idioms my-idioms.toml     a world nobody tuned to\n\n\
    Killed at any moment, the same command goes on where it stopped."
)]
pub(crate) struct DemoArgs {
    /// A shipped lab model (lab-1m, lab-4m), a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Where the run folder goes
    #[arg(long, default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    /// Seed of training and sampling
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Seed of the lab's generator
    #[arg(long, default_value_t = 1)]
    pub(crate) world_seed: u64,
    /// A file of further idioms, names and wordings for the lab
    #[arg(long)]
    pub(crate) idioms: Option<PathBuf>,
    /// A folder that `hardn lab generate` wrote, instead of generating a world
    #[arg(long, conflicts_with_all = ["world_seed", "idioms"])]
    pub(crate) world: Option<PathBuf>,
    /// Samples drawn per scenario and task
    #[arg(long, short = 'n')]
    pub(crate) samples: Option<u32>,
    /// Throw away what an earlier run left in the folder
    #[arg(long)]
    pub(crate) fresh: bool,
    /// The metrics as JSON on standard output when done
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `hardn harden` and `hardn improve` take.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// The run's configuration
    pub(crate) config: PathBuf,
    /// Where the run folder goes (default: `out` of the configuration, else runs/NAME)
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Override a key of the configuration, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Throw away what an earlier run left in the folder
    #[arg(long)]
    pub(crate) fresh: bool,
    /// The folder of a finished run: its samples and verdicts are taken where they would come out the same here
    #[arg(long, value_name = "RUN")]
    pub(crate) reuse: Option<PathBuf>,
    /// What came out as JSON on standard output when done
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    pub(crate) stop_at_eof: bool,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn sweep sweep.toml --dry-run\n  hardn sweep sweep.toml --jobs 2\n  \
    hardn sweep sweep.toml --set seeds=[1,2] --out runs/short\n\n\
    A sweep file:\n  \
    seeds = [1, 2, 3, 4, 5]\n  \
    [run]                                  # the keys of a RUN.toml that all runs share\n  \
    model = \"lab-1m\"\n  \
    world = {}\n  \
    train.recipe = \"safecoder-lab\"\n  \
    [grid]                                 # every combination of these values of the recipe's keys\n  \
    \"optimizer.learning_rate\" = [1e-4, 3e-4]\n  \
    [[arms]]                               # or named settings, each with a recipe of its own\n  \
    name = \"no-unlikelihood\"\n  \
    set = { \"loss.weights.unlikelihood\" = 0 }\n\n\
    A key that begins with `run.` is one of RUN.toml, such as \"run.train.pairs\". Killed at any moment, the same command\n\
    goes on where it stopped. docs/training.md says more."
)]
pub(crate) struct SweepArgs {
    /// The sweep's configuration
    pub(crate) config: PathBuf,
    /// Where the runs and the tables go (default: `out` of the configuration, else runs/NAME)
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Override a key of the configuration, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Runs at a time, each with its share of the cores
    #[arg(long, short, default_value_t = 1)]
    pub(crate) jobs: usize,
    /// Throw away the runs in the folder that were made with other settings
    #[arg(long)]
    pub(crate) fresh: bool,
    /// List the runs and what is missing of them, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// What sweep.json holds, on standard output when done
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn eval --samples samples.jsonl --suite scenarios.jsonl --out runs/theirs\n  \
    hardn eval run.toml --out runs/base      the evaluation part of `hardn harden`, base model only\n\n\
    Rows of --samples: {\"task_id\", \"completion\" or \"solution\", \"sample\"?}"
)]
pub(crate) struct EvalArgs {
    /// A run's configuration; its training part is not used
    #[arg(required_unless_present = "samples", conflicts_with = "samples")]
    pub(crate) config: Option<PathBuf>,
    /// Samples made elsewhere, JSON Lines
    #[arg(long, requires = "suite")]
    pub(crate) samples: Option<PathBuf>,
    /// Scenarios: a JSON Lines file, a published folder, or `lab`
    #[arg(long)]
    pub(crate) suite: Option<String>,
    /// Only this split of the suite
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Where the run folder goes
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Override a key of the configuration, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Throw away what an earlier run left in the folder
    #[arg(long)]
    pub(crate) fresh: bool,
    /// The metrics as JSON on standard output when done
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// A run folder
    pub(crate) run: PathBuf,
    /// Samples of each scenario and arm kept in the browser
    #[arg(long, default_value_t = 4)]
    pub(crate) samples: usize,
}
