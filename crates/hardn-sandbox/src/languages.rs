//! Running a program given as text.

use std::collections::BTreeMap;

use hardn_types::Language;

use crate::{
    Limits, Outcome, Program, Result, Sandbox, SandboxError, interpreters, workspace::Workspace,
};

/// How C and C++ are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CFlags {
    /// With AddressSanitizer and UndefinedBehaviorSanitizer; every report ends the program.
    pub sanitize: bool,
}

/// How a program that has to be compiled ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompiledRun {
    /// The compiler did not accept it; its messages are in the outcome's `stderr`.
    NotCompiled(Outcome),
    /// It ran.
    Ran(Outcome),
}

impl CompiledRun {
    /// What happened last: the compiler's outcome or the program's.
    pub fn outcome(&self) -> &Outcome {
        match self {
            Self::NotCompiled(outcome) | Self::Ran(outcome) => outcome,
        }
    }

    /// The program was compiled and ran to exit status 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Ran(outcome) if outcome.success())
    }
}

/// Resident memory that the sanitizers' own tables may take, in bytes.
const SANITIZER_BYTES: u64 = 256 << 20;

impl Sandbox {
    /// Runs a Python program with the standard library alone. Its file lies outside the working folder, which is
    /// empty at first. Hashes are not randomised, so that sets are walked in the same order every time.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without `python3`, and as [`Sandbox::run`].
    pub fn run_python(&self, program: &str) -> Result<Outcome> {
        let python = interpreters::python()?;
        let workspace = Workspace::new()?;
        let path = Workspace::write(&workspace.program(), "main.py", program.as_bytes())?;
        let mut run = Program::new(["python3", "-s", "-S", "-B"]);
        run.argv.push(path.display().to_string());
        run.env.push(("PYTHONHASHSEED".to_owned(), "0".to_owned()));
        let mut outcome = self.run_in(&workspace, &run, python.executable.clone(), &python.read)?;
        let gave_up = outcome.exit == Some(1)
            && outcome.stderr.lines().last().is_some_and(|line| line.starts_with("MemoryError"));
        outcome.out_of_memory |= gave_up;
        Ok(outcome)
    }

    /// Compiles one C or C++ file and runs it; the compiler runs in the sandbox too, under limits of its own.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without `gcc` or `g++`, and as [`Sandbox::run`].
    pub fn compile_and_run_c(
        &self,
        source: &str,
        flags: CFlags,
        language: Language,
    ) -> Result<CompiledRun> {
        let (compiler, name) = match language {
            Language::C => ("gcc", "main.c"),
            Language::Cpp => ("g++", "main.cpp"),
            other => return Err(SandboxError::Language(other)),
        };
        let executable = interpreters::command(compiler)?;
        let workspace = Workspace::new()?;
        let path = Workspace::write(&workspace.program(), name, source.as_bytes())?;
        let mut compile = Program::new([compiler, "-O1", "-w", "-fdiagnostics-color=never"]);
        if flags.sanitize {
            let sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
            compile.argv.extend(sanitizers.map(str::to_owned));
        }
        compile.argv.extend(["-o", "main"].map(str::to_owned));
        compile.argv.push(path.display().to_string());
        compile.argv.push("-lm".to_owned());
        let allow_weaker = self.limits().allow_weaker;
        let compiled = self.limited(Limits { allow_weaker, ..Limits::compiler() })?.run_in(
            &workspace,
            &compile,
            executable,
            &[],
        )?;
        if !compiled.success() {
            return Ok(CompiledRun::NotCompiled(compiled));
        }
        let executable = workspace.promote("main")?;
        let mut run = Program::new(["main"]);
        let mut limits = self.limits().clone();
        if flags.sanitize {
            limits.address_space_unlimited = true;
            limits.memory_bytes += SANITIZER_BYTES;
            let options =
                [("ASAN_OPTIONS", "detect_leaks=0"), ("UBSAN_OPTIONS", "print_stacktrace=0")];
            run.env.extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        self.limited(limits)?.run_in(&workspace, &run, executable, &[]).map(CompiledRun::Ran)
    }

    /// Runs a whole program in a language it knows how to run.
    ///
    /// # Errors
    /// [`SandboxError::Language`] for other languages, and as the language's own function.
    pub fn run_text(&self, program: &str, language: Language) -> Result<CompiledRun> {
        match language {
            Language::Python => self.run_python(program).map(CompiledRun::Ran),
            _ => self.compile_and_run_c(program, CFlags::default(), language),
        }
    }
}

/// Runs again what timed out: only a second timeout counts, so that a busy machine does not decide.
///
/// # Errors
/// As the run.
pub fn run_twice_on_timeout(mut run: impl FnMut() -> Result<CompiledRun>) -> Result<CompiledRun> {
    let first = run()?;
    if first.outcome().timed_out { run() } else { Ok(first) }
}

/// Versions of what programs are run with: `python3`, `gcc`; empty text where one is missing.
pub fn tool_versions() -> BTreeMap<String, String> {
    let version = |path: Option<std::path::PathBuf>, flag: &str| {
        path.and_then(|path| std::process::Command::new(path).arg(flag).output().ok())
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .and_then(|text| text.lines().next().map(str::to_owned))
            .unwrap_or_default()
    };
    let python = interpreters::python().ok().map(|python| python.executable.clone());
    BTreeMap::from([
        ("python3".to_owned(), version(python, "--version")),
        ("gcc".to_owned(), version(interpreters::command("gcc").ok(), "--version")),
    ])
}
