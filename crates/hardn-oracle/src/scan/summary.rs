//! The scan in numbers.

use std::{collections::BTreeMap, fmt};

use hardn_types::Cwe;

use super::FileResult;

/// Classes that the summary names.
const SHOWN: usize = 8;

/// What a scan came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanSummary {
    /// Files that were looked at.
    pub files: usize,
    /// Files with findings.
    pub files_with_findings: usize,
    /// Files that could not be analysed.
    pub not_analysed: usize,
    /// Findings that are reported.
    pub findings: usize,
    /// The same per class; a finding counts for its most specific one.
    pub by_class: BTreeMap<Cwe, usize>,
    /// Findings that comments suppress.
    pub suppressed: usize,
    /// Findings that the baseline holds.
    pub in_baseline: usize,
    /// Entries of the baseline that nothing was found for.
    pub stale: usize,
    /// Warnings about suppressions.
    pub suppression_warnings: usize,
    /// Files whose result came from the cache.
    pub cached: usize,
    /// How long it took.
    pub seconds: f64,
}

impl ScanSummary {
    /// Counts what results hold; what they do not say stays 0.
    pub fn of(results: &[FileResult]) -> Self {
        let mut summary = Self { files: results.len(), ..Self::default() };
        for result in results {
            let findings = &result.analysis.findings;
            summary.not_analysed += usize::from(result.analysis.not_analysed.is_some());
            summary.findings += findings.len();
            summary.files_with_findings += usize::from(!findings.is_empty());
            summary.suppressed += result.suppressed.len();
            summary.in_baseline += result.in_baseline;
            summary.suppression_warnings +=
                result.warnings.iter().filter(|warning| warning.suppression).count();
            for class in findings.iter().filter_map(|finding| finding.cwe.first()) {
                *summary.by_class.entry(*class).or_default() += 1;
            }
        }
        summary
    }
}

impl fmt::Display for ScanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |n: usize| if n == 1 { "" } else { "s" };
        write!(f, "{} finding{}", self.findings, s(self.findings))?;
        if self.findings > 0 {
            write!(f, " in {}", self.files_with_findings)?;
            let mut classes: Vec<_> = self.by_class.iter().collect();
            classes.sort_by_key(|(class, n)| (std::cmp::Reverse(**n), **class));
            let more = classes.len().saturating_sub(SHOWN);
            let mut classes: Vec<String> =
                classes.iter().take(SHOWN).map(|(class, n)| format!("{class}: {n}")).collect();
            if more > 0 {
                classes.push(format!("{more} more"));
            }
            write!(f, " of {} file{} ({})", self.files, s(self.files), classes.join(", "))?;
        } else {
            write!(f, " in {} file{}", self.files, s(self.files))?;
        }
        for (n, what) in [
            (self.not_analysed, "not analysed"),
            (self.suppressed, "suppressed"),
            (self.in_baseline, "in the baseline"),
            (self.stale, "of the baseline gone"),
            (self.cached, "from the cache"),
        ] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        write!(f, ", {:.2} s", self.seconds)
    }
}
