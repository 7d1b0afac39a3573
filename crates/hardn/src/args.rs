//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use hardn_models::{BaseWeights, WeightFormat};

use crate::oracles::OracleArgs;

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

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ScanFormat {
    /// For people
    Text,
    /// JSON Lines
    Json,
    /// SARIF 2.1.0
    Sarif,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ScanMode {
    /// Only remote sources taint: whole programs
    Faithful,
    /// Parameters and unknown values taint too: bare functions
    Snippet,
}

/// What makes the exit status 1.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Nothing
    Never,
    /// Findings
    Findings,
    /// Findings, and files that could not be analysed
    NotAnalysed,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn scan src/ tools/fetch.py\n  hardn scan --json --mode faithful app.py\n  \
    hardn scan --sarif --output findings.sarif .\n  hardn scan --cwe 89,78 --rule 'python/*' --exclude 'tests/' .\n  \
    hardn scan --write-baseline known.json .   and from then on   hardn scan --baseline known.json .\n  \
    cat f.py | hardn scan - --language python\n  \
    hardn scan --oracle builtin,bandit,semgrep --semgrep-config rules/ --combine majority src/\n\n\
    In folders, what .gitignore, .ignore and .hardnignore name is left out, and so are hidden files.\n\n\
    A comment on the line, or on a line of its own above it, suppresses a finding; it must say why:\n  \
    # hardn: ignore[cwe-089] reason=\"the table name is a constant\" until=2027-01-31\n\n\
    Exit status: 0 nothing found, 1 findings (see --fail-on), 2 bad input or an error, 130 interrupted."
)]
pub(crate) struct ScanArgs {
    /// Files, folders, or - for standard input
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ScanFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Short for --format sarif
    #[arg(long, conflicts_with_all = ["format", "json"])]
    pub(crate) sarif: bool,
    /// Write the result to this file; a failure leaves the old one
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Which values are taken to be an attacker's
    #[arg(long, value_enum, default_value = "snippet")]
    pub(crate) mode: ScanMode,
    /// The language of standard input, and of files whose extension says none
    #[arg(long)]
    pub(crate) language: Option<hardn_types::Language>,
    /// The name standard input goes by
    #[arg(long, value_name = "NAME")]
    pub(crate) stdin_path: Option<String>,
    /// A folder of rules instead of the shipped ones
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Model rows to add to the rules: YAML files, or folders of them (see `hardn rules models`)
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) models: Vec<PathBuf>,
    /// Only findings of these classes, such as 89,78
    #[arg(long, value_delimiter = ',', value_name = "CWE")]
    pub(crate) cwe: Vec<hardn_types::Cwe>,
    /// Only findings of these rules; * is any run of characters
    #[arg(long = "rule", value_name = "GLOB")]
    pub(crate) rule: Vec<String>,
    /// Leave out what matches, as a line of .gitignore would; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Scan what ignore files name, and folders such as node_modules
    #[arg(long)]
    pub(crate) no_ignore: bool,
    /// Scan hidden files and folders
    #[arg(long)]
    pub(crate) hidden: bool,
    /// Larger files are not analysed
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub(crate) max_bytes: u64,
    /// Do not report findings that this file holds
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Write every finding to this file, and exit with 0
    #[arg(long, value_name = "FILE")]
    pub(crate) write_baseline: Option<PathBuf>,
    /// Report what comments suppress
    #[arg(long, conflicts_with = "strict_suppressions")]
    pub(crate) no_suppressions: bool,
    /// Exit status 1 for suppressions that are expired, give no reason or suppress nothing
    #[arg(long)]
    pub(crate) strict_suppressions: bool,
    /// Where results are kept between runs, at most 256 MiB (default: hardn/scan in the user's cache folder)
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    pub(crate) cache: Option<PathBuf>,
    /// Analyse every file, and keep nothing
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// What makes the exit status 1
    #[arg(long, value_enum, default_value = "findings")]
    pub(crate) fail_on: FailOn,
    #[command(flatten)]
    pub(crate) oracle: OracleArgs,
}

#[derive(Subcommand)]
pub(crate) enum RulesCommand {
    /// Every rule, one per line
    #[command(after_help = "Example:\n  hardn rules list --language go --cwe 78,88")]
    List {
        /// Only rules that read this language
        #[arg(long)]
        language: Option<hardn_types::Language>,
        /// Only rules of these classes
        #[arg(long, value_delimiter = ',')]
        cwe: Vec<hardn_types::Cwe>,
        /// JSON Lines
        #[arg(long)]
        json: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// One rule: what it flags, how to fix it, its sinks and samples
    Show {
        /// The rule's id, such as python/cwe-089-sql-injection
        id: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// Runs every rule over its own `valid` and `invalid` samples
    Test {
        /// Only rules whose id contains this
        filter: Option<String>,
        /// One JSON object per sample that came out wrong, and one for all
        #[arg(long)]
        json: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// Writes a rule file to be filled in; `rules test` fails until it is
    #[command(after_help = "Examples:\n  hardn rules new python CWE-089 report-query\n  \
        hardn rules new go 78 unsafe-shell --kind pattern --rules my-rules\n\n\
        rules/README.md says what every key means.")]
    New {
        /// The language of the code it reads
        language: hardn_types::Language,
        /// The class
        cwe: hardn_types::Cwe,
        /// What it flags, in lower-case words joined by dashes
        slug: String,
        /// From sources to sinks, or wrong wherever it stands
        #[arg(long, value_enum, default_value = "flow")]
        kind: NewRuleKind,
        /// The folder of rules
        #[arg(long, default_value = "rules")]
        rules: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// The rules against the CWE Top 25 and the OWASP Top 10, with what is uncovered
    #[command(
        after_help = "Examples:\n  hardn rules coverage\n  hardn rules coverage --markdown > coverage.md"
    )]
    Coverage {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Tables in Markdown
        #[arg(long, conflicts_with = "json")]
        markdown: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// What is understood of model rows (CodeQL's data extensions), and what is not and why
    #[command(
        after_help = "Example:\n  hardn rules models acme.model.yml   and then   hardn scan --models acme.model.yml src/"
    )]
    Models {
        /// YAML files, or folders of them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// The oracle card: agreement with a labelled corpus, per class and language, and where the oracle is blind
    #[command(
        after_help = "Example:\n  hardn rules card --corpus corpus/ --out docs/oracle-card.md\n\n\
        The corpus is a folder of *.jsonl.gz files; docs/oracle-card.md says how its units are counted."
    )]
    Card {
        /// A folder of *.jsonl.gz files
        #[arg(long, value_name = "DIR")]
        corpus: PathBuf,
        /// The file to write; the numbers go beside it as .json
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// One JSON object on standard output instead of Markdown
        #[arg(long)]
        json: bool,
        /// A folder of rules instead of the shipped ones
        #[arg(long)]
        rules: Option<PathBuf>,
    },
}

/// The kinds of rules that a template is written for.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum NewRuleKind {
    /// From sources to sinks
    Flow,
    /// Wrong wherever it stands
    Pattern,
}

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

#[derive(Args)]
#[command(
    after_help = "Examples:\n  hardn complete --model lab-1m --prompt-file prompt.py -n 3\n  \
    echo 'def add(a, b):' | hardn complete --model lab-1m --json --seed 7\n  \
    hardn complete --model DIR --adapter runs/demo/training/hardened/adapter --decoder plain --set temperature=0.2 --prompt-file p.py"
)]
pub(crate) struct CompleteArgs {
    /// The prompt; or use --prompt-file
    #[arg(conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// A file with the prompt, or - for standard input
    #[arg(long)]
    pub(crate) prompt_file: Option<PathBuf>,
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long)]
    pub(crate) model: String,
    /// An adapter folder in PEFT layout, or its hub name
    #[arg(long)]
    pub(crate) adapter: Option<PathBuf>,
    /// How weights are kept while decoding: f32, bf16, f16 or int8; sums are in f32 in any case
    #[arg(long, default_value = "f32", value_parser = weight_format)]
    pub(crate) dtype: WeightFormat,
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

#[derive(Subcommand)]
pub(crate) enum InspectCommand {
    /// Logits of every position
    Logits {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// Token ids, comma-separated
        #[arg(long, value_delimiter = ',', required = true)]
        ids: Vec<u32>,
        /// How weights are kept: f32, bf16, f16, int8, or stored (as a GGUF file has them)
        #[arg(long, default_value = "f32")]
        dtype: BaseWeights,
    },
    /// Token ids and their code-point offsets
    Tokens {
        /// A shipped lab model, a folder with a tokenizer, or a hub name (owner/name or owner/name@revision)
        #[arg(long, alias = "tokenizer")]
        model: String,
        /// The text, or - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// A conversation as the model's chat template writes it, and its token ids
    Chat {
        /// A folder with a tokenizer and a chat template
        #[arg(long, alias = "tokenizer")]
        model: String,
        /// The template's name, where there are several
        #[arg(long)]
        template: Option<String>,
        /// A JSON list of tools
        #[arg(long)]
        tools: Option<PathBuf>,
        /// End with the beginning of an answer
        #[arg(long)]
        add_generation_prompt: bool,
        /// End inside the last message
        #[arg(long, conflicts_with = "add_generation_prompt")]
        continue_final_message: bool,
        /// A JSON list of messages with `role` and `content`, or - for standard input
        #[arg(default_value = "-")]
        messages: PathBuf,
    },
    /// Token masks of fix pairs
    Masks {
        /// A folder with tokenizer.json
        #[arg(long, alias = "model")]
        tokenizer: String,
        /// mix, char, line, ndiff, difflib or whole
        #[arg(long)]
        kind: String,
        /// Longest sample kept, in tokens
        #[arg(long, default_value_t = 1024)]
        max_tokens: usize,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// Loss terms of fix pairs under a recipe
    ///
    /// One line per side: `terms` of that side, reduced but not weighted, `loss`, the weighted sum, `n_tokens`. A loss that
    /// takes both sides together (`dpo`, `simpo`) is the pair's: its term, `margin` and `loss` stand on both lines.
    Loss {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name; for a loss with an adapter for each side, a folder that
        /// holds `secure` and `vulnerable`
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// What divergences and `dpo` are measured from, as --model; without it the model without its adapter
        #[arg(long)]
        reference: Option<String>,
        /// A shipped recipe's name or a TOML file
        #[arg(long)]
        recipe: String,
        /// Override a key of the recipe, as KEY=VALUE; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// The tokens of a training step, marked by what the loss does with them
    ///
    /// With --json, one line per sample: `id`, `kind`, where it lies (`micro_batch`, `row`, `start`), counts, `ids`, and for
    /// each token its text and `context`, `utility`, `secure`, `vulnerable` or `kl`. Kept and dropped examples are counted
    /// on standard error.
    Batch(InspectBatchArgs),
    /// How likely the changed tokens are on both sides of fix pairs
    Preference {
        /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
        #[arg(long)]
        model: String,
        /// An adapter folder in PEFT layout, or its hub name
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// Fix pairs, JSON Lines
        pairs: PathBuf,
    },
    /// A statistical test on numbers given as JSON
    #[command(after_help = "Examples:\n  hardn inspect stats --test fisher '[[8,2],[1,5]]'\n  \
        hardn inspect stats --test wilson '{\"successes\":8,\"n\":10}'\n  \
        hardn inspect stats --test pass-at-k '{\"n\":10,\"c\":3,\"k\":1}'")]
    Stats {
        /// fisher, cmh, wilson, kappa, holm, bh or pass-at-k
        #[arg(long)]
        test: String,
        /// The numbers
        json: String,
    },
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  hardn inspect batch --model lab-1m --recipe safecoder-lab --step 3 pairs.jsonl --utility utility.jsonl"
)]
pub(crate) struct InspectBatchArgs {
    /// A shipped lab model, a checkpoint folder, or a hub name (owner/name or owner/name@revision)
    #[arg(long, alias = "tokenizer")]
    pub(crate) model: String,
    /// A shipped recipe's name or a TOML file
    #[arg(long)]
    pub(crate) recipe: String,
    /// Override a key of the recipe, as KEY=VALUE; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Fix pairs
    pub(crate) pairs: PathBuf,
    /// Utility rows; may be repeated
    #[arg(long)]
    pub(crate) utility: Vec<PathBuf>,
    /// Which step, from 1
    #[arg(long, default_value_t = 1)]
    pub(crate) step: usize,
    /// JSON Lines, one per sample
    #[arg(long)]
    pub(crate) json: bool,
}

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
    /// The lab card: what is in the world, leaks, agreement of the oracle with the ground truth
    Card {
        #[command(flatten)]
        world: WorldArgs,
        /// One JSON object instead of Markdown
        #[arg(long)]
        json: bool,
    },
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
    /// Only these: lora-step, train-step, decode, sampling, scan
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Steps timed of each
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
    /// One side of `train-step`, told what to do on standard input
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
}

fn weight_format(name: &str) -> Result<WeightFormat, String> {
    Ok(match name {
        "f32" => WeightFormat::F32,
        "bf16" => WeightFormat::Bf16,
        "f16" => WeightFormat::F16,
        "int8" => WeightFormat::Int8,
        _ => return Err("expected f32, bf16, f16 or int8".to_owned()),
    })
}
