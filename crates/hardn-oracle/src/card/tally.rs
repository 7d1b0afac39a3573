//! Counts and what follows from them.

use serde::{Serialize, Serializer};

/// Expected against found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) tp: u32,
    pub(super) fp: u32,
    pub(super) fn_: u32,
    pub(super) tn: u32,
    /// Those of the false positives that lie in no labelled unit.
    pub(super) outside: u32,
}

impl Tally {
    pub(super) fn add(&mut self, expected: bool, found: bool) {
        match (expected, found) {
            (true, true) => self.tp += 1,
            (false, true) => self.fp += 1,
            (true, false) => self.fn_ += 1,
            (false, false) => self.tn += 1,
        }
    }

    pub(super) fn positives(&self) -> u32 {
        self.tp + self.fn_
    }

    pub(super) fn f1(&self) -> f64 {
        let below = 2 * self.tp + self.fp + self.fn_;
        f64::from(2 * self.tp) / f64::from(below.max(1))
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Score::from(*self).serialize(serializer)
    }
}

/// Precision, recall and F1 with their counts; a rate over nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Score {
    pub positives: u32,
    pub negatives: u32,
    pub tp: u32,
    pub fp: u32,
    #[serde(rename = "fn")]
    pub fn_: u32,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
}

impl From<Tally> for Score {
    fn from(tally: Tally) -> Self {
        let rate = |over: u32| (over > 0).then(|| f64::from(tally.tp) / f64::from(over));
        Self {
            positives: tally.positives(),
            negatives: tally.tn + tally.fp - tally.outside,
            tp: tally.tp,
            fp: tally.fp,
            fn_: tally.fn_,
            precision: rate(tally.tp + tally.fp),
            recall: rate(tally.positives()),
            f1: (tally.positives() > 0).then(|| tally.f1()),
        }
    }
}
