//! What can go wrong when a report is made.

use std::path::PathBuf;

use hardn_types::JsonlError;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The folder is no run, or the run has not got that far.
    #[error("{} has no `{file}`: is it a run folder, and has the run finished?", folder.display())]
    Missing {
        /// The folder that was given.
        folder: PathBuf,
        /// The file that is not there.
        file: &'static str,
    },
    /// A file of the run cannot be read as what it should be.
    #[error("cannot read {}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] JsonlError),
}
