//! Cppcheck: C and C++; gives a CWE with each finding, and a line for each file it checks.

use std::sync::OnceLock;

use hardn_types::{Cwe, Finding, Language};

use super::{
    batch::Batch,
    external::{Adapter, Looked, c_or_cpp},
    place::{Columns, Lines, Place},
    process::{Runner, ToolError},
};

#[derive(Debug, Default)]
pub(crate) struct Cppcheck {
    covers: OnceLock<Vec<Cwe>>,
}

const ID: &str = "cppcheck";

/// What a line of ours begins with, so that no other line is taken for one.
const MARK: &str = "@hardn@";

/// Findings that say that the file was not checked to its end.
const FAILURES: [&str; 7] = [
    "syntaxError",
    "internalError",
    "internalAstError",
    "unknownMacro",
    "preprocessorErrorDirective",
    "cppcheckError",
    "noValidConfiguration",
];

impl Adapter for Cppcheck {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        c_or_cpp(language)
    }

    fn run(&self, runner: &Runner, group: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let covers = self.covers(runner)?;
        let output = runner.run(batch.folder(), |command| {
            command
                .arg(format!("--language={group}"))
                .args(["--enable=warning,portability", "--inconclusive"])
                .arg(format!(
                    "--template={MARK}{{file}}\t{{line}}\t{{column}}\t{{id}}\t{{cwe}}\t{{message}}"
                ))
                .arg("--template-location=")
                .args(&batch.files);
        })?;
        let output = output.expect(&[0])?;
        let mut looked = Looked::silent(batch.pieces.len());
        looked.covers = covers;
        let mut checked = vec![false; batch.pieces.len()];
        for line in output.stdout.lines() {
            let Some(rest) = line.strip_prefix("Checking ") else { continue };
            let name = rest.trim_end_matches("...").trim_end();
            batch.pieces_of(name).iter().for_each(|number| checked[*number] = true);
        }
        for number in (0..checked.len()).filter(|number| !checked[*number]) {
            looked.fail(number, "it does not say that it checked the file");
        }
        for line in output.stderr.lines().filter_map(|line| line.strip_prefix(MARK)) {
            let fields: Vec<&str> = line.splitn(6, '\t').collect();
            let [file, line, column, id, cwe, message] = fields[..] else {
                return Err(output.wrong("a line of its report is not what was asked for"));
            };
            for &number in batch.pieces_of(file) {
                if FAILURES.contains(&id) {
                    looked.fail(number, format!("{message} [{id}]"));
                    continue;
                }
                // Without a class it is no finding of security.
                let Some(cwe) = cwe.parse().ok().filter(|cwe| *cwe > 0) else { continue };
                let lines = Lines::new(batch.pieces[number].code);
                let place = Place {
                    line: line.parse().unwrap_or(1),
                    column: column.parse().ok().filter(|column| *column > 0),
                    ..Place::default()
                };
                looked.add(
                    number,
                    Finding {
                        engine: ID.to_owned(),
                        rule: id.to_owned(),
                        cwe: vec![Cwe(cwe)],
                        span: lines.span(place, Columns::Bytes),
                        message: message.to_owned(),
                        trace: Vec::new(),
                    },
                );
            }
        }
        Ok(looked)
    }
}

impl Cppcheck {
    /// Asks the tool, once, for all it can report.
    fn covers(&self, runner: &Runner) -> Result<Vec<Cwe>, ToolError> {
        if let Some(covers) = self.covers.get() {
            return Ok(covers.clone());
        }
        let folder = tempfile::tempdir()?;
        let output = runner.run(folder.path(), |command| {
            command.arg("--errorlist");
        })?;
        let output = output.expect(&[0])?;
        let mut covers: Vec<Cwe> = output
            .stdout
            .split("cwe=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next()?.parse().ok().map(Cwe))
            .collect();
        covers.sort();
        covers.dedup();
        Ok(self.covers.get_or_init(|| covers).clone())
    }
}
