//! Imports and exports.

use tree_sitter::Node;

use super::{
    Lowering,
    expression::quoted,
    function::{EXPORT, is_function},
};
use crate::{
    ir::{ExprKind, Range, Stmt},
    lower::{
        front_end::{FrontEnd, first_named, named},
        make,
    },
};

impl<'a> Lowering<'a> {
    pub(super) fn import(&mut self, node: Node<'_>) {
        let module = match node.child_by_field_name("source") {
            Some(source) => module_path(self.source.text(source)),
            None => return,
        };
        let mut stack = named(node);
        while let Some(part) = stack.pop() {
            match part.kind() {
                "import_clause" | "named_imports" => stack.extend(named(part)),
                "identifier" => {
                    self.program.imports.insert(self.source.text(part), module.clone());
                }
                "namespace_import" => {
                    if let Some(name) = first_named(part) {
                        self.program.imports.insert(self.source.text(name), module.clone());
                    }
                }
                "import_require_clause" => {
                    let source = self.source.field(part, "source");
                    if let Some(name) = first_named(part) {
                        let path = module_path(source);
                        self.program.imports.insert(self.source.text(name), path);
                    }
                }
                "import_specifier" => {
                    let name = self.source.field(part, "name");
                    let alias = self.source.field(part, "alias");
                    let path =
                        if name == "default" { module.clone() } else { format!("{module}.{name}") };
                    self.program.imports.insert(if alias.is_empty() { name } else { alias }, path);
                }
                _ => {}
            }
        }
    }

    pub(super) fn export(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let outer = std::mem::replace(&mut self.exporting, true);
        for child in named(node) {
            match child.kind() {
                "export_clause" => {
                    for part in named(child) {
                        self.exported.insert(self.source.field(part, "name"));
                    }
                }
                "identifier" => {
                    self.exported.insert(self.source.text(child));
                }
                "string" | "decorator" | "namespace_export" => {}
                kind if is_function(kind) => self.function("default", child, out),
                _ => self.statement(child, out),
            }
        }
        self.exporting = outer;
    }

    /// What was exported by name after it was declared.
    pub(super) fn mark_exported(&mut self) {
        for function in &mut self.program.functions {
            let named = self.exported.contains(function.name)
                || function.class.is_some_and(|class| self.exported.contains(class));
            let known = function
                .decorators
                .iter()
                .any(|decorator| matches!(decorator.kind, ExprKind::Name(EXPORT)));
            if named && !known && !function.top_level {
                function.decorators.push(make::name(EXPORT, Range::default()));
            }
        }
    }

    /// The module that `require("...")` gives.
    pub(super) fn required(&self, node: Node<'_>) -> Option<String> {
        if node.kind() != "call_expression" || self.source.field(node, "function") != "require" {
            return None;
        }
        let first = first_named(node.child_by_field_name("arguments")?)?;
        (first.kind() == "string").then(|| module_path(self.source.text(first)))
    }
}

/// A module as a dotted path: `node:fs/promises` is `fs.promises`.
fn module_path(quoted_text: &str) -> String {
    let text = quoted(quoted_text);
    let text = text.strip_prefix("node:").unwrap_or(text);
    match text {
        "fs/promises" => "fs.promises".to_owned(),
        "dns/promises" => "dns.promises".to_owned(),
        _ => text.strip_suffix(".js").unwrap_or(text).to_owned(),
    }
}
