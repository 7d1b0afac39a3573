//! A run folder, read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{RunInfo, Sample, Scenario, Verdict, read_jsonl};
use serde_json::Value;

use crate::{ReportError, metric::Rate};

/// Everything a report needs of a run.
pub struct RunFolder {
    /// Where the run is.
    pub path: PathBuf,
    /// `run.json`.
    pub info: RunInfo,
    /// `metrics.json`.
    pub metrics: Value,
    /// The scenarios and tasks that were used.
    pub suite: Vec<Scenario>,
    /// Every sample.
    pub samples: Vec<Sample>,
    /// Every verdict.
    pub verdicts: Vec<Verdict>,
}

impl RunFolder {
    /// Reads a finished run.
    ///
    /// # Errors
    /// A file that is missing or malformed, by name.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        Ok(Self {
            path: path.to_owned(),
            info: read_json(path, "run.json")?,
            metrics: read_json(path, "metrics.json")?,
            suite: read_rows(path, "suite.jsonl")?,
            samples: read_rows(path, "samples.jsonl")?,
            verdicts: read_rows(path, "verdicts.jsonl")?,
        })
    }

    /// A metric of an arm over everything.
    pub fn rate(&self, arm: &str, metric: &str) -> Rate {
        Rate::from_json(&self.metrics["arms"][arm][metric])
    }

    /// A metric of an arm within a group of scenarios, such as `unseen_idiom` or `cwe:CWE-089`.
    pub fn group_rate(&self, group: &str, arm: &str, metric: &str) -> Rate {
        Rate::from_json(&self.metrics["groups"][group][arm][metric])
    }

    /// Whether a metric's judge also chose what an arm was trained on.
    pub fn is_same_judge(&self, metric: &str) -> bool {
        self.info.same_judge.iter().any(|key| key == metric)
    }

    /// The groups whose name starts with `prefix`, in order.
    pub fn groups(&self, prefix: &str) -> Vec<&str> {
        let groups = self.metrics["groups"].as_object();
        groups.map_or_else(Vec::new, |groups| {
            groups.keys().map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
        })
    }

    /// The difference of a metric between two arms (first minus second), where it was computed.
    pub fn difference(&self, arm: &str, other: &str, metric: &str) -> Option<Rate> {
        self.metrics["differences"].as_array()?.iter().find_map(|row| {
            let everything = row.get("group").is_none_or(|group| group == "all");
            (everything && row["arm"] == arm && row["other"] == other && row["metric"] == metric)
                .then(|| Rate::from_json(row))
        })
    }
}

fn read_json<T: serde::de::DeserializeOwned>(
    folder: &Path,
    file: &'static str,
) -> Result<T, ReportError> {
    let path = folder.join(file);
    let bytes =
        fs::read(&path).map_err(|_| ReportError::Missing { folder: folder.to_owned(), file })?;
    serde_json::from_slice(&bytes).map_err(|source| ReportError::Json { path, source })
}

fn read_rows<T: serde::de::DeserializeOwned>(
    folder: &Path,
    file: &'static str,
) -> Result<Vec<T>, ReportError> {
    let path = folder.join(file);
    if !path.exists() {
        return Err(ReportError::Missing { folder: folder.to_owned(), file });
    }
    Ok(read_jsonl(&path)?)
}
