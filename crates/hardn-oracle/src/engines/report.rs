//! What several engines said, for programs: failures as JSON Lines, a SARIF run for each engine.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Value, json};

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
    /// Paths it did not analyse though it reads the language, and why.
    pub not_analysed: Vec<(String, String)>,
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
        if engine.id == ENGINE {
            let own: Vec<FileResult> = results.iter().map(|result| only(result, engine)).collect();
            let mut text = Vec::new();
            write_sarif(&mut text, oracle, &own, mode)?;
            log = serde_json::from_slice(&text)?;
            runs.append(log["runs"].as_array_mut().unwrap_or(&mut Vec::new()));
        } else {
            runs.push(run_of(engine, results)?);
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
    own.analysis.not_analysed =
        engine.not_analysed.iter().find(|(path, _)| *path == own.path).map(|(_, why)| why.clone());
    own
}

fn run_of(engine: &EngineRun, results: &[FileResult]) -> Result<Value> {
    let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
    let mut found = Vec::new();
    for result in results {
        for finding in result.analysis.findings.iter().filter(|f| f.engine == engine.id) {
            let tags: Vec<String> =
                finding.cwe.iter().map(|cwe| format!("external/cwe/cwe-{:03}", cwe.0)).collect();
            rules.insert(&finding.rule, json!({"id": finding.rule, "properties": {"tags": tags}}));
            found.push(serde_json::to_value(output::result_of(finding, &result.path, None)?)?);
        }
    }
    let notifications: Vec<Value> = engine
        .not_analysed
        .iter()
        .map(|(path, why)| {
            json!({
                "level": "warning",
                "message": {"text": format!("not analysed: {why}")},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": output::uri(path)}}}],
            })
        })
        .collect();
    let mut driver = json!({"name": engine.id, "rules": rules.into_values().collect::<Vec<_>>()});
    if let Some(version) = engine.record.get("version") {
        driver["version"] = version.as_str().into();
    }
    Ok(json!({
        "tool": {"driver": driver},
        "results": found,
        "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "properties": engine.record,
    }))
}
