//! What a user may name: a path, or a repository of the hub.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{HubError, Result};

/// The revision that is meant where none is named.
pub(crate) const DEFAULT_REVISION: &str = "main";

/// The hub allows no longer owner or name.
const MAX_NAME: usize = 96;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A file or folder that exists.
    Local(PathBuf),
    /// A repository of the hub.
    Hub(HubName),
}

/// A repository of the hub, written `owner/name@revision:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `owner/name`.
    pub repo: String,
    /// A branch, a tag or a commit; `main` where there is none.
    pub revision: Option<String>,
    /// One file of the repository, such as a GGUF file.
    pub file: Option<String>,
}

impl ModelSource {
    /// An existing path wins; else the text must be a hub name.
    ///
    /// # Errors
    /// [`HubError::NoSuchPath`] for what looks like a path (it starts with `.`, `/` or `~`, or has several `/`)
    /// and for a single word; [`HubError::BadName`] for a hub name that cannot be one.
    pub fn parse(text: &str) -> Result<Self> {
        if Path::new(text).exists() {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        let repo = text.split([':', '@']).next().unwrap_or_default();
        let looks_like_path = text.starts_with(['.', '/', '~'])
            || text.contains('\\')
            || repo.matches('/').count() != 1
            || repo.ends_with('/');
        if looks_like_path {
            return Err(HubError::NoSuchPath { text: text.to_owned() });
        }
        HubName::parse(text).map(Self::Hub)
    }
}

impl HubName {
    /// Reads `owner/name@revision:FILE`, whatever exists on disk.
    ///
    /// # Errors
    /// [`HubError::BadName`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |message: &str| HubError::BadName {
            text: text.to_owned(),
            message: message.to_owned(),
        };
        let (head, file) = match text.split_once(':') {
            Some((head, file)) => (head, Some(file.to_owned())),
            None => (text, None),
        };
        let (repo, revision) = match head.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision.to_owned())),
            None => (head, None),
        };
        let parts: Vec<&str> = repo.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(bad("a repository is owner/name, of letters, digits, `-`, `_` and `.`"));
        }
        if revision.as_deref().is_some_and(|revision| !is_relative_path(revision)) {
            return Err(bad("after `@` comes a branch, a tag or a commit"));
        }
        if file.as_deref().is_some_and(|file| !is_relative_path(file)) {
            return Err(bad("after `:` comes a file of the repository"));
        }
        Ok(Self { repo: repo.to_owned(), revision, file })
    }

    /// The revision, `main` where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_NAME
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether a text of the user's or the hub's can become a path below a folder of ours, and never leaves it.
pub(crate) fn is_relative_path(text: &str) -> bool {
    text.len() <= 255
        && text.chars().all(|c| !c.is_control() && !" \\:*?\"<>|".contains(c))
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Whether a revision is a full commit hash: what it names can never change.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, repo: &str, revision: Option<&str>, file: Option<&str>) {
        let expected = HubName {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        };
        assert_eq!(ModelSource::parse(text).unwrap(), ModelSource::Hub(expected.clone()));
        assert_eq!(expected.to_string(), text);
    }

    #[test]
    fn names() {
        reads("bigcode/starcoder2-3b", "bigcode/starcoder2-3b", None, None);
        reads("a/b@v1.0", "a/b", Some("v1.0"), None);
        reads("a/b@refs/pr/1", "a/b", Some("refs/pr/1"), None);
        reads("a/b:q4_0.gguf", "a/b", None, Some("q4_0.gguf"));
        reads("a/b@main:sub/q.gguf", "a/b", Some("main"), Some("sub/q.gguf"));
    }

    #[test]
    fn paths_are_never_names() {
        for text in ["./a/b", "/a/b", "~/a", "a/b/c", "../a", "word", "", "a/b/", "C:\\a", "a\\b/c"]
        {
            let error = ModelSource::parse(text).unwrap_err();
            assert!(matches!(error, HubError::NoSuchPath { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_said() {
        for text in [
            "a/b@",
            "a/b:",
            "a/b@../../x",
            "a/b:../x",
            "a/b:/x",
            "a/-b",
            "a--b/c",
            "ä/b",
            "a/b@x y",
        ] {
            let error = ModelSource::parse(text).unwrap_err();
            assert!(matches!(error, HubError::BadName { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn what_exists_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str().unwrap();
        assert_eq!(ModelSource::parse(text).unwrap(), ModelSource::Local(text.into()));
        assert_eq!(
            ModelSource::parse("src/lib.rs").unwrap(),
            ModelSource::Local("src/lib.rs".into())
        );
    }
}
