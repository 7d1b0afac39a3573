//! `hardn sweep`: many runs, one table.

use std::fs;

use serde_json::Value;

use crate::{fails, succeeds, workplace};

const SWEEP: &str = "seeds = [1, 2]\nbase = \"run.toml\"\n[[arms]]\nname = \"plain\"\n\
    [[arms]]\nname = \"wild\"\nset = { \"optimizer.learning_rate\" = 0.1 }\n";

#[test]
fn a_sweep_is_the_runs_it_names_and_goes_on_after_a_cut() {
    let place = workplace();
    let folder = place.path();
    fs::write(folder.join("sweep.toml"), SWEEP).unwrap();
    let listed = succeeds(folder, &["sweep", "sweep.toml", "--dry-run"]);
    assert_eq!(listed.matches("missing").count(), 4);
    let json = succeeds(folder, &["sweep", "sweep.toml", "--out", "out", "--jobs", "2", "--json"]);
    let summary: Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> = summary["arms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arm| arm["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "base",
            "plain",
            "wild",
            "constant_idiom",
            "secure_prompt",
            "shuffled_labels",
            "utility_only"
        ]
    );

    // A cell is what the same run by hand is, and the first arm's base is the others'.
    succeeds(folder, &["harden", "run.toml", "--set", "seed=2", "--out", "alone", "--json"]);
    let read = |file: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
    };
    let cell = read("out/runs/plain/seed-2/metrics.json");
    assert_eq!(cell["arms"], read("alone/metrics.json")["arms"]);
    let other = read("out/runs/wild/seed-2/metrics.json");
    assert_eq!(cell["arms"]["base"], other["arms"]["base"]);
    assert!(other["arms"].get("utility_only").is_none());
    let of = |arm: usize, seed: &str| {
        summary["arms"][arm]["metrics"]["valid_all"]["values"][seed].clone()
    };
    assert_eq!(of(1, "2"), cell["arms"]["hardened"]["valid_all"]["value"]);
    let page = fs::read_to_string(folder.join("out/sweep.html")).unwrap();
    assert!(page.contains("secure-pass@1, by attack") && page.contains(">wild <"), "{page}");
    let rows = fs::read_to_string(folder.join("out/sweep.csv")).unwrap();
    assert!(rows.contains("wild,arm,2,steps,3\n"), "{rows}");
    let curves = fs::read_to_string(folder.join("out/curves.csv")).unwrap();
    assert!(curves.contains("\n3,wild,1,train/loss,"), "{curves}");

    // A lost run is made again, nothing else, to the same table.
    let kept = fs::metadata(folder.join("out/runs/plain/seed-1/metrics.json")).unwrap();
    fs::remove_dir_all(folder.join("out/runs/wild/seed-1")).unwrap();
    let table = fs::read(folder.join("out/sweep.csv")).unwrap();
    succeeds(folder, &["sweep", "sweep.toml", "--out", "out"]);
    assert_eq!(fs::read(folder.join("out/sweep.csv")).unwrap(), table);
    let now = fs::metadata(folder.join("out/runs/plain/seed-1/metrics.json")).unwrap();
    assert_eq!(kept.modified().unwrap(), now.modified().unwrap());

    // Other settings in the folder are not thrown away unasked.
    let changed = ["sweep", "sweep.toml", "--out", "out", "--set", "run.eval.samples=1"];
    fails(folder, &changed, 2, "--fresh");
    assert_eq!(fs::read(folder.join("out/sweep.csv")).unwrap(), table);

    // A run that fails is named, and the others count.
    let text = SWEEP.replace("= 0.1", "= 1e38, \"adapter.kind\" = \"full\"").replace("wild", "bad");
    fs::write(folder.join("sweep.toml"), text).unwrap();
    fails(folder, &["sweep", "sweep.toml", "--out", "out"], 2, "bad, seed 1: error: training");
    assert!(fs::read_to_string(folder.join("out/sweep.csv")).unwrap().contains("plain,arm,1,"));
}
