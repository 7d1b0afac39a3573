//! Findings for people: the place, the class, the code, and how to fix it.

use std::io::Write;

use crate::{FileResult, Oracle, Result};

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

/// Writes findings with the line of code they stand in, and a summary.
///
/// # Errors
/// [`crate::OracleError::Write`] where the output cannot be written.
pub fn write_text(
    out: &mut dyn Write,
    oracle: &Oracle,
    results: &[FileResult],
    colours: Colours,
) -> Result<()> {
    let Colours { path: bold, warning, dim, reset } = colours;
    let (mut n_findings, mut n_files, mut n_skipped) = (0, 0, 0);
    for result in results {
        if let Some(why) = &result.analysis.not_analysed {
            n_skipped += 1;
            writeln!(out, "{bold}{}{reset}: {dim}not analysed: {why}{reset}", result.path)?;
            continue;
        }
        n_files += 1;
        let lines: Vec<&str> = result.code.split('\n').collect();
        for finding in &result.analysis.findings {
            n_findings += 1;
            let span = finding.span;
            let cwe = finding.cwe.first().map(ToString::to_string).unwrap_or_default();
            writeln!(
                out,
                "{bold}{}:{}:{}{reset}: {warning}{cwe}{reset} {} {dim}[{}]{reset}",
                result.path, span.line, span.column, finding.message, finding.rule
            )?;
            let number = span.line.to_string();
            let margin = " ".repeat(number.len());
            if let Some(code) = lines.get(span.line as usize - 1) {
                let code = code.trim_end_matches('\r');
                // Tabs stay tabs, so that the mark stands where the code does.
                let indent: String = code
                    .chars()
                    .take(span.column as usize - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let length = code.chars().count() as u32;
                let end = if span.end_line == span.line { span.end_column } else { length + 1 };
                let marks = "^".repeat((end.saturating_sub(span.column)).max(1) as usize);
                writeln!(out, "{dim}{number} |{reset} {code}")?;
                writeln!(out, "{dim}{margin} |{reset} {indent}{warning}{marks}{reset}")?;
            }
            for step in &finding.trace {
                writeln!(out, "{dim}{margin} = line {}: {}{reset}", step.span.line, step.message)?;
            }
            if let Ok(rule) = oracle.rules().show(&finding.rule) {
                writeln!(
                    out,
                    "{dim}{margin} = help:{reset} {}",
                    rule.info().help.replace('\n', " ")
                )?;
            }
        }
    }
    let skipped = if n_skipped > 0 { format!(", {n_skipped} not analysed") } else { String::new() };
    writeln!(out, "{n_findings} finding(s) in {n_files} file(s){skipped}")?;
    Ok(())
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
        write_text(&mut out, Oracle::shared(), &results, Colours::NONE).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a.py:2:24: CWE-094 "), "{text}");
        assert_eq!(
            lines[1].chars().position(|c| c == 'x'),
            lines[2].chars().position(|c| c == '^'),
            "{text}"
        );
    }
}
