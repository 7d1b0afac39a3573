//! The oracle: snippets a second on one thread, the slowest ones, start-up, and whole commands beside other analysers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hardn_oracle::{Mode, Oracle, RuleSet};
use hardn_types::Language;

use super::{Row, median};
use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
};

/// Snippets that a model writes, in bytes; for C, files.
const SNIPPET: std::ops::Range<usize> = 700..1500;
const C_FILE: std::ops::Range<usize> = 2800..4500;

/// How long each language is timed in process.
const TIMED: Duration = Duration::from_secs(3);

/// Runs of each command; the median counts.
const RUNS: usize = 3;

/// Files that a folder for commands has at least, so that not only start-up is timed.
const FILES: usize = 1000;

/// A few rules for Semgrep, so that it has something to look for: mostly it starts up.
const SEMGREP_RULES: &str = include_str!("../../../../../bench/semgrep.yml");

/// An analyser with a command line, and how it is asked to scan a folder.
struct Analyser {
    name: &'static str,
    languages: &'static [Language],
    args: fn(folder: &Path, rules: &Path) -> Vec<PathBuf>,
}

const ANALYSERS: [Analyser; 3] = [
    Analyser {
        name: "semgrep",
        languages: &[Language::Python, Language::JavaScript, Language::C],
        args: |folder, rules| {
            let options = [
                "scan",
                "--metrics=off",
                "--disable-version-check",
                "--json",
                "--quiet",
                "--config",
            ];
            let mut args: Vec<PathBuf> = options.into_iter().map(PathBuf::from).collect();
            args.extend([rules.to_owned(), folder.to_owned()]);
            args
        },
    },
    Analyser {
        name: "bandit",
        languages: &[Language::Python],
        args: |folder, _| {
            let mut args: Vec<PathBuf> =
                ["-q", "-f", "json", "-r"].into_iter().map(PathBuf::from).collect();
            args.push(folder.to_owned());
            args
        },
    },
    Analyser {
        name: "foxguard",
        languages: &[Language::Python, Language::JavaScript, Language::C],
        args: |folder, _| vec!["--format".into(), "json".into(), folder.to_owned()],
    },
];

/// Rows of the table: one a language in process, one for start-up, one for each language and analyser.
pub(super) fn scan(args: &BenchArgs) -> Outcome<Vec<Row>> {
    let sets = match &args.snippets {
        Some(folder) => from_folder(folder)?,
        None => from_samples()?,
    };
    let oracle = Oracle::embedded();
    let mut rows = Vec::new();
    for (language, texts) in &sets {
        rows.push(in_process(&oracle, *language, texts));
    }
    let folder = tempfile::tempdir().map_err(|error| io("a temporary folder", &error))?;
    rows.push(start_up(folder.path())?);
    let rules = folder.path().join("semgrep.yml");
    fs::write(&rules, SEMGREP_RULES).map_err(|error| io("the rules for Semgrep", &error))?;
    for (language, texts) in &sets {
        let set = folder.path().join(language.to_string());
        let n = write_set(&set, *language, texts)?;
        for analyser in ANALYSERS.iter().filter(|analyser| analyser.languages.contains(language)) {
            rows.push(beside(analyser, *language, n, &set, &rules)?);
        }
    }
    Ok(rows)
}

/// The rules' own samples, joined until they have a snippet's length.
fn from_samples() -> Outcome<BTreeMap<Language, Vec<String>>> {
    let rules = RuleSet::embedded()?;
    let mut sets: BTreeMap<Language, Vec<String>> = BTreeMap::new();
    let mut open: BTreeMap<Language, String> = BTreeMap::new();
    for rule in rules.list() {
        let details = rule.details();
        let language = details.info.language;
        for sample in details.code {
            let text = open.entry(language).or_default();
            text.push_str(&sample.code);
            text.push_str("\n\n");
            if sizes(language).contains(&text.len()) {
                sets.entry(language).or_default().push(std::mem::take(text));
            } else if text.len() >= sizes(language).end {
                text.clear();
            }
        }
    }
    Ok(sets)
}

fn from_folder(folder: &Path) -> Outcome<BTreeMap<Language, Vec<String>>> {
    let mut sets: BTreeMap<Language, Vec<String>> = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(current) = pending.pop() {
        let name = current.display().to_string();
        for entry in fs::read_dir(&current).map_err(|error| io(&name, &error))? {
            let path = entry.map_err(|error| io(&name, &error))?.path();
            if path.is_dir() {
                pending.push(path);
            } else if let Some(language) = Language::of_path(&path)
                && let Ok(text) = fs::read_to_string(&path)
                && sizes(language).contains(&text.len())
            {
                sets.entry(language).or_default().push(text);
            }
        }
    }
    for texts in sets.values_mut() {
        texts.sort();
    }
    if sets.is_empty() {
        return Err(Failure::new(format!("no snippet of a fitting size in {}", folder.display()))
            .help("files of 0.7 to 1.5 kB count; for C and C++ of 2.8 to 4.5 kB"));
    }
    Ok(sets)
}

fn sizes(language: Language) -> std::ops::Range<usize> {
    match language {
        Language::C | Language::Cpp => C_FILE,
        _ => SNIPPET,
    }
}

fn mean_size(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum::<usize>() / texts.len().max(1)
}

/// Snippets a second on one thread, and the time that one in a hundred exceeds.
fn in_process(oracle: &Oracle, language: Language, texts: &[String]) -> Row {
    let mut seconds = Vec::new();
    for text in texts {
        oracle.analyse(text, language, Mode::Snippet);
    }
    let start = Instant::now();
    while start.elapsed() < TIMED {
        for text in texts {
            let begin = Instant::now();
            std::hint::black_box(oracle.analyse(text, language, Mode::Snippet));
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    let rate = seconds.len() as f64 / start.elapsed().as_secs_f64();
    seconds.sort_by(f64::total_cmp);
    let slow = seconds[seconds.len() * 99 / 100];
    Row {
        what: format!(
            "oracle, {} {language} snippets of {} bytes in the mean, one thread",
            texts.len(),
            mean_size(texts)
        ),
        ours: format!("{rate:.0}/s; 99th percentile {:.2} ms", 1e3 * slow),
        peer: "none in process".to_owned(),
        ratio: "–".to_owned(),
    }
}

fn start_up(folder: &Path) -> Outcome<Row> {
    let file = folder.join("one.py");
    fs::write(&file, "x = 1\n").map_err(|error| io("a file", &error))?;
    let times: Vec<f64> = (0..10)
        .map(|_| timed(Command::new(own()?).args(["scan", "--no-cache"]).arg(&file)))
        .collect::<Outcome<_>>()?;
    Ok(Row {
        what: "`hardn scan` of a file of one line".to_owned(),
        ours: format!("{:.0} ms", 1e3 * median(times)),
        peer: "none".to_owned(),
        ratio: "–".to_owned(),
    })
}

/// Writes the snippets as files, each as often as it takes, with an end of its own so that no two are equal; how many.
fn write_set(folder: &Path, language: Language, texts: &[String]) -> Outcome<usize> {
    fs::create_dir(folder).map_err(|error| io("a folder", &error))?;
    let comment = if matches!(language, Language::Python | Language::Ruby) { "#" } else { "//" };
    let copies = FILES.div_ceil(texts.len().max(1));
    for copy in 0..copies {
        for (at, text) in texts.iter().enumerate() {
            let path = folder.join(format!("f{copy}_{at}.{}", language.extension()));
            fs::write(path, format!("{text}\n{comment} {copy}\n"))
                .map_err(|error| io("a file", &error))?;
        }
    }
    Ok(copies * texts.len())
}

/// The same folder scanned by `hardn scan` and by another command, in turns.
fn beside(
    analyser: &Analyser,
    language: Language,
    n: usize,
    folder: &Path,
    rules: &Path,
) -> Outcome<Row> {
    let what = format!("`scan` of {n} {language} files beside {}", analyser.name);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(timed(Command::new(own()?).args(["scan", "--no-cache", "--json"]).arg(folder))?);
        match timed(Command::new(analyser.name).args((analyser.args)(folder, rules))) {
            Ok(seconds) => theirs.push(seconds),
            Err(_) => break,
        }
    }
    let ours = median(ours);
    if theirs.len() < RUNS {
        return Ok(Row {
            what,
            ours: format!("{ours:.2} s"),
            peer: format!("not measured: `{}` is not on the PATH", analyser.name),
            ratio: "–".to_owned(),
        });
    }
    let version = Command::new(analyser.name).arg("--version").output();
    let version = version
        .ok()
        .and_then(|out| {
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.split_whitespace().find(|word| word.contains('.')).map(str::to_owned)
        })
        .unwrap_or_default();
    let theirs = median(theirs);
    Ok(Row {
        what,
        ours: format!("{ours:.2} s"),
        peer: format!("{theirs:.2} s, {} {version}", analyser.name),
        ratio: format!("{:.4}", ours / theirs),
    })
}

fn own() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| io("the path of this program", &error))
}

/// Seconds of one run, output thrown away; findings are no failure here.
fn timed(command: &mut Command) -> Outcome<f64> {
    let start = Instant::now();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| io(&command.get_program().to_string_lossy(), &error))?;
    Ok(start.elapsed().as_secs_f64())
}

fn io(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("{what}: {error}"))
}
