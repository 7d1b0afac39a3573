//! Ruby's requires.

use tree_sitter::Node;

use super::read::{Import, ImportKind, unquoted};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    if node.kind() != "call" || node.child_by_field_name("receiver").is_some() {
        return None;
    }
    let method = &code[node.child_by_field_name("method")?.byte_range()];
    if !matches!(method, "require" | "require_relative" | "load" | "autoload") {
        return None;
    }
    let arguments = node.child_by_field_name("arguments")?;
    let count = if method == "autoload" { 2 } else { 1 };
    if arguments.named_child_count() != count {
        return None;
    }
    let last = arguments.named_child(arguments.named_child_count() as u32 - 1)?;
    let path = (last.kind() == "string").then(|| unquoted(last, code))??;
    let is_local =
        matches!(method, "require_relative" | "load") || path.starts_with(['.', '/', '~']);
    Some(vec![Import { is_local, ..Import::whole(node, path, ImportKind::SideEffect) }])
}
