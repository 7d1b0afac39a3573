//! The functions, blocks and lines of a fixed text that a fix changed.

use std::ops::Range;

use hardn_types::{FixPair, Language, Side};
use tree_sitter::Node;

use crate::{
    CodeError, functions, line_spans, parse,
    sequence_matcher::{OpTag, SequenceMatcher},
};

/// What is looked for around a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The smallest function; one without a name where none has a name.
    Function,
    /// The smallest block in braces or of one indentation, with the statement it belongs to.
    Block,
    /// The line, without its end.
    Line,
}

/// The pieces of `after` that hold what the fix changed, in source order, each once: ranges of bytes, from the start of
/// a line where nothing but spaces stands before.
///
/// A line counts as changed as [`line_spans`] says, if it is not blank; where lines were only taken away, the place
/// counts, except for pieces that are lines. A change outside every function or block gives nothing.
///
/// # Errors
/// Those of [`parse`].
///
/// # Source
/// Papers 000 (section 5.2) and 001, which publish no code for this: what a block is for languages without braces, and
/// how places without lines count, is ours.
pub fn changed_pieces(pair: &FixPair, piece: Piece) -> Result<Vec<Range<usize>>, CodeError> {
    let text = Text::new(&pair.after);
    let lines = text.changed_lines(pair);
    let mut found = match piece {
        Piece::Line => lines,
        Piece::Function | Piece::Block => {
            let mut places: Vec<_> = lines.iter().filter_map(|line| text.heart(line)).collect();
            places.extend(text.places_of_deletions(pair));
            let around = |candidates: &[Range<usize>], place: &Range<usize>| {
                let holds = |r: &&Range<usize>| r.start <= place.start && place.end <= r.end;
                candidates.iter().filter(holds).min_by_key(|range| range.len()).cloned()
            };
            let [first, second] = text.candidates(pair.language, piece)?;
            let smallest = |place| around(&first, place).or_else(|| around(&second, place));
            places.iter().filter_map(smallest).collect()
        }
    };
    found.sort_by_key(|range| (range.start, range.end));
    found.dedup();
    Ok(found)
}

/// A text and where its lines start.
struct Text<'a> {
    code: &'a str,
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(code: &'a str) -> Self {
        let starts = std::iter::once(0).chain(code.match_indices('\n').map(|(i, _)| i + 1));
        Self { code, starts: starts.collect() }
    }

    /// The line, without its end.
    fn line(&self, index: usize) -> Range<usize> {
        let start = self.starts.get(index).copied().unwrap_or(self.code.len());
        let rest = &self.code[start..];
        start..start + rest.find('\n').unwrap_or(rest.len())
    }

    /// What counts of a line when something is looked for around it: without spaces and without the brackets that close
    /// what stood before.
    fn heart(&self, line: &Range<usize>) -> Option<Range<usize>> {
        let text = self.code[line.clone()].trim_end();
        let skipped = text.len() - text.trim_start().len();
        if skipped == text.len() {
            return None;
        }
        let closing = text.len() - text.trim_start_matches([' ', '\t', '}', ')', ']', ';']).len();
        let first = if closing == text.len() { skipped } else { closing };
        Some(line.start + first..line.start + text.len())
    }

    fn changed_lines(&self, pair: &FixPair) -> Vec<Range<usize>> {
        let mut bytes: Vec<usize> = self.code.char_indices().map(|(i, _)| i).collect();
        bytes.push(self.code.len());
        let byte = |char: usize| bytes[char.min(bytes.len() - 1)];
        let mut lines = Vec::new();
        for span in line_spans(pair, Side::Secure) {
            let span = byte(span.start)..byte(span.end);
            let first = self.starts.partition_point(|start| *start <= span.start) - 1;
            for index in first..self.starts.len() {
                let line = self.line(index);
                if index > first && line.start >= span.end {
                    break;
                }
                lines.extend(Some(line).filter(|line| !self.code[line.clone()].trim().is_empty()));
            }
        }
        lines
    }

    /// A stretch of text for each run of lines that were taken away and not replaced: a neighbour of the same depth, else
    /// what is between both.
    fn places_of_deletions(&self, pair: &FixPair) -> Vec<Range<usize>> {
        let old: Vec<String> = pair.before.lines().map(str::to_owned).collect();
        let new: Vec<String> = pair.after.lines().map(str::to_owned).collect();
        let depth = |line: &str| line.len() - line.trim_start().len();
        let is_comment = |line: &str| line.trim_start().starts_with(pair.language.comment());
        let mut places = Vec::new();
        for op in SequenceMatcher::new(&old, &new, true).opcodes() {
            let gone =
                || old[op.a.clone()].iter().filter(|l| !l.trim().is_empty() && !is_comment(l));
            let (OpTag::Delete, Some(first)) = (op.tag, gone().next()) else { continue };
            let filled = |i: &usize| !new[*i].trim().is_empty();
            let before = (0..op.b.start).rev().find(filled);
            let after = (op.b.start..new.len()).find(filled);
            let alike = |i: &usize| {
                let line = new[*i].trim_start();
                depth(&new[*i]) == depth(first)
                    && !line.starts_with(['}', ')', ']'])
                    && line != "end"
            };
            let neighbour = before.filter(alike).or_else(|| after.filter(alike));
            let place = match (neighbour, before, after) {
                (Some(line), _, _) => {
                    self.heart(&self.line(line)).map(|heart| heart.start..heart.start + 1)
                }
                (None, Some(before), Some(after)) => {
                    Some(self.line(before).end..self.starts[after] + depth(&new[after]))
                }
                _ => None,
            };
            places.extend(place);
        }
        places
    }

    /// What can be around a change: what comes first, and what counts where none of these is.
    fn candidates(
        &self,
        language: Language,
        piece: Piece,
    ) -> Result<[Vec<Range<usize>>; 2], CodeError> {
        let tree = parse(self.code, language)?;
        let mut others = Vec::new();
        let mut open = vec![tree.root_node()];
        while let Some(node) = open.pop() {
            let range = match piece {
                Piece::Block => block(node, language),
                _ => ANONYMOUS.contains(&node.kind()).then(|| node.byte_range()),
            };
            others.extend(range.map(|range| self.widened(range)));
            let mut cursor = node.walk();
            open.extend(node.children(&mut cursor));
        }
        if piece == Piece::Block {
            return Ok([others, Vec::new()]);
        }
        let named = functions(self.code, language)?;
        Ok([named.into_iter().map(|function| self.widened(function.span)).collect(), others])
    }

    /// From the start of its first line, unless that line closes something before.
    fn widened(&self, range: Range<usize>) -> Range<usize> {
        let line = self.starts[self.starts.partition_point(|start| *start <= range.start) - 1];
        let closes = self.code[line..range.start].contains('}');
        if closes { range } else { line..range.end }
    }
}

/// What grammars call a function without a name.
const ANONYMOUS: [&str; 6] = [
    "arrow_function",
    "function_expression",
    "generator_function",
    "func_literal",
    "lambda_expression",
    "do_block",
];

/// What grammars call a block.
const BLOCKS: [&str; 12] = [
    "block",
    "compound_statement",
    "statement_block",
    "field_declaration_list",
    "declaration_list",
    "class_body",
    "interface_body",
    "enum_body",
    "constructor_body",
    "switch_block",
    "switch_body",
    "do_block",
];

/// Ruby has no node for a body: what holds one ends with `end`.
const RUBY_BLOCKS: [&str; 15] = [
    "method",
    "singleton_method",
    "class",
    "module",
    "if",
    "unless",
    "elsif",
    "else",
    "while",
    "until",
    "for",
    "case",
    "begin",
    "do_block",
    "block",
];

/// The block that a node is, with the head of the statement it belongs to.
fn block(node: Node, language: Language) -> Option<Range<usize>> {
    if language == Language::Ruby {
        let is_block = node.is_named() && RUBY_BLOCKS.contains(&node.kind());
        return is_block.then(|| node.byte_range());
    }
    if !node.is_named() || !BLOCKS.contains(&node.kind()) {
        return None;
    }
    let is_plain = |parent: &Node| BLOCKS.contains(&parent.kind()) || parent.parent().is_none();
    let owner = node.parent().filter(|parent| !is_plain(parent));
    // An `else if` is an `if` within an `else`.
    let owner = owner.map(|owner| match owner.parent() {
        Some(outer) if outer.kind() == "else_clause" => outer,
        _ => owner,
    });
    let start = owner.map_or(node.start_byte(), |owner| owner.start_byte());
    Some(start..node.end_byte())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: Language, before: &str, after: &str, expected: [&[&str]; 3]) {
        let pair: FixPair = serde_json::from_value(serde_json::json!({
            "id": "0", "before": before, "after": after, "language": language.name()
        }))
        .unwrap();
        for (piece, expected) in
            [Piece::Function, Piece::Block, Piece::Line].into_iter().zip(expected)
        {
            let found = changed_pieces(&pair, piece).unwrap();
            let shown: Vec<&str> = found.into_iter().map(|range| &after[range]).collect();
            assert_eq!(shown, expected, "{piece:?}");
        }
    }

    #[test]
    fn python() {
        let f = "def f(a):\n    if a:\n        g(a)\n    return a";
        check(
            Language::Python,
            "x = 1\ndef f(a):\n    if a:\n        h(a)\n    return a\n",
            &format!("x = 2\n{f}\n"),
            [&[f], &["    if a:\n        g(a)"], &["x = 2", "        g(a)"]],
        );
        // The head of a block belongs to it; a comment is no change.
        check(
            Language::Python,
            "class A:\n    def f(self, é):\n        # old\n        for i in é:\n            p(i)\n",
            "class A:\n    def f(self, é):\n        # new\n        for i in é[:9]:\n            p(i)\n",
            [
                &["    def f(self, é):\n        # new\n        for i in é[:9]:\n            p(i)"],
                &["        for i in é[:9]:\n            p(i)"],
                &["        for i in é[:9]:"],
            ],
        );
        // Lines that are gone leave a place, but no line.
        let rest = "def f(a):\n    if a:\n        g(a)\n    return a";
        check(
            Language::Python,
            "def f(a):\n    if a:\n        g(a)\n        eval(a)\n    return a\n",
            rest,
            [&[rest], &["    if a:\n        g(a)"], &[]],
        );
    }

    #[test]
    fn braces() {
        check(
            Language::C,
            "int f(int n) {\n  if (n) {\n    g(n);\n  } else {\n    k(n);\n  }\n  return 0;\n}\n",
            "int f(int n) {\n  if (n) {\n    g(n);\n  } else if (n > 1) {\n    h(n);\n  }\n  return 0;\n}\n",
            [
                &[
                    "int f(int n) {\n  if (n) {\n    g(n);\n  } else if (n > 1) {\n    h(n);\n  }\n  return 0;\n}",
                ],
                &["else if (n > 1) {\n    h(n);\n  }"],
                &["  } else if (n > 1) {", "    h(n);"],
            ],
        );
        let arrow = "app.get('/', (q, r) => {\n  r.send(esc(q));\n}";
        check(
            Language::JavaScript,
            "app.get('/', (q, r) => {\n  r.send(q);\n});\n",
            &format!("{arrow});\n"),
            [&[arrow], &[arrow], &["  r.send(esc(q));"]],
        );
        check(
            Language::Java,
            "class A {\n  int b() {\n    c();\n    d();\n  }\n}\n",
            "class A {\n  int b() {\n    d();\n  }\n}\n",
            [&["  int b() {\n    d();\n  }"], &["  int b() {\n    d();\n  }"], &[]],
        );
        check(
            Language::Ruby,
            "def a(b)\n  if b\n    c b\n  end\nend\n",
            "def a(b)\n  if b\n    d b\n  end\nend\n",
            [&["def a(b)\n  if b\n    d b\n  end\nend"], &["  if b\n    d b\n  end"], &["    d b"]],
        );
    }
}
