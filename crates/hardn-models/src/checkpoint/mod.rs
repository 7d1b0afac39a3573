//! Weights on disk: safetensors and old pickles, whole or in shards, and GGUF.
//!
//! [`Weights`] is the one way in: whatever the files are, it knows the tensors' names and shapes from the headers
//! and copies a tensor out of the mapped file when it is asked for.

mod adapter;
pub(crate) mod gguf;
mod index;
mod load;
mod map;
mod pickle;
mod safetensors;
mod shards;
mod stored;
mod weights;
mod write;

pub(crate) use adapter::read_file;
pub use gguf::GgufDtype;
pub use load::BaseWeights;
pub(crate) use load::Stock;
pub(crate) use shards::{SHARD_BYTES, write_weights};
pub(crate) use weights::Weights;
pub use write::SaveDtype;
pub(crate) use write::write_file;

use std::path::Path;

use crate::ModelError;

fn tensor_error(path: &Path, name: &str, message: impl Into<String>) -> ModelError {
    ModelError::Tensor { path: path.to_owned(), name: name.to_owned(), message: message.into() }
}

#[cfg(test)]
mod tests;
