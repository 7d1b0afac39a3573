//! Files mapped into memory.

use std::{fs::File, path::Path};

use memmap2::Mmap;

use crate::{ModelError, Result};

/// Maps a file. The pages are read when they are touched.
#[expect(unsafe_code, reason = "a file is mapped into memory")]
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|error| ModelError::read(path, error))?;
    let metadata = file.metadata().map_err(|error| ModelError::read(path, error))?;
    if !metadata.is_file() {
        return Err(ModelError::read(path, "is not a file"));
    }
    // SAFETY: the map is only read, within this folder, and every tensor is copied out of it. A file another
    // process changes meanwhile gives wrong numbers; one it shortens ends the process.
    unsafe { Mmap::map(&file) }.map_err(|error| ModelError::read(path, error))
}
