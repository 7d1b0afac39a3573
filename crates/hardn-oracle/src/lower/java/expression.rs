//! Expressions of Java.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Arg, Expr, ExprKind, Range, Stmt, StmtKind, Type},
    lower::{
        front_end::{FrontEnd, LowerExpr, first_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a, 't> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let kind = match node.kind() {
            "identifier" => self.name(self.source.text(node), range(node)),
            "type_identifier" | "super" => ExprKind::Name(self.source.text(node)),
            "this" => ExprKind::Name("self"),
            "decimal_integer_literal"
            | "hex_integer_literal"
            | "octal_integer_literal"
            | "binary_integer_literal" => {
                let text = self.source.text(node);
                let kind = literal::integer(text).map_or(ExprKind::Float, ExprKind::Int);
                if text.ends_with(['l', 'L']) {
                    let value = Box::new(Expr::new(kind, range(node)));
                    let ty = Type { name: Cow::Borrowed("long"), ..Type::default() };
                    ExprKind::Cast { ty, value }
                } else {
                    kind
                }
            }
            "decimal_floating_point_literal" | "hex_floating_point_literal" => ExprKind::Float,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "null_literal" => ExprKind::Null,
            "character_literal" => {
                let text = self.source.text(node);
                let body = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
                ExprKind::Str(literal::unescape(body, false))
            }
            "string_literal" => self.string(node),
            "field_access" => {
                let name = self.source.field(node, "field");
                let base = self.boxed(node, "object");
                if name == "this" {
                    // `Outer.this`: fields of the classes around count as one's own.
                    ExprKind::Name("self")
                } else {
                    ExprKind::Attribute { base, name, arrow: false }
                }
            }
            "scoped_identifier" => ExprKind::Attribute {
                base: self.boxed(node, "scope"),
                name: self.source.field(node, "name"),
                arrow: false,
            },
            "class_literal" => {
                let name = named(node).into_iter().next().map_or("", |inner| self.type_name(inner));
                let base = Box::new(make::name(name, range(node)));
                ExprKind::Attribute { base, name: "class", arrow: false }
            }
            "array_access" => ExprKind::Subscript {
                base: self.boxed(node, "array"),
                index: self.boxed(node, "index"),
            },
            "method_invocation" => {
                let name_node = node.child_by_field_name("name");
                let name = name_node.map_or("", |name| self.source.text(name));
                let place = name_node.map_or_else(|| range(node), range);
                let callee = match node.child_by_field_name("object") {
                    Some(object) => {
                        let base = Box::new(self.expr(object));
                        let whole = Range { start: base.range.start, end: place.end };
                        Expr::new(ExprKind::Attribute { base, name, arrow: false }, whole)
                    }
                    None => make::name(name, place),
                };
                ExprKind::Call { callee: Box::new(callee), args: self.arguments(node) }
            }
            "object_creation_expression" => return self.creation(node),
            "method_reference" => {
                let parts = named(node);
                let name = parts.last().map_or("", |last| self.source.text(*last));
                match parts.first() {
                    Some(first) if parts.len() > 1 => ExprKind::Attribute {
                        base: Box::new(self.expr(*first)),
                        name,
                        arrow: false,
                    },
                    _ => ExprKind::Unknown(self.exprs(node)),
                }
            }
            "array_creation_expression" => return self.array(node),
            "array_initializer" | "element_value_array_initializer" => {
                ExprKind::List(self.exprs(node))
            }
            "binary_expression" => return self.binary(node),
            "instanceof_expression" => {
                let value = self.boxed(node, "left");
                let nothing = Expr::new(ExprKind::Unknown(Vec::new()), range(node));
                let right = node.child_by_field_name("right");
                match (node.child_by_field_name("name"), right) {
                    (Some(name), Some(right)) => {
                        let text = self.source.text(name);
                        self.locals.add(text);
                        let target = make::name(text, range(name));
                        let cast = ExprKind::Cast { ty: self.ty(right), value };
                        let value = Expr::new(cast, range(node));
                        ExprKind::Sequence(vec![
                            make::assigned(target, value, range(node)),
                            nothing,
                        ])
                    }
                    _ => ExprKind::Sequence(vec![*value, nothing]),
                }
            }
            "unary_expression" => {
                let inner = self.boxed(node, "operand");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("-", _) => make::negative(inner),
                    ("!", _) => ExprKind::Not(inner),
                    _ => ExprKind::Through(inner),
                }
            }
            "update_expression" => match first_named(node) {
                Some(target) => {
                    let text = self.source.text(node);
                    let prefix = text.starts_with(['+', '-']);
                    let by = if text.contains("++") { 1 } else { -1 };
                    ExprKind::Update { target: Box::new(self.expr(target)), by, prefix }
                }
                None => ExprKind::Unknown(Vec::new()),
            },
            "parenthesized_expression" | "guard" | "pattern" => return self.inner(node),
            "cast_expression" => {
                let ty = match node.child_by_field_name("type") {
                    Some(ty) => self.ty(ty),
                    None => Type::default(),
                };
                ExprKind::Cast { ty, value: self.boxed(node, "value") }
            }
            "ternary_expression" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "assignment_expression" => {
                let op = match self.source.field(node, "operator").trim_end_matches('=') {
                    "" => None,
                    text => Some(binary_op(text)),
                };
                let value = self.boxed(node, "right");
                ExprKind::Assign { op, target: self.boxed(node, "left"), value }
            }
            "lambda_expression" => self.lambda(node),
            "switch_expression" => {
                let kind = self.switch(node, true);
                let body = vec![Stmt { kind, range: range(node) }];
                ExprKind::Closure { params: Vec::new(), body }
            }
            "annotation" | "marker_annotation" => return self.annotation(node),
            "block" => {
                let body = self.block(node);
                ExprKind::Closure { params: Vec::new(), body }
            }
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }
}

impl<'a, 't> Lowering<'a, 't> {
    /// A bare name: a variable, or a field where no variable has the name.
    fn name(&self, name: &'a str, place: Range) -> ExprKind<'a> {
        if self.in_method && !self.locals.has(name) && self.fields.contains(name) {
            return make::own_field(name, place).kind;
        }
        ExprKind::Name(name)
    }

    /// `new byte[n]` is a call of `byte.[]`; with elements it is a list of them.
    fn array(&mut self, node: Node<'t>) -> Expr<'a> {
        if let Some(value) = node.child_by_field_name("value") {
            return self.expr(value);
        }
        let name = node.child_by_field_name("type").map_or("", |ty| self.type_name(ty));
        let mut args = Vec::new();
        for child in named(node) {
            if child.kind() == "dimensions_expr"
                && let Some(size) = named(child).into_iter().next()
            {
                args.push(make::arg(self.expr(size)));
            }
        }
        let base = Box::new(make::name(name, range(node)));
        let callee = ExprKind::Attribute { base, name: "[]", arrow: false };
        let callee = Box::new(Expr::new(callee, range(node)));
        Expr::new(ExprKind::Construct { callee, args }, range(node))
    }

    fn string(&mut self, node: Node<'t>) -> ExprKind<'a> {
        let parts = named(node);
        if parts.iter().any(|part| part.kind() == "string_interpolation") {
            return ExprKind::Format(
                parts
                    .into_iter()
                    .map(|part| {
                        if part.kind() == "string_interpolation" {
                            let inner = named(part).into_iter().next();
                            inner
                                .map_or_else(|| unknown(part, Vec::new()), |inner| self.expr(inner))
                        } else {
                            let text = literal::unescape(self.source.text(part), false);
                            Expr::new(ExprKind::Str(text), range(part))
                        }
                    })
                    .collect(),
            );
        }
        let text = self.source.text(node);
        let quotes = if text.len() >= 6 && text.starts_with("\"\"\"") { 3 } else { 1 };
        let body = text.get(quotes..text.len().saturating_sub(quotes)).unwrap_or("");
        ExprKind::Str(literal::unescape(body, false))
    }

    pub(super) fn arguments(&mut self, node: Node<'t>) -> Vec<Arg<'a>> {
        match node.child_by_field_name("arguments") {
            Some(list) => make::args(self.exprs(list)),
            None => Vec::new(),
        }
    }

    fn creation(&mut self, node: Node<'t>) -> Expr<'a> {
        let ty = node.child_by_field_name("type");
        let name = ty.map_or("", |ty| self.type_name(ty));
        let place = ty.map_or_else(|| range(node), range);
        let callee = Box::new(make::name(name, place));
        let args = self.arguments(node);
        let object = Expr::new(ExprKind::Construct { callee, args }, range(node));
        let Some(body) = named(node).into_iter().find(|child| child.kind() == "class_body") else {
            return object;
        };
        let mut parts = Vec::new();
        if self.methods_too {
            self.methods_too = false;
            let first = self.program.functions.len();
            self.anonymous_functions(name, body);
            let numbers = (first..self.program.functions.len()).collect();
            self.program.anonymous.insert(range(node).start, numbers);
            self.methods_too = true;
        }
        parts.push(self.anonymous_closure(body));
        parts.push(object);
        Expr::new(ExprKind::Sequence(parts), range(node))
    }

    /// Methods of an anonymous class as functions: what is asked of overriding methods is asked of them.
    fn anonymous_functions(&mut self, name: &'a str, body: Node<'t>) {
        let outer = self.class.replace(name);
        for child in named(body) {
            if child.kind() == "method_declaration" {
                self.function(child);
            }
        }
        self.class = outer;
    }

    /// The same where they stand: they see the variables around them.
    fn anonymous_closure(&mut self, body: Node<'t>) -> Expr<'a> {
        let mark = self.locals.order.len();
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let mut statements = Vec::new();
        for child in named(body) {
            if child.kind() == "field_declaration" {
                self.declaration(child, &mut statements);
            }
        }
        for child in named(body) {
            match child.kind() {
                "method_declaration" => {
                    let Some(block) = child.child_by_field_name("body") else { continue };
                    let inner = self.locals.order.len();
                    let mut params = Vec::new();
                    if let Some(list) = child.child_by_field_name("parameters") {
                        for param in named(list) {
                            self.param(param, &mut params);
                        }
                    }
                    for param in &params {
                        self.locals.add(param.name);
                    }
                    let body = self.block(block);
                    self.locals.leave(inner);
                    let closure = Expr::new(ExprKind::Closure { params, body }, range(child));
                    statements.push(make::statement(closure, range(child)));
                }
                "block" => self.statement(child, &mut statements),
                _ => {}
            }
        }
        self.in_method = outer_method;
        self.locals.leave(mark);
        Expr::new(ExprKind::Closure { params: Vec::new(), body: statements }, range(body))
    }

    fn lambda(&mut self, node: Node<'t>) -> ExprKind<'a> {
        let mark = self.locals.order.len();
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            if list.kind() == "identifier" {
                self.param(list, &mut params);
            } else {
                for param in named(list) {
                    self.param(param, &mut params);
                }
            }
        }
        for param in &params {
            self.locals.add(param.name);
        }
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let body = match node.child_by_field_name("body") {
            Some(body) if body.kind() == "block" => self.block(body),
            Some(body) => {
                let value = self.expr(body);
                vec![Stmt { kind: StmtKind::Return(Some(value)), range: range(body) }]
            }
            None => Vec::new(),
        };
        self.in_method = outer_method;
        self.locals.leave(mark);
        ExprKind::Closure { params, body }
    }

    /// Texts joined by `+` become one text; other operators stay as they are.
    fn binary(&mut self, node: Node<'t>) -> Expr<'a> {
        let op = self.source.field(node, "operator");
        if op == "+" {
            let mut operands = Vec::new();
            let mut spine = vec![node];
            let mut current = node;
            while let Some(left) = current.child_by_field_name("left") {
                if left.kind() == "binary_expression" && self.source.field(left, "operator") == "+"
                {
                    spine.push(left);
                    current = left;
                } else {
                    operands.push(left);
                    break;
                }
            }
            operands.extend(
                spine.into_iter().rev().filter_map(|node| node.child_by_field_name("right")),
            );
            if operands.len() > 2 && operands.iter().any(|part| part.kind() == "string_literal") {
                let parts = operands.into_iter().map(|part| self.expr(part)).collect();
                return Expr::new(ExprKind::Format(parts), range(node));
            }
        }
        let kind = ExprKind::Binary {
            op: binary_op(op),
            left: self.boxed(node, "left"),
            right: self.boxed(node, "right"),
        };
        Expr::new(kind, range(node))
    }
}
