//! Java's imports.

use tree_sitter::Node;

use super::read::{Import, ImportKind};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    if node.kind() != "import_declaration" {
        return None;
    }
    let mut cursor = node.walk();
    let has = |kind: &str| node.children(&mut node.walk()).any(|n| n.kind() == kind);
    let path = node
        .children(&mut cursor)
        .find(|n| matches!(n.kind(), "scoped_identifier" | "identifier"))?;
    let path: String = code[path.byte_range()].chars().filter(|c| !c.is_whitespace()).collect();
    if has("asterisk") {
        return Some(vec![Import::whole(node, &path, ImportKind::Wildcard)]);
    }
    let name = path.rsplit('.').next().map(str::to_owned);
    let (module, member) = match path.rsplit_once('.') {
        Some((class, member)) if has("static") => (class.to_owned(), Some(member.to_owned())),
        _ => (path, None),
    };
    Some(vec![Import { member, name, ..Import::whole(node, &module, ImportKind::Name) }])
}

/// The package a full name stands in: what comes before the first part with a capital.
pub(super) fn package_of(path: &str) -> &str {
    let mut end = 0;
    for part in path.split('.') {
        if part.starts_with(char::is_uppercase) {
            break;
        }
        end += part.len() + 1;
    }
    &path[..end.saturating_sub(1).min(path.len())]
}
