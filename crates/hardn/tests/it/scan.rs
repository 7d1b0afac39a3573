//! `hardn scan` as a user runs it.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{fails, hardn, succeeds};

const BAD: &str = "import os\ndef f(name):\n    os.system(\"ls \" + name)\n";

/// A folder with one bad and one good file; runs keep what they cache inside.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("bad.py"), BAD).unwrap();
    fs::write(place.path().join("good.py"), "def f(a):\n    return a + 1\n").unwrap();
    place
}

/// Runs `hardn scan`; gives the status, standard output and standard error.
fn scan(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
    let output = hardn(folder, &args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn check(folder: &Path, args: &[&str], status: i32, said: &[&str]) {
    let (code, out, error) = scan(folder, args);
    assert_eq!(code, status, "{args:?}: {out}{error}");
    for word in said {
        assert!(
            out.contains(word) || error.contains(word),
            "{args:?}: no `{word}` in {out}{error}"
        );
    }
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scan_says_by_its_exit_status_whether_it_found_something() {
    let place = place();
    let folder = place.path();
    let output = hardn(folder, &["scan", "--json", "bad.py", "good.py"]);
    assert_eq!(output.status.code(), Some(1));
    let row: Value =
        serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(
        (&row["path"], &row["cwe"], &row["line"]),
        (&json!("bad.py"), &json!([78]), &json!(3))
    );
    succeeds(folder, &["scan", "good.py"]);
    fails(folder, &["scan", "missing.py"], 2, "missing.py");
    let sarif = hardn(folder, &["scan", "--format", "sarif", "bad.py"]);
    let sarif: Value = serde_json::from_slice(&sarif.stdout).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
}

#[test]
fn rows_have_the_promised_keys_and_the_cache_changes_nothing() {
    let place = place();
    let folder = place.path();
    fs::write(folder.join("text.txt"), "x").unwrap();
    let args = ["--json", "bad.py", "good.py", "text.txt"];
    let (_, first, _) = scan(folder, &args);
    let found = rows(&first);
    let keys: Vec<&String> = found[0].as_object().unwrap().keys().collect();
    let promised = [
        "path",
        "language",
        "mode",
        "engine",
        "rule",
        "cwe",
        "line",
        "column",
        "end_line",
        "end_column",
        "message",
    ];
    assert_eq!(keys, promised);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1]["path"], "text.txt");
    assert!(found[1]["not_analysed"].is_string());
    assert_eq!(scan(folder, &args).1, first);
    assert_eq!(scan(folder, &["--no-ignore", "--json", "bad.py", "good.py", "text.txt"]).1, first);
    check(folder, &["."], 1, &["1 finding in 1 of 2 files (CWE-078: 1)", "2 from the cache"]);
}

#[test]
fn standard_input_has_a_name_and_a_language() {
    let place = place();
    let run = |args: &[&str]| {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hardn"))
            .args(["scan", "--json", "-"])
            .args(args)
            .current_dir(place.path())
            .env("XDG_CACHE_HOME", place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), BAD.as_bytes()).unwrap();
        rows(&String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
    };
    assert_eq!(run(&["--language", "python"])[0]["path"], "-");
    assert_eq!(run(&["--stdin-path", "app/bad.py"])[0]["path"], "app/bad.py");
    assert!(run(&[])[0]["not_analysed"].is_string());
}

#[test]
fn the_output_file_is_there_whole_or_as_it_was() {
    let place = place();
    let folder = place.path();
    check(folder, &["--sarif", "--output", "out.sarif", "."], 1, &[]);
    let log = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let result = &log("out.sarif")["runs"][0]["results"][0];
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "bad.py");
    assert!(result["partialFingerprints"]["hardnFingerprint/v1"].is_string());
    if Path::new("/dev/full").exists() {
        check(folder, &["--output", "/dev/full", "."], 2, &["/dev/full"]);
    }
    fs::create_dir(folder.join("shut")).unwrap();
    fs::write(folder.join("shut/file"), "").unwrap();
    check(folder, &["--output", "shut/file/out.txt", "."], 2, &["shut/file"]);
}

#[test]
fn a_baseline_holds_what_is_known() {
    let place = place();
    let folder = place.path();
    check(folder, &["--write-baseline", "known.json", "."], 0, &["known.json holds 1 finding"]);
    check(folder, &["--baseline", "known.json", "."], 0, &["1 in the baseline"]);
    let moved = format!("import sys\n\n\n{BAD}\ndef g(name):\n    os.popen(name)\n");
    fs::write(folder.join("bad.py"), moved).unwrap();
    check(folder, &["--baseline", "known.json", "."], 1, &["bad.py:9", "1 in the baseline"]);
    fs::write(folder.join("bad.py"), "x = 1\n").unwrap();
    check(folder, &["--baseline", "known.json", "."], 0, &["1 of the baseline gone"]);
    check(
        folder,
        &["--baseline", "known.json", "--cwe", "89", "."],
        0,
        &["0 findings in 2 files, "],
    );
    fs::write(folder.join("known.json"), "{\"version\":1").unwrap();
    check(folder, &["--baseline", "known.json", "."], 2, &["known.json", "baseline"]);
    check(folder, &["--baseline", "nowhere.json", "."], 2, &["nowhere.json"]);
}

#[test]
fn comments_suppress_with_a_reason_and_until_a_date() {
    let place = place();
    let folder = place.path();
    let with = |comment: &str| {
        let text =
            format!("import os\ndef f(name):\n    os.system(\"ls \" + name)  # hardn: {comment}\n");
        fs::write(folder.join("bad.py"), text).unwrap();
    };
    with("ignore[cwe-078] reason=\"a fixed list\" until=2999-12-31");
    check(folder, &["."], 0, &["1 suppressed"]);
    check(folder, &["--no-suppressions", "."], 1, &["bad.py:3"]);
    let (_, log, _) = scan(folder, &["--sarif", "."]);
    let log: Value = serde_json::from_str(&log).unwrap();
    let suppression = &log["runs"][0]["results"][0]["suppressions"][0];
    assert_eq!(suppression, &json!({"kind": "inSource", "justification": "a fixed list"}));
    with("ignore[cwe-078] reason=\"a fixed list\" until=2001-01-31");
    check(folder, &["."], 1, &["bad.py:3", "expired on 2001-01-31"]);
    with("ignore[cwe-079] reason=\"a fixed list\"");
    check(folder, &["--fail-on", "never", "."], 0, &["suppresses nothing"]);
    check(folder, &["--fail-on", "never", "--strict-suppressions", "."], 1, &[]);
    let (_, out, error) = scan(folder, &["--json", "."]);
    assert!(rows(&out).len() == 1 && error.contains("suppresses nothing"), "{out}{error}");
}

#[test]
fn filters_and_what_fails_are_chosen() {
    let place = place();
    let folder = place.path();
    check(folder, &["--cwe", "89,79", "."], 0, &["0 findings"]);
    check(folder, &["--cwe", "CWE-078", "."], 1, &["1 finding"]);
    check(folder, &["--rule", "python/*", "."], 1, &[]);
    check(folder, &["--rule", "go/*", "."], 0, &[]);
    check(folder, &["--exclude", "bad*", "."], 0, &[]);
    check(folder, &["--fail-on", "never", "."], 0, &["1 finding"]);
    fs::write(folder.join("bad.py"), b"a\0b").unwrap();
    check(folder, &["."], 0, &["1 not analysed"]);
    check(folder, &["--fail-on", "not-analysed", "."], 1, &["not a text file"]);
    check(folder, &["--exclude", "[z-a]", "."], 2, &["is no glob"]);
    check(folder, &["--cwe", "sql", "."], 2, &["is not a CWE"]);
}

#[test]
fn model_rows_join_the_rules() {
    let place = place();
    let folder = place.path();
    let rows = "extensions:\n  - addsTo: {pack: codeql/python-all, extensible: sinkModel}\n    data:\n      \
        - [acme, \"Member[launch].Argument[0]\", command-injection]\n      - [acme, \"Fuzzy\", command-injection]\n";
    fs::write(folder.join("acme.yml"), rows).unwrap();
    fs::write(
        folder.join("bad.py"),
        "import acme\ndef f(name):\n    acme.launch(\"ls \" + name)\n",
    )
    .unwrap();
    check(folder, &["bad.py"], 0, &[]);
    check(
        folder,
        &["--models", "acme.yml", "bad.py"],
        1,
        &["CWE-078", "1 of 2 model rows are not used"],
    );
    fails(folder, &["scan", "--models", "bad.py", "bad.py"], 2, "bad.py");
}
