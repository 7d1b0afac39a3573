//! Reading fix pairs: our own schema and the ones SVEN and SafeCoder publish.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use hardn_types::{Cwe, FixPair, Language};
use serde_json::{Map, Value};

use crate::{CodeError, RowError};

/// Reads the pairs of a `.jsonl` or `.jsonl.gz` file, or of all such files of a folder in the order of their names.
/// Rows that cannot be used are returned beside the good ones.
///
/// A row is in our own schema if it has `before`, and in SVEN's and SafeCoder's if it has `func_src_before`.
/// A pair without an `id` gets its row number, from 0 and without empty lines; where several files are read, it is
/// `FILE:ROW` with the file's name without `.gz`. Published fields that a pair has no place for are kept in `extra`.
///
/// # Errors
/// [`CodeError::Read`] if a file cannot be read, [`CodeError::NoPairFiles`] if a folder holds none.
pub fn read_pairs(path: &Path) -> Result<(Vec<FixPair>, Vec<RowError>), CodeError> {
    let files = pair_files(path)?;
    let several = files.len() > 1;
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    let mut ids = BTreeSet::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let mut row = 0;
        for (i, line) in lines(file)?.enumerate() {
            let bytes = line.map_err(|source| CodeError::Read { path: file.clone(), source })?;
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let default_id = if several { format!("{name}:{row}") } else { row.to_string() };
            row += 1;
            let read = read_row(&bytes, default_id).and_then(|pair| {
                if ids.insert(pair.id.clone()) {
                    Ok(pair)
                } else {
                    Err(format!("the id `{}` stands for an earlier row already", pair.id))
                }
            });
            match read {
                Ok(pair) => pairs.push(pair),
                Err(why) => bad.push(RowError { path: file.clone(), line: i + 1, why }),
            }
        }
    }
    Ok((pairs, bad))
}

/// Reads pairs as [`read_pairs`] does, and takes no row that cannot be used.
///
/// # Errors
/// Those of [`read_pairs`], and the first bad row.
pub fn read_pairs_strict(path: &Path) -> Result<Vec<FixPair>, CodeError> {
    let (pairs, bad) = read_pairs(path)?;
    match bad.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(pairs),
    }
}

fn pair_files(path: &Path) -> Result<Vec<PathBuf>, CodeError> {
    let read_error = |source| CodeError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(read_error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read_error)? {
        let file = entry.map_err(read_error)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(CodeError::NoPairFiles { path: path.to_owned() });
    }
    files.sort();
    Ok(files)
}

fn lines(path: &Path) -> Result<std::io::Split<BufReader<Box<dyn Read>>>, CodeError> {
    let file =
        File::open(path).map_err(|source| CodeError::Read { path: path.to_owned(), source })?;
    let reader: Box<dyn Read> = if path.extension() == Some(OsStr::new("gz")) {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(BufReader::new(reader).split(b'\n'))
}

fn read_row(bytes: &[u8], default_id: String) -> Result<FixPair, String> {
    let row: Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut row) = row else {
        return Err("not a JSON object".to_owned());
    };
    match row.get("id") {
        Some(Value::String(_)) => {}
        Some(Value::Number(number)) => {
            let text = Value::String(number.to_string());
            row.insert("id".to_owned(), text);
        }
        None | Some(Value::Null) => {
            row.insert("id".to_owned(), Value::String(default_id));
        }
        Some(_) => return Err("`id` is neither a text nor a number".to_owned()),
    }
    if row.contains_key("func_src_before") {
        rename_published(&mut row)?;
    } else if !row.contains_key("before") {
        return Err("has neither `before` and `after` (hardn's schema) nor `func_src_before` and \
                    `func_src_after` (SVEN's and SafeCoder's)"
            .to_owned());
    }
    let pair: FixPair =
        serde_json::from_value(Value::Object(row)).map_err(|e| format!("not a fix pair: {e}"))?;
    let (before, after) = (&pair.before, &pair.after);
    if !(before.starts_with(&pair.prompt) && after.starts_with(&pair.prompt)) {
        return Err("`prompt` is not how both `before` and `after` start".to_owned());
    }
    Ok(pair)
}

/// Turns SVEN's and SafeCoder's field names into ours. A weakness published as `cwe-089` stays in `cwe`.
fn rename_published(row: &mut Map<String, Value>) -> Result<(), String> {
    for (published, own) in [
        ("func_src_before", "before"),
        ("func_src_after", "after"),
        ("vul_type", "cwe"),
        ("commit_link", "origin"),
    ] {
        if let Some(value) = row.shift_remove(published) {
            row.insert(own.to_owned(), value);
        }
    }
    if let Some(text) = row.get("cwe").and_then(Value::as_str)
        && let Err(error) = text.parse::<Cwe>()
    {
        return Err(format!("`vul_type`: {error}"));
    }
    if !row.contains_key("language") {
        let name = row.get("file_name").and_then(Value::as_str).unwrap_or_default();
        let language = Language::of_path(Path::new(name)).ok_or_else(|| {
            format!("`file_name` is `{name}`, which tells no language; give `language`")
        })?;
        row.insert("language".to_owned(), Value::String(language.name().to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hardn_types::testing::reference_data;

    use super::*;

    #[test]
    fn published_sets_read_completely() {
        for (path, expected) in [
            ("sven/data_train_val/train", 720),
            ("sven/data_train_val/val", 83),
            ("safecoder/data_train_val/train/sec-new-desc.jsonl.gz", 421),
            ("safecoder/data_train_val/val", 44 + 83),
        ] {
            let Some(path) = reference_data(path) else { return };
            let pairs = read_pairs_strict(&path).unwrap();
            assert_eq!(pairs.len(), expected, "{}", path.display());
            assert!(pairs.iter().all(|pair| pair.cwe.is_some() && pair.origin.is_some()));
        }
        let Some(path) = reference_data("sven/data_train_val/train") else { return };
        assert_eq!(read_pairs_strict(&path).unwrap()[51].id, "cwe-078.jsonl:0");
    }

    #[test]
    fn ids_and_bad_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        let mut file = File::create(&path).unwrap();
        file.write_all(
            br#"{"before": "a", "after": "b", "language": "py", "note": 7}

{"id": 12, "before": "a", "after": "b", "language": "c"}
{"before": "a", "after": "b", "language": "cobol"}
{"id": "12", "before": "a", "after": "b", "language": "c"}
{"prompt": "x", "before": "a", "after": "b", "language": "c"}
[1]
{"before":
{"func_src_before": "a", "func_src_after": "b", "file_name": "x.rs"}
{"func_src_before": "a", "func_src_after": "b", "file_name": "x.cc", "vul_type": "cwe-022"}
"#,
        )
        .unwrap();
        let (pairs, bad) = read_pairs(&path).unwrap();
        let ids: Vec<&str> = pairs.iter().map(|pair| pair.id.as_str()).collect();
        assert_eq!(ids, ["0", "12", "8"]);
        assert_eq!(pairs[0].extra["note"], 7);
        assert_eq!((pairs[2].cwe, pairs[2].language), (Some(Cwe(22)), Language::Cpp));
        let lines: Vec<usize> = bad.iter().map(|error| error.line).collect();
        assert_eq!(lines, [4, 5, 6, 7, 8, 9]);
        assert!(bad[2].to_string().contains("pairs.jsonl line 6: `prompt` is not how"));
        assert!(read_pairs_strict(&path).unwrap_err().to_string().contains("line 4"));
        assert!(matches!(read_pairs(&folder.path().join("none")), Err(CodeError::Read { .. })));
    }
}
