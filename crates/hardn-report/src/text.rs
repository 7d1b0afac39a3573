//! The report as text, for a terminal.

use std::fmt::Write as _;

use hardn_types::Role;

use crate::{
    RunFolder,
    metric::{HEADLINE, SAME_JUDGE},
};

/// The headline table, the groups and the differences, as aligned text without colours.
pub fn render_text(run: &RunFolder) -> String {
    let mut text = format!("{}\n", run.info.title);
    if run.info.lab {
        text.push_str(
            "Lab numbers: a small model in a small world, not comparable with published results.\n",
        );
    }
    let titles: Vec<&str> = run.info.arms.iter().map(|arm| arm.title.as_str()).collect();
    let width = 28;
    let title_of = |key: &str, title: &str| {
        if run.is_same_judge(key) { format!("{title} *") } else { title.to_owned() }
    };
    let mut is_marked = false;
    let column = titles.iter().map(|title| title.len()).max().unwrap_or(0).max(21) + 2;
    let _ = write!(text, "\n{:width$}", "");
    for title in &titles {
        let _ = write!(text, "{title:>column$}");
    }
    text.push('\n');
    for row in HEADLINE {
        let rates: Vec<_> = run.info.arms.iter().map(|arm| run.rate(&arm.id, row.key)).collect();
        if rates.iter().all(|rate| rate.value.is_none()) {
            continue;
        }
        is_marked |= run.is_same_judge(row.key);
        let _ = write!(text, "{:width$}", title_of(row.key, row.title));
        for rate in rates {
            let cell = match rate.value {
                Some(_) if !rate.interval().is_empty() => {
                    format!("{} [{}]", rate.percent(), rate.interval())
                }
                _ => rate.percent(),
            };
            let _ = write!(text, "{cell:>column$}");
        }
        text.push('\n');
    }
    if is_marked {
        let _ = writeln!(text, "* {SAME_JUDGE}");
    }
    let base = run.info.arms.iter().find(|arm| arm.role == Role::Base);
    let hardened = run.info.arms.iter().find(|arm| arm.role == Role::Hardened);
    if let (Some(base), Some(hardened)) = (base, hardened) {
        let _ = writeln!(text, "\n{} minus base, in points", hardened.title);
        for row in &HEADLINE {
            let difference = run.difference(&hardened.id, &base.id, row.key);
            if let Some(difference) = difference.filter(|rate| rate.value.is_some()) {
                let _ = writeln!(
                    text,
                    "{:width$}{:>8} [{}]",
                    title_of(row.key, row.title),
                    difference.percent(),
                    difference.interval()
                );
            }
        }
        let mut groups = String::new();
        for group in
            ["seen_idiom", "unseen_idiom", "seen_context", "unseen_context", "unseen_weakness"]
        {
            let before = run.group_rate(group, &base.id, "secure_pass_at_1_attack");
            let after = run.group_rate(group, &hardened.id, "secure_pass_at_1_attack");
            if before.value.is_some() {
                let _ = writeln!(
                    groups,
                    "{:width$}{:>8} -> {:>5}   ({} samples)",
                    group.replace('_', " "),
                    before.percent(),
                    after.percent(),
                    after.denominator.unwrap_or(0.0)
                );
            }
        }
        if !groups.is_empty() {
            let _ = write!(text, "\nsecure-pass@1 by attack, by group\n{groups}");
        }
    }
    for note in &run.info.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    text.push('\n');
    text
}
