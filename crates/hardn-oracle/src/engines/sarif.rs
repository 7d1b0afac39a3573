//! Reading SARIF 2.1.0 logs, leniently: tools differ in what they leave out.

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::{Cwe, Finding, Span, TraceStep};
use serde_json::Value;

use super::place::{Columns, Place};

/// One run of a log.
#[derive(Debug, Default)]
pub(crate) struct SarifRun {
    pub(crate) tool: String,
    pub(crate) version: Option<String>,
    /// Query packs and other extensions, with their versions.
    pub(crate) extensions: BTreeMap<String, String>,
    /// The classes of every rule the log describes.
    pub(crate) rules: BTreeMap<String, Vec<Cwe>>,
    pub(crate) results: Vec<SarifResult>,
    /// The files that were analysed, where the log says so.
    pub(crate) analysed: Option<BTreeSet<String>>,
    /// What the tool could not do: for a file, or for all.
    pub(crate) failures: Vec<(Option<String>, String)>,
}

/// One result.
#[derive(Debug)]
pub(crate) struct SarifResult {
    pub(crate) rule: String,
    pub(crate) cwe: Vec<Cwe>,
    pub(crate) message: String,
    pub(crate) at: SarifPlace,
    pub(crate) columns: Columns,
    pub(crate) trace: Vec<(SarifPlace, String)>,
}

impl SarifResult {
    /// The same as a finding of an engine.
    pub(crate) fn finding(&self, engine: &str, span: Span, trace: Vec<TraceStep>) -> Finding {
        Finding {
            engine: engine.to_owned(),
            rule: self.rule.clone(),
            cwe: self.cwe.clone(),
            span,
            message: self.message.clone(),
            trace,
        }
    }
}

/// A file and a place in it.
#[derive(Clone, Debug)]
pub(crate) struct SarifPlace {
    pub(crate) uri: String,
    pub(crate) place: Place,
}

/// Reads a log.
///
/// # Errors
/// What is wrong with it, as a sentence without an end.
pub(crate) fn read_sarif(text: &str) -> Result<Vec<SarifRun>, String> {
    let log: Value =
        serde_json::from_str(text).map_err(|error| format!("the SARIF is not JSON ({error})"))?;
    let runs = log["runs"].as_array().ok_or("the SARIF has no `runs`")?;
    if runs.is_empty() {
        return Err("the SARIF has no run".to_owned());
    }
    runs.iter().map(read_run).collect()
}

fn read_run(run: &Value) -> Result<SarifRun, String> {
    let driver = &run["tool"]["driver"];
    let tool = driver["name"].as_str().ok_or("a run of the SARIF names no tool")?.to_owned();
    let mut read = SarifRun { tool, ..SarifRun::default() };
    read.version = version_of(driver);
    let extensions = list(&run["tool"]["extensions"]);
    for extension in extensions {
        if let (Some(name), Some(version)) = (extension["name"].as_str(), version_of(extension)) {
            read.extensions.insert(name.to_owned(), version);
        }
    }
    for component in std::iter::once(driver).chain(extensions) {
        for rule in list(&component["rules"]) {
            if let Some(id) = rule["id"].as_str() {
                read.rules.insert(id.to_owned(), classes(rule));
            }
        }
    }
    // SARIF 2.1.0, 3.14.17: UTF-16 where a run does not say.
    let columns = match run["columnKind"].as_str() {
        Some("unicodeCodePoints") => Columns::CodePoints,
        _ => Columns::Utf16,
    };
    let bases = &run["originalUriBaseIds"];
    let results = run["results"].as_array();
    for result in results.into_iter().flatten() {
        if let Some(result) = read_result(result, run, &read.rules, bases, columns) {
            read.results.push(result);
        }
    }
    let targets: BTreeSet<String> = list(&run["artifacts"])
        .iter()
        .filter(|artifact| {
            list(&artifact["roles"]).iter().any(|role| role.as_str() == Some("analysisTarget"))
        })
        .filter_map(|artifact| uri_of(&artifact["location"], bases))
        .collect();
    read.analysed = (!targets.is_empty()).then_some(targets);
    for invocation in list(&run["invocations"]) {
        for notification in list(&invocation["toolExecutionNotifications"]) {
            read_notification(notification, bases, &mut read.failures);
        }
        if invocation["executionSuccessful"].as_bool() == Some(false) {
            let why = invocation["exitCodeDescription"].as_str().unwrap_or("the run failed");
            read.failures.push((None, format!("the SARIF says that {why}")));
        }
    }
    if results.is_none() {
        // 3.14.23: no `results` means that the run did not get to them.
        read.failures.push((None, "the SARIF has a run without results".to_owned()));
    }
    Ok(read)
}

fn read_notification(
    notification: &Value,
    bases: &Value,
    failures: &mut Vec<(Option<String>, String)>,
) {
    let text = notification["message"]["text"].as_str().unwrap_or_default();
    let failed = match notification["level"].as_str() {
        Some("error") => true,
        _ => text.starts_with("not analysed"),
    };
    if !failed {
        return;
    }
    let text = text.strip_prefix("not analysed: ").unwrap_or(text).to_owned();
    let places = list(&notification["locations"]);
    let uris: Vec<String> = places
        .iter()
        .filter_map(|place| uri_of(&place["physicalLocation"]["artifactLocation"], bases))
        .collect();
    if uris.is_empty() {
        failures.push((None, text));
    } else {
        failures.extend(uris.into_iter().map(|uri| (Some(uri), text.clone())));
    }
}

fn read_result(
    result: &Value,
    run: &Value,
    rules: &BTreeMap<String, Vec<Cwe>>,
    bases: &Value,
    columns: Columns,
) -> Option<SarifResult> {
    let passed = matches!(result["kind"].as_str(), Some("pass" | "notApplicable"));
    let suppressed = list(&result["suppressions"])
        .iter()
        .any(|suppression| !matches!(suppression["status"].as_str(), Some("rejected")));
    if passed || suppressed {
        return None;
    }
    let rule = rule_of(result, run)?;
    let mut cwe = rules.get(&rule).cloned().unwrap_or_default();
    cwe.extend(classes(result));
    let mut seen = BTreeSet::new();
    cwe.retain(|cwe| seen.insert(*cwe));
    let at = place_of(result["locations"].get(0)?, bases)?;
    let message = result["message"]["text"].as_str().unwrap_or(&rule).to_owned();
    let trace = list(&result["codeFlows"][0]["threadFlows"][0]["locations"])
        .iter()
        .filter_map(|step| {
            let location = &step["location"];
            let text = location["message"]["text"].as_str().unwrap_or_default().to_owned();
            Some((place_of(location, bases)?, text))
        })
        .collect();
    Some(SarifResult { rule, cwe, message, at, columns, trace })
}

fn rule_of(result: &Value, run: &Value) -> Option<String> {
    let named = result["ruleId"].as_str().or_else(|| result["rule"]["id"].as_str());
    if let Some(id) = named {
        return Some(id.to_owned());
    }
    let index = result["ruleIndex"].as_u64().or_else(|| result["rule"]["index"].as_u64())?;
    let component = match result["rule"]["toolComponent"]["index"].as_u64() {
        Some(extension) => &run["tool"]["extensions"][extension as usize],
        None => &run["tool"]["driver"],
    };
    component["rules"][index as usize]["id"].as_str().map(str::to_owned)
}

fn place_of(location: &Value, bases: &Value) -> Option<SarifPlace> {
    let physical = &location["physicalLocation"];
    let uri = uri_of(&physical["artifactLocation"], bases)?;
    let number = |key: &str| physical["region"][key].as_u64().map(|n| n as u32);
    let place = Place {
        line: number("startLine").unwrap_or(1),
        column: number("startColumn"),
        end_line: number("endLine"),
        end_column: number("endColumn"),
    };
    Some(SarifPlace { uri, place })
}

/// The file an artifact location names: its base's path, if that is given, and its own, decoded.
fn uri_of(location: &Value, bases: &Value) -> Option<String> {
    let uri = location["uri"].as_str()?;
    let base = location["uriBaseId"].as_str().and_then(|id| bases[id]["uri"].as_str());
    let whole = match base {
        Some(base) if !uri.contains(':') && !uri.starts_with('/') => {
            format!("{}/{uri}", base.trim_end_matches('/'))
        }
        _ => uri.to_owned(),
    };
    Some(decode(whole.strip_prefix("file://").unwrap_or(&whole)))
}

/// Undoes percent-encoding.
fn decode(uri: &str) -> String {
    let mut bytes = Vec::with_capacity(uri.len());
    let mut rest = uri.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The classes a rule or result names: in its tags, its `cwe` property, its relationships or its taxa.
fn classes(value: &Value) -> Vec<Cwe> {
    let mut texts: Vec<&str> = Vec::new();
    let properties = &value["properties"];
    for key in ["tags", "cwe"] {
        texts.extend(properties[key].as_str());
        texts.extend(list(&properties[key]).iter().filter_map(Value::as_str));
    }
    let mut found: Vec<Cwe> = texts.into_iter().filter_map(class_in).collect();
    let targets = list(&value["relationships"]).iter().map(|relation| &relation["target"]);
    for target in targets.chain(list(&value["taxa"])) {
        if target["toolComponent"]["name"].as_str().is_some_and(|n| n.eq_ignore_ascii_case("cwe")) {
            found.extend(target["id"].as_str().and_then(|id| id.parse::<Cwe>().ok()));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|cwe| seen.insert(*cwe));
    found
}

/// The class in texts such as `external/cwe/cwe-089` and `CWE-89: SQL injection`.
pub(crate) fn class_in(text: &str) -> Option<Cwe> {
    let lower = text.to_ascii_lowercase();
    let rest = &lower[lower.find("cwe-")? + 4..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

fn version_of(component: &Value) -> Option<String> {
    let version = component["semanticVersion"].as_str().or_else(|| component["version"].as_str());
    version.map(str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_rule_and_its_class_is_read() {
        let log = serde_json::json!({"version": "2.1.0", "runs": [{
            "tool": {
                "driver": {"name": "T", "semanticVersion": "1.2.3", "rules": [
                    {"id": "a", "properties": {"tags": ["security", "external/cwe/cwe-089"]}},
                    {"id": "b", "relationships": [{"target": {"id": "CWE-120", "toolComponent": {"name": "CWE"}}}]},
                ]},
                "extensions": [{"name": "pack", "semanticVersion": "0.9.0+abc", "rules": [
                    {"id": "c", "properties": {"cwe": ["CWE-79: scripting"]}},
                ]}],
            },
            "originalUriBaseIds": {"ROOT": {"uri": "file:///src/"}},
            "results": [
                {"ruleId": "a", "message": {"text": "m"}, "locations": [{"physicalLocation":
                    {"artifactLocation": {"uri": "x%20y.py", "uriBaseId": "ROOT"}, "region": {"startLine": 3, "startColumn": 2}}}]},
                {"ruleIndex": 1, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}}}]},
                {"rule": {"index": 0, "toolComponent": {"index": 0}}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.js"}}}]},
                {"ruleId": "a", "suppressions": [{"kind": "inSource"}], "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}}}]},
                {"ruleId": "a", "kind": "pass", "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}}}]},
            ],
        }]});
        let run = read_sarif(&log.to_string()).unwrap().remove(0);
        assert_eq!(run.version.as_deref(), Some("1.2.3"));
        assert_eq!(run.extensions["pack"], "0.9.0+abc");
        let seen: Vec<(&str, &str, Vec<Cwe>)> = run
            .results
            .iter()
            .map(|result| (result.rule.as_str(), result.at.uri.as_str(), result.cwe.clone()))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", "/src/x y.py", vec![Cwe(89)]),
                ("b", "a.c", vec![Cwe(120)]),
                ("c", "a.js", vec![Cwe(79)])
            ]
        );
        assert_eq!(run.results[0].at.place.line, 3);
        assert!(run.failures.is_empty());
    }

    #[test]
    fn broken_logs_are_told_from_empty_ones() {
        for (text, said) in [
            ("", "not JSON"),
            ("{\"runs\": [", "not JSON"),
            ("{}", "no `runs`"),
            ("{\"runs\": []}", "no run"),
            ("{\"runs\": [{}]}", "names no tool"),
        ] {
            let error = read_sarif(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let run = |rest: &str| {
            let text =
                format!("{{\"runs\": [{{\"tool\": {{\"driver\": {{\"name\": \"T\"}}}}{rest}}}]}}");
            read_sarif(&text).unwrap().remove(0).failures.len()
        };
        assert_eq!(run(", \"results\": []"), 0);
        assert_eq!(run(""), 1);
        let failed = ", \"results\": [], \"invocations\": [{\"executionSuccessful\": false}]";
        assert_eq!(run(failed), 1);
    }
}
