//! Expressions of JavaScript.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, function::is_function};
use crate::{
    ir::{Arg, BinaryOp, Expr, ExprKind, Range, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerExpr, first_named, named, range},
        literal, make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerExpr<'a, 't> for Lowering<'a> {
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        let kind = match node.kind() {
            "identifier"
            | "property_identifier"
            | "private_property_identifier"
            | "shorthand_property_identifier"
            | "super"
            | "import"
            | "meta_property" => ExprKind::Name(self.source.text(node)),
            "this" => ExprKind::Name("self"),
            "undefined" | "null" => ExprKind::Null,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "number" => {
                literal::integer(self.source.text(node)).map_or(ExprKind::Float, ExprKind::Int)
            }
            "string" => ExprKind::Str(literal::unescape(quoted(self.source.text(node)), false)),
            "template_string" => self.template(node),
            "regex" => {
                let text =
                    Expr::new(ExprKind::Str(Cow::Borrowed(self.source.text(node))), range(node));
                let flags = self.source.field(node, "flags");
                self.regexp(node, text, self.source.field(node, "pattern"), flags)
            }
            "object" => self.object(node),
            "array" => ExprKind::List(self.exprs(node)),
            kind if is_function(kind) => return self.expr_of_function(node),
            "class" => {
                let name = self.source.field(node, "name");
                self.class(node, name);
                ExprKind::Name(name)
            }
            "member_expression" => ExprKind::Attribute {
                base: self.boxed(node, "object"),
                name: self.source.field(node, "property"),
                arrow: false,
            },
            "subscript_expression" => self.subscript(node),
            "call_expression" | "new_expression" if Self::is_by_name(node) => {
                return self.call_by_name(node);
            }
            "call_expression" => return self.call(node),
            "new_expression" => {
                let callee = self.boxed(node, "constructor");
                let mut args = node
                    .child_by_field_name("arguments")
                    .map(|list| self.arguments(list))
                    .unwrap_or_default();
                if matches!(callee.kind, ExprKind::Name("RegExp")) {
                    self.add_weakness(node, &mut args);
                }
                ExprKind::Construct { callee, args }
            }
            "await_expression" | "yield_expression" => match self.first(node) {
                Some(inner) => ExprKind::Through(Box::new(inner)),
                None => ExprKind::Null,
            },
            "spread_element" => match self.first(node) {
                Some(inner) => ExprKind::Star(Box::new(inner)),
                None => ExprKind::Unknown(Vec::new()),
            },
            "unary_expression" => self.unary(node),
            "binary_expression" => return self.binary(node),
            "ternary_expression" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "assignment_expression" => match node.child_by_field_name("left") {
                Some(left) if matches!(left.kind(), "object_pattern" | "array_pattern") => {
                    let value = self.field_expr(node, "right");
                    let mut out = Vec::new();
                    self.bind(left, value, &mut out);
                    let parts = out.into_iter().filter_map(|stmt| match stmt.kind {
                        StmtKind::Expr(expr) => Some(expr),
                        _ => None,
                    });
                    ExprKind::Sequence(parts.collect())
                }
                _ => ExprKind::Assign {
                    op: None,
                    target: self.boxed(node, "left"),
                    value: self.boxed(node, "right"),
                },
            },
            "augmented_assignment_expression" => {
                let text = self.source.field(node, "operator");
                ExprKind::Assign {
                    op: Some(binary_op(text.strip_suffix('=').unwrap_or(text))),
                    target: self.boxed(node, "left"),
                    value: self.boxed(node, "right"),
                }
            }
            "update_expression" => ExprKind::Update {
                target: self.boxed(node, "argument"),
                by: if self.source.field(node, "operator") == "--" { -1 } else { 1 },
                prefix: !self.source.text(node).ends_with(['+', '-']),
            },
            "sequence_expression" => ExprKind::Sequence(self.exprs(node)),
            "as_expression"
            | "satisfies_expression"
            | "non_null_expression"
            | "parenthesized_expression"
            | "jsx_expression"
            | "instantiation_expression"
            | "computed_property_name" => return self.inner(node),
            "type_assertion" => match named(node).last() {
                Some(inner) => return self.expr(*inner),
                None => ExprKind::Unknown(Vec::new()),
            },
            "jsx_element" | "jsx_self_closing_element" => self.markup(node),
            "jsx_text" | "html_character_reference" | "type_arguments" | "jsx_closing_element" => {
                ExprKind::Unknown(Vec::new())
            }
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }
}

impl<'a> Lowering<'a> {
    fn template(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut parts: Vec<Expr<'a>> = Vec::new();
        let mut at = node.start_byte() + 1;
        let close = node.end_byte().saturating_sub(1);
        for child in named(node) {
            if child.kind() != "template_substitution" {
                continue;
            }
            self.literal_part(at, child.start_byte(), &mut parts);
            if let Some(inner) = first_named(child) {
                parts.push(self.expr(inner));
            }
            at = child.end_byte();
        }
        self.literal_part(at, close, &mut parts);
        match parts.as_slice() {
            [] => ExprKind::Str(Cow::Borrowed("")),
            [Expr { kind: ExprKind::Str(_), .. }] => parts.remove(0).kind,
            _ => ExprKind::Format(parts),
        }
    }

    fn literal_part(&self, start: usize, end: usize, parts: &mut Vec<Expr<'a>>) {
        if let Some(text) = self.source.code.get(start..end).filter(|text| !text.is_empty()) {
            let at = Range { start: start as u32, end: end as u32 };
            parts.push(Expr::new(ExprKind::Str(literal::unescape(text, false)), at));
        }
    }

    fn object(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut entries = Vec::new();
        for child in named(node) {
            match child.kind() {
                "pair" => {
                    let (Some(key_node), Some(value_node)) =
                        (child.child_by_field_name("key"), child.child_by_field_name("value"))
                    else {
                        continue;
                    };
                    let name = self.source.text(key_node);
                    if self.exporting
                        && self.inside == 0
                        && key_node.kind() == "property_identifier"
                    {
                        if is_function(value_node.kind()) {
                            self.add_function(name, value_node);
                            continue;
                        }
                        if value_node.kind() == "identifier" {
                            self.exported.insert(self.source.text(value_node));
                        }
                    }
                    let key = if key_node.kind() == "property_identifier" {
                        Expr::new(ExprKind::Str(Cow::Borrowed(name)), range(key_node))
                    } else {
                        self.expr(key_node)
                    };
                    entries.push((Some(key), self.expr(value_node)));
                }
                "shorthand_property_identifier" => {
                    let name = self.source.text(child);
                    if self.exporting && self.inside == 0 {
                        self.exported.insert(name);
                    }
                    let key = Expr::new(ExprKind::Str(Cow::Borrowed(name)), range(child));
                    entries.push((Some(key), make::name(name, range(child))));
                }
                "method_definition" => {
                    let name = self.source.field(child, "name");
                    if self.exporting && self.inside == 0 {
                        self.add_function(name, child);
                    } else {
                        let key = Expr::new(ExprKind::Str(Cow::Borrowed(name)), range(child));
                        entries.push((Some(key), self.expr_of_function(child)));
                    }
                }
                _ => entries.push((None, self.expr(child))),
            }
        }
        ExprKind::Dict(entries)
    }

    /// `x["name"]` is the same as `x.name`.
    fn subscript(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let base = self.boxed(node, "object");
        if let Some(index) = node.child_by_field_name("index")
            && index.kind() == "string"
        {
            let name = quoted(self.source.text(index));
            let plain = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'));
            if plain {
                return ExprKind::Attribute { base, name, arrow: false };
            }
        }
        ExprKind::Subscript { base, index: self.boxed(node, "index") }
    }

    fn unary(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let inner = self.boxed(node, "argument");
        match (self.source.field(node, "operator"), &inner.kind) {
            ("!", _) => ExprKind::Not(inner),
            ("-", ExprKind::Int(number)) => ExprKind::Int(number.wrapping_neg()),
            // `~x.indexOf(y)` is how older code asks whether `x` holds `y`.
            ("~", ExprKind::Call { .. }) => match with_name(*inner, "indexOf", "includes") {
                Ok(call) => call.kind,
                Err(other) => ExprKind::Minus(Box::new(other)),
            },
            ("typeof", _) => {
                let at = inner.range;
                make::called("typeof", vec![make::arg(*inner)], at).kind
            }
            // Numbers, truth values and nothing.
            _ => ExprKind::Minus(inner),
        }
    }

    fn binary(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let op = binary_op(self.source.field(node, "operator"));
        let left = self.field_expr(node, "left");
        let right = self.field_expr(node, "right");
        let equal = matches!(op, BinaryOp::Eq | BinaryOp::Ne);
        // `typeof x == "number"` becomes a test of its own, as does `x.indexOf(y) >= 0`.
        if equal && let Some(kind) = type_name(&right) {
            match with_name(left, "typeof", kind) {
                Ok(test) => return negated(test, op == BinaryOp::Ne, at),
                Err(left) => return make::binary(op, left, right, at),
            }
        }
        // A check for a key that leads to the prototype of all objects.
        if equal {
            let key =
                |expr: &Expr<'_>| matches!(&expr.kind, ExprKind::Str(text) if text == "__proto__");
            if key(&left) != key(&right) {
                let callee = Box::new(Expr::new(ExprKind::Name("key_is"), at));
                let args = if key(&left) { [right, left] } else { [left, right] };
                let args = args.into_iter().map(|value| Arg { name: None, value }).collect();
                let test = Expr::new(ExprKind::Call { callee, args }, at);
                return negated(test, op == BinaryOp::Ne, at);
            }
        }
        // A check for a scheme can leave out others.
        if equal {
            let scheme = |expr: &Expr<'_>| matches!(&expr.kind, ExprKind::Str(text) if matches!(text.as_ref(), "javascript:" | "javascript"));
            if scheme(&left) != scheme(&right) {
                let test = make::called("scheme_is", make::args([left, right]), at);
                return negated(test, op == BinaryOp::Ne, at);
            }
        }
        let found =
            match (op, &right.kind) {
                (BinaryOp::Ne | BinaryOp::Gt, ExprKind::Int(-1))
                | (BinaryOp::Ge, ExprKind::Int(0)) => Some(true),
                (BinaryOp::Eq | BinaryOp::Le, ExprKind::Int(-1))
                | (BinaryOp::Lt, ExprKind::Int(0)) => Some(false),
                _ => None,
            };
        // Where the suffix would start, were it there at all.
        let place = |field: &str| node.child_by_field_name(field).map(|side| self.held(side));
        let from_end = |side: Node<'_>| {
            side.kind() == "binary_expression" && self.source.field(side, "operator") == "-"
        };
        if equal
            && place("right").is_some_and(from_end)
            && node.child_by_field_name("left").is_some_and(|left| left.kind() == "identifier")
            && let Some(search) = place("left")
            && let Some(way) = search.child_by_field_name("function")
            && matches!(self.source.field(way, "property"), "indexOf" | "lastIndexOf")
        {
            let name = self.source.field(node, "left");
            let mut whole = node;
            while let Some(parent) = whole.parent().filter(|parent| parent.kind() != "program") {
                whole = parent;
                if parent.kind() == "statement_block" {
                    break;
                }
            }
            let text = self.source.text(whole);
            let asked = [">", "!== -1", "!= -1", "=== -1", "== -1", "<"];
            let checked = asked.iter().any(|check| {
                text.contains(&format!("{name} {check}"))
                    || text.contains(&format!("{name}{check}"))
            });
            if !checked && self.source.text(whole).contains(".length") {
                let mut test = self.expr(search);
                test.range = at;
                return match with_name(test, "indexOf", "indexOfSuffix")
                    .or_else(|test| with_name(test, "lastIndexOf", "indexOfSuffix"))
                {
                    Ok(test) => negated(test, op == BinaryOp::Ne, at),
                    Err(_) => make::binary(op, left, right, at),
                };
            }
        }
        if equal
            && (matches!(right.kind, ExprKind::Binary { op: BinaryOp::Sub, .. })
                || place("right").is_some_and(from_end))
        {
            let mut whole = node;
            while let Some(parent) = whole.parent().filter(|parent| {
                matches!(parent.kind(), "binary_expression" | "parenthesized_expression")
            }) {
                whole = parent;
            }
            let text = self.source.text(whole);
            let sides = place("right").map_or("", |side| self.source.text(side));
            if (self.source.text(node).contains(".length") || sides.contains(".length"))
                && !["-1", ">= 0", ">=0", "> 0", ".length >", ".length <"]
                    .iter()
                    .any(|check| text.contains(check))
                && !one_letter(&left)
            {
                return match with_name(left, "indexOf", "indexOfSuffix")
                    .or_else(|left| with_name(left, "lastIndexOf", "indexOfSuffix"))
                {
                    Ok(test) => negated(test, op == BinaryOp::Ne, at),
                    Err(left) => make::binary(op, left, right, at),
                };
            }
        }
        // At the very start: the text begins with it.
        let begins = equal && matches!(right.kind, ExprKind::Int(0));
        if let Some(found) = found {
            return match with_name(left, "indexOf", "includes") {
                Ok(test) => negated(test, !found, at),
                Err(left) => make::binary(op, left, right, at),
            };
        }
        if begins {
            return match with_name(left, "indexOf", "startsWith") {
                Ok(test) => negated(test, op == BinaryOp::Ne, at),
                Err(left) => make::binary(op, left, right, at),
            };
        }
        if matches!(op, BinaryOp::Mod | BinaryOp::Div) {
            // Kept apart so that a rule can ask what is made a smaller number.
            return make::called("biased_number", make::args([left, right]), at);
        }
        make::binary(op, left, right, at)
    }

    /// Markup becomes a call `jsx.tag(attribute=.., child, ..)`.
    fn markup(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let open = node.child_by_field_name("open_tag").unwrap_or(node);
        let tag = self.source.field(open, "name");
        let mut args = Vec::new();
        for child in named(open) {
            match child.kind() {
                "jsx_attribute" => {
                    let parts = named(child);
                    if let [name, value] = parts.as_slice() {
                        let name = Some(self.source.text(*name));
                        args.push(Arg { name, value: self.expr(*value) });
                    }
                }
                "jsx_expression" => args.push(make::arg(self.expr(child))),
                _ => {}
            }
        }
        if open != node {
            for child in named(node) {
                if !matches!(
                    child.kind(),
                    "jsx_opening_element" | "jsx_closing_element" | "jsx_text"
                ) {
                    args.push(make::arg(self.expr(child)));
                }
            }
        }
        let base = Box::new(make::name("jsx", range(open)));
        let callee = ExprKind::Attribute { base, name: tag, arrow: false };
        ExprKind::Call { callee: Box::new(Expr::new(callee, range(open))), args }
    }
}

/// A search for one character, which is there or is not at the end.
fn one_letter(call: &Expr<'_>) -> bool {
    matches!(&call.kind, ExprKind::Call { args, .. }
        if matches!(args.first().map(|arg| &arg.value.kind), Some(ExprKind::Str(text)) if text.len() == 1))
}

fn negated(test: Expr<'_>, not: bool, at: Range) -> Expr<'_> {
    if not { Expr::new(ExprKind::Not(Box::new(test)), at) } else { test }
}

/// The call under another name, if it is a call of `old`; else the expression as it was.
fn with_name<'a>(mut expr: Expr<'a>, old: &str, new: &'static str) -> Result<Expr<'a>, Expr<'a>> {
    if let ExprKind::Call { callee, .. } = &mut expr.kind
        && let ExprKind::Name(name) | ExprKind::Attribute { name, .. } = &mut callee.kind
        && *name == old
    {
        *name = new;
        return Ok(expr);
    }
    Err(expr)
}

/// The test that `typeof x == "..."` stands for.
fn type_name(expr: &Expr<'_>) -> Option<&'static str> {
    let ExprKind::Str(text) = &expr.kind else { return None };
    Some(match text.as_ref() {
        "number" => "typeof_number",
        "boolean" => "typeof_boolean",
        "string" => "typeof_string",
        "object" => "typeof_object",
        "function" => "typeof_function",
        "undefined" => "typeof_undefined",
        "bigint" => "typeof_bigint",
        _ => return None,
    })
}

/// The text between quotes.
pub(super) fn quoted(text: &str) -> &str {
    text.get(1..text.len().saturating_sub(1)).unwrap_or("")
}
