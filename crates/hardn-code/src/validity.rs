//! Does a program parse (Python) or compile (C, C++)?

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use hardn_types::Language;
use rayon::prelude::*;

use crate::CodeError;

/// SVEN's and SafeCoder's limit for one program.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one JSON text per line and answers with null or the parser's message. A program is never run.
const PYTHON_CHECKER: &str = r#"
import ast, json, sys, warnings
warnings.simplefilter("ignore")
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
except Exception:
    pass
for line in sys.stdin.buffer:
    try:
        ast.parse(json.loads(line))
        message = None
    except SyntaxError as error:
        message = "line %s: %s" % (error.lineno, error.msg)
    except BaseException as error:
        message = "%s: %s" % (type(error).__name__, error)
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
"#;

/// Limits a compiler's memory (KiB) and processor time (seconds) before it replaces the shell, for programs that
/// include endless files or nest macros.
const LIMITED: &str = r#"ulimit -v 4194304; ulimit -t 5; exec "$@""#;

/// Whether a program parses or compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It does.
    Valid,
    /// It does not, or the checker could not finish it.
    Invalid {
        /// The checker's first message; `timeout` after five seconds.
        message: String,
    },
}

impl Validity {
    /// It is [`Validity::Valid`].
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }
}

/// Whether [`validity`] can check programs of this language.
pub fn is_checked(language: Language) -> bool {
    matches!(language, Language::Python | Language::C | Language::Cpp)
}

/// Checks one program: Python with the interpreter's own parser, C with `gcc -c`, C++ with `g++ -c`.
///
/// Verdicts depend on the checker's version ([`checker_version`]); GCC 14 for one refuses implicit declarations.
///
/// # Errors
/// [`CodeError::CheckerMissing`] if the checker cannot be run, [`CodeError::Unchecked`] for other languages:
/// "could not check" is never [`Validity::Invalid`].
pub fn validity(code: &str, language: Language) -> Result<Validity, CodeError> {
    match language {
        Language::Python => python(code),
        Language::C | Language::Cpp => compile(code, language),
        other => Err(CodeError::Unchecked(other)),
    }
}

/// Checks many programs in parallel; the answers stand in the order of the programs.
///
/// # Errors
/// Those of [`validity`].
pub fn validity_many(programs: &[(&str, Language)]) -> Result<Vec<Validity>, CodeError> {
    programs.par_iter().with_min_len(4).map(|&(code, language)| validity(code, language)).collect()
}

/// The checker's name and version, such as `Python 3.11.7`.
///
/// # Errors
/// Those of [`validity`].
pub fn checker_version(language: Language) -> Result<String, CodeError> {
    static VERSIONS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    let (program, slot) = match language {
        Language::Python => ("python3", 0),
        Language::C => ("gcc", 1),
        Language::Cpp => ("g++", 2),
        other => return Err(CodeError::Unchecked(other)),
    };
    if let Some(version) = VERSIONS[slot].get() {
        return Ok(version.clone());
    }
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(language, error.to_string()))?;
    if !output.status.success() {
        return Err(missing(language, format!("`--version` ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().unwrap_or(program).trim().to_owned();
    Ok(VERSIONS[slot].get_or_init(|| version).clone())
}

fn missing(language: Language, why: String) -> CodeError {
    let program = match language {
        Language::Python => "python3",
        Language::C => "gcc",
        _ => "g++",
    };
    CodeError::CheckerMissing { program: program.to_owned(), language, why }
}

/// A process that parses one Python program after the other. It ends when its input is closed.
struct PythonChecker {
    process: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

/// Checkers that wait for work; as many are alive as threads ever checked at the same time.
static IDLE: Mutex<Vec<PythonChecker>> = Mutex::new(Vec::new());

impl PythonChecker {
    fn start() -> Result<Self, CodeError> {
        let fail = |why: String| missing(Language::Python, why);
        let mut process = Command::new("python3")
            .args(["-I", "-S", "-c", PYTHON_CHECKER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| fail(error.to_string()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(fail("its pipes could not be opened".to_owned()));
        };
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, input, answers })
    }

    /// `None` if the process ended without an answer.
    fn check(&mut self, code: &str) -> Option<Validity> {
        let mut line = serde_json::Value::from(code).to_string();
        line.push('\n');
        self.input.write_all(line.as_bytes()).ok()?;
        self.input.flush().ok()?;
        match self.answers.recv_timeout(TIMEOUT) {
            Ok(answer) => match serde_json::from_str::<Option<String>>(&answer).ok()? {
                None => Some(Validity::Valid),
                Some(message) => Some(Validity::invalid(message)),
            },
            Err(RecvTimeoutError::Timeout) => Some(Validity::invalid("timeout")),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn stop(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn idle() -> std::sync::MutexGuard<'static, Vec<PythonChecker>> {
    IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn python(code: &str) -> Result<Validity, CodeError> {
    // A process that ends without an answer is replaced once: only a fresh one shows that the program is to blame.
    let waiting = idle().pop();
    let mut fresh = waiting.is_none();
    let mut checker = waiting.map_or_else(PythonChecker::start, Ok)?;
    loop {
        match checker.check(code) {
            Some(answer) => {
                if answer == Validity::invalid("timeout") {
                    checker.stop();
                } else {
                    idle().push(checker);
                }
                return Ok(answer);
            }
            None if fresh => {
                checker.stop();
                let mut control = PythonChecker::start()?;
                let works = control.check("x = 1") == Some(Validity::Valid);
                control.stop();
                return if works {
                    Ok(Validity::invalid("the parser crashed"))
                } else {
                    Err(missing(Language::Python, "it ended without an answer".to_owned()))
                };
            }
            None => {
                checker.stop();
                checker = PythonChecker::start()?;
                fresh = true;
            }
        }
    }
}

fn compile(code: &str, language: Language) -> Result<Validity, CodeError> {
    checker_version(language)?;
    let (compiler, dialect) = if language == Language::C { ("gcc", "c") } else { ("g++", "c++") };
    let fail = |error: std::io::Error| missing(language, error.to_string());
    let mut process = Command::new("sh")
        .args(["-c", LIMITED, "sh", compiler, "-c", "-w", "-fmax-errors=1", "-pipe"])
        .args(["-x", dialect, "-", "-o", "/dev/null"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let (Some(mut input), Some(mut errors)) = (process.stdin.take(), process.stderr.take()) else {
        return Err(missing(language, "its pipes could not be opened".to_owned()));
    };
    let code = code.to_owned();
    // Writing and reading by themselves, so that neither pipe can fill up and block the other.
    let writer = thread::spawn(move || {
        let _ = input.write_all(code.as_bytes());
    });
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.by_ref().take(1 << 20).read_to_end(&mut text);
        let _ = sender.send(text);
        let _ = std::io::copy(&mut errors, &mut std::io::sink());
    });
    let Ok(text) = receiver.recv_timeout(TIMEOUT) else {
        let _ = process.kill();
        let _ = process.wait();
        return Ok(Validity::invalid("timeout"));
    };
    let status = process.wait().map_err(fail)?;
    let _ = writer.join();
    if status.success() {
        return Ok(Validity::Valid);
    }
    Ok(Validity::invalid(first_error(&String::from_utf8_lossy(&text))))
}

/// `line 3: expected ';' before 'return'`, from a compiler's messages.
fn first_error(messages: &str) -> String {
    if messages.contains("signal terminated program") {
        return "timeout".to_owned();
    }
    let found = messages.lines().find(|line| line.contains("error:"));
    let Some((place, message)) = found.and_then(|line| line.split_once("error:")) else {
        return messages.lines().next().unwrap_or("the compiler gave no message").trim().to_owned();
    };
    let line = place.split(':').nth(1).and_then(|number| number.parse::<usize>().ok());
    match line {
        Some(line) => format!("line {line}: {}", message.trim()),
        None => message.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use hardn_types::testing::skipped;

    use super::*;

    fn is_there(language: Language) -> bool {
        let there = checker_version(language).is_ok();
        if !there {
            skipped(&format!("no checker for {language} here"));
        }
        there
    }

    /// An empty expectation stands for a valid program.
    #[track_caller]
    fn check(language: Language, code: &str, expected: &str) {
        let shown = match validity(code, language).unwrap() {
            Validity::Valid => String::new(),
            Validity::Invalid { message } => message,
        };
        let start: String = code.chars().take(40).collect();
        assert!(
            shown == expected || (!expected.is_empty() && shown.contains(expected)),
            "`{start}`: {shown}"
        );
    }

    #[test]
    fn python_programs() {
        if !is_there(Language::Python) {
            return;
        }
        let python = |code: &str, expected| check(Language::Python, code, expected);
        python("def f(x):\n    return x\n", "");
        python("", "");
        python("x = '\\d'\n", "");
        python("é = '\u{1F600}'\r\n", "");
        python("def f(:\n", "line 1: invalid syntax");
        python("def f():\nreturn 1\n", "line 2: expected an indented block");
        python("x = 1\0", "null bytes");
        python(&"(".repeat(100_000), "too many nested parentheses");
        python(&format!("x = {}1", "-".repeat(200_000)), "Error");
        python(&format!("x = a{}", ".b".repeat(200_000)), "Error");
        python("x = 2\n", "");
    }

    #[test]
    fn c_programs() {
        if !is_there(Language::C) {
            return;
        }
        let c = |code: &str, expected| check(Language::C, code, expected);
        c("#include <stdio.h>\nint f(void) { puts(\"x\"); return 1; }\n", "");
        c("int f(void) { return 1 }\n", "line 1: expected ';'");
        c("#include \"not_there.h\"\n", "line 1: not_there.h");
        c("int f(void) {\n", "line 1: expected declaration or statement");
        if is_there(Language::Cpp) {
            check(Language::Cpp, "#include <string>\nstd::string f() { return \"\"; }\n", "");
            c("namespace a {}\n", "line 1");
        }
    }

    #[test]
    fn many_programs_keep_their_order() {
        if !is_there(Language::Python) {
            return;
        }
        let texts: Vec<String> = (0..64)
            .map(|i| if i % 3 == 0 { format!("x = {i} +") } else { format!("x = {i}") })
            .collect();
        let programs: Vec<_> = texts.iter().map(|text| (text.as_str(), Language::Python)).collect();
        for (i, answer) in validity_many(&programs).unwrap().iter().enumerate() {
            assert_eq!(answer.is_valid(), i % 3 != 0, "{i}");
        }
    }

    #[test]
    fn other_languages_are_not_judged() {
        assert!(matches!(validity("x", Language::Ruby), Err(CodeError::Unchecked(_))));
    }
}
