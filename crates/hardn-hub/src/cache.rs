//! The cache on disk, in `huggingface_hub`'s layout.
//!
//! ```text
//! models--OWNER--NAME/blobs/HASH                  bytes
//! models--OWNER--NAME/blobs/HASH.incomplete       bytes on their way
//! models--OWNER--NAME/snapshots/COMMIT/FILE       -> ../../blobs/HASH
//! models--OWNER--NAME/refs/REVISION               COMMIT
//! models--OWNER--NAME/.hardn/COMMIT               the files chosen of a commit; only hardn reads and writes it
//! .locks/models--OWNER--NAME/HASH.lock            held while the bytes come
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    HubError, Result,
    digest::Etag,
    select,
    source::{is_commit, is_relative_path},
};

/// One repository's part of the cache.
pub(crate) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { locks: cache.join(".locks").join(&name), folder: cache.join(name) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(etag.as_str())
    }

    pub(crate) fn partial(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", etag.as_str()))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit a revision stood for when it was fetched last.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) || self.snapshot(revision).is_dir() {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        (is_relative_path(commit) && !commit.contains('/')).then(|| commit.to_owned())
    }

    /// Notes what a revision stands for. Written once the snapshot is complete, so that it never points to less.
    pub(crate) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|text| text == commit) {
            return Ok(());
        }
        write(&path, commit.as_bytes())
    }

    fn listing(&self, commit: &str) -> PathBuf {
        self.folder.join(".hardn").join(commit)
    }

    /// Notes which files make the model. A cache that cannot be written only loses the note.
    pub(crate) fn set_listing(&self, commit: &str, files: &[String]) {
        let text = files.join("\n");
        let path = self.listing(commit);
        if !fs::read_to_string(&path).is_ok_and(|found| found == text) {
            let _ = write(&path, text.as_bytes());
        }
    }

    /// The files chosen of a commit if all are there; the hub need not be asked.
    pub(crate) fn complete(&self, commit: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.listing(commit)).ok()?;
        let files: Vec<String> = text.lines().map(str::to_owned).collect();
        let snapshot = self.snapshot(commit);
        let all = files.iter().all(|file| is_relative_path(file) && snapshot.join(file).is_file());
        (all && !files.is_empty()).then_some(files)
    }

    /// The files of a snapshot that suffice to load, whoever fetched it; or what is missing.
    pub(crate) fn sufficient(
        &self,
        commit: &str,
        file: Option<&str>,
    ) -> Result<Vec<String>, Vec<String>> {
        let snapshot = self.snapshot(commit);
        let is_there = |name: &String| snapshot.join(name).is_file();
        let check = |files: Vec<String>| {
            let missing: Vec<String> =
                files.iter().filter(|file| !is_there(file)).cloned().collect();
            if missing.is_empty() { Ok(files) } else { Err(missing) }
        };
        if let Some(file) = file {
            return match select::choose_file(&files_of(&snapshot), file) {
                Some(wanted) => Ok(wanted.weights),
                None => Err(vec![file.to_owned()]),
            };
        }
        if let Ok(text) = fs::read_to_string(self.listing(commit)) {
            return check(text.lines().map(str::to_owned).collect());
        }
        let Some(wanted) = select::choose(&files_of(&snapshot)) else {
            return Err(vec!["its weights file".to_owned()]);
        };
        let mut files = wanted.plain;
        if let Some(index) = wanted.index {
            let named = fs::read(snapshot.join(&index))
                .map_err(|error| error.to_string())
                .and_then(|text| select::shards(&text));
            files.extend(named.map_err(|_| vec![index.clone()])?);
            files.push(index);
        }
        files.extend(wanted.weights);
        if !files.iter().any(|name| name == "config.json" || name == "adapter_config.json") {
            files.push("config.json".to_owned());
        }
        check(files)
    }

    /// Gives a blob its name in a snapshot: a link, or a copy where there are no links.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &Etag) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        let fail = |error| HubError::write(&path, error);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(fail)?;
        }
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{}", etag.as_str());
        let temporary = temporary_name(&path);
        let _ = fs::remove_file(&temporary);
        if symlink(&target, &temporary).is_err() {
            fs::copy(self.blob(etag), &temporary).map_err(fail)?;
        }
        fs::rename(&temporary, &path).map_err(fail)
    }

    /// Waits until no other process fetches the blob. `busy` is called while one does, and may give up.
    pub(crate) fn lock(
        &self,
        etag: &Etag,
        busy: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<File>> {
        let path = self.locks.join(format!("{}.lock", etag.as_str()));
        let fail = |error| HubError::write(&path, error);
        fs::create_dir_all(&self.locks).map_err(fail)?;
        let file = File::options().create(true).append(true).open(&path).map_err(fail)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {
                    busy()?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                // Some network file systems have no locks; the hash still keeps broken bytes out.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(None);
                }
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }
}

/// Writes a file that is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    hardn_types::write_atomic(path, bytes).map_err(|error| match error {
        hardn_types::JsonlError::Write { source, .. } => HubError::write(path, source),
        other => HubError::write(path, io::Error::other(other.to_string())),
    })
}

/// The files of a folder and of the folders in it, as `a` and `b/c`.
fn files_of(folder: &Path) -> Vec<String> {
    let names = |at: &Path| -> Vec<String> {
        let entries = fs::read_dir(at).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            files.extend(names(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(unix)]
fn symlink(target: &str, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn symlink(_: &str, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
