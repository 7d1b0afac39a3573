//! The zip archives PyTorch writes since version 1.6.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{Cursor, Read},
};

use zip::{CompressionMethod, ZipArchive};

use super::{Machine, Place, Stored, place, state_dict};

/// A pickle longer than this describes no checkpoint.
const MAX_PICKLE: u64 = 1 << 30;

/// The tensors of an archive.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let mut zip = ZipArchive::new(Cursor::new(file)).map_err(|error| error.to_string())?;
    let pickle = zip
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with("/data.pkl") || name == "data.pkl")
        .map(Cow::into_owned)
        .ok_or("is a zip archive without `data.pkl`, so not one of PyTorch's")?;
    let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let order = format!("{folder}byteorder");
    if zip.index_for_name(&order).is_some() && text(&mut zip, &order)? != b"little" {
        return Err("is big-endian; write it again on a little-endian machine".to_owned());
    }
    let pickle = text(&mut zip, &pickle)?;
    let (machine, root, _) = Machine::run(&pickle)?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in state_dict(&machine, root)? {
        let storage = format!("{folder}data/{}", tensor.storage);
        let stored = find(&mut zip, &storage, file.len())
            .and_then(|found| place(tensor, &found))
            .map_err(|message| format!("tensor `{name}` {message}"))?;
        tensors.insert(name.to_owned(), stored);
    }
    Ok(tensors)
}

type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// A small member, whose checksum is tested on the way.
fn text(zip: &mut Zip, name: &str) -> Result<Vec<u8>, String> {
    let member = zip.by_name(name).map_err(|error| format!("{name}: {error}"))?;
    if member.size() > MAX_PICKLE {
        return Err(format!("{name} is too long to describe a checkpoint"));
    }
    let mut bytes = Vec::new();
    let mut reader = member.take(MAX_PICKLE);
    reader.read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}

fn find(zip: &mut Zip, name: &str, end: usize) -> Result<Place, String> {
    let number =
        zip.index_for_name(name).ok_or_else(|| format!("needs `{name}`, which is missing"))?;
    let member = zip.by_index_raw(number).map_err(|error| format!("in `{name}`: {error}"))?;
    if member.compression() != CompressionMethod::Stored || member.encrypted() {
        return Err(format!("lies in `{name}`, which is compressed; PyTorch writes none such"));
    }
    let start = member.data_start().and_then(|start| usize::try_from(start).ok());
    let size = usize::try_from(member.size()).ok();
    match start.zip(size).and_then(|(start, size)| Some((start, start.checked_add(size)?))) {
        // PyTorch can be told to write no checksums; then there is a zero.
        Some((start, stop)) if stop <= end => {
            let checksum = Some(member.crc32()).filter(|crc32| *crc32 != 0);
            Ok(Place { start, end: stop, checksum })
        }
        _ => Err(format!("lies in `{name}`, which goes beyond the end of the file")),
    }
}
