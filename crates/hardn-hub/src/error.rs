//! What can go wrong between a name and a folder, and what to do then.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The crate's result.
pub type Result<T, E = HubError> = std::result::Result<T, E>;

/// A name that leads to no model.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HubError {
    #[error("there is no file or folder `{text}`")]
    NoSuchPath { text: String },
    #[error("`{text}` is no hub name: {message}")]
    BadName { text: String, message: String },
    #[error("cannot reach {url}: {message}")]
    Unreachable { url: String, message: String, may_pass: bool },
    #[error("{url} answered {status}{}", colon(message))]
    Status { url: String, status: u16, message: String },
    #[error("{url} answered what a hub does not: {message}")]
    Answer { url: String, message: String },
    #[error("{endpoint} has no repository `{repo}`, or it is private")]
    NoRepository { endpoint: String, repo: String },
    #[error("repository `{repo}` has no revision `{revision}` at {endpoint}")]
    NoRevision { endpoint: String, repo: String, revision: String },
    #[error("repository `{repo}`, revision `{revision}`, has no file `{file}`")]
    NoFile { repo: String, revision: String, file: String, others: Vec<String> },
    #[error("{endpoint} does not give `{repo}` to you ({status}){}", colon(message))]
    Forbidden {
        endpoint: String,
        repo: String,
        status: u16,
        gated: bool,
        has_token: bool,
        message: String,
    },
    #[error("repository `{repo}`, revision `{revision}`, holds no weights that can be read")]
    NoWeights { repo: String, revision: String, others: Vec<String> },
    #[error("the transfer of {file} broke off at byte {done}{}: {message}", of(*size))]
    BrokeOff { file: String, done: u64, size: Option<u64>, message: String },
    #[error("{file} arrived with the wrong hash: {found} instead of {expected}")]
    WrongHash { file: String, expected: String, found: String },
    #[error("{file} arrived with {found} bytes instead of {expected}")]
    WrongSize { file: String, expected: u64, found: u64 },
    #[error(
        "`{repo}`, revision `{revision}`, is not complete in {}, and the hub may not be asked: {}",
        cache.display(), missing.join(", ")
    )]
    NotCached { repo: String, revision: String, cache: PathBuf, missing: Vec<String> },
    #[error("{}, which `{repo}` needs, is broken: {message}", path.display())]
    Index { repo: String, path: PathBuf, message: String },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{needed} bytes are still to be fetched, and {} has room for {free}", path.display())]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error("stopped")]
    Stopped,
}

impl HubError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { may_pass, .. } => *may_pass,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            Self::BrokeOff { .. } => true,
            _ => false,
        }
    }

    /// What to do next.
    pub fn help(&self) -> Option<String> {
        let keep = "what has arrived is kept: run the same command to go on";
        Some(match self {
            Self::NoSuchPath { .. } | Self::BadName { .. } => {
                "give an existing path, or a hub name: owner/name, owner/name@revision, owner/name:FILE.gguf"
                    .to_owned()
            }
            Self::Unreachable { .. } => "look at the network, HF_ENDPOINT and the proxy variables; \
                HF_HUB_OFFLINE=1 uses only what is cached; a folder is given as ./FOLDER"
                .to_owned(),
            Self::Status { status: 429, .. } => {
                format!("the hub asks for patience, and for HF_TOKEN less of it; {keep}")
            }
            Self::Status { .. } => format!("try again later; {keep}"),
            Self::Answer { .. } => "is HF_ENDPOINT a hub's address?".to_owned(),
            Self::NoRepository { .. } => {
                "check the spelling; set HF_TOKEN if it is private; a folder is given as ./FOLDER".to_owned()
            }
            Self::NoRevision { .. } => {
                "name a branch, a tag or a full commit hash of the repository".to_owned()
            }
            Self::NoFile { others, .. } | Self::NoWeights { others, .. } if others.is_empty() => {
                return None;
            }
            Self::NoFile { repo, others, .. } => {
                format!("`{repo}` has {}", others.join(", "))
            }
            Self::NoWeights { repo, others, .. } => format!(
                "choose one of its GGUF files, as {}",
                others.iter().map(|file| format!("{repo}:{file}")).collect::<Vec<_>>().join(" or ")
            ),
            Self::Forbidden { endpoint, repo, gated: true, .. } => format!(
                "the repository is gated: accept its terms at {endpoint}/{repo}, then set HF_TOKEN to a token \
                 that may read it"
            ),
            Self::Forbidden { has_token: true, .. } => {
                "HF_TOKEN (or the stored token) was sent: is it still valid, and may it read the repository?"
                    .to_owned()
            }
            Self::Forbidden { .. } => "set HF_TOKEN to a token that may read it".to_owned(),
            Self::WrongHash { .. } | Self::WrongSize { .. } => {
                "the file was thrown away; try again, and if it stays so, the hub or a proxy on the way is broken"
                    .to_owned()
            }
            Self::NotCached { repo, revision, .. } => format!(
                "unset HF_HUB_OFFLINE, or run `hardn fetch model {repo}@{revision}` where there is a network"
            ),
            Self::Index { .. } => "the repository itself is at fault: try another revision".to_owned(),
            Self::Read { .. } => return None,
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => format!(
                "free some space, or set HF_HOME to a folder on another disk; {keep}"
            ),
            Self::Write { .. } => "set HF_HOME to a folder that can be written".to_owned(),
            Self::NoRoom { .. } => {
                "free some space, or set HF_HOME to a folder on another disk".to_owned()
            }
            Self::BrokeOff { .. } | Self::Stopped => keep.to_owned(),
        })
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn of(size: Option<u64>) -> String {
    size.map(|size| format!(" of {size}")).unwrap_or_default()
}
