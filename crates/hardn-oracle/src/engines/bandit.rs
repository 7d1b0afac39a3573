//! Bandit: Python; gives a CWE with each finding, and a count for each file it read.

use std::collections::BTreeMap;

use hardn_types::{Cwe, Finding, Language};
use serde::Deserialize;

use super::{
    batch::Batch,
    external::{Adapter, Looked},
    place::{Columns, Lines, Place},
    process::{Runner, ToolError},
    table,
};

#[derive(Debug)]
pub(crate) struct Bandit;

const ID: &str = "bandit";

#[derive(Deserialize)]
struct Report {
    errors: Vec<FileError>,
    /// One entry for each file that was opened, and `_totals`.
    metrics: BTreeMap<String, serde_json::Value>,
    results: Vec<Issue>,
}

#[derive(Deserialize)]
struct FileError {
    filename: String,
    reason: String,
}

#[derive(Deserialize)]
struct Issue {
    filename: String,
    test_id: String,
    #[serde(rename = "issue_text")]
    text: String,
    #[serde(rename = "issue_cwe")]
    cwe: Option<IssueCwe>,
    line_number: u32,
    col_offset: Option<u32>,
    end_col_offset: Option<u32>,
    #[serde(default)]
    line_range: Vec<u32>,
}

#[derive(Deserialize)]
struct IssueCwe {
    id: Option<u16>,
}

impl Adapter for Bandit {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        (language == Language::Python).then_some("python")
    }

    fn run(&self, runner: &Runner, _: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let output = runner.run(batch.folder(), |command| {
            // Without `--exclude` it passes over folders by name, such as `.git` and `.tox`.
            command.args(["-f", "json", "-q", "--exclude", "", "--"]).args(&batch.files);
        })?;
        // 1 says that there are findings.
        let output = output.expect(&[0, 1])?;
        let report: Report = serde_json::from_str(&output.stdout)
            .map_err(|error| output.wrong(format!("its report is not what it writes ({error})")))?;
        let mut looked = Looked::silent(batch.pieces.len());
        looked.covers = table::bandit().covers();
        let mut seen = vec![false; batch.pieces.len()];
        for name in report.metrics.keys() {
            batch.pieces_of(name).iter().for_each(|number| seen[*number] = true);
        }
        for error in &report.errors {
            batch.pieces_of(&error.filename).iter().for_each(|n| looked.fail(*n, &error.reason));
        }
        for number in (0..seen.len()).filter(|number| !seen[*number]) {
            looked.fail(number, "its report does not name the file");
        }
        for issue in &report.results {
            for &number in batch.pieces_of(&issue.filename) {
                let lines = Lines::new(batch.pieces[number].code);
                let one_line = issue.line_range.iter().all(|line| *line == issue.line_number);
                let place = Place {
                    line: issue.line_number,
                    column: issue.col_offset.map(|offset| offset + 1),
                    end_line: None,
                    end_column: issue.end_col_offset.filter(|_| one_line).map(|end| end + 1),
                };
                let cwe = issue.cwe.as_ref().and_then(|cwe| cwe.id).filter(|id| *id > 0);
                looked.add(
                    number,
                    Finding {
                        engine: ID.to_owned(),
                        rule: issue.test_id.clone(),
                        cwe: cwe.map(Cwe).into_iter().collect(),
                        span: lines.span(place, Columns::Bytes),
                        message: issue.text.clone(),
                        trace: Vec::new(),
                    },
                );
            }
        }
        Ok(looked)
    }
}
