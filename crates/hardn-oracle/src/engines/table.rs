//! Which class a tool's rule belongs to, for tools that do not say it themselves: `engines/*.toml`.

use std::{collections::BTreeMap, sync::OnceLock};

use hardn_types::Cwe;
use serde::Deserialize;

/// A tool's rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleTable {
    /// Classes of a rule, most specific first. A rule's name may end in `*`.
    #[serde(default)]
    rules: BTreeMap<String, Vec<Cwe>>,
    /// Classes the tool reports beside those of `rules`.
    #[serde(default)]
    covers: Vec<Cwe>,
}

macro_rules! table {
    ($name:ident, $file:literal) => {
        /// The table shipped for this tool.
        pub(crate) fn $name() -> &'static RuleTable {
            static TABLE: OnceLock<RuleTable> = OnceLock::new();
            TABLE.get_or_init(|| {
                toml::from_str(include_str!(concat!("../../../../engines/", $file)))
                    .expect("a test reads every shipped table")
            })
        }
    };
}

table!(clang_tidy, "clang-tidy.toml");
table!(eslint, "eslint.toml");
table!(bandit, "bandit.toml");

impl RuleTable {
    /// The classes of a rule; empty for a rule that is not about security.
    pub(crate) fn classes(&self, rule: &str) -> &[Cwe] {
        if let Some(classes) = self.rules.get(rule) {
            return classes;
        }
        self.rules
            .iter()
            .filter_map(|(name, classes)| Some((name.strip_suffix('*')?, classes)))
            .filter(|(prefix, _)| rule.starts_with(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(&[], |(_, classes)| classes)
    }

    /// Every rule's name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Every class, ascending.
    pub(crate) fn covers(&self) -> Vec<Cwe> {
        let mut covers: Vec<Cwe> =
            self.rules.values().flatten().chain(&self.covers).copied().collect();
        covers.sort();
        covers.dedup();
        covers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_tables_are_read() {
        for table in [clang_tidy(), eslint(), bandit()] {
            assert!(table.covers().len() > 5);
        }
        assert_eq!(eslint().classes("security/detect-child-process"), [Cwe(78)]);
        assert!(eslint().classes("semi").is_empty());
        let tidy = clang_tidy();
        assert_eq!(tidy.classes("clang-analyzer-core.NullDereference"), [Cwe(476)]);
        assert!(!tidy.classes("clang-analyzer-security.insecureAPI.strcpy").is_empty());
    }
}
