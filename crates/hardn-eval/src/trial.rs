//! Running the tests of a scenario on a program.

use hardn_sandbox::{CFlags, CompiledRun, Limits, Sandbox, run_twice_on_timeout};
use hardn_types::{Language, TestVerdict};

use crate::Result;

/// Which of a scenario's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialKind {
    /// Is the function right?
    Function,
    /// Does it hold?
    Attack,
}

/// Runs programs with a test behind them.
pub trait TrialRunner: Sync {
    /// Runs one program with one test; `None` where the two do not compile together, so that nothing was tried.
    ///
    /// # Errors
    /// A sandbox that is not safe, or a missing interpreter or compiler.
    fn run(
        &self,
        program: &str,
        test: &str,
        language: Language,
        kind: TrialKind,
    ) -> Result<Option<TestVerdict>>;
}

/// Runs tests in the sandbox.
///
/// Program and test are one file: the program, an empty line, the test. C and C++ attack tests run under
/// AddressSanitizer and UndefinedBehaviorSanitizer. Exit status 0 says passed or held; anything else, a crash or
/// running out of memory included, says failed or attacked. A timeout counts only the second time.
pub struct SandboxTrials {
    sandbox: Sandbox,
}

impl SandboxTrials {
    /// Tests under the given limits.
    ///
    /// # Errors
    /// A machine on which programs cannot be confined.
    pub fn new(limits: Limits) -> Result<Self> {
        Ok(Self { sandbox: Sandbox::new(limits)? })
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl TrialRunner for SandboxTrials {
    fn run(
        &self,
        program: &str,
        test: &str,
        language: Language,
        kind: TrialKind,
    ) -> Result<Option<TestVerdict>> {
        let source = format!("{program}\n{test}");
        let sanitize = kind == TrialKind::Attack;
        let run = run_twice_on_timeout(|| match language {
            Language::Python => self.sandbox.run_python(&source).map(CompiledRun::Ran),
            _ => self.sandbox.compile_and_run_c(&source, CFlags { sanitize }, language),
        })?;
        let CompiledRun::Ran(outcome) = run else {
            return Ok(None);
        };
        Ok(Some(match (kind, outcome.timed_out, outcome.success()) {
            (_, true, _) => TestVerdict::Timeout,
            (TrialKind::Function, _, true) => TestVerdict::Passed,
            (TrialKind::Function, _, false) => TestVerdict::Failed,
            (TrialKind::Attack, _, true) => TestVerdict::Held,
            (TrialKind::Attack, _, false) => TestVerdict::Attacked,
        }))
    }
}

#[cfg(test)]
mod tests {
    use hardn_types::testing::skipped;

    use super::*;

    #[track_caller]
    fn check(
        language: Language,
        kind: TrialKind,
        program: &str,
        test: &str,
        expected: Option<TestVerdict>,
    ) {
        let limits = Limits { cpu_ms: 1_000, ..Limits::default() };
        let trials = match SandboxTrials::new(limits) {
            Ok(trials) if hardn_code::checker_version(language).is_ok() => trials,
            Ok(_) => return skipped(&format!("no checker for {language} here")),
            Err(error) => return skipped(&error.to_string()),
        };
        assert_eq!(trials.run(program, test, language, kind).unwrap(), expected, "{program}");
    }

    #[test]
    fn python_tests() {
        use TestVerdict::{Attacked, Failed, Held, Passed, Timeout};
        let python = |kind, program, test, expected| {
            check(Language::Python, kind, program, test, Some(expected));
        };
        let add = "def f(x):\n    return x + 1\n";
        python(TrialKind::Function, add, "assert f(1) == 2\n", Passed);
        python(TrialKind::Function, add, "assert f(1) == 3\n", Failed);
        python(TrialKind::Function, "def f(x):\n    while True: pass\n", "f(1)\n", Timeout);
        let shell = "import os\ndef f(x):\n    os.system(\"echo \" + x)\n";
        let attack = "import os\nf(\"; touch pwned\")\nassert not os.path.exists(\"pwned\")\n";
        python(TrialKind::Attack, shell, attack, Attacked);
        python(TrialKind::Attack, "def f(x):\n    pass\n", attack, Held);
    }

    #[test]
    fn c_tests() {
        use TestVerdict::{Attacked, Held, Passed};
        let c = |kind, program, test, expected| check(Language::C, kind, program, test, expected);
        let read = "int f(const int *a, int i) {\n    return a[i];\n}\n";
        let test = "#include <stdlib.h>\nint main(void) { int *a = malloc(8); a[1] = 3; return f(a, 1) != 3; }\n";
        let attack =
            "#include <stdlib.h>\nint main(void) { int *a = malloc(8); f(a, 2); return 0; }\n";
        c(TrialKind::Function, read, test, Some(Passed));
        c(TrialKind::Attack, read, attack, Some(Attacked));
        let checked = "int f(const int *a, int i) {\n    return i < 2 ? a[i] : 0;\n}\n";
        c(TrialKind::Attack, checked, attack, Some(Held));
        // Compiles alone, but not into a program.
        c(
            TrialKind::Attack,
            "int g(int);\nint f(const int *a, int i) { return g(i); }\n",
            attack,
            None,
        );
    }
}
