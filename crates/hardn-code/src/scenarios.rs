//! Reading scenarios: our own JSON Lines and the evaluation folders SVEN and SafeCoder publish.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{CutRule, Cwe, Language, Scenario, Split, Tags, read_jsonl};
use serde_json::{Map, Value};

use crate::{CodeError, RowError, is_checked};

/// The scenarios of SVEN's set `trained` that its authors chose settings on; their report leaves them out.
pub const VALIDATION_SCENARIOS: [&str; 6] =
    ["cwe-022/2-py", "cwe-078/2-py", "cwe-089/2-py", "cwe-125/2-c", "cwe-190/2-c", "cwe-787/2-c"];

/// Reads a scenario file, or a published folder: one set (`data_eval/trained`), or several sets.
///
/// In a folder each scenario is a folder with `info.json`, `file_context.*` and `func_context.*`; the prompt is the two
/// contexts one after the other. Its id is `cwe-089/0-py`, with the set before it where several sets are read, and
/// its suite is the set's name. Fields of `info.json` without a place of their own are kept in `extra`. A scenario in a
/// language that hardn cannot check is kept and has `not_checked` in `extra`.
///
/// # Errors
/// [`CodeError::Read`], [`CodeError::Row`] or [`CodeError::Scenario`] for what cannot be read, with its place, and
/// [`CodeError::NoScenarios`] for a folder without any.
pub fn read_scenarios(path: &Path) -> Result<Vec<Scenario>, CodeError> {
    if !path.is_dir() {
        let mut scenarios: Vec<Scenario> = read_jsonl(path).map_err(row_error)?;
        for scenario in &mut scenarios {
            if scenario.family.is_empty() {
                scenario.family.clone_from(&scenario.id);
            }
        }
        return Ok(scenarios);
    }
    let mut folders = Vec::new();
    find_scenarios(path, &mut folders)?;
    if folders.is_empty() {
        return Err(CodeError::NoScenarios { path: path.to_owned() });
    }
    folders.sort();
    let set_of = |folder: &Path| folder.parent().and_then(Path::parent).map(Path::to_owned);
    let several = folders.iter().any(|folder| set_of(folder) != set_of(&folders[0]));
    folders.iter().map(|folder| read_folder(folder, several)).collect()
}

fn row_error(error: hardn_types::JsonlError) -> CodeError {
    match error {
        hardn_types::JsonlError::Parse { path, line, source } => {
            CodeError::Row(RowError { path, line, why: format!("not a scenario: {source}") })
        }
        hardn_types::JsonlError::Read { path, source }
        | hardn_types::JsonlError::Write { path, source } => CodeError::Read { path, source },
    }
}

fn find_scenarios(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), CodeError> {
    let read_error = |source| CodeError::Read { path: folder.to_owned(), source };
    if folder.join("info.json").is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        if entry.file_type().map_err(read_error)?.is_dir() {
            find_scenarios(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn read_folder(folder: &Path, several_sets: bool) -> Result<Scenario, CodeError> {
    let fail = |why: String| CodeError::Scenario { path: folder.to_owned(), why };
    let info_path = folder.join("info.json");
    let text = read_text(&info_path)?;
    let mut info: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| fail(format!("info.json: {error}")))?;
    let mut field = |name: &str| match info.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(fail(format!("info.json: `{name}` is not a text"))),
        None => Err(fail(format!("info.json has no `{name}`"))),
    };
    let language: Language =
        field("language")?.parse().map_err(|error| fail(format!("info.json: {error}")))?;
    let cwe: Cwe = field("cwe")?.parse().map_err(|error| fail(format!("info.json: {error}")))?;
    let instruction = field("description").unwrap_or_default();

    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let suite = name(folder.parent().and_then(Path::parent));
    let short = format!("{}/{}", name(folder.parent()), name(Some(folder)));
    let is_validation = suite == "trained" && VALIDATION_SCENARIOS.contains(&short.as_str());
    if !is_checked(language) {
        let why = format!("hardn has no validity check for {language}");
        info.insert("not_checked".to_owned(), Value::String(why));
    }
    let id = if several_sets { format!("{suite}/{short}") } else { short };
    Ok(Scenario {
        family: id.clone(),
        id,
        suite,
        cwe: Some(cwe),
        language,
        split: if is_validation { Split::Val } else { Split::Test },
        prompt: read_context(folder, "file_context")? + &read_context(folder, "func_context")?,
        instruction,
        cut: CutRule::Sven,
        function_test: None,
        attack_test: None,
        solutions: Vec::new(),
        tags: Tags::default(),
        extra: info,
    })
}

/// The text of the one file with this stem.
fn read_context(folder: &Path, stem: &str) -> Result<String, CodeError> {
    let read_error = |source| CodeError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        if path.file_stem().is_some_and(|found| found == stem) {
            return read_text(&path);
        }
    }
    Err(CodeError::Scenario { path: folder.to_owned(), why: format!("it has no {stem} file") })
}

fn read_text(path: &Path) -> Result<String, CodeError> {
    fs::read_to_string(path).map_err(|source| CodeError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use hardn_types::testing::reference_data;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: usize, checked: usize) -> Option<Vec<Scenario>> {
        let scenarios = read_scenarios(&reference_data(path)?).unwrap();
        let n_checked = scenarios.iter().filter(|s| !s.extra.contains_key("not_checked")).count();
        assert_eq!((scenarios.len(), n_checked), (expected, checked), "{path}");
        let mut ids: Vec<&str> = scenarios.iter().map(|scenario| scenario.id.as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), expected, "{path}");
        Some(scenarios)
    }

    #[test]
    fn published_sets() {
        let Some(trained) = check("sven/data_eval/trained", 24, 24) else { return };
        let validation: Vec<&str> = trained
            .iter()
            .filter(|scenario| scenario.split == Split::Val)
            .map(|scenario| scenario.id.as_str())
            .collect();
        assert_eq!(validation, VALIDATION_SCENARIOS);
        let first = trained.iter().find(|scenario| scenario.id == "cwe-089/0-py").unwrap();
        assert!(first.prompt.contains("import MySQLdb\n") && first.suite == "trained");
        assert_eq!(first.instruction, "unsubscribe an email from a database");
        assert!(first.extra.contains_key("check_ql"));

        check("sven/data_eval/prompts", 17, 17);
        check("sven/data_eval/gen_1", 12, 12);
        check("sven/data_eval/gen_2", 17, 17);
        check("sven/data_eval", 70, 70);
        check("safecoder/data_eval/sec_eval/trained", 24, 24);
        check("safecoder/data_eval/sec_eval/trained-new", 42, 14);
        check("safecoder/data_eval/sec_eval/not-trained", 15, 15);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = read_scenarios(folder.path()).unwrap_err();
        assert!(empty.to_string().contains("holds no scenario"), "{empty}");

        let scenario = folder.path().join("set/cwe-022/0-py");
        fs::create_dir_all(&scenario).unwrap();
        fs::write(scenario.join("info.json"), r#"{"language": "py", "cwe": "CWE-022"}"#).unwrap();
        let error = read_scenarios(folder.path()).unwrap_err();
        assert!(error.to_string().contains("0-py: it has no file_context"), "{error}");

        let file = folder.path().join("suite.jsonl");
        fs::write(&file, "{\"id\": \"a\"}\n").unwrap();
        let error = read_scenarios(&file).unwrap_err();
        assert!(error.to_string().contains("suite.jsonl line 1: not a scenario"), "{error}");
    }
}
