//! GGUF: llama.cpp's single-file format, read and written.
//!
//! A file read here looks like a published checkpoint: its metadata becomes a published `config.json`, and its
//! tensors have published names, row orders and shapes.

mod config;
mod cut;
mod export;
mod header;
mod kinds;
mod meta;
mod names;
mod part;
mod rope;
mod save;
mod tokenizer;
mod vocabulary;
mod write;

use std::path::{Path, PathBuf};

pub(super) use part::Part;
pub(crate) use tokenizer::tokenizer;
pub use write::GgufDtype;

use super::map::map;
use crate::{ModelConfig, ModelError, Result};

/// The GGUF file that `path` is, or that stands alone in a folder without other weights.
pub(crate) fn find(path: &Path) -> Option<PathBuf> {
    let is_gguf = |path: &Path| {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    };
    if is_gguf(path) && !path.is_dir() {
        return Some(path.to_owned());
    }
    let mut found = path
        .read_dir()
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_gguf(path));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The configuration in a GGUF file, as a published `config.json` would say it.
///
/// # Errors
/// A file that cannot be read, or an architecture or metadata that this crate does not compute; the key is named.
pub(crate) fn config(path: &Path) -> Result<ModelConfig> {
    let file = map(path)?;
    let header = header::Header::read(&file).map_err(|message| ModelError::read(path, message))?;
    config::read(path, &file, &header)
}

/// The tensors in a GGUF file, by published names.
pub(super) fn tensors(path: &Path, file: &[u8]) -> Result<Vec<(String, Part)>> {
    let header = header::Header::read(file).map_err(|message| ModelError::read(path, message))?;
    let config = config::read(path, file, &header)?;
    part::all(path, file.len(), &header, &config)
}

#[cfg(test)]
mod tests;
