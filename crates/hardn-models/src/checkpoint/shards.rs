//! A checkpoint written in one file or in several.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use serde_json::{Map, json};

use super::{
    SaveDtype,
    index::Index,
    write::{Draft, write_draft},
};
use crate::{ModelError, Result};

/// Bytes of a shard unless asked otherwise: 5 GB, as `transformers` writes them.
pub(crate) const SHARD_BYTES: u64 = 5_000_000_000;

/// Writes a checkpoint's tensors into `dir`: `model.safetensors`, or shards of at most `shard_bytes` (or one tensor)
/// with their index. `tensor` is asked for one tensor at a time, so that no second copy of the model is made.
///
/// Files get their names when all are complete; a kill in between leaves no index, so that nothing half written is
/// taken for a model.
///
/// # Errors
/// As for one file: a tensor that cannot be made or has another shape, or a file that cannot be written.
pub(crate) fn write_weights(
    dir: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    dtype: SaveDtype,
    shard_bytes: u64,
    mut tensor: impl FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    let stale = Index::read(&index).map_or_else(|_| Vec::new(), |index| files(&index));
    let parts = split(shapes, dtype.size() as u64, shard_bytes);
    if let [part] = &parts[..] {
        let draft = write_draft(&single, part.iter().copied(), dtype, &mut tensor)?;
        draft.publish()?;
        remove(&index)?;
        return stale.iter().try_for_each(|path| remove(path));
    }
    let mut drafts = Vec::new();
    let mut paths = Vec::new();
    let mut weight_map = Map::new();
    let mut total_size = 0;
    for (i, part) in parts.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, parts.len());
        for (tensor, shape) in part {
            weight_map.insert((*tensor).to_owned(), name.clone().into());
            total_size += (shape.iter().product::<usize>() * dtype.size()) as u64;
        }
        let path = dir.join(name);
        let mut draft = write_draft(&path, part.iter().copied(), dtype, &mut tensor)?;
        draft.finish()?;
        drafts.push(draft);
        paths.push(path);
    }
    let text = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    let text =
        serde_json::to_vec_pretty(&text).map_err(|error| ModelError::write(&index, error))?;
    let mut draft = Draft::create(&index)?;
    draft.write(&text)?;
    draft.finish()?;
    remove(&single)?;
    remove(&index)?;
    drafts.into_iter().try_for_each(Draft::publish)?;
    draft.publish()?;
    stale.iter().filter(|path| !paths.contains(path)).try_for_each(|path| remove(path))
}

/// Cuts the tensors, in order of their names, into shards. There is at least one.
fn split(
    shapes: &BTreeMap<String, Vec<usize>>,
    size: u64,
    shard_bytes: u64,
) -> Vec<Vec<(&str, &[usize])>> {
    let mut parts = vec![Vec::new()];
    let mut used = 0;
    for (name, shape) in shapes {
        let bytes = shape.iter().product::<usize>() as u64 * size;
        if used > 0 && used + bytes > shard_bytes {
            parts.push(Vec::new());
            used = 0;
        }
        used += bytes;
        if let Some(part) = parts.last_mut() {
            part.push((name.as_str(), &shape[..]));
        }
    }
    parts
}

fn files(index: &Index) -> Vec<PathBuf> {
    let mut names: Vec<_> = index.map.values().collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| index.path.with_file_name(name)).collect()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ModelError::write(path, error))
        }
        _ => Ok(()),
    }
}
