//! From paths to results, on all threads, in a stable order.

use std::{
    fs::File,
    io::Read,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hardn_types::{Analysis, Language};
use rayon::prelude::*;

use super::{
    ScanCache, Suppressed,
    files::{self, Entry},
    suppress,
};
use crate::{Mode, Oracle, OracleError, Result};

/// How paths are scanned.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// What counts as a source.
    pub mode: Mode,
    /// The language of standard input, and of files whose extension says none.
    pub language: Option<Language>,
    /// The name standard input goes by; its extension may say the language.
    pub stdin_name: Option<String>,
    /// Larger files are reported as not analysed, in bytes.
    pub max_bytes: u64,
    /// Hidden files and folders are scanned as well.
    pub hidden: bool,
    /// Ignore files, and folders such as `node_modules`, are not minded.
    pub no_ignore: bool,
    /// Globs of what is left out, as `.gitignore` has them.
    pub exclude: Vec<String>,
    /// The code of files without findings is kept, too.
    pub keep_code: bool,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Snippet,
            language: None,
            stdin_name: None,
            max_bytes: 2_000_000,
            hidden: false,
            no_ignore: false,
            exclude: Vec::new(),
            keep_code: false,
        }
    }
}

/// Something a person should know of a file, which is no finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanWarning {
    /// The line it is about, from 1.
    pub line: Option<u32>,
    /// It is about a suppression.
    pub suppression: bool,
    /// What is odd.
    pub message: String,
}

/// The result for one file.
#[derive(Clone, Debug)]
pub struct FileResult {
    /// The path as it was given or found; `-` for standard input without a name.
    pub path: String,
    /// The text; empty where it could not be read or nobody will ask for it.
    pub code: String,
    /// What was found, or why nothing was looked for.
    pub analysis: Analysis,
    /// Findings that comments in the code suppress.
    pub suppressed: Vec<Suppressed>,
    /// Findings that the baseline holds.
    pub in_baseline: usize,
    /// What is odd about the file and its suppressions.
    pub warnings: Vec<ScanWarning>,
}

impl FileResult {
    /// A result that nothing has been taken from yet.
    pub fn new(path: &str, code: String, analysis: Analysis) -> Self {
        Self {
            path: path.to_owned(),
            code,
            analysis,
            suppressed: Vec::new(),
            in_baseline: 0,
            warnings: Vec::new(),
        }
    }

    fn not_analysed(path: &str, why: String) -> Self {
        let analysis = Analysis {
            language: None,
            findings: Vec::new(),
            covers: Vec::new(),
            not_analysed: Some(why),
        };
        Self::new(path, String::new(), analysis)
    }
}

/// Scans files, folders and `-` (standard input). Results come in the order of the arguments, files of a folder by path.
///
/// In folders, files of languages without rules are passed over; named directly they are reported as not analysed.
/// `watch` gets the numbers of files done and of all files, and may break the scan off.
///
/// # Errors
/// [`OracleError::Read`] for an argument that does not exist, [`OracleError::Glob`] for a glob that is none,
/// [`OracleError::Interrupted`] where `watch` broke off.
pub fn scan_paths(
    oracle: &Oracle,
    paths: &[PathBuf],
    options: &ScanOptions,
    cache: Option<&ScanCache>,
    watch: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
) -> Result<Vec<FileResult>> {
    let entries = files::collect(oracle, paths, options)?;
    let total = entries.len();
    let done = AtomicUsize::new(0);
    let stopped = AtomicBool::new(watch(0, total).is_break());
    let results: Vec<Option<FileResult>> = entries
        .par_iter()
        .map(|entry| {
            if stopped.load(Ordering::Relaxed) {
                return None;
            }
            let mut result = scan_entry(oracle, entry, options, cache);
            if !options.keep_code
                && result.analysis.findings.is_empty()
                && !suppress::may_suppress(&result.code)
            {
                result.code = String::new();
            }
            if watch(done.fetch_add(1, Ordering::Relaxed) + 1, total).is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
            Some(result)
        })
        .collect();
    if let Some(cache) = cache {
        cache.prune();
    }
    results.into_iter().collect::<Option<_>>().ok_or(OracleError::Interrupted)
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
    FileResult::new(path, code, analysis)
}

fn scan_entry(
    oracle: &Oracle,
    entry: &Entry,
    options: &ScanOptions,
    cache: Option<&ScanCache>,
) -> FileResult {
    let (path, bytes, cache) = match entry {
        Entry::Unreadable(path, why) => {
            return FileResult::not_analysed(
                &path.to_string_lossy(),
                format!("cannot be read: {why}"),
            );
        }
        Entry::Stdin => {
            let name = options.stdin_name.as_deref().unwrap_or("-");
            (PathBuf::from(name), read(std::io::stdin().lock(), options.max_bytes), None)
        }
        Entry::File(path) => {
            let bytes = File::open(path).and_then(|file| {
                let size = file.metadata()?.len();
                if size > options.max_bytes {
                    return Ok(None);
                }
                read(file, options.max_bytes)
            });
            (path.clone(), bytes, cache)
        }
    };
    let name = path.to_string_lossy();
    let bytes = match bytes {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let why = format!("larger than {} bytes (--max-bytes)", options.max_bytes);
            return FileResult::not_analysed(&name, why);
        }
        Err(error) => {
            return FileResult::not_analysed(&name, format!("cannot be read: {error}"));
        }
    };
    let Some((code, odd)) = decode(bytes) else {
        return FileResult::not_analysed(&name, "not a text file".to_owned());
    };
    let Some(language) = Language::of_path(Path::new(&*name)).or(options.language) else {
        return FileResult::not_analysed(
            &name,
            "the extension names no language hardn knows; say which with --language".to_owned(),
        );
    };
    let analysis = match cache {
        Some(cache) => cache.analyse(oracle, &code, language, options.mode),
        None => oracle.analyse(&code, language, options.mode),
    };
    let mut result = FileResult::new(&name, code, analysis);
    if odd {
        result.warnings.push(ScanWarning {
            line: None,
            suppression: false,
            message: "not UTF-8: bytes that are no text were read as U+FFFD".to_owned(),
        });
    }
    result
}

/// All bytes; `None` where there are more than allowed.
fn read(from: impl Read, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= max_bytes))
}

/// The text, and whether some of it had to be replaced; `None` for what is no text.
fn decode(bytes: Vec<u8>) -> Option<(String, bool)> {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> =
            bytes[2..].chunks_exact(2).map(|pair| from([pair[0], pair[1]])).collect();
        (String::from_utf16_lossy(&units), String::from_utf16(&units).is_err())
    };
    match bytes.get(..2) {
        Some([0xff, 0xfe]) => return Some(wide(u16::from_le_bytes)),
        Some([0xfe, 0xff]) => return Some(wide(u16::from_be_bytes)),
        _ => {}
    }
    if bytes.iter().take(8000).any(|byte| *byte == 0) {
        return None;
    }
    let (mut text, odd) = match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    };
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Some((text, odd))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scan(root: &Path, options: &ScanOptions) -> Vec<FileResult> {
        let go_on = |_, _| ControlFlow::Continue(());
        scan_paths(Oracle::shared(), &[root.to_owned()], options, None, &go_on).unwrap()
    }

    fn names(results: &[FileResult]) -> Vec<&str> {
        results.iter().map(|result| result.path.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_folder_is_scanned_in_order_and_wrong_arguments_are_named() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("target")).unwrap();
        fs::write(root.join("b.py"), "def f(x):\n    return eval(x)\n").unwrap();
        fs::write(root.join("a.c"), "void f(const char *x) { printf(x); }\n").unwrap();
        fs::write(root.join("note.txt"), "eval(x)").unwrap();
        fs::write(root.join("target/c.py"), "eval(input())").unwrap();
        let results = scan(root, &ScanOptions::default());
        assert_eq!(names(&results), ["a.c", "b.py"]);
        assert!(results.iter().all(|result| result.analysis.findings.len() == 1));
        let missing = root.join("missing.py");
        let go_on = |_, _| ControlFlow::Continue(());
        let error = scan_paths(Oracle::shared(), &[missing], &ScanOptions::default(), None, &go_on)
            .unwrap_err();
        assert!(error.to_string().contains("missing.py"));
        let stop = |_, _| ControlFlow::Break(());
        let broken =
            scan_paths(Oracle::shared(), &[root.into()], &ScanOptions::default(), None, &stop);
        assert!(matches!(broken, Err(OracleError::Interrupted)));
    }

    #[test]
    fn ignore_files_hidden_files_and_globs_leave_out() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for folder in ["made", "sub/deep", ".hid"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join(".gitignore"), "made/\n*_pb.py\n").unwrap();
        fs::write(root.join(".hardnignore"), "sub/deep/skip.py\n").unwrap();
        for name in
            ["a.py", "a_pb.py", "made/m.py", "sub/deep/skip.py", "sub/deep/keep.py", ".hid/h.py"]
        {
            fs::write(root.join(name), "x = 1\n").unwrap();
        }
        let check = |options: ScanOptions, expected: &[&str]| {
            assert_eq!(names(&scan(root, &options)), expected, "{options:?}");
        };
        check(ScanOptions::default(), &["a.py", "keep.py"]);
        check(ScanOptions { hidden: true, ..Default::default() }, &["h.py", "a.py", "keep.py"]);
        check(
            ScanOptions { no_ignore: true, ..Default::default() },
            &["a.py", "a_pb.py", "m.py", "keep.py", "skip.py"],
        );
        for glob in ["deep", "sub/**", "keep.*", "sub/deep/"] {
            check(ScanOptions { exclude: vec![glob.to_owned()], ..Default::default() }, &["a.py"]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_reported() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::write(root.join("binary.py"), b"a\0b").unwrap();
        fs::write(root.join("large.py"), "x = 1\n".repeat(100)).unwrap();
        fs::write(root.join("latin.py"), b"def f(x):\n    s = '\xe9'; return eval(x)\n").unwrap();
        let mut wide = vec![0xff, 0xfe];
        wide.extend("def f(x):\n    return eval(x)\n".encode_utf16().flat_map(u16::to_le_bytes));
        fs::write(root.join("wide.py"), wide).unwrap();
        let results = scan(root, &ScanOptions { max_bytes: 400, ..Default::default() });
        let why = |at: usize| results[at].analysis.not_analysed.as_deref().unwrap_or("");
        assert_eq!(names(&results), ["binary.py", "large.py", "latin.py", "wide.py"]);
        assert!(why(0).contains("not a text") && why(1).contains("larger than 400"));
        assert_eq!(results[2].analysis.findings[0].span.column, 26);
        assert!(results[2].warnings[0].message.contains("UTF-8"));
        assert_eq!(results[3].analysis.findings[0].span.line, 2);
    }
}
