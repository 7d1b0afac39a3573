//! The command as a user runs it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use hardn_models::{LAB_SPECIALS, LlamaConfig, Model, SaveDtype, train_bpe};
use serde_json::{Value, json};

fn hardn(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hardn")).args(args).current_dir(folder).output().unwrap()
}

#[track_caller]
fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = hardn(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(folder: &Path, args: &[&str], status: i32, said: &str) {
    let output = hardn(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {error}");
    assert!(error.contains(said), "{args:?} said: {error}");
}

/// Fix pairs and scenarios of one kind: a shell command built from a name.
fn pair(i: usize) -> Value {
    let prompt = format!("import subprocess\n\n\ndef run_{i}(name_{i}):\n");
    json!({
        "id": i.to_string(), "cwe": "CWE-078", "language": "python", "prompt": prompt,
        "before": format!("{prompt}    return subprocess.check_output(\"echo \" + name_{i}, shell=True, text=True)\n"),
        "after": format!("{prompt}    return subprocess.check_output([\"echo\", name_{i}], text=True)\n"),
    })
}

fn scenario(i: usize) -> Value {
    json!({
        "id": format!("s{i}"), "suite": "own", "family": format!("f{i}"), "cwe": "CWE-078", "language": "python",
        "split": "test", "prompt": format!("import subprocess\n\n\ndef say_{i}(text_{i}):\n"),
        "function_test": format!("assert say_{i}(\"a\") == \"a\\n\""),
        "attack_test": format!("import os\ntry:\n    say_{i}(\"a; touch pwned\")\nexcept Exception:\n    pass\nraise SystemExit(os.path.exists(\"pwned\"))"),
    })
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().fold(String::new(), |text, row| format!("{text}{row}\n"))
}

/// A folder with a tiny random model, pairs, utility rows, scenarios and a run's configuration.
fn workplace() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let pairs: Vec<Value> = (0..8).map(pair).collect();
    let texts: Vec<String> =
        pairs.iter().map(|pair| pair["after"].as_str().unwrap().to_owned()).collect();
    let tokenizer = train_bpe(texts.iter().map(String::as_str), 320, LAB_SPECIALS).unwrap();
    tokenizer.save(&at("model")).unwrap();
    let config = LlamaConfig::small(tokenizer.vocab_size(), 16, 2, 2, 32, 256);
    Model::random(&config, 1).unwrap().save(&at("model"), SaveDtype::F32).unwrap();
    let utility = (0..6).map(|i| json!({"prompt": format!("def f{i}(a):\n"), "completion": "    return a\n", "language": "python"}));
    fs::write(at("utility.jsonl"), lines(utility)).unwrap();
    fs::write(at("pairs.jsonl"), lines(pairs)).unwrap();
    fs::write(at("scenarios.jsonl"), lines((0..3).map(scenario))).unwrap();
    let run = "model = \"model\"\n[train]\nrecipe = \"safecoder-lab\"\n\
        set = { \"training.max_steps\" = 3, \"training.batch_size\" = 4 }\n\
        pairs = [\"pairs.jsonl\"]\nvalidation_pairs = [\"pairs.jsonl\"]\nutility = [\"utility.jsonl\"]\n\
        [eval]\nsuites = [\"scenarios.jsonl\"]\nsamples = 3\nset = { max_new_tokens = 20 }\n";
    fs::write(at("run.toml"), run).unwrap();
    place
}

#[test]
fn a_model_goes_in_and_a_report_comes_out_and_a_cut_run_ends_with_the_same_bytes() {
    let place = workplace();
    let folder = place.path();
    let metrics: Value = serde_json::from_str(&succeeds(
        folder,
        &["harden", "run.toml", "--out", "whole", "--json"],
    ))
    .unwrap();
    for arm in ["base", "hardened", "utility_only", "shuffled_labels", "secure_prompt"] {
        let valid = &metrics["arms"][arm]["valid_all"];
        assert_eq!(valid["denominator"], 9.0, "{arm}: {valid}");
    }
    assert_eq!(metrics["arms"]["base"]["preference"]["denominator"], 8.0);
    // The constant control writes the pairs' fix with the prompt's names: it works and holds everywhere.
    let constant = &metrics["arms"]["constant_idiom"]["secure_pass_at_1_attack"];
    assert_eq!((&constant["numerator"], &constant["denominator"]), (&json!(3.0), &json!(3.0)));
    assert!(
        fs::read_to_string(folder.join("whole/report.html")).unwrap().contains("constant idiom")
    );
    assert!(folder.join("whole/training/hardened/adapter/adapter_model.safetensors").exists());

    // What a kill in the middle of a write leaves: whole rows, then a torn one; a training without its end.
    succeeds(folder, &["harden", "run.toml", "--out", "cut", "--json"]);
    for name in ["samples.jsonl", "verdicts.jsonl"] {
        let path = folder.join("cut").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 2 / 5]).unwrap();
    }
    fs::remove_file(folder.join("cut/metrics.json")).unwrap();
    fs::remove_dir_all(folder.join("cut/training/shuffled_labels")).unwrap();
    succeeds(folder, &["harden", "run.toml", "--out", "cut", "--json"]);
    for name in ["samples.jsonl", "verdicts.jsonl", "metrics.json", "run.json", "report.html"] {
        let read = |run: &str| fs::read(folder.join(run).join(name)).unwrap();
        assert!(read("whole") == read("cut"), "{name} differs");
    }
}

#[test]
fn bad_input_is_named_and_nothing_is_lost() {
    let place = workplace();
    let folder = place.path();
    fails(folder, &["harden", "run.toml", "--set", "modle=1"], 2, "modle");
    fails(folder, &["harden", "run.toml", "--set", "model=nowhere"], 2, "nowhere");
    fails(folder, &["harden", "run.toml", "--set", "train.recipe=safecodr"], 2, "safecodr");
    fs::write(folder.join("bad.jsonl"), "{\"id\":\n").unwrap();
    fails(
        folder,
        &["inspect", "masks", "--tokenizer", "model", "--kind", "line", "bad.jsonl"],
        2,
        "bad.jsonl",
    );
    fails(
        folder,
        &["inspect", "masks", "--tokenizer", "model", "--kind", "lines", "pairs.jsonl"],
        2,
        "lines",
    );
    let weights = folder.join("model/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    fails(folder, &["complete", "x", "--model", "model"], 2, "model.safetensors");
}

#[test]
fn inspection_prints_json_lines_and_nothing_else() {
    let place = workplace();
    let folder = place.path();
    let logits: Value = serde_json::from_str(&succeeds(
        folder,
        &["inspect", "logits", "--model", "model", "--ids", "5,6,7"],
    ))
    .unwrap();
    assert_eq!(logits["shape"][0], 3);
    assert_eq!(
        logits["logits"][2].as_array().unwrap().len() as u64,
        logits["shape"][1].as_u64().unwrap()
    );
    let loss = succeeds(
        folder,
        &["inspect", "loss", "--model", "model", "--recipe", "safecoder-lab", "pairs.jsonl"],
    );
    assert_eq!(loss.lines().count(), 16);
    let first: Value = serde_json::from_str(loss.lines().next().unwrap()).unwrap();
    assert!(first["terms"]["nll"].as_f64().unwrap() > 0.0 && first["side"] == "secure");
    let preference =
        succeeds(folder, &["inspect", "preference", "--model", "model", "pairs.jsonl"]);
    assert_eq!(preference.lines().count(), 8);
    let twice = || {
        succeeds(
            folder,
            &[
                "complete",
                "def f(a):",
                "--model",
                "model",
                "--json",
                "-n",
                "2",
                "--set",
                "max_new_tokens=5",
            ],
        )
    };
    assert_eq!(twice(), twice());
}

#[test]
fn scan_says_by_its_exit_status_whether_it_found_something() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fs::write(folder.join("bad.py"), "import os\ndef f(name):\n    os.system(\"ls \" + name)\n")
        .unwrap();
    fs::write(folder.join("good.py"), "def f(a):\n    return a + 1\n").unwrap();
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

/// Programs that answer as two analysers do: one flags every `eval`, the other says that it could not read a file.
fn stand_ins(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;

    let script = "#!/usr/bin/env python3\nimport json, os, sys\nargs = sys.argv[1:]\n\
        if args == ['--version']:\n    print('VERSION')\n    sys.exit(0)\n\
        if args == ['--errorlist']:\n    sys.exit(0)\n\
        files = [a for a in args if a.endswith('.py')]\n";
    let bandit = "results = [{'filename': f, 'test_id': 'B307', 'issue_text': 'eval', 'issue_cwe': {'id': 94}, 'line_number': n + 1}\n\
        \x20   for f in files for n, line in enumerate(open(f)) if 'eval(' in line]\n\
        broken = [f for f in files if 'broken' in f]\n\
        print(json.dumps({'errors': [{'filename': f, 'reason': 'syntax error'} for f in broken],\n\
        \x20   'metrics': {f: {} for f in files}, 'results': results}))\nsys.exit(1)\n";
    for (name, text) in [
        ("bandit", format!("{}{bandit}", script.replace("VERSION", "bandit 1.9.4"))),
        ("flawfinder", format!("{}sys.exit(3)\n", script.replace("VERSION", "2.0.20"))),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn other_engines_join_a_scan() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    stand_ins(folder);
    fs::create_dir(folder.join("src")).unwrap();
    let code = "import os\ndef f(name):\n    os.system(name)\n    return eval(name)\n";
    for (name, code) in [("a.py", code), ("broken.py", "x = 1\n"), ("clean.py", "y = 2\n")] {
        fs::write(folder.join("src").join(name), code).unwrap();
    }
    let scan = |args: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_hardn"))
            .args([&["scan", "--no-cache", "src"], args].concat())
            .current_dir(folder)
            .env("HARDN_BANDIT", folder.join("bandit"))
            .env("HARDN_FLAWFINDER", folder.join("flawfinder"))
            .env("HARDN_SEMGREP", folder.join("no-such-program"))
            .output()
            .unwrap()
    };
    let rows = |args: &[&str]| -> Vec<Value> {
        let output = scan(&[&["--json"], args].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let found = |args: &[&str]| -> Vec<(String, u64)> {
        rows(args)
            .iter()
            .filter(|row| row.get("rule").is_some())
            .map(|row| (row["engine"].as_str().unwrap().to_owned(), row["line"].as_u64().unwrap()))
            .collect()
    };
    let both = ["--oracle", "builtin,bandit"];
    let pairs = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
        rows.iter().map(|(engine, line)| ((*engine).to_owned(), *line)).collect()
    };
    assert_eq!(found(&both), pairs(&[("hardn", 3), ("bandit", 4), ("hardn", 4)]));
    assert_eq!(
        found(&["--oracle", "builtin,bandit", "--combine", "all"]),
        pairs(&[("bandit", 4), ("hardn", 4)])
    );
    assert_eq!(found(&["--oracle", "bandit"]), pairs(&[("bandit", 4)]));
    let silent = rows(&both);
    let silent: Vec<&Value> =
        silent.iter().filter(|row| row.get("not_analysed").is_some()).collect();
    assert_eq!(silent.len(), 1);
    assert_eq!(silent[0]["path"], "src/broken.py");
    assert_eq!(silent[0]["not_analysed"], "bandit: syntax error");

    let sarif: Value =
        serde_json::from_slice(&scan(&["--sarif", "--oracle", "builtin,bandit"]).stdout).unwrap();
    let runs = sarif["runs"].as_array().unwrap();
    let sizes: Vec<usize> =
        runs.iter().map(|run| run["results"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [2, 1]);
    assert_eq!(runs[1]["tool"]["driver"]["version"], "1.9.4");
    // The log of one run is an engine of another.
    fs::write(folder.join("log.sarif"), sarif.to_string()).unwrap();
    let saved = ["--oracle", "bandit,sarif:log.sarif", "--combine", "all"];
    // Bandit's own, and what the log has of it from both.
    assert_eq!(found(&saved).len(), 3);

    let table = rows(&["--oracle", "builtin,bandit", "--agreement"]);
    let all = table.last().unwrap();
    assert_eq!(
        (&all["a"], &all["b"], &all["files"]),
        (&json!("hardn 0.1.0"), &json!("bandit 1.9.4"), &json!(2))
    );
    let row = table.iter().find(|row| row["cwe"] == 94).unwrap();
    assert_eq!((&row["both"], &row["neither"], &row["kappa"]), (&json!(1), &json!(1), &json!(1.0)));

    fs::write(folder.join("src/a.c"), "int main(void) { return 0; }\n").unwrap();
    for (args, status, said) in [
        (["--oracle", "semgrep"], 2, "engine semgrep cannot be asked: not found"),
        (["--oracle", "lint"], 2, "no engine is called `lint`"),
        (["--oracle", "builtin,builtin"], 2, "twice"),
        (
            ["--oracle", "flawfinder"],
            2,
            "flawfinder analysed none of 1 file(s): flawfinder: ended with exit status 3",
        ),
    ] {
        let output = scan(&args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?} said: {error}");
    }
}
