//! Comments that suppress findings: `hardn: ignore[cwe-089] reason="..." until=2027-01-31`.
//!
//! A comment at the end of a line is about that line; one that stands alone is about the next line of code. Every
//! suppression needs a reason. One that is out of date, says too little or suppresses nothing is itself reported.

use std::sync::LazyLock;

use hardn_types::{Cwe, Finding};
use rayon::prelude::*;
use regex::Regex;

use super::{FileResult, ScanWarning};
use crate::lower;

static DIRECTIVE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"hardn:[ \t]*ignore\b(?:[ \t]*\[([^\]\n]*)\])?([^\n]*)").expect("a constant")
});
static REASON: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\breason\s*=\s*(?:"([^"]*)"|'([^']*)')"#).expect("a constant"));
static UNTIL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\buntil\s*=\s*"?([^\s"]*)"#).expect("a constant"));

/// A finding that a comment suppresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// What was found.
    pub finding: Finding,
    /// The reason the comment gives.
    pub reason: String,
}

/// A comment that suppresses.
struct Directive {
    /// The line it stands in, from 1.
    line: u32,
    /// The line it is about.
    about: u32,
    ids: Vec<String>,
    reason: String,
    until: Option<String>,
}

/// Takes suppressed findings out of results and adds warnings; `today` is a date such as 2026-11-21.
pub fn apply_suppressions(results: &mut [FileResult], today: &str) {
    results.par_iter_mut().filter(|result| may_suppress(&result.code)).for_each(|result| {
        suppress(result, today);
    });
}

/// Whether it is worth looking at the comments.
pub(super) fn may_suppress(code: &str) -> bool {
    code.contains("hardn:")
}

/// The date in UTC.
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(since.map_or(0, |since| since.as_secs() / 86_400))
}

/// The date of a day after 1970-01-01, in the Gregorian calendar.
///
/// # Source
/// Hinnant, chrono-compatible low-level date algorithms, `civil_from_days`.
fn date(day: u64) -> String {
    let shifted = day + 719_468; // days since 0000-03-01
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |at: usize, length: usize| {
        parts.get(at).filter(|part| part.len() == length).and_then(|part| part.parse::<u32>().ok())
    };
    parts.len() == 3
        && number(0, 4).is_some()
        && number(1, 2).is_some_and(|month| (1..=12).contains(&month))
        && number(2, 2).is_some_and(|day| (1..=31).contains(&day))
}

fn suppress(result: &mut FileResult, today: &str) {
    if result.analysis.not_analysed.is_some() {
        return;
    }
    for directive in directives(result) {
        let ids = directive.ids.join(", ");
        let mut warn = |message: String| {
            let line = Some(directive.line);
            result.warnings.push(ScanWarning { line, suppression: true, message });
        };
        if directive.ids.is_empty() {
            warn("the suppression names no class or rule: write `hardn: ignore[cwe-089] reason=\"...\"`".to_owned());
            continue;
        }
        if directive.reason.is_empty() {
            warn(format!(
                "the suppression of {ids} gives no reason and does nothing: add `reason=\"...\"`"
            ));
            continue;
        }
        match &directive.until {
            Some(until) if !is_date(until) => {
                warn(format!(
                    "the suppression of {ids} ends at `{until}`, which is no date and does nothing: write `until=2027-01-31`"
                ));
                continue;
            }
            Some(until) if until.as_str() < today => {
                warn(format!("the suppression of {ids} expired on {until}"));
                continue;
            }
            _ => {}
        }
        let (gone, stays): (Vec<Finding>, Vec<Finding>) =
            std::mem::take(&mut result.analysis.findings)
                .into_iter()
                .partition(|finding| directive.covers(finding));
        result.analysis.findings = stays;
        if gone.is_empty() {
            // Two comments may be about the same line.
            let taken = result.suppressed.iter().any(|other| directive.covers(&other.finding));
            if !taken {
                result.warnings.push(ScanWarning {
                    line: Some(directive.line),
                    suppression: true,
                    message: format!("the suppression of {ids} suppresses nothing"),
                });
            }
        }
        result.suppressed.extend(
            gone.into_iter()
                .map(|finding| Suppressed { finding, reason: directive.reason.clone() }),
        );
    }
    result.suppressed.sort_by_key(|gone| gone.finding.span);
}

impl Directive {
    fn covers(&self, finding: &Finding) -> bool {
        let named = |id: &String| {
            let class = id.parse::<Cwe>().is_ok_and(|class| finding.cwe.contains(&class));
            let name = finding.rule.split_once('/').map_or("", |(_, name)| name);
            class || *id == finding.rule || id == name
        };
        (finding.span.line..=finding.span.end_line).contains(&self.about)
            && self.ids.iter().any(named)
    }
}

fn directives(result: &FileResult) -> Vec<Directive> {
    let code = result.code.as_str();
    let Some(language) = result.analysis.language else { return Vec::new() };
    let comments = lower::comments(code, language);
    let mut starts = vec![0];
    starts.extend(code.match_indices('\n').map(|(at, _)| at + 1));
    let line_of = |at: usize| starts.partition_point(|start| *start <= at) as u32;
    // Whether a line has something that is no comment.
    let has_code = |line: u32| {
        let start = starts[line as usize - 1];
        let end = starts.get(line as usize).copied().unwrap_or(code.len());
        code[start..end].char_indices().any(|(at, c)| {
            let at = start + at;
            // Markup wraps comments into braces.
            !c.is_whitespace()
                && !matches!(c, '{' | '}')
                && !comments.iter().any(|(from, to)| (*from..*to).contains(&at))
        })
    };
    let n_lines = starts.len() as u32;
    let mut found = Vec::new();
    for (from, to) in &comments {
        for captures in DIRECTIVE.captures_iter(&code[*from..*to]) {
            let line = line_of(from + captures.get(0).map_or(0, |all| all.start()));
            let (first, last) = (line_of(*from), line_of(to.saturating_sub(1).max(*from)));
            let about = (first..=last)
                .find(|line| has_code(*line))
                .or_else(|| (last + 1..=n_lines).find(|line| has_code(*line)))
                .unwrap_or(last);
            let rest = captures.get(2).map_or("", |rest| rest.as_str());
            let ids = captures.get(1).map_or("", |ids| ids.as_str());
            let ids = ids.split(',').map(|id| id.trim().to_ascii_lowercase());
            let reason = REASON.captures(rest).and_then(|reason| reason.get(1).or(reason.get(2)));
            found.push(Directive {
                line,
                about,
                ids: ids.filter(|id| !id.is_empty()).collect(),
                reason: reason.map_or("", |reason| reason.as_str()).trim().to_owned(),
                until: UNTIL.captures(rest).map(|until| until[1].to_owned()),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use hardn_types::Language;

    use super::*;
    use crate::{Mode, Oracle, scan_text};

    fn scan(code: &str, language: Language) -> FileResult {
        let code = code.to_owned();
        let mut results = [scan_text(Oracle::shared(), "a", code, language, Mode::Snippet)];
        apply_suppressions(&mut results, "2026-11-21");
        let [result] = results;
        result
    }

    /// Findings left, findings suppressed, and a word of the warning, if any.
    #[track_caller]
    fn check(code: &str, language: Language, left: usize, suppressed: usize, warning: &str) {
        let result = scan(code, language);
        assert_eq!(result.analysis.findings.len(), left, "{code}\n{:?}", result.warnings);
        assert_eq!(result.suppressed.len(), suppressed, "{code}\n{:?}", result.warnings);
        assert_eq!(result.warnings.is_empty(), warning.is_empty(), "{:?}", result.warnings);
        assert!(
            result.warnings.iter().all(|given| given.message.contains(warning)),
            "{:?}",
            result.warnings
        );
    }

    #[test]
    fn the_line_and_the_line_above_in_every_syntax() {
        let python = Language::Python;
        check(
            "def f(x):\n    return eval(x)  # hardn: ignore[cwe-094] reason=\"own\"\n",
            python,
            0,
            1,
            "",
        );
        check(
            "def f(x):\n    # hardn: ignore[cwe-94] reason='own'\n    # more\n\n    return eval(x)\n",
            python,
            0,
            1,
            "",
        );
        check(
            "void f(const char *x) {\n    /* hardn: ignore[CWE-134] reason=\"own\" */ printf(x);\n}\n",
            Language::C,
            0,
            1,
            "",
        );
        check(
            "void f(const char *x) {\n    /*\n     * hardn: ignore[cwe-134] reason=\"own\" */\n    printf(x);\n}\n",
            Language::C,
            0,
            1,
            "",
        );
        check(
            "function f(x) {\n    // hardn: ignore[cwe-094] reason=\"own\"\n    eval(x);\n}\n",
            Language::JavaScript,
            0,
            1,
            "",
        );
        check(
            "def f(x)\n  eval(x) # hardn:ignore[cwe-094] reason=\"own\"\nend\n",
            Language::Ruby,
            0,
            1,
            "",
        );
    }

    #[test]
    fn it_must_name_the_class_say_why_and_be_in_date() {
        let with = |comment: &str| format!("def f(x):\n    return eval(x)  # {comment}\n");
        let python = Language::Python;
        check(&with("hardn: ignore[cwe-089] reason=\"own\""), python, 1, 0, "suppresses nothing");
        check(&with("hardn: ignore[cwe-094]"), python, 1, 0, "no reason");
        check(&with("hardn: ignore reason=\"own\""), python, 1, 0, "names no class");
        check(
            &with("hardn: ignore[cwe-094] reason=\"own\" until=2026-11-20"),
            python,
            1,
            0,
            "expired",
        );
        check(&with("hardn: ignore[cwe-094] reason=\"own\" until=2026-11-21"), python, 0, 1, "");
        check(&with("hardn: ignore[cwe-094] reason=\"own\" until=soon"), python, 1, 0, "no date");
        check(
            &with("hardn: ignore[python/cwe-094-code-execution, cwe-001] reason=\"own\""),
            python,
            0,
            1,
            "",
        );
        check(
            "def f(x):\n    y = \"# hardn: ignore[cwe-094] reason='own'\"; return eval(x)\n",
            python,
            1,
            0,
            "",
        );
    }

    #[test]
    fn days_become_dates() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (20_778, "2026-11-21"),
            (19_722, "2023-12-31"),
        ] {
            assert_eq!(date(day), expected);
        }
    }
}
