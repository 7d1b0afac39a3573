//! `hardn rules` as a user runs it.

use std::fs;

use serde_json::Value;

use crate::{fails, hardn, succeeds};

#[test]
fn a_new_rule_is_unfinished_until_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let new = ["rules", "new", "python", "89", "report-query", "--rules", "own"];
    assert!(succeeds(folder, &new).contains("own/python/cwe-089-report-query.yml"));
    fails(folder, &new, 2, "exists already");
    let test = ["rules", "test", "--rules", "own"];
    let output = hardn(folder, &test);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("unfinished"));
    let path = folder.join("own/python/cwe-089-report-query.yml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text
        .replace(
            "# UNFINISHED: code that is right and looks much like what is wrong",
            "def f(x): acme.run('x')",
        )
        .replace("# UNFINISHED: code that is wrong", "def f(x): acme.run(x)");
    fs::write(&path, text).unwrap();
    succeeds(folder, &test);
    fails(folder, &["rules", "new", "python", "89", "Not a slug"], 2, "slug");
}

#[test]
fn lists_are_filtered_and_a_rule_is_shown_with_its_samples() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let list =
        succeeds(folder, &["rules", "list", "--language", "typescript", "--cwe", "89", "--json"]);
    assert!(list.lines().count() > 0);
    for line in list.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row["language"], "javascript", "{row}");
        assert!(row["cwe"].as_array().unwrap().contains(&"CWE-089".into()));
    }
    let shown = succeeds(folder, &["rules", "show", "python/cwe-089-sql-injection"]);
    for part in ["How to fix", "*.execute", "argument 0", "This is flagged (snippet mode)"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = succeeds(folder, &["rules", "show", "python/cwe-089-sql-injection", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["code"][0]["code"].is_string());
}

#[test]
fn coverage_shows_what_no_rule_is_for() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let text = succeeds(folder, &["rules", "coverage"]);
    for part in [
        "CWE Top 25 (2025)",
        "OWASP Top 10 (2021)",
        "No rule in any language",
        "CWE-862 Missing authorization",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(succeeds(folder, &["rules", "coverage", "--markdown"]).contains("| --- |"));
    let json: Value =
        serde_json::from_str(&succeeds(folder, &["rules", "coverage", "--json"])).unwrap();
    assert_eq!(json["lists"][0]["rows"].as_array().unwrap().len(), 25);
}

#[test]
fn a_card_needs_a_corpus() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fails(folder, &["rules", "card", "--corpus", "nowhere"], 2, "nowhere");
    fails(folder, &["rules", "card", "--corpus", "."], 2, ".jsonl.gz");
}
