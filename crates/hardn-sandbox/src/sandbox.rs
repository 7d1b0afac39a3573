//! The sandbox itself.

use std::path::{Path, PathBuf};

use crate::{
    Limits, Outcome, Program, Result, interpreters,
    launch::Launch,
    mode::{Mode, Rights},
    workspace::{Workspace, open_to_all},
};

/// Runs untrusted programs. Cheap to make and to share between threads.
///
/// What a program can do: compute, read the system's programs and libraries, write into a fresh folder that is its
/// working folder, `HOME` and `TMPDIR`, and start other programs. What it cannot: reach a network, see or change other
/// files, see the caller's environment, look at or signal other processes, gain rights, or outlive its run.
/// Every protection is set up before the program's first instruction, and one that fails is an error: there is no
/// run with fewer protections than [`Outcome::tier`] says.
///
/// Not limited: the number of files it makes, beyond the size of each and the time it has.
#[derive(Clone, Debug)]
pub struct Sandbox {
    limits: Limits,
    mode: Mode,
}

impl Sandbox {
    /// Finds out (once per process) which protections this machine offers.
    ///
    /// # Errors
    /// [`crate::SandboxError::Layer`] where Landlock is missing and `limits.allow_weaker` is not set, or where not
    /// even system call filters and resource limits work.
    pub fn new(limits: Limits) -> Result<Self> {
        let mode = Mode::best()?;
        mode.check(&limits)?;
        Ok(Self { limits, mode })
    }

    /// The limits of its runs.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The same sandbox with other limits.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn limited(&self, limits: Limits) -> Result<Self> {
        Self::new(limits)
    }

    /// The protections that ordinary programs of the system run under, joined by `+`.
    pub fn tier(&self) -> String {
        self.mode.tier(self.gives_own_uid(Path::new("/usr/bin"), &[]))
    }

    /// Runs a program to its end and ends everything it has started.
    ///
    /// # Errors
    /// [`crate::SandboxError`] where the program could not be run under every protection; a program that fails is an
    /// [`Outcome`].
    pub fn run(&self, program: &Program) -> Result<Outcome> {
        let workspace = Workspace::new()?;
        let executable = interpreters::command(program.argv.first().map_or("", String::as_str))?;
        self.run_in(&workspace, program, executable, &[])
    }

    pub(crate) fn run_in(
        &self,
        workspace: &Workspace,
        program: &Program,
        executable: PathBuf,
        read: &[PathBuf],
    ) -> Result<Outcome> {
        let work = workspace.work();
        for (name, content) in &program.files {
            Workspace::write(&work, name, content)?;
        }
        let launch = Launch {
            mode: self.mode,
            limits: &self.limits,
            own_uid: self.gives_own_uid(&executable, read),
            executable,
            argv: &program.argv,
            env: &program.env,
            stdin: &program.stdin,
            workspace,
            read,
        };
        launch.run()
    }

    /// A user id of its own needs rights on our side, and a program that every user may read.
    fn gives_own_uid(&self, executable: &Path, read: &[PathBuf]) -> bool {
        self.mode.rights == Rights::Root
            && open_to_all(executable)
            && open_to_all(&std::env::temp_dir())
            && read.iter().all(|path| open_to_all(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mode that may be chosen on some machine ends what a run has started.
    #[test]
    fn weaker_modes_still_end_everything() {
        let landlock = crate::files::landlock_version();
        // SAFETY: asks for a number.
        let root = unsafe { libc::geteuid() } == 0;
        let mut modes = vec![(false, Rights::User), (true, Rights::UserNamespace)];
        if root {
            modes.push((false, Rights::Root));
        }
        for (namespaces, rights) in modes {
            let mode = Mode { landlock, namespaces, rights };
            let sandbox = Sandbox { limits: Limits::default(), mode };
            let script = "chmod 0 . 2>/dev/null; (sleep 60 &); sleep 60 & echo done";
            match sandbox.run(&Program::new(["sh", "-c", script])) {
                Ok(outcome) => {
                    assert_eq!(outcome.stdout, "done\n", "{mode:?}: {outcome:?}");
                    assert!(outcome.wall_ms < 5_000, "{mode:?}: {outcome:?}");
                }
                Err(error) if namespaces => {
                    hardn_types::testing::skipped(&format!("no namespaces here: {error}"));
                }
                Err(error) => panic!("{mode:?}: {error}"),
            }
        }
    }
}
