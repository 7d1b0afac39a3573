//! What stands at the top of a file: comments, directives and imports, before the first other code.

use std::ops::Range;

use hardn_types::Language;
use tree_sitter::Node;

use super::read::{Import, statement};

/// A piece of the top.
pub(super) struct Part {
    pub span: Range<usize>,
    pub kind: PartKind,
}

pub(super) enum PartKind {
    /// An import statement.
    Imports(Vec<Import>),
    /// Imports under a condition: `try: import a`, `#ifdef`.
    Guarded,
    /// What has to stand before imports or may stand among them.
    Prelude,
    Comment,
}

/// The top of a text.
pub(super) struct Top {
    /// In source order.
    pub parts: Vec<Part>,
    /// Where the first other code starts, or the text ends.
    pub end: usize,
}

/// The pieces at the top of a tree, up to the first that is other code.
///
/// Prompts end in the middle of a program: pieces are also looked for in the error nodes that the parser makes of such an
/// end.
pub(super) fn top(root: Node, code: &str, language: Language) -> Top {
    let mut parts: Vec<Part> = Vec::new();
    let mut open = vec![root];
    // The root is opened, whatever it is; of the others those that are transparent.
    let mut is_root = true;
    while let Some(node) = open.pop() {
        if is_root || node.is_error() || is_include_guard(node, code) {
            is_root = false;
            let mut cursor = node.walk();
            let first = open.len();
            open.extend(node.children(&mut cursor));
            open[first..].reverse();
            continue;
        }
        let first_code = parts.iter().all(|part| matches!(part.kind, PartKind::Comment));
        match part(node, code, language, first_code) {
            Found::Part(kind) => {
                let text = code[node.byte_range()].trim_end();
                let whole = node.start_byte()..node.start_byte() + text.len();
                let span = match &kind {
                    PartKind::Imports(imports) => imports.first().map(|i| i.statement.clone()),
                    _ => None,
                }
                .unwrap_or(whole);
                parts.push(Part { span, kind });
            }
            Found::Nothing => {}
            Found::Code => return Top { parts, end: node.start_byte() },
        }
    }
    Top { parts, end: code.len() }
}

enum Found {
    Part(PartKind),
    Nothing,
    Code,
}

fn part(node: Node, code: &str, language: Language, first_code: bool) -> Found {
    if let Some(imports) = statement(node, code, language) {
        return Found::Part(PartKind::Imports(imports));
    }
    let kind = match (language, node.kind()) {
        (_, "comment" | "line_comment" | "block_comment" | "html_comment" | "hash_bang_line") => {
            PartKind::Comment
        }
        (_, "\n" | ";" | "empty_statement") => return Found::Nothing,
        (Language::Python, "try_statement" | "if_statement") if guards(node, code, language) => {
            PartKind::Guarded
        }
        (Language::C | Language::Cpp, "preproc_ifdef" | "preproc_if")
            if is_preprocessor_only(node) =>
        {
            PartKind::Guarded
        }
        _ if is_prelude(node, code, language, first_code) => PartKind::Prelude,
        _ if code[node.byte_range()].trim().is_empty() => return Found::Nothing,
        _ => return Found::Code,
    };
    Found::Part(kind)
}

fn is_prelude(node: Node, code: &str, language: Language, first_code: bool) -> bool {
    match (language, node.kind()) {
        (Language::Python, "expression_statement") => is_python_header(node, code, first_code),
        (Language::JavaScript | Language::TypeScript, "expression_statement") => {
            node.named_child(0).is_some_and(|inner| inner.kind() == "string")
        }
        // The last three are what an unclosed `#ifndef NAME` leaves.
        (
            Language::C | Language::Cpp,
            "preproc_def"
            | "preproc_function_def"
            | "preproc_call"
            | "#ifndef"
            | "#ifdef"
            | "#endif",
        )
        | (Language::Go, "package_clause")
        | (Language::Java, "package_declaration") => true,
        (Language::C | Language::Cpp, "identifier") => {
            node.prev_sibling().is_some_and(|before| before.kind().starts_with("#if"))
        }
        _ => false,
    }
}

/// A docstring, or `__version__ = "1"`.
fn is_python_header(node: Node, code: &str, first_code: bool) -> bool {
    let Some(inner) = node.named_child(0).filter(|_| !node.has_error()) else { return false };
    match inner.kind() {
        "string" | "concatenated_string" => first_code,
        "assignment" => inner
            .child_by_field_name("left")
            .is_some_and(|left| code[left.byte_range()].starts_with("__")),
        _ => false,
    }
}

/// Whether the first thing under the condition is an import.
fn guards(node: Node, code: &str, language: Language) -> bool {
    let block =
        node.child_by_field_name("body").or_else(|| node.child_by_field_name("consequence"));
    let first = block.and_then(|block| block.named_child(0));
    !node.has_error() && first.is_some_and(|node| statement(node, code, language).is_some())
}

/// `#ifndef A_H` with `#define A_H` behind it: the file, or what there is of it, stands in it.
fn is_include_guard(node: Node, code: &str) -> bool {
    if node.kind() != "preproc_ifdef" {
        return false;
    }
    let mut cursor = node.walk();
    let name = node.child_by_field_name("name").map(|name| &code[name.byte_range()]);
    let second = node.named_children(&mut cursor).filter(|n| n.kind() != "comment").nth(1);
    let is_same = |define: Node| {
        define.child_by_field_name("name").map(|name| &code[name.byte_range()]) == name
            && define.child_by_field_name("value").is_none()
    };
    second.is_some_and(|n| n.kind() == "preproc_def" && is_same(n)) && !is_preprocessor_only(node)
}

/// Whether a condition of the preprocessor holds no code.
fn is_preprocessor_only(node: Node) -> bool {
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            match child.kind() {
                "preproc_ifdef" | "preproc_if" | "preproc_else" | "preproc_elif"
                | "preproc_elifdef" => {
                    open.push(child);
                }
                "preproc_include"
                | "preproc_def"
                | "preproc_function_def"
                | "preproc_call"
                | "comment" => {}
                // The name or condition itself.
                _ if is_condition(node, child) => {}
                _ => return false,
            }
        }
    }
    true
}

fn is_condition(node: Node, child: Node) -> bool {
    ["name", "condition"].iter().any(|field| node.child_by_field_name(field) == Some(child))
}
