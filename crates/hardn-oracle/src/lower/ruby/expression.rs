//! Expressions of Ruby.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, REQUEST, statement::returning};
use crate::{
    ir::{BinaryOp, Expr, ExprKind},
    lower::{
        front_end::{FrontEnd, LowerExpr, first_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a, '_> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let at = range(node);
        let kind = match node.kind() {
            "identifier" => return self.word(node),
            "constant" | "global_variable" => ExprKind::Name(self.source.text(node)),
            "super" => return make::called("super", Vec::new(), at),
            "self" => ExprKind::Name("self"),
            "instance_variable" | "class_variable" => {
                return make::own_field(self.source.text(node).trim_start_matches('@'), at);
            }
            "scope_resolution" => match node.child_by_field_name("scope") {
                Some(scope) => ExprKind::Attribute {
                    base: Box::new(self.expr(scope)),
                    name: self.source.field(node, "name"),
                    arrow: false,
                },
                None => ExprKind::Name(self.source.field(node, "name")),
            },
            "integer" => {
                literal::integer(self.source.text(node)).map_or(ExprKind::Float, ExprKind::Int)
            }
            "float" | "rational" | "complex" | "line" => ExprKind::Float,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "nil" => ExprKind::Null,
            "subshell" | "heredoc_beginning"
                if node.kind() == "subshell" || self.source.text(node).contains('`') =>
            {
                let text = Expr::new(self.string(node), at);
                return make::called("%x", vec![make::arg(text)], at);
            }
            "string" | "chained_string" | "bare_string" | "simple_symbol" | "delimited_symbol"
            | "bare_symbol" | "hash_key_symbol" | "character" | "heredoc_beginning"
            | "heredoc_body" | "file" | "encoding" => self.string(node),
            "regex" => return self.regex(node),
            "call" => return self.call(node),
            "element_reference" => return self.element(node),
            "array" | "string_array" | "symbol_array" => ExprKind::List(self.exprs(node)),
            "argument_list" | "right_assignment_list" => {
                let mut values = self.exprs(node);
                match values.pop() {
                    Some(only) if values.is_empty() => return only,
                    Some(last) => {
                        values.push(last);
                        ExprKind::List(values)
                    }
                    None => ExprKind::Null,
                }
            }
            "left_assignment_list" | "destructured_left_assignment" | "destructured_parameter" => {
                ExprKind::Tuple(self.exprs(node))
            }
            "hash" => self.hash(node),
            "splat_argument" | "hash_splat_argument" | "rest_assignment" => {
                match self.first(node) {
                    Some(inner) => ExprKind::Star(Box::new(inner)),
                    None => ExprKind::Unknown(Vec::new()),
                }
            }
            "block_argument" => return self.inner(node),
            "binary" => return self.binary(node),
            "unary" => {
                let inner = self.boxed(node, "operand");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("!" | "not", _) => ExprKind::Not(inner),
                    ("-", _) => make::negative(inner),
                    ("~", ExprKind::Int(number)) => ExprKind::Int(!*number),
                    ("~", _) => {
                        let args = vec![make::arg(*inner)];
                        return make::called("~", args, at);
                    }
                    ("defined?", _) => ExprKind::Unknown(Vec::new()),
                    _ => ExprKind::Through(inner),
                }
            }
            "conditional" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "assignment" => {
                let target = Box::new(self.target(node));
                ExprKind::Assign { op: None, target, value: self.boxed(node, "right") }
            }
            "operator_assignment" => self.operator_assignment(node),
            "rescue_modifier" => {
                let body = *self.boxed(node, "body");
                let handler = *self.boxed(node, "handler");
                ExprKind::Unknown(vec![body, handler])
            }
            "parenthesized_statements"
            | "interpolation"
            | "in"
            | "exception_variable"
            | "pattern"
                if named(node).len() == 1 =>
            {
                match self.first(node) {
                    Some(inner) => ExprKind::Through(Box::new(inner)),
                    None => ExprKind::Null,
                }
            }
            "interpolation" | "parenthesized_statements" => ExprKind::Sequence(self.exprs(node)),
            "lambda" => return self.lambda(node),
            "range" => ExprKind::Slice(self.exprs(node)),
            "yield" => {
                let args = first_named(node).map(|list| self.args(list)).unwrap_or_default();
                return make::called("yield", args, at);
            }
            // Statements whose value is used: they run where they stand.
            "if" | "unless" | "case" | "case_match" | "begin" | "while" | "until" | "for"
            | "if_modifier" | "unless_modifier" | "while_modifier" | "until_modifier"
            | "return" | "next" | "break" => {
                let mut body = Vec::new();
                self.statement(node, &mut body);
                returning(&mut body);
                ExprKind::Closure { params: Vec::new(), body }
            }
            "method" | "singleton_method" | "class" | "module" => {
                // `private def helper`
                let mut out = Vec::new();
                self.statement(node, &mut out);
                ExprKind::Str(Cow::Borrowed(self.source.field(node, "name")))
            }
            "pair" => return *self.boxed(node, "value"),
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, at)
    }
}

impl<'a> Lowering<'a, '_> {
    /// A bare word: a variable, a field's reader, or a call without arguments.
    fn word(&mut self, node: Node<'_>) -> Expr<'a> {
        let name = self.source.text(node);
        let at = range(node);
        if self.locals.contains(name) {
            make::name(name, at)
        } else if self.fields.contains(name) && self.class.is_some() {
            make::own_field(name, at)
        } else if REQUEST.contains(&name) && !self.methods.contains(name) {
            make::name(name, at)
        } else {
            make::called(name, Vec::new(), at)
        }
    }

    fn binary(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let operator = self.source.field(node, "operator");
        let left = *self.boxed(node, "left");
        let right = *self.boxed(node, "right");
        let op = match operator {
            "%" if matches!(left.kind, ExprKind::Str(_) | ExprKind::Format(_))
                || matches!(right.kind, ExprKind::List(_) | ExprKind::Dict(_)) =>
            {
                let mut args = vec![make::arg(left)];
                match right.kind {
                    ExprKind::List(items) => {
                        args.extend(make::args(items));
                    }
                    kind => {
                        args.push(make::arg(Expr::new(kind, right.range)));
                    }
                }
                return make::called("format", args, at);
            }
            "=~" | "<<" | "===" => {
                return make::method_called(left, operator, vec![make::arg(right)], at);
            }
            "!~" => {
                let args = vec![make::arg(right)];
                let found = make::method_called(left, "=~", args, at);
                return Expr::new(ExprKind::Not(Box::new(found)), at);
            }
            _ => binary_op(operator),
        };
        make::binary(op, left, right, at)
    }

    /// What is assigned to: `x.name = value` sets an attribute, a bare word is a variable.
    fn target(&mut self, node: Node<'_>) -> Expr<'a> {
        let Some(left) = node.child_by_field_name("left") else {
            return unknown(node, Vec::new());
        };
        let at = range(left);
        match left.kind() {
            "identifier" => make::name(self.source.text(left), at),
            "call" if left.child_by_field_name("receiver").is_some() => {
                let base = self.boxed(left, "receiver");
                let name = self.source.field(left, "method");
                Expr::new(ExprKind::Attribute { base, name, arrow: false }, at)
            }
            _ => self.expr(left),
        }
    }

    fn operator_assignment(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let target = Box::new(self.target(node));
        let value = self.boxed(node, "right");
        let op = match self.source.field(node, "operator").trim_end_matches('=') {
            "||" | "&&" => {
                let left = self.field_copy(node, "left");
                let either = make::binary(BinaryOp::Or, left, *value, range(node));
                return ExprKind::Assign { op: None, target, value: Box::new(either) };
            }
            "<<" => {
                let args = vec![make::arg(*value)];
                return make::method_called(*target, "<<", args, range(node)).kind;
            }
            operator => binary_op(operator),
        };
        ExprKind::Assign { op: Some(op), target, value }
    }
}
