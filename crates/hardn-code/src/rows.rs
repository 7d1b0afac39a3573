//! Rows of a user's files: JSON Lines, a JSON list, or CSV with a head; each may be compressed with gzip.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::CodeError;

/// A row with its place: the line in the file, or the number in a JSON list, from 1.
pub type PlacedRow = (usize, Result<Map<String, Value>, String>);

/// Reads the rows of a file. What it is, its name's ending says: `.json` for a list, `.csv`, anything else for JSON Lines;
/// with `.gz` behind it, compressed. A row that cannot be read is an error in its place. Empty lines are skipped.
///
/// # Errors
/// [`CodeError::Read`] if the file cannot be read.
pub fn read_rows(path: &Path) -> Result<Vec<PlacedRow>, CodeError> {
    let read_error = |source| CodeError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    let is_packed = path.extension() == Some(OsStr::new("gz"));
    let reader: Box<dyn Read> =
        if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut reader = BufReader::new(reader);
    let inner = if is_packed { path.file_stem().map(Path::new) } else { Some(path) };
    match inner.and_then(Path::extension).and_then(OsStr::to_str) {
        Some("json") => {
            let mut text = String::new();
            reader.read_to_string(&mut text).map_err(read_error)?;
            Ok(match serde_json::from_str::<Vec<Value>>(&text) {
                Ok(rows) => {
                    rows.into_iter().enumerate().map(|(i, row)| (i + 1, object(row))).collect()
                }
                Err(error) => vec![(error.line(), Err(format!("not a JSON list: {error}")))],
            })
        }
        Some("csv") => Ok(csv_rows(reader)),
        _ => {
            let mut rows = Vec::new();
            for (i, line) in reader.split(b'\n').enumerate() {
                let bytes = line.map_err(read_error)?;
                if bytes.trim_ascii().is_empty() {
                    continue;
                }
                let value = serde_json::from_slice(&bytes).map_err(|e| format!("not JSON: {e}"));
                rows.push((i + 1, value.and_then(object)));
            }
            Ok(rows)
        }
    }
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(row) => Ok(row),
        _ => Err("not a JSON object".to_owned()),
    }
}

/// Every value is a text; an empty one is left out.
fn csv_rows(reader: impl Read) -> Vec<PlacedRow> {
    let mut reader = csv::Reader::from_reader(reader);
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(error) => return vec![(1, Err(format!("not CSV: {error}")))],
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(match record {
            Ok(record) => {
                let line = record.position().map_or(0, |place| place.line() as usize);
                let filled = names.iter().zip(&record).filter(|(_, value)| !value.is_empty());
                let text = |(name, value): (&str, &str)| (name.to_owned(), Value::from(value));
                (line, Ok(filled.map(text).collect()))
            }
            Err(error) => {
                let line = error.position().map_or(0, |place| place.line() as usize);
                (line, Err(format!("not CSV: {error}")))
            }
        });
    }
    rows
}
