//! Python's imports.

use tree_sitter::Node;

use super::read::{Import, ImportKind};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    match node.kind() {
        "future_import_statement" => {
            Some(vec![Import::whole(node, "__future__", ImportKind::SideEffect)])
        }
        "import_statement" => Some(names(node, code, None)),
        "import_from_statement" => {
            let module = node.child_by_field_name("module_name")?;
            let path: String =
                code[module.byte_range()].chars().filter(|c| !c.is_whitespace()).collect();
            let mut cursor = node.walk();
            let wildcard = node.children(&mut cursor).any(|n| n.kind() == "wildcard_import");
            let mut found = if wildcard {
                vec![Import::whole(node, &path, ImportKind::Wildcard)]
            } else {
                names(node, code, Some(&path))
            };
            for import in &mut found {
                import.is_local = module.kind() == "relative_import";
            }
            Some(found)
        }
        _ => None,
    }
}

/// `a` of `import a.b`, `c` of `import a as c`, `d` of `from a import d`.
fn names(node: Node, code: &str, from: Option<&str>) -> Vec<Import> {
    let mut cursor = node.walk();
    let read = |item: Node| {
        let path = item.child_by_field_name("name").unwrap_or(item);
        let path: String = code[path.byte_range()].chars().filter(|c| !c.is_whitespace()).collect();
        let name = match item.child_by_field_name("alias") {
            Some(alias) => code[alias.byte_range()].to_owned(),
            None if from.is_some() => path.clone(),
            None => path.split('.').next().unwrap_or_default().to_owned(),
        };
        Import {
            statement: node.byte_range(),
            span: item.byte_range(),
            module: from.unwrap_or(&path).to_owned(),
            member: from.is_some().then_some(path),
            name: Some(name),
            kind: ImportKind::Name,
            is_local: false,
        }
    };
    node.children_by_field_name("name", &mut cursor).map(read).collect()
}
