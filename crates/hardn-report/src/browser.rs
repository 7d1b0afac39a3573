//! The data behind the sample browser: a bounded, deterministic choice of samples.

use std::collections::BTreeMap;

use hardn_types::{Sample, Scenario, Verdict};
use serde::Serialize;
use serde_json::json;

use crate::RunFolder;

/// The rows the browser's script reads, as JSON that is safe inside a `<script>` element.
pub(crate) fn browser_data(run: &RunFolder, per_scenario: usize) -> String {
    let samples: BTreeMap<(&str, &str, u32), &Sample> =
        run.samples.iter().map(|s| ((s.arm.as_str(), s.task.as_str(), s.index), s)).collect();
    let mut rows = Vec::new();
    for verdict in &run.verdicts {
        if verdict.index as usize >= per_scenario {
            continue;
        }
        let key = (verdict.arm.as_str(), verdict.task.as_str(), verdict.index);
        rows.push(row(verdict, samples.get(&key).copied()));
    }
    rows.sort_by(|a, b| (&a.task, &a.arm, a.index).cmp(&(&b.task, &b.arm, b.index)));
    let scenarios: BTreeMap<&str, serde_json::Value> =
        run.suite.iter().map(|scenario| (scenario.id.as_str(), scenario_row(scenario))).collect();
    let arms: Vec<_> =
        run.info.arms.iter().map(|arm| json!({"id": arm.id, "title": arm.title})).collect();
    let data = json!({"arms": arms, "scenarios": scenarios, "samples": rows});
    // `</script>` and `<!--` inside a string would end the element early.
    data.to_string().replace('<', "\\u003c")
}

#[derive(Serialize)]
struct Row {
    task: String,
    arm: String,
    index: u32,
    /// One word for the outcome; the colour of the badge.
    outcome: &'static str,
    facts: Vec<String>,
    completion: String,
    /// Code-point length of each token, and its probability in per cent.
    tokens: Vec<(u32, f32)>,
    findings: Vec<serde_json::Value>,
}

fn row(verdict: &Verdict, sample: Option<&Sample>) -> Row {
    let tokens = sample.map_or_else(Vec::new, |sample| {
        let chars = sample.token_chars.iter().copied();
        let probabilities =
            sample.log_probs.iter().map(|log_prob| (log_prob.exp() * 1000.0).round() / 10.0);
        chars.zip(probabilities).collect()
    });
    let findings = verdict.findings.iter().map(|finding| {
        json!({
            "line": finding.span.line, "column": finding.span.column,
            "end_line": finding.span.end_line, "end_column": finding.span.end_column,
            "rule": finding.rule, "message": finding.message,
        })
    });
    Row {
        task: verdict.task.clone(),
        arm: verdict.arm.clone(),
        index: verdict.index,
        outcome: outcome(verdict),
        facts: facts(verdict),
        completion: verdict.completion.clone(),
        tokens,
        findings: findings.collect(),
    }
}

/// The most telling word: what a reader scans for.
pub(crate) fn outcome(verdict: &Verdict) -> &'static str {
    use hardn_types::{OracleVerdict, TestVerdict};
    let works = verdict.function.is_none_or(|function| function == TestVerdict::Passed);
    let by_oracle = verdict.oracle_target.unwrap_or(verdict.oracle_any);
    match verdict.attack {
        _ if !verdict.valid => "invalid",
        Some(TestVerdict::Attacked | TestVerdict::Timeout) => "attacked",
        Some(_) if works => "secure",
        Some(_) => "held, fails function",
        None if !works => "fails function",
        None if by_oracle == OracleVerdict::Vulnerable => "flagged",
        None if by_oracle == OracleVerdict::NotAnalysed => "not analysed",
        None => "passes",
    }
}

fn facts(verdict: &Verdict) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(why) = &verdict.invalid_because {
        facts.push(format!("invalid: {why}"));
    }
    if let Some(function) = &verdict.function {
        facts.push(format!("function test: {}", word(function)));
    }
    if let Some(attack) = &verdict.attack {
        facts.push(format!("attack: {}", word(attack)));
    }
    if let Some(target) = &verdict.oracle_target {
        facts.push(format!("oracle, this class: {}", word(target)));
    }
    facts.push(format!("oracle, any class: {}", word(&verdict.oracle_any)));
    if let Some(earlier) = verdict.duplicate_of {
        facts.push(format!("same text as sample {earlier}"));
    }
    facts
}

/// The name an enum is serialised under.
fn word<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().map(|text| text.replace('_', " ")).unwrap_or_default()
}

fn scenario_row(scenario: &Scenario) -> serde_json::Value {
    json!({
        "cwe": scenario.cwe.map(|cwe| cwe.to_string()),
        "language": scenario.language.name(),
        "family": scenario.family,
        "instruction": scenario.instruction,
        "prompt": scenario.prompt,
    })
}
