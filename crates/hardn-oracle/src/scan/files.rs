//! Which files are read: arguments as they are, folders without what ignore files name.

use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
};

use hardn_types::Language;
use ignore::{
    WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};

use super::ScanOptions;
use crate::{Oracle, OracleError, Result};

/// Folders that hold no code of one's own.
const SKIPPED_FOLDERS: [&str; 10] = [
    ".git",
    ".hg",
    ".svn",
    "target",
    "node_modules",
    "__pycache__",
    ".venv",
    "venv",
    ".tox",
    ".mypy_cache",
];

/// Ignore files of one's own, beside `.gitignore` and `.ignore`.
const IGNORE_FILE: &str = ".hardnignore";

/// Something to scan.
pub(super) enum Entry {
    File(PathBuf),
    Stdin,
    /// A place inside a folder that could not be read, and why.
    Unreadable(PathBuf, String),
}

/// Everything that is to be scanned: in the order of the arguments, files of a folder by path, none twice.
///
/// # Errors
/// [`OracleError::Read`] for an argument that does not exist, [`OracleError::Glob`] for a glob that is none.
pub(super) fn collect(
    oracle: &Oracle,
    paths: &[PathBuf],
    options: &ScanOptions,
) -> Result<Vec<Entry>> {
    let exclude = Exclude::new(paths, &options.exclude)?;
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        if path.as_os_str() == "-" {
            if seen.insert(path.clone()) {
                entries.push(Entry::Stdin);
            }
            continue;
        }
        let data = std::fs::metadata(path)
            .map_err(|source| OracleError::Read { path: path.clone(), source })?;
        if data.is_dir() {
            walk(oracle, path, options, &exclude, |entry| {
                let known = match &entry {
                    Entry::File(path) => !seen.insert(path.clone()),
                    _ => false,
                };
                if !known {
                    entries.push(entry);
                }
            });
        } else if !exclude.covers(path, false) && seen.insert(path.clone()) {
            entries.push(Entry::File(path.clone()));
        }
    }
    Ok(entries)
}

fn walk(
    oracle: &Oracle,
    folder: &Path,
    options: &ScanOptions,
    exclude: &Exclude,
    mut add: impl FnMut(Entry),
) {
    let mut builder = WalkBuilder::new(folder);
    builder
        .standard_filters(!options.no_ignore)
        .hidden(!options.hidden)
        .require_git(false)
        .sort_by_file_path(Path::cmp);
    if !options.no_ignore {
        builder.add_custom_ignore_filename(IGNORE_FILE);
    }
    let no_ignore = options.no_ignore;
    let exclude = exclude.clone();
    builder.filter_entry(move |entry| {
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        let name = entry.file_name().to_str().unwrap_or("");
        let skipped = is_folder
            && entry.depth() > 0
            && (name == ".git" || (!no_ignore && SKIPPED_FOLDERS.contains(&name)));
        !skipped && !exclude.covers(entry.path(), is_folder)
    });
    for entry in builder.build() {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                let known = Language::of_path(entry.path())
                    .is_some_and(|language| oracle.rules().has(language));
                if known {
                    add(Entry::File(entry.into_path()));
                }
            }
            Ok(_) => {}
            Err(error) => {
                let path = place(&error).unwrap_or(folder).to_owned();
                let why = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                add(Entry::Unreadable(path, why));
            }
        }
    }
}

fn place(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            place(err)
        }
        _ => None,
    }
}

/// `--exclude`: globs as `.gitignore` has them, seen from the current folder and from every folder that is scanned.
#[derive(Clone)]
struct Exclude {
    here: PathBuf,
    sets: Vec<Gitignore>,
}

impl Exclude {
    fn new(paths: &[PathBuf], globs: &[String]) -> Result<Self> {
        let here = env::current_dir().unwrap_or_default();
        let mut sets = Vec::new();
        if !globs.is_empty() {
            let folders = paths.iter().filter(|path| path.is_dir()).map(|path| here.join(path));
            for root in std::iter::once(here.clone()).chain(folders) {
                // Roots and paths must be spelt alike: no `.` inside.
                let root: PathBuf = root.components().collect();
                let mut builder = GitignoreBuilder::new(&root);
                for glob in globs {
                    builder.add_line(None, glob).map_err(|error| OracleError::Glob {
                        glob: glob.clone(),
                        message: error.to_string(),
                    })?;
                }
                let set = builder.build().map_err(|error| OracleError::Glob {
                    glob: globs.join(", "),
                    message: error.to_string(),
                })?;
                sets.push(set);
            }
        }
        Ok(Self { here, sets })
    }

    fn covers(&self, path: &Path, is_folder: bool) -> bool {
        if self.sets.is_empty() {
            return false;
        }
        let path: PathBuf = self.here.join(path).components().collect();
        self.sets.iter().any(|set| {
            path != set.path()
                && path.starts_with(set.path())
                && set.matched_path_or_any_parents(&path, is_folder).is_ignore()
        })
    }
}
