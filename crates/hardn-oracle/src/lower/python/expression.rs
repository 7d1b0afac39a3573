//! Expressions of Python.

use std::borrow::Cow;

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Arg, BinaryOp, Expr, ExprKind},
    lower::{
        MAX_DEPTH,
        front_end::{FrontEnd, LowerExpr, all_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let kind = match node.kind() {
            "identifier" => ExprKind::Name(self.source.text(node)),
            "dotted_name" => return self.dotted_name(node),
            "integer" => {
                literal::integer(self.source.text(node)).map_or(ExprKind::Float, ExprKind::Int)
            }
            "float" => ExprKind::Float,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "none" => ExprKind::Null,
            "string" => self.string(node),
            "concatenated_string" => {
                let parts = self.exprs(node);
                if parts.iter().all(|part| matches!(part.kind, ExprKind::Str(_))) {
                    let text: String = parts
                        .iter()
                        .filter_map(|part| {
                            if let ExprKind::Str(text) = &part.kind {
                                Some(text.as_ref())
                            } else {
                                None
                            }
                        })
                        .collect();
                    ExprKind::Str(Cow::Owned(text))
                } else {
                    ExprKind::Format(parts)
                }
            }
            "attribute" => ExprKind::Attribute {
                base: self.boxed(node, "object"),
                name: self.source.field(node, "attribute"),
                arrow: false,
            },
            "subscript" => self.subscript(node),
            "slice" => ExprKind::Slice(self.exprs(node)),
            "call" => self.call(node),
            "list" | "list_pattern" => ExprKind::List(self.exprs(node)),
            "tuple" | "expression_list" | "pattern_list" | "tuple_pattern" => {
                ExprKind::Tuple(self.exprs(node))
            }
            "set" => ExprKind::Set(self.exprs(node)),
            "dictionary" => self.dictionary(node),
            "binary_operator" | "boolean_operator" => {
                let op = binary_op(self.source.field(node, "operator"));
                ExprKind::Binary {
                    op,
                    left: self.boxed(node, "left"),
                    right: self.boxed(node, "right"),
                }
            }
            "comparison_operator" => return self.comparison(node),
            "not_operator" => ExprKind::Not(self.boxed(node, "argument")),
            "unary_operator" => {
                let inner = self.boxed(node, "argument");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("-", _) => make::negative(inner),
                    _ => ExprKind::Through(inner),
                }
            }
            "parenthesized_expression"
            | "as_pattern"
            | "type"
            | "case_pattern"
            | "as_pattern_target"
            | "interpolation"
            | "format_expression" => return self.inner(node),
            "await" | "yield" => match self.first(node) {
                Some(inner) => ExprKind::Through(Box::new(inner)),
                None => ExprKind::Null,
            },
            "list_splat"
            | "dictionary_splat"
            | "list_splat_pattern"
            | "dictionary_splat_pattern" => match self.first(node) {
                Some(inner) => ExprKind::Star(Box::new(inner)),
                None => ExprKind::Unknown(Vec::new()),
            },
            "conditional_expression" => {
                let parts = named(node);
                match parts.as_slice() {
                    [then, test, otherwise] => ExprKind::Conditional {
                        then: Box::new(self.expr(*then)),
                        test: Box::new(self.expr(*test)),
                        otherwise: Box::new(self.expr(*otherwise)),
                    },
                    _ => ExprKind::Unknown(self.exprs(node)),
                }
            }
            "assignment" => match node.child_by_field_name("right") {
                Some(right) => {
                    let value = Box::new(self.expr(right));
                    ExprKind::Assign { op: None, target: self.boxed(node, "left"), value }
                }
                None => ExprKind::Unknown(Vec::new()),
            },
            "named_expression" => ExprKind::Assign {
                op: None,
                target: self.boxed(node, "name"),
                value: self.boxed(node, "value"),
            },
            "augmented_assignment" => {
                let op = binary_op(self.source.field(node, "operator").trim_end_matches('='));
                ExprKind::Assign {
                    op: Some(op),
                    target: self.boxed(node, "left"),
                    value: self.boxed(node, "right"),
                }
            }
            "lambda" => {
                let mut params = Vec::new();
                if let Some(list) = node.child_by_field_name("parameters") {
                    self.param_names(list, &mut params);
                }
                ExprKind::Lambda { params, body: self.boxed(node, "body") }
            }
            "list_comprehension"
            | "set_comprehension"
            | "generator_expression"
            | "dictionary_comprehension" => self.comprehension(node),
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }
}

impl<'a> Lowering<'a> {
    fn dotted_name(&mut self, node: Node<'_>) -> Expr<'a> {
        let mut parts = named(node).into_iter();
        let Some(first) = parts.next() else { return unknown(node, Vec::new()) };
        let mut expr = self.expr(first);
        for part in parts.take(MAX_DEPTH as usize) {
            let kind = ExprKind::Attribute {
                base: Box::new(expr),
                name: self.source.text(part),
                arrow: false,
            };
            expr = Expr::new(kind, range(node));
        }
        expr
    }

    fn string(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut raw = false;
        let mut parts: Vec<Expr<'a>> = Vec::new();
        for child in named(node) {
            match child.kind() {
                "string_start" => raw = self.source.text(child).contains(['r', 'R']),
                "string_content" => {
                    let text = literal::unescape(self.source.text(child), raw);
                    parts.push(Expr::new(ExprKind::Str(text), range(child)));
                }
                "interpolation" => {
                    let mut part = self.expr(child);
                    let shown = child
                        .child_by_field_name("type_conversion")
                        .map(|node| self.source.text(node));
                    if matches!(shown, Some("!r" | "!a")) {
                        part = make::called("repr", vec![make::arg(part)], range(child));
                    }
                    parts.push(part);
                }
                _ => {}
            }
        }
        match parts.as_slice() {
            [] => ExprKind::Str(Cow::Borrowed("")),
            [Expr { kind: ExprKind::Str(_), .. }] => parts.remove(0).kind,
            _ => ExprKind::Format(parts),
        }
    }

    fn subscript(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let base = self.boxed(node, "value");
        let indices = all_named(node, "subscript");
        let mut indices: Vec<Expr<'a>> =
            indices.into_iter().filter(Node::is_named).map(|index| self.expr(index)).collect();
        let index = if indices.len() == 1 {
            indices.remove(0)
        } else {
            Expr::new(ExprKind::Tuple(indices), range(node))
        };
        ExprKind::Subscript { base, index: Box::new(index) }
    }

    fn call(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let callee = self.boxed(node, "function");
        let mut args = Vec::new();
        if let Some(list) = node.child_by_field_name("arguments") {
            if list.kind() == "generator_expression" {
                args.push(make::arg(self.expr(list)));
            } else {
                for child in named(list) {
                    if child.kind() == "keyword_argument" {
                        let name = Some(self.source.field(child, "name"));
                        args.push(Arg { name, value: *self.boxed(child, "value") });
                    } else {
                        args.push(make::arg(self.expr(child)));
                    }
                }
            }
        }
        ExprKind::Call { callee, args }
    }

    fn dictionary(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut entries = Vec::new();
        for child in named(node) {
            if child.kind() == "pair" {
                entries.push((Some(*self.boxed(child, "key")), *self.boxed(child, "value")));
            } else {
                entries.push((None, self.expr(child)));
            }
        }
        ExprKind::Dict(entries)
    }

    /// `a < b < c` becomes `a < b and b < c`.
    fn comparison(&mut self, node: Node<'_>) -> Expr<'a> {
        let operands = named(node);
        let operators: Vec<&'a str> =
            all_named(node, "operators").into_iter().map(|op| self.source.text(op)).collect();
        // `not in` and `is not` come as one token in this grammar.
        let at = range(node);
        let count = operators.len().min(operands.len().saturating_sub(1));
        self.joined(BinaryOp::And, count, at, |lowering, number| {
            // What stands between two operators is compared twice.
            let left = match number {
                0 => lowering.expr(operands[0]),
                _ => lowering.copy(operands[number]),
            };
            let right = lowering.expr(operands[number + 1]);
            make::binary(binary_op(operators[number]), left, right, at)
        })
    }

    fn comprehension(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let element = match node.child_by_field_name("body") {
            Some(body) if body.kind() == "pair" => {
                vec![*self.boxed(body, "key"), *self.boxed(body, "value")]
            }
            Some(body) => vec![self.expr(body)],
            None => Vec::new(),
        };
        let (mut clauses, mut conditions) = (Vec::new(), Vec::new());
        for child in named(node) {
            match child.kind() {
                "for_in_clause" => {
                    clauses.push((*self.boxed(child, "left"), *self.boxed(child, "right")));
                }
                "if_clause" => conditions.extend(self.exprs(child)),
                _ => {}
            }
        }
        ExprKind::Comprehension { element, clauses, conditions }
    }
}
