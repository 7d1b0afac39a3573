//! Go's imports.

use tree_sitter::Node;

use super::read::{Import, ImportKind, unquoted};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    if node.kind() != "import_declaration" {
        return None;
    }
    let mut found = Vec::new();
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        if node.kind() == "import_spec" {
            found.extend(spec(node, code));
        } else {
            let mut cursor = node.walk();
            open.extend(node.named_children(&mut cursor));
        }
    }
    for import in &mut found {
        import.statement = node.byte_range();
    }
    found.sort_by_key(|import| import.span.start);
    Some(found)
}

fn spec(node: Node, code: &str) -> Option<Import> {
    let path = unquoted(node.child_by_field_name("path")?, code)?;
    let alias = node.child_by_field_name("name");
    let (kind, name) = match alias.map(|alias| (alias.kind(), &code[alias.byte_range()])) {
        Some(("dot", _)) => (ImportKind::Wildcard, None),
        Some(("blank_identifier", _)) => (ImportKind::SideEffect, None),
        // cgo reads the comment before it.
        None if path == "C" => (ImportKind::SideEffect, None),
        Some((_, alias)) => (ImportKind::Name, Some(alias.to_owned())),
        None => (ImportKind::Name, package_name(path)),
    };
    let is_local = path.starts_with('.');
    Some(Import { name, is_local, ..Import::whole(node, path, kind) })
}

/// The name a package most likely has: the last part of its path that is no version; `None` where the part is no name,
/// as in `go-sqlite3` and `yaml.v3`.
fn package_name(path: &str) -> Option<String> {
    let is_version = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let last = path.rsplit('/').find(|part| !is_version(part))?;
    let is_name = !last.is_empty() && last.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then(|| last.to_owned())
}
