//! `hardn train`: what it finds in its folder, and what it says beforehand.

use std::fs;

use serde_json::Value;

use crate::{fails, lines, scenario, succeeds, workplace};

#[test]
fn a_folder_is_gone_on_with_refused_or_begun_anew() {
    let place = workplace();
    let folder = place.path();
    // Validation scenarios, among rows that must not be used.
    let mut rows = [scenario(0), scenario(1), scenario(2)];
    rows[1]["split"] = "val".into();
    fs::write(folder.join("val.jsonl"), lines(rows)).unwrap();
    let train = |more: &[&'static str]| {
        let all = ["train", "safecoder-lab", "--model", "model", "--pairs", "pairs.jsonl"];
        let sets = ["--set", "training.max_steps=4", "--set", "training.batch_size=4"];
        [&all[..], &sets, &["--set", "training.eval_every=2", "--json"], more].concat()
    };
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();

    let found = json(succeeds(folder, &train(&["--dry-run"])));
    assert_eq!(found["estimate"]["n_steps"], 4);
    assert!(!folder.join("out").exists());

    fails(folder, &train(&["--out", "out", "--resume"]), 2, "holds no checkpoint");
    fails(folder, &train(&["--out", ".", "--fresh"]), 2, "holds no training");
    let best = ["--set", "training.best_by=security", "--set", "training.keep_best=true"];
    fails(folder, &train(&[&best[..], &["--out", "x"]].concat()), 2, "no validation scenario");
    let scored = [&best[..], &["--validation-suite", "val.jsonl", "--out", "out"]].concat();
    let first = json(succeeds(folder, &train(&scored)));
    let scores = &first["curve"].as_array().unwrap().last().unwrap()["scores"];
    // A model of random weights writes nothing that runs.
    assert_eq!((&scores["security"], scores.get("utility")), (&0.0.into(), None), "{first}");
    assert_eq!(found["estimate"]["n_tokens"], tokens(&folder.join("out/events.jsonl")));

    let again = [&scored[..], &["--resume"]].concat();
    assert_eq!(json(succeeds(folder, &train(&again))), first);
    fails(folder, &train(&["--out", "out"]), 2, "belongs to another training");
    assert!(folder.join("out/adapter").exists());
    fs::write(folder.join("out/notes.txt"), "mine").unwrap();
    let fresh = json(succeeds(folder, &train(&["--out", "out", "--fresh"])));
    assert_eq!(fresh["recipe"]["training"]["best_by"], "loss");
    assert!(folder.join("out/notes.txt").exists());
}

/// Tokens of all steps, as the last of them says.
fn tokens(events: &std::path::Path) -> Value {
    let text = fs::read_to_string(events).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    steps.rev().find(|event| event["event"] == "step").unwrap()["tokens"].clone()
}
