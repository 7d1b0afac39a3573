//! Classes, methods, fields, annotations and types of Java.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Arg, Expr, ExprKind, Function, Param, Range, Stmt, StmtKind, Type},
    lower::{
        MAX_DEPTH,
        front_end::{FrontEnd, all_named, named, range},
        make,
    },
};

/// The keyword under which an annotation of a parameter names it.
pub(crate) const PARAMETER: &str = "parameter";

impl<'a, 't> Lowering<'a, 't> {
    pub(super) fn members(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        for child in named(node) {
            self.member(child, out);
        }
    }

    /// What stands in a class body or outside all classes.
    fn member(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.deeper(|lowering| lowering.member_inner(node, out));
    }

    fn member_inner(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        match node.kind() {
            "import_declaration" => self.import(node),
            "method_declaration"
            | "constructor_declaration"
            | "compact_constructor_declaration" => {
                self.annotations(node, out);
                self.function(node);
            }
            "field_declaration" | "constant_declaration" => {
                self.annotations(node, out);
                self.declaration(node, out);
            }
            "static_initializer" => self.block_into(node, out),
            "enum_body_declarations" | "ERROR" => self.members(node, out),
            "enum_constant" => {
                for child in named(node) {
                    if child.kind() == "argument_list" {
                        let args = self.exprs(child);
                        let expr = Expr::new(ExprKind::Unknown(args), range(child));
                        out.push(make::statement(expr, range(child)));
                    }
                }
                if let Some(body) = node.child_by_field_name("body") {
                    self.members(body, out);
                }
            }
            "package_declaration"
            | "module_declaration"
            | "modifiers"
            | "identifier"
            | "type_identifier" => {}
            _ => self.statement(node, out),
        }
    }

    /// Annotations as calls, so that rules can read their arguments: `@Name(..)`.
    fn annotations(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        for expr in self.decorators(node) {
            let range = expr.range;
            out.push(make::statement(expr, range));
        }
    }

    fn decorators(&mut self, node: Node<'t>) -> Vec<Expr<'a>> {
        let mut out = Vec::new();
        for child in named(node) {
            match child.kind() {
                "modifiers" => out.extend(self.decorators(child)),
                "annotation" | "marker_annotation" => out.push(self.annotation(child)),
                _ => {}
            }
        }
        out
    }

    /// The name of an annotation with its sign, without the package.
    fn annotation_name(&self, node: Node<'t>) -> &'a str {
        let name = node.child_by_field_name("name");
        match name {
            Some(name) if name.kind() == "identifier" => {
                self.source.code.get(node.start_byte()..name.end_byte()).unwrap_or("")
            }
            Some(name) => self.source.field(name, "name"),
            None => "",
        }
    }

    pub(super) fn annotation(&mut self, node: Node<'t>) -> Expr<'a> {
        let mut args = Vec::new();
        if let Some(list) = node.child_by_field_name("arguments") {
            for child in named(list) {
                if child.kind() == "element_value_pair" {
                    let name = Some(self.source.field(child, "key"));
                    let value = self.field_copy(child, "value");
                    args.push(Arg { name, value });
                } else {
                    args.push(make::arg(self.copy(child)));
                }
            }
        }
        make::called(self.annotation_name(node), args, range(node))
    }

    /// Classes are known by their simple names; what is imported from classes by the class and the name.
    pub(super) fn import(&mut self, node: Node<'t>) {
        let mut cursor = node.walk();
        if !node.children(&mut cursor).any(|child| child.kind() == "static") {
            return;
        }
        let Some(path) = named(node).into_iter().find(|child| child.kind() == "scoped_identifier")
        else {
            return;
        };
        let name = self.source.field(path, "name");
        let class = self.source.field(path, "scope").rsplit('.').next().unwrap_or("");
        if named(node).iter().all(|child| child.kind() != "asterisk") {
            self.program.imports.insert(name, format!("{class}.{name}"));
        }
    }

    pub(super) fn class(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.annotations(node, out);
        let name = self.source.field(node, "name");
        let decorators = self.decorators(node);
        self.program.decorators.insert(name, decorators);
        let supers: Vec<&'a str> = named(node)
            .into_iter()
            .filter(|child| {
                matches!(child.kind(), "superclass" | "super_interfaces" | "extends_interfaces")
            })
            .flat_map(|child| {
                let list = named(child);
                match list.as_slice() {
                    [only] if only.kind() == "type_list" => named(*only),
                    _ => list,
                }
            })
            .map(|ty| self.type_name(ty))
            .collect();
        self.program.supers.insert(name, supers);
        let Some(body) = node.child_by_field_name("body") else { return };
        let outer_class = self.class.replace(name);
        let outer_fields = self.fields.clone();
        let outer_locals = std::mem::take(&mut self.locals);
        let outer_method = std::mem::replace(&mut self.in_method, false);
        let mut statements = Vec::new();
        // Fields of the classes around are fields here, too.
        // Classes inside their values are not asked for that again.
        let around = std::mem::take(&mut self.bodies);
        for field in around.iter().take(4).flat_map(|body| named(*body)) {
            if matches!(field.kind(), "field_declaration" | "constant_declaration") {
                self.declaration(field, &mut statements);
            }
        }
        self.bodies = around;
        self.collect_fields(body);
        if let Some(params) = node.child_by_field_name("parameters") {
            let mut fields = Vec::new();
            for param in named(params) {
                self.param(param, &mut fields);
            }
            for param in fields {
                self.fields.insert(param.name);
                let kind = StmtKind::Declare { name: param.name, ty: param.ty, init: None };
                statements.push(Stmt { kind, range: param.range });
            }
        }
        self.bodies.push(body);
        self.members(body, &mut statements);
        self.bodies.pop();
        self.class = outer_class;
        self.fields = outer_fields;
        self.locals = outer_locals;
        self.in_method = outer_method;
        self.program.classes.insert(name, statements);
    }

    fn collect_fields(&mut self, body: Node<'t>) {
        for child in named(body) {
            match child.kind() {
                "field_declaration" | "constant_declaration" => {
                    for declarator in all_named(child, "declarator") {
                        self.fields.insert(self.source.field(declarator, "name"));
                    }
                }
                "enum_body_declarations" => self.collect_fields(child),
                _ => {}
            }
        }
    }

    pub(super) fn function(&mut self, node: Node<'t>) {
        let Some(body) = node.child_by_field_name("body") else { return };
        let name = self.source.field(node, "name");
        let constructor = node.kind() != "method_declaration";
        let mut decorators = self.decorators(node);
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let mark = self.locals.order.len();
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            for param in named(list) {
                self.param(param, &mut params);
                let Some(last) = params.last() else { continue };
                // An annotation of a parameter names it.
                for annotation in annotations_of(param) {
                    let place = Range { start: last.range.start, end: last.range.end };
                    let value = make::name(last.name, place);
                    let callee = ExprKind::Name(self.annotation_name(annotation));
                    let kind = ExprKind::Call {
                        callee: Box::new(Expr::new(callee, range(annotation))),
                        args: vec![Arg { name: Some(PARAMETER), value }],
                    };
                    decorators.push(Expr::new(kind, range(annotation)));
                }
            }
        }
        for param in &params {
            self.locals.add(param.name);
        }
        let body = self.block(body);
        self.locals.leave(mark);
        self.in_method = outer_method;
        let returns = match node.child_by_field_name("type") {
            Some(ty) => self.ty(ty),
            None => Type { name: Cow::Borrowed(name), ..Type::default() },
        };
        self.program.functions.push(Function {
            name,
            class: self.class,
            params,
            returns,
            decorators,
            body,
            top_level: false,
            constructor,
        });
    }

    pub(super) fn param(&mut self, node: Node<'t>, out: &mut Vec<Param<'a>>) {
        let (name, ty) = match node.kind() {
            "formal_parameter" | "catch_formal_parameter" => {
                let ty = match node.child_by_field_name("type") {
                    Some(ty) => self.ty(ty),
                    None => Type::default(),
                };
                (self.source.field(node, "name"), ty)
            }
            "spread_parameter" => {
                let declarator =
                    named(node).into_iter().find(|part| part.kind() == "variable_declarator");
                let ty = named(node)
                    .into_iter()
                    .find(|part| !matches!(part.kind(), "modifiers" | "variable_declarator"))
                    .map(|ty| format!("{}[]", self.type_name(ty)));
                let ty = Type { name: Cow::Owned(ty.unwrap_or_default()), ..Type::default() };
                (declarator.map_or("", |node| self.source.field(node, "name")), ty)
            }
            "identifier" => (self.source.text(node), Type::default()),
            _ => return,
        };
        out.push(Param { name, ty, default: None, range: range(node) });
    }

    /// The simple name of a type, without packages, outer classes and parameters.
    pub(super) fn type_name(&self, node: Node<'t>) -> &'a str {
        let mut node = node;
        for _ in 0..MAX_DEPTH {
            let next = match node.kind() {
                "generic_type" => named(node).into_iter().next(),
                "scoped_type_identifier" => {
                    named(node).into_iter().rev().find(|part| part.kind() == "type_identifier")
                }
                "annotated_type" => named(node).into_iter().next_back(),
                "array_type" => node.child_by_field_name("element"),
                _ => None,
            };
            match next {
                Some(inner) => node = inner,
                None => break,
            }
        }
        self.source.text(node)
    }

    pub(super) fn ty(&self, node: Node<'t>) -> Type<'a> {
        let name = self.type_name(node);
        let name = if node.kind() == "array_type" {
            Cow::Owned(format!("{name}[]"))
        } else {
            Cow::Borrowed(name)
        };
        Type { name, ..Type::default() }
    }

    pub(super) fn declaration(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let ty = match node.child_by_field_name("type") {
            Some(ty) => self.ty(ty),
            None => Type::default(),
        };
        let declarators = all_named(node, "declarator");
        for declarator in declarators {
            let init = declarator.child_by_field_name("value").map(|value| self.expr(value));
            let name = self.source.field(declarator, "name");
            let mut ty = if ty.name == "var" { Type::default() } else { ty.clone() };
            if declarator.child_by_field_name("dimensions").is_some() {
                ty.name = Cow::Owned(format!("{}[]", ty.name));
            }
            if self.in_method {
                self.locals.add(name);
            }
            out.push(Stmt { kind: StmtKind::Declare { name, ty, init }, range: range(declarator) });
        }
    }
}

fn annotations_of(param: Node<'_>) -> Vec<Node<'_>> {
    named(param)
        .into_iter()
        .filter(|child| child.kind() == "modifiers")
        .flat_map(named)
        .filter(|child| matches!(child.kind(), "annotation" | "marker_annotation"))
        .collect()
}
