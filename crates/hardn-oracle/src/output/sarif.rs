//! SARIF 2.1.0, as code scanning services read it.

use std::{collections::BTreeMap, fmt::Write as _, io::Write};

use hardn_types::{Finding, Span};
use serde_sarif::sarif;

use crate::{ENGINE, FileResult, Mode, Oracle, OracleError, Result, fingerprints};

/// Writes one SARIF log with one run.
///
/// # Errors
/// [`OracleError::Write`] and [`OracleError::Json`] where the output cannot be written.
pub fn write_sarif(
    out: &mut dyn Write,
    oracle: &Oracle,
    results: &[FileResult],
    mode: Mode,
) -> Result<()> {
    let rules: Vec<_> = oracle.rules().list().map(crate::Rule::info).collect();
    let numbers: BTreeMap<&str, i64> =
        rules.iter().enumerate().map(|(number, rule)| (rule.id.as_str(), number as i64)).collect();
    let descriptors = rules
        .iter()
        .map(|rule| {
            let mut tags = vec!["security".to_owned()];
            tags.extend(rule.cwe.iter().map(|cwe| format!("external/cwe/cwe-{:03}", cwe.0)));
            let properties: sarif::PropertyBag = serde_json::from_value(serde_json::json!({"tags": tags}))?;
            let text = |text: &str| sarif::MultiformatMessageString::builder().text(text).build();
            let relationships: Vec<sarif::ReportingDescriptorRelationship> = rule
                .cwe
                .iter()
                .map(|cwe| {
                    let target: sarif::ReportingDescriptorReference = serde_json::from_value(
                        serde_json::json!({"id": cwe.0.to_string(), "toolComponent": {"name": "CWE"}}),
                    )?;
                    Ok(sarif::ReportingDescriptorRelationship::builder().target(target).kinds(vec!["superset".to_owned()]).build())
                })
                .collect::<Result<_>>()?;
            let mut descriptor: sarif::ReportingDescriptor = serde_json::from_value(serde_json::json!({"id": rule.id}))?;
            descriptor.short_description = Some(text(&rule.message));
            descriptor.help = Some(text(&rule.help));
            descriptor.help_uri = rule.references.first().cloned();
            descriptor.relationships = Some(relationships);
            descriptor.properties = Some(properties);
            Ok(descriptor)
        })
        .collect::<Result<Vec<_>>>()?;
    let (found, notifications) =
        entries(results, &|finding| numbers.get(finding.rule.as_str()).copied());
    let found: Vec<sarif::Result> =
        found.into_iter().map(serde_json::from_value).collect::<std::result::Result<_, _>>()?;
    let mut classes: Vec<u16> =
        rules.iter().flat_map(|rule| rule.cwe.iter().map(|cwe| cwe.0)).collect();
    classes.sort_unstable();
    classes.dedup();
    let taxa: Vec<serde_json::Value> = classes
        .iter()
        .map(|cwe| {
            let help = format!("https://cwe.mitre.org/data/definitions/{cwe}.html");
            serde_json::json!({"id": cwe.to_string(), "name": format!("CWE-{cwe:03}"), "helpUri": help})
        })
        .collect();
    let taxonomy: sarif::ToolComponent = serde_json::from_value(serde_json::json!({
        "name": "CWE",
        "organization": "MITRE",
        "shortDescription": {"text": "Common Weakness Enumeration"},
        "taxa": taxa,
    }))?;
    let driver = sarif::ToolComponent::builder()
        .name(ENGINE)
        .version(env!("CARGO_PKG_VERSION"))
        .semantic_version(env!("CARGO_PKG_VERSION"))
        .information_uri(env!("CARGO_PKG_REPOSITORY"))
        .rules(descriptors)
        .build();
    let invocation: sarif::Invocation = serde_json::from_value(serde_json::json!({
        "executionSuccessful": true,
        "toolExecutionNotifications": notifications,
        "properties": {"mode": mode},
    }))?;
    let run: sarif::Run = sarif::Run::builder()
        .tool(sarif::Tool::builder().driver(driver).build())
        .results(found)
        .taxonomies(vec![taxonomy])
        .invocations(vec![invocation])
        .column_kind(serde_json::json!("unicodeCodePoints"))
        .build();
    let log = sarif::Sarif::builder()
        .schema("https://json.schemastore.org/sarif-2.1.0.json")
        .version(serde_json::json!("2.1.0"))
        .runs(vec![run])
        .build();
    serde_json::to_writer_pretty(&mut *out, &log).map_err(OracleError::Json)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// The results and the notifications of a run. `number` is the index of a finding's rule, where the run describes its rules.
pub(crate) fn entries(
    results: &[FileResult],
    number: &dyn Fn(&Finding) -> Option<i64>,
) -> (Vec<serde_json::Value>, Vec<serde_json::Value>) {
    let (mut found, mut notifications) = (Vec::new(), Vec::new());
    for result in results {
        if let Some(why) = &result.analysis.not_analysed {
            notifications.push(serde_json::json!({
                "level": "warning",
                "message": {"text": format!("not analysed: {why}")},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(&result.path)}}}],
            }));
        }
        for odd in &result.warnings {
            let mut place = serde_json::json!({"artifactLocation": {"uri": uri(&result.path)}});
            if let Some(line) = odd.line {
                place["region"] = serde_json::json!({"startLine": line});
            }
            notifications.push(serde_json::json!({
                "level": "warning",
                "message": {"text": odd.message},
                "locations": [{"physicalLocation": place}],
            }));
        }
        for (finding, print) in result.analysis.findings.iter().zip(fingerprints(result)) {
            let mut json = result_of(finding, &result.path, number(finding));
            json["partialFingerprints"] = serde_json::json!({"hardnFingerprint/v1": print});
            found.push(json);
        }
        for gone in &result.suppressed {
            let mut json = result_of(&gone.finding, &result.path, number(&gone.finding));
            json["suppressions"] =
                serde_json::json!([{"kind": "inSource", "justification": gone.reason}]);
            found.push(json);
        }
    }
    (found, notifications)
}

fn result_of(finding: &Finding, path: &str, rule: Option<i64>) -> serde_json::Value {
    let mut json = serde_json::json!({
        "ruleId": finding.rule,
        "level": "warning",
        "message": {"text": finding.message},
        "locations": [location(path, finding.span, None)],
    });
    if let Some(rule) = rule {
        json["ruleIndex"] = rule.into();
    }
    if !finding.trace.is_empty() {
        let steps: Vec<serde_json::Value> = finding
            .trace
            .iter()
            .map(|step| serde_json::json!({"location": location(path, step.span, Some(&step.message))}))
            .collect();
        json["codeFlows"] = serde_json::json!([{"threadFlows": [{"locations": steps}]}]);
    }
    json
}

fn location(path: &str, span: Span, message: Option<&str>) -> serde_json::Value {
    let mut json = serde_json::json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(path)},
            "region": {
                "startLine": span.line,
                "startColumn": span.column,
                "endLine": span.end_line,
                "endColumn": span.end_column,
            },
        },
    });
    if let Some(message) = message {
        json["message"] = serde_json::json!({"text": message});
    }
    json
}

/// A relative URI reference: what is no plain path character is percent-encoded.
fn uri(path: &str) -> String {
    if path == "-" {
        return "stdin".to_owned();
    }
    let mut out = String::new();
    for byte in path.replace('\\', "/").trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan_text;
    use hardn_types::Language;

    #[test]
    fn a_log_has_what_readers_need() {
        let code = "def f(cur, name):\n    sql = \"SELECT a FROM t WHERE n = '\" + name + \"'\"\n    cur.execute(sql)\n";
        let results = [scan_text(
            Oracle::shared(),
            "a b.py",
            code.to_owned(),
            Language::Python,
            Mode::Snippet,
        )];
        let mut out = Vec::new();
        write_sarif(&mut out, Oracle::shared(), &results, Mode::Snippet).unwrap();
        let log: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let result = &run["results"][0];
        let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(
            rule["properties"]["tags"].as_array().unwrap().contains(&"external/cwe/cwe-089".into())
        );
        assert_eq!(
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            "a%20b.py"
        );
        assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 3);
        assert!(
            result["codeFlows"][0]["threadFlows"][0]["locations"].as_array().unwrap().len() >= 2
        );
        assert_eq!(run["taxonomies"][0]["name"], "CWE");
    }
}
