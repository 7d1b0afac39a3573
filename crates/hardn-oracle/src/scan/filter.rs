//! Which findings somebody wants to see.

use hardn_types::Cwe;

use super::FileResult;
use crate::rules::glob;

/// Classes and rules; an empty list is no condition.
#[derive(Clone, Debug, Default)]
pub struct ScanFilter {
    /// Findings of one of these classes.
    pub cwe: Vec<Cwe>,
    /// Findings of rules whose id, with or without the language, matches one of these; `*` is any run of characters.
    pub rules: Vec<String>,
}

impl ScanFilter {
    /// Whether a finding of this rule and of these classes is wanted.
    pub fn accepts(&self, rule: &str, cwe: &[Cwe]) -> bool {
        let name = rule.split_once('/').map_or(rule, |(_, name)| name);
        (self.cwe.is_empty() || cwe.iter().any(|class| self.cwe.contains(class)))
            && (self.rules.is_empty()
                || self.rules.iter().any(|wanted| glob(wanted, rule) || glob(wanted, name)))
    }

    /// Takes away what is not wanted.
    pub fn apply(&self, results: &mut [FileResult]) {
        for result in results {
            result.analysis.findings.retain(|finding| self.accepts(&finding.rule, &finding.cwe));
            result.suppressed.retain(|gone| self.accepts(&gone.finding.rule, &gone.finding.cwe));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_rules_are_both_asked_for() {
        let rule = "python/cwe-089-sql-injection";
        let check = |cwe: &[u16], rules: &[&str], expected| {
            let filter = ScanFilter {
                cwe: cwe.iter().copied().map(Cwe).collect(),
                rules: rules.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(filter.accepts(rule, &[Cwe(89), Cwe(943)]), expected, "{filter:?}");
        };
        check(&[], &[], true);
        check(&[78, 943], &[], true);
        check(&[78], &[], false);
        check(&[89], &["python/*"], true);
        check(&[89], &["go/*"], false);
        check(&[], &["cwe-089*"], true);
    }
}
