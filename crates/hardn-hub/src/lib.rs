//! Models by name: from a hub into the cache that Python's tools share.
//!
//! [`ModelSource`] tells a path from a hub name, [`resolve`] gives the path to load from. The cache has
//! `huggingface_hub`'s layout (`models--owner--name/{blobs,refs,snapshots}`), so what either fetched serves both.
//!
//! A file's bytes go to `blobs/HASH.incomplete`, are continued there after a dropped connection or a kill, and are
//! given the blob's name only when their hash is the one the hub promised. A snapshot counts as complete when
//! every file chosen for it is there. No code of a repository is ever fetched.
//!
//! The `hf-hub` crate is not used: version 1.0 starts a broken transfer anew, checks neither hash nor size, and
//! brings an asynchronous runtime; version 0.5 continues transfers, but checks no hash either.

#![forbid(unsafe_code)]

mod cache;
mod client;
mod digest;
mod error;
mod options;
mod progress;
mod resolve;
mod select;
mod source;
mod transfer;

pub use error::{HubError, Result};
pub use options::{HubOptions, Token};
pub use progress::Progress;
pub use resolve::{CachedFile, Origin, Resolved, resolve};
pub use source::{HubName, ModelSource};
