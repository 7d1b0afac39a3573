//! Code without some of its imports.

use std::ops::Range;

use hardn_types::Language;

use super::{
    block::{line_end, line_start, next_line},
    read::{Import, imports},
};
use crate::CodeError;

/// The code without some of the imports that [`imports`] or [`unused_imports`](super::unused_imports) found in it: a statement
/// all of whose imports go is taken out, with its line where nothing else stands there; of others, the names.
///
/// # Errors
/// Those of [`parse`](crate::parse).
pub fn without(code: &str, unwanted: &[Import], language: Language) -> Result<String, CodeError> {
    let all = imports(code, language)?;
    let mut cuts: Vec<Range<usize>> = all
        .chunk_by(|a, b| a.statement == b.statement)
        .flat_map(|statement| cuts(code, statement, unwanted))
        .collect();
    cuts.sort_by_key(|cut| cut.start);
    Ok(apply(code, 0..code.len(), &cuts))
}

/// The text of one statement without some of its imports, of which others stay.
pub(super) fn statement_without(code: &str, statement: &[Import], unwanted: &[Import]) -> String {
    let Some(first) = statement.first() else { return String::new() };
    apply(code, first.statement.clone(), &cuts(code, statement, unwanted))
}

fn apply(code: &str, within: Range<usize>, cuts: &[Range<usize>]) -> String {
    let (mut kept, mut at) = (String::new(), within.start);
    for cut in cuts {
        kept.push_str(&code[at..cut.start.max(at)]);
        at = at.max(cut.end);
    }
    kept.push_str(&code[at..within.end.max(at)]);
    kept
}

/// What has to go of one statement.
fn cuts(code: &str, statement: &[Import], unwanted: &[Import]) -> Vec<Range<usize>> {
    let is_gone = |import: &Import| unwanted.contains(import);
    let Some(whole) = statement.iter().find(|import| is_gone(import)) else { return Vec::new() };
    if statement.iter().all(is_gone) {
        return vec![statement_cut(code, &whole.statement)];
    }
    let mut cuts = Vec::new();
    // A default import and the braces behind it are apart.
    let one_list = |a: &Import, b: &Import| !code[a.span.end..b.span.start].contains('{');
    for run in statement.chunk_by(|a, b| is_gone(a) == is_gone(b) && one_list(a, b)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if is_gone(first) {
            cuts.push(run_cut(code, first.span.start..last.span.end, &whole.statement));
        }
    }
    cuts
}

/// A statement with its line, or with the semicolon that parts it from another on the line.
fn statement_cut(code: &str, statement: &Range<usize>) -> Range<usize> {
    let line = line_start(code, statement.start)..line_end(code, statement.end);
    let before = code[line.start..statement.start].trim();
    let after = code[statement.end..line.end].trim_start_matches([' ', '\t', ';']);
    let rest = line.end - after.len();
    match (before.is_empty(), after.is_empty()) {
        (true, true) => line.start..next_line(code, statement.end),
        (_, false) => statement.start..rest,
        (false, true) => {
            let kept = code[..statement.start].trim_end_matches([' ', '\t', ';']);
            kept.len()..line.end
        }
    }
}

/// Names that stand one behind the other, with the commas that parted them from the others, or with their lines.
fn run_cut(code: &str, run: Range<usize>, statement: &Range<usize>) -> Range<usize> {
    let blank = |text: &str| text.len() - text.trim_start().len();
    let behind = run.end + blank(&code[run.end..statement.end]);
    if let Some(after) = code[behind..statement.end].strip_prefix([',', ';']) {
        let next = statement.end - after.len() + blank(after);
        // Brackets that close a list keep what stands before them.
        if !code[next..statement.end].starts_with([')', '}']) {
            return run.start..next;
        }
    }
    let kept = code[statement.start..run.start].trim_end();
    if kept.ends_with([',', ';']) {
        return statement.start + kept.len() - 1..run.end;
    }
    let line = line_start(code, run.start)..line_end(code, run.end);
    let alone =
        code[line.start..run.start].trim().is_empty() && code[run.end..line.end].trim().is_empty();
    if alone { line.start..next_line(code, run.end) } else { run }
}
