//! Declarations, and patterns that are taken apart.

use tree_sitter::Node;

use super::{Lowering, function::is_function};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Range, Stmt, StmtKind, Type},
    lower::{
        front_end::{FrontEnd, first_named, named, range},
        make,
    },
};

impl<'a> Lowering<'a> {
    pub(super) fn declarator(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let Some(target) = node.child_by_field_name("name") else { return };
        let name = self.source.text(target);
        let Some(value) = node.child_by_field_name("value") else {
            let kind = StmtKind::Declare { name, ty: Type::default(), init: None };
            if target.kind() == "identifier" {
                out.push(Stmt { kind, range: range(node) });
            }
            return;
        };
        if target.kind() == "identifier" {
            if is_function(value.kind()) {
                self.function(name, value, out);
                return;
            }
            if value.kind() == "class" {
                self.class(value, name);
                return;
            }
            if let Some(module) = self.required(value) {
                self.program.imports.insert(name, module);
            }
        }
        if target.kind() == "array_pattern"
            && let [state, setter] = named(target).as_slice()
            && self.source.field(value, "function").ends_with("useState")
        {
            self.setters.insert(self.source.text(*setter), self.source.text(*state));
        }
        let value = self.expr(value);
        self.bind(target, value, out);
    }

    /// Assigns a value to a name or to the names in a pattern.
    pub(super) fn bind(&mut self, target: Node<'_>, value: Expr<'a>, out: &mut Vec<Stmt<'a>>) {
        self.deeper(|lowering| lowering.bind_inner(target, value, out));
    }

    fn bind_inner(&mut self, target: Node<'_>, value: Expr<'a>, out: &mut Vec<Stmt<'a>>) {
        let at = range(target);
        match target.kind() {
            "object_pattern" | "array_pattern" => {
                let whole = self.source.text(target);
                push_assign(make::name(whole, at), value, at, out);
                for (number, child) in named(target).into_iter().enumerate() {
                    let base = Box::new(make::name(whole, at));
                    if target.kind() == "array_pattern" {
                        let index = Box::new(Expr::new(ExprKind::Int(number as i64), range(child)));
                        let part = match child.kind() {
                            "rest_pattern" => *base,
                            _ => Expr::new(ExprKind::Subscript { base, index }, range(child)),
                        };
                        self.bind(child, part, out);
                        continue;
                    }
                    let (key, inner) = match child.kind() {
                        "pair_pattern" => {
                            (child.child_by_field_name("key"), child.child_by_field_name("value"))
                        }
                        "object_assignment_pattern" => {
                            (child.child_by_field_name("left"), Some(child))
                        }
                        "rest_pattern" => {
                            self.bind(child, *base, out);
                            continue;
                        }
                        _ => (Some(child), Some(child)),
                    };
                    let (Some(key), Some(inner)) = (key, inner) else { continue };
                    let name = self.source.text(key).trim_matches(['"', '\'']);
                    let part =
                        Expr::new(ExprKind::Attribute { base, name, arrow: false }, range(child));
                    self.bind(inner, part, out);
                }
            }
            "assignment_pattern" | "object_assignment_pattern" => {
                let default = self.field_expr(target, "right");
                let kind = ExprKind::Binary {
                    op: BinaryOp::Or,
                    left: Box::new(value),
                    right: Box::new(default),
                };
                if let Some(left) = target.child_by_field_name("left") {
                    self.bind(left, Expr::new(kind, at), out);
                }
            }
            "rest_pattern" => {
                if let Some(inner) = first_named(target) {
                    self.bind(inner, value, out);
                }
            }
            "shorthand_property_identifier_pattern" => {
                let name = ExprKind::Name(self.source.text(target));
                push_assign(Expr::new(name, at), value, at, out);
            }
            _ => {
                let target = self.expr(target);
                push_assign(target, value, at, out);
            }
        }
    }
}

pub(super) fn push_assign<'a>(
    target: Expr<'a>,
    value: Expr<'a>,
    at: Range,
    out: &mut Vec<Stmt<'a>>,
) {
    // An assignment to itself says nothing; patterns of parameters make some.
    if let (ExprKind::Name(a), ExprKind::Name(b)) = (&target.kind, &value.kind)
        && a == b
    {
        return;
    }
    let at = Range { start: at.start, end: at.end.max(value.range.end) };
    out.push(make::statement(make::assigned(target, value, at), at));
}
