//! What can go wrong while reading or checking code.

use std::path::PathBuf;

use hardn_types::Language;

/// A file, program or setting this crate could not work with.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CodeError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no .jsonl or .jsonl.gz file; name a pair file or a folder of them", path.display())]
    NoPairFiles { path: PathBuf },
    #[error("{} holds no scenario (a folder with info.json, file_context and func_context)", path.display())]
    NoScenarios { path: PathBuf },
    #[error(transparent)]
    Row(#[from] RowError),
    #[error("{}: {why}", path.display())]
    Scenario { path: PathBuf, why: String },
    #[error(
        "cannot run `{program}`, which checks {language} programs: {why}; install it or put it on PATH"
    )]
    CheckerMissing { program: String, language: Language, why: String },
    #[error("hardn has no validity check for {0}; it checks python, c and cpp")]
    Unchecked(Language),
    #[error("the parser of {0} does not fit the version of tree-sitter that hardn was built with")]
    NoParser(Language),
    #[error("`{0}` is not a mask kind; use mix, char, line, ndiff, difflib or whole")]
    MaskKind(String),
    #[error("pair `{id}`: {n_ids} token ids but {n_offsets} offsets for the {side} side")]
    TokenText { id: String, side: &'static str, n_ids: usize, n_offsets: usize },
}

/// A row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} line {line}: {why}", path.display())]
pub struct RowError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it and what would be right.
    pub why: String,
}
