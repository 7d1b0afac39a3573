//! Calls of Ruby: arguments, blocks, elements.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, statement::returning};
use crate::{
    ir::{Arg, Expr, ExprKind, Function, Param, Range, Stmt, StmtKind, Type},
    lower::{
        front_end::{FrontEnd, first_named, named, range, unknown},
        make,
    },
};

/// What stands around a text.
const PAIRS: &[(&str, &str)] =
    &[("'", "'"), ("\"", "\""), ("[", "]"), ("(", ")"), ("{", "}"), ("<", ">")];

/// The keyword a block is given under.
const BLOCK: &str = "&block";

impl<'a> Lowering<'a, '_> {
    pub(super) fn call(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let mut args =
            node.child_by_field_name("arguments").map(|list| self.args(list)).unwrap_or_default();
        if let Some(block) = node.child_by_field_name("block") {
            args.push(Arg { name: Some(BLOCK), value: self.closure(block) });
        }
        // `f.(x)` has no method name.
        let method = match node.child_by_field_name("method") {
            Some(method) => self.source.text(method),
            None => "call",
        };
        if method == "permit" && holds_empty_hash(node) {
            args.push(Arg { name: Some("open"), value: Expr::new(ExprKind::Bool(true), at) });
        }
        let Some(receiver) = node.child_by_field_name("receiver") else {
            match (method, args.as_slice()) {
                ("scope" | "define_method", _) => self.defined(&mut args),
                // `lambda { .. }` is its block.
                (
                    "lambda" | "proc",
                    [
                        Arg {
                            name: Some(BLOCK),
                            value: Expr { kind: ExprKind::Closure { .. }, .. },
                        },
                    ],
                ) => return args.remove(0).value,
                _ => {}
            }
            return make::called(method, args, at);
        };
        let mut base = self.expr(receiver);
        if matches!(method, "sub" | "sub!") {
            mark_pair(&mut base, &mut args, at);
        }
        // A reader that the class declares.
        if args.is_empty()
            && matches!(base.kind, ExprKind::Name("self"))
            && self.fields.contains(method)
        {
            return make::own_field(method, at);
        }
        if method == "new" && is_class(&base) {
            return Expr::new(ExprKind::Construct { callee: Box::new(base), args }, at);
        }
        // `Net::HTTP` without parentheses parses as a constant, `A::b` as a call.
        if args.is_empty()
            && method.starts_with(|c: char| c.is_ascii_uppercase())
            && node.child_by_field_name("arguments").is_none()
        {
            let kind = ExprKind::Attribute { base: Box::new(base), name: method, arrow: false };
            return Expr::new(kind, at);
        }
        make::method_called(base, method, args, at)
    }

    /// `scope :named, ->(name) { .. }` and `define_method(:name) { .. }` define methods.
    fn defined(&mut self, args: &mut Vec<Arg<'a>>) {
        let name = match args.first().map(|arg| &arg.value.kind) {
            Some(ExprKind::Str(Cow::Borrowed(name))) => *name,
            _ => return,
        };
        let closure =
            args.iter().position(|arg| matches!(arg.value.kind, ExprKind::Closure { .. }));
        let Some(closure) = closure else { return };
        if let ExprKind::Closure { params, body } = args.remove(closure).value.kind {
            self.program.functions.push(Function {
                name,
                class: self.class,
                params,
                returns: Type::default(),
                decorators: Vec::new(),
                body,
                top_level: false,
                constructor: false,
            });
        }
    }

    /// Arguments; `key: value` and the entries of a hash given last are keywords.
    pub(super) fn args(&mut self, list: Node<'_>) -> Vec<Arg<'a>> {
        let mut out = Vec::new();
        let children = named(list);
        let last = children.len().saturating_sub(1);
        for (number, child) in children.into_iter().enumerate() {
            match child.kind() {
                "pair" => self.pair(child, &mut out),
                "hash" if number == last => {
                    for entry in named(child) {
                        if entry.kind() == "pair" {
                            self.pair(entry, &mut out);
                        } else {
                            out.push(make::arg(self.expr(entry)));
                        }
                    }
                }
                "block_argument" => {
                    if let Some(inner) = first_named(child) {
                        let value = if inner.kind() == "simple_symbol" {
                            self.method_as_block(inner)
                        } else {
                            self.expr(inner)
                        };
                        out.push(Arg { name: Some(BLOCK), value });
                    }
                }
                "heredoc_body" => {}
                _ => out.push(make::arg(self.expr(child))),
            }
        }
        out
    }

    fn pair(&mut self, node: Node<'_>, out: &mut Vec<Arg<'a>>) {
        let Some(key) = node.child_by_field_name("key") else { return };
        let name = self.key(key);
        let Some(value) = node.child_by_field_name("value") else {
            // `f(x:)` passes the variable of that name.
            if let Some(name) = name {
                let kind = if self.locals.contains(name) {
                    ExprKind::Name(name)
                } else {
                    make::called(name, Vec::new(), range(node)).kind
                };
                out.push(Arg { name: Some(name), value: Expr::new(kind, range(node)) });
            }
            return;
        };
        if value.kind() == "hash" && name.is_some() {
            // Simple settings one level down count as settings of the call, as in `ssl: { verify: false }`.
            for entry in named(value) {
                let inner = entry.child_by_field_name("key").and_then(|key| self.key(key));
                let plain = entry.child_by_field_name("value").filter(|value| {
                    matches!(
                        value.kind(),
                        "true"
                            | "false"
                            | "nil"
                            | "integer"
                            | "constant"
                            | "scope_resolution"
                            | "simple_symbol"
                            | "identifier"
                            | "regex"
                    )
                });
                if let (Some(inner), Some(plain)) = (inner, plain) {
                    out.push(Arg { name: Some(inner), value: self.expr(plain) });
                }
            }
        }
        let value = self.expr(value);
        if name.is_none() {
            let key = self.expr(key);
            out.push(Arg { name: Some("**"), value: key });
        }
        out.push(Arg { name: Some(name.unwrap_or("**")), value });
    }

    /// The name of a key that is a symbol or a plain string.
    fn key(&self, node: Node<'_>) -> Option<&'a str> {
        let text = self.source.text(node);
        match node.kind() {
            "hash_key_symbol" => Some(text),
            "simple_symbol" => Some(text.trim_start_matches(':')),
            "string" if !text.contains(['#', '\\']) => {
                Some(text.trim_matches(|c| c == '"' || c == '\''))
            }
            _ => None,
        }
    }

    pub(super) fn hash(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut entries = Vec::new();
        for child in named(node) {
            if child.kind() == "pair" {
                let key = child.child_by_field_name("key").map(|key| self.expr(key));
                let value = match child.child_by_field_name("value") {
                    Some(value) => self.expr(value),
                    None => match child.child_by_field_name("key") {
                        Some(key) => make::called(self.source.text(key), Vec::new(), range(key)),
                        None => continue,
                    },
                };
                entries.push((key, value));
            } else {
                entries.push((None, self.expr(child)));
            }
        }
        ExprKind::Dict(entries)
    }

    /// `x[i]`; on a class such as `Dir` it is a method named `[]`.
    pub(super) fn element(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let object = node.child_by_field_name("object");
        let base = match object {
            Some(object) => self.expr(object),
            None => unknown(node, Vec::new()),
        };
        let inner: Vec<Node<'_>> = named(node)
            .into_iter()
            .filter(|child| Some(*child) != object && child.kind() != "block")
            .collect();
        let is_method = matches!(base.kind, ExprKind::Name(name)
            if name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().any(|c| c.is_ascii_lowercase()));
        let mut values: Vec<Expr<'a>> = inner.into_iter().map(|child| self.expr(child)).collect();
        // `DB["select ..."]`: no key has a blank in it and a value put into it.
        // Neither does one start like an XPath.
        let is_query = matches!(values.as_slice(), [Expr { kind: ExprKind::Format(parts), .. }]
            if matches!(parts.first().map(|part| &part.kind), Some(ExprKind::Str(text)) if text.contains(' ') || text.starts_with('/')));
        if is_method || is_query {
            let args = values.into_iter().map(|value| Arg { name: None, value }).collect();
            return make::method_called(base, "[]", args, at);
        }
        let index = match values.pop() {
            Some(only) if values.is_empty() => only,
            Some(last) => {
                values.push(last);
                Expr::new(ExprKind::Slice(values), at)
            }
            None => Expr::new(ExprKind::Str(Cow::Borrowed("")), at),
        };
        let kind = ExprKind::Subscript { base: Box::new(base), index: Box::new(index) };
        Expr::new(kind, at)
    }

    /// A block or the body of a lambda.
    pub(super) fn closure(&mut self, node: Node<'_>) -> Expr<'a> {
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        self.closure_with(node, params)
    }

    fn closure_with(&mut self, node: Node<'_>, mut params: Vec<Param<'a>>) -> Expr<'a> {
        let outer_loop = std::mem::replace(&mut self.in_loop, false);
        let body_node = node.child_by_field_name("body");
        if params.is_empty() {
            for name in ["it", "_1"] {
                if body_node.is_some_and(|body| self.mentions(body, name))
                    && !self.locals.contains(name)
                {
                    self.locals.insert(name);
                    params.push(Param {
                        name,
                        ty: Type::default(),
                        default: None,
                        range: range(node),
                    });
                }
            }
        }
        let mut body = body_node.map(|body| self.body(body)).unwrap_or_default();
        returning(&mut body);
        for param in &params {
            if matches!(param.name, "it" | "_1") {
                self.locals.remove(param.name);
            }
        }
        self.in_loop = outer_loop;
        Expr::new(ExprKind::Closure { params, body }, range(node))
    }

    /// `&:name` calls a method of what it is given.
    fn method_as_block(&self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let name = self.source.text(node).trim_start_matches(':');
        let element = make::name("_1", at);
        let result = make::method_called(element, name, Vec::new(), at);
        let body = vec![Stmt { kind: StmtKind::Return(Some(result)), range: at }];
        let param = Param { name: "_1", ty: Type::default(), default: None, range: at };
        Expr::new(ExprKind::Closure { params: vec![param], body }, at)
    }

    /// Whether a word stands directly under a block, as its nameless parameter does.
    fn mentions(&self, node: Node<'_>, name: &str) -> bool {
        let mut stack = vec![node];
        while let Some(at) = stack.pop() {
            if at.kind() == "identifier" && self.source.text(at) == name {
                return true;
            }
            if at.kind() == "block" || at.kind() == "do_block" {
                continue;
            }
            let mut cursor = at.walk();
            stack.extend(at.named_children(&mut cursor));
        }
        false
    }

    pub(super) fn lambda(&mut self, node: Node<'_>) -> Expr<'a> {
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        match node.child_by_field_name("body") {
            Some(body) => self.closure_with(body, params),
            None => unknown(node, Vec::new()),
        }
    }
}

/// `permit(user: {})`: an empty hash among the arguments stands for anything.
fn holds_empty_hash(node: Node<'_>) -> bool {
    let mut stack: Vec<Node<'_>> = node.child_by_field_name("arguments").into_iter().collect();
    while let Some(at) = stack.pop() {
        if at.kind() == "hash" && at.named_child_count() == 0 {
            return true;
        }
        let mut cursor = at.walk();
        stack.extend(at.named_children(&mut cursor));
    }
    false
}

/// `x.sub("[", "").sub("]", "")` takes off a pair, once: both calls get the argument `paired`.
fn mark_pair<'a>(before: &mut Expr<'a>, args: &mut Vec<Arg<'a>>, at: Range) {
    let ExprKind::Call { callee, args: first } = &mut before.kind else { return };
    if !matches!(callee.kind, ExprKind::Attribute { name: "sub" | "sub!", .. }) {
        return;
    }
    let text = |args: &[Arg<'a>]| match args.first().map(|arg| &arg.value.kind) {
        Some(ExprKind::Str(text)) => Some(text.to_string()),
        _ => None,
    };
    let (Some(left), Some(right)) = (text(first), text(args)) else { return };
    if PAIRS.contains(&(left.as_str(), right.as_str())) {
        for args in [first, args] {
            args.push(Arg { name: Some("paired"), value: Expr::new(ExprKind::Bool(true), at) });
        }
    }
}

/// A constant, as classes are named.
fn is_class(expr: &Expr<'_>) -> bool {
    match &expr.kind {
        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
            name.starts_with(|c: char| c.is_ascii_uppercase())
        }
        _ => false,
    }
}
