//! `hardn rules`: what the oracle looks for.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use hardn_oracle::{Coverage, ModelReport, Oracle, RuleSet, new_rule, oracle_card};
use hardn_types::{Cwe, Language};
use serde_json::json;

use crate::{
    args::{NewRuleKind, RulesCommand},
    failure::{FOUND, Failure, Outcome},
    output::{Progress, put, put_json, put_to, say},
};

pub(crate) fn run(command: RulesCommand, quiet: bool) -> Outcome {
    match command {
        RulesCommand::List { language, cwe, json, rules } => {
            list(&load(rules.as_deref(), &[])?, language, &cwe, json)
        }
        RulesCommand::Show { id, json, rules } => show(&load(rules.as_deref(), &[])?, &id, json),
        RulesCommand::Test { filter, json, rules } => {
            test(load(rules.as_deref(), &[])?, filter.as_deref(), json)
        }
        RulesCommand::New { language, cwe, slug, kind, rules, json } => {
            new(&rules, language, cwe, &slug, kind, json)
        }
        RulesCommand::Coverage { json, markdown, rules } => {
            let coverage = Coverage::of(&load(rules.as_deref(), &[])?);
            if json { put_json(&coverage) } else { put(&coverage_table(&coverage, markdown)) }
        }
        RulesCommand::Models { paths, json, rules } => {
            let (_, report) = read_rules(rules.as_deref())?.with_models(&paths)?;
            if json { put_json(&report) } else { put(&model_text(&report)) }
        }
        RulesCommand::Card { corpus, out, json, rules } => {
            card(load(rules.as_deref(), &[])?, &corpus, out.as_deref(), json, quiet)
        }
    }
}

fn read_rules(folder: Option<&Path>) -> Outcome<RuleSet> {
    Ok(match folder {
        Some(folder) => RuleSet::from_folder(folder)?,
        None => RuleSet::embedded()?,
    })
}

/// The shipped rules or a folder's, with rows of model tables added.
pub(crate) fn load(folder: Option<&Path>, models: &[PathBuf]) -> Outcome<RuleSet> {
    let rules = read_rules(folder)?;
    if models.is_empty() {
        return Ok(rules);
    }
    let (rules, report) = rules.with_models(models)?;
    let left: usize = report.left_out.values().map(Vec::len).sum();
    if left > 0 {
        say(&format!(
            "{left} of {} model rows are not used; `hardn rules models` says which and why",
            report.rows
        ));
    }
    Ok(rules)
}

fn cwes(cwe: &[Cwe]) -> String {
    cwe.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(rules: &RuleSet, language: Option<Language>, cwe: &[Cwe], json: bool) -> Outcome {
    let mut text = String::new();
    for rule in rules.list() {
        let info = rule.info();
        let wanted = language.is_none_or(|language| rule.applies_to(language))
            && (cwe.is_empty() || info.cwe.iter().any(|class| cwe.contains(class)));
        if !wanted {
            continue;
        }
        if json {
            put_json(&info)?;
        } else {
            let _ = writeln!(text, "{:<40} {:<18} {}", info.id, cwes(&info.cwe), info.message);
        }
    }
    put(&text)
}

fn show(rules: &RuleSet, id: &str, json: bool) -> Outcome {
    let details = rules.show(id)?.details();
    if json {
        return put_json(&details);
    }
    let info = &details.info;
    let mut text = format!(
        "{} ({}, {})\n\n{}\n\nHow to fix: {}\n",
        info.id,
        cwes(&info.cwe),
        info.kind,
        info.message,
        info.help,
    );
    for (title, lines) in [
        ("Own sources", &details.sources),
        ("What it flags", &details.flags),
        ("What makes it clean", &details.cleans),
        ("To read on", &info.references),
    ] {
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}:\n  {}\n", lines.join("\n  "));
        }
    }
    for sample in &details.code {
        let what = if sample.invalid { "is flagged" } else { "is not flagged" };
        let code = sample.code.trim_end().replace('\n', "\n    ");
        let _ = write!(text, "\nThis {what} ({} mode):\n\n    {code}\n", sample.mode);
    }
    put(&text)
}

fn test(rules: RuleSet, filter: Option<&str>, json: bool) -> Outcome {
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
            if json {
                put_json(&failure)?;
                continue;
            }
            put(&format!(
                "{} {}[{}]: {}\n{}\n",
                failure.rule, failure.kind, failure.index, failure.message, failure.code
            ))?;
        }
    }
    if json {
        put_json(&json!({"rules": ids.len(), "samples": samples, "failures": failures}))?;
    } else {
        put(&format!("{} rules, {samples} samples, {failures} failures\n", ids.len()))?;
    }
    if failures == 0 { Ok(()) } else { Err(Failure::silent(FOUND)) }
}

fn new(
    root: &Path,
    language: Language,
    cwe: Cwe,
    slug: &str,
    kind: NewRuleKind,
    json: bool,
) -> Outcome {
    let flow = matches!(kind, NewRuleKind::Flow);
    let (path, id) = new_rule(root, language, cwe, slug, flow)?;
    if json {
        return put_json(&json!({"id": id, "path": path}));
    }
    put(&format!(
        "{}\nFill it in, then run: hardn rules test --rules {} {id}\n",
        path.display(),
        root.display()
    ))
}

fn coverage_table(coverage: &Coverage, markdown: bool) -> String {
    let mut text = String::from(
        "A class counts where a rule names it; `child`, or the number after a plus, where rules name only direct children.\n",
    );
    for list in &coverage.lists {
        let head = if markdown { "## " } else { "" };
        let _ = write!(text, "\n{head}{}\n{}\n\n", list.name, list.source);
        let mut rows = vec![vec![String::new(), String::new()]];
        rows[0].extend(coverage.languages.iter().map(ToString::to_string));
        for row in &list.rows {
            let single = row.classes.len() == 1;
            let id = if single { format!("{} {}", row.id, row.classes[0]) } else { row.id.clone() };
            let mut line = vec![id, row.name.to_owned()];
            for language in &coverage.languages {
                let cell = row.languages.get(language).cloned().unwrap_or_default();
                line.push(match (cell.named.len(), cell.by_child.len(), row.classes.len()) {
                    (0, 0, _) => "-".to_owned(),
                    (_, 0, 1) => "rule".to_owned(),
                    (0, _, 1) => "child".to_owned(),
                    (named, 0, all) => format!("{named}/{all}"),
                    (named, children, all) => format!("{named}+{children}/{all}"),
                });
            }
            rows.push(line);
        }
        text.push_str(&table(&rows, markdown));
        let nowhere = list.rows.iter().filter(|row| !row.uncovered.is_empty());
        let nowhere: Vec<String> = nowhere
            .map(|row| {
                if row.classes.len() == 1 {
                    format!("{} {}", cwes(&row.classes), row.name)
                } else {
                    format!(
                        "{} ({} of {}): {}",
                        row.id,
                        row.uncovered.len(),
                        row.classes.len(),
                        cwes(&row.uncovered)
                    )
                }
            })
            .collect();
        if !nowhere.is_empty() {
            let bullet = if markdown { "\n- " } else { "\n  " };
            let _ = writeln!(text, "\nNo rule in any language:\n{bullet}{}", nowhere.join(bullet));
        }
    }
    text
}

fn table(rows: &[Vec<String>], markdown: bool) -> String {
    let mut text = String::new();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    for (number, row) in rows.iter().enumerate() {
        if markdown {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
            }
        } else {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
    }
    text
}

fn model_text(report: &ModelReport) -> String {
    let left: usize = report.left_out.values().map(Vec::len).sum();
    let mut text = String::new();
    for line in &report.understood {
        let _ = writeln!(text, "{line}");
    }
    for (why, rows) in &report.left_out {
        let _ = writeln!(text, "\nnot used ({}): {why}\n  {}", rows.len(), rows.join("\n  "));
    }
    if !report.approximated.is_empty() {
        text.push('\n');
    }
    for (why, n) in &report.approximated {
        let _ = writeln!(text, "approximated ({n}): {why}");
    }
    let used = report.rows - left;
    let _ = writeln!(
        text,
        "\n{} rows in {} file(s): {used} used, {left} not used",
        report.rows, report.files
    );
    text
}

fn card(rules: RuleSet, corpus: &Path, out: Option<&Path>, json: bool, quiet: bool) -> Outcome {
    let oracle = Oracle::new(rules);
    let bar: Mutex<Option<Progress>> = Mutex::new(None);
    let watch = |done: usize, total: usize| {
        if let Ok(mut bar) = bar.try_lock() {
            let bar =
                bar.get_or_insert_with(|| Progress::new("card", "records", total as u64, quiet));
            bar.set(done as u64, "");
        }
    };
    let card = oracle_card(&oracle, corpus, &watch)?;
    if let Ok(Some(bar)) = bar.into_inner() {
        bar.clear();
    }
    // The folder's place on this machine is nobody's business.
    let name = corpus.file_name().map_or_else(|| "DIR".into(), |name| name.to_string_lossy());
    let to = out.map(|out| format!(" --out {}", out.display())).unwrap_or_default();
    let text = card.markdown(&format!("hardn rules card --corpus {name}{to}"));
    if let Some(path) = out {
        put_to(Some(path), &text)?;
        let numbers = format!("{}\n", serde_json::to_string_pretty(&card)?);
        put_to(Some(&path.with_extension("json")), &numbers)?;
    }
    match (json, out) {
        (true, _) => put_json(&card),
        (false, None) => put(&text),
        (false, Some(path)) => {
            say(&format!("{} and its .json are written", path.display()));
            Ok(())
        }
    }
}
