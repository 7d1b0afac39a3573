//! `*.index.json`: which shard holds which tensor.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::tensor_error;
use crate::{ModelError, Result};

/// Tensor to shard, from an index file.
pub(super) struct Index {
    pub(super) path: PathBuf,
    /// Tensor to file name.
    pub(super) map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index. Shards are plain file names beside it.
    ///
    /// # Errors
    /// A file that cannot be read, has no `weight_map`, or names a shard elsewhere.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(|error| ModelError::read(path, error))?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| ModelError::read(path, error))?;
        let entries = value
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| ModelError::read(path, "has no `weight_map`"))?;
        let mut map = BTreeMap::new();
        for (tensor, file) in entries {
            match file.as_str() {
                Some(file) if is_file_name(file) => {
                    map.insert(tensor.clone(), file.to_owned());
                }
                _ => return Err(tensor_error(path, tensor, format!("{file} is not a file name"))),
            }
        }
        if map.is_empty() {
            return Err(ModelError::read(path, "`weight_map` is empty"));
        }
        Ok(Self { path: path.to_owned(), map })
    }

    /// The shards, each once, with the first tensor each should hold.
    ///
    /// # Errors
    /// A shard that is not there.
    pub(super) fn shards(&self) -> Result<Vec<PathBuf>> {
        let mut files = BTreeMap::new();
        for (tensor, file) in &self.map {
            files.entry(file).or_insert(tensor);
        }
        let mut paths = Vec::new();
        for (file, tensor) in files {
            let path = self.path.with_file_name(file);
            if !path.exists() {
                let message = format!("should be in {file}, which is missing beside the index");
                return Err(tensor_error(&self.path, tensor, message));
            }
            paths.push(path);
        }
        Ok(paths)
    }
}

/// A name that cannot lead out of the folder, on any system.
fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['/', '\\', '\0', ':'])
        && Path::new(name).file_name() == Some(name.as_ref())
}
