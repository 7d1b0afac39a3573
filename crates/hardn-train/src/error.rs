//! What can go wrong while training.

use std::path::PathBuf;

use hardn_types::JsonlError;

/// Shorthand for this crate's results.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TrainError {
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error("model: {0}")]
    Model(#[from] hardn_models::ModelError),
    #[error(transparent)]
    Code(Box<hardn_code::CodeError>),
    #[error(transparent)]
    Jsonl(#[from] JsonlError),
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("recipe `{name}` does not exist; available: {available}{suggestion}")]
    NoRecipe { name: String, available: String, suggestion: String },
    #[error("recipe `{name}`: {message}")]
    Recipe { name: String, message: String },
    #[error("`--set {assignment}`: {message}")]
    Override { assignment: String, message: String },
    #[error("nothing to train on: every example was dropped ({reasons})")]
    NothingToTrain { reasons: String },
    #[error("{what} is missing: {help}")]
    Missing { what: String, help: String },
    #[error(
        "the loss of step {step} is not finite ({what}); the batch holds {examples:?}. \
         The state before this step is saved in {}; lower the learning rate or remove these examples",
        checkpoint.display()
    )]
    NotFinite { step: usize, what: String, examples: Vec<String>, checkpoint: PathBuf },
    #[error(
        "{} belongs to another training ({what} differs); use another output folder or remove this one",
        path.display()
    )]
    OtherRun { path: PathBuf, what: String },
    #[error("{} is in use by another process that trains there; wait for it, or use another output folder", path.display())]
    InUse { path: PathBuf },
    #[error("checkpoint {} cannot be read: {message}; remove that folder to fall back to the one before", path.display())]
    Checkpoint { path: PathBuf, message: String },
    #[error("the model could not be scored after step {step}: {message}")]
    Score { step: usize, message: String },
    #[error(
        "`training.best_by` is `{best_by}`, but validation gives no such number: give validation data for `loss`, \
         or a suite of validation scenarios (security, secure_pass) or utility tasks (utility)"
    )]
    NothingToCompare { best_by: &'static str },
    #[error(
        "`training.precision` is `bf16`, but the base is loaded as {model}: load it as bf16 \
         (`hardn train` does), or set `training.precision` to `f32`"
    )]
    Precision { model: &'static str },
    #[error("shapes do not fit: {0}")]
    Shape(String),
    #[error("no token is selected: the mean would be 0/0")]
    EmptySelection,
}

impl TrainError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
