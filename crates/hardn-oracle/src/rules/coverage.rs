//! Rules against published lists of weaknesses, per language.
//!
//! A class counts as covered where a rule names it, or names one of its direct children in CWE's research view (1000);
//! the two are told apart.

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::{Cwe, Language};
use serde::Serialize;

use super::{
    coverage_lists::{LISTS, NAMES, PARENTS},
    load::RuleSet,
};

/// All lists.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// The languages, in the order of the tables.
    pub languages: Vec<Language>,
    /// One per published list.
    pub lists: Vec<CoverageList>,
}

/// One published list.
#[derive(Clone, Debug, Serialize)]
pub struct CoverageList {
    /// Its name and year.
    pub name: &'static str,
    /// Where it is published.
    pub source: &'static str,
    /// Its rows, in its order.
    pub rows: Vec<CoverageRow>,
}

/// One row of a list: a class, or a category of classes.
#[derive(Clone, Debug, Serialize)]
pub struct CoverageRow {
    /// Its rank or id.
    pub id: String,
    /// Its name.
    pub name: &'static str,
    /// The classes in it.
    pub classes: Vec<Cwe>,
    /// Per language.
    pub languages: BTreeMap<Language, CoverageCell>,
    /// Classes that no rule of any language covers.
    pub uncovered: Vec<Cwe>,
}

/// The classes of a row that rules of one language cover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoverageCell {
    /// Classes that a rule names.
    pub named: Vec<Cwe>,
    /// Classes of which rules name only children, and these.
    pub by_child: BTreeMap<Cwe, Vec<Cwe>>,
}

impl CoverageCell {
    /// Number of classes covered either way.
    pub fn covered(&self) -> usize {
        self.named.len() + self.by_child.len()
    }
}

impl Coverage {
    /// Holds the rules against every list.
    pub fn of(rules: &RuleSet) -> Self {
        let languages = Language::ALL.to_vec();
        let mut named: BTreeMap<Language, BTreeSet<Cwe>> = BTreeMap::new();
        for language in &languages {
            let of_language = rules.list().filter(|rule| rule.applies_to(*language));
            named.insert(*language, of_language.flat_map(|rule| rule.info().cwe).collect());
        }
        let lists = LISTS
            .iter()
            .map(|list| {
                let rows = list.rows.iter().map(|(id, name, classes)| {
                    row(id, name, classes.iter().copied().map(Cwe).collect(), &named)
                });
                CoverageList { name: list.name, source: list.source, rows: rows.collect() }
            })
            .collect();
        Self { languages, lists }
    }
}

fn row(
    id: &str,
    name: &'static str,
    classes: Vec<Cwe>,
    named: &BTreeMap<Language, BTreeSet<Cwe>>,
) -> CoverageRow {
    let cell = |known: &BTreeSet<Cwe>| {
        let mut cell = CoverageCell::default();
        for class in &classes {
            if known.contains(class) {
                cell.named.push(*class);
                continue;
            }
            let children: Vec<Cwe> =
                known.iter().copied().filter(|child| is_child(*child, *class)).collect();
            if !children.is_empty() {
                cell.by_child.insert(*class, children);
            }
        }
        cell
    };
    let languages: BTreeMap<Language, CoverageCell> =
        named.iter().map(|(language, known)| (*language, cell(known))).collect();
    let covers = |class: &Cwe| {
        languages
            .values()
            .any(|cell| cell.named.contains(class) || cell.by_child.contains_key(class))
    };
    let uncovered = classes.iter().copied().filter(|class| !covers(class)).collect();
    let name = if name.is_empty() { class_name(classes[0]) } else { name };
    CoverageRow { id: id.to_owned(), name, classes, languages, uncovered }
}

fn is_child(child: Cwe, parent: Cwe) -> bool {
    PARENTS.iter().any(|(known, parents)| *known == child.0 && parents.contains(&parent.0))
}

fn class_name(class: Cwe) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == class.0).map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_whole_and_cells_say_how_a_class_is_covered() {
        let coverage = Coverage::of(&RuleSet::embedded().unwrap());
        let sizes: Vec<usize> = coverage.lists.iter().map(|list| list.rows.len()).collect();
        assert_eq!(sizes, [25, 25, 10, 10]);
        for list in &coverage.lists {
            let classes: Vec<Cwe> = list.rows.iter().flat_map(|row| row.classes.clone()).collect();
            let different: BTreeSet<&Cwe> = classes.iter().collect();
            assert_eq!(different.len(), classes.len(), "{}: a class stands twice", list.name);
            assert!(list.rows.iter().all(|row| !row.name.is_empty()), "{}", list.name);
        }
        let row = |class: u16| {
            coverage.lists[1].rows.iter().find(|row| row.classes == [Cwe(class)]).unwrap()
        };
        assert_eq!(row(89).languages[&Language::Python].named, [Cwe(89)]);
        assert_eq!(row(862).uncovered, [Cwe(862)]);
        let authentication = &row(287).languages[&Language::Python];
        assert!(authentication.named.is_empty());
        assert_eq!(authentication.by_child[&Cwe(287)], [Cwe(295)]);
    }
}
