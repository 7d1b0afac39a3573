//! Imports, types, functions and variables of Go.

use std::{borrow::Cow, collections::BTreeMap};

use tree_sitter::Node;

use super::{
    Lowering,
    types::{is_number, package_path},
};
use crate::{
    ir::{Expr, ExprKind, Function, Param, Stmt, StmtKind, Type},
    lower::{
        MAX_DEPTH,
        front_end::{FrontEnd, all_named, first_named, named, range},
        make,
    },
};

impl<'a> Lowering<'a> {
    /// Imports and types, which code may use before they are declared.
    pub(super) fn declared(&mut self, node: Node<'_>, depth: u32) {
        for child in named(node) {
            match child.kind() {
                "import_declaration" | "import_spec_list" | "type_declaration" | "ERROR"
                    if depth < 4 =>
                {
                    self.declared(child, depth + 1);
                }
                "import_spec" => self.import(child),
                "type_spec" | "type_alias" => self.type_spec(child),
                _ => {}
            }
        }
    }

    fn import(&mut self, node: Node<'_>) {
        let Some(path) = node.child_by_field_name("path") else { return };
        let path = self.source.text(path).trim_matches(['"', '`']);
        let (local, known) = package_path(path);
        let alias = self.source.field(node, "name");
        let name = if alias.is_empty() { local } else { alias };
        if !matches!(name, "_" | ".") {
            self.program.imports.insert(name, known);
        }
    }

    fn type_spec(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let Some(ty) = node.child_by_field_name("type") else { return };
        match ty.kind() {
            "struct_type" => {
                let mut fields = BTreeMap::new();
                for list in named(ty) {
                    for field in named(list) {
                        if field.kind() != "field_declaration" {
                            continue;
                        }
                        let known = self.field_type(field, "type");
                        let names: Vec<&'a str> = all_named(field, "name")
                            .into_iter()
                            .map(|name| self.source.text(name))
                            .collect();
                        if names.is_empty() {
                            // An embedded type is a field of its own name.
                            let text = self.source.field(field, "type");
                            let short = text.rsplit('.').next().unwrap_or(text);
                            fields.insert(short.trim_start_matches('*'), known);
                        } else {
                            fields.extend(names.into_iter().map(|name| (name, known.clone())));
                        }
                    }
                }
                self.program.structs.insert(name, fields);
            }
            "qualified_type" => {
                // The name stands for the type of the other package.
                let path = self.ty(ty).name.into_owned();
                self.program.imports.insert(name, path);
            }
            _ => {
                let ty = self.ty(ty);
                self.program.typedefs.insert(name, ty);
            }
        }
    }

    pub(super) fn field_type(&self, node: Node<'_>, field: &str) -> Type<'a> {
        node.child_by_field_name(field).map(|ty| self.ty(ty)).unwrap_or_default()
    }

    /// The type under the name rules know it by; all but numbers hold texts or objects.
    pub(super) fn ty(&self, node: Node<'_>) -> Type<'a> {
        let name = self.type_name(node, 0);
        let pointers = u8::from(!is_number(&name));
        Type { name, pointers, ..Type::default() }
    }

    fn type_name(&self, node: Node<'_>, depth: u32) -> Cow<'a, str> {
        let text = self.source.text(node);
        if depth > MAX_DEPTH {
            return Cow::Borrowed(text);
        }
        let inner = |node: Option<Node<'_>>| match node {
            Some(node) => self.type_name(node, depth + 1),
            None => Cow::Borrowed(""),
        };
        match node.kind() {
            "pointer_type" | "parenthesized_type" => inner(first_named(node)),
            "generic_type" => inner(node.child_by_field_name("type")),
            "slice_type" | "array_type" | "implicit_length_array_type" => {
                Cow::Owned(format!("[]{}", inner(node.child_by_field_name("element"))))
            }
            "map_type" => Cow::Owned(format!("[]{}", inner(node.child_by_field_name("value")))),
            "channel_type" => inner(node.child_by_field_name("value")),
            "qualified_type" => {
                let package = self.source.field(node, "package");
                let name = self.source.field(node, "name");
                match self.program.imports.get(package) {
                    Some(path) => Cow::Owned(format!("{path}.{name}")),
                    None => Cow::Borrowed(text),
                }
            }
            _ => match self.program.imports.get(text) {
                Some(path) => Cow::Owned(path.clone()),
                None => Cow::Borrowed(text),
            },
        }
    }

    pub(super) fn function(&mut self, node: Node<'_>, class: Option<(&'a str, Param<'a>)>) {
        let name = self.source.field(node, "name");
        let mut params = Vec::new();
        let class = class.map(|(class, param)| {
            params.push(param);
            class
        });
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        let returns = match node.child_by_field_name("result") {
            // Of several results, the first is what the others tell about.
            Some(list) if list.kind() == "parameter_list" => {
                let mut results = Vec::new();
                self.params(list, &mut results);
                if results.is_empty() { Type::default() } else { results.swap_remove(0).ty }
            }
            Some(ty) => self.ty(ty),
            None => Type::default(),
        };
        let switches = std::mem::take(&mut self.switches);
        let body = self.field_block(node, "body");
        self.switches = switches;
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns,
            decorators: Vec::new(),
            body,
            top_level: false,
            constructor: false,
        });
    }

    pub(super) fn method(&mut self, node: Node<'_>) {
        let mut receivers = Vec::new();
        let mut class = "";
        if let Some(list) = node.child_by_field_name("receiver") {
            self.params(list, &mut receivers);
            if let Some(ty) = first_named(list).and_then(|one| one.child_by_field_name("type")) {
                let text = self.source.text(ty).trim_start_matches(['*', '(', ' ']);
                class = text.split(['[', ')']).next().unwrap_or(text).trim();
            }
        }
        if receivers.is_empty() {
            self.function(node, None);
            return;
        }
        let mut receiver = receivers.swap_remove(0);
        let outer = self.receiver.replace(receiver.name);
        receiver.name = "self";
        self.function(node, Some((class, receiver)));
        self.receiver = outer;
    }

    pub(super) fn params(&mut self, list: Node<'_>, out: &mut Vec<Param<'a>>) {
        for node in named(list) {
            let variadic = node.kind() == "variadic_parameter_declaration";
            if !variadic && node.kind() != "parameter_declaration" {
                continue;
            }
            let mut ty = self.field_type(node, "type");
            if variadic {
                ty = Type { name: format!("[]{}", ty.name).into(), pointers: 1, ..ty };
            }
            let names = all_named(node, "name");
            if names.is_empty() {
                out.push(Param { name: "", ty, default: None, range: range(node) });
                continue;
            }
            for name in names {
                out.push(Param {
                    name: self.source.text(name),
                    ty: ty.clone(),
                    default: None,
                    range: range(name),
                });
            }
        }
    }

    /// `var` and `const` declarations.
    pub(super) fn variables(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let mut names = all_named(node, "name");
        names.retain(|name| name.kind() == "identifier");
        let ty = self.field_type(node, "type");
        let mut values: Vec<Expr<'a>> = match node.child_by_field_name("value") {
            Some(list) => self.listed(list),
            None => Vec::new(),
        };
        if values.len() == names.len() || values.is_empty() {
            let mut values = values.into_iter();
            for name in names {
                let init = values.next();
                let text = self.source.text(name);
                let kind = match init {
                    Some(value) if ty.name.is_empty() => {
                        let target = make::name(text, range(name));
                        StmtKind::Expr(make::assigned(target, value, range(node)))
                    }
                    None if node.kind() == "const_spec" => continue,
                    init => StmtKind::Declare { name: text, ty: ty.clone(), init },
                };
                out.push(Stmt { kind, range: range(node) });
            }
            return;
        }
        let targets =
            names.into_iter().map(|name| make::name(self.source.text(name), range(name))).collect();
        let at = range(node);
        let target = Expr::new(ExprKind::Tuple(targets), at);
        out.push(make::statement(make::assigned(target, values.swap_remove(0), at), at));
    }
}
