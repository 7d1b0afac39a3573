//! Expressions of Go.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, types::unescape};
use crate::{
    ir::{Arg, BinaryOp, Expr, ExprKind, Type},
    lower::{
        front_end::{FrontEnd, LowerExpr, first_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let kind = match node.kind() {
            "identifier" | "type_identifier" | "package_identifier" | "field_identifier"
            | "blank_identifier" => {
                let name = self.source.text(node);
                ExprKind::Name(if self.receiver == Some(name) && name != "_" {
                    "self"
                } else {
                    name
                })
            }
            "nil" => ExprKind::Null,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "int_literal" => {
                literal::integer(self.source.text(node)).map_or(ExprKind::Float, ExprKind::Int)
            }
            "float_literal" | "imaginary_literal" => ExprKind::Float,
            "rune_literal" => {
                let text = unescape(self.source.text(node).trim_matches('\''));
                match text.chars().next() {
                    Some(c) => ExprKind::Int(i64::from(u32::from(c))),
                    None => ExprKind::Float,
                }
            }
            "interpreted_string_literal" => {
                let text = self.source.text(node);
                ExprKind::Str(unescape(
                    text.strip_prefix('"')
                        .map_or(text, |rest| rest.strip_suffix('"').unwrap_or(rest)),
                ))
            }
            "raw_string_literal" => {
                ExprKind::Str(Cow::Borrowed(self.source.text(node).trim_matches('`')))
            }
            "selector_expression" => ExprKind::Attribute {
                base: self.boxed(node, "operand"),
                name: self.source.field(node, "field"),
                arrow: false,
            },
            "qualified_type" => {
                let Some(package) = node.child_by_field_name("package") else {
                    return unknown(node, Vec::new());
                };
                let base = Box::new(make::name(self.source.text(package), range(package)));
                ExprKind::Attribute { base, name: self.source.field(node, "name"), arrow: false }
            }
            "index_expression" => ExprKind::Subscript {
                base: self.boxed(node, "operand"),
                index: self.boxed(node, "index"),
            },
            "slice_expression" => {
                let bounds: Vec<Expr<'a>> = ["start", "end", "capacity"]
                    .into_iter()
                    .filter_map(|field| node.child_by_field_name(field))
                    .map(|bound| self.expr(bound))
                    .collect();
                let base = self.boxed(node, "operand");
                if bounds.is_empty() {
                    return *base;
                }
                let index = Box::new(Expr::new(ExprKind::Slice(bounds), range(node)));
                ExprKind::Subscript { base, index }
            }
            "call_expression" => self.call(node),
            "type_conversion_expression" | "type_assertion_expression" => ExprKind::Cast {
                ty: self.field_type(node, "type"),
                value: self.boxed(node, "operand"),
            },
            "composite_literal" => {
                let (Some(ty), Some(body)) =
                    (node.child_by_field_name("type"), node.child_by_field_name("body"))
                else {
                    return unknown(node, Vec::new());
                };
                self.composite(ty, body)
            }
            // Its type stands further out.
            "literal_value" => self.entries(node),
            "literal_element"
            | "parenthesized_expression"
            | "parenthesized_type"
            | "pointer_type"
            | "type_elem"
            | "type_constraint" => return self.inner(node),
            "generic_type" | "type_instantiation_expression" => return *self.boxed(node, "type"),
            "variadic_argument" => ExprKind::Star(Box::new(self.inner(node))),
            "expression_list" => {
                let mut items = self.listed(node);
                if items.len() == 1 {
                    return items.swap_remove(0);
                }
                ExprKind::Tuple(items)
            }
            "func_literal" => {
                let mut params = Vec::new();
                if let Some(list) = node.child_by_field_name("parameters") {
                    self.params(list, &mut params);
                }
                let switches = std::mem::take(&mut self.switches);
                let body = self.field_block(node, "body");
                self.switches = switches;
                ExprKind::Closure { params, body }
            }
            "binary_expression" => ExprKind::Binary {
                op: binary_op(self.source.field(node, "operator")),
                left: self.boxed(node, "left"),
                right: self.boxed(node, "right"),
            },
            "unary_expression" => {
                let inner = self.boxed(node, "operand");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("!", _) => ExprKind::Not(inner),
                    ("-", _) => make::negative(inner),
                    ("&" | "*", _) => return *inner,
                    _ => ExprKind::Through(inner),
                }
            }
            "slice_type" | "array_type" | "map_type" | "channel_type" | "function_type"
            | "struct_type" | "interface_type" | "iota" => ExprKind::Unknown(Vec::new()),
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }
}

impl<'a> Lowering<'a> {
    /// The parts of a list, or the one expression in its place.
    pub(super) fn listed(&mut self, node: Node<'_>) -> Vec<Expr<'a>> {
        if node.kind() == "expression_list" { self.exprs(node) } else { vec![self.expr(node)] }
    }

    /// An expression whose truth matters: a map that is asked for a key holds the key.
    pub(super) fn condition(&mut self, node: Node<'_>) -> Expr<'a> {
        self.deeper(|lowering| lowering.condition_inner(node))
            .unwrap_or_else(|| unknown(node, Vec::new()))
    }

    fn condition_inner(&mut self, node: Node<'_>) -> Expr<'a> {
        let operator = self.source.field(node, "operator");
        let kind = match node.kind() {
            "index_expression" => ExprKind::Binary {
                op: BinaryOp::In,
                left: self.boxed(node, "index"),
                right: self.boxed(node, "operand"),
            },
            "parenthesized_expression" => match first_named(node) {
                Some(inner) => return self.condition(inner),
                None => ExprKind::Unknown(Vec::new()),
            },
            "unary_expression" if operator == "!" => match node.child_by_field_name("operand") {
                Some(inner) => ExprKind::Not(Box::new(self.condition(inner))),
                None => ExprKind::Unknown(Vec::new()),
            },
            "binary_expression" if matches!(operator, "&&" | "||") => {
                match (node.child_by_field_name("left"), node.child_by_field_name("right")) {
                    (Some(left), Some(right)) => ExprKind::Binary {
                        op: binary_op(operator),
                        left: Box::new(self.condition(left)),
                        right: Box::new(self.condition(right)),
                    },
                    _ => ExprKind::Unknown(Vec::new()),
                }
            }
            _ => return self.lower_expr(node),
        };
        Expr::new(kind, range(node))
    }

    fn call(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let Some(function) = node.child_by_field_name("function") else {
            return ExprKind::Unknown(Vec::new());
        };
        let mut args: Vec<Arg<'a>> = node
            .child_by_field_name("arguments")
            .map(named)
            .unwrap_or_default()
            .into_iter()
            .map(|arg| make::arg(self.expr(arg)))
            .collect();
        let name = if function.kind() == "identifier" { self.source.text(function) } else { "" };
        match name {
            "append" => {
                let items = args.into_iter().enumerate().map(|(at, arg)| {
                    let span = arg.value.range;
                    if at == 0 {
                        Expr::new(ExprKind::Star(Box::new(arg.value)), span)
                    } else {
                        arg.value
                    }
                });
                return ExprKind::List(items.collect());
            }
            "new" if args.len() == 1 => {
                let callee = Box::new(args.swap_remove(0).value);
                return ExprKind::Construct { callee, args: Vec::new() };
            }
            _ => {}
        }
        let converts = name == "string"
            || self.program.typedefs.contains_key(name)
            || self.program.structs.contains_key(name);
        if converts && args.len() == 1 {
            let ty = self.ty(function);
            let ty = Type { pointers: 1, ..ty };
            return ExprKind::Cast { ty, value: Box::new(args.swap_remove(0).value) };
        }
        ExprKind::Call { callee: Box::new(self.expr(function)), args }
    }

    fn composite(&mut self, ty: Node<'_>, body: Node<'_>) -> ExprKind<'a> {
        match ty.kind() {
            "slice_type" | "array_type" | "implicit_length_array_type" => {
                let element = ty.child_by_field_name("element");
                let mut items = Vec::new();
                for child in named(body) {
                    let value = child.child_by_field_name("value").unwrap_or(child);
                    items.push(self.element(element, value));
                }
                ExprKind::List(items)
            }
            "map_type" => {
                let element = ty.child_by_field_name("value");
                let mut entries = Vec::new();
                for child in named(body) {
                    let key = child.child_by_field_name("key").map(|key| self.expr(key));
                    let value = child.child_by_field_name("value").unwrap_or(child);
                    entries.push((key, self.element(element, value)));
                }
                ExprKind::Dict(entries)
            }
            "struct_type" => self.entries(body),
            _ => {
                let keys: Vec<Option<&'a str>> =
                    named(body).into_iter().map(|child| self.field_name(child)).collect();
                let keyed = |child: &Node<'_>| child.kind() == "keyed_element";
                if named(body).iter().zip(&keys).any(|(child, key)| keyed(child) && key.is_none()) {
                    return self.entries(body);
                }
                let callee = Box::new(self.expr(ty));
                let mut args = Vec::new();
                for (child, name) in named(body).into_iter().zip(keys) {
                    let value = child.child_by_field_name("value").unwrap_or(child);
                    args.push(Arg { name, value: self.expr(value) });
                }
                ExprKind::Construct { callee, args }
            }
        }
    }

    /// An element of a list or map; its type may be left out.
    fn element(&mut self, ty: Option<Node<'_>>, value: Node<'_>) -> Expr<'a> {
        let bare = match value.kind() {
            "literal_value" => Some(value),
            "literal_element" => first_named(value).filter(|one| one.kind() == "literal_value"),
            _ => None,
        };
        let (Some(ty), Some(body)) = (ty, bare) else { return self.expr(value) };
        let ty = if ty.kind() == "pointer_type" { first_named(ty).unwrap_or(ty) } else { ty };
        let kind = self.deeper(|lowering| lowering.composite(ty, body));
        Expr::new(kind.unwrap_or(ExprKind::Unknown(Vec::new())), range(value))
    }

    /// The field a keyed element is for.
    fn field_name(&self, node: Node<'_>) -> Option<&'a str> {
        let key = node.child_by_field_name("key")?;
        let inner = if key.kind() == "literal_element" { first_named(key)? } else { key };
        matches!(inner.kind(), "identifier" | "field_identifier").then(|| self.source.text(inner))
    }

    /// Keys and values where nothing says what they belong to.
    fn entries(&mut self, body: Node<'_>) -> ExprKind<'a> {
        let mut entries = Vec::new();
        for child in named(body) {
            let key = match (self.field_name(child), child.child_by_field_name("key")) {
                (Some(name), Some(key)) => {
                    Some(Expr::new(ExprKind::Str(Cow::Borrowed(name)), range(key)))
                }
                (None, Some(key)) => Some(self.expr(key)),
                _ => None,
            };
            let value = child.child_by_field_name("value").unwrap_or(child);
            entries.push((key, self.expr(value)));
        }
        ExprKind::Dict(entries)
    }
}
