//! Running a tool: output to files, a time limit, and no process left behind.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running tool is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Another thread that starts a process may hold a fresh script open for a moment.
const BUSY_TRIES: usize = 20;
/// How much of a tool's last words is kept, in characters.
const TAIL: usize = 400;

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("not found: `{program}` ({help})")]
    Missing { program: String, help: String },
    #[error("cannot be started: {0}")]
    Start(std::io::Error),
    #[error("stopped after {secs} s, its time limit{tail}")]
    TimedOut { secs: u64, tail: String },
    #[error("stopped, because the scan was")]
    Stopped,
    #[error("ended with {status}{tail}")]
    Status { status: String, tail: String },
    #[error("{what}{tail}")]
    Output { what: String, tail: String },
    #[error("a temporary file could not be used: {0}")]
    Io(#[from] std::io::Error),
}

/// What a tool left.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit status; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Passes if the exit status is one of these.
    pub(crate) fn expect(self, codes: &[i32]) -> Result<Self, ToolError> {
        if self.code.is_some_and(|code| codes.contains(&code)) {
            return Ok(self);
        }
        Err(ToolError::Status { status: self.status(), tail: self.tail() })
    }

    /// The output is not what the tool writes.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> ToolError {
        ToolError::Output { what: what.into(), tail: self.tail() }
    }

    fn status(&self) -> String {
        self.code.map_or("a signal".to_owned(), |code| format!("exit status {code}"))
    }

    fn tail(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        tail(text)
    }
}

/// A tool and the rules under which it runs.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) program: PathBuf,
    pub(crate) help: String,
    pub(crate) timeout: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Runner {
    /// Runs the tool in `folder`, with its output in files there.
    pub(crate) fn run(
        &self,
        folder: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Output, ToolError> {
        use std::os::unix::process::CommandExt;

        let (out, err) = (folder.join(".stdout"), folder.join(".stderr"));
        let mut command = Command::new(&self.program);
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            // A group of its own, so that its children can be ended with it.
            .process_group(0);
        prepare(&mut command);
        let mut child = Running(self.start(&mut command)?);
        let started = Instant::now();
        let read = |path: &Path| -> Result<String, ToolError> {
            Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
        };
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(ToolError::Stopped);
            }
            if started.elapsed() >= self.timeout {
                let secs = self.timeout.as_secs();
                return Err(ToolError::TimedOut { secs, tail: tail(&read(&err)?) });
            }
            thread::sleep(POLL);
        };
        Ok(Output { code: status.code(), stdout: read(&out)?, stderr: read(&err)? })
    }

    fn start(&self, command: &mut Command) -> Result<Child, ToolError> {
        for _ in 0..BUSY_TRIES {
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::sleep(POLL),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let program = self.program.display().to_string();
                    return Err(ToolError::Missing { program, help: self.help.clone() });
                }
                other => return other.map_err(ToolError::Start),
            }
        }
        command.spawn().map_err(ToolError::Start)
    }
}

/// A process group that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Once it was waited for its number may be somebody else's.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// The end of a tool's words on one line, behind a colon; empty where it said nothing.
fn tail(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    match length {
        0 => String::new(),
        _ if length <= TAIL => format!(": {line}"),
        _ => format!(": ...{}", line.chars().skip(length - TAIL).collect::<String>()),
    }
}
