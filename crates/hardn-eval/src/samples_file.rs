//! Samples made elsewhere: one JSON object a line, as other evaluation tools write them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use hardn_types::{FinishReason, Sample, Scenario};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{EvalError, Result};

/// What a file of samples held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplesFile {
    /// The samples, in the order of the file.
    pub samples: Vec<Sample>,
    /// Samples (task, index) that are programs by themselves: a `solution` that does not start with the prompt.
    pub whole_programs: BTreeSet<(String, u32)>,
    /// Rows that could not be used: line number from 1, and why.
    pub bad_rows: Vec<(usize, String)>,
    /// Scenarios of the suite without a sample.
    pub without_samples: Vec<String>,
}

/// Reads samples of one arm. A row has `task_id` (or `task`), `completion` (the text after the prompt) or `solution` (the
/// whole program), and may have `sample` (its number); else the rows of a task are numbered in their order.
///
/// # Errors
/// [`EvalError::Read`]. Bad rows are no error; the caller decides how many are too many.
pub fn read_samples(path: &Path, arm: &str, scenarios: &[Scenario]) -> Result<SamplesFile> {
    let bytes =
        fs::read(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })?;
    let prompts: BTreeMap<&str, &str> =
        scenarios.iter().map(|scenario| (scenario.id.as_str(), scenario.prompt.as_str())).collect();
    let mut found = SamplesFile::default();
    let mut seen: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match read_row(line, arm, &prompts, &mut seen) {
            Ok((sample, is_whole)) => {
                if is_whole {
                    found.whole_programs.insert((sample.task.clone(), sample.index));
                }
                found.samples.push(sample);
            }
            Err(why) => found.bad_rows.push((i + 1, why)),
        }
    }
    found.without_samples = scenarios
        .iter()
        .filter(|scenario| !seen.contains_key(&scenario.id))
        .map(|scenario| scenario.id.clone())
        .collect();
    Ok(found)
}

fn read_row(
    line: &[u8],
    arm: &str,
    prompts: &BTreeMap<&str, &str>,
    seen: &mut BTreeMap<String, BTreeSet<u32>>,
) -> Result<(Sample, bool), String> {
    let row: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let task = ["task_id", "task"].into_iter().find_map(|name| row.get(name));
    let task = match task {
        Some(Value::String(task)) => task.clone(),
        Some(Value::Number(task)) => task.to_string(),
        _ => return Err("it has no `task_id`".to_owned()),
    };
    let Some(prompt) = prompts.get(task.as_str()) else {
        return Err(format!("the suite has no task `{task}`"));
    };
    let (text, is_whole) = match (row.get("completion"), row.get("solution")) {
        (Some(Value::String(completion)), _) => (completion.clone(), false),
        (_, Some(Value::String(solution))) => match solution.strip_prefix(prompt) {
            Some(completion) => (completion.to_owned(), false),
            None => (solution.clone(), true),
        },
        _ => return Err("it has neither `completion` nor `solution` as text".to_owned()),
    };
    let taken = seen.entry(task.clone()).or_default();
    let index = match row.get("sample").or_else(|| row.get("index")) {
        None | Some(Value::Null) => taken.last().map_or(0, |last| last + 1),
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or("`sample` is not a whole number from 0")?,
    };
    if !taken.insert(index) {
        return Err(format!("sample {index} of `{task}` stands in an earlier row already"));
    }
    let mut hash = Sha256::new();
    for part in [prompt.as_bytes(), text.as_bytes(), &[u8::from(is_whole)]] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = String::new();
    for byte in hash.finalize() {
        let _ = write!(key, "{byte:02x}");
    }
    let sample = Sample {
        arm: arm.to_owned(),
        task,
        index,
        key,
        text,
        ids: Vec::new(),
        token_chars: Vec::new(),
        log_probs: Vec::new(),
        authors: String::new(),
        prompt: None,
        repairs: 0,
        finish: FinishReason::Stop,
    };
    Ok((sample, is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_kind() {
        let scenarios: Vec<Scenario> = ["a/1", "a/2", "a/3"]
            .iter()
            .map(|id| {
                serde_json::from_value(serde_json::json!({
                    "id": id, "suite": "s", "language": "python", "split": "test",
                    "prompt": "def f():\n",
                }))
                .unwrap()
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        fs::write(
            &path,
            br#"{"task_id": "a/1", "completion": "    return 1\n"}
{"task_id": "a/1", "solution": "def f():\n    return 2\n"}

{"task_id": "a/2", "solution": "import os\ndef f():\n    return 3\n", "sample": 7}
{"task_id": "a/2", "completion": "", "sample": 7}
{"task_id": "b/1", "completion": ""}
{"task_id": "a/2", "completion": 3}
{"completion": "x"}
{"task_id":
{"task_id": "a/2", "completion": "", "sample": -1}
"#,
        )
        .unwrap();
        let found = read_samples(&path, "mine", &scenarios).unwrap();
        let shown: Vec<(&str, u32, &str)> = found
            .samples
            .iter()
            .map(|sample| (sample.task.as_str(), sample.index, sample.text.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("a/1", 0, "    return 1\n"),
                ("a/1", 1, "    return 2\n"),
                ("a/2", 7, "import os\ndef f():\n    return 3\n"),
            ]
        );
        assert_eq!(found.whole_programs, BTreeSet::from([("a/2".to_owned(), 7)]));
        let lines: Vec<usize> = found.bad_rows.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [5, 6, 7, 8, 9, 10]);
        assert_eq!(found.without_samples, ["a/3"]);
    }
}
