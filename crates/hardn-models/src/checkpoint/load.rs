//! All weights of a model at once.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};

use super::{Weights, tensor_error};
use crate::Result;

/// Reads the tensors of a checkpoint folder as f32. `wanted` says which there must be, with their shapes.
pub(crate) fn load_weights(
    dir: &Path,
    wanted: &BTreeMap<String, Vec<usize>>,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let weights = Weights::open(dir)?;
    for name in weights.names() {
        // Some exporters keep a copy of a tied output or the rotary table of old versions.
        let known = wanted.contains_key(name)
            || name == "lm_head.weight"
            || name.ends_with("rotary_emb.inv_freq");
        if !known {
            return Err(tensor_error(weights.file(name), name, "does not belong to this model"));
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, expected) in wanted {
        match weights.shape(name) {
            None => return Err(tensor_error(weights.file(name), name, "is missing")),
            Some(shape) if shape != expected => {
                let message = format!("has shape {shape:?}, expected {expected:?}");
                return Err(tensor_error(weights.file(name), name, message));
            }
            Some(_) => {}
        }
        tensors.insert(name.clone(), weights.load(name, DType::F32, device)?);
    }
    Ok(tensors)
}
