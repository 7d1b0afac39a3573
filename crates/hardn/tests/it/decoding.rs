//! Decoders beyond plain sampling, from the command line.

use std::{fs, path::Path};

use hardn_models::{Model, ModelConfig, SaveDtype, Tokenizer, train_bpe};
use serde_json::Value;

use super::{fails, hardn, succeeds, workplace};

/// The workplace, with a smaller model that has the same tokenizer and one that has another.
fn pair() -> tempfile::TempDir {
    let place = workplace();
    let at = |name: &str| place.path().join(name);
    let save = |name: &str, tokenizer: &Tokenizer| {
        let config = ModelConfig::llama(tokenizer.vocab_size(), 8, 1, 2, 16, 256).unwrap();
        tokenizer.save(&at(name)).unwrap();
        Model::random(&config, 7).unwrap().save(&at(name), SaveDtype::F32).unwrap();
    };
    save("small", &Tokenizer::load(&at("model")).unwrap());
    save("other", &train_bpe(["x = 1\n"; 9].into_iter(), 300, hardn_models::LAB_SPECIALS).unwrap());
    fs::write(at("prompt.py"), "import os\n\n\ndef say(text):\n").unwrap();
    place
}

fn rows(folder: &Path, args: &[&str]) -> Vec<Value> {
    let args = [&["complete", "--json", "--model", "model", "--prompt-file", "prompt.py"], args];
    let text = succeeds(folder, &args.concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn co_decoding_says_who_chose_and_drafts_change_nothing() {
    let place = pair();
    let folder = place.path();
    let draw = |sets: &[&str]| {
        let mut args = vec!["--security-model", "small", "--decoder", "co-decoding", "-n", "4"];
        for set in ["threshold=.9", "preset=cosec-warped", "max_new_tokens=30"].iter().chain(sets) {
            args.extend(["--set", set]);
        }
        rows(folder, &args)
    };
    let stepwise = draw(&["draft=1"]);
    assert_eq!(stepwise.len(), 4);
    let mut authors: Vec<&str> = Vec::new();
    for row in &stepwise {
        let chosen_by = row["chosen_by"].as_array().unwrap();
        assert_eq!(chosen_by.len(), row["ids"].as_array().unwrap().len());
        assert!(row["log_prob"].as_f64().unwrap() < 0.0, "{row}");
        authors.extend(chosen_by.iter().map(|author| author.as_str().unwrap()));
    }
    assert!(authors.contains(&"base") && authors.contains(&"security"), "{authors:?}");
    assert!(authors.iter().all(|author| ["base", "security"].contains(author)));
    for draft in ["draft=4", "draft=16", "draft=adaptive"] {
        assert_eq!(draw(&[draft]), stepwise, "{draft}");
    }
    // Where nothing is accepted the base model writes as if it were alone.
    let alone = rows(folder, &["-n", "4", "--set", "max_new_tokens=30"]);
    let watched = draw(&["threshold=1"]);
    for (alone, watched) in alone.iter().zip(&watched) {
        assert_eq!((&alone["ids"], &alone["text"]), (&watched["ids"], &watched["text"]));
    }
    let security = draw(&["threshold=0"]);
    assert!(security.iter().all(|row| {
        row["chosen_by"].as_array().unwrap().iter().all(|author| author == "security")
    }));
}

#[test]
fn what_is_streamed_is_what_is_written() {
    let place = pair();
    let folder = place.path();
    let models = ["--model", "model", "--security-model", "small", "--decoder", "co-decoding"];
    let sets =
        ["--set", "max_new_tokens=20", "--set", "stop=[\"\\n\\n\"]", "--prompt-file", "prompt.py"];
    let args = [&["complete", "-n", "2"], &models[..], &sets[..]].concat();
    let shown = succeeds(folder, &args);
    let rows = rows(folder, &[&["-n", "2"], &models[2..], &sets[..4]].concat());
    let prompt = fs::read_to_string(folder.join("prompt.py")).unwrap();
    let samples = rows
        .iter()
        .enumerate()
        .map(|(i, row)| format!("--- sample {i}\n{prompt}{}\n", row["text"].as_str().unwrap()));
    let expected: String = samples.collect();
    assert_eq!(shown, expected);
    let coloured = succeeds(folder, &[&args[..], &["--color", "always"]].concat());
    assert!(coloured.contains("\x1b[32m"));
    let plain = coloured.replace("\x1b[32m", "").replace("\x1b[0m", "");
    assert_eq!(plain, expected);
}

#[test]
fn decoders_compose() {
    let place = pair();
    let folder = place.path();
    let decoder = "temperature = 1.0\nmax_new_tokens = 16\n[co_decoding]\nthreshold = 0.9\n\
        [two_step]\nper = \"sample\"\nunused = \"drop\"\n[repair]\nby = \"security\"\n";
    fs::write(folder.join("all.toml"), decoder).unwrap();
    let all = |draft: &str| {
        let set = format!("draft={draft}");
        rows(
            folder,
            &["--security-model", "small", "--decoder", "./all.toml", "-n", "3", "--set", &set],
        )
    };
    let found = all("1");
    assert_eq!(found, all("5"));
    for row in &found {
        assert!(row["completed_prompt"].as_str().unwrap().starts_with("import os\n"), "{row}");
        assert!(row["unknown_packages"].is_array());
    }
    let trace = rows(folder, &["--trace", "--set", "max_new_tokens=8"]).remove(0);
    let text: String = trace["trace"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["text"].as_str().unwrap())
        .collect();
    assert_eq!(trace["text"], text);
}

#[test]
fn a_gap_is_filled_by_what_comes_after_it_too() {
    let place = pair();
    let folder = place.path();
    fs::write(folder.join("after.py"), "    return text\n").unwrap();
    let short = ["-n", "3", "--set", "max_new_tokens=12"];
    let with = |suffix: &[&str]| rows(folder, &[&short[..], suffix].concat());
    let filled = with(&["--suffix-file", "after.py"]);
    assert_eq!(filled, with(&["--suffix-file", "after.py"]));
    assert_ne!(filled, with(&[]));
    let args = ["complete", "x", "--model", "other", "--suffix-file", "none.py"];
    fails(folder, &args, 2, "none.py");
}

#[test]
fn verification_counts_differences() {
    let place = pair();
    let folder = place.path();
    let args = [
        "decode-bench",
        "--model",
        "model",
        "--security-model",
        "small",
        "--prompt-file",
        "prompt.py",
    ];
    let sets = ["--set", "max_new_tokens=16", "--set", "threshold=.9", "-n", "6", "--streams", "4"];
    let said =
        succeeds(folder, &[&args[..], &sets, &["--verify", "--drafts", "2,7,adaptive"]].concat());
    assert_eq!(said, "6 samples x 4 draft lengths, 0 differ\n");
    let said = succeeds(folder, &[&args[..], &sets, &["--turns", "1", "--json"]].concat());
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["curve"].as_array().unwrap().len(), 10);
    let ways = report["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 7);
    assert!(ways.iter().all(|way| way["tokens_per_second"].as_f64().unwrap() > 0.0), "{ways:?}");
}

#[test]
fn a_run_has_an_arm_for_each_decoder() {
    let place = pair();
    let folder = place.path();
    let run = fs::read_to_string(folder.join("run.toml")).unwrap();
    let arms = "[controls]\nsecure_prompt = false\nutility_only = false\nshuffled_labels = false\nconstant_idiom = false\n\
        [[decoding]]\nname = \"watched\"\ndecoder = \"co-decoding\"\nset = { threshold = 0.5, max_new_tokens = 20 }\n\
        [[decoding]]\nname = \"imports-first\"\ndecoder = \"two-step\"\nmodel = \"hardened\"\nset = { max_new_tokens = 20 }\n\
        [[decoding]]\nname = \"repaired\"\ndecoder = \"repair\"\nset = { max_new_tokens = 20 }\n";
    fs::write(folder.join("arms.toml"), format!("{run}{arms}")).unwrap();
    let said = succeeds(folder, &["harden", "arms.toml", "--out", "arms", "--json"]);
    let metrics: Value = serde_json::from_str(&said).unwrap();
    for arm in ["base", "hardened", "watched", "imports-first", "repaired"] {
        assert_eq!(metrics["arms"][arm]["valid_all"]["denominator"], 9.0, "{arm}");
    }
    let samples = fs::read(folder.join("arms/samples.jsonl")).unwrap();
    succeeds(folder, &["harden", "arms.toml", "--out", "arms"]);
    assert_eq!(fs::read(folder.join("arms/samples.jsonl")).unwrap(), samples);
    // Without training, with a security model that is there.
    let alone = "model = \"model\"\n[eval]\nsuites = [\"scenarios.jsonl\"]\nsamples = 3\nset = { max_new_tokens = 20 }\n\
        [controls]\nsecure_prompt = false\n[[decoding]]\nname = \"watched\"\ndecoder = \"co-decoding\"\n";
    fs::write(folder.join("alone.toml"), alone).unwrap();
    fails(folder, &["eval", "alone.toml", "--out", "alone"], 2, "security_model");
    fs::write(folder.join("alone.toml"), format!("{alone}security_model = \"small\"\n")).unwrap();
    let said = succeeds(folder, &["eval", "alone.toml", "--out", "alone", "--json"]);
    let metrics: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(metrics["arms"]["watched"]["valid_all"]["denominator"], 9.0);
    let twice = format!("{run}[[decoding]]\nname = \"base\"\ndecoder = \"greedy\"\n");
    fs::write(folder.join("twice.toml"), twice).unwrap();
    fails(folder, &["harden", "twice.toml"], 2, "two arms are called `base`");
}

#[test]
fn what_cannot_be_decoded_is_said() {
    let place = pair();
    let folder = place.path();
    let check = |args: &[&str], said: &str| {
        let args = [&["complete", "--model", "model"], args].concat();
        fails(folder, &args, 2, said);
    };
    let prompt = ["--prompt-file", "prompt.py"];
    let watched = ["--decoder", "co-decoding", "--security-model"];
    check(&[&prompt[..], &watched, &["other"]].concat(), "different vocabularies: token");
    check(&[&prompt[..], &watched, &["none"]].concat(), "no model `none`");
    check(&[&prompt[..], &["--decoder", "co-decoding"]].concat(), "--security-model");
    check(&[&prompt[..], &["--security-model", "small"]].concat(), "--decoder co-decoding");
    check(&[&prompt[..], &watched, &["small", "--set", "draft=99"]].concat(), "from 1 to 16");
    check(&[&prompt[..], &watched, &["small", "--set", "preset=best"]].concat(), "cosec-released");
    check(&["--decoder", "two-step", "import os\n"], "--language");
    check(&["--decoder", "repair", "import os\n"], "--language");
    check(&["--set", "repair.by=security", "--language", "python", "x"], "[co_decoding]");
    check(&[""], "the prompt is empty");
    let long = "x = 1\n".repeat(400);
    check(&["--set", "long_prompt=error", &long], "long_prompt");
    // The end of a long prompt is kept, and half of the context is the prompt's.
    let output =
        hardn(folder, &["complete", "--model", "model", "--set", "max_new_tokens=9999", &long]);
    assert!(output.status.success());
    // A stop string that never comes ends nothing.
    let never = ["--set", "stop=[\"never to be written\"]", "--set", "max_new_tokens=40"];
    let row = rows(folder, &never).remove(0);
    assert!(row["finish"] == "length" || row["ids"].as_array().unwrap().len() < 40);
}
