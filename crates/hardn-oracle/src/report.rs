//! What the analyses hand over: alerts with byte ranges. And how much work a file is worth.

use crate::ir::Range;

/// Steps that any file is worth, and more for each of its bytes: ordinary code takes a hundredth of that. A step is one
/// evaluation of an expression or of a test. What tests within tests need grows with a power of their nesting.
const STEPS: u64 = 500_000;
const STEPS_PER_BYTE: u64 = 500;
const MOST_STEPS: u64 = 100_000_000;

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
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) alerts: Vec<Alert>,
    steps_left: u64,
    exhausted: bool,
}

impl Report {
    /// For a file of this many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let steps_left = (STEPS + STEPS_PER_BYTE * bytes as u64).min(MOST_STEPS);
        Self { alerts: Vec::new(), steps_left, exhausted: false }
    }

    /// Counts a step; `false` once there were too many, and then what was found says nothing.
    pub(crate) fn step(&mut self) -> bool {
        match self.steps_left.checked_sub(1) {
            Some(left) => self.steps_left = left,
            None => self.exhausted = true,
        }
        !self.exhausted
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}
