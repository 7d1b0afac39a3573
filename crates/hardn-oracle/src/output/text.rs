//! Findings for people: the place, the class, the code, and how to fix it.

use std::io::Write;

use hardn_types::Span;

use crate::{ENGINE, FileResult, Oracle, Result, ScanSummary};

/// Characters of a line of code that are shown.
const WIDTH: usize = 160;

/// Escape sequences around parts of the text; all empty for plain output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Colours {
    /// Before a path.
    pub path: &'static str,
    /// Before a finding's class and message.
    pub warning: &'static str,
    /// Before what is of less weight.
    pub dim: &'static str,
    /// After each of them.
    pub reset: &'static str,
}

impl Colours {
    /// ANSI colours for terminals.
    pub const ANSI: Self =
        Self { path: "\x1b[1m", warning: "\x1b[1;31m", dim: "\x1b[2m", reset: "\x1b[0m" };
    /// No colours.
    pub const NONE: Self = Self { path: "", warning: "", dim: "", reset: "" };
}

/// Writes findings with the line of code they stand in, warnings, and the summary.
///
/// # Errors
/// [`crate::OracleError::Write`] where the output cannot be written.
pub fn write_text(
    out: &mut dyn Write,
    oracle: &Oracle,
    results: &[FileResult],
    summary: &ScanSummary,
    colours: Colours,
) -> Result<()> {
    let Colours { path: bold, warning, dim, reset } = colours;
    for result in results {
        let path = &result.path;
        if let Some(why) = &result.analysis.not_analysed {
            writeln!(out, "{bold}{path}{reset}: {dim}not analysed: {why}{reset}")?;
        }
        for odd in &result.warnings {
            let line = odd.line.map(|line| format!(":{line}")).unwrap_or_default();
            writeln!(out, "{bold}{path}{line}{reset}: warning: {}", odd.message)?;
        }
        let lines: Vec<&str> = result.code.split('\n').collect();
        for finding in &result.analysis.findings {
            let span = finding.span;
            let cwe = finding.cwe.first().map(ToString::to_string).unwrap_or_default();
            let own = finding.engine == ENGINE;
            let engine = if own { String::new() } else { format!("{}: ", finding.engine) };
            writeln!(
                out,
                "{bold}{path}:{}:{}{reset}: {warning}{cwe}{reset} {} {dim}[{engine}{}]{reset}",
                span.line, span.column, finding.message, finding.rule
            )?;
            let number = span.line.to_string();
            let margin = " ".repeat(number.len());
            if let Some(code) = lines.get(span.line as usize - 1) {
                let (code, indent, marks) = marked(code.trim_end_matches('\r'), span);
                writeln!(out, "{dim}{number} |{reset} {code}")?;
                writeln!(out, "{dim}{margin} |{reset} {indent}{warning}{marks}{reset}")?;
            }
            for step in &finding.trace {
                writeln!(out, "{dim}{margin} = line {}: {}{reset}", step.span.line, step.message)?;
            }
            if let Ok(rule) = oracle.rules().show(&finding.rule) {
                let help = rule.info().help.replace('\n', " ");
                writeln!(out, "{dim}{margin} = help:{reset} {help}")?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out, "{summary}")?;
    Ok(())
}

/// The line of code, cut where it is very long, what stands before the mark, and the mark.
fn marked(code: &str, span: Span) -> (String, String, String) {
    let length = code.chars().count();
    let start = (span.column as usize - 1).min(length);
    let end = if span.end_line == span.line { span.end_column as usize - 1 } else { length };
    let end = end.clamp(start, length);
    let (first, last) = if length > WIDTH {
        let first = start.saturating_sub(WIDTH / 3);
        (first, (first + WIDTH).min(length))
    } else {
        (0, length)
    };
    let (head, tail) = (if first > 0 { "…" } else { "" }, if last < length { "…" } else { "" });
    let shown: String = code.chars().skip(first).take(last - first).collect();
    // Tabs stay tabs, so that the mark stands where the code does.
    let before = shown.chars().take(start - first).map(|c| if c == '\t' { '\t' } else { ' ' });
    let indent = head.chars().map(|_| ' ').chain(before).collect();
    let marks = "^".repeat(end.min(last).saturating_sub(start).max(1));
    (format!("{head}{shown}{tail}"), indent, marks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, scan_text};
    use hardn_types::Language;

    #[test]
    fn the_mark_stands_under_the_code() {
        let code = "def f(x):\n    é = 1; return eval(x)\n".to_owned();
        let results = [scan_text(Oracle::shared(), "a.py", code, Language::Python, Mode::Snippet)];
        let mut out = Vec::new();
        let summary = ScanSummary::of(&results);
        write_text(&mut out, Oracle::shared(), &results, &summary, Colours::NONE).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a.py:2:24: CWE-094 "), "{text}");
        assert_eq!(
            lines[1].chars().position(|c| c == 'x'),
            lines[2].chars().position(|c| c == '^'),
            "{text}"
        );
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_mark() {
        let code = format!("{};eval(x);{}", "a".repeat(500), "b".repeat(500));
        let span = Span { line: 1, column: 507, end_line: 1, end_column: 508 };
        let (shown, indent, marks) = marked(&code, span);
        assert!(shown.starts_with("…a") && shown.ends_with("b…"), "{shown}");
        assert_eq!(shown.chars().nth(indent.chars().count()), Some('x'));
        assert_eq!((shown.chars().count(), marks.as_str()), (WIDTH + 2, "^"));
    }
}
