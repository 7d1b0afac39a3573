//! What several engines said, for programs: failures as JSON Lines, a SARIF run for each engine.

use std::{collections::BTreeMap, io::Write};

use hardn_types::Analysis;
use serde_json::{Value, json};

use super::engine::Engine;
use crate::{ENGINE, FileResult, Mode, Oracle, OracleError, Result, output, write_sarif};

/// An engine and what became of the files.
#[derive(Clone, Debug)]
pub struct EngineRun {
    /// Its name in findings.
    pub id: String,
    /// Name and version.
    pub name: String,
    /// What determines its answers, such as hashes of queries.
    pub record: BTreeMap<String, String>,
    /// Files in a language it reads.
    pub n_asked: usize,
    /// Paths it did not analyse though it reads the language, and why.
    pub not_analysed: Vec<(String, String)>,
}

impl EngineRun {
    /// What an engine answered about files, in their order; `None` where it does not read the language.
    pub fn new(engine: &dyn Engine, paths: &[&str], answers: &[Option<Analysis>]) -> Self {
        let failed = paths.iter().zip(answers).filter_map(|(path, answer)| {
            Some(((*path).to_owned(), answer.as_ref()?.not_analysed.clone()?))
        });
        Self {
            id: engine.id().to_owned(),
            name: engine.name(),
            record: engine.record(),
            n_asked: answers.iter().flatten().count(),
            not_analysed: failed.collect(),
        }
    }
}

/// Writes a JSON line for each file that an engine did not analyse and others did.
///
/// # Errors
/// [`OracleError::Write`] where the output cannot be written.
pub fn write_engine_failures(
    out: &mut dyn Write,
    results: &[FileResult],
    engines: &[EngineRun],
) -> Result<()> {
    let said: Vec<&str> = results
        .iter()
        .filter(|result| result.analysis.not_analysed.is_some())
        .map(|result| result.path.as_str())
        .collect();
    for engine in engines {
        for (path, why) in engine.not_analysed.iter().filter(|(p, _)| !said.contains(&p.as_str())) {
            serde_json::to_writer(
                &mut *out,
                &json!({"path": path, "engine": engine.id, "not_analysed": why}),
            )?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Writes one SARIF log with a run for each engine.
///
/// # Errors
/// [`OracleError::Write`] and [`OracleError::Json`] where the output cannot be written.
pub fn write_sarif_runs(
    out: &mut dyn Write,
    oracle: &Oracle,
    results: &[FileResult],
    mode: Mode,
    engines: &[EngineRun],
) -> Result<()> {
    let mut runs = Vec::new();
    let mut log = Value::Null;
    for engine in engines {
        let own: Vec<FileResult> = results.iter().map(|result| only(result, engine)).collect();
        if engine.id != ENGINE {
            runs.push(run_of(engine, &own));
            continue;
        }
        let mut text = Vec::new();
        write_sarif(&mut text, oracle, &own, mode)?;
        log = serde_json::from_slice(&text)?;
        if let Some(own) = log["runs"].as_array_mut() {
            runs.append(own);
        }
    }
    if log.is_null() {
        log =
            json!({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0"});
    }
    log["runs"] = runs.into();
    serde_json::to_writer_pretty(&mut *out, &log).map_err(OracleError::Json)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// A file's result with one engine's part of it.
fn only(result: &FileResult, engine: &EngineRun) -> FileResult {
    let mut own = result.clone();
    own.analysis.findings.retain(|finding| finding.engine == engine.id);
    own.suppressed.retain(|gone| gone.finding.engine == engine.id);
    let failed = engine.not_analysed.iter().find(|(path, _)| *path == own.path);
    own.analysis.not_analysed = failed.map(|(_, why)| why.clone());
    if engine.id != ENGINE {
        own.warnings.clear();
    }
    own
}

fn run_of(engine: &EngineRun, results: &[FileResult]) -> Value {
    let (found, notifications) = output::entries(results, &|_| None);
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    let suppressed = results.iter().flat_map(|result| &result.suppressed).map(|gone| &gone.finding);
    for finding in results.iter().flat_map(|result| &result.analysis.findings).chain(suppressed) {
        let tags: Vec<String> =
            finding.cwe.iter().map(|cwe| format!("external/cwe/cwe-{:03}", cwe.0)).collect();
        rules.insert(&finding.rule, json!({"id": finding.rule, "properties": {"tags": tags}}));
    }
    let mut driver = json!({"name": engine.id, "rules": rules.into_values().collect::<Vec<_>>()});
    if let Some(version) = engine.record.get("version") {
        driver["version"] = version.as_str().into();
    }
    json!({
        "tool": {"driver": driver},
        "results": found,
        "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "properties": engine.record,
    })
}
