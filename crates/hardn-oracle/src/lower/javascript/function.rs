//! Functions, classes and their parameters.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, pattern::push_assign};
use crate::{
    ir::{Expr, ExprKind, Function, Param, Stmt, StmtKind, Type},
    lower::{
        front_end::{FrontEnd, first_named, named, range},
        make,
    },
};

/// The decorator that marks functions other files can call.
pub(super) const EXPORT: &str = "export";

impl<'a> Lowering<'a> {
    pub(super) fn class(&mut self, node: Node<'_>, name: &'a str) {
        let outer = self.class.replace(name);
        let inside = std::mem::take(&mut self.inside);
        let mut fields = Vec::new();
        let mut decorators = Vec::new();
        for member in node.child_by_field_name("body").map(named).unwrap_or_default() {
            match member.kind() {
                "decorator" => decorators.push(self.decorator(member)),
                "method_definition" => {
                    let method = self.source.field(member, "name");
                    let own = named(member).into_iter().filter(|child| child.kind() == "decorator");
                    decorators.extend(own.map(|child| self.decorator(child)));
                    self.add_function(method, member);
                    if let Some(function) = self.program.functions.last_mut() {
                        function.decorators.append(&mut decorators);
                    }
                }
                "field_definition" | "public_field_definition" => {
                    let key = member
                        .child_by_field_name("property")
                        .or_else(|| member.child_by_field_name("name"));
                    let (Some(key), Some(value)) = (key, member.child_by_field_name("value"))
                    else {
                        continue;
                    };
                    let name = self.source.text(key);
                    if is_function(value.kind()) {
                        self.add_function(name, value);
                    } else {
                        let value = self.expr(value);
                        let target = make::name(name, range(key));
                        push_assign(target, value, range(member), &mut fields);
                    }
                }
                "class_static_block" => fields.extend(self.field_block(member, "body")),
                _ => {}
            }
        }
        self.inside = inside;
        self.class = outer;
        self.program.classes.insert(name, fields);
    }

    /// `@Get('path')` as a call of `@Get`.
    fn decorator(&self, node: Node<'_>) -> Expr<'a> {
        let text = self.source.text(node);
        let at = range(node);
        let name = text.split('(').next().unwrap_or(text).trim();
        let callee = Box::new(Expr::new(ExprKind::Name(name), at));
        Expr::new(ExprKind::Call { callee, args: Vec::new() }, at)
    }

    /// A named function: of the program, or a closure kept under its name.
    pub(super) fn function(&mut self, name: &'a str, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        if self.inside == 0 {
            let class = self.class.take();
            self.add_function(name, node);
            self.class = class;
        } else {
            let at = range(node);
            let value = self.expr_of_function(node);
            push_assign(make::name(name, at), value, at, out);
        }
    }

    pub(super) fn add_function(&mut self, name: &'a str, node: Node<'_>) {
        let constructor = name == "constructor" && self.class.is_some();
        let class = self.class;
        let (mut params, body) = self.params_and_body(node, constructor);
        // A page's functions are given the request and the response in one object.
        if matches!(name, "getServerSideProps" | "getInitialProps" | "getStaticProps")
            && let Some(first) = params.first_mut()
            && first.ty.name.is_empty()
        {
            first.ty.name = Cow::Borrowed("next.Context");
        }
        if matches!(name, "beforeRouteEnter" | "beforeRouteUpdate" | "beforeRouteLeave") {
            for route in params.iter_mut().take(2).filter(|route| route.ty.name.is_empty()) {
                route.ty.name = Cow::Borrowed("vue.Route");
            }
        }
        let mut decorators = Vec::new();
        if self.exporting {
            decorators.push(make::name(EXPORT, range(node)));
        }
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns: Type::default(),
            decorators,
            body,
            top_level: false,
            constructor,
        });
    }

    pub(super) fn expr_of_function(&mut self, node: Node<'_>) -> Expr<'a> {
        let (params, body) = self.params_and_body(node, false);
        Expr::new(ExprKind::Closure { params, body }, range(node))
    }

    fn params_and_body(
        &mut self,
        node: Node<'_>,
        constructor: bool,
    ) -> (Vec<Param<'a>>, Vec<Stmt<'a>>) {
        self.inside += 1;
        let exporting = std::mem::replace(&mut self.exporting, false);
        let (mut params, mut body) = (Vec::new(), Vec::new());
        if let Some(only) = node.child_by_field_name("parameter") {
            self.param(only, constructor, &mut params, &mut body);
        }
        for param in node.child_by_field_name("parameters").map(named).unwrap_or_default() {
            self.param(param, constructor, &mut params, &mut body);
        }
        if let Some(block) = node.child_by_field_name("body") {
            if block.kind() == "statement_block" {
                body.extend(self.block(block));
            } else {
                let value = self.expr(block);
                body.push(Stmt { kind: StmtKind::Return(Some(value)), range: range(block) });
            }
        }
        self.exporting = exporting;
        self.inside -= 1;
        if (2..=4).contains(&params.len()) {
            self.handler_types(node, &mut params);
        }
        (params, body)
    }

    /// A function that reads parts of a request from one parameter and answers by the next is a request handler.
    fn handler_types(&self, node: Node<'_>, params: &mut [Param<'a>]) {
        let Some(body) = node.child_by_field_name("body") else { return };
        let at = usize::from(params.len() == 4);
        let [request, response] = [at, at + 1].map(|at| params[at].name);
        if !params[at].ty.name.is_empty() || !params[at + 1].ty.name.is_empty() {
            return;
        }
        let (mut reads, mut answers) = (false, false);
        let mut stack = vec![body];
        let mut budget = 3000;
        while let Some(node) = stack.pop() {
            budget -= 1;
            if budget == 0 || (reads && answers) {
                break;
            }
            if node.kind() == "member_expression" {
                let (object, property) =
                    (self.source.field(node, "object"), self.source.field(node, "property"));
                reads |= object == request
                    && matches!(
                        property,
                        "query"
                            | "params"
                            | "body"
                            | "headers"
                            | "cookies"
                            | "url"
                            | "param"
                            | "originalUrl"
                            | "header"
                            | "session"
                            | "files"
                    );
                answers |= object == response
                    && matches!(
                        property,
                        "send"
                            | "render"
                            | "redirect"
                            | "json"
                            | "end"
                            | "status"
                            | "write"
                            | "sendFile"
                            | "setHeader"
                            | "writeHead"
                            | "cookie"
                            | "set"
                            | "type"
                    );
            }
            stack.extend(named(node));
        }
        if reads && answers {
            params[at].ty.name = Cow::Borrowed("http.Request");
            params[at + 1].ty.name = Cow::Borrowed("http.Response");
        }
    }

    fn param(
        &mut self,
        node: Node<'_>,
        constructor: bool,
        params: &mut Vec<Param<'a>>,
        body: &mut Vec<Stmt<'a>>,
    ) {
        let mut ty = Type::default();
        let mut pattern = node;
        let mut default = node.child_by_field_name("value").map(|value| self.expr(value));
        if matches!(node.kind(), "required_parameter" | "optional_parameter") {
            let Some(inner) = node.child_by_field_name("pattern") else { return };
            pattern = inner;
            let text = self.source.field(node, "type").trim_start_matches(':').trim();
            if text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$')) {
                ty.name = Cow::Borrowed(text);
            } else if let Some((head, _)) = text.split_once('<') {
                ty.name = Cow::Borrowed(head);
            }
            if matches!(ty.name.as_ref(), "any" | "string" | "object" | "unknown") {
                ty.name = Cow::Borrowed("");
            }
            if let Some(path) =
                ty.name.split('.').next().and_then(|root| self.program.imports.get(root))
            {
                let rest = ty.name.split_once('.').map_or("", |(_, rest)| rest);
                let full = if rest.is_empty() { path.clone() } else { format!("{path}.{rest}") };
                ty.name = Cow::Owned(full);
            }
            // `@Query() name`: the decorator says what the parameter is.
            let decorator = named(node).into_iter().find(|child| child.kind() == "decorator");
            if let Some(inner) = decorator.and_then(first_named) {
                let text = self.source.text(inner);
                let name = text.split('(').next().unwrap_or(text);
                ty.name = match name {
                    "Req" | "Request" => Cow::Borrowed("http.Request"),
                    "Res" | "Response" => Cow::Borrowed("http.Response"),
                    _ => Cow::Owned(format!("@{name}")),
                };
            }
        }
        if pattern.kind() == "assignment_pattern" {
            default = pattern.child_by_field_name("right").map(|value| self.expr(value));
            pattern = pattern.child_by_field_name("left").unwrap_or(pattern);
        }
        if pattern.kind() == "rest_pattern" {
            pattern = first_named(pattern).unwrap_or(pattern);
        }
        let name = self.source.text(pattern);
        let at = range(pattern);
        if matches!(pattern.kind(), "object_pattern" | "array_pattern") {
            self.bind(pattern, make::name(name, at), body);
        }
        let kept = named(node)
            .iter()
            .any(|child| matches!(child.kind(), "accessibility_modifier" | "readonly"));
        if constructor && kept {
            push_assign(make::own_field(name, at), make::name(name, at), at, body);
        }
        params.push(Param { name, ty, default, range: at });
    }
}

pub(super) fn is_function(kind: &str) -> bool {
    matches!(kind, "function_expression" | "arrow_function" | "generator_function" | "function")
}
