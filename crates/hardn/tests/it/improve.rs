//! `hardn improve`: a model trained on its own samples.

use std::fs;

use hardn_lab::{Library, WorldOptions, generate, training_scenarios};
use hardn_types::{Language, Scenario, Split};
use serde_json::{Value, json};

use crate::{fails, lines, scenario, succeeds, workplace};

const RUN: &str = "model = \"lab-1m\"\n[train]\nrecipe = \"lab/simpo\"\nutility = [\"utility.jsonl\"]\n\
    set = { \"training.max_steps\" = 3, \"training.batch_size\" = 4 }\n\
    [improve]\nsuites = [\"train.jsonl\"]\nsamples = 12\nset = { temperature = 1.2 }\n\
    [eval]\nsuites = [\"test.jsonl\"]\nsamples = 2\nset = { max_new_tokens = 120 }\n\
    [controls]\nutility_only = true\nshuffled_labels = false\nconstant_idiom = false\nsecure_prompt = false\n";

fn rows(scenarios: impl IntoIterator<Item = Scenario>, n: usize) -> String {
    let python = scenarios.into_iter().filter(|scenario| scenario.language == Language::Python);
    lines(python.take(n).map(|scenario| serde_json::to_value(scenario).unwrap()))
}

#[test]
fn rounds_learn_from_what_was_judged_and_a_cut_run_ends_with_the_same_bytes() {
    let place = workplace();
    let folder = place.path();
    let library = Library::embedded().unwrap();
    let training = training_scenarios(&library, 1, 40).unwrap();
    fs::write(folder.join("train.jsonl"), rows(training, 12)).unwrap();
    let options = WorldOptions { n_pretrain_documents: 0, n_pairs: 20, ..WorldOptions::default() };
    let test = generate(&options).unwrap().scenarios.into_iter();
    let test = test.filter(|s| s.split == Split::Test && s.tags.seen_context == Some(false));
    fs::write(folder.join("test.jsonl"), rows(test, 3)).unwrap();
    fs::write(folder.join("improve.toml"), RUN).unwrap();
    let run = |out: &str| succeeds(folder, &["improve", "improve.toml", "--out", out, "--json"]);
    let found: Value = serde_json::from_str(&run("whole")).unwrap();

    let rounds = found["improve"]["rounds"].as_array().unwrap();
    assert_eq!(
        (rounds.len(), &found["improve"]["trained"]),
        (2, &json!(2)),
        "{}",
        found["improve"]
    );
    let first = &rounds[0];
    let n = |name: &str| first[name].as_u64().unwrap();
    assert_eq!((n("scenarios"), n("samples")), (12, 144));
    let sorted = ["invalid", "not_analysed", "vulnerable", "other_weakness", "secure_but_wrong"];
    assert_eq!(sorted.map(n).iter().sum::<u64>() + n("secure_and_correct"), 144, "{first}");
    assert!(n("pairs") > 0 && n("pairs") <= 24, "{first}");

    // A pair is two samples of one prompt, and says where it comes from.
    let read = |run: &str, name: &str| fs::read_to_string(folder.join(run).join(name)).unwrap();
    let pairs = read("whole", "round-1/pairs.jsonl");
    assert_eq!(pairs.lines().count() as u64, n("pairs"));
    for pair in pairs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let text = |key: &str| pair[key].as_str().unwrap().to_owned();
        assert!(["before", "after"].iter().all(|side| text(side).starts_with(&text("prompt"))));
        assert!(pair["provenance"]["model"].is_string() && pair["provenance"]["round"] == 1);
    }
    // The second round is of the first one's model.
    let model_of = |round: &str| {
        let rows = read("whole", &format!("{round}/secure.jsonl"));
        let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        row["provenance"]["model"].clone()
    };
    assert_ne!(model_of("round-1"), model_of("round-2"));
    // Attack tests choose nothing, and say what came out; the oracle's numbers are marked.
    assert!(!read("whole", "round-1/verdicts.jsonl").contains("\"attack\""));
    let same: Vec<&str> =
        found["same_judge"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert!(same.contains(&"secure_pass_at_1_oracle"), "{same:?}");
    assert!(!same.contains(&"secure_pass_at_1_attack") && !same.contains(&"secure_all"));
    assert!(read("whole", "report.html").contains("same judge"));
    assert!(read("whole", "report.txt").contains("secure-pass@1, by oracle *"));
    for arm in ["base", "improved", "utility_only"] {
        let rate = &found["metrics"]["arms"][arm]["secure_pass_at_1_attack"];
        assert_eq!(rate["denominator"], 6.0, "{arm}");
    }
    assert!(folder.join("whole/training/round-2/adapter").exists());

    // What a kill leaves at several moments.
    run("cut");
    for name in ["round-1/samples.jsonl", "round-2/verdicts.jsonl", "samples.jsonl"] {
        let path = folder.join("cut").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 2 / 5]).unwrap();
    }
    fs::remove_dir_all(folder.join("cut/training/round-2")).unwrap();
    for name in ["round-1/pairs.jsonl", "improve.json", "metrics.json"] {
        fs::remove_file(folder.join("cut").join(name)).unwrap();
    }
    run("cut");
    for name in [
        "round-1/samples.jsonl",
        "round-1/pairs.jsonl",
        "round-2/verdicts.jsonl",
        "round-2/pairs.jsonl",
        "round-2/secure.jsonl",
        "samples.jsonl",
        "verdicts.jsonl",
        "improve.json",
        "run.json",
        "metrics.json",
        "report.html",
    ] {
        assert!(read("whole", name) == read("cut", name), "{name} differs");
    }

    // Each from the one before, on secure samples alone: the model is written whole.
    let other = ["--set", "improve.keep=secure", "--set", "improve.from=previous"];
    let all = [&["improve", "improve.toml", "--out", "other", "--json"][..], &other].concat();
    let found: Value = serde_json::from_str(&succeeds(folder, &all)).unwrap();
    assert_eq!(found["improve"]["model"], "model", "{}", found["improve"]);
    succeeds(folder, &["complete", "def f(a):", "--model", "./other/model", "-n", "1"]);
}

#[test]
fn what_cannot_be_learnt_from_is_named() {
    let place = workplace();
    let folder = place.path();
    let training = |i: usize| {
        let mut row = scenario(i);
        row["split"] = "train".into();
        row
    };
    let run = |suite: &str, rows: Vec<Value>| {
        fs::write(folder.join("train.jsonl"), lines(rows)).unwrap();
        let text = RUN.replace("lab-1m", "model").replace("test.jsonl", suite);
        fs::write(folder.join("improve.toml"), text).unwrap();
    };
    let told = |more: &[&'static str], said: &str| {
        let all = [&["improve", "improve.toml", "--out", "out", "--fresh"][..], more].concat();
        fails(folder, &all, 2, said);
    };
    // The suite of the run holds `s0` to `s2`.
    run("scenarios.jsonl", vec![training(7), training(1)]);
    told(&[], "1 of 2 training scenarios are evaluated on too: `s1` is evaluated on");
    run("scenarios.jsonl", vec![scenario(7)]);
    told(&[], "train.jsonl has no scenario to train on: 1 of 1 rows are of another split");
    let mut untested = training(7);
    untested.as_object_mut().unwrap().remove("function_test");
    run("scenarios.jsonl", vec![untested]);
    told(&[], "1 rows have no function test");
    run("scenarios.jsonl", vec![training(7)]);
    // A model of random weights writes nothing that parses.
    told(
        &[],
        "round 1 did not give a new pair of a secure and correct sample and a vulnerable one: 12 samples of 1 scenarios: 12 invalid",
    );
    told(&["--set", "improve.rounds=0"], "`improve.rounds` is 0");
    told(&["--set", "improve.judge=guess"], "guess");
    fails(folder, &["improve", "run.toml"], 2, "has no [improve]");
    fails(folder, &["harden", "improve.toml"], 2, "use `hardn improve`");
}
