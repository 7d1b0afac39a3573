//! `hardn scan`: paths -> files -> results -> suppressions, filter and baseline -> output.

mod baseline;
mod cache;
mod files;
mod filter;
mod run;
mod summary;
mod suppress;

pub use baseline::{Baseline, fingerprints};
pub use cache::ScanCache;
pub use filter::ScanFilter;
pub use run::{FileResult, ScanOptions, ScanWarning, scan_paths, scan_text};
pub use summary::ScanSummary;
pub use suppress::{Suppressed, apply_suppressions, today};
