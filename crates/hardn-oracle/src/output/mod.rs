//! Results for people and for programs: text, JSON Lines, SARIF.

mod jsonl;
mod sarif;
mod text;

pub use jsonl::write_jsonl;
pub(crate) use sarif::entries;
pub use sarif::write_sarif;
pub use text::{Colours, write_text};
