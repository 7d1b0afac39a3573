//! Reading fix pairs: our own schema and the ones SVEN and SafeCoder publish.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{Cwe, FixPair, Language};
use serde_json::{Map, Value, json};

use crate::{CodeError, RowError, read_rows};

/// The names that a user's file gives the columns of a pair; empty: as in hardn's own rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns' names in hardn's own rows")]
pub struct PairColumns {
    pub id: String,
    pub before: String,
    pub after: String,
    pub language: String,
    pub cwe: String,
    pub description: String,
    pub file_name: String,
    pub prompt: String,
    /// Not a column: the language of rows that do not say it.
    pub default_language: Option<Language>,
}

impl PairColumns {
    /// Gives the columns our names. A column that is named must be there, but may be empty in a row.
    fn rename(&self, row: &mut Map<String, Value>) -> Result<(), String> {
        let names = [
            ("id", &self.id),
            ("before", &self.before),
            ("after", &self.after),
            ("language", &self.language),
            ("cwe", &self.cwe),
            ("description", &self.description),
            ("file_name", &self.file_name),
            ("prompt", &self.prompt),
        ];
        let mut values = Vec::new();
        for (own, given) in names.into_iter().filter(|(_, given)| !given.is_empty()) {
            match row.get(given.as_str()) {
                Some(value) => values.push((own, value.clone())),
                None if matches!(own, "before" | "after") => {
                    return Err(format!(
                        "has no column `{given}`, which `{own}` is to be read from"
                    ));
                }
                None => {}
            }
        }
        for given in names.into_iter().map(|(_, given)| given).filter(|given| !given.is_empty()) {
            row.shift_remove(given.as_str());
        }
        row.extend(values.into_iter().map(|(own, value)| (own.to_owned(), value)));
        Ok(())
    }
}

/// Reads the pairs of a file, or of all `.jsonl` and `.jsonl.gz` files of a folder in the order of their names.
/// Rows that cannot be used are returned beside the good ones. [`read_rows`] says what a file may be.
///
/// A row is in our own schema if it has `before`, in SVEN's and SafeCoder's if it has `func_src_before`, and in HexaCoder's,
/// which has the fixed side alone, if it has `text` and `changes`; its language is then C where a line includes a header,
/// else Python.
/// A pair without an `id` gets its row number, from 0 and without empty lines; where several files are read, it is
/// `FILE:ROW` with the file's name without `.gz`. Published fields that a pair has no place for are kept in `extra`.
///
/// # Errors
/// [`CodeError::Read`] if a file cannot be read, [`CodeError::NoPairFiles`] if a folder holds none.
pub fn read_pairs(path: &Path) -> Result<(Vec<FixPair>, Vec<RowError>), CodeError> {
    read_pairs_with(path, &PairColumns::default())
}

/// As [`read_pairs`], with a user's own names of columns.
///
/// # Errors
/// Those of [`read_pairs`].
pub fn read_pairs_with(
    path: &Path,
    columns: &PairColumns,
) -> Result<(Vec<FixPair>, Vec<RowError>), CodeError> {
    let files = pair_files(path)?;
    let several = files.len() > 1;
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    let mut ids = BTreeSet::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        for (row, (line, read)) in read_rows(file)?.into_iter().enumerate() {
            let default_id = if several { format!("{name}:{row}") } else { row.to_string() };
            let read = read.and_then(|row| read_row(row, default_id, columns)).and_then(|pair| {
                if ids.insert(pair.id.clone()) {
                    Ok(pair)
                } else {
                    Err(format!("the id `{}` stands for an earlier row already", pair.id))
                }
            });
            match read {
                Ok(pair) => pairs.push(pair),
                Err(why) => bad.push(RowError { path: file.clone(), line, why }),
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

fn read_row(
    mut row: Map<String, Value>,
    default_id: String,
    columns: &PairColumns,
) -> Result<FixPair, String> {
    columns.rename(&mut row)?;
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
    } else if row.contains_key("text") && row.contains_key("changes") {
        one_sided(&mut row, columns.default_language)?;
    } else if !row.contains_key("before") {
        return Err("has neither `before` and `after` (hardn's schema) nor `func_src_before` and \
                    `func_src_after` (SVEN's and SafeCoder's); name your own columns under `[data.columns]` \
                    of the recipe"
            .to_owned());
    }
    for key in ["before", "after"] {
        match row.get(key) {
            Some(Value::String(_)) => {}
            Some(_) => return Err(format!("`{key}` is not a text")),
            None => return Err(format!("has no `{key}`")),
        }
    }
    for key in ["cwe", "description", "file_name", "prompt", "language"] {
        if row.get(key).is_some_and(|value| value.is_null() || value == "") {
            row.shift_remove(key);
        }
    }
    if !row.contains_key("language") {
        let language = language_of(&row, columns.default_language)?;
        row.insert("language".to_owned(), Value::from(language.name()));
    }
    if let Some(Value::String(text)) = row.get("language") {
        let language: Language = text.parse().map_err(|e| format!("`language`: {e}"))?;
        row.insert("language".to_owned(), Value::from(language.name()));
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
    Ok(())
}

/// Turns HexaCoder's rows into pairs whose vulnerable side is empty.
fn one_sided(row: &mut Map<String, Value>, default: Option<Language>) -> Result<(), String> {
    let (text, changes) = (row.shift_remove("text"), row.shift_remove("changes"));
    let code = text.as_ref().and_then(Value::as_str).ok_or("`text` is not a text")?;
    if !row.contains_key("language") {
        let includes = code.lines().any(|line| line.trim_start().starts_with("#include"));
        let language = default.unwrap_or(if includes { Language::C } else { Language::Python });
        row.insert("language".to_owned(), Value::from(language.name()));
    }
    row.insert("char_changes".to_owned(), json!({"deleted": [], "added": changes}));
    row.insert("before".to_owned(), Value::from(""));
    row.insert("after".to_owned(), Value::from(code));
    Ok(())
}

/// The language of a row that does not name it.
fn language_of(row: &Map<String, Value>, default: Option<Language>) -> Result<Language, String> {
    let name = row.get("file_name").and_then(Value::as_str).unwrap_or_default();
    Language::of_path(Path::new(name)).or(default).ok_or_else(|| {
        if name.is_empty() {
            "has no `language`, and no `file_name` that tells it".to_owned()
        } else {
            format!("`file_name` is `{name}`, which tells no language; give `language`")
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

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

    #[test]
    fn published_one_sided_rows() {
        let Some(path) = reference_data("hexacoder/dataset/dataset.jsonl.gz") else { return };
        let pairs = read_pairs_strict(&path).unwrap();
        let n_c = pairs.iter().filter(|pair| pair.language == Language::C).count();
        assert_eq!((pairs.len(), n_c), (1686, 272));
        let n_changes = |pair: &FixPair| pair.char_changes.as_ref().unwrap().added.len();
        assert_eq!(pairs.iter().map(n_changes).sum::<usize>(), 8795);
    }

    #[test]
    fn columns_of_ones_own() {
        let columns = PairColumns {
            id: "key".to_owned(),
            before: "bad".to_owned(),
            after: "good".to_owned(),
            cwe: "weakness".to_owned(),
            file_name: "path".to_owned(),
            ..PairColumns::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, text: &str, columns: &PairColumns, errors: &[&str]| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let (pairs, bad) = read_pairs_with(&path, columns).unwrap();
            let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert_eq!(bad.len(), errors.len(), "{bad:?}");
            for (found, expected) in bad.iter().zip(errors) {
                assert!(found.contains(expected), "`{expected}` is not in `{found}`");
            }
            for pair in &pairs {
                assert_eq!((pair.before.as_str(), pair.after.as_str()), ("a\n", "b, \"c\""));
                assert_eq!((pair.id.as_str(), pair.language), ("7", Language::Go));
                assert_eq!(pair.cwe, Some(Cwe(79)));
            }
            pairs.len()
        };
        let row = r#"{"key": 7, "bad": "a\n", "good": "b, \"c\"", "weakness": 79, "path": "x.go"}"#;
        let none = r#"{"key": 8, "bad": "a\n", "weakness": 79, "path": "x.go"}"#;
        let no_language = r#"{"bad": "a", "good": "b", "path": ""}"#;
        let wanted = ["line 2: has no column `good`", "line 3: has no `language`"];
        let lines = [row, none, no_language].join("\n");
        assert_eq!(check("p.jsonl", &lines, &columns, &wanted), 1);
        assert_eq!(check("p.json", &format!("[{row}, {none}]"), &columns, &wanted[..1]), 1);
        let csv = "key,bad,good,weakness,path\n7,\"a\n\",\"b, \"\"c\"\"\",79,x.go\n9,a\n";
        assert_eq!(check("p.csv", csv, &columns, &["line 4: not CSV"]), 1);
        let given = PairColumns { default_language: Some(Language::Go), ..columns };
        assert_eq!(check("q.jsonl", &row.replace("x.go", ""), &given, &[]), 1);
    }
}
