//! Run folders to tables, figures and HTML.
//!
//! Reads only files (`run.json`, `metrics.json`, `suite.jsonl`, `samples.jsonl`, `verdicts.jsonl`); knows no other room.

mod browser;
mod error;
mod metric;
mod page;
mod plot;
mod run_folder;
mod sweep;
mod text;

pub use error::ReportError;
pub use metric::{HEADLINE, MetricRow, Rate};
pub use page::{ReportOptions, render_html, write_report};
pub use run_folder::RunFolder;
pub use sweep::{SweepRow, render_sweep};
pub use text::render_text;
