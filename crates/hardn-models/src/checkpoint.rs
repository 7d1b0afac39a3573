//! Weights on disk: `model.safetensors`, whole or in shards.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{
    DType, Device, Tensor,
    safetensors::{Load, MmapedSafetensors},
};
use safetensors::Dtype;
use serde_json::Value;

use crate::{ModelError, Result};

/// The number format weights are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SaveDtype {
    F32,
    F16,
    BF16,
}

impl SaveDtype {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }
}

/// Reads the tensors of a checkpoint folder as f32. `wanted` says which there must be, with their shapes.
pub(crate) fn load_weights(
    dir: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let index = dir.join("model.safetensors.index.json");
    let files = if index.exists() {
        shards(&index, dir)?
    } else {
        let path = dir.join("model.safetensors");
        if !path.exists() && dir.join("pytorch_model.bin").exists() {
            let message = "is missing; pytorch_model.bin is not read, convert it to safetensors";
            return Err(ModelError::read(&path, message));
        }
        vec![path]
    };
    let mut tensors = BTreeMap::new();
    for path in &files {
        for (name, tensor) in read_file(path, device)? {
            let Some(shape) = wanted.get(&name) else {
                // Some exporters keep a copy of a tied output or the rotary table of old versions.
                if name == "lm_head.weight" || name.ends_with("rotary_emb.inv_freq") {
                    continue;
                }
                return Err(tensor_error(path, &name, "does not belong to this model"));
            };
            if tensor.dims() != shape {
                let message = format!("has shape {:?}, expected {shape:?}", tensor.dims());
                return Err(tensor_error(path, &name, message));
            }
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(tensor_error(path, &name, "occurs twice"));
            }
        }
    }
    match wanted.keys().find(|name| !tensors.contains_key(*name)) {
        Some(name) => Err(tensor_error(&files[0], name, "is missing")),
        None => Ok(tensors),
    }
}

/// Reads every tensor of one file as f32.
pub(crate) fn read_file(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let file = map(path)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let dtype = view.dtype();
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&dtype) {
            let message = format!("has type {dtype:?}; only F32, F16 and BF16 are read");
            return Err(tensor_error(path, &name, message));
        }
        let tensor = view
            .load(device)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .map_err(|error| tensor_error(path, &name, error.to_string()))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Writes tensors to one file, atomically. The same tensors give the same bytes.
pub(crate) fn write_file(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype: SaveDtype,
) -> Result<()> {
    let mut converted = Vec::new();
    for (name, tensor) in tensors {
        converted.push((name, tensor.to_dtype(dtype.dtype())?.contiguous()?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = converted.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| ModelError::write(path, error))?;
    hardn_types::write_atomic(path, &bytes).map_err(|error| ModelError::write(path, error))
}

fn tensor_error(path: &Path, name: &str, message: impl Into<String>) -> ModelError {
    ModelError::Tensor { path: path.to_owned(), name: name.to_owned(), message: message.into() }
}

/// The files an index names, each once, in order of their names.
fn shards(index: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read(index).map_err(|error| ModelError::read(index, error))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| ModelError::read(index, error))?;
    let map = value["weight_map"]
        .as_object()
        .ok_or_else(|| ModelError::read(index, "has no `weight_map`"))?;
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(file)
                if !file.is_empty() && Path::new(file).file_name() == Some(file.as_ref()) =>
            {
                names.insert(file);
            }
            _ => return Err(tensor_error(index, tensor, format!("{file} is not a file name"))),
        }
    }
    if names.is_empty() {
        return Err(ModelError::read(index, "`weight_map` is empty"));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

#[expect(unsafe_code, reason = "a file is mapped into memory")]
fn map(path: &Path) -> Result<MmapedSafetensors> {
    // SAFETY: the map is only read, within this file, and every tensor is copied out of it before it is
    // dropped. A file another process changes meanwhile gives wrong numbers; one it shortens ends the process.
    unsafe { MmapedSafetensors::new(path) }.map_err(|error| ModelError::read(path, error))
}
