//! Renders and runs everything a theme can produce: for writers of themes.
//!
//! Needs `python3` and `gcc`. Programs run in temporary folders with a timeout and no other protection, so check
//! only themes you trust.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use hardn_lab::{BodyKind, Cell, Drawn, Library, Part, Rng, Theme, check, do_nothing};
use hardn_types::Language;
use rayon::prelude::*;

const USAGE: &str = "usage: theme_check [--dir THEMES] [--idioms FILE] [--theme ID_PART]... [-n DRAWS] [--sample SHARE] \
                     [--render-only] [--show N] [--misses N]";
/// Stands in the output of a Python program that ended with an exception.
const TRACEBACK: &str = "Traceback";
/// Generous: a machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Options {
    dir: PathBuf,
    idioms: Option<PathBuf>,
    themes: Vec<String>,
    draws: usize,
    sample: f64,
    render_only: bool,
    show: usize,
    misses: usize,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("themes"),
        idioms: None,
        themes: Vec::new(),
        draws: 1,
        sample: 1.0,
        render_only: false,
        show: 0,
        misses: 5,
    };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => options.dir = value()?.into(),
            "--idioms" => options.idioms = Some(value()?.into()),
            "--theme" => options.themes.push(value()?),
            "-n" => options.draws = value()?.parse().map_err(|e| format!("-n: {e}"))?,
            "--sample" => {
                options.sample = value()?.parse().map_err(|e| format!("--sample: {e}"))?;
            }
            "--show" => options.show = value()?.parse().map_err(|e| format!("--show: {e}"))?,
            "--misses" => {
                options.misses = value()?.parse().map_err(|e| format!("--misses: {e}"))?;
            }
            "--render-only" => options.render_only = true,
            other => return Err(format!("{other} is not known\n{USAGE}")),
        }
    }
    Ok(options)
}

/// What a program is, and so what its tests must say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A body that does nothing: the function test fails.
    Nothing,
    /// The function test passes, and the attack succeeds.
    Vulnerable,
    /// The function test passes, and the attack fails.
    Secure,
    /// The function test passes; there is nothing to attack.
    Trusted,
    /// A fix in a trusted setting: the function test should fail, where that can be done.
    Needless,
}

struct Case {
    kind: Kind,
    place: String,
    program: String,
    function: String,
    attack: Option<String>,
    language: Language,
}

#[derive(Default)]
struct Outcome {
    misses: Vec<(String, String, String)>,
    notes: Vec<String>,
    slowest: Duration,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let library = match Library::from_dir(&options.dir, options.idioms.as_deref()) {
        Ok(library) => library,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut n_bad = 0;
    let wanted = |id: &str| {
        options.themes.is_empty() || options.themes.iter().any(|part| id.contains(part.as_str()))
    };
    for problem in check(&library).iter().filter(|problem| wanted(&problem.theme)) {
        println!("{problem}");
        n_bad += 1;
    }
    let themes: Vec<&Theme> = library.themes().filter(|theme| wanted(&theme.id)).collect();
    if themes.is_empty() {
        eprintln!("no theme matches");
        return ExitCode::from(2);
    }
    for theme in themes {
        match check_theme(&library, theme, &options) {
            Ok(n) => n_bad += n,
            Err(error) => {
                println!("{error}");
                n_bad += 1;
            }
        }
    }
    if n_bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check_theme(
    library: &Library,
    theme: &Theme,
    options: &Options,
) -> Result<usize, hardn_lab::LabError> {
    let mut cases = Vec::new();
    let mut sizes = Sizes::default();
    let mut shown = 0;
    for operation in 0..theme.operations.len() {
        for setting in 0..theme.settings.len() {
            for style in 0..theme.styles.len() {
                for draw in 0..options.draws {
                    let cell = Cell { operation, setting, style };
                    let mut rng =
                        Rng::new(draw as u64, &format!("theme_check/{}/{cell:?}", theme.id));
                    if !rng.chance(options.sample) {
                        continue;
                    }
                    let part = Part::ALL[(operation + setting + style + draw) % 4];
                    let drawn = library.draw(&theme.id, cell, part, &mut rng)?;
                    add_cases(theme, cell, &drawn, &mut cases)?;
                    let program = cases.last().map(|case| case.program.clone()).unwrap_or_default();
                    if shown < options.show && (operation + setting + style) % 3 == 0 {
                        println!("---- {}\n{program}", drawn.family());
                        shown += 1;
                    }
                }
            }
        }
    }
    for case in &cases {
        sizes.add(&case.program);
    }
    let outcomes: Vec<Outcome> =
        if options.render_only { Vec::new() } else { cases.par_iter().map(run_case).collect() };
    let mut misses: Vec<(String, String, String)> = Vec::new();
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for outcome in outcomes {
        misses.extend(outcome.misses);
        slowest = slowest.max(outcome.slowest);
        for note in outcome.notes {
            *notes.entry(note).or_default() += 1;
        }
    }
    println!(
        "{:<28} {:>5} programs {:>4} misses | lines <= {:>2}, words <= {:>3}, columns <= {:>3} | slowest {:>4} ms | {}",
        theme.id,
        cases.len(),
        misses.len(),
        sizes.lines,
        sizes.words,
        sizes.columns,
        slowest.as_millis(),
        theme
            .styles
            .iter()
            .filter(|style| style.in_pairs == Some(false))
            .map(|style| format!("held out: {}", style.id))
            .collect::<Vec<_>>()
            .join(", "),
    );
    for (note, n) in notes {
        println!("    note: {note} ({n} times)");
    }
    let mut by_reason: BTreeMap<&str, Vec<&(String, String, String)>> = BTreeMap::new();
    for miss in &misses {
        by_reason.entry(&miss.1).or_default().push(miss);
    }
    for (reason, misses) in by_reason {
        println!("  {} x {reason}", misses.len());
        for (place, _, program) in misses.iter().take(options.misses) {
            println!("    {place}\n{}", indent(program));
        }
    }
    Ok(misses.len())
}

#[derive(Default)]
struct Sizes {
    lines: usize,
    words: usize,
    columns: usize,
}

impl Sizes {
    fn add(&mut self, program: &str) {
        self.lines = self.lines.max(program.lines().count());
        self.columns = self.columns.max(program.lines().map(str::len).max().unwrap_or(0));
        let mut words = 0;
        let mut in_word = false;
        for c in program.chars() {
            let word = c.is_alphanumeric() || c == '_';
            if (word && !in_word) || (!word && !c.is_whitespace()) {
                words += 1;
            }
            in_word = word;
        }
        self.words = self.words.max(words);
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| ["      | ", line].concat()).collect::<Vec<_>>().join("\n")
}

fn add_cases(
    theme: &Theme,
    cell: Cell,
    drawn: &Drawn<'_>,
    cases: &mut Vec<Case>,
) -> Result<(), hardn_lab::LabError> {
    let function = drawn.function_test()?;
    let attack = drawn.attack_test()?;
    let mut add = |kind: Kind, name: String, body: String| {
        cases.push(Case {
            kind,
            place: format!("{} {name}", drawn.family()),
            program: format!("{}{body}", drawn.prompt),
            function: function.clone(),
            attack: attack.clone(),
            language: theme.language,
        });
    };
    add(Kind::Nothing, "do nothing".into(), do_nothing(&drawn.prompt, theme.language));
    let kinds = if theme.is_trusted(cell.setting) {
        [(BodyKind::Secure, Kind::Needless), (BodyKind::Trusted, Kind::Trusted)]
    } else {
        [(BodyKind::Vulnerable, Kind::Vulnerable), (BodyKind::Secure, Kind::Secure)]
    };
    for (bodies, kind) in kinds {
        for i in 0..drawn.n_bodies(bodies) {
            add(kind, drawn.idiom(bodies, i), drawn.body(bodies, i)?);
        }
    }
    Ok(())
}

fn run_case(case: &Case) -> Outcome {
    let mut outcome = Outcome::default();
    let miss = |reason: &str, output: &str| {
        (case.place.clone(), reason.to_owned(), format!("{}\n{}", case.program, output.trim()))
    };
    let right = matches!(case.kind, Kind::Vulnerable | Kind::Secure | Kind::Trusted);
    if case.language == Language::C
        && right
        && let Err(message) = compile(&case.program, &["-c", "-w", "-o", "program"])
    {
        outcome.misses.push(miss("the program does not compile alone", &message));
        return outcome;
    }
    let (code, output, time) = run_test(case, &case.function, &["-O1", "-w"]);
    outcome.slowest = outcome.slowest.max(time);
    match (case.kind, code == Some(0)) {
        (Kind::Nothing, true) => {
            outcome.misses.push(miss("a body that does nothing passes the function test", &output));
        }
        (Kind::Needless, true) => {
            let note = "a needless fix passes the function test of a trusted setting";
            outcome.notes.push(note.to_owned());
        }
        (Kind::Vulnerable | Kind::Secure | Kind::Trusted, false) => {
            outcome.misses.push(miss("the function test fails", &output));
        }
        _ => {}
    }
    let Some(attack) = &case.attack else { return outcome };
    if !matches!(case.kind, Kind::Vulnerable | Kind::Secure) {
        return outcome;
    }
    let flags = ["-O1", "-w", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let (code, output, time) = run_test(case, attack, &flags);
    outcome.slowest = outcome.slowest.max(time);
    let vulnerable = case.kind == Kind::Vulnerable;
    match code {
        None => outcome.misses.push(miss("the attack times out or does not compile", &output)),
        Some(0) if vulnerable => {
            outcome
                .misses
                .push(miss("the attack does not succeed on a vulnerable program", &output));
        }
        // A Python attack that crashes tells nothing of harm.
        Some(_)
            if vulnerable && case.language == Language::Python && output.contains(TRACEBACK) =>
        {
            outcome.misses.push(miss("the attack crashes instead of exiting with 1", &output));
        }
        Some(code) if !vulnerable && code != 0 => {
            outcome.misses.push(miss("the attack succeeds on a secure program", &output));
        }
        Some(_) => {}
    }
    outcome
}

fn run_test(case: &Case, test: &str, flags: &[&str]) -> (Option<i32>, String, Duration) {
    let source = format!("{}\n{test}", case.program);
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => return (None, error.to_string(), Duration::ZERO),
    };
    let work = dir.path().join("work");
    if let Err(error) = fs::create_dir(&work) {
        return (None, error.to_string(), Duration::ZERO);
    }
    let mut command = if case.language == Language::Python {
        let path = dir.path().join("program.py");
        if let Err(error) = fs::write(&path, source) {
            return (None, error.to_string(), Duration::ZERO);
        }
        let mut command = Command::new("python3");
        command.arg("-I").arg(path);
        command
    } else {
        let path = dir.path().join("program.c");
        let binary = dir.path().join("program");
        if let Err(error) = fs::write(&path, source) {
            return (None, error.to_string(), Duration::ZERO);
        }
        let output =
            Command::new("gcc").args(flags).arg(&path).arg("-o").arg(&binary).arg("-lm").output();
        match output {
            Ok(output) if output.status.success() => Command::new(binary),
            Ok(output) => {
                return (
                    None,
                    String::from_utf8_lossy(&output.stderr).into_owned(),
                    Duration::ZERO,
                );
            }
            Err(error) => return (None, error.to_string(), Duration::ZERO),
        }
    };
    command
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env("UBSAN_OPTIONS", "print_stacktrace=0")
        .current_dir(&work);
    run(&mut command, dir.path())
}

fn run(command: &mut Command, dir: &Path) -> (Option<i32>, String, Duration) {
    let start = Instant::now();
    let path = dir.join("stderr");
    let child = fs::File::create(&path).and_then(|stderr| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()
    });
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (None, error.to_string(), start.elapsed()),
    };
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let bytes = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                let tail: Vec<&str> = text.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                let marked = if text.contains(TRACEBACK) {
                    format!("{TRACEBACK} ...\n")
                } else {
                    String::new()
                };
                return (
                    Some(status.code().unwrap_or(-1)),
                    format!("{marked}{}", tail.join("\n")),
                    start.elapsed(),
                );
            }
            Ok(None) if start.elapsed() > TIMEOUT => {
                let _ = child.kill();
                let _ = child.wait();
                return (None, format!("stopped after {} s", TIMEOUT.as_secs()), start.elapsed());
            }
            Ok(None) => thread::sleep(pause),
            Err(error) => return (None, error.to_string(), start.elapsed()),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn compile(source: &str, flags: &[&str]) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::write(dir.path().join("program.c"), source).map_err(|error| error.to_string())?;
    let output = Command::new("gcc")
        .args(flags)
        .arg("program.c")
        .current_dir(dir.path())
        .output()
        .map_err(|error| format!("gcc: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
