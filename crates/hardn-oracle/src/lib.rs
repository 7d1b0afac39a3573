//! Embedded security analyser: code in, findings out; rules are data.
//!
//! A grammar's tree is lowered to one small common form; two analyses run over it: `flow` (taint, constants, patterns)
//! and, for C and C++, `memory` (sizes, ranges, null and freed states). Rules say what to look for.

mod engine;
mod error;
mod flow;
mod head;
mod ir;
mod lower;
mod memory;
mod output;
mod position;
mod report;
mod rules;
mod scan;
mod walk;

pub use engine::{ENGINE, Mode, Oracle};
pub use error::{OracleError, Result};

pub use output::{Colours, write_jsonl, write_sarif, write_text};
pub use rules::{Rule, RuleInfo, RuleSet, SampleFailure, SampleReport};
pub use scan::{FileResult, ScanOptions, scan_paths, scan_text};
