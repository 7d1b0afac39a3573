//! Expressions of C and C++.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Arg, Expr, ExprKind},
    lower::{
        MAX_DEPTH,
        front_end::{FrontEnd, LowerExpr, first_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let text = self.source.text(node);
        let kind = match node.kind() {
            "identifier" | "field_identifier" | "type_identifier" | "this" => match text {
                "NULL" | "nullptr" => ExprKind::Null,
                "INT_MAX" => ExprKind::Int(i64::from(i32::MAX)),
                "INT_MIN" => ExprKind::Int(i64::from(i32::MIN)),
                name => ExprKind::Name(self.aliases.get(name).copied().unwrap_or(name)),
            },
            "null" => ExprKind::Null,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "number_literal" => literal::integer(text).map_or(ExprKind::Float, ExprKind::Int),
            "char_literal" => {
                let inner = text.trim_start_matches(['L', 'u', 'U', '8']).trim_matches('\'');
                let value = literal::unescape(if inner.is_empty() { "'" } else { inner }, false);
                value
                    .chars()
                    .next()
                    .map_or(ExprKind::Float, |c| ExprKind::Int(i64::from(u32::from(c))))
            }
            "string_literal" => {
                let start = text.find('"').map_or(0, |at| at + 1);
                let end = text.len().saturating_sub(1).max(start);
                ExprKind::Str(literal::unescape(text.get(start..end).unwrap_or(""), false))
            }
            "raw_string_literal" => ExprKind::Str(Cow::Borrowed(text)),
            "concatenated_string" => self.concatenated(node),
            "qualified_identifier" => {
                let mut parts = text.split("::").filter(|part| !part.is_empty());
                let first = parts.next().unwrap_or("");
                let mut expr = make::name(first, range(node));
                for part in parts.take(MAX_DEPTH as usize) {
                    let kind =
                        ExprKind::Attribute { base: Box::new(expr), name: part, arrow: false };
                    expr = Expr::new(kind, range(node));
                }
                return expr;
            }
            "field_expression" => ExprKind::Attribute {
                base: self.boxed(node, "argument"),
                name: self.source.field(node, "field"),
                arrow: self.source.field(node, "operator") == "->",
            },
            "subscript_expression" => {
                let base = self.boxed(node, "argument");
                let index = match (
                    node.child_by_field_name("index"),
                    node.child_by_field_name("indices"),
                ) {
                    (Some(index), _) => self.expr(index),
                    (None, Some(list)) => {
                        let mut parts = self.exprs(list);
                        if parts.len() == 1 { parts.remove(0) } else { unknown(node, parts) }
                    }
                    _ => unknown(node, Vec::new()),
                };
                ExprKind::Subscript { base, index: Box::new(index) }
            }
            "call_expression" => {
                let callee = self.boxed(node, "function");
                let mut args = Vec::new();
                if let Some(list) = node.child_by_field_name("arguments") {
                    args = make::args(self.exprs(list));
                }
                ExprKind::Call { callee, args }
            }
            "binary_expression" => {
                if let Some(streamed) = self.streamed(node) {
                    return streamed;
                }
                let op = binary_op(self.source.field(node, "operator"));
                ExprKind::Binary {
                    op,
                    left: self.boxed(node, "left"),
                    right: self.boxed(node, "right"),
                }
            }
            "assignment_expression" => {
                let op = self.source.field(node, "operator").trim_end_matches('=');
                let op = if op.is_empty() { None } else { Some(binary_op(op)) };
                ExprKind::Assign {
                    op,
                    target: self.boxed(node, "left"),
                    value: self.boxed(node, "right"),
                }
            }
            "update_expression" => {
                let operator = node.child_by_field_name("operator");
                let target = self.boxed(node, "argument");
                let prefix =
                    operator.is_some_and(|operator| operator.start_byte() == node.start_byte());
                let by = if operator.map(|operator| self.source.text(operator)) == Some("++") {
                    1
                } else {
                    -1
                };
                ExprKind::Update { target, by, prefix }
            }
            "unary_expression" => {
                let inner = self.boxed(node, "argument");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("!" | "not", _) => ExprKind::Not(inner),
                    ("-", _) => make::negative(inner),
                    _ => ExprKind::Through(inner),
                }
            }
            "pointer_expression" => {
                let inner = self.boxed(node, "argument");
                if self.source.field(node, "operator") == "*" {
                    ExprKind::Deref(inner)
                } else {
                    ExprKind::AddressOf(inner)
                }
            }
            "cast_expression" => {
                ExprKind::Cast { ty: self.type_descriptor(node), value: self.boxed(node, "value") }
            }
            "sizeof_expression" => match node.child_by_field_name("value") {
                Some(value) => ExprKind::SizeofValue(Box::new(self.expr(value))),
                None => ExprKind::SizeofType(self.type_descriptor(node)),
            },
            "offsetof_expression" => {
                let ty = self.type_descriptor(node);
                let member = make::name(self.source.field(node, "member"), range(node));
                let ty = Expr::new(ExprKind::SizeofType(ty), range(node));
                ExprKind::Call {
                    callee: Box::new(make::name("offsetof", range(node))),
                    args: make::args([ty, member]),
                }
            }
            "conditional_expression" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "comma_expression" => ExprKind::Sequence(self.exprs(node)),
            "initializer_list" => ExprKind::List(self.exprs(node)),
            "initializer_pair" => match node.child_by_field_name("value") {
                Some(value) => return self.expr(value),
                None => ExprKind::Unknown(Vec::new()),
            },
            "parenthesized_expression" | "condition_clause" => return self.inner(node),
            "new_expression" => {
                let length = node
                    .child_by_field_name("declarator")
                    .and_then(|inner| inner.child_by_field_name("length"));
                let mut args: Vec<Arg<'a>> = Vec::new();
                let mut ty = self.type_of(node.child_by_field_name("type"));
                if let Some(length) = length {
                    // What one element takes; `new T *[n]` has pointers for elements.
                    let stars = self.source.text(node);
                    let stars = stars.split('[').next().unwrap_or("").matches('*').count();
                    ty.pointers += u8::try_from(stars).unwrap_or(0);
                    let at = range(node);
                    args.push(Arg { name: Some("length"), value: self.expr(length) });
                    args.push(Arg {
                        name: Some("element"),
                        value: Expr::new(ExprKind::SizeofType(ty), at),
                    });
                    return Expr::new(ExprKind::New { args }, at);
                }
                if let Some(list) = node.child_by_field_name("arguments") {
                    args = make::args(self.exprs(list));
                }
                match ty.name {
                    Cow::Borrowed(name) if !name.is_empty() => ExprKind::Construct {
                        callee: Box::new(make::name(name, range(node))),
                        args,
                    },
                    _ => ExprKind::New { args },
                }
            }
            "delete_expression" => match named(node).last() {
                Some(inner) => ExprKind::Free(Box::new(self.expr(*inner))),
                None => ExprKind::Unknown(Vec::new()),
            },
            "compound_statement" => {
                self.block(node);
                ExprKind::Unknown(Vec::new())
            }
            "compound_literal_expression" => return *self.boxed(node, "value"),
            "lambda_expression" => {
                let body = node
                    .child_by_field_name("body")
                    .map(|body| self.block(body))
                    .unwrap_or_default();
                drop(body);
                ExprKind::Unknown(Vec::new())
            }
            "template_function" => ExprKind::Name(self.source.field(node, "name")),
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }
}

impl<'a> Lowering<'a> {
    /// `cout << a << b` and `cin >> a` as calls of the stream with all that is written or filled.
    fn streamed(&mut self, node: Node<'_>) -> Option<Expr<'a>> {
        let operator = self.source.field(node, "operator");
        if !matches!(operator, "<<" | ">>") {
            return None;
        }
        let mut parts = Vec::new();
        let mut current = node;
        for _ in 0..MAX_DEPTH {
            match current.kind() {
                "binary_expression" if self.source.field(current, "operator") == operator => {
                    parts.push(current.child_by_field_name("right")?);
                    current = current.child_by_field_name("left")?;
                }
                "parenthesized_expression" => current = first_named(current)?,
                _ => break,
            }
        }
        let name = self.source.text(current);
        let name = name.strip_prefix("std::").unwrap_or(name);
        let known: &[&str] = if operator == "<<" {
            &["cout", "cerr", "clog", "wcout", "wcerr", "wclog"]
        } else {
            &["cin", "wcin"]
        };
        if !known.contains(&name) {
            return None;
        }
        let callee = Box::new(self.expr(current));
        let args = parts.into_iter().rev().map(|part| make::arg(self.expr(part))).collect();
        Some(Expr::new(ExprKind::Call { callee, args }, range(node)))
    }

    /// Macros between literals, such as `PRIu64`, stand for a piece of format.
    fn concatenated(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut text = String::new();
        for part in named(node) {
            if let ExprKind::Str(piece) = self.expr(part).kind {
                text.push_str(&piece);
            }
        }
        ExprKind::Str(Cow::Owned(text))
    }
}
