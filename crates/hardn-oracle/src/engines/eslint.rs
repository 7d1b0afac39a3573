//! ESLint: JavaScript and TypeScript; classes come from `engines/eslint.toml`.

use std::path::PathBuf;

use hardn_types::{Finding, Language};
use serde::Deserialize;

use super::{
    batch::{Batch, Placement},
    external::{Adapter, Looked},
    place::{Columns, Lines, Place},
    process::{Runner, ToolError},
    table,
};

/// ESLint with a configuration, or with the one shipped.
#[derive(Debug)]
pub(crate) struct Eslint {
    pub(crate) config: Option<PathBuf>,
}

const ID: &str = "eslint";

/// Switches on the rules of `engines/eslint.toml` whose plugins are installed beside ESLint.
const CONFIG: &str = include_str!("../../../../engines/eslint.config.mjs");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileReport {
    file_path: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    rule_id: Option<String>,
    #[serde(rename = "message")]
    text: String,
    line: Option<u32>,
    column: Option<u32>,
    end_line: Option<u32>,
    end_column: Option<u32>,
}

impl Adapter for Eslint {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        matches!(language, Language::JavaScript | Language::TypeScript).then_some("javascript")
    }

    fn placement(&self, _: &str) -> Placement {
        // It reads nothing above the folder it runs in.
        Placement::Copied
    }

    fn run(&self, runner: &Runner, _: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let table = table::eslint();
        let config = if let Some(path) = &self.config {
            path.canonicalize()?
        } else {
            let path = batch.folder().join("eslint.config.mjs");
            std::fs::write(&path, CONFIG)?;
            path
        };
        let names: Vec<&str> = table.names().collect();
        let enabled = batch.folder().join("enabled");
        let output = runner.run(batch.folder(), |command| {
            let program = which(&runner.program);
            command.env("HARDN_ESLINT_RULES", names.join(",")).env("HARDN_ESLINT_AT", program);
            command.env("HARDN_ESLINT_ENABLED", &enabled);
            command.arg("--no-config-lookup").arg("--config").arg(config);
            command.args(["--format", "json", "--no-inline-config", "--"]).args(&batch.files);
        })?;
        // 1 says that there are findings.
        let output = output.expect(&[0, 1])?;
        let reports: Vec<FileReport> = serde_json::from_str(&output.stdout)
            .map_err(|error| output.wrong(format!("its report is not what it writes ({error})")))?;
        let mut looked = Looked::silent(batch.pieces.len());
        // Our configuration leaves a list; what one of the user's own switches on is not known.
        let enabled = std::fs::read_to_string(&enabled).unwrap_or_default();
        looked.covers = enabled.lines().flat_map(|rule| table.classes(rule)).copied().collect();
        looked.covers.sort();
        looked.covers.dedup();
        let mut reported = vec![false; batch.pieces.len()];
        for report in &reports {
            for &number in batch.pieces_of(&report.file_path) {
                reported[number] = true;
                let lines = Lines::new(batch.pieces[number].code);
                for message in &report.messages {
                    // Messages of no rule: a parse error, an ignored file, a rule that crashed.
                    let Some(rule) = &message.rule_id else {
                        looked.fail(number, &message.text);
                        continue;
                    };
                    let classes = table.classes(rule);
                    if classes.is_empty() {
                        continue;
                    }
                    let place = Place {
                        line: message.line.unwrap_or(1),
                        column: message.column,
                        end_line: message.end_line,
                        end_column: message.end_column,
                    };
                    looked.add(
                        number,
                        Finding {
                            engine: ID.to_owned(),
                            rule: rule.clone(),
                            cwe: classes.to_vec(),
                            span: lines.span(place, Columns::Utf16),
                            message: message.text.clone(),
                            trace: Vec::new(),
                        },
                    );
                }
            }
        }
        for number in (0..reported.len()).filter(|number| !reported[*number]) {
            looked.fail(number, "its report does not name the file");
        }
        Ok(looked)
    }
}

/// Where a program really lies, so that its plugins are found beside it.
fn which(program: &std::path::Path) -> PathBuf {
    let found = if program.components().count() > 1 {
        Some(program.to_owned())
    } else {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    };
    let path = found.unwrap_or_else(|| program.to_owned());
    path.canonicalize().unwrap_or(path)
}
