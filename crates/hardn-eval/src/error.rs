//! What can go wrong while samples are kept, judged and counted.

use std::path::PathBuf;

use hardn_types::{BoxError, Language};

/// Why an evaluation could not be made. A completion that fails is a verdict, never an error.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EvalError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process; wait for it, or name another run folder", path.display())]
    InUse { path: PathBuf },
    #[error("{} line {line}: {source}; take the line out, or start in a new run folder", path.display())]
    Row { path: PathBuf, line: usize, source: serde_json::Error },
    #[error(transparent)]
    Jsonl(#[from] hardn_types::JsonlError),
    #[error(transparent)]
    Code(#[from] hardn_code::CodeError),
    #[error(transparent)]
    Sandbox(#[from] hardn_sandbox::SandboxError),
    #[error("the suite has two scenarios with the id `{id}`")]
    SameId { id: String },
    #[error("sample {index} of arm `{arm}` is for `{task}`, which the suite does not have")]
    UnknownTask { arm: String, task: String, index: u32 },
    #[error(
        "scenario `{id}` is in {language}, which hardn cannot check; leave it out of the suite"
    )]
    UncheckedLanguage { id: String, language: Language },
    #[error(
        "`{name}` is not a statistical test; use fisher, cmh, wilson, kappa, holm, benjamini-hochberg or pass-at-k"
    )]
    UnknownTest { name: String },
    #[error("{test}: {why}")]
    TestInput { test: &'static str, why: String },
    #[error("the caller could not take a result: {0}")]
    Callback(BoxError),
}

/// The result of anything in this crate.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;
