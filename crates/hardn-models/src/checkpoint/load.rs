//! A checkpoint's files against what a model needs of them.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{Weights, tensor_error};
use crate::{Result, quantised::QuantisedWeight};

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
    base: BaseWeights,
    device: Device,
}

/// In what form weights are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseWeights {
    /// f32, bf16 or f16; quantised weights of GGUF files are expanded.
    Float(DType),
    /// Linear layers but the output in 8 bits, a factor per row; all else f32. Frozen.
    Int8,
    /// Linear layers but the output as a GGUF file has them, where they are quantised there; all else f32. Frozen.
    Stored,
}

impl BaseWeights {
    /// The type of what is computed.
    pub fn dtype(self) -> DType {
        match self {
            Self::Float(dtype) => dtype,
            Self::Int8 | Self::Stored => DType::F32,
        }
    }
}

impl std::str::FromStr for BaseWeights {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "f32" | "float32" => Self::Float(DType::F32),
            "bf16" | "bfloat16" => Self::Float(DType::BF16),
            "f16" | "float16" => Self::Float(DType::F16),
            "int8" => Self::Int8,
            "stored" => Self::Stored,
            _ => return Err("expected f32, bf16, f16, int8 or stored".to_owned()),
        })
    }
}

impl Stock {
    /// Looks for every tensor of `wanted`, with its shape, and for tensors that belong to no such model.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or is too many.
    pub(crate) fn open(
        weights: Weights,
        wanted: &BTreeMap<String, Vec<usize>>,
        base: BaseWeights,
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
        Ok(Self { weights, names, base, device: device.clone() })
    }

    /// Copies one tensor out of its file; `None` if it was not asked for.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(stored) = self.names.get(name) else { return Ok(None) };
        self.weights.load(stored, self.base.dtype(), &self.device).map(Some)
    }

    /// A weight as a GGUF file has it, where it is quantised and wanted so.
    ///
    /// # Errors
    /// As [`Weights::quantised`].
    pub(crate) fn quantised(&self, name: &str) -> Result<Option<QuantisedWeight>> {
        match (self.base, self.names.get(name)) {
            (BaseWeights::Stored, Some(stored)) => {
                Ok(self.weights.quantised(stored)?.map(QuantisedWeight::Ggml))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn rounds_to_int8(&self) -> bool {
        self.base == BaseWeights::Int8
    }
}
