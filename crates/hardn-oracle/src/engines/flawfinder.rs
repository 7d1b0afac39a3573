//! Flawfinder: C and C++, by name of the function called; gives CWEs with each finding.

use std::{collections::BTreeSet, sync::OnceLock};

use hardn_types::{Cwe, Language};

use super::{
    batch::Batch,
    external::{Adapter, Looked},
    place::{Columns, Lines},
    process::{Runner, ToolError},
    sarif::{class_in, read_sarif},
};

#[derive(Debug, Default)]
pub(crate) struct Flawfinder {
    covers: OnceLock<Vec<Cwe>>,
}

const ID: &str = "flawfinder";

impl Adapter for Flawfinder {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        matches!(language, Language::C | Language::Cpp).then_some("c")
    }

    fn run(&self, runner: &Runner, _: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let covers = self.covers(runner)?;
        let output = runner.run(batch.folder(), |command| {
            command.args(["--sarif", "--quiet", "--"]).args(&batch.files);
        })?;
        let output = output.expect(&[0])?;
        let runs = read_sarif(&output.stdout).map_err(|why| output.wrong(why))?;
        let mut looked = Looked::silent(batch.pieces.len());
        looked.covers = covers;
        // It does not say which files it read; those it cannot read it names.
        for line in output.stderr.lines().filter(|line| line.contains("rror")) {
            for (number, file) in batch.files.iter().enumerate() {
                if line.contains(&*file.to_string_lossy()) {
                    looked.fail(number, line);
                }
            }
        }
        for result in runs.into_iter().flat_map(|run| run.results) {
            for &number in batch.pieces_of(&result.at.uri) {
                let span = Lines::new(batch.pieces[number].code)
                    .span(result.at.place, Columns::CodePoints);
                looked.add(number, result.finding(ID, span, Vec::new()));
            }
        }
        Ok(looked)
    }
}

impl Flawfinder {
    /// Asks the tool, once, for its rules, whose texts name their classes.
    fn covers(&self, runner: &Runner) -> Result<Vec<Cwe>, ToolError> {
        if let Some(covers) = self.covers.get() {
            return Ok(covers.clone());
        }
        let folder = tempfile::tempdir()?;
        let output = runner.run(folder.path(), |command| {
            command.arg("--listrules");
        })?;
        let output = output.expect(&[0])?;
        let covers: BTreeSet<Cwe> =
            output.stdout.split([' ', '/', ',', '(']).filter_map(class_in).collect();
        Ok(self.covers.get_or_init(|| covers.into_iter().collect()).clone())
    }
}
