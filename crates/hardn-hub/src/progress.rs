//! What a fetch tells while it runs.

use std::time::Duration;

/// An event of a fetch. Bytes count what is still to come over the network and what a partial file already holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A complete snapshot is there; the hub is not asked.
    Cached {
        /// The commit.
        commit: &'a str,
    },
    /// The hub cannot be reached; the snapshot fetched last is used.
    Stale {
        /// The commit.
        commit: &'a str,
        /// Why the hub was not reached.
        why: String,
    },
    /// What is missing is known.
    Start {
        /// Files to fetch.
        n_files: usize,
        /// Their size; files whose size the hub does not say count 0.
        bytes: u64,
        /// What partial files hold of it.
        already: u64,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file they belong to.
        file: &'a str,
        /// Of all files together.
        done: u64,
    },
    /// A file is whole; its hash is computed.
    Checking {
        /// The file.
        file: &'a str,
    },
    /// The hub gave no hash for a file: only its size was checked.
    Unverified {
        /// The file.
        file: &'a str,
    },
    /// Another process fetches the same file.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// Something failed that may pass.
    Retry {
        /// What failed.
        why: String,
        /// How long until it is tried again.
        wait: Duration,
    },
}
