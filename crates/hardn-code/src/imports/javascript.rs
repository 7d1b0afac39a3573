//! Imports and requires of JavaScript and TypeScript.

use tree_sitter::Node;

use super::read::{Import, ImportKind, unquoted};

pub(super) fn statement(node: Node, code: &str) -> Option<Vec<Import>> {
    let mut found = match node.kind() {
        "import_statement" => import(node, code),
        "export_statement" => {
            let module = unquoted(node.child_by_field_name("source")?, code)?;
            Some(vec![new(node, module, ImportKind::SideEffect)])
        }
        "lexical_declaration" | "variable_declaration" => declaration(node, code),
        "expression_statement" => required(node.named_child(0)?, code).map(|import| vec![import]),
        _ => None,
    }?;
    for import in &mut found {
        import.statement = node.byte_range();
    }
    Some(found)
}

/// `require("x")` or `import("x")` itself.
pub(super) fn required(node: Node, code: &str) -> Option<Import> {
    if node.kind() != "call_expression" || node.has_error() {
        return None;
    }
    let function = node.child_by_field_name("function")?;
    let arguments = node.child_by_field_name("arguments")?;
    let is_require = function.kind() == "import" || &code[function.byte_range()] == "require";
    if !is_require || arguments.named_child_count() == 0 {
        return None;
    }
    let module = unquoted(arguments.named_child(0)?, code)?;
    Some(new(node, module, ImportKind::SideEffect))
}

fn new(node: Node, module: &str, kind: ImportKind) -> Import {
    Import { is_local: is_local(module), ..Import::whole(node, module, kind) }
}

/// Paths, the aliases bundlers usually give a project's own folders, addresses.
fn is_local(module: &str) -> bool {
    module.starts_with(['.', '/', '~', '#']) || module.starts_with("@/") || module.contains("://")
}

fn import(node: Node, code: &str) -> Option<Vec<Import>> {
    let mut cursor = node.walk();
    let children: Vec<Node> = node.named_children(&mut cursor).collect();
    if let Some(clause) = children.iter().find(|n| n.kind() == "import_require_clause") {
        let module = unquoted(clause.child_by_field_name("source")?, code)?;
        let name = clause.named_child(0).map(|name| code[name.byte_range()].to_owned());
        return Some(vec![Import { name, ..new(node, module, ImportKind::Name) }]);
    }
    let module = unquoted(node.child_by_field_name("source")?, code)?;
    let Some(clause) = children.iter().find(|n| n.kind() == "import_clause") else {
        return Some(vec![new(node, module, ImportKind::SideEffect)]);
    };
    let named = |item: Node, name: Node, member: Option<&str>| Import {
        span: item.byte_range(),
        name: Some(code[name.byte_range()].to_owned()),
        member: member.map(str::to_owned),
        ..new(node, module, ImportKind::Name)
    };
    let mut found = Vec::new();
    let mut cursor = clause.walk();
    for part in clause.named_children(&mut cursor) {
        match part.kind() {
            "identifier" => found.push(named(part, part, Some("default"))),
            "namespace_import" => {
                found.extend(part.named_child(0).map(|name| named(part, name, None)));
            }
            "named_imports" => {
                let mut cursor = part.walk();
                for item in part.named_children(&mut cursor) {
                    let Some(member) = item.child_by_field_name("name") else { continue };
                    let name = item.child_by_field_name("alias").unwrap_or(member);
                    found.push(named(item, name, Some(&code[member.byte_range()])));
                }
            }
            _ => {}
        }
    }
    if found.is_empty() {
        // `import {} from "x"` loads it.
        found.push(new(node, module, ImportKind::SideEffect));
    }
    Some(found)
}

/// `const a = require("x"), { b, c: d } = require("y").z`, where every value is a require.
fn declaration(node: Node, code: &str) -> Option<Vec<Import>> {
    let mut found = Vec::new();
    let mut cursor = node.walk();
    for declarator in node.named_children(&mut cursor) {
        if declarator.kind() == "comment" {
            continue;
        }
        let value = declarator.child_by_field_name("value")?;
        let (required, member) = require_chain(value, code)?;
        let pattern = declarator.child_by_field_name("name")?;
        let item = |span: Node, name: &str, member: Option<String>| Import {
            span: span.byte_range(),
            name: Some(name.to_owned()),
            member,
            kind: ImportKind::Name,
            ..required.clone()
        };
        if pattern.kind() == "identifier" {
            found.push(item(declarator, &code[pattern.byte_range()], member));
            continue;
        }
        let mut cursor = pattern.walk();
        let parts: Vec<Node> =
            pattern.named_children(&mut cursor).filter(|part| part.kind() != "comment").collect();
        let names = parts.iter().map(|part| match part.kind() {
            "shorthand_property_identifier_pattern" => Some((*part, *part)),
            "pair_pattern" => {
                let value = part.child_by_field_name("value")?;
                (value.kind() == "identifier").then_some((part.child_by_field_name("key")?, value))
            }
            _ => None,
        });
        match names
            .collect::<Option<Vec<_>>>()
            .filter(|names| pattern.kind() == "object_pattern" && !names.is_empty())
        {
            Some(names) => found.extend(names.iter().zip(&parts).map(|((key, name), part)| {
                let path = member.iter().cloned().chain([code[key.byte_range()].to_owned()]);
                item(*part, &code[name.byte_range()], Some(path.collect::<Vec<_>>().join(".")))
            })),
            // Defaults, rests and lists: what they bind is not taken apart.
            None => found.push(Import { span: declarator.byte_range(), ..required }),
        }
    }
    (!found.is_empty()).then_some(found)
}

/// `require("x")`, and what is taken of it or done with it at once: `require("x").y`, `require("x")()`, `await import("x")`.
fn require_chain(mut node: Node, code: &str) -> Option<(Import, Option<String>)> {
    let whole = node;
    loop {
        if let Some(import) = required(node, code) {
            let rest = code[node.end_byte()..whole.end_byte()].trim_start_matches([')', '.']);
            let is_path = !rest.is_empty()
                && rest.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '$'));
            return Some((import, is_path.then(|| rest.to_owned())));
        }
        node = match node.kind() {
            "call_expression" => node.child_by_field_name("function")?,
            "member_expression" => node.child_by_field_name("object")?,
            "await_expression" | "parenthesized_expression" => node.named_child(0)?,
            _ => return None,
        };
    }
}
