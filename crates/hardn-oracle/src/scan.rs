//! Folders, files and standard input: which are read, as what, and in which order results come.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use hardn_types::{Analysis, Language};
use rayon::prelude::*;

use crate::{Mode, Oracle, OracleError, Result};

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

/// How paths are scanned.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// What counts as a source.
    pub mode: Mode,
    /// The language of standard input, and of files whose extension says none.
    pub language: Option<Language>,
    /// Larger files are reported as not analysed, in bytes.
    pub max_bytes: u64,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { mode: Mode::Snippet, language: None, max_bytes: 2_000_000 }
    }
}

/// The result for one file.
#[derive(Clone, Debug)]
pub struct FileResult {
    /// The path as it was given or found; `-` for standard input.
    pub path: String,
    /// The text; empty where it could not be read.
    pub code: String,
    /// What was found, or why nothing was looked for.
    pub analysis: Analysis,
}

/// Scans files, folders and `-` (standard input). Results come in the order of the arguments, files of a folder by path.
///
/// In folders, files of languages without rules are passed over; named directly they are reported as not analysed.
///
/// # Errors
/// [`OracleError::Read`] for an argument that does not exist.
pub fn scan_paths(
    oracle: &Oracle,
    paths: &[PathBuf],
    options: &ScanOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<FileResult>> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(path.clone());
            continue;
        }
        let wrap = |source| OracleError::Read { path: path.clone(), source };
        if fs::metadata(path).map_err(wrap)?.is_dir() {
            walk(oracle, path, &mut files).map_err(wrap)?;
        } else {
            files.push(path.clone());
        }
    }
    let total = files.len();
    let done = std::sync::atomic::AtomicUsize::new(0);
    Ok(files
        .par_iter()
        .map(|path| {
            let result = scan_file(oracle, path, options);
            progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
            result
        })
        .collect())
}

/// Scans one text.
pub fn scan_text(
    oracle: &Oracle,
    path: &str,
    code: String,
    language: Language,
    mode: Mode,
) -> FileResult {
    let analysis = oracle.analyse(&code, language, mode);
    FileResult { path: path.to_owned(), code, analysis }
}

fn scan_file(oracle: &Oracle, path: &Path, options: &ScanOptions) -> FileResult {
    let name = path.to_string_lossy().into_owned();
    let skip = |why: String| FileResult {
        path: name.clone(),
        code: String::new(),
        analysis: Analysis {
            language: None,
            findings: Vec::new(),
            covers: Vec::new(),
            not_analysed: Some(why),
        },
    };
    let bytes = if name == "-" {
        let mut bytes = Vec::new();
        match std::io::stdin().lock().take(options.max_bytes + 1).read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(error) => return skip(format!("cannot read standard input: {error}")),
        }
    } else {
        match fs::metadata(path) {
            Ok(data) if data.len() > options.max_bytes => {
                return skip(format!("larger than {} bytes", options.max_bytes));
            }
            Ok(_) => {}
            Err(error) => return skip(format!("cannot be read: {error}")),
        }
        match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return skip(format!("cannot be read: {error}")),
        }
    };
    if bytes.len() as u64 > options.max_bytes {
        return skip(format!("larger than {} bytes", options.max_bytes));
    }
    if bytes.iter().take(8000).any(|byte| *byte == 0) {
        return skip("not a text file".to_owned());
    }
    let Some(language) = Language::of_path(path).or(options.language) else {
        return skip(
            "the extension names no language hardn knows; say which with --language".to_owned(),
        );
    };
    let code = String::from_utf8_lossy(&bytes).into_owned();
    scan_text(oracle, &name, code, language, options.mode)
}

fn walk(oracle: &Oracle, folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    entries.sort();
    for path in entries {
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        if data.is_dir() {
            let skipped = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| SKIPPED_FOLDERS.contains(&name));
            if !skipped {
                // An unreadable folder inside does not end the scan.
                let _ = walk(oracle, &path, files);
            }
        } else if data.is_file()
            && Language::of_path(&path)
                .is_some_and(|language| oracle.rules().index(language).is_some())
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_scanned_in_order_and_wrong_arguments_are_named() {
        let root = std::env::temp_dir().join(format!("hardn-oracle-scan-{}", std::process::id()));
        fs::create_dir_all(root.join("target")).unwrap();
        fs::write(root.join("b.py"), "def f(x):\n    return eval(x)\n").unwrap();
        fs::write(root.join("a.c"), "void f(const char *x) { printf(x); }\n").unwrap();
        fs::write(root.join("note.txt"), "eval(x)").unwrap();
        fs::write(root.join("target/c.py"), "eval(input())").unwrap();
        let oracle = Oracle::shared();
        let results =
            scan_paths(oracle, std::slice::from_ref(&root), &ScanOptions::default(), &|_, _| {})
                .unwrap();
        let names: Vec<&str> =
            results.iter().map(|result| result.path.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.c", "b.py"]);
        assert!(results.iter().all(|result| result.analysis.findings.len() == 1));
        let missing = root.join("missing.py");
        let error =
            scan_paths(oracle, &[missing], &ScanOptions::default(), &|_, _| {}).unwrap_err();
        assert!(error.to_string().contains("missing.py"));
        fs::remove_dir_all(root).unwrap();
    }
}
