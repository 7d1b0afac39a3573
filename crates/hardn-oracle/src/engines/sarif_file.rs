//! A saved SARIF log as an engine: what some tool said of these files, some time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use hardn_types::{Analysis, Cwe, Finding, Judge, Language, Piece, TraceStep};

use super::{
    engine::Engine,
    place::Lines,
    sarif::{SarifRun, read_sarif},
};
use crate::{OracleError, Result};

/// The runs of a log. Only pieces that are files can be found in it.
#[derive(Debug)]
pub struct SarifFile {
    path: PathBuf,
    id: String,
    name: String,
    runs: Vec<SarifRun>,
    covers: Vec<Cwe>,
}

impl SarifFile {
    /// Reads a log.
    ///
    /// # Errors
    /// [`OracleError::Read`] for a file that cannot be read, [`OracleError::Sarif`] for one that is no SARIF log.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| OracleError::Read { path: path.to_owned(), source })?;
        let runs = read_sarif(&text)
            .map_err(|message| OracleError::Sarif { path: path.to_owned(), message })?;
        let mut ids: Vec<&str> = Vec::new();
        let mut tools: Vec<String> = Vec::new();
        for run in &runs {
            let version = run.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
            let tool = format!("{}{version}", run.tool);
            if !tools.contains(&tool) {
                tools.push(tool);
            }
            if !ids.contains(&run.tool.as_str()) {
                ids.push(&run.tool);
            }
        }
        let (id, name) = (format!("sarif:{}", ids.join("+")), tools.join(" + "));
        let described = runs.iter().flat_map(|run| run.rules.values().flatten());
        let found = runs.iter().flat_map(|run| run.results.iter().flat_map(|r| &r.cwe));
        let covers: BTreeSet<Cwe> = described.chain(found).copied().collect();
        Ok(Self { path: path.to_owned(), id, name, runs, covers: covers.into_iter().collect() })
    }

    /// What the runs say of one file.
    fn of_file(&self, piece: &Piece, is_here: impl Fn(&str) -> bool) -> Analysis {
        let mut findings = Vec::new();
        let lines = Lines::new(piece.code);
        for run in &self.runs {
            for (uri, why) in &run.failures {
                if uri.as_ref().is_none_or(|uri| is_here(uri)) {
                    let why = format!("{}: {why}", self.path.display());
                    return Analysis::not_analysed(Some(piece.language), why);
                }
            }
            let results = run.results.iter().filter(|result| is_here(&result.at.uri));
            findings.extend(results.map(|result| {
                Finding {
                    engine: self.id.clone(),
                    rule: result.rule.clone(),
                    cwe: result.cwe.clone(),
                    span: lines.span(result.at.place, result.columns),
                    message: result.message.clone(),
                    trace: result
                        .trace
                        .iter()
                        .filter(|(at, _)| is_here(&at.uri))
                        .map(|(at, message)| TraceStep {
                            span: lines.span(at.place, result.columns),
                            message: message.clone(),
                        })
                        .collect(),
                }
            }));
            let listed = run.analysed.as_ref().is_none_or(|files| files.iter().any(|f| is_here(f)));
            if !listed && findings.is_empty() {
                let why = format!("{}: does not list the file", self.path.display());
                return Analysis::not_analysed(Some(piece.language), why);
            }
        }
        findings.sort_by(|a, b| (a.span, &a.rule).cmp(&(b.span, &b.rule)));
        Analysis {
            language: Some(piece.language),
            findings,
            covers: self.covers.clone(),
            not_analysed: None,
        }
    }

    /// Every file the log names.
    fn uris(&self) -> BTreeSet<&str> {
        let mut uris = BTreeSet::new();
        for run in &self.runs {
            uris.extend(run.results.iter().map(|result| result.at.uri.as_str()));
            uris.extend(run.failures.iter().filter_map(|(uri, _)| uri.as_deref()));
            uris.extend(run.analysed.iter().flatten().map(String::as_str));
        }
        uris
    }
}

impl Engine for SarifFile {
    fn id(&self) -> &str {
        &self.id
    }

    fn reads(&self, _: Language) -> bool {
        true
    }

    fn record(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("version".to_owned(), self.name.clone())])
    }
}

impl Judge for SarifFile {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn judge(&self, code: &str, language: Language) -> Analysis {
        self.judge_all(&[Piece::new(code, language)]).remove(0)
    }

    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        let parts: Vec<Vec<String>> =
            pieces.iter().map(|piece| piece.path.map(parts_of).unwrap_or_default()).collect();
        // Each file of the log is one of the pieces: that whose path has most in common with it.
        let owners: Vec<(&str, Vec<usize>)> = self
            .uris()
            .into_iter()
            .map(|uri| {
                let uri_parts = parts_of(Path::new(uri));
                let distance = |parts: &Vec<String>| {
                    let short = parts.len().min(uri_parts.len());
                    let same = short > 0
                        && parts[parts.len() - short..] == uri_parts[uri_parts.len() - short..];
                    same.then(|| parts.len().abs_diff(uri_parts.len()))
                };
                let least = parts.iter().filter_map(distance).min();
                let owned = |(number, parts)| {
                    (least.is_some() && distance(parts) == least).then_some(number)
                };
                (uri, parts.iter().enumerate().filter_map(owned).collect())
            })
            .collect();
        pieces
            .iter()
            .enumerate()
            .map(|(number, piece)| {
                if piece.path.is_none() {
                    let why = format!("{}: the code is in no file", self.path.display());
                    return Analysis::not_analysed(Some(piece.language), why);
                }
                let mine: BTreeSet<&str> = owners
                    .iter()
                    .filter(|(_, numbers)| numbers.contains(&number))
                    .map(|(uri, _)| *uri)
                    .collect();
                self.of_file(piece, |uri| mine.contains(uri))
            })
            .collect()
    }
}

/// The names in a path, from the root or from here.
fn parts_of(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}
