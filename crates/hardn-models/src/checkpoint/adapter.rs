//! The tensors of one small file, as adapters are kept.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};

use super::Weights;
use crate::Result;

/// Reads every tensor of one file as f32.
pub(crate) fn read_file(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let weights = Weights::open_file(path)?;
    let names = weights.names().map(str::to_owned);
    names.map(|name| Ok((name.clone(), weights.load(&name, DType::F32, device)?))).collect()
}
