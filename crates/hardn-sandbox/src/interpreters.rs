//! Finding `python3`, `gcc` and other programs.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{Result, SandboxError, launch::SEARCH_PATH, workspace::open_to_all};

/// A program with the folders it needs to read.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    pub(crate) executable: PathBuf,
    pub(crate) read: Vec<PathBuf>,
}

/// The Python that runs programs: `HARDN_PYTHON`, or the first `python3` on PATH; for root, the first that other
/// users may read, so that programs need not run as root.
pub(crate) fn python() -> Result<&'static Interpreter> {
    static PYTHON: OnceLock<Option<Interpreter>> = OnceLock::new();
    PYTHON.get_or_init(find_python).as_ref().ok_or_else(|| SandboxError::Missing {
        name: "python3".to_owned(),
        tried: env::var("PATH").unwrap_or_default(),
        variable: "HARDN_PYTHON",
    })
}

fn find_python() -> Option<Interpreter> {
    let named = env::var_os("HARDN_PYTHON").map(PathBuf::from);
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![path],
        None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .chain(env::split_paths(SEARCH_PATH))
            .map(|folder| folder.join("python3"))
            .filter(|path| is_executable(path))
            .collect(),
    };
    // SAFETY: asks for a number.
    let root = unsafe { libc::geteuid() } == 0;
    let mut first = None;
    for candidate in candidates {
        let Some(found) = ask_python(&candidate) else { continue };
        if !root || found.read.iter().chain([&found.executable]).all(|path| open_to_all(path)) {
            return Some(found);
        }
        first.get_or_insert(found);
    }
    first
}

/// Asks a Python where it lives: the command may be a script that picks one of several.
fn ask_python(candidate: &Path) -> Option<Interpreter> {
    const QUESTION: &str =
        "import sys; print(sys.executable, sys.base_prefix, sys.base_exec_prefix, sep='\\n')";
    let output = Command::new(candidate).args(["-I", "-S", "-c", QUESTION]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines().map(PathBuf::from);
    let executable = lines.next()?.canonicalize().ok()?;
    let mut read: Vec<PathBuf> = lines.filter(|path| path.is_absolute()).collect();
    read.dedup();
    output.status.success().then_some(Interpreter { executable, read })
}

/// Finds a command on the sandbox's PATH.
pub(crate) fn command(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    env::split_paths(SEARCH_PATH)
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
        .ok_or_else(|| SandboxError::Missing {
            name: name.to_owned(),
            tried: SEARCH_PATH.to_owned(),
            variable: "a full path",
        })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
