//! Classes, methods and their parameters.

use tree_sitter::Node;

use super::{Lowering, statement::returning};
use crate::{
    ir::{Function, Param, Type},
    lower::{
        front_end::{FrontEnd, named, range},
        make,
    },
};

impl<'a> Lowering<'a, '_> {
    pub(super) fn class(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let outer_class = self.class.replace(name);
        let Some(body) = node.child_by_field_name("body") else {
            self.program.classes.entry(name).or_default();
            self.class = outer_class;
            return;
        };
        let locals = self.assigned(body);
        let outer_locals = std::mem::replace(&mut self.locals, locals);
        let mut statements = Vec::new();
        if let Some(superclass) = node.child_by_field_name("superclass") {
            // `class A < B` stands as a call, so that rules can ask what a class is.
            if let Some(parent) = superclass.named_child(0) {
                let parent = self.source.text(parent);
                self.program.supers.entry(name).or_default().push(parent);
            }
            let parent = self.exprs(superclass);
            let args = make::args(parent);
            let at = range(superclass);
            statements.push(make::statement(make::called("inherits", args, at), at));
        }
        statements.extend(self.block(body));
        self.locals = outer_locals;
        self.class = outer_class;
        self.program.classes.entry(name).or_default().extend(statements);
    }

    pub(super) fn method(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let body_node = node.child_by_field_name("body");
        let mut locals = self.assigned(node);
        let mut params = Vec::new();
        let outer_loop = std::mem::replace(&mut self.in_loop, false);
        std::mem::swap(&mut self.locals, &mut locals);
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        let mut body = body_node.map(|body| self.body(body)).unwrap_or_default();
        returning(&mut body);
        self.locals = locals;
        self.in_loop = outer_loop;
        self.program.functions.push(Function {
            name,
            class: self.class,
            params,
            returns: Type::default(),
            decorators: Vec::new(),
            body,
            top_level: false,
            constructor: self.class.is_some()
                && (name == "initialize" || self.filters.contains(name)),
        });
    }

    pub(super) fn params(&mut self, list: Node<'_>, out: &mut Vec<Param<'a>>) {
        for node in named(list) {
            let name = match node.kind() {
                "identifier" => self.source.text(node),
                "destructured_parameter" => {
                    self.deeper(|lowering| lowering.params(node, out));
                    continue;
                }
                _ => self.source.field(node, "name"),
            };
            let default = node.child_by_field_name("value").map(|value| self.expr(value));
            out.push(Param { name, ty: Type::default(), default, range: range(node) });
        }
    }
}
