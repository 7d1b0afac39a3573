//! The files a tool is given: pieces of code in a private folder, or where they lie.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{Language, Piece};
use tempfile::TempDir;

/// Whether files on disk are read where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Yes: what they include is found.
    InPlace,
    /// All are copied: the tool takes one folder and reads what is in it.
    Copied,
    /// As `Copied`, each in a folder of its own: a folder is a unit to the language.
    OwnFolders,
}

/// Pieces of one language group, each in a file.
pub(crate) struct Batch<'a> {
    root: TempDir,
    code: PathBuf,
    pub(crate) pieces: Vec<Piece<'a>>,
    /// One for each piece; absolute.
    pub(crate) files: Vec<PathBuf>,
    numbers: BTreeMap<PathBuf, Vec<usize>>,
}

impl<'a> Batch<'a> {
    /// Writes what has to be written. The folder goes when this is dropped.
    pub(crate) fn new(pieces: Vec<Piece<'a>>, placement: Placement) -> std::io::Result<Self> {
        let root = tempfile::Builder::new().prefix("hardn-engine-").tempdir()?;
        let code = root.path().canonicalize()?.join("code");
        fs::create_dir(&code)?;
        let mut files = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let on_disk = piece.path.filter(|path| {
                placement == Placement::InPlace && Language::of_path(path) == Some(piece.language)
            });
            if let Some(path) = on_disk.and_then(|path| path.canonicalize().ok()) {
                files.push(path);
                continue;
            }
            // JSX and headers are told by the extension.
            let extension = piece
                .path
                .filter(|path| Language::of_path(path) == Some(piece.language))
                .and_then(|path| path.extension()?.to_str())
                .unwrap_or(piece.language.extension());
            let mut folder = code.clone();
            let mut stem = format!("p{number:06}");
            if placement == Placement::OwnFolders {
                folder.push(&stem);
                fs::create_dir(&folder)?;
                if let Some(name) = public_class(piece) {
                    stem = name;
                }
            }
            let path = folder.join(format!("{stem}.{extension}"));
            fs::write(&path, piece.code)?;
            files.push(path);
        }
        let mut numbers: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            numbers.entry(file.clone()).or_default().push(number);
        }
        Ok(Self { root, code, pieces, files, numbers })
    }

    /// The folder for the tool's own files; its `code` holds the pieces that were written.
    pub(crate) fn folder(&self) -> &Path {
        self.root.path()
    }

    /// The folder of the pieces that were written.
    pub(crate) fn code_folder(&self) -> &Path {
        &self.code
    }

    /// The pieces in a file that a tool names; empty for a file that is not one of ours, such as a header.
    pub(crate) fn pieces_of(&self, name: &str) -> &[usize] {
        let path = Path::new(name.strip_prefix("file://").unwrap_or(name));
        let found = self.numbers.get(path).or_else(|| {
            let path = self.folder().join(path).canonicalize().ok()?;
            self.numbers.get(&path)
        });
        found.map_or(&[], Vec::as_slice)
    }
}

/// Java wants a public class in a file of its name.
fn public_class(piece: &Piece) -> Option<String> {
    if piece.language != Language::Java {
        return None;
    }
    let class =
        regex::Regex::new(r"\bpublic\s+(?:\w+\s+)*?(?:class|interface|enum|record)\s+(\w+)");
    Some(class.ok()?.captures(piece.code)?[1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_get_files_and_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.py");
        fs::write(&path, "x = 1\n").unwrap();
        let on_disk = Piece { path: Some(&path), ..Piece::new("x = 1\n", Language::Python) };
        let pieces = vec![Piece::new("y = 2\n", Language::Python), on_disk, on_disk];
        let batch = Batch::new(pieces.clone(), Placement::InPlace).unwrap();
        assert_eq!(fs::read_to_string(&batch.files[0]).unwrap(), "y = 2\n");
        assert_eq!(batch.files[1], path.canonicalize().unwrap());
        assert_eq!(batch.pieces_of(path.to_str().unwrap()), [1, 2]);
        assert_eq!(batch.pieces_of("code/p000000.py"), [0]);
        assert!(batch.pieces_of("/usr/include/stdio.h").is_empty());
        let copied = Batch::new(pieces, Placement::Copied).unwrap();
        assert!(copied.files.iter().all(|file| file.starts_with(copied.code_folder())));
        let root = copied.folder().to_owned();
        drop(copied);
        assert!(!root.exists());
    }

    #[test]
    fn java_files_are_named_for_their_class() {
        let code = "import a.B;\npublic final class Login { }\n";
        let batch =
            Batch::new(vec![Piece::new(code, Language::Java)], Placement::OwnFolders).unwrap();
        assert!(batch.files[0].ends_with("p000000/Login.java"));
    }
}
