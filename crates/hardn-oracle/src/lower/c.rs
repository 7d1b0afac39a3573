//! C and C++ to the common form.

use std::{borrow::Cow, collections::BTreeMap};

use tree_sitter::Node;

use super::{MAX_DEPTH, Source, error_bytes, literal, named, range, unknown};
use crate::ir::{
    Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Stmt, StmtKind, Type,
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        aliases: BTreeMap::new(),
        class: None,
        depth: 0,
    };
    lowering.program.functions.push(Function::top_level());
    let body = lowering.block(root);
    lowering.program.functions[0].body = body;
    lowering.program.error_bytes = error_bytes(root);
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    /// Macros that are nothing but another name.
    aliases: BTreeMap<&'a str, &'a str>,
    class: Option<&'a str>,
    depth: u32,
}

/// What a declarator says: the name, and what it adds to the type.
#[derive(Default)]
struct Declarator<'t, 'a> {
    name: &'a str,
    class: Option<&'a str>,
    pointers: u8,
    is_reference: bool,
    dimensions: Vec<Option<i64>>,
    dimension_text: Option<String>,
    params: Option<Node<'t>>,
}

impl<'a> Lowering<'a> {
    fn block(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        for child in named(node) {
            self.statement(child, &mut out);
        }
        out
    }

    /// The body of a branch or loop, with or without braces.
    fn body(&mut self, node: Node<'_>, field: &str) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        if let Some(body) = node.child_by_field_name(field) {
            if body.kind() == "compound_statement" {
                return self.block(body);
            }
            self.statement(body, &mut out);
        }
        out
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
            // What could be recovered inside an error still counts.
            "ERROR"
            | "linkage_specification"
            | "declaration_list"
            | "namespace_definition"
            | "template_declaration"
            | "attributed_statement"
            | "preproc_else"
            | "preproc_elif"
            | "field_declaration_list"
            | "access_specifier" => {
                out.extend(self.block(node));
                return;
            }
            "preproc_if" | "preproc_ifdef" | "preproc_elifdef" => {
                self.conditional_code(node, out);
                return;
            }
            "preproc_def" => {
                let value = self.source.field(node, "value").trim();
                let name = self.source.field(node, "name");
                if let Some(number) = self.constant_text(value) {
                    self.program.constants.insert(name, number);
                } else if is_identifier(value) && value != name {
                    let target = self.aliases.get(value).copied().unwrap_or(value);
                    self.aliases.insert(name, target);
                }
                return;
            }
            "preproc_function_def" => {
                // A macro around `rand` gives what `rand` gives.
                if self.source.field(node, "value").contains("rand()") {
                    self.aliases.insert(self.source.field(node, "name"), "rand");
                }
                return;
            }
            "function_definition" => {
                self.function(node, out);
                return;
            }
            "declaration" => {
                self.declaration(node, out);
                return;
            }
            "type_definition" => {
                self.type_definition(node);
                return;
            }
            "struct_specifier" | "union_specifier" | "class_specifier" | "enum_specifier" => {
                self.type_of(Some(node));
                return;
            }
            "expression_statement" => {
                for child in named(node) {
                    let expr = self.expr(child);
                    out.push(Stmt { kind: StmtKind::Expr(expr), range: range(child) });
                }
                return;
            }
            "compound_statement" => StmtKind::Block(self.block(node)),
            "if_statement" => {
                let test = self.condition(node, out);
                let otherwise = match node.child_by_field_name("alternative") {
                    Some(clause) if clause.kind() == "else_clause" => {
                        let mut body = Vec::new();
                        for child in named(clause) {
                            self.statement(child, &mut body);
                        }
                        body
                    }
                    _ => Vec::new(),
                };
                StmtKind::If { test, then: self.body(node, "consequence"), otherwise }
            }
            "while_statement" | "do_statement" => {
                let test = self.condition(node, out);
                StmtKind::Loop(Box::new(Loop {
                    init: Vec::new(),
                    bind: None,
                    test: Some(test),
                    body: self.body(node, "body"),
                    step: None,
                    otherwise: Vec::new(),
                    body_first: node.kind() == "do_statement",
                }))
            }
            "for_statement" => {
                let mut init = Vec::new();
                if let Some(first) = node.child_by_field_name("initializer") {
                    self.statement(first, &mut init);
                }
                let test = node.child_by_field_name("condition").map(|test| self.expr(test));
                let step = node.child_by_field_name("update").map(|step| self.expr(step));
                StmtKind::Loop(Box::new(Loop {
                    init,
                    bind: None,
                    test,
                    body: self.body(node, "body"),
                    step,
                    otherwise: Vec::new(),
                    body_first: false,
                }))
            }
            "for_range_loop" => {
                let declarator =
                    node.child_by_field_name("declarator").map(|inner| self.declarator(inner));
                let name = declarator.map_or("", |declarator| declarator.name);
                let target = Expr::new(ExprKind::Name(name), range(node));
                let iterable = *self.boxed(node, "right");
                StmtKind::Loop(Box::new(Loop {
                    init: Vec::new(),
                    bind: Some((target, iterable)),
                    test: None,
                    body: self.body(node, "body"),
                    step: None,
                    otherwise: Vec::new(),
                    body_first: false,
                }))
            }
            "switch_statement" => self.switch(node),
            "case_statement" => StmtKind::Block(self.case(node).body),
            "return_statement" | "co_return_statement" => {
                StmtKind::Return(named(node).first().map(|value| self.expr(*value)))
            }
            "throw_statement" => {
                StmtKind::Raise(named(node).first().map(|value| self.expr(*value)))
            }
            "goto_statement" => StmtKind::Goto(self.source.field(node, "label")),
            "labeled_statement" => {
                out.push(Stmt {
                    kind: StmtKind::Label(self.source.field(node, "label")),
                    range: range(node),
                });
                for child in named(node).into_iter().skip(1) {
                    self.statement(child, out);
                }
                return;
            }
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "try_statement" => {
                let body = self.body(node, "body");
                let handlers = named(node)
                    .into_iter()
                    .filter(|child| child.kind() == "catch_clause")
                    .map(|clause| self.body(clause, "body"))
                    .collect();
                StmtKind::Try { body, handlers, otherwise: Vec::new(), finally: Vec::new() }
            }
            "comment"
            | "preproc_include"
            | "preproc_call"
            | "using_declaration"
            | "alias_declaration"
            | "static_assert_declaration"
            | "friend_declaration"
            | "type_identifier"
            | "primitive_type"
            | "storage_class_specifier"
            | "type_qualifier"
            | "string_content"
            | "namespace_identifier"
            | "preproc_directive"
            | "preproc_arg"
            | "template_parameter_list"
            | "parameter_list" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }

    /// `#if` around code: either side may be compiled.
    fn conditional_code(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let alternative = node.child_by_field_name("alternative");
        let skipped =
            [node.child_by_field_name("name"), node.child_by_field_name("condition"), alternative];
        let mut then = Vec::new();
        for child in named(node) {
            if !skipped.contains(&Some(child)) {
                self.statement(child, &mut then);
            }
        }
        let mut otherwise = Vec::new();
        if let Some(alternative) = alternative {
            self.statement(alternative, &mut otherwise);
        }
        if otherwise.is_empty() {
            out.append(&mut then);
        } else if then.is_empty() {
            out.append(&mut otherwise);
        } else {
            let test = unknown(node, Vec::new());
            out.push(Stmt { kind: StmtKind::If { test, then, otherwise }, range: range(node) });
        }
    }

    fn condition(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) -> Expr<'a> {
        let Some(clause) = node.child_by_field_name("condition") else {
            return unknown(node, Vec::new());
        };
        if clause.kind() != "condition_clause" {
            return self.expr(clause);
        }
        if let Some(first) = clause.child_by_field_name("initializer") {
            self.statement(first, out);
        }
        match clause.child_by_field_name("value") {
            Some(value) if value.kind() == "declaration" => {
                // `if (T *p = f())` declares, then tests.
                self.declaration(value, out);
                match out.last() {
                    Some(Stmt { kind: StmtKind::Declare { name, .. }, .. }) => {
                        Expr::new(ExprKind::Name(name), range(value))
                    }
                    _ => unknown(value, Vec::new()),
                }
            }
            Some(value) => self.expr(value),
            None => unknown(clause, Vec::new()),
        }
    }

    fn switch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let mut hoisted = Vec::new();
        let value = self.condition(node, &mut hoisted);
        let mut cases = Vec::new();
        if let Some(body) = node.child_by_field_name("body") {
            for child in named(body) {
                if child.kind() == "case_statement" {
                    cases.push(self.case(child));
                } else if let Some(last) = cases.last_mut() {
                    let last: &mut Case<'a> = last;
                    let mut more = Vec::new();
                    self.statement(child, &mut more);
                    last.body.append(&mut more);
                }
            }
        }
        StmtKind::Switch { value, cases }
    }

    fn case(&mut self, node: Node<'_>) -> Case<'a> {
        let value = node.child_by_field_name("value");
        let mut body = Vec::new();
        for child in named(node) {
            if Some(child) != value {
                self.statement(child, &mut body);
            }
        }
        Case {
            values: value.map(|value| self.expr(value)).into_iter().collect(),
            body,
            falls_through: true,
        }
    }

    fn function(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let returns = self.type_of(node.child_by_field_name("type"));
        let declarator = node
            .child_by_field_name("declarator")
            .map(|inner| self.declarator(inner))
            .unwrap_or_default();
        let Some(list) = declarator.params else {
            // A macro in place of a signature: the body still counts.
            let body = self.body(node, "body");
            out.push(Stmt { kind: StmtKind::Block(body), range: range(node) });
            return;
        };
        let mut params = Vec::new();
        for param in named(list) {
            if matches!(param.kind(), "parameter_declaration" | "optional_parameter_declaration") {
                let ty = self.type_of(param.child_by_field_name("type"));
                let inner = param
                    .child_by_field_name("declarator")
                    .map(|inner| self.declarator(inner))
                    .unwrap_or_default();
                if ty.name == "void" && inner.pointers == 0 && inner.name.is_empty() {
                    continue;
                }
                let name = inner.name;
                params.push(Param {
                    name,
                    ty: complete(ty, &inner),
                    default: None,
                    range: range(param),
                });
            }
        }
        let class = declarator.class.or(self.class);
        let name = declarator.name;
        let returns = Type {
            pointers: returns.pointers + declarator.pointers,
            is_reference: declarator.is_reference,
            ..returns
        };
        let body = self.body(node, "body");
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

    fn declarator<'t>(&mut self, node: Node<'t>) -> Declarator<'t, 'a> {
        let mut result = Declarator::default();
        let mut current = node;
        for _ in 0..MAX_DEPTH {
            match current.kind() {
                "pointer_declarator"
                | "abstract_pointer_declarator"
                | "pointer_type_declarator" => result.pointers += 1,
                "reference_declarator" | "abstract_reference_declarator" => {
                    result.is_reference = true;
                }
                "array_declarator" | "abstract_array_declarator" => {
                    let size = current.child_by_field_name("size");
                    let text = size.map(|size| self.source.text(size));
                    let number = text.and_then(|text| self.constant_text(text));
                    if result.dimensions.is_empty() || number.is_none() {
                        result.dimension_text = text.map(normal);
                    }
                    // The outermost declarator is the last dimension.
                    result.dimensions.insert(0, number);
                }
                "function_declarator" | "abstract_function_declarator" => {
                    result.params = current.child_by_field_name("parameters");
                }
                "identifier" | "field_identifier" | "type_identifier" | "operator_name"
                | "destructor_name" | "primitive_type" => {
                    result.name = self.source.text(current);
                    return result;
                }
                "qualified_identifier" => {
                    let scope = self.source.field(current, "scope");
                    if !scope.is_empty() {
                        result.class = Some(scope);
                    }
                    match current.child_by_field_name("name") {
                        Some(name) => {
                            current = name;
                            continue;
                        }
                        None => return result,
                    }
                }
                _ => {}
            }
            let next = current.child_by_field_name("declarator").or_else(|| {
                named(current).into_iter().find(|child| {
                    child.kind().ends_with("declarator")
                        || matches!(
                            child.kind(),
                            "identifier" | "field_identifier" | "qualified_identifier"
                        )
                })
            });
            match next {
                Some(next) => current = next,
                None => return result,
            }
        }
        result
    }

    fn type_of(&mut self, node: Option<Node<'_>>) -> Type<'a> {
        let Some(node) = node else { return Type::default() };
        let name = match node.kind() {
            "struct_specifier" | "union_specifier" | "class_specifier" => {
                let name = self.source.field(node, "name");
                if let Some(body) = node.child_by_field_name("body") {
                    let fields = self.fields(body, name);
                    let key = if name.is_empty() { self.source.text(node) } else { name };
                    if node.kind() != "union_specifier" {
                        let order = self.field_order(body);
                        self.program.layouts.insert(key, order);
                    }
                    if name.is_empty() {
                        // Anonymous: known by its place in the text.
                        self.program.structs.insert(key, fields);
                        return Type { name: Cow::Borrowed(key), ..Type::default() };
                    }
                    self.program.structs.insert(name, fields);
                }
                Cow::Borrowed(name)
            }
            "enum_specifier" => {
                if let Some(body) = node.child_by_field_name("body") {
                    let mut next = 0;
                    for item in named(body).into_iter().filter(|item| item.kind() == "enumerator") {
                        let value = self.source.field(item, "value");
                        if !value.is_empty() {
                            next = self.constant_text(value).unwrap_or(next);
                        }
                        self.program.constants.insert(self.source.field(item, "name"), next);
                        next += 1;
                    }
                }
                Cow::Borrowed("int")
            }
            "sized_type_specifier" => {
                let words: Vec<&str> = self.source.text(node).split_whitespace().collect();
                Cow::Owned(words.join(" "))
            }
            _ => Cow::Borrowed(self.source.text(node)),
        };
        Type { name, ..Type::default() }
    }

    fn fields(&mut self, body: Node<'_>, class: &'a str) -> BTreeMap<&'a str, Type<'a>> {
        let mut fields = BTreeMap::new();
        let outer = self.class.replace(class);
        for child in named(body) {
            if child.kind() == "field_declaration" {
                let ty = self.type_of(child.child_by_field_name("type"));
                let mut cursor = child.walk();
                let declarators: Vec<Node<'_>> =
                    child.children_by_field_name("declarator", &mut cursor).collect();
                for inner in declarators {
                    let declarator = self.declarator(inner);
                    if declarator.params.is_some() && declarator.pointers == 0 {
                        continue; // a method
                    }
                    fields.insert(declarator.name, complete(ty.clone(), &declarator));
                }
            } else if child.kind() == "function_definition" {
                self.statement(child, &mut Vec::new());
            }
        }
        self.class = outer;
        fields
    }

    fn field_order(&mut self, body: Node<'_>) -> Vec<&'a str> {
        let mut order = Vec::new();
        for child in named(body) {
            if child.kind() == "field_declaration" {
                let mut cursor = child.walk();
                let declarators: Vec<Node<'_>> =
                    child.children_by_field_name("declarator", &mut cursor).collect();
                for inner in declarators {
                    let declarator = self.declarator(inner);
                    if declarator.params.is_none() {
                        order.push(declarator.name);
                    }
                }
            }
        }
        order
    }

    fn type_definition(&mut self, node: Node<'_>) {
        let ty = self.type_of(node.child_by_field_name("type"));
        let mut cursor = node.walk();
        let declarators: Vec<Node<'_>> =
            node.children_by_field_name("declarator", &mut cursor).collect();
        for inner in declarators {
            let declarator = self.declarator(inner);
            if declarator.params.is_none() {
                self.program.typedefs.insert(declarator.name, complete(ty.clone(), &declarator));
            }
        }
    }

    fn declaration(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let mut ty = self.type_of(node.child_by_field_name("type"));
        ty.is_static = named(node).into_iter().any(|child| {
            child.kind() == "storage_class_specifier"
                && matches!(self.source.text(child), "static" | "extern" | "thread_local")
        });
        let mut cursor = node.walk();
        let declarators: Vec<Node<'_>> =
            node.children_by_field_name("declarator", &mut cursor).collect();
        for inner in declarators {
            let declarator = self.declarator(inner);
            if declarator.params.is_some() && inner.kind() != "init_declarator" {
                let returns = Type {
                    pointers: ty.pointers + declarator.pointers,
                    is_reference: declarator.is_reference,
                    ..ty.clone()
                };
                self.program.prototypes.insert(declarator.name, returns);
                continue;
            }
            let mut init = if inner.kind() == "init_declarator" {
                inner.child_by_field_name("value")
            } else {
                None
            };
            if init.is_none() && inner.kind() != "init_declarator" {
                init = node.child_by_field_name("value");
            }
            let init = init.map(|value| self.initial_value(value));
            let name = declarator.name;
            let mut full = complete(ty.clone(), &declarator);
            // `char s[] = "text"` and `int a[] = {1, 2}` take their size from the value.
            if let (Some(None), Some(value)) = (full.dimensions.first(), &init) {
                full.dimensions[0] = match &value.kind {
                    ExprKind::Str(text) => Some(text.len() as i64 + 1),
                    ExprKind::List(items) => Some(items.len() as i64),
                    _ => None,
                };
            }
            if let (true, Some(ExprKind::Int(number))) = (
                self.source.text(node).starts_with("static const")
                    || self.source.text(node).starts_with("const"),
                init.as_ref().map(|init| &init.kind),
            ) {
                self.program.constants.entry(name).or_insert(*number);
            }
            out.push(Stmt {
                kind: StmtKind::Declare { name, ty: full, init },
                range: range(inner),
            });
        }
    }

    fn initial_value(&mut self, node: Node<'_>) -> Expr<'a> {
        if node.kind() == "argument_list" {
            let mut parts: Vec<Expr<'a>> =
                named(node).into_iter().map(|child| self.expr(child)).collect();
            return if parts.len() == 1 { parts.remove(0) } else { unknown(node, parts) };
        }
        self.expr(node)
    }

    fn expr(&mut self, node: Node<'_>) -> Expr<'a> {
        self.depth += 1;
        let expr =
            if self.depth > MAX_DEPTH { unknown(node, Vec::new()) } else { self.expr_inner(node) };
        self.depth -= 1;
        expr
    }

    fn exprs(&mut self, node: Node<'_>) -> Vec<Expr<'a>> {
        named(node).into_iter().map(|child| self.expr(child)).collect()
    }

    fn boxed(&mut self, node: Node<'_>, field: &str) -> Box<Expr<'a>> {
        Box::new(match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        })
    }

    fn expr_inner(&mut self, node: Node<'_>) -> Expr<'a> {
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
                let mut expr = Expr::new(ExprKind::Name(first), range(node));
                for part in parts {
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
                    args = named(list)
                        .into_iter()
                        .map(|child| Arg { name: None, value: self.expr(child) })
                        .collect();
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
                    ("-", ExprKind::Int(number)) => ExprKind::Int(number.wrapping_neg()),
                    ("-", _) => ExprKind::Minus(inner),
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
                let member =
                    Expr::new(ExprKind::Name(self.source.field(node, "member")), range(node));
                let ty = Expr::new(ExprKind::SizeofType(ty), range(node));
                ExprKind::Call {
                    callee: Box::new(Expr::new(ExprKind::Name("offsetof"), range(node))),
                    args: [ty, member].map(|value| Arg { name: None, value }).into(),
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
            "parenthesized_expression" | "condition_clause" => match named(node).first() {
                Some(inner) => return self.expr(*inner),
                None => ExprKind::Unknown(Vec::new()),
            },
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
                    args = named(list)
                        .into_iter()
                        .map(|child| Arg { name: None, value: self.expr(child) })
                        .collect();
                }
                match ty.name {
                    Cow::Borrowed(name) if !name.is_empty() => ExprKind::Construct {
                        callee: Box::new(Expr::new(ExprKind::Name(name), range(node))),
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
                "parenthesized_expression" => current = *named(current).first()?,
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
        let args = parts
            .into_iter()
            .rev()
            .map(|part| Arg { name: None, value: self.expr(part) })
            .collect();
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

    fn type_descriptor(&mut self, node: Node<'_>) -> Type<'a> {
        let Some(descriptor) = node.child_by_field_name("type") else { return Type::default() };
        let ty = self.type_of(descriptor.child_by_field_name("type"));
        match descriptor.child_by_field_name("declarator") {
            Some(inner) => {
                let declarator = self.declarator(inner);
                complete(ty, &declarator)
            }
            None => ty,
        }
    }

    /// The value of simple constant text: a number, a known constant, or a product or sum of two of them.
    fn constant_text(&self, text: &str) -> Option<i64> {
        let text =
            text.split("/*").next().unwrap_or(text).split("//").next().unwrap_or(text).trim();
        let inner = match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) if !inner.contains('(') => inner.trim(),
            _ => text,
        };
        if let Some(number) = literal::integer(inner) {
            return Some(number);
        }
        if let Some(number) = self.program.constants.get(inner) {
            return Some(*number);
        }
        for (sign, apply) in [
            ("<<", i64::checked_shl_ as fn(i64, i64) -> Option<i64>),
            ("+", i64::checked_add),
            ("-", i64::checked_sub),
            ("*", i64::checked_mul),
        ] {
            if let Some((left, right)) = inner.rsplit_once(sign)
                && !left.trim().is_empty()
            {
                return apply(self.constant_text(left)?, self.constant_text(right)?);
            }
        }
        None
    }
}

/// A checked shift with the shape of the other checked operations.
trait CheckedShift {
    fn checked_shl_(self, by: i64) -> Option<i64>;
}

impl CheckedShift for i64 {
    fn checked_shl_(self, by: i64) -> Option<i64> {
        if (0..62).contains(&by) { self.checked_mul(1 << by) } else { None }
    }
}

fn complete<'a>(ty: Type<'a>, declarator: &Declarator<'_, 'a>) -> Type<'a> {
    let mut dimensions = declarator.dimensions.clone();
    dimensions.extend(ty.dimensions);
    Type {
        name: ty.name,
        pointers: ty.pointers + declarator.pointers,
        dimensions,
        dimension_text: declarator.dimension_text.clone(),
        is_static: ty.is_static,
        is_reference: declarator.is_reference,
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Text without white space, as places and bounds are compared.
fn normal(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
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
        "&&" | "and" => BinaryOp::And,
        "||" | "or" => BinaryOp::Or,
        _ => BinaryOp::Other,
    }
}
