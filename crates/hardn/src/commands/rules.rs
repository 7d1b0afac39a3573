//! `hardn rules`: what the oracle looks for.

use std::{fmt::Write as _, path::Path};

use hardn_oracle::{Oracle, RuleSet};

use crate::{
    args::RulesCommand,
    failure::{FOUND, Failure, Outcome},
    output::{put, put_json},
};

pub(crate) fn run(command: RulesCommand) -> Outcome {
    match command {
        RulesCommand::List { json, rules } => list(&load(rules.as_deref())?, json),
        RulesCommand::Show { id, rules } => show(&load(rules.as_deref())?, &id),
        RulesCommand::Test { filter, rules } => test(load(rules.as_deref())?, filter.as_deref()),
    }
}

fn load(folder: Option<&Path>) -> Outcome<RuleSet> {
    Ok(match folder {
        Some(folder) => RuleSet::from_folder(folder)?,
        None => RuleSet::embedded()?,
    })
}

fn cwes(cwe: &[hardn_types::Cwe]) -> String {
    cwe.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(rules: &RuleSet, json: bool) -> Outcome {
    let mut text = String::new();
    for rule in rules.list() {
        let info = rule.info();
        if json {
            put_json(&info)?;
        } else {
            let _ = writeln!(text, "{:<40} {:<18} {}", info.id, cwes(&info.cwe), info.message);
        }
    }
    put(&text)
}

fn show(rules: &RuleSet, id: &str) -> Outcome {
    let info = rules.show(id)?.info();
    put(&format!(
        "{} ({}, {})\n\n{}\n\nHow to fix: {}\n\n{} valid and {} invalid samples\n{}\n",
        info.id,
        cwes(&info.cwe),
        info.kind,
        info.message,
        info.help,
        info.samples.0,
        info.samples.1,
        info.references.join("\n")
    ))
}

fn test(rules: RuleSet, filter: Option<&str>) -> Outcome {
    let ids: Vec<String> = rules
        .list()
        .map(|rule| rule.id.clone())
        .filter(|id| filter.is_none_or(|part| id.contains(part)))
        .collect();
    if ids.is_empty() {
        return Err(Failure::new(format!(
            "no rule's id contains `{}`",
            filter.unwrap_or_default()
        ))
        .help("`hardn rules list` shows every id"));
    }
    let oracle = Oracle::new(rules);
    let (mut samples, mut failures) = (0, 0);
    for id in &ids {
        let report = oracle.rules().test(&oracle, Some(id))?;
        samples += report.samples;
        for failure in report.failures {
            failures += 1;
            put(&format!(
                "{} {}[{}]: {}\n{}\n",
                failure.rule, failure.kind, failure.index, failure.message, failure.code
            ))?;
        }
    }
    put(&format!("{} rules, {samples} samples, {failures} failures\n", ids.len()))?;
    if failures == 0 { Ok(()) } else { Err(Failure::silent(FOUND)) }
}
