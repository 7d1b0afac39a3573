//! What can go wrong between a prompt and its completions.

use hardn_models::ModelError;
use hardn_types::BoxError;

/// The crate's result.
pub type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// Why something could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A decoder that cannot be read or makes no sense.
    #[error("decoder `{name}`: {message}")]
    Decoder {
        /// Its name or file.
        name: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A prompt that does not fit into the model's context.
    #[error(
        "prompt of `{task}` has {n_tokens} tokens, but {room} fit beside {max_new_tokens} new ones; help: shorten it, \
         lower `max_new_tokens`, or set `long_prompt = \"truncate\"` to keep its end"
    )]
    LongPrompt {
        /// The task's id.
        task: String,
        /// Its tokens.
        n_tokens: usize,
        /// Tokens that fit.
        room: usize,
        /// Tokens kept free for the completion.
        max_new_tokens: usize,
    },
    /// A prompt without tokens.
    #[error("prompt of `{task}` is empty, and the tokenizer has no token to start a text with")]
    EmptyPrompt {
        /// The task's id.
        task: String,
    },
    /// The model gave a number that is not one.
    #[error("the model's logits for `{task}`, sample {index}, token {position} are not finite")]
    NotFinite {
        /// The task's id.
        task: String,
        /// The sample's number.
        index: u32,
        /// The generated token's number.
        position: usize,
    },
    /// A constraint that cannot be compiled, or a text it has no room for.
    #[error("constraint `{key}`: {message}")]
    Constraint {
        /// The key of `[constraint]` that says what texts are wanted.
        key: &'static str,
        /// What is wrong, with the place in the grammar where there is one.
        message: String,
    },
    /// Generation was interrupted; samples handed over before are complete.
    #[error("generation was stopped")]
    Stopped,
    /// The model or tokenizer failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A prompt's imports could not be read.
    #[error(transparent)]
    Code(#[from] hardn_code::CodeError),
    /// Whoever takes the samples failed.
    #[error(transparent)]
    Taker(BoxError),
}
