//! The files PyTorch wrote before version 1.6: five pickles, then the storages.

use std::collections::{BTreeMap, HashMap};

use super::{Machine, Place, Stored, machine::Value, place, state_dict};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// The tensors of a file.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let mut at = 0;
    let mut next = || {
        let (machine, root, taken) = Machine::run(&file[at..])?;
        at += taken;
        Ok::<_, String>((machine, root))
    };
    let (machine, root) = next().map_err(|_| NEITHER)?;
    if !matches!(machine.value(root), Value::Long(magic) if **magic == MAGIC) {
        return Err(NEITHER.to_owned());
    }
    let (machine, root) = next()?;
    if !matches!(machine.value(root), Value::Int(PROTOCOL)) {
        return Err("is of a version of PyTorch's old format that is not known".to_owned());
    }
    let (machine, root) = next()?;
    check_order(&machine, root)?;
    let (machine, root) = next()?;
    let tensors = state_dict(&machine, root)?;
    let (keys, root) = next()?;
    let sizes = tensors.iter().map(|(_, tensor)| (tensor.storage, tensor.dtype.bitsize() / 8));
    let places = places(&keys, root, &sizes.collect(), file, at)?;
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        let found = places.get(tensor.storage).ok_or("storage is missing".to_owned());
        let tensor = found
            .and_then(|found| place(tensor, found))
            .map_err(|message| format!("tensor `{name}` {message}"))?;
        stored.insert(name.to_owned(), tensor);
    }
    Ok(stored)
}

const NEITHER: &str = "is neither a zip archive nor a pickle of PyTorch";

/// `{"protocol_version": .., "little_endian": True, "type_sizes": {..}}`
fn check_order(machine: &Machine, root: usize) -> Result<(), String> {
    let Value::Dict(entries) = machine.value(root) else {
        return Err("does not say in which order its bytes are".to_owned());
    };
    let little = entries.iter().any(|(key, value)| {
        matches!(machine.value(*key), Value::Text("little_endian"))
            && matches!(machine.value(*value), Value::Bool(true))
    });
    if little {
        Ok(())
    } else {
        Err("is big-endian; write it again on a little-endian machine".to_owned())
    }
}

/// The storages: the number of elements in 8 bytes, then the elements, in the order of the keys.
fn places<'a>(
    machine: &Machine<'a>,
    root: usize,
    sizes: &HashMap<&str, usize>,
    file: &[u8],
    mut at: usize,
) -> Result<HashMap<&'a str, Place>, String> {
    let Value::List(keys) = machine.value(root) else {
        return Err("has no list of storages".to_owned());
    };
    let mut places = HashMap::new();
    for key in keys {
        let Value::Text(key) = machine.value(*key) else {
            return Err("has a storage without a name".to_owned());
        };
        let size = sizes
            .get(key)
            .ok_or_else(|| format!("has a storage `{}` that no tensor uses", key.escape_debug()))?;
        let end = file
            .get(at..)
            .and_then(<[u8]>::first_chunk::<8>)
            .and_then(|n| usize::try_from(u64::from_le_bytes(*n)).ok())
            .and_then(|n| n.checked_mul(*size)?.checked_add(at + 8))
            .filter(|end| *end <= file.len())
            .ok_or_else(|| format!("ends within storage `{}`", key.escape_debug()))?;
        places.insert(*key, Place { start: at + 8, end, checksum: None });
        at = end;
    }
    Ok(places)
}
