//! SVEN's filter for CWE-078 in Python: an alert on a name that holds a list of words is no command injection.

use hardn_types::Span;
use tree_sitter::{Node, Parser};

/// Deepest chain of names and sums that is followed.
const MAX_DEPTH: usize = 8;

/// Whether the flagged place is a name that is bound to a list whose first element is a string, to another such
/// name, or to a sum with one.
///
/// # Source
/// He and Vechev 2023 (arXiv:2302.05319), the released evaluation; a name's bindings are taken from the whole file.
pub(crate) fn holds_list(code: &str, span: Span) -> bool {
    let mut parser = Parser::new();
    if parser.set_language(&tree_sitter_python::LANGUAGE.into()).is_err() {
        return false;
    }
    let Some(tree) = parser.parse(code, None) else { return false };
    let line = code.split('\n').nth(span.line as usize - 1).unwrap_or_default();
    let length = span.end_column.saturating_sub(span.column) as usize;
    let name: String = line.chars().skip(span.column as usize - 1).take(length).collect();
    let mut bindings = Vec::new();
    collect(tree.root_node(), code, &mut bindings);
    span.line == span.end_line && is_list_name(&name, code, &bindings, 0)
}

fn is_list_name(name: &str, code: &str, bindings: &[(&str, Node)], depth: usize) -> bool {
    depth < MAX_DEPTH
        && bindings
            .iter()
            .any(|(bound, value)| *bound == name && is_list(*value, code, bindings, depth + 1))
}

fn is_list(node: Node, code: &str, bindings: &[(&str, Node)], depth: usize) -> bool {
    match node.kind() {
        "list" => node.named_child(0).is_some_and(|first| first.kind() == "string"),
        "identifier" => is_list_name(&code[node.byte_range()], code, bindings, depth),
        "parenthesized_expression" => {
            node.named_child(0).is_some_and(|inner| is_list(inner, code, bindings, depth))
        }
        "binary_operator" => ["left", "right"].iter().any(|side| {
            depth < MAX_DEPTH
                && node
                    .child_by_field_name(side)
                    .is_some_and(|side| is_list(side, code, bindings, depth + 1))
        }),
        _ => false,
    }
}

/// Every `name = value` of the file.
fn collect<'t>(root: Node<'t>, code: &'t str, bindings: &mut Vec<(&'t str, Node<'t>)>) {
    let mut waiting = vec![root];
    while let Some(node) = waiting.pop() {
        if node.kind() == "assignment"
            && let (Some(left), Some(right)) =
                (node.child_by_field_name("left"), node.child_by_field_name("right"))
            && left.kind() == "identifier"
        {
            bindings.push((&code[left.byte_range()], right));
        }
        let mut cursor = node.walk();
        waiting.extend(node.children(&mut cursor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expected: bool) {
        // The place is the last `cmd` of the code.
        let at = code.rfind("cmd").unwrap();
        let line = code[..at].matches('\n').count() as u32 + 1;
        let column = (at - code[..at].rfind('\n').map_or(0, |end| end + 1)) as u32 + 1;
        let span = Span { line, column, end_line: line, end_column: column + 3 };
        assert_eq!(holds_list(code, span), expected, "{code}");
    }

    #[test]
    fn lists_of_words_are_told_from_text() {
        check("cmd = ['ls', x]\nrun(cmd)\n", true);
        check("base = ['ls']\ncmd = base\nrun(cmd)\n", true);
        check("cmd = ['ls'] + args\nrun(cmd)\n", true);
        check("cmd = args + (['ls'])\nrun(cmd)\n", true);
        check("cmd = 'ls ' + x\nrun(cmd)\n", false);
        check("cmd = [x, 'ls']\nrun(cmd)\n", false);
        check("cmd = cmd + cmd\nrun(cmd)\n", false);
        check("run(cmd)\n", false);
    }
}
