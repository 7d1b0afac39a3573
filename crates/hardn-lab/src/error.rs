//! What can go wrong in the lab.

use std::path::PathBuf;

use hardn_types::JsonlError;

/// A result of the lab.
pub type Result<T> = std::result::Result<T, LabError>;

/// What can go wrong in the lab.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LabError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{file} is not what it should be: {source}")]
    Toml { file: String, source: Box<toml::de::Error> },
    #[error("{file}, key `{key}`: {problem}")]
    Key { file: String, key: String, problem: String },
    #[error("{theme}, key `{key}`: {problem}")]
    Template { theme: String, key: String, problem: String },
    #[error("there is no theme `{given}`; there are {known}")]
    UnknownTheme { given: String, known: String },
    #[error("{} holds no theme; a theme is a TOML file such as python/cwe-089-sql.toml", path.display())]
    NoThemes { path: PathBuf },
    #[error(transparent)]
    Jsonl(#[from] JsonlError),
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

impl LabError {
    pub(crate) fn key(file: &str, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key { file: file.to_owned(), key: key.into(), problem: problem.into() }
    }
}
