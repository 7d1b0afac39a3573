//! JSON Lines files, and writing files so that a kill leaves the old or the new one.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A file that could not be read or written, with the place.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum JsonlError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} line {line}: {source}", path.display())]
    Parse { path: PathBuf, line: usize, source: serde_json::Error },
}

/// Reads every row of a JSON Lines file. Empty lines are skipped.
///
/// # Errors
/// An unreadable file, or the first malformed line with its number.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, JsonlError> {
    let read_error = |source| JsonlError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(read_error)?;
    let mut rows = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(read_error)?;
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(&line).map_err(|source| JsonlError::Parse {
            path: path.to_owned(),
            line: i + 1,
            source,
        })?;
        rows.push(row);
    }
    Ok(rows)
}

/// Writes rows to a JSON Lines file, atomically.
///
/// # Errors
/// A file that cannot be written; then what was there before stays.
pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), JsonlError> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row).map_err(|source| JsonlError::Parse {
            path: path.to_owned(),
            line: 0,
            source,
        })?;
        bytes.push(b'\n');
    }
    write_atomic(path, &bytes)
}

/// Appends one row, in one write, and flushes it to the operating system.
///
/// # Errors
/// A file that cannot be written.
pub fn append_jsonl<T: Serialize>(
    file: &mut fs::File,
    path: &Path,
    row: &T,
) -> Result<(), JsonlError> {
    let mut bytes = serde_json::to_vec(row).map_err(|source| JsonlError::Parse {
        path: path.to_owned(),
        line: 0,
        source,
    })?;
    bytes.push(b'\n');
    file.write_all(&bytes).map_err(|source| JsonlError::Write { path: path.to_owned(), source })
}

/// Writes a file beside its place, syncs it, and renames it: a kill leaves the old file or the new one.
///
/// # Errors
/// A file that cannot be written; then what was there before stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), JsonlError> {
    let write_error = |source| JsonlError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(write_error)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(write_error)
}
