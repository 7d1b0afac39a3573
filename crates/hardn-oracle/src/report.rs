//! What the analyses hand over: alerts with byte ranges.

use crate::ir::Range;

/// One alert of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    /// The rule's number in the language's index.
    pub(crate) rule: usize,
    pub(crate) range: Range,
    /// What makes this place special, such as the name of a variable.
    pub(crate) detail: Option<String>,
    /// From source to sink.
    pub(crate) trace: Vec<(Range, String)>,
}

/// Alerts in the order they were found; the same place may come several times.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) alerts: Vec<Alert>,
}
