//! Code and the rules that judge it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::oracles::OracleArgs;

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
