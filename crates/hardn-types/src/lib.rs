//! Plain data shared by the rooms of hardn, and the three traits that join them.
//!
//! Nothing here computes anything: a type lives here when two rooms must agree on it.

mod cwe;
mod finding;
mod fix_pair;
mod jsonl;
mod language;
mod number;
mod relation;
mod run;
mod sample;
mod scenario;
pub mod testing;
mod traits;
mod verdict;

pub use cwe::{Cwe, CweError};
pub use finding::{Analysis, Finding, Span, TraceStep};
pub use fix_pair::{Changes, CharChange, FixPair, LineChange, Side};
pub use jsonl::{JsonlError, append_jsonl, read_jsonl, write_atomic, write_jsonl};
pub use language::{Language, LanguageError};
pub use number::toml_number;
pub use relation::{family_of, is_related};
pub use run::{Arm, DataSource, LossPoint, Role, RunInfo, Training};
pub use sample::{FinishReason, Sample};
pub use scenario::{CutRule, Label, Scenario, Solution, Split, Tags};
pub use traits::{BoxError, Evaluator, Generator, Judge, Piece, Prompt};
pub use verdict::{OracleVerdict, TestVerdict, Verdict};
