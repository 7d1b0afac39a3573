//! Reading a labelled corpus.
//!
//! The shape of a row says what is labelled: functions (`units`), one side of a fix (`pair`), or the file. Rows with
//! `rules` are labelled by what another tool's rules match and are not counted.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::CorpusInfo;
use crate::{OracleError, Result};

/// One labelled piece of code; further fields are left alone.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) source: String,
    pub(super) language: String,
    #[serde(default)]
    pub(super) classes: Vec<u16>,
    pub(super) in_scope: bool,
    pub(super) label: String,
    #[serde(default)]
    pub(super) expected_lines: Vec<u32>,
    pub(super) text: String,
    /// First line, last line, label.
    #[serde(default)]
    pub(super) units: Option<Vec<(u32, u32, UnitLabel)>>,
    #[serde(default)]
    pub(super) pair: Option<serde_json::Value>,
    #[serde(default)]
    rules: Option<serde_json::Value>,
}

/// The label of a function: the queries that alert in it, or a word.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum UnitLabel {
    Queries(Vec<serde_json::Value>),
    Word(String),
}

/// What a row labels.
pub(super) enum Shape<'a> {
    /// Functions by the alerts in them, and lines.
    Alerts(&'a [(u32, u32, UnitLabel)]),
    /// Functions by a word.
    Functions(&'a [(u32, u32, UnitLabel)]),
    Pair(String),
    File,
    NotCounted,
}

impl Record {
    pub(super) fn shape(&self) -> Shape<'_> {
        if !self.in_scope || self.rules.is_some() {
            return Shape::NotCounted;
        }
        if let Some(pair) = &self.pair {
            return Shape::Pair(pair.to_string());
        }
        match &self.units {
            Some(units) if matches!(units.first(), Some((_, _, UnitLabel::Word(_)))) => {
                Shape::Functions(units)
            }
            Some(units) => Shape::Alerts(units),
            None if self.label == "both" => Shape::NotCounted,
            None => Shape::File,
        }
    }
}

/// All rows of the `*.jsonl.gz` files of a folder, by file name.
pub(super) fn read(folder: &Path) -> Result<(Vec<Record>, CorpusInfo)> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |source| OracleError::Read { path, source }
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(wrap(folder))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.gz"))
        .collect();
    files.sort();
    let fail = |path: &Path, line: usize, message: String| OracleError::Corpus {
        path: path.to_owned(),
        line,
        message,
    };
    if files.is_empty() {
        return Err(fail(folder, 0, "there are no .jsonl.gz files".to_owned()));
    }
    let mut hash = Sha256::new();
    let mut records = Vec::new();
    for path in &files {
        let mut bytes = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(wrap(path))?;
        hash.update(&bytes);
        for (at, line) in BufReader::new(MultiGzDecoder::new(bytes.as_slice())).lines().enumerate()
        {
            let line = line.map_err(wrap(path))?;
            let record = serde_json::from_str(&line)
                .map_err(|error| fail(path, at + 1, error.to_string()))?;
            records.push(record);
        }
    }
    let info = CorpusInfo {
        files: files.len(),
        records: records.len(),
        sha256: format!("{:x}", hash.finalize()),
    };
    Ok((records, info))
}
