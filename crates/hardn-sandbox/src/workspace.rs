//! The folders of one run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Result, SandboxError};

/// A temporary folder with `work`, the program's only writable place, and `program`, which it may read and run.
/// Both are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        let root =
            tempfile::Builder::new().prefix("hardn-").tempdir_in(&parent).map_err(|source| {
                SandboxError::Io { doing: "making a folder in", path: parent, source }
            })?;
        let workspace = Self { root };
        // Others may pass through but not look around: a program with a user id of its own must get in.
        Self::set_mode(workspace.root.path(), 0o711)?;
        for folder in [workspace.work(), workspace.program()] {
            fs::create_dir(&folder).map_err(|source| io("making the folder", &folder, source))?;
        }
        Ok(workspace)
    }

    /// The writable folder.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// The readable folder.
    pub(crate) fn program(&self) -> PathBuf {
        self.root.path().join("program")
    }

    /// Writes a file into one of the folders.
    pub(crate) fn write(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(SandboxError::Argument {
                what: format!("the file `{name}`"),
                why: "its name must be a plain file name",
            });
        }
        let path = folder.join(name);
        fs::write(&path, content).map_err(|source| io("writing", &path, source))?;
        Ok(path)
    }

    /// Hands the writable folder to the user the program will run as.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        let work = self.work();
        let mut paths = vec![work.clone()];
        let entries = fs::read_dir(&work).map_err(|source| io("reading", &work, source))?;
        paths.extend(entries.flatten().map(|entry| entry.path()));
        for path in paths {
            chown(&path, Some(uid), Some(uid))
                .map_err(|source| io("handing over", &path, source))?;
        }
        Ok(())
    }

    /// Moves a file a run made out of the writable folder, and empties that folder.
    pub(crate) fn promote(&self, name: &str) -> Result<PathBuf> {
        let (from, to) = (self.work().join(name), self.program().join(name));
        let is_file = fs::symlink_metadata(&from).is_ok_and(|metadata| metadata.is_file());
        if !is_file {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(io("taking over the compiled program", &from, source));
        }
        fs::rename(&from, &to).map_err(|source| io("moving", &from, source))?;
        Self::set_mode(&to, 0o755)?;
        let work = self.work();
        fs::remove_dir_all(&work).map_err(|source| io("emptying", &work, source))?;
        fs::create_dir(&work).map_err(|source| io("making the folder", &work, source))?;
        Ok(to)
    }

    fn set_mode(path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|source| io("setting the mode of", path, source))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if fs::remove_dir_all(self.root.path()).is_err() {
            // A program may have locked its folders.
            unlock(&self.work());
            let _ = fs::remove_dir_all(self.root.path());
        }
    }
}

/// Makes folders below `path` writable again, without following links.
fn unlock(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> SandboxError {
    SandboxError::Io { doing, path: path.to_owned(), source }
}

/// Whether every user may reach `path`, and read it or pass through it.
pub(crate) fn open_to_all(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    path.ancestors().all(|part| {
        fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        let workspace = Workspace::new().unwrap();
        for name in ["", ".", "..", "../x", "/etc/x", "a\0b"] {
            assert!(Workspace::write(&workspace.work(), name, b"").is_err(), "{name:?}");
        }
    }

    #[test]
    fn locked_folders_are_removed() {
        let workspace = Workspace::new().unwrap();
        let root = workspace.root.path().to_owned();
        let locked = workspace.work().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        drop(workspace);
        assert!(!root.exists());
    }
}
