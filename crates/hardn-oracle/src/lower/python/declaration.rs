//! Imports, classes and functions of Python.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Expr, Function, Param, Type},
    lower::front_end::{FrontEnd, all_named, first_named, named, range},
};

impl<'a> Lowering<'a> {
    pub(super) fn import(&mut self, node: Node<'_>) {
        let module = node.child_by_field_name("module_name").map(|module| self.source.text(module));
        let names = all_named(node, "name");
        for name in names {
            let (path, alias) = if name.kind() == "aliased_import" {
                (self.source.field(name, "name"), Some(self.source.field(name, "alias")))
            } else {
                (self.source.text(name), None)
            };
            if let Some(module) = module {
                let full = format!("{}.{path}", module.trim_start_matches('.'));
                self.program
                    .imports
                    .insert(alias.unwrap_or(path), full.trim_start_matches('.').to_owned());
            } else {
                // `import a.b` binds `a`, and `a.b.c` is then written in full.
                let local = alias.unwrap_or_else(|| path.split('.').next().unwrap_or(path));
                let full = if alias.is_some() { path } else { local };
                self.program.imports.insert(local, full.to_owned());
            }
        }
    }

    pub(super) fn class(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let outer = self.class.replace(name);
        let body = self.field_block(node, "body");
        self.class = outer;
        let supers = node.child_by_field_name("superclasses").map(named).unwrap_or_default();
        let supers = supers.into_iter().filter_map(|base| match base.kind() {
            "identifier" => Some(self.source.text(base)),
            // A class is known by its last name, however it was imported.
            "attribute" => Some(self.source.field(base, "attribute")),
            _ => None,
        });
        self.program.supers.insert(name, supers.collect());
        self.program.classes.insert(name, body);
    }

    pub(super) fn function(&mut self, node: Node<'_>, decorators: Vec<Expr<'a>>) {
        let name = self.source.field(node, "name");
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            for param in named(list) {
                self.param(param, &mut params);
            }
        }
        let class = self.class;
        // Nested functions are functions of their own and no methods.
        let body = {
            let outer = self.class.take();
            let body = self.field_block(node, "body");
            self.class = outer;
            body
        };
        let returns =
            Type { name: Cow::Borrowed(self.source.field(node, "return_type")), ..Type::default() };
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns,
            decorators,
            body,
            top_level: false,
            constructor: class.is_some() && matches!(name, "__init__" | "setUp" | "__post_init__"),
        });
    }

    fn param(&mut self, node: Node<'_>, out: &mut Vec<Param<'a>>) {
        let name_node = match node.kind() {
            "identifier" => Some(node),
            "typed_parameter" | "list_splat_pattern" | "dictionary_splat_pattern" => {
                first_named(node)
            }
            "default_parameter" | "typed_default_parameter" => node.child_by_field_name("name"),
            _ => None,
        };
        let Some(name_node) = name_node else { return };
        let default = node.child_by_field_name("value").map(|value| self.expr(value));
        let ty = Type { name: Cow::Borrowed(self.source.field(node, "type")), ..Type::default() };
        let name = self.source.text(name_node).trim_start_matches('*');
        out.push(Param { name, ty, default, range: range(node) });
    }

    pub(super) fn param_names(&mut self, list: Node<'_>, out: &mut Vec<&'a str>) {
        let mut params = Vec::new();
        for param in named(list) {
            self.param(param, &mut params);
        }
        out.extend(params.into_iter().map(|param| param.name));
    }
}
