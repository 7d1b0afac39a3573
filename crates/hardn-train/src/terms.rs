//! Losses of a step by what they are of, for reports.

use std::collections::BTreeMap;

/// Sums of reduced losses, by term: `utility` and `secure` (likelihood), `vulnerable` (unlikelihood, or likelihood
/// where the loss has no unlikelihood), `kl`, `contrastive`; of pairs `dpo` or `simpo`, and `margin`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    sums: BTreeMap<&'static str, (f64, f64)>,
    /// The weighted sum that is minimised.
    pub(crate) loss: f64,
}

impl Terms {
    /// Adds a sum over `count` examples.
    pub(crate) fn add(&mut self, term: &'static str, sum: f64, count: f64) {
        let entry = self.sums.entry(term).or_default();
        entry.0 += sum;
        entry.1 += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (term, (sum, count)) in &other.sums {
            self.add(term, *sum, *count);
        }
        self.loss += other.loss;
    }

    /// Mean reduced loss per example, by term.
    pub(crate) fn means(&self) -> BTreeMap<String, f64> {
        self.sums.iter().map(|(term, (sum, n))| ((*term).to_owned(), sum / n)).collect()
    }
}
