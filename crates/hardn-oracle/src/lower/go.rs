//! Go to the common form.
//!
//! Pointers are transparent: `*p` and `&x` are what they point to. A method's receiver is called `self`, composite
//! literals of named types are constructed, and packages are known by the last part of their import path.

mod types;

use std::borrow::Cow;

use tree_sitter::Node;

use self::types::{is_number, package_path, unescape};
use super::{MAX_DEPTH, Source, error_bytes, literal, named, range, unknown};
use crate::ir::{
    Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Stmt, StmtKind, Type,
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        receiver: None,
        switches: 0,
        depth: 0,
    };
    lowering.program.functions.push(Function::top_level());
    lowering.declared(root, 0);
    let mut body = Vec::new();
    lowering.block_into(root, &mut body);
    lowering.program.functions[0].body = body;
    lowering.program.error_bytes = error_bytes(root);
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    /// What the method at hand calls its receiver.
    receiver: Option<&'a str>,
    /// Switches around the current statement, inside the innermost loop.
    switches: u32,
    depth: u32,
}

impl<'a> Lowering<'a> {
    /// Imports and types, which code may use before they are declared.
    fn declared(&mut self, node: Node<'_>, depth: u32) {
        for child in named(node) {
            match child.kind() {
                "import_declaration" | "import_spec_list" | "type_declaration" | "ERROR"
                    if depth < 4 =>
                {
                    self.declared(child, depth + 1);
                }
                "import_spec" => self.import(child),
                "type_spec" | "type_alias" => self.type_spec(child),
                _ => {}
            }
        }
    }

    fn import(&mut self, node: Node<'_>) {
        let Some(path) = node.child_by_field_name("path") else { return };
        let path = self.source.text(path).trim_matches(['"', '`']);
        let (local, known) = package_path(path);
        let alias = self.source.field(node, "name");
        let name = if alias.is_empty() { local } else { alias };
        if !matches!(name, "_" | ".") {
            self.program.imports.insert(name, known);
        }
    }

    fn type_spec(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let Some(ty) = node.child_by_field_name("type") else { return };
        match ty.kind() {
            "struct_type" => {
                let mut fields = std::collections::BTreeMap::new();
                for list in named(ty) {
                    for field in named(list) {
                        if field.kind() != "field_declaration" {
                            continue;
                        }
                        let known = self.field_type(field, "type");
                        let mut cursor = field.walk();
                        let names: Vec<&'a str> = field
                            .children_by_field_name("name", &mut cursor)
                            .map(|name| self.source.text(name))
                            .collect();
                        if names.is_empty() {
                            // An embedded type is a field of its own name.
                            let text = self.source.field(field, "type");
                            let short = text.rsplit('.').next().unwrap_or(text);
                            fields.insert(short.trim_start_matches('*'), known);
                        } else {
                            fields.extend(names.into_iter().map(|name| (name, known.clone())));
                        }
                    }
                }
                self.program.structs.insert(name, fields);
            }
            "qualified_type" => {
                // The name stands for the type of the other package.
                let path = self.ty(ty).name.into_owned();
                self.program.imports.insert(name, path);
            }
            _ => {
                let ty = self.ty(ty);
                self.program.typedefs.insert(name, ty);
            }
        }
    }

    fn field_type(&self, node: Node<'_>, field: &str) -> Type<'a> {
        node.child_by_field_name(field).map(|ty| self.ty(ty)).unwrap_or_default()
    }

    /// The type under the name rules know it by; all but numbers hold texts or objects.
    fn ty(&self, node: Node<'_>) -> Type<'a> {
        let name = self.type_name(node, 0);
        let pointers = u8::from(!is_number(&name));
        Type { name, pointers, ..Type::default() }
    }

    fn type_name(&self, node: Node<'_>, depth: u32) -> Cow<'a, str> {
        let text = self.source.text(node);
        if depth > MAX_DEPTH {
            return Cow::Borrowed(text);
        }
        let inner = |node: Option<Node<'_>>| match node {
            Some(node) => self.type_name(node, depth + 1),
            None => Cow::Borrowed(""),
        };
        match node.kind() {
            "pointer_type" | "parenthesized_type" => inner(node.named_child(0)),
            "generic_type" => inner(node.child_by_field_name("type")),
            "slice_type" | "array_type" | "implicit_length_array_type" => {
                Cow::Owned(format!("[]{}", inner(node.child_by_field_name("element"))))
            }
            "map_type" => Cow::Owned(format!("[]{}", inner(node.child_by_field_name("value")))),
            "channel_type" => inner(node.child_by_field_name("value")),
            "qualified_type" => {
                let package = self.source.field(node, "package");
                let name = self.source.field(node, "name");
                match self.program.imports.get(package) {
                    Some(path) => Cow::Owned(format!("{path}.{name}")),
                    None => Cow::Borrowed(text),
                }
            }
            _ => match self.program.imports.get(text) {
                Some(path) => Cow::Owned(path.clone()),
                None => Cow::Borrowed(text),
            },
        }
    }

    fn block(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        self.block_into(node, &mut out);
        out
    }

    fn block_into(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        for child in named(node) {
            self.statement(child, out);
        }
    }

    fn field_block(&mut self, node: Node<'_>, field: &str) -> Vec<Stmt<'a>> {
        node.child_by_field_name(field).map(|body| self.block(body)).unwrap_or_default()
    }

    fn statement(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.statement_inner(node, out);
        }
        self.depth -= 1;
    }

    fn statement_inner(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.kind() {
            "ERROR"
            | "statement_list"
            | "var_spec_list"
            | "var_declaration"
            | "const_declaration"
            | "expression_statement" => {
                self.block_into(node, out);
                return;
            }
            "package_clause"
            | "import_declaration"
            | "comment"
            | "empty_statement"
            | "fallthrough_statement"
            | "package_identifier" => return,
            "type_declaration" => {
                if self.depth > 1 {
                    self.declared(node, 0);
                }
                return;
            }
            "function_declaration" => {
                self.function(node, None);
                return;
            }
            "method_declaration" => {
                self.method(node);
                return;
            }
            "var_spec" | "const_spec" => {
                self.variables(node, out);
                return;
            }
            "short_var_declaration" | "assignment_statement" | "receive_statement" => {
                self.assignment(node, out);
                return;
            }
            "inc_statement" | "dec_statement" => {
                let by = if node.kind() == "inc_statement" { 1 } else { -1 };
                let target = Box::new(self.first(node));
                let kind = ExprKind::Update { target, by, prefix: true };
                StmtKind::Expr(Expr::new(kind, range(node)))
            }
            "defer_statement" | "go_statement" => StmtKind::Expr(self.first(node)),
            "send_statement" => {
                // What is sent may be received.
                let target = self.boxed(node, "channel");
                let value = self.boxed(node, "value");
                let kind = ExprKind::Assign { op: None, target, value };
                StmtKind::Expr(Expr::new(kind, range(node)))
            }
            "return_statement" => {
                StmtKind::Return(named(node).first().map(|value| self.expr(*value)))
            }
            "if_statement" => {
                if let Some(init) = node.child_by_field_name("initializer") {
                    self.statement(init, out);
                }
                let test = match node.child_by_field_name("condition") {
                    Some(test) => self.condition(test),
                    None => unknown(node, Vec::new()),
                };
                let then = self.field_block(node, "consequence");
                let mut otherwise = Vec::new();
                if let Some(other) = node.child_by_field_name("alternative") {
                    self.statement(other, &mut otherwise);
                }
                StmtKind::If { test, then, otherwise }
            }
            "for_statement" => self.for_statement(node),
            "expression_switch_statement" => {
                if let Some(init) = node.child_by_field_name("initializer") {
                    self.statement(init, out);
                }
                self.switch(node)
            }
            "type_switch_statement" => {
                if let Some(init) = node.child_by_field_name("initializer") {
                    self.statement(init, out);
                }
                let value = *self.boxed(node, "value");
                let alias = node.child_by_field_name("alias").and_then(|list| list.named_child(0));
                let value = match alias {
                    Some(alias) => {
                        let target = Box::new(self.expr(alias));
                        let kind = ExprKind::Assign { op: None, target, value: Box::new(value) };
                        Expr::new(kind, range(alias))
                    }
                    None => value,
                };
                StmtKind::Switch { value, cases: self.cases(node) }
            }
            "select_statement" => {
                StmtKind::Switch { value: unknown(node, Vec::new()), cases: self.cases(node) }
            }
            "labeled_statement" => {
                let label = self.source.field(node, "label");
                out.push(Stmt { kind: StmtKind::Label(label), range: range(node) });
                for child in named(node) {
                    if child.kind() != "label_name" {
                        self.statement(child, out);
                    }
                }
                return;
            }
            "goto_statement" => match node.named_child(0) {
                Some(label) => StmtKind::Goto(self.source.text(label)),
                None => return,
            },
            // It leaves the switch: what follows the switch is reached anyway.
            "break_statement" if self.switches > 0 && node.named_child_count() == 0 => return,
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "block" => StmtKind::Block(self.block(node)),
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }

    fn function(&mut self, node: Node<'_>, class: Option<(&'a str, Param<'a>)>) {
        let name = self.source.field(node, "name");
        let mut params = Vec::new();
        let class = class.map(|(class, param)| {
            params.push(param);
            class
        });
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        let returns = match node.child_by_field_name("result") {
            // Of several results, the first is what the others tell about.
            Some(list) if list.kind() == "parameter_list" => {
                let mut results = Vec::new();
                self.params(list, &mut results);
                if results.is_empty() { Type::default() } else { results.swap_remove(0).ty }
            }
            Some(ty) => self.ty(ty),
            None => Type::default(),
        };
        let switches = std::mem::take(&mut self.switches);
        let body = self.field_block(node, "body");
        self.switches = switches;
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns,
            decorators: Vec::new(),
            body,
            top_level: false,
            constructor: false,
        });
    }

    fn method(&mut self, node: Node<'_>) {
        let mut receivers = Vec::new();
        let mut class = "";
        if let Some(list) = node.child_by_field_name("receiver") {
            self.params(list, &mut receivers);
            if let Some(ty) = named(list).first().and_then(|one| one.child_by_field_name("type")) {
                let text = self.source.text(ty).trim_start_matches(['*', '(', ' ']);
                class = text.split(['[', ')']).next().unwrap_or(text).trim();
            }
        }
        if receivers.is_empty() {
            self.function(node, None);
            return;
        }
        let mut receiver = receivers.swap_remove(0);
        let outer = self.receiver.replace(receiver.name);
        receiver.name = "self";
        self.function(node, Some((class, receiver)));
        self.receiver = outer;
    }

    fn params(&mut self, list: Node<'_>, out: &mut Vec<Param<'a>>) {
        for node in named(list) {
            let variadic = node.kind() == "variadic_parameter_declaration";
            if !variadic && node.kind() != "parameter_declaration" {
                continue;
            }
            let mut ty = self.field_type(node, "type");
            if variadic {
                ty = Type { name: format!("[]{}", ty.name).into(), pointers: 1, ..ty };
            }
            let mut cursor = node.walk();
            let names: Vec<Node<'_>> = node.children_by_field_name("name", &mut cursor).collect();
            if names.is_empty() {
                out.push(Param { name: "", ty, default: None, range: range(node) });
                continue;
            }
            for name in names {
                out.push(Param {
                    name: self.source.text(name),
                    ty: ty.clone(),
                    default: None,
                    range: range(name),
                });
            }
        }
    }

    /// `var` and `const` declarations.
    fn variables(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let mut cursor = node.walk();
        let names: Vec<Node<'_>> = node
            .children_by_field_name("name", &mut cursor)
            .filter(|name| name.kind() == "identifier")
            .collect();
        let ty = self.field_type(node, "type");
        let mut values: Vec<Expr<'a>> = match node.child_by_field_name("value") {
            Some(list) => self.exprs(list),
            None => Vec::new(),
        };
        if values.len() == names.len() || values.is_empty() {
            let mut values = values.into_iter();
            for name in names {
                let init = values.next();
                let text = self.source.text(name);
                let kind = match init {
                    Some(value) if ty.name.is_empty() => {
                        let target = Box::new(Expr::new(ExprKind::Name(text), range(name)));
                        let kind = ExprKind::Assign { op: None, target, value: Box::new(value) };
                        StmtKind::Expr(Expr::new(kind, range(node)))
                    }
                    None if node.kind() == "const_spec" => continue,
                    init => StmtKind::Declare { name: text, ty: ty.clone(), init },
                };
                out.push(Stmt { kind, range: range(node) });
            }
            return;
        }
        let targets = names
            .into_iter()
            .map(|name| Expr::new(ExprKind::Name(self.source.text(name)), range(name)))
            .collect();
        let target = Box::new(Expr::new(ExprKind::Tuple(targets), range(node)));
        let value = Box::new(values.swap_remove(0));
        let kind = ExprKind::Assign { op: None, target, value };
        out.push(Stmt { kind: StmtKind::Expr(Expr::new(kind, range(node))), range: range(node) });
    }

    fn assignment(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let left = node.child_by_field_name("left");
        let Some(right) = node.child_by_field_name("right") else {
            self.block_into(node, out);
            return;
        };
        let Some(left) = left else {
            out.push(Stmt { kind: StmtKind::Expr(self.expr(right)), range: range(node) });
            return;
        };
        let op = match self.source.field(node, "operator") {
            "=" | ":=" | "" => None,
            text => Some(binary_op(text.trim_end_matches('='))),
        };
        let mut targets = self.exprs(left);
        let lookup = if right.kind() == "expression_list" { right.named_child(0) } else { None };
        if let (2, Some(lookup)) = (targets.len(), lookup)
            && right.named_child_count() == 1
            && lookup.kind() == "index_expression"
        {
            // `v, ok := m[k]`: the second says whether the key is there.
            let value = self.expr(lookup);
            let found = self.condition(lookup);
            for (value, at) in [(found, 1), (value, 0)] {
                let target = Box::new(targets.remove(at));
                let kind = ExprKind::Assign { op, target, value: Box::new(value) };
                let kind = StmtKind::Expr(Expr::new(kind, range(node)));
                out.push(Stmt { kind, range: range(node) });
            }
            return;
        }
        let target = if targets.len() == 1 {
            targets.swap_remove(0)
        } else {
            Expr::new(ExprKind::Tuple(targets), range(left))
        };
        let value = Box::new(self.expr(right));
        let kind = ExprKind::Assign { op, target: Box::new(target), value };
        out.push(Stmt { kind: StmtKind::Expr(Expr::new(kind, range(node))), range: range(node) });
    }

    fn for_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let mut inner = Loop {
            init: Vec::new(),
            bind: None,
            test: None,
            body: Vec::new(),
            step: None,
            otherwise: Vec::new(),
            body_first: false,
        };
        for child in named(node) {
            match child.kind() {
                "block" => {}
                "for_clause" => {
                    if let Some(init) = child.child_by_field_name("initializer") {
                        self.statement(init, &mut inner.init);
                    }
                    inner.test =
                        child.child_by_field_name("condition").map(|test| self.condition(test));
                    inner.step = child.child_by_field_name("update").map(|step| {
                        let mut out = Vec::new();
                        self.statement(step, &mut out);
                        match out.pop() {
                            Some(Stmt { kind: StmtKind::Expr(expr), .. }) => expr,
                            _ => unknown(step, Vec::new()),
                        }
                    });
                }
                "range_clause" => {
                    let right = *self.boxed(child, "right");
                    inner.bind = Some(match child.child_by_field_name("left") {
                        Some(left) => (self.expr(left), right),
                        None => (Expr::new(ExprKind::Name("_"), range(child)), right),
                    });
                }
                _ => inner.test = Some(self.condition(child)),
            }
        }
        let switches = std::mem::take(&mut self.switches);
        inner.body = self.field_block(node, "body");
        self.switches = switches;
        StmtKind::Loop(Box::new(inner))
    }

    /// A switch without a value is a chain of conditions.
    fn switch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        if let Some(value) = node.child_by_field_name("value") {
            return StmtKind::Switch { value: self.expr(value), cases: self.cases(node) };
        }
        self.switches += 1;
        let mut otherwise = Vec::new();
        let mut branches = Vec::new();
        for case in named(node) {
            match case.kind() {
                "default_case" => otherwise = self.case_body(case),
                "expression_case" => {
                    let tests: Vec<Expr<'a>> = match case.child_by_field_name("value") {
                        Some(list) => {
                            named(list).into_iter().map(|test| self.condition(test)).collect()
                        }
                        None => Vec::new(),
                    };
                    let test = tests
                        .into_iter()
                        .reduce(|left, right| {
                            let (left, right) = (Box::new(left), Box::new(right));
                            let kind = ExprKind::Binary { op: BinaryOp::Or, left, right };
                            Expr::new(kind, range(case))
                        })
                        .unwrap_or_else(|| unknown(case, Vec::new()));
                    branches.push((test, self.case_body(case), range(case)));
                }
                _ => {}
            }
        }
        self.switches -= 1;
        for (test, then, range) in branches.into_iter().rev() {
            let kind = StmtKind::If { test, then, otherwise: std::mem::take(&mut otherwise) };
            otherwise = vec![Stmt { kind, range }];
        }
        StmtKind::Block(otherwise)
    }

    fn cases(&mut self, node: Node<'_>) -> Vec<Case<'a>> {
        self.switches += 1;
        let mut cases = Vec::new();
        for case in named(node) {
            let mut body = Vec::new();
            let values = match case.kind() {
                "default_case" => Vec::new(),
                "expression_case" => match case.child_by_field_name("value") {
                    Some(list) => self.exprs(list),
                    None => vec![unknown(case, Vec::new())],
                },
                "type_case" => vec![unknown(case, Vec::new())],
                "communication_case" => {
                    if let Some(first) = case.child_by_field_name("communication") {
                        self.statement(first, &mut body);
                    }
                    vec![unknown(case, Vec::new())]
                }
                _ => continue,
            };
            body.extend(self.case_body(case));
            let falls_through = named(case)
                .into_iter()
                .rfind(|part| part.kind() == "statement_list")
                .and_then(|list| named(list).pop())
                .is_some_and(|last| last.kind() == "fallthrough_statement");
            cases.push(Case { values, body, falls_through });
        }
        self.switches -= 1;
        cases
    }

    fn case_body(&mut self, case: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        for part in named(case) {
            if part.kind() == "statement_list" {
                self.block_into(part, &mut out);
            }
        }
        out
    }

    fn exprs(&mut self, node: Node<'_>) -> Vec<Expr<'a>> {
        if node.kind() == "expression_list" {
            named(node).into_iter().map(|child| self.expr(child)).collect()
        } else {
            vec![self.expr(node)]
        }
    }

    fn expr(&mut self, node: Node<'_>) -> Expr<'a> {
        self.depth += 1;
        let expr =
            if self.depth > MAX_DEPTH { unknown(node, Vec::new()) } else { self.expr_inner(node) };
        self.depth -= 1;
        expr
    }

    fn boxed(&mut self, node: Node<'_>, field: &str) -> Box<Expr<'a>> {
        Box::new(match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        })
    }

    fn first(&mut self, node: Node<'_>) -> Expr<'a> {
        match node.named_child(0) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        }
    }

    /// An expression whose truth matters: a map that is asked for a key holds the key.
    fn condition(&mut self, node: Node<'_>) -> Expr<'a> {
        self.depth += 1;
        let expr = if self.depth > MAX_DEPTH {
            unknown(node, Vec::new())
        } else {
            match node.kind() {
                "index_expression" => {
                    let left = self.boxed(node, "index");
                    let right = self.boxed(node, "operand");
                    Expr::new(ExprKind::Binary { op: BinaryOp::In, left, right }, range(node))
                }
                "parenthesized_expression" => match node.named_child(0) {
                    Some(inner) => self.condition(inner),
                    None => unknown(node, Vec::new()),
                },
                "unary_expression" if self.source.field(node, "operator") == "!" => {
                    match node.child_by_field_name("operand") {
                        Some(inner) => {
                            let inner = Box::new(self.condition(inner));
                            Expr::new(ExprKind::Not(inner), range(node))
                        }
                        None => unknown(node, Vec::new()),
                    }
                }
                "binary_expression"
                    if matches!(self.source.field(node, "operator"), "&&" | "||") =>
                {
                    let op = binary_op(self.source.field(node, "operator"));
                    match (node.child_by_field_name("left"), node.child_by_field_name("right")) {
                        (Some(left), Some(right)) => {
                            let left = Box::new(self.condition(left));
                            let right = Box::new(self.condition(right));
                            Expr::new(ExprKind::Binary { op, left, right }, range(node))
                        }
                        _ => unknown(node, Vec::new()),
                    }
                }
                _ => self.expr_inner(node),
            }
        };
        self.depth -= 1;
        expr
    }

    fn expr_inner(&mut self, node: Node<'_>) -> Expr<'a> {
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
                let base =
                    Box::new(Expr::new(ExprKind::Name(self.source.text(package)), range(package)));
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
            | "type_constraint" => match node.named_child(0) {
                Some(inner) => return self.expr(inner),
                None => ExprKind::Unknown(Vec::new()),
            },
            "generic_type" | "type_instantiation_expression" => return *self.boxed(node, "type"),
            "variadic_argument" => ExprKind::Star(Box::new(self.first(node))),
            "expression_list" => {
                let mut items = self.exprs(node);
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
                    ("-", ExprKind::Int(number)) => ExprKind::Int(number.wrapping_neg()),
                    ("-", _) => ExprKind::Minus(inner),
                    ("&" | "*", _) => return *inner,
                    _ => ExprKind::Through(inner),
                }
            }
            "slice_type" | "array_type" | "map_type" | "channel_type" | "function_type"
            | "struct_type" | "interface_type" | "iota" => ExprKind::Unknown(Vec::new()),
            _ => ExprKind::Unknown(named(node).into_iter().map(|child| self.expr(child)).collect()),
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
            .map(|arg| Arg { name: None, value: self.expr(arg) })
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
            "literal_element" => value.named_child(0).filter(|one| one.kind() == "literal_value"),
            _ => None,
        };
        self.depth += 1;
        let expr = match (ty, bare) {
            (Some(mut ty), Some(body)) if self.depth <= MAX_DEPTH => {
                if ty.kind() == "pointer_type" {
                    ty = ty.named_child(0).unwrap_or(ty);
                }
                Expr::new(self.composite(ty, body), range(value))
            }
            _ => self.expr(value),
        };
        self.depth -= 1;
        expr
    }

    /// The field a keyed element is for.
    fn field_name(&self, node: Node<'_>) -> Option<&'a str> {
        let key = node.child_by_field_name("key")?;
        let inner = if key.kind() == "literal_element" { key.named_child(0)? } else { key };
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

fn binary_op(text: &str) -> BinaryOp {
    match text {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "<<" => BinaryOp::Shl,
        ">>" => BinaryOp::Shr,
        "&" => BinaryOp::BitAnd,
        "|" => BinaryOp::BitOr,
        "^" => BinaryOp::BitXor,
        "==" => BinaryOp::Eq,
        "!=" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        "&&" => BinaryOp::And,
        "||" => BinaryOp::Or,
        _ => BinaryOp::Other,
    }
}
