//! From byte ranges to lines and columns, and what is done to snippets so that they parse.

use std::borrow::Cow;

use hardn_types::{Language, Span};

use crate::{
    head::{MISSING_TYPE, missing_type},
    ir::Range,
};

/// Code ready to be parsed, and the way back to the places of the original.
pub(crate) struct Positions<'a> {
    text: Cow<'a, str>,
    /// Byte offset of each line of `text`.
    lines: Vec<u32>,
    /// Characters taken from the front of each line; empty where none were.
    removed: Vec<u32>,
    /// Where characters were added: the byte offset and how many.
    added: Option<(u32, u32)>,
}

impl<'a> Positions<'a> {
    /// A snippet may be indented as a whole, which Python's grammar does not take, and a function may lack the type
    /// it returns, without which C's grammar sees no function.
    pub(crate) fn new(code: &'a str, language: Language) -> Self {
        let (mut text, mut removed) = (Cow::Borrowed(code), Vec::new());
        let mut added = None;
        match language {
            Language::Python => (text, removed) = without_indent(code),
            Language::C | Language::Cpp => {
                if let Some(at) = missing_type(code) {
                    text.to_mut().insert_str(at, MISSING_TYPE);
                    added = Some((at as u32, MISSING_TYPE.len() as u32));
                }
            }
            _ => {}
        }
        let mut lines = vec![0];
        lines.extend(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(at, _)| at as u32 + 1),
        );
        Self { text, lines, removed, added }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn span(&self, range: Range) -> Span {
        let (line, column) = self.point(range.start);
        let (end_line, end_column) = self.point(range.end);
        Span { line, column, end_line, end_column }
    }

    fn point(&self, offset: u32) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= offset) - 1;
        let start = self.lines[line] as usize;
        let before =
            self.text.get(start..offset as usize).map_or(0, |text| text.chars().count() as u32);
        let added = match self.added {
            // On the same line, after what was added or inside it.
            Some((at, n)) if offset > at && at as usize >= start => n.min(offset - at),
            _ => 0,
        };
        (line as u32 + 1, before + 1 - added + self.removed.get(line).copied().unwrap_or(0))
    }
}

/// Takes the first line's indentation from every line that has it.
fn without_indent(code: &str) -> (Cow<'_, str>, Vec<u32>) {
    let first = code.lines().find(|line| {
        let trimmed = line.trim_start();
        !trimmed.is_empty() && !trimmed.starts_with('#')
    });
    let indent = first.map_or("", |line| &line[..line.len() - line.trim_start().len()]);
    if indent.is_empty() {
        return (Cow::Borrowed(code), Vec::new());
    }
    let mut text = String::with_capacity(code.len());
    let mut removed = Vec::new();
    for line in code.split_inclusive('\n') {
        let rest = line.strip_prefix(indent).unwrap_or_else(|| {
            // Less indented, as in a string of several lines or after the snippet's end.
            line.trim_start_matches([' ', '\t'])
        });
        removed.push((line.len() - rest.len()) as u32);
        text.push_str(rest);
    }
    (Cow::Owned(text), removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_code_points_of_the_original() {
        let code = "    def f(x):\n        é = 'ü'; g(x)\n";
        let positions = Positions::new(code, Language::Python);
        let at = positions.text().find("g(x)").unwrap() as u32;
        let span = positions.span(Range { start: at, end: at + 4 });
        assert_eq!((span.line, span.column, span.end_line, span.end_column), (2, 18, 2, 22));
        assert!(positions.text().starts_with("def f"));
    }

    #[test]
    fn a_type_that_was_added_moves_nothing() {
        let positions = Positions::new("/* ü */ f(int x) { g(x); }\n/* */ h();", Language::C);
        for (wanted, line, column) in [("f(", 1, 9), ("g(", 1, 20), ("h(", 2, 7)] {
            let at = positions.text().find(wanted).unwrap() as u32;
            let span = positions.span(Range { start: at, end: at + 1 });
            assert_eq!((span.line, span.column), (line, column), "{wanted}");
        }
    }
}
