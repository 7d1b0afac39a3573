//! Semgrep: the rules are the user's; results carry the classes of the rule's metadata.

use std::{collections::BTreeSet, path::PathBuf};

use hardn_types::{Cwe, Finding, Language};
use serde::Deserialize;
use serde_json::Value;

use super::{
    batch::Batch,
    external::{Adapter, Looked, version_in},
    place::{Columns, Lines, Place},
    process::{Runner, ToolError},
    sarif::class_in,
};

/// Semgrep with its rules: files, folders or names of the registry.
#[derive(Debug)]
pub(crate) struct Semgrep {
    pub(crate) configs: Vec<String>,
}

const ID: &str = "semgrep";

/// Without a network it waits minutes for an answer about newer versions.
const OFFLINE: [(&str, &str); 2] =
    [("SEMGREP_ENABLE_VERSION_CHECK", "0"), ("SEMGREP_SEND_METRICS", "off")];

#[derive(Deserialize)]
struct Report {
    results: Vec<Match>,
    errors: Vec<Value>,
    paths: Paths,
}

#[derive(Deserialize)]
struct Paths {
    scanned: Vec<String>,
}

#[derive(Deserialize)]
struct Match {
    check_id: String,
    path: String,
    start: Position,
    end: Position,
    extra: Extra,
}

#[derive(Deserialize)]
struct Position {
    line: u32,
    col: u32,
}

#[derive(Deserialize)]
struct Extra {
    message: String,
    #[serde(default)]
    metadata: Value,
}

impl Adapter for Semgrep {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        // A language at a time, so that what is covered can be told for each.
        Some(language.name())
    }

    fn version(&self, runner: &Runner) -> Result<String, ToolError> {
        let folder = tempfile::tempdir()?;
        let output = runner.run(folder.path(), |command| {
            command.arg("--version").envs(OFFLINE);
        })?;
        let output = output.expect(&[0])?;
        version_in(&output.stdout).ok_or_else(|| output.wrong("`--version` prints no version"))
    }

    fn run(&self, runner: &Runner, group: &str, batch: &Batch) -> Result<Looked, ToolError> {
        if self.configs.is_empty() {
            let what = "no rules were given; name a file or folder with --semgrep-config";
            return Err(ToolError::Output { what: what.to_owned(), tail: String::new() });
        }
        let output = runner.run(batch.folder(), |command| {
            command.args(["scan", "--json", "--quiet", "--metrics", "off"]);
            command.args(["--disable-version-check", "--no-git-ignore"]);
            command.envs(OFFLINE);
            for config in &self.configs {
                // The tool runs in a folder of its own.
                let path = PathBuf::from(config).canonicalize();
                command.arg("--config").arg(path.unwrap_or_else(|_| config.into()));
            }
            command.arg("--").args(&batch.files);
        })?;
        // 1 says that there are findings, where `--error` is set.
        let output = output.expect(&[0, 1])?;
        let report: Report = serde_json::from_str(&output.stdout)
            .map_err(|error| output.wrong(format!("its report is not what it writes ({error})")))?;
        let mut looked = Looked::silent(batch.pieces.len());
        looked.covers = covers(&self.configs, group);
        for error in &report.errors {
            let text = error["message"].as_str().unwrap_or("an error without words");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match error["path"].as_str() {
                Some(path) => batch.pieces_of(path).iter().for_each(|n| looked.fail(*n, &text)),
                // A rule that could not be read or run: the silence of the others is not the rule's.
                None => return Err(output.wrong(text)),
            }
        }
        let scanned: BTreeSet<usize> =
            report.paths.scanned.iter().flat_map(|path| batch.pieces_of(path)).copied().collect();
        for number in (0..batch.pieces.len()).filter(|number| !scanned.contains(number)) {
            looked.fail(number, "it passed over the file (not in its `paths.scanned`)");
        }
        for found in &report.results {
            for &number in batch.pieces_of(&found.path) {
                let lines = Lines::new(batch.pieces[number].code);
                let place = Place {
                    line: found.start.line,
                    column: Some(found.start.col),
                    end_line: Some(found.end.line),
                    end_column: Some(found.end.col),
                };
                looked.add(
                    number,
                    Finding {
                        engine: ID.to_owned(),
                        rule: found.check_id.clone(),
                        cwe: classes(&found.extra.metadata["cwe"]),
                        span: lines.span(place, Columns::Bytes),
                        message: found.extra.message.trim().to_owned(),
                        trace: Vec::new(),
                    },
                );
            }
        }
        Ok(looked)
    }
}

/// A class or a list of them, as rules write them: `CWE-89: SQL injection`.
fn classes(value: &Value) -> Vec<Cwe> {
    match value {
        Value::String(text) => class_in(text).into_iter().collect(),
        Value::Array(texts) => texts.iter().filter_map(|text| class_in(text.as_str()?)).collect(),
        _ => Vec::new(),
    }
}

/// The classes of local rules for a language; empty where a configuration is no local file, or names no classes.
fn covers(configs: &[String], language: &str) -> Vec<Cwe> {
    let mut found = BTreeSet::new();
    for config in configs {
        let Ok(paths) = rule_files(PathBuf::from(config)) else { return Vec::new() };
        for path in paths {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            // What is no rule file, Semgrep itself complains of.
            let Ok(file) = serde_yaml_ng::from_str::<Value>(&text) else { continue };
            for rule in file["rules"].as_array().into_iter().flatten() {
                let languages = rule["languages"].as_array().into_iter().flatten();
                if languages.filter_map(Value::as_str).any(|name| means(name, language)) {
                    found.extend(classes(&rule["metadata"]["cwe"]));
                }
            }
        }
    }
    found.into_iter().collect()
}

fn rule_files(path: PathBuf) -> std::io::Result<Vec<PathBuf>> {
    if !path.metadata()?.is_dir() {
        return Ok(vec![path]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let is_rule = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
        if path.is_dir() {
            files.extend(rule_files(path)?);
        } else if is_rule {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether a language's name in a rule is this one of ours.
fn means(name: &str, language: &str) -> bool {
    matches!(name, "generic" | "regex") || name.parse::<Language>().is_ok_and(|named| named.name() == language)
        // Semgrep reads a rule for JavaScript on TypeScript only where the rule says so.
        || (name == "python3" && language == "python")
}
