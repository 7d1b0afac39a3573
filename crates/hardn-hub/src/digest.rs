//! The hash a hub promises for a file, and the check of it.

use std::{fs::File, io::Read, path::Path};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{HubError, Result};

/// An entity tag: the name of a blob in the cache, and mostly the hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Etag(String);

impl Etag {
    /// Reads a header's value: `"abc"`, `W/"abc"` or `abc`. `None` if it cannot name a file.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let text = header.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let names_a_file = (1..=128).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        names_a_file.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn kind(&self) -> Option<Kind> {
        if !self.0.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match self.0.len() {
            64 => Some(Kind::Sha256),
            40 => Some(Kind::GitSha1),
            _ => None,
        }
    }

    /// Whether the tag is a hash, so that the bytes can be held against it.
    pub(crate) fn is_hash(&self) -> bool {
        self.kind().is_some()
    }

    /// The hash of a file in the tag's own kind; `None` if the tag is no hash. `go_on` is asked between pieces.
    pub(crate) fn hash_of(
        &self,
        path: &Path,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Option<String>> {
        let read_error = |error| HubError::read(path, error);
        let mut file = File::open(path).map_err(read_error)?;
        let size = file.metadata().map_err(read_error)?.len();
        match self.kind() {
            Some(Kind::Sha256) => hash(&mut file, Sha256::new(), path, go_on).map(Some),
            Some(Kind::GitSha1) => {
                let start = Sha1::new_with_prefix(format!("blob {size}\0"));
                hash(&mut file, start, path, go_on).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Whether a hash that [`Etag::hash_of`] gave is the promised one.
    pub(crate) fn is(&self, hash: &str) -> bool {
        self.0.eq_ignore_ascii_case(hash)
    }
}

/// How the hub hashes: large files as they are, small ones as git does (`blob SIZE\0` before the bytes).
enum Kind {
    Sha256,
    GitSha1,
}

fn hash<D: Digest>(
    file: &mut File,
    mut digest: D,
    path: &Path,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<String> {
    let mut piece = vec![0; 1 << 20];
    loop {
        go_on()?;
        match file.read(&mut piece).map_err(|error| HubError::read(path, error))? {
            0 => break,
            n => digest.update(&piece[..n]),
        }
    }
    Ok(digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &str, tag: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let tag = Etag::parse(tag).unwrap();
        let found = tag.hash_of(file.path(), &|| Ok(())).unwrap();
        assert!(tag.is(&found.unwrap()));
    }

    #[test]
    fn hashes_are_gits_and_sha256() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        check("hello", "\"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"");
        check("hello", "W/\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"");
        check("", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn tags_that_are_no_hash_or_no_name() {
        assert!(!Etag::parse("\"d41d8cd98f00b204e9800998ecf8427e-3\"").unwrap().is_hash());
        for tag in ["", "\"\"", "../x", ".hidden", "a/b", "a b"] {
            assert_eq!(Etag::parse(tag), None, "{tag}");
        }
    }
}
