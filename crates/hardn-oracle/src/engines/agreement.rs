//! How often two engines say the same, counted over (file, class) units.

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::{Analysis, Cwe, family_of, is_related};
use serde::Serialize;

/// What two engines say of units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgreementCounts {
    /// Both report the class in the file.
    pub both: u64,
    /// Only the first does.
    pub only_a: u64,
    /// Only the second does.
    pub only_b: u64,
    /// Neither does.
    pub neither: u64,
}

/// Two engines side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineAgreement {
    /// Index of the first engine.
    pub a: usize,
    /// Index of the second.
    pub b: usize,
    /// Files that both analysed.
    pub n_files: u64,
    /// Counts by class; a family of classes goes under its first ([`family_of`]). Only classes that one of the two reports
    /// somewhere, and that neither is known not to look for.
    pub classes: BTreeMap<Cwe, AgreementCounts>,
}

impl EngineAgreement {
    /// The sum over classes.
    pub fn total(&self) -> AgreementCounts {
        self.classes.values().fold(AgreementCounts::default(), |sum, counts| AgreementCounts {
            both: sum.both + counts.both,
            only_a: sum.only_a + counts.only_a,
            only_b: sum.only_b + counts.only_b,
            neither: sum.neither + counts.neither,
        })
    }
}

/// Every pair of engines. `answers[engine][file]` is `None` where the engine does not read the file's language.
///
/// A unit is a file that both engines analysed and a class. An engine reports the class if a finding anywhere in the file
/// is of it or of its family. Where an engine says what it covers and the class is not among it, the unit is left out:
/// its silence is no disagreement.
pub fn engine_agreement(answers: &[Vec<Option<Analysis>>]) -> Vec<EngineAgreement> {
    let mut pairs = Vec::new();
    for a in 0..answers.len() {
        for b in a + 1..answers.len() {
            let files: Vec<(&Analysis, &Analysis)> = answers[a]
                .iter()
                .zip(&answers[b])
                .filter_map(|(one, other)| Some((one.as_ref()?, other.as_ref()?)))
                .filter(|(one, other)| one.not_analysed.is_none() && other.not_analysed.is_none())
                .collect();
            let reported: BTreeSet<Cwe> = files
                .iter()
                .flat_map(|(one, other)| [one, other])
                .flat_map(|f| reports(f))
                .collect();
            let mut classes = BTreeMap::new();
            for class in reported {
                let mut counts = AgreementCounts::default();
                for (one, other) in &files {
                    if !may_report(one, class) || !may_report(other, class) {
                        continue;
                    }
                    match (reports(one).contains(&class), reports(other).contains(&class)) {
                        (true, true) => counts.both += 1,
                        (true, false) => counts.only_a += 1,
                        (false, true) => counts.only_b += 1,
                        (false, false) => counts.neither += 1,
                    }
                }
                if counts != AgreementCounts::default() {
                    classes.insert(class, counts);
                }
            }
            pairs.push(EngineAgreement { a, b, n_files: files.len() as u64, classes });
        }
    }
    pairs
}

/// The families of classes reported in a file.
fn reports(analysis: &Analysis) -> BTreeSet<Cwe> {
    analysis.findings.iter().flat_map(|finding| &finding.cwe).map(|cwe| family_of(*cwe)).collect()
}

fn may_report(analysis: &Analysis, class: Cwe) -> bool {
    analysis.covers.is_empty()
        || analysis.covers.iter().any(|covered| is_related(class, *covered))
        || reports(analysis).contains(&class)
}

#[cfg(test)]
mod tests {
    use hardn_types::{Finding, Span};

    use super::*;

    fn said(classes: &[u16], covers: &[u16]) -> Analysis {
        let findings = classes
            .iter()
            .map(|cwe| Finding {
                engine: String::new(),
                rule: String::new(),
                cwe: vec![Cwe(*cwe)],
                span: Span { line: 1, column: 1, end_line: 1, end_column: 2 },
                message: String::new(),
                trace: Vec::new(),
            })
            .collect();
        let covers = covers.iter().map(|cwe| Cwe(*cwe)).collect();
        Analysis { language: None, findings, covers, not_analysed: None }
    }

    #[test]
    fn units_are_counted_where_both_looked() {
        let failed = Analysis::not_analysed(None, "broken");
        let a = [said(&[787], &[]), said(&[89], &[]), said(&[], &[]), said(&[787], &[])];
        let b = [said(&[125], &[119]), said(&[], &[119]), said(&[], &[119]), failed];
        // The second engine does not read the fifth file.
        let a: Vec<_> = a.into_iter().chain([said(&[], &[])]).map(Some).collect();
        let b: Vec<_> = b.into_iter().map(Some).chain([None]).collect();
        let pairs = engine_agreement(&[a, b]);
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].n_files, 3);
        // CWE-089 is none of the second engine's, so its silence is left out.
        let counts = AgreementCounts { both: 1, only_a: 0, only_b: 0, neither: 2 };
        assert_eq!(pairs[0].classes, BTreeMap::from([(Cwe(119), counts)]));
        assert_eq!(pairs[0].total(), counts);
    }
}
