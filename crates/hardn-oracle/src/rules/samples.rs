//! Rules test themselves: each sample must (or must not) be flagged by its own rule.

use hardn_types::Language;
use serde::Serialize;

use super::{
    load::{Rule, RuleSet},
    template::UNFINISHED,
};
use crate::{Mode, Oracle};

/// A sample that came out wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SampleFailure {
    /// The rule's id.
    pub rule: String,
    /// `valid` or `invalid`.
    pub kind: &'static str,
    /// The number of the sample in its list, from 0.
    pub index: usize,
    /// The mode it ran in.
    pub mode: Mode,
    /// The sample.
    pub code: String,
    /// What happened instead.
    pub message: String,
}

/// The result of running the samples of some rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleReport {
    /// Rules tested.
    pub rules: usize,
    /// Samples run.
    pub samples: usize,
    /// Those that came out wrong.
    pub failures: Vec<SampleFailure>,
}

impl RuleSet {
    /// Runs the samples of all rules, or of one.
    ///
    /// # Errors
    /// [`crate::OracleError::NoSuchRule`] where `only` names none.
    pub fn test(&self, oracle: &Oracle, only: Option<&str>) -> crate::Result<SampleReport> {
        let mut report = SampleReport::default();
        let chosen: Vec<&Rule> = match only {
            Some(id) => vec![self.show(id)?],
            None => self.list().collect(),
        };
        for rule in chosen {
            report.rules += 1;
            let file = &rule.file;
            for (mode, kind, samples) in [
                (Mode::Snippet, "valid", &file.valid),
                (Mode::Snippet, "invalid", &file.invalid),
                (Mode::Faithful, "valid", &file.faithful.valid),
                (Mode::Faithful, "invalid", &file.faithful.invalid),
            ] {
                for (index, code) in samples.iter().enumerate() {
                    report.samples += 1;
                    let analysis = oracle.analyse_by_rule(code, language_of(rule, code), mode);
                    let flagged = analysis.findings.iter().any(|finding| finding.rule == rule.id);
                    let message = match (&analysis.not_analysed, flagged, kind) {
                        _ if code.contains(UNFINISHED) => {
                            "unfinished: the template's sample still stands here".to_owned()
                        }
                        (Some(why), ..) => format!("not analysed: {why}"),
                        (None, true, "valid") => "flagged".to_owned(),
                        (None, false, "invalid") => "not flagged".to_owned(),
                        _ => continue,
                    };
                    let rule = rule.id.clone();
                    report.failures.push(SampleFailure {
                        rule,
                        kind,
                        index,
                        mode,
                        code: code.clone(),
                        message,
                    });
                }
            }
        }
        Ok(report)
    }
}

/// Rules for C read C++, too; a sample with a qualified name is C++.
fn language_of(rule: &Rule, code: &str) -> Language {
    if rule.language == Language::C && code.contains("::") { Language::Cpp } else { rule.language }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_out_as_its_rule_says() {
        let oracle = Oracle::embedded();
        let report = oracle.rules().test(&oracle, None).unwrap();
        assert!(report.samples > 100, "{} samples", report.samples);
        let lines: Vec<String> = report
            .failures
            .iter()
            .map(|failure| {
                format!(
                    "{} {}[{}] {:?}: {}\n{}",
                    failure.rule,
                    failure.kind,
                    failure.index,
                    failure.mode,
                    failure.message,
                    failure.code
                )
            })
            .collect();
        assert!(
            lines.is_empty(),
            "{} samples came out wrong:\n{}",
            lines.len(),
            lines.join("\n---\n")
        );
    }
}
