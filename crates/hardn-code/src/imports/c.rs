//! Includes of C and C++.

use tree_sitter::Node;

use super::read::{Import, ImportKind};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    if node.kind() != "preproc_include" {
        return None;
    }
    let path = node.child_by_field_name("path").filter(|path| !path.has_error())?;
    let text = &code[path.byte_range()];
    let is_local = path.kind() == "string_literal";
    let module = match path.kind() {
        "system_lib_string" => text.trim_start_matches('<').trim_end_matches('>'),
        _ => text.trim_matches('"'),
    };
    if module.trim().is_empty() {
        return None;
    }
    // A macro may stand for any header.
    let kind = if path.kind() == "identifier" || path.kind() == "call_expression" {
        ImportKind::Wildcard
    } else {
        ImportKind::Include
    };
    let is_local = is_local || kind == ImportKind::Wildcard;
    // The node has the comment behind it and the line end, too.
    let span = node.start_byte()..path.end_byte();
    Some(vec![Import {
        is_local,
        statement: span.clone(),
        span,
        ..Import::whole(node, module.trim(), kind)
    }])
}
