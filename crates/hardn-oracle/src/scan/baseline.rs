//! Baselines: findings that are known and not reported again.
//!
//! A finding is known by its fingerprint: a hash of the rule, the path, the text of the flagged lines without white
//! space, and how many equal ones come before it in the file. So it stays known when lines move.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use hardn_types::{Cwe, write_atomic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FileResult, ScanFilter};
use crate::{OracleError, Result};

/// The version of the file's layout.
const VERSION: u32 = 1;

/// Known findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    version: u32,
    findings: Vec<Entry>,
}

/// What one fingerprint stands for; only the fingerprint is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    line: u32,
    rule: String,
    cwe: Vec<Cwe>,
    fingerprint: String,
}

impl Baseline {
    /// Everything that results report.
    pub fn of(results: &[FileResult]) -> Self {
        let mut findings = Vec::new();
        for result in results {
            for (finding, fingerprint) in result.analysis.findings.iter().zip(fingerprints(result))
            {
                findings.push(Entry {
                    path: normal(&result.path),
                    line: finding.span.line,
                    rule: finding.rule.clone(),
                    cwe: finding.cwe.clone(),
                    fingerprint,
                });
            }
        }
        findings.sort();
        Self { version: VERSION, findings }
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// [`OracleError::Read`] and [`OracleError::Baseline`] for a file that is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|source| OracleError::Read { path: path.to_owned(), source })?;
        let fail = |message: String| OracleError::Baseline { path: path.to_owned(), message };
        let baseline: Self =
            serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        if baseline.version != VERSION {
            return Err(fail(format!(
                "it has version {}, this hardn reads {VERSION}",
                baseline.version
            )));
        }
        Ok(baseline)
    }

    /// Writes it; a failure leaves the old file.
    ///
    /// # Errors
    /// [`OracleError::File`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(write_atomic(path, text.as_bytes())?)
    }

    /// Number of findings in it.
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Takes known findings out of results. Gives the number of entries that `filter` accepts and nothing was found
    /// for, in files that were analysed or are gone.
    pub fn apply(&self, results: &mut [FileResult], filter: &ScanFilter) -> usize {
        let known: BTreeSet<&str> =
            self.findings.iter().map(|entry| entry.fingerprint.as_str()).collect();
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut analysed: BTreeSet<String> = BTreeSet::new();
        for result in results {
            if result.analysis.not_analysed.is_none() {
                analysed.insert(normal(&result.path));
            }
            let mut prints = fingerprints(result).into_iter();
            let before = result.analysis.findings.len();
            result.analysis.findings.retain(|_| {
                let print = prints.next().unwrap_or_default();
                let is_known = known.contains(print.as_str());
                if is_known {
                    used.insert(print);
                }
                !is_known
            });
            result.in_baseline += before - result.analysis.findings.len();
        }
        self.findings
            .iter()
            .filter(|entry| filter.accepts(&entry.rule, &entry.cwe))
            .filter(|entry| !used.contains(&entry.fingerprint))
            .filter(|entry| analysed.contains(&entry.path) || !Path::new(&entry.path).exists())
            .count()
    }
}

/// One fingerprint per finding of a result, in their order.
pub fn fingerprints(result: &FileResult) -> Vec<String> {
    if result.analysis.findings.is_empty() {
        return Vec::new();
    }
    let lines: Vec<&str> = result.code.split('\n').collect();
    let path = normal(&result.path);
    let mut before: BTreeMap<String, u32> = BTreeMap::new();
    result
        .analysis
        .findings
        .iter()
        .map(|finding| {
            let first = (finding.span.line as usize).saturating_sub(1).min(lines.len());
            let last = (finding.span.end_line as usize).clamp(first, lines.len());
            let text = lines[first..last].iter().flat_map(|line| line.chars());
            let text: String = text.filter(|c| !c.is_whitespace()).collect();
            let what = format!("{}\0{path}\0{text}", finding.rule);
            let ordinal = before.entry(what.clone()).or_default();
            let digest = Sha256::digest(format!("{what}\0{ordinal}"));
            *ordinal += 1;
            format!("{digest:x}")[..32].to_owned()
        })
        .collect()
}

/// The path from the current folder, with slashes.
fn normal(path: &str) -> String {
    let here = env::current_dir().unwrap_or_default();
    let inner = Path::new(path).strip_prefix(here).unwrap_or(Path::new(path));
    let text = inner.to_string_lossy().replace('\\', "/");
    let mut text = text.as_str();
    while let Some(rest) = text.strip_prefix("./") {
        text = rest;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use hardn_types::Language;

    use super::*;
    use crate::{Mode, Oracle, scan_text};

    fn scan(code: &str) -> [FileResult; 1] {
        [scan_text(Oracle::shared(), "./a.py", code.to_owned(), Language::Python, Mode::Snippet)]
    }

    /// How many findings stay after the baseline of `old`, and how many of its entries are gone.
    #[track_caller]
    fn check(old: &str, new: &str, left: usize, stale: usize) {
        let baseline = Baseline::of(&scan(old));
        let mut results = scan(new);
        let gone = baseline.apply(&mut results, &ScanFilter::default());
        assert_eq!((results[0].analysis.findings.len(), gone), (left, stale), "{new}");
    }

    #[test]
    fn a_finding_stays_known_when_lines_move() {
        let one = "def f(x):\n    return eval(x)\n";
        check(one, one, 0, 0);
        check(
            one,
            "import os\n\n\ndef g():\n    return 1\n\n\ndef f(x):\n      return  eval(x)\n",
            0,
            0,
        );
        check(one, "def f(x):\n    return eval(x + 1)\n", 1, 1);
        check(one, "def f(x):\n    return eval(x)\n\n\ndef g(x):\n    return eval(x)\n", 1, 0);
        check("def f(x):\n    return eval(x)\n\n\ndef g(x):\n    return eval(x)\n", one, 0, 1);
        check(one, "def f(x):\n    return x\n", 0, 1);
    }

    #[test]
    fn a_file_that_is_no_baseline_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("baseline.json");
        Baseline::of(&scan("def f(x):\n    return eval(x)\n")).write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap().len(), 1);
        for text in ["{\"version\":1,\"findings\":[", "[]", "{\"version\":9,\"findings\":[]}"] {
            fs::write(&path, text).unwrap();
            let error = Baseline::read(&path).unwrap_err().to_string();
            assert!(error.contains("baseline.json"), "{error}");
        }
    }
}
