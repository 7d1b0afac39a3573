//! Calls, and what is weak about regular expressions and replacements in them.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, expression::quoted, function::is_function, regexp};
use crate::{
    ir::{Arg, Expr, ExprKind, Range},
    lower::{
        front_end::{FrontEnd, first_named, named, range},
        literal, make,
    },
};

impl<'a> Lowering<'a> {
    pub(super) fn arguments(&mut self, list: Node<'_>) -> Vec<Arg<'a>> {
        if list.kind() == "template_string" {
            let mut args = Vec::new();
            for child in named(list) {
                if child.kind() == "template_substitution"
                    && let Some(inner) = first_named(child)
                {
                    args.push(make::arg(self.expr(inner)));
                }
            }
            let text = Expr::new(ExprKind::Str(Cow::Borrowed(self.source.text(list))), range(list));
            args.insert(0, make::arg(text));
            return args;
        }
        make::args(self.exprs(list))
    }

    pub(super) fn call(&mut self, node: Node<'_>) -> Expr<'a> {
        if let Some(module) = self.required(node)
            && let Some(text) = node
                .child_by_field_name("arguments")
                .and_then(first_named)
                .map(|first| self.source.text(first))
        {
            // The quotes keep the module apart from variables of the same name.
            self.program.imports.insert(text, module);
            return make::name(text, range(node));
        }
        let mut callee = self.boxed(node, "function");
        let mut args = node
            .child_by_field_name("arguments")
            .map(|list| self.arguments(list))
            .unwrap_or_default();
        // `(0, eval)(x)`
        if let ExprKind::Sequence(parts) = &mut callee.kind
            && let Some(last) = parts.pop()
        {
            *callee = last;
        }
        if let ExprKind::Name(name) = callee.kind
            && let Some(state) = self.setters.get(name)
            && args.len() == 1
        {
            let target = Box::new(Expr::new(ExprKind::Name(state), callee.range));
            let value = Box::new(args.remove(0).value);
            return Expr::new(ExprKind::Assign { op: None, target, value }, range(node));
        }
        self.failed(node, &mut args);
        match &callee.kind {
            ExprKind::Name("RegExp") => self.add_weakness(node, &mut args),
            // A text is made an expression there.
            ExprKind::Attribute { name: "match" | "matchAll" | "search", .. } => {
                if let Some(Arg { value, .. }) = args.first_mut()
                    && let ExprKind::Str(text) = &value.kind
                {
                    let pattern = text.clone();
                    let at = value.range;
                    let text = std::mem::replace(value, Expr::new(ExprKind::Null, at));
                    let mut kind = self.regexp(node, text, &pattern, "");
                    if let ExprKind::Construct { args, .. } = &mut kind
                        && self.loses_escape(node)
                    {
                        push_weakness("escape".to_owned(), at, args);
                    }
                    *value = Expr::new(kind, at);
                }
            }
            ExprKind::Attribute { name: "replace" | "replaceAll" | "join", .. } => {
                let mut words = regexp::of_chain(&self.chain(node));
                if Self::is_repeated(node) {
                    words = words.replace("multi-character", "");
                }
                if self.unwraps(node) {
                    words = words.replace("first-only", "");
                }
                if self.quotes_json(node) {
                    words = words.replace("backslash", "");
                }
                if self.leaves_quotes(node) {
                    words.push_str(" attribute");
                }
                push_weakness(words, range(node), &mut args);
            }
            ExprKind::Attribute { name: "addEventListener", .. }
            | ExprKind::Name("addEventListener") => {
                let list = node.child_by_field_name("arguments").map(named).unwrap_or_default();
                let of_page = match &callee.kind {
                    ExprKind::Attribute { base, .. } => matches!(
                        base.kind,
                        ExprKind::Name("window" | "self" | "globalThis" | "top" | "parent")
                    ),
                    _ => true,
                };
                if let [event, function, ..] = list.as_slice()
                    && of_page
                    && quoted(self.source.text(*event)) == "message"
                    && self.trusts_message(self.function_meant(*function))
                {
                    push_weakness("origin".to_owned(), range(*function), &mut args);
                }
            }
            _ => {}
        }
        Expr::new(ExprKind::Call { callee, args }, range(node))
    }

    /// `object[name](..)` with a computed name.
    pub(super) fn is_by_name(node: Node<'_>) -> bool {
        let callee = node
            .child_by_field_name("function")
            .or_else(|| node.child_by_field_name("constructor"));
        callee
            .filter(|callee| callee.kind() == "subscript_expression")
            .and_then(|callee| callee.child_by_field_name("index"))
            .is_some_and(|index| !matches!(index.kind(), "string" | "number"))
    }

    /// It is asked who chose the name, then the call happens.
    pub(super) fn call_by_name(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let field = if node.kind() == "new_expression" { "constructor" } else { "function" };
        let mut parts = Vec::new();
        if let Some(target) = node.child_by_field_name(field) {
            let index = self.field_copy(target, "index");
            let callee = Box::new(make::name("method_by_name", at));
            let args = vec![make::arg(index)];
            parts.push(Expr::new(ExprKind::Call { callee, args }, range(target)));
        }
        let callee = self.boxed(node, field);
        let list = node.child_by_field_name("arguments");
        let args = list.map(|list| self.arguments(list)).unwrap_or_default();
        parts.push(Expr::new(ExprKind::Call { callee, args }, at));
        Expr::new(ExprKind::Sequence(parts), at)
    }

    /// An expression, and what is weak about it.
    pub(super) fn regexp(
        &self,
        node: Node<'_>,
        text: Expr<'a>,
        pattern: &str,
        flags: &str,
    ) -> ExprKind<'a> {
        let at = text.range;
        let mut args = vec![make::arg(text)];
        push_weakness(regexp::of_pattern(pattern, flags, self.is_replaced(node)), at, &mut args);
        make::constructed("RegExp", args, at).kind
    }

    pub(super) fn add_weakness(&self, node: Node<'_>, args: &mut Vec<Arg<'a>>) {
        let mut words = match args.first().map(|arg| &arg.value.kind) {
            Some(ExprKind::Str(text)) => {
                let flags = match args.get(1).map(|arg| &arg.value.kind) {
                    Some(ExprKind::Str(flags)) => flags.as_ref(),
                    _ => "",
                };
                regexp::of_pattern(text, flags, self.is_replaced(node))
            }
            _ => String::new(),
        };
        if self.loses_escape(node) {
            words.push_str(" escape");
        }
        push_weakness(words, range(node), args);
    }

    /// Whether a text that makes an expression holds a backslash that is lost before.
    fn loses_escape(&self, call: Node<'_>) -> bool {
        let first = call.child_by_field_name("arguments").and_then(first_named);
        let mut parts: Vec<Node<'_>> = first.into_iter().collect();
        let mut budget = 30;
        while let Some(part) = parts.pop() {
            budget -= 1;
            match part.kind() {
                _ if budget == 0 => return false,
                "string" if regexp::lost_escape(quoted(self.source.text(part))) => return true,
                "binary_expression" | "parenthesized_expression" => parts.extend(named(part)),
                "identifier" => parts.extend(self.assigned_before(part)),
                _ => {}
            }
        }
        false
    }

    /// Whether an expression says what to replace.
    fn is_replaced(&self, node: Node<'_>) -> bool {
        let call = node.parent().and_then(|list| list.parent());
        call.and_then(|call| call.child_by_field_name("function")).is_some_and(|callee| {
            matches!(self.source.field(callee, "property"), "replace" | "replaceAll" | "split")
        })
    }

    /// The replacements of `x.replace(..).replace(..)`, first to last.
    fn chain<'t>(&self, call: Node<'t>) -> Vec<regexp::Step<'a>> {
        let mut steps = Vec::new();
        let mut current: Option<Node<'t>> = Some(call);
        while let Some(node) = current.filter(|node| node.kind() == "call_expression") {
            if steps.len() > 20 {
                break;
            }
            let Some(callee) = node.child_by_field_name("function") else { break };
            if let Some(step) = self.step(node, callee) {
                steps.push(step);
            }
            current = callee.child_by_field_name("object").map(|object| match object.kind() {
                "identifier" => self.assigned_before(object).unwrap_or(object),
                _ => object,
            });
        }
        steps.reverse();
        steps
    }

    /// What a variable was given by one of the statements right before.
    fn assigned_before<'t>(&self, name: Node<'t>) -> Option<Node<'t>> {
        let text = self.source.text(name);
        let mut statement = name;
        while !matches!(statement.parent()?.kind(), "statement_block" | "program") {
            statement = statement.parent()?;
        }
        for _ in 0..4 {
            statement = statement.prev_named_sibling()?;
            let assignment = match statement.kind() {
                "expression_statement" | "lexical_declaration" | "variable_declaration" => {
                    statement.named_child(0)?
                }
                _ => return None,
            };
            let (left, right) = match assignment.kind() {
                "assignment_expression" => ("left", "right"),
                "variable_declarator" => ("name", "value"),
                _ => continue,
            };
            if self.source.field(assignment, left) == text {
                return assignment.child_by_field_name(right);
            }
        }
        None
    }

    /// The call that a variable holds, or the expression itself.
    pub(super) fn held<'t>(&self, node: Node<'t>) -> Node<'t> {
        match node.kind() {
            "identifier" => self.assigned_before(node).unwrap_or(node),
            _ => node,
        }
    }

    /// The first of `x.replace('[', '').replace(']', '')`: what is around a text is taken off.
    fn unwraps(&self, call: Node<'_>) -> bool {
        let step = |call: Node<'_>| {
            call.child_by_field_name("function").and_then(|callee| self.step(call, callee))
        };
        let outer = call.parent().and_then(|callee| callee.parent()).and_then(step);
        let (Some(inner), Some(outer)) = (step(call), outer) else { return false };
        regexp::is_pair(&inner, &outer)
    }

    fn step(&self, call: Node<'_>, callee: Node<'_>) -> Option<regexp::Step<'a>> {
        let name = self.source.field(callee, "property");
        let args = named(call.child_by_field_name("arguments")?);
        if name == "join" {
            // `x.split(a).join(b)` puts one for the other, everywhere.
            let split = callee.child_by_field_name("object")?;
            let way = split.child_by_field_name("function")?;
            let what = split.child_by_field_name("arguments")?.named_child(0)?;
            let by = args.first().filter(|by| by.kind() == "string")?;
            if self.source.field(way, "property") != "split" || what.kind() != "string" {
                return None;
            }
            return Some(regexp::Step {
                pattern: quoted(self.source.text(what)),
                is_regex: false,
                global: true,
                by: Some(literal::unescape(quoted(self.source.text(*by)), false).into_owned()),
            });
        }
        if !matches!(name, "replace" | "replaceAll") {
            return None;
        }
        let by = args.get(1).filter(|by| by.kind() == "string");
        let by = by.map(|by| literal::unescape(quoted(self.source.text(*by)), false).into_owned());
        let what = args.first()?;
        let flags = self.source.field(*what, "flags");
        let (pattern, is_regex, global) = match what.kind() {
            "regex" => (self.source.field(*what, "pattern"), true, flags.contains('g')),
            "string" => (quoted(self.source.text(*what)), false, name == "replaceAll"),
            "new_expression" | "call_expression" => {
                let list = named(what.child_by_field_name("arguments")?);
                let first = list.first().filter(|first| first.kind() == "string")?;
                let global = list.get(1).is_some_and(|flags| {
                    flags.kind() != "string" || self.source.text(*flags).contains('g')
                });
                (quoted(self.source.text(*first)), true, global)
            }
            _ => return None,
        };
        Some(regexp::Step { pattern, is_regex, global, by })
    }

    /// Inside a loop that ends when nothing is left to replace.
    fn is_repeated(node: Node<'_>) -> bool {
        let mut current = node;
        while let Some(parent) = current.parent() {
            if matches!(parent.kind(), "while_statement" | "do_statement") {
                return true;
            }
            if is_function(parent.kind()) || parent.kind() == "function_declaration" {
                return false;
            }
            current = parent;
        }
        false
    }

    /// `JSON.stringify(x).replace(..)`: backslashes are escaped already.
    fn quotes_json(&self, call: Node<'_>) -> bool {
        let mut current = call;
        while let Some(object) = current
            .child_by_field_name("function")
            .and_then(|callee| callee.child_by_field_name("object"))
        {
            current = object;
        }
        current.parent().is_some_and(|callee| self.source.text(callee) == "JSON.stringify")
    }

    /// `'="' + x.replace(/[<>]/g, ..) + '"'`: the quotes around an attribute's value are not replaced.
    fn leaves_quotes(&self, call: Node<'_>) -> bool {
        let Some(parent) = call.parent() else { return false };
        let quote = match parent.kind() {
            "binary_expression" => parent
                .child_by_field_name("left")
                .filter(|left| *left != call)
                .and_then(|left| quoted_end(self.source.text(left).trim_end())),
            "template_substitution" => parent
                .parent()
                .and_then(|whole| self.source.code.get(whole.start_byte() + 1..parent.start_byte()))
                .and_then(opened_quote),
            _ => None,
        };
        let Some(quote) = quote else { return false };
        let steps = self.chain(call);
        steps.iter().any(|step| step.pattern.contains(['<', '>', '&']))
            && !steps.iter().any(|step| step.pattern.contains(quote))
    }

    /// The function of the file that a name stands for.
    fn function_meant<'t>(&self, node: Node<'t>) -> Node<'t> {
        if node.kind() != "identifier" {
            return node;
        }
        let name = self.source.text(node);
        let mut around = node.parent();
        while let Some(block) = around {
            let mut cursor = block.walk();
            let found = block.named_children(&mut cursor).find(|child| {
                child.kind() == "function_declaration" && self.source.field(*child, "name") == name
            });
            if let Some(function) = found {
                return function;
            }
            around = block.parent();
        }
        node
    }

    /// A function that uses a message's data and never asks for its origin.
    pub(super) fn trusts_message(&self, function: Node<'_>) -> bool {
        let (mut data, mut origin) = (false, false);
        let mut stack = vec![function];
        while let Some(node) = stack.pop() {
            if node.kind() == "member_expression" {
                match self.source.field(node, "property") {
                    "data" => data = true,
                    "origin" | "source" => origin = true,
                    _ => {}
                }
            }
            origin |= node.kind() == "shorthand_property_identifier_pattern"
                && self.source.text(node) == "origin";
            stack.extend(named(node));
        }
        data && !origin
    }
}

/// Words for rules, as an argument that no program gives.
pub(super) fn push_weakness(words: String, at: Range, args: &mut Vec<Arg<'_>>) {
    if !words.is_empty() {
        let value = Expr::new(ExprKind::Str(Cow::Owned(words)), at);
        args.push(Arg { name: Some("weakness"), value });
    }
}

/// The quote that opens an attribute's value at the end of a text literal: `'href="'`.
fn quoted_end(literal: &str) -> Option<char> {
    opened_quote(literal.strip_suffix(['"', '\'', '`'])?)
}

/// The quote that opens an attribute's value at the end of a text.
fn opened_quote(inner: &str) -> Option<char> {
    let quote = inner.chars().next_back().filter(|c| matches!(c, '"' | '\''))?;
    let before = inner[..inner.len() - 1].trim_end_matches('\\');
    before.ends_with('=').then_some(quote)
}
