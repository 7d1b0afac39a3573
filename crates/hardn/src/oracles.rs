//! `--oracle`: which engines are asked, and how their answers are put together.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use hardn_eval::cohen_kappa;
use hardn_oracle::{
    AgreementCounts, Borrowed, CodeqlBuild, CodeqlSettings, Combine, ENGINE, Engine, EngineRun,
    EngineSettings, FileResult, Oracle, Panel, SarifFile, engine_agreement, external,
};
use hardn_types::{Analysis, Cwe, Piece};

use crate::{
    failure::{Failure, Outcome},
    output::{put, put_json, say},
    stop,
};

/// The built-in engine's name on the command line.
const BUILTIN: &str = "builtin";

#[derive(Args)]
#[command(next_help_heading = "Other engines")]
pub(crate) struct OracleArgs {
    /// Who is asked: builtin, bandit, clang-tidy, codeql, cppcheck, eslint, flawfinder, semgrep, sarif:FILE
    #[arg(long = "oracle", value_name = "ENGINES", value_delimiter = ',', default_value = BUILTIN)]
    oracles: Vec<String>,
    /// How many of them have to report a finding: any, all, majority
    #[arg(long, value_name = "HOW", default_value = "any")]
    combine: Combine,
    /// Print how often the engines agree instead of findings
    #[arg(long)]
    pub(crate) agreement: bool,
    /// Semgrep's rules: a file, a folder or a name of its registry
    #[arg(long, value_name = "FILE|DIR|NAME")]
    semgrep_config: Vec<String>,
    /// An ESLint configuration instead of the shipped one
    #[arg(long, value_name = "FILE")]
    eslint_config: Option<PathBuf>,
    /// CodeQL queries, suites or packs, all run at once (default: the security-extended suite)
    #[arg(long, value_name = "QUERY", value_delimiter = ',')]
    codeql_queries: Vec<String>,
    /// How CodeQL gets C, C++ and Java: none (reads them) or compile (default: by its version)
    #[arg(long, value_name = "HOW", value_parser = codeql_build)]
    codeql_build: Option<CodeqlBuild>,
    /// Do as a published evaluation did: sven-078 drops CodeQL's alerts on lists of words (CWE-078, Python)
    #[arg(long, value_name = "STEP", value_parser = ["sven-078"])]
    compat: Vec<String>,
    /// Limit on one run of another engine's tool, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 1800)]
    engine_timeout: u64,
}

fn codeql_build(text: &str) -> Result<CodeqlBuild, String> {
    match text {
        "none" => Ok(CodeqlBuild::None),
        "compile" => Ok(CodeqlBuild::Compile),
        other => Err(format!("`{other}` is not a way to build (none, compile)")),
    }
}

/// What the engines said.
pub(crate) struct Asked {
    /// One for each engine, in the order they were named.
    pub(crate) engines: Vec<EngineRun>,
    answers: Vec<Vec<Option<Analysis>>>,
}

impl OracleArgs {
    /// Whether more is asked than the built-in engine.
    pub(crate) fn asks_others(&self) -> bool {
        self.agreement || self.oracles != [BUILTIN]
    }

    fn settings(&self) -> EngineSettings {
        EngineSettings {
            timeout: Duration::from_secs(self.engine_timeout),
            stop: stop::flag(),
            semgrep_configs: self.semgrep_config.clone(),
            eslint_config: self.eslint_config.clone(),
            codeql: CodeqlSettings {
                queries: self.codeql_queries.clone(),
                repository: None,
                build: self.codeql_build,
                sven_078: self.compat.iter().any(|step| step == "sven-078"),
            },
            ..EngineSettings::default()
        }
    }

    /// The engines that were named.
    fn panel<'a>(&self, oracle: &'a Oracle) -> Outcome<Panel<'a>> {
        let settings = self.settings();
        let mut engines: Vec<Box<dyn Engine + Send + 'a>> = Vec::new();
        for name in &self.oracles {
            let engine: Box<dyn Engine + Send + 'a> = if name == BUILTIN {
                Box::new(Borrowed(oracle))
            } else if let Some(path) = name.strip_prefix("sarif:") {
                Box::new(SarifFile::open(Path::new(path))?)
            } else {
                Box::new(external(name, &settings)?)
            };
            if let Err(why) = engine.ready() {
                return Err(Failure::new(format!("the engine {name} cannot be asked: {why}"))
                    .help("`hardn doctor` lists the engines that are there"));
            }
            if engines.iter().any(|other| other.id() == engine.id()) {
                return Err(Failure::new(format!("--oracle names {name} twice")));
            }
            engines.push(engine);
        }
        Ok(Panel::new(engines, self.combine))
    }

    /// Asks the engines about files that the built-in one has read, and puts the combined answers in their place.
    pub(crate) fn join(
        &self,
        oracle: &Oracle,
        results: &mut [FileResult],
    ) -> Outcome<Option<Asked>> {
        if !self.asks_others() {
            return Ok(None);
        }
        let panel = self.panel(oracle)?;
        // What could not be read is nobody's.
        let read: Vec<usize> =
            (0..results.len()).filter(|n| results[*n].analysis.language.is_some()).collect();
        let files: Vec<&FileResult> = read.iter().map(|number| &results[*number]).collect();
        let pieces: Vec<Piece> = files
            .iter()
            .filter_map(|file| {
                let path = Path::new(&file.path);
                let on_disk = path.is_file().then_some(path);
                let language = file.analysis.language?;
                Some(Piece { path: on_disk, ..Piece::new(&file.code, language) })
            })
            .collect();
        let known = |id: &str| {
            (id == ENGINE).then(|| files.iter().map(|file| file.analysis.clone()).collect())
        };
        let answers = panel.ask(&pieces, &known);
        if stop::requested() {
            return Err(Failure::interrupted("no tool is left running; run the command again"));
        }
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let engines: Vec<EngineRun> = panel
            .engines()
            .zip(&answers)
            .map(|(engine, answers)| EngineRun::new(engine, &paths, answers))
            .collect();
        let combined = panel.combined(&answers, pieces.len());
        for (number, analysis) in read.into_iter().zip(combined) {
            results[number].analysis = analysis;
        }
        let asked = Asked { engines, answers };
        asked.say_failures();
        Ok(Some(asked))
    }
}

impl Asked {
    /// One line for each engine and reason.
    fn say_failures(&self) {
        for engine in self.engines.iter().filter(|engine| engine.id != ENGINE) {
            let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (path, why) in &engine.not_analysed {
                reasons.entry(why).or_default().push(path);
            }
            for (why, paths) in reasons {
                let n = paths.len();
                let which = if n == 1 {
                    paths[0].to_owned()
                } else {
                    format!("{n} files ({}, ...)", paths[0])
                };
                say(&format!("not analysed by {}: {which}: {why}", engine.id));
            }
        }
    }

    /// Fails where an engine looked at nothing it was asked about.
    pub(crate) fn check(&self) -> Outcome {
        for engine in self.engines.iter().filter(|engine| engine.n_asked > 0) {
            if engine.not_analysed.len() == engine.n_asked {
                let (n, why) = (engine.n_asked, &engine.not_analysed[0].1);
                return Err(Failure::new(format!(
                    "{} analysed none of {n} file(s): {why}",
                    engine.id
                )));
            }
        }
        Ok(())
    }

    /// The agreement of every pair of engines, as JSON Lines or as a table.
    pub(crate) fn put_agreement(&self, json: bool) -> Outcome {
        let mut text = String::new();
        for pair in engine_agreement(&self.answers) {
            let (a, b) = (&self.engines[pair.a].name, &self.engines[pair.b].name);
            let rows: Vec<(Option<Cwe>, AgreementCounts)> = pair
                .classes
                .iter()
                .map(|(class, counts)| (Some(*class), *counts))
                .chain([(None, pair.total())])
                .collect();
            if json {
                for (class, counts) in rows {
                    let (kappa, agreement) = kappa(counts);
                    put_json(&serde_json::json!({
                        "a": a, "b": b, "cwe": class.map(|class| class.0), "files": pair.n_files,
                        "both": counts.both, "only_a": counts.only_a, "only_b": counts.only_b,
                        "neither": counts.neither, "kappa": kappa, "agreement": agreement,
                    }))?;
                }
                continue;
            }
            let _ = writeln!(text, "A = {a}, B = {b}: {} file(s) analysed by both", pair.n_files);
            let _ = writeln!(
                text,
                "  {:<8} {:>7} {:>7} {:>7} {:>8} {:>7}",
                "class", "both", "only A", "only B", "neither", "kappa"
            );
            for (class, counts) in rows {
                let class = class.map_or("all".to_owned(), |class| class.to_string());
                let kappa = kappa(counts).0.map_or("-".to_owned(), |kappa| format!("{kappa:.2}"));
                let AgreementCounts { both, only_a, only_b, neither } = counts;
                let _ = writeln!(
                    text,
                    "  {class:<8} {both:>7} {only_a:>7} {only_b:>7} {neither:>8} {kappa:>7}"
                );
            }
        }
        if text.is_empty() && !json {
            text.push_str("agreement needs two engines: --oracle builtin,semgrep\n");
        }
        put(&text)
    }
}

/// Cohen's kappa, and the share of units on which both say the same.
fn kappa(counts: AgreementCounts) -> (Option<f64>, Option<f64>) {
    let table = vec![vec![counts.both, counts.only_a], vec![counts.only_b, counts.neither]];
    let found = cohen_kappa(&table);
    (found.and_then(|found| found.kappa), found.map(|found| found.agreement))
}
