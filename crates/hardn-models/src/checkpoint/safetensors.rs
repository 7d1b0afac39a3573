//! The header of a safetensors file.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::stored::Stored;

/// The tensors of a mapped file. Offsets, sizes and the length of the file are checked against each other.
///
/// # Errors
/// A header that is cut, malformed or contradicts itself.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let start = 8 + header + info.data_offsets.0;
        let stored = Stored::new(info.dtype, info.shape.clone(), None, start, file.len())
            .map_err(|message| format!("tensor `{name}` {message}"))?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}
