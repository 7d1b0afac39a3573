//! What is run, and how it ended.

use serde::{Deserialize, Serialize};

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The command and its arguments; a command without a slash is looked up on the sandbox's PATH.
    pub argv: Vec<String>,
    /// Files put into the working folder first: name (no slash) and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Environment variables beside the sandbox's own few.
    pub env: Vec<(String, String)>,
}

impl Program {
    /// A command without files, input or environment of its own.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The protections that were active, joined by `+`.
    pub tier: String,
    /// The exit status, where the program exited.
    pub exit: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// It was ended for its use of CPU or elapsed time.
    pub timed_out: bool,
    /// It was ended for its use of memory, or gave up because it was refused more.
    pub out_of_memory: bool,
    /// It was ended for the number of its processes.
    pub too_many_processes: bool,
    /// The beginning of standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// The beginning of standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
    /// Standard output was longer.
    pub stdout_truncated: bool,
    /// Standard error was longer.
    pub stderr_truncated: bool,
    /// CPU time of the program and its children, in milliseconds.
    pub cpu_ms: u64,
    /// Elapsed time from start to end, in milliseconds.
    pub wall_ms: u64,
}

impl Outcome {
    /// Exit status 0.
    pub fn success(&self) -> bool {
        self.exit == Some(0)
    }
}
