//! Results for people and for programs: text, JSON Lines, SARIF.

mod jsonl;
mod sarif;
mod text;

pub use jsonl::write_jsonl;
pub use sarif::write_sarif;
pub(crate) use sarif::{result_of, uri};
pub use text::{Colours, write_text};
