//! What is trained on: looked at, and made of a model's own answers.

use std::fs;

use serde_json::{Value, json};

use super::{fails, lines, succeeds, workplace};

#[test]
fn a_step_is_shown_token_by_token() {
    let place = workplace();
    let folder = place.path();
    let base = ["inspect", "batch", "--model", "model", "--recipe", "safecoder-lab"];
    let args = |more: &[&'static str]| [&base, more].concat();
    let given = ["pairs.jsonl", "--utility", "utility.jsonl", "--set", "data.packing=true"];
    let text = succeeds(folder, &args(&given));
    for part in ["{+", "{-", "{=", "=== micro-batch 0", "packed behind it"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let rows = succeeds(folder, &args(&[&given[..], &["--json", "--step", "2"]].concat()));
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let count = |key: &str| row[key].as_array().unwrap().len() as u64;
        assert_eq!(
            [count("ids"), count("tokens"), count("marks")],
            [row["n_tokens"].as_u64().unwrap(); 3]
        );
        let marked = row["marks"].as_array().unwrap().iter().filter(|mark| *mark == &row["kind"]);
        assert_eq!(marked.count() as u64, row["n_selected"].as_u64().unwrap());
    }
    fails(folder, &args(&["pairs.jsonl", "--step", "100000"]), 2, "the steps 1 to");
    fs::write(
        folder.join("mine.jsonl"),
        "{\"bad\": \"a\", \"good\": \"b\", \"language\": \"c\"}\n{\"bad\": \"a\"}\n",
    )
    .unwrap();
    let columns = ["--set", "data.columns.before=bad", "--set", "data.columns.after=good"];
    fails(
        folder,
        &args(&[&["mine.jsonl"], &columns[..]].concat()),
        2,
        "mine.jsonl line 2: has no column `good`",
    );
}

#[test]
fn own_answers_that_pass_are_kept_and_a_cut_run_ends_with_the_same_bytes() {
    let place = workplace();
    let folder = place.path();
    // Whatever follows is a comment, so that the function alone decides.
    let task = |id: &str, wanted: u32| {
        json!({
            "id": id, "prompt": "def f(a):\n    return a\n# ", "tests": format!("assert f(1) == {wanted}\n"),
            "stop": ["\n", "\r", "\u{c}", "\u{0}"], "cut": "none",
        })
    };
    fs::write(folder.join("tasks.jsonl"), lines([task("right", 1), task("wrong", 2)])).unwrap();
    let run = |out: &str| -> Value {
        let args = ["data", "utility", "--model", "model", "--tasks", "tasks.jsonl", "-n", "4"];
        let more = ["--set", "max_new_tokens=6", "--out", out, "--json"];
        serde_json::from_str(&succeeds(folder, &[&args[..], &more].concat())).unwrap()
    };
    let counts = run("whole.jsonl");
    assert_eq!((&counts["passed"], &counts["failed"]), (&json!(4), &json!(4)), "{counts}");
    let text = fs::read_to_string(folder.join("whole.jsonl")).unwrap();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert!(row["id"].as_str().unwrap().starts_with("right#"), "{row}");
        assert_eq!(row["provenance"]["seed"], 1);
    }
    // What a kill in the middle of a write leaves.
    run("cut.jsonl");
    let record = folder.join("cut.answers.jsonl");
    let bytes = fs::read(&record).unwrap();
    fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_file(folder.join("cut.jsonl")).unwrap();
    assert_eq!(run("cut.jsonl"), counts);
    for end in ["jsonl", "answers.jsonl"] {
        let read = |name: &str| fs::read(folder.join(format!("{name}.{end}"))).unwrap();
        assert!(read("whole") == read("cut"), "{end} differs");
    }
}
