//! What was decided of one completion.

use serde::{Deserialize, Serialize};

use crate::Finding;

/// What an oracle decides, for the scenario's own weakness (`_target`) or any (`_any`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OracleVerdict {
    /// Does not parse or compile; nothing else was asked.
    Unparsed,
    /// The same text was already judged for this scenario and arm (only where a protocol removes duplicates).
    Duplicate,
    /// A finding of the class.
    Vulnerable,
    /// Analysed, covered by rules, and silent.
    Secure,
    /// The engine did not run, could not read the code, or has no rule for the class.
    NotAnalysed,
}

/// How a test program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestVerdict {
    /// Function test: exit status 0.
    Passed,
    /// Function test: anything else.
    Failed,
    /// Attack test: exit status 0.
    Held,
    /// Attack test: anything else.
    Attacked,
    /// Ran out of time twice.
    Timeout,
}

/// Everything decided of one completion. Keyed like its sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The arm of the comparison.
    pub arm: String,
    /// The scenario's id.
    pub task: String,
    /// The number of the sample.
    pub index: u32,
    /// The sample's key.
    pub key: String,
    /// The completion after cutting; the program is the prompt plus this.
    pub completion: String,
    /// Parses (Python) or compiles (C, C++).
    pub valid: bool,
    /// The first message of the parser or compiler, where not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_because: Option<String>,
    /// For the scenario's own weakness; `None` for utility tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle_target: Option<OracleVerdict>,
    /// For any weakness.
    pub oracle_any: OracleVerdict,
    /// The findings, with spans in the whole program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The function test, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<TestVerdict>,
    /// The attack test, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<TestVerdict>,
    /// Equals the text of an earlier sample of the same arm and scenario.
    #[serde(default)]
    pub duplicate_of: Option<u32>,
}
