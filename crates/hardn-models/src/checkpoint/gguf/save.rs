//! A model into a GGUF file.

use std::path::Path;

use super::{GgufDtype, vocabulary, write::write};
use crate::{Model, Result, checkpoint::tensor_error};

impl Model {
    /// Writes the model, without adapter, to a GGUF file that llama.cpp loads. `tokenizer` is a folder with
    /// `tokenizer.json`, whose tokens and chat template are written too; without one the file has none.
    ///
    /// # Errors
    /// A family or an option llama.cpp has no graph for, a tokenizer of a kind it does not have, or a file that
    /// cannot be written; then nothing is left behind.
    pub fn save_gguf(&self, path: &Path, tokenizer: Option<&Path>, dtype: GgufDtype) -> Result<()> {
        let vocabulary = match tokenizer {
            Some(dir) => vocabulary::read(dir, self.config())?,
            None => vocabulary::none(),
        };
        let weights = self.published_weights()?;
        write(path, self.config(), vocabulary, dtype, |name| {
            weights.get(name).cloned().ok_or_else(|| tensor_error(path, name, "is missing"))
        })
    }
}
