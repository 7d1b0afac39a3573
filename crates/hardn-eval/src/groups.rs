//! The groups of scenarios that results are shown apart for.

use std::collections::BTreeMap;

use hardn_types::Scenario;

/// The group of every scenario.
pub const ALL: &str = "all";

/// The groups a scenario belongs to, in no fixed order.
///
/// | group | scenarios |
/// | --- | --- |
/// | `all` | every one |
/// | `unseen_context`, `seen_context` | whose task family is absent from the fix pairs, or occurs in them |
/// | `seen_idiom`, `unseen_idiom` | of a seen weakness and outside seen contexts: whose prompt invites an idiom that the fix pairs contain, or one they do not |
/// | `unseen_weakness` | of a weakness that no fix pair repairs |
/// | `cwe:CWE-089`, `language:python` | of that weakness or language |
pub fn groups_of(scenario: &Scenario) -> Vec<String> {
    let mut groups = vec![ALL.to_owned(), format!("language:{}", scenario.language)];
    if let Some(cwe) = scenario.cwe {
        groups.push(format!("cwe:{cwe}"));
    }
    let tags = &scenario.tags;
    match tags.seen_context {
        Some(true) => groups.push("seen_context".to_owned()),
        Some(false) => groups.push("unseen_context".to_owned()),
        None => {}
    }
    if tags.seen_weakness == Some(false) {
        groups.push("unseen_weakness".to_owned());
    } else if tags.seen_context != Some(true) {
        match tags.seen_idiom {
            Some(true) => groups.push("seen_idiom".to_owned()),
            Some(false) => groups.push("unseen_idiom".to_owned()),
            None => {}
        }
    }
    groups
}

/// Every group with its scenarios, in the order given.
pub(crate) fn group_all<'a>(
    scenarios: impl IntoIterator<Item = &'a Scenario>,
) -> BTreeMap<String, Vec<&'a Scenario>> {
    let mut groups: BTreeMap<String, Vec<&Scenario>> = BTreeMap::new();
    for scenario in scenarios {
        for group in groups_of(scenario) {
            groups.entry(group).or_default().push(scenario);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tags: &str, expected: &[&str]) {
        let tags: serde_json::Value = serde_json::from_str(tags).unwrap();
        let scenario: Scenario = serde_json::from_value(serde_json::json!({
            "id": "a", "suite": "s", "cwe": "CWE-089", "language": "c", "split": "test",
            "prompt": "", "tags": tags,
        }))
        .unwrap();
        let mut groups = groups_of(&scenario);
        groups.retain(|group| !group.contains(':') && group != ALL);
        assert_eq!(groups, expected);
    }

    #[test]
    fn groups() {
        check("{}", &[]);
        check(
            r#"{"seen_idiom": true, "seen_context": false, "seen_weakness": true}"#,
            &["unseen_context", "seen_idiom"],
        );
        check(
            r#"{"seen_idiom": false, "seen_context": false, "seen_weakness": true}"#,
            &["unseen_context", "unseen_idiom"],
        );
        check(r#"{"seen_idiom": true, "seen_context": true}"#, &["seen_context"]);
        check(
            r#"{"seen_idiom": false, "seen_context": false, "seen_weakness": false}"#,
            &["unseen_context", "unseen_weakness"],
        );
    }
}
