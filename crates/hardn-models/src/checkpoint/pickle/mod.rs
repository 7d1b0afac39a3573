//! `pytorch_model.bin`: tensors in Python's pickle format, read without running anything.
//!
//! A pickle is a program for a small stack machine that may call any function. Only what builds a dictionary of
//! tensors is carried out; every other name is refused, and nothing is looked up, imported or called.

mod archive;
mod globals;
mod legacy;
mod machine;

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::stored::{Checksum, Stored};
use machine::{Machine, Value};

/// A tensor as a pickle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TensorInfo<'a> {
    dtype: Dtype,
    /// The name of the storage its elements lie in; several tensors can share one.
    storage: &'a str,
    /// Its first element, counted from the start of the storage.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Where a storage lies in the file.
struct Place {
    start: usize,
    end: usize,
    checksum: Option<u32>,
}

/// The tensors of a mapped file.
///
/// # Errors
/// A file that is cut, malformed, not little-endian, or names anything but tensors.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    if file.starts_with(b"PK") { archive::read(file) } else { legacy::read(file) }
}

/// The named tensors of the dictionary a pickle ends with. What is not a tensor is left out.
fn state_dict<'a>(
    machine: &Machine<'a>,
    root: usize,
) -> Result<Vec<(&'a str, TensorInfo<'a>)>, String> {
    let Value::Dict(entries) = machine.value(root) else {
        return Err("does not hold a dictionary of tensors".to_owned());
    };
    let mut tensors = Vec::new();
    for (key, value) in entries {
        if let (Value::Text(name), Value::Tensor(tensor)) =
            (machine.value(*key), machine.value(*value))
        {
            tensors.push((*name, tensor.clone()));
        }
    }
    if tensors.is_empty() && !entries.is_empty() {
        return Err("holds a dictionary, but no tensor lies directly in it".to_owned());
    }
    Ok(tensors)
}

/// Puts a tensor into its storage's place.
fn place(tensor: TensorInfo, place: &Place) -> Result<Stored, String> {
    let start = tensor
        .offset
        .checked_mul(tensor.dtype.bitsize() / 8)
        .and_then(|bytes| bytes.checked_add(place.start))
        .ok_or("lies beyond its data")?;
    let mut stored =
        Stored::new(tensor.dtype, tensor.shape, Some(tensor.strides), start, place.end)?;
    stored.checksum =
        place.checksum.map(|crc32| Checksum { start: place.start, end: place.end, crc32 });
    Ok(stored)
}

#[cfg(test)]
mod tests;
