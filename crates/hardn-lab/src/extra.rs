//! Real code at hand, mixed into pretraining text so that published functions are not noise to a lab model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hardn_types::Language;

use crate::{LabError, Result};

/// The most characters of a piece of real code.
const MAX_CHARS: usize = 2_500;
/// Shorter pieces are left out.
const MIN_CHARS: usize = 80;

/// Reads the Python and C files below a folder, in the order of their paths, cut into pieces at line ends.
///
/// # Errors
/// A folder that cannot be read. A file that is not text is left out.
pub(crate) fn chunks(dir: &Path) -> Result<Vec<(String, Language, String)>> {
    let mut paths = Vec::new();
    walk(dir, &mut paths)?;
    paths.sort();
    let mut chunks = Vec::new();
    for path in paths {
        let Some(language @ (Language::Python | Language::C)) = Language::of_path(&path) else {
            continue;
        };
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        chunks.extend(cut(&text).into_iter().map(|chunk| (name.clone(), language, chunk)));
    }
    Ok(chunks)
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let fail = |source| LabError::Read { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            walk(&entry.path(), paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// Cuts before a line that starts a new definition where it can, else where the piece is full.
fn cut(text: &str) -> Vec<String> {
    let mut chunks = Vec::new();
    let mut chunk = String::new();
    for line in text.split_inclusive('\n') {
        let top_level = !line.starts_with([' ', '\t', '}', ')', '\n', '\r']);
        let full = chunk.len() + line.len() > MAX_CHARS;
        if full || (top_level && chunk.len() > MAX_CHARS * 2 / 3) {
            chunks.push(std::mem::take(&mut chunk));
        }
        if line.len() <= MAX_CHARS {
            chunk.push_str(line);
        }
    }
    chunks.push(chunk);
    chunks.retain(|chunk| chunk.trim().len() >= MIN_CHARS);
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_short_and_lose_nothing() {
        let text = "def f(x):
    return x + 1

"
        .repeat(400);
        let pieces = cut(&text);
        assert!(pieces.len() > 4 && pieces.iter().all(|piece| piece.len() <= MAX_CHARS));
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.starts_with("def ")));
    }
}
