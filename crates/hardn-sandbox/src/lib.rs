//! Runs untrusted programs under limits; fails closed.
//!
//! ```no_run
//! use hardn_sandbox::{Limits, Sandbox};
//!
//! let outcome = Sandbox::new(Limits::default())?.run_python("print(6 * 7)")?;
//! assert_eq!(outcome.stdout, "42\n");
//! # Ok::<(), hardn_sandbox::SandboxError>(())
//! ```
//!
//! Layers, from the outside in: namespaces and read-only mounts where the machine permits them, a user id without
//! rights or at least no capabilities, Landlock for files, seccomp for system calls, resource limits, and a watch over
//! the whole process tree. Linux only.

mod error;
mod files;
mod interpreters;
mod languages;
mod launch;
mod limits;
mod mode;
mod outcome;
mod sandbox;
mod seccomp;
mod warden;
mod watch;
mod workspace;

pub use error::{Result, SandboxError};
pub use languages::{CFlags, CompiledRun, run_twice_on_timeout, tool_versions};
pub use limits::Limits;
pub use outcome::{Outcome, Program};
pub use sandbox::Sandbox;
