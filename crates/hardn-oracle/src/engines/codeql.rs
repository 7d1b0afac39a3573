//! CodeQL: one database for thousands of files of a language, one run of all queries over it.
//!
//! How the published evaluations call it, and how they read a failed run as "all secure", is what this does not do:
//! a database that was not made, a file that is not in its source archive, a log that is not there are said so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use hardn_types::{Cwe, Language, TraceStep};
use sha2::{Digest, Sha256};

use super::{
    batch::{Batch, Placement},
    external::{Adapter, Looked},
    place::Lines,
    process::{Runner, ToolError},
    sarif::{SarifRun, read_sarif},
    sven_078,
};

/// How C, C++ and Java get into a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeqlBuild {
    /// By reading them (`--build-mode=none`): C and C++ from version 2.22, Java from 2.16.5.
    None,
    /// By compiling each file (`gcc -c`, `javac`), as older versions need and the published evaluations do.
    Compile,
}

/// What is asked of CodeQL.
#[derive(Clone, Debug, Default)]
pub struct CodeqlSettings {
    /// Queries, suites or packs, all run at once; default: the security-extended suite of the language.
    pub queries: Vec<String>,
    /// A checkout of the query repository: queries that scenarios name by a path in it are looked up here.
    pub repository: Option<PathBuf>,
    /// Default: by the tool's version.
    pub build: Option<CodeqlBuild>,
    /// Drops alerts of CWE-078 on a name that holds a list, as SVEN's evaluation does (Python).
    pub sven_078: bool,
}

#[derive(Debug)]
pub(crate) struct Codeql {
    pub(crate) settings: CodeqlSettings,
    record: Mutex<BTreeMap<String, String>>,
}

const ID: &str = "codeql";

impl Codeql {
    pub(crate) fn new(settings: CodeqlSettings) -> Self {
        Self { settings, record: Mutex::default() }
    }
}

impl Adapter for Codeql {
    fn id(&self) -> &'static str {
        ID
    }

    fn group(&self, language: Language) -> Option<&'static str> {
        Some(match language {
            Language::Python => "python",
            Language::C | Language::Cpp => "cpp",
            Language::JavaScript | Language::TypeScript => "javascript",
            Language::Go => "go",
            Language::Java => "java",
            Language::Ruby => "ruby",
        })
    }

    fn placement(&self, group: &str) -> Placement {
        match group {
            "go" | "java" => Placement::OwnFolders,
            _ => Placement::Copied,
        }
    }

    fn batch_size(&self) -> usize {
        4000
    }

    fn run(&self, runner: &Runner, group: &str, batch: &Batch) -> Result<Looked, ToolError> {
        let mut looked = Looked::silent(batch.pieces.len());
        let wanted = self.queries(group, batch, &mut looked);
        self.note_queries(runner, batch, &wanted.specifiers)?;
        let database = self.create(runner, group, batch, &mut looked)?;
        if looked.pieces.iter().all(Result::is_err) {
            return Ok(looked);
        }
        let runs = analyze(runner, batch, &database, &wanted.specifiers)?;
        let mut covers = BTreeSet::new();
        for run in runs {
            self.note_packs(&run);
            covers.extend(run.rules.values().flatten().copied());
            self.take(run, batch, &wanted.ids, &mut looked);
        }
        looked.covers = covers.into_iter().collect();
        Ok(looked)
    }

    fn record(&self) -> BTreeMap<String, String> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The queries of a batch.
struct Wanted {
    specifiers: Vec<String>,
    /// The id of the one query whose alerts count, for pieces that name one.
    ids: Vec<Option<String>>,
}

impl Codeql {
    fn queries(&self, group: &str, batch: &Batch, looked: &mut Looked) -> Wanted {
        let mut specifiers = BTreeSet::new();
        let mut ids = Vec::new();
        let mut general = false;
        for (number, piece) in batch.pieces.iter().enumerate() {
            let Some(name) = piece.query else {
                general = true;
                ids.push(None);
                continue;
            };
            match self.query_file(name) {
                Ok((path, id)) => {
                    specifiers.insert(path.to_string_lossy().into_owned());
                    ids.push(Some(id));
                }
                Err(why) => {
                    looked.fail(number, why);
                    ids.push(None);
                }
            }
        }
        if general && self.settings.queries.is_empty() {
            specifiers.insert(format!(
                "codeql/{group}-queries:codeql-suites/{group}-security-extended.qls"
            ));
        } else if general {
            specifiers.extend(self.settings.queries.iter().cloned());
        }
        Wanted { specifiers: specifiers.into_iter().collect(), ids }
    }

    /// The file of a query that a scenario names, and the id its alerts carry.
    fn query_file(&self, name: &str) -> Result<(PathBuf, String), String> {
        // Published descriptions escape blanks as for a shell.
        let plain = name.replace('\\', "");
        let in_repository = self.settings.repository.as_ref().and_then(|root| {
            let (_, rest) = plain.split_once("codeql-repo/")?;
            Some(root.join(rest))
        });
        let path = in_repository.unwrap_or_else(|| PathBuf::from(&plain));
        let text = fs::read_to_string(&path).map_err(|error| {
            format!(
                "the query `{}` cannot be read ({error}); a checkout of the query repository is looked up by `codeql.repository`",
                path.display()
            )
        })?;
        let id = text
            .lines()
            .filter_map(|line| line.trim().trim_start_matches('*').trim().strip_prefix("@id"))
            .find_map(|rest| rest.split_whitespace().next());
        let id = id.ok_or_else(|| format!("the query `{}` has no @id", path.display()))?;
        Ok((path.canonicalize().unwrap_or(path.clone()), id.to_owned()))
    }

    fn create(
        &self,
        runner: &Runner,
        group: &str,
        batch: &Batch,
        looked: &mut Looked,
    ) -> Result<PathBuf, ToolError> {
        let database = batch.folder().join("database");
        let failed = batch.folder().join("failed.txt");
        let build = match group {
            "cpp" | "java" => {
                Some(self.settings.build.map_or_else(|| default_build(runner, self, group), Ok)?)
            }
            "go" => Some(CodeqlBuild::Compile),
            _ => None,
        };
        let script = match build {
            Some(CodeqlBuild::Compile) => Some(write_build(group, batch, &failed)?),
            _ => None,
        };
        let output = runner.run(batch.folder(), |command| {
            command.args(["database", "create", "--threads=0", &format!("--language={group}")]);
            command.arg(format!("--source-root={}", batch.code_folder().display()));
            match (&script, build) {
                (Some(script), _) => {
                    command.arg(format!("--command=sh {}", script.display()));
                }
                (None, Some(CodeqlBuild::None)) => {
                    command.arg("--build-mode=none");
                }
                _ => {}
            }
            command.arg("--").arg(&database);
        })?;
        for line in fs::read_to_string(&failed).unwrap_or_default().lines() {
            let (name, why) = line.split_once('\t').unwrap_or((line, ""));
            let why = format!("does not compile: {why}");
            batch.pieces_of(name).iter().for_each(|number| looked.fail(*number, &why));
        }
        if looked.pieces.iter().all(Result::is_err) {
            return Ok(database);
        }
        let output = output.expect(&[0])?;
        if !database.join("codeql-database.yml").is_file() {
            return Err(output.wrong("`database create` ended well and left no database"));
        }
        let Some(extracted) = extracted_files(&database)? else {
            return Err(output.wrong("the database has no source archive (src.zip)"));
        };
        for (number, file) in batch.files.iter().enumerate() {
            let name = file.to_string_lossy();
            if !extracted.contains(name.trim_start_matches('/')) {
                looked.fail(number, "the file is not in the database (it was not extracted)");
            }
        }
        Ok(database)
    }

    /// Takes over the results of a run.
    fn take(&self, run: SarifRun, batch: &Batch, ids: &[Option<String>], looked: &mut Looked) {
        let numbers_of = |uri: &str| {
            // Paths are relative to the source root.
            let path = batch.code_folder().join(uri);
            batch.pieces_of(&path.to_string_lossy()).to_vec()
        };
        for (uri, why) in run.failures {
            let numbers = uri.map_or_else(|| (0..ids.len()).collect(), |uri| numbers_of(&uri));
            for number in numbers {
                looked.fail(number, &why);
            }
        }
        for result in run.results {
            for number in numbers_of(&result.at.uri) {
                if ids[number].as_ref().is_some_and(|id| *id != result.rule) {
                    continue;
                }
                let piece = &batch.pieces[number];
                let lines = Lines::new(piece.code);
                let span = lines.span(result.at.place, result.columns);
                let is_078 = piece.language == Language::Python && result.cwe.contains(&Cwe(78));
                if self.settings.sven_078 && is_078 && sven_078::holds_list(piece.code, span) {
                    continue;
                }
                let steps = result.trace.iter().filter(|(at, _)| at.uri == result.at.uri);
                let trace = steps
                    .map(|(at, message)| TraceStep {
                        span: lines.span(at.place, result.columns),
                        message: message.clone(),
                    })
                    .collect();
                looked.add(number, result.finding(ID, span, trace));
            }
        }
    }

    fn note(&self, key: String, value: String) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    fn note_packs(&self, run: &SarifRun) {
        for (name, version) in &run.extensions {
            self.note(format!("pack {name}"), version.clone());
        }
        if self.settings.sven_078 {
            self.note("compat".to_owned(), "sven-078".to_owned());
        }
    }

    /// Records a hash of every pack the queries come from, as they lie on disk.
    fn note_queries(
        &self,
        runner: &Runner,
        batch: &Batch,
        specifiers: &[String],
    ) -> Result<(), ToolError> {
        if specifiers.is_empty() {
            return Ok(());
        }
        let output = runner.run(batch.folder(), |command| {
            command.args(["resolve", "queries", "--format=json", "--"]).args(specifiers);
        })?;
        let output = output.expect(&[0])?;
        let paths: Vec<PathBuf> = serde_json::from_str(&output.stdout).map_err(|error| {
            output.wrong(format!("`resolve queries` does not print a list ({error})"))
        })?;
        if paths.is_empty() {
            return Err(output.wrong("no query was found"));
        }
        let roots: BTreeSet<&Path> = paths
            .iter()
            .map(|path| {
                let pack = path.ancestors().skip(1).find(|folder| is_pack(folder));
                pack.unwrap_or(path)
            })
            .collect();
        for root in roots {
            self.note(format!("queries {}", root.display()), hash_of(root)?);
        }
        Ok(())
    }
}

fn analyze(
    runner: &Runner,
    batch: &Batch,
    database: &Path,
    queries: &[String],
) -> Result<Vec<SarifRun>, ToolError> {
    let log = batch.folder().join("results.sarif");
    let output = runner.run(batch.folder(), |command| {
        command.args(["database", "analyze", "--threads=0", "--format=sarifv2.1.0"]);
        command.arg(format!("--output={}", log.display())).arg("--").arg(database).args(queries);
    })?;
    let output = output.expect(&[0])?;
    let text = fs::read_to_string(&log).map_err(|error| {
        output.wrong(format!("`database analyze` ended well and left no SARIF ({error})"))
    })?;
    let runs = read_sarif(&text).map_err(|why| output.wrong(why))?;
    if runs.iter().all(|run| run.rules.is_empty()) {
        return Err(output.wrong("the SARIF names no query that was run"));
    }
    Ok(runs)
}

fn default_build(runner: &Runner, adapter: &Codeql, group: &str) -> Result<CodeqlBuild, ToolError> {
    let version = adapter.version(runner)?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    let first = if group == "java" { (2, 16, 5) } else { (2, 22, 0) };
    Ok(if version >= first { CodeqlBuild::None } else { CodeqlBuild::Compile })
}

/// Writes a script that compiles every file by itself and lists those that do not compile.
fn write_build(group: &str, batch: &Batch, failed: &Path) -> Result<PathBuf, ToolError> {
    let mut script = "#!/bin/sh\nlog=$(mktemp)\n".to_owned();
    for (piece, file) in batch.pieces.iter().zip(&batch.files) {
        let (path, folder) = (quoted(file), quoted(file.parent().unwrap_or(file)));
        let compile = match (group, piece.language) {
            ("java", _) => format!("javac -d {folder} {path}"),
            ("go", _) => format!("(cd {folder} && go build -o /dev/null {path})"),
            (_, Language::Cpp) => format!("g++ -x c++ -c {path} -o /dev/null"),
            _ => format!("gcc -x c -c {path} -o /dev/null"),
        };
        let _ = writeln!(
            script,
            "{compile} >\"$log\" 2>&1 || printf '%s\\t%s\\n' {path} \"$(grep -m1 error \"$log\")\" >>{}",
            quoted(failed)
        );
    }
    script.push_str("rm -f \"$log\"\nexit 0\n");
    let path = batch.folder().join("build.sh");
    fs::write(&path, script)?;
    Ok(path)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// The paths in a database's source archive, without the leading slash; `None` where it has none.
fn extracted_files(database: &Path) -> Result<Option<BTreeSet<String>>, ToolError> {
    let (archive, folder) = (database.join("src.zip"), database.join("src"));
    if archive.is_file() {
        let zip = zip::ZipArchive::new(fs::File::open(archive)?)
            .map_err(|error| std::io::Error::other(format!("src.zip: {error}")))?;
        let names = zip.file_names().flatten();
        return Ok(Some(names.map(|name| name.trim_start_matches('/').to_owned()).collect()));
    }
    if folder.is_dir() {
        let mut names = BTreeSet::new();
        list_files(&folder, &folder, &mut names)?;
        return Ok(Some(names));
    }
    Ok(None)
}

fn list_files(root: &Path, folder: &Path, names: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(root, &path, names)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            names.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn is_pack(folder: &Path) -> bool {
    folder.join("qlpack.yml").is_file() || folder.join("codeql-pack.yml").is_file()
}

/// The hash of what determines a pack's queries: names and texts of its sources, in order.
fn hash_of(root: &Path) -> std::io::Result<String> {
    let mut names = BTreeSet::new();
    if root.is_dir() {
        list_files(root, root, &mut names)?;
    } else {
        names.insert(String::new());
    }
    let mut hash = Sha256::new();
    for name in names {
        let is_source = [".ql", ".qll", ".qls", ".yml"].iter().any(|end| name.ends_with(end));
        if is_source || name.is_empty() {
            hash.update(name.as_bytes());
            let path = if name.is_empty() { root.to_owned() } else { root.join(&name) };
            hash.update(fs::read(path)?);
        }
    }
    let hex = hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(format!("sha256:{hex}"))
}
