//! What can go wrong between a folder and logits.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// A checkpoint, tokenizer, adapter or input that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ModelError {
    #[error("cannot read {}: {message}", path.display())]
    Read { path: PathBuf, message: String },
    #[error("cannot write {}: {message}", path.display())]
    Write { path: PathBuf, message: String },
    #[error("{}, key `{key}`: {message}", path.display())]
    Config { path: PathBuf, key: String, message: String },
    #[error("{}, tensor `{name}`: {message}", path.display())]
    Tensor { path: PathBuf, name: String, message: String },
    #[error("tokenizer {}: {message}", path.display())]
    Tokenizer { path: PathBuf, message: String },
    #[error("adapter, key `{key}`: {message}")]
    Adapter { key: String, message: String },
    #[error("{0}")]
    Input(String),
    #[error(transparent)]
    Tensors(#[from] candle_core::Error),
}

impl ModelError {
    pub(crate) fn read(path: &Path, error: impl ToString) -> Self {
        Self::Read { path: path.to_owned(), message: error.to_string() }
    }

    pub(crate) fn write(path: &Path, error: impl ToString) -> Self {
        Self::Write { path: path.to_owned(), message: error.to_string() }
    }

    pub(crate) fn adapter(key: &str, message: impl Into<String>) -> Self {
        Self::Adapter { key: key.to_owned(), message: message.into() }
    }
}
