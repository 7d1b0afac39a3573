//! One JSON object a line: the stable contract of `hardn scan --json`.

use std::io::Write;

use hardn_types::{Finding, Language};
use serde::Serialize;

use crate::{FileResult, Mode, Result};

#[derive(Serialize)]
struct Row<'a> {
    path: &'a str,
    language: Option<Language>,
    mode: Mode,
    engine: &'a str,
    rule: &'a str,
    cwe: Vec<u16>,
    line: u32,
    column: u32,
    end_line: u32,
    end_column: u32,
    message: &'a str,
}

/// Writes a line per finding, and one per file that was not analysed.
///
/// # Errors
/// [`crate::OracleError::Write`] where the output cannot be written.
pub fn write_jsonl(out: &mut dyn Write, results: &[FileResult], mode: Mode) -> Result<()> {
    for result in results {
        if let Some(why) = &result.analysis.not_analysed {
            serde_json::to_writer(
                &mut *out,
                &serde_json::json!({"path": result.path, "not_analysed": why}),
            )?;
            out.write_all(b"\n")?;
            continue;
        }
        for finding in &result.analysis.findings {
            let Finding { engine, rule, cwe, span, message, .. } = finding;
            let row = Row {
                path: &result.path,
                language: result.analysis.language,
                mode,
                engine,
                rule,
                cwe: cwe.iter().map(|cwe| cwe.0).collect(),
                line: span.line,
                column: span.column,
                end_line: span.end_line,
                end_column: span.end_column,
                message,
            };
            serde_json::to_writer(&mut *out, &row)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Oracle, scan_text};

    #[test]
    fn lines_have_the_promised_keys() {
        let results = [
            scan_text(
                Oracle::shared(),
                "a.py",
                "def f(x):\n    return eval(x)\n".to_owned(),
                Language::Python,
                Mode::Snippet,
            ),
            scan_text(
                Oracle::shared(),
                "b.go",
                "%%% ))) (((".to_owned(),
                Language::Go,
                Mode::Snippet,
            ),
        ];
        let mut out = Vec::new();
        write_jsonl(&mut out, &results, Mode::Snippet).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "path",
                "language",
                "mode",
                "engine",
                "rule",
                "cwe",
                "line",
                "column",
                "end_line",
                "end_column",
                "message"
            ]
        );
        assert_eq!(
            (&lines[0]["cwe"][0], &lines[0]["line"], &lines[0]["column"]),
            (&94.into(), &2.into(), &17.into())
        );
        assert_eq!(lines[1]["path"], "b.go");
        assert!(lines[1]["not_analysed"].is_string());
    }
}
