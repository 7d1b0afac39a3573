//! Other engines beside the built-in oracle, as stand-ins.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

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
