//! What can go wrong outside the analysed code, which is never an error but `not_analysed`.

use std::path::PathBuf;

/// Errors of rule files and of reading and writing.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// A rule file is not what it should be.
    #[error("rule file `{file}`: {message}")]
    Rule {
        /// The rule's path under `rules/`.
        file: String,
        /// What is wrong, with key and line where known.
        message: String,
    },
    /// No rule has this id.
    #[error("no rule has the id `{id}`; `hardn rules list` shows every id{}", nearest.as_ref().map(|id| format!(" (did you mean `{id}`?)")).unwrap_or_default())]
    NoSuchRule {
        /// The id asked for.
        id: String,
        /// The id most like it.
        nearest: Option<String>,
    },
    /// A file or folder could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A saved log is no SARIF.
    #[error("`{}`: {message}", path.display())]
    Sarif {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// No engine has this name.
    #[error(
        "no engine is called `{id}`; there are builtin, bandit, clang-tidy, codeql, cppcheck, eslint, flawfinder, semgrep, and sarif:FILE"
    )]
    NoSuchEngine {
        /// The name asked for.
        id: String,
    },
    /// A glob is none.
    #[error("`{glob}` is no glob: {message}")]
    Glob {
        /// As it was given.
        glob: String,
        /// What is wrong.
        message: String,
    },
    /// A baseline is not what it should be.
    #[error("`{}` is no baseline: {message}; `hardn scan --write-baseline FILE` writes one", path.display())]
    Baseline {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the place.
        message: String,
    },
    /// A labelled corpus is not what it should be.
    #[error("`{}` line {line}: not a labelled record: {message}", path.display())]
    Corpus {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Write(#[from] std::io::Error),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] hardn_types::JsonlError),
    /// The report could not be put into JSON.
    #[error("cannot write the report as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, OracleError>;
