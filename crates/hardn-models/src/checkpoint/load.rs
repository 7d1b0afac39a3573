//! A checkpoint's files against what a model needs of them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{Weights, tensor_error};
use crate::Result;

/// Tensors that older exporters left: buffers, and copies of a tied output.
const LEFTOVERS: &[&str] = &[
    ".attn.bias",
    ".attn.causal_mask",
    ".attn.masked_bias",
    ".attn.scale_attn",
    ".attention.bias",
    ".attention.masked_bias",
    "embed_positions.weights",
    "rotary_emb.inv_freq",
];

/// The tensors of a checkpoint under the names a model asks for.
pub(crate) struct Stock {
    weights: Weights,
    /// Names in the files, by names asked for.
    names: BTreeMap<String, String>,
    dtype: DType,
    device: Device,
}

impl Stock {
    /// Looks for every tensor of `wanted`, with its shape, and for tensors that belong to no such model.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or is too many.
    pub(crate) fn open(
        weights: Weights,
        wanted: &BTreeMap<String, Vec<usize>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut names = BTreeMap::new();
        for (name, expected) in wanted {
            let Some(stored) = weights.resolve(name) else {
                return Err(tensor_error(weights.file(name), name, "is missing"));
            };
            let shape = weights.shape(stored).unwrap_or_default();
            if shape != expected {
                let message = format!("has shape {shape:?}, expected {expected:?}");
                return Err(tensor_error(weights.file(stored), stored, message));
            }
            names.insert(name.clone(), stored.to_owned());
        }
        let used: std::collections::BTreeSet<&str> = names.values().map(String::as_str).collect();
        let is_leftover = |name: &str| {
            name == "lm_head.weight"
                || LEFTOVERS.iter().any(|end| format!(".{name}").ends_with(end))
        };
        if let Some(name) = weights.names().find(|name| !used.contains(name) && !is_leftover(name))
        {
            return Err(tensor_error(weights.file(name), name, "does not belong to this model"));
        }
        Ok(Self { weights, names, dtype, device: device.clone() })
    }

    /// Copies one tensor out of its file; `None` if it was not asked for.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(stored) = self.names.get(name) else { return Ok(None) };
        self.weights.load(stored, self.dtype, &self.device).map(Some)
    }
}
