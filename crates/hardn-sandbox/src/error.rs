//! What keeps a program from being run.

use std::{io, path::PathBuf};

/// Why a program was not run. A program that ran and failed is an [`crate::Outcome`], never an error.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A protection cannot be set up here, and the caller did not accept less.
    #[error(
        "the sandbox cannot protect this machine: {layer} failed ({why}); help: use a Linux kernel of 5.13 or later \
         with Landlock switched on, or accept less protection with `allow_weaker` (`--allow-weaker-sandbox`)"
    )]
    Layer {
        /// The protection that is missing.
        layer: String,
        /// What the kernel said.
        why: String,
    },
    /// The program or an interpreter is not on this machine.
    #[error(
        "`{name}` was not found on PATH ({tried}); help: install it, or name it with {variable}"
    )]
    Missing {
        /// The program.
        name: String,
        /// Where it was looked for.
        tried: String,
        /// The environment variable that names it.
        variable: &'static str,
    },
    /// An argument or a file name that cannot be handed to a program.
    #[error("{what} cannot be given to a sandboxed program: {why}")]
    Argument {
        /// The argument.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No sandboxed way to compile or run this language is known.
    #[error("programs in {0} cannot be run in the sandbox (python, c and cpp can)")]
    Language(hardn_types::Language),
    /// The program's folder could not be made, filled or removed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A system call of the supervising side failed.
    #[error("sandbox: {doing} failed: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// The result of anything in this crate.
pub type Result<T, E = SandboxError> = std::result::Result<T, E>;

/// Wraps the system's last error.
pub(crate) fn last_error(doing: &'static str) -> SandboxError {
    SandboxError::System { doing, source: io::Error::last_os_error() }
}
