//! Python to the common form.

use std::borrow::Cow;

use tree_sitter::Node;

use crate::{
    ir::{
        Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Stmt, StmtKind, Type,
    },
    lower::{
        front_end::{FrontEnd, Source, all_named, named, range, unknown},
        literal, make,
        operator::binary_op,
    },
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering =
        Lowering { source: Source { code }, program: Program::default(), class: None, depth: 0 };
    lowering.top_level(|lowering| lowering.block(root));
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    depth: u32,
}

impl<'a, 't> FrontEnd<'a, 't> for Lowering<'a> {
    const BLOCKS: &'static [&'static str] = &["block"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }

    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.statement_inner(node, out);
    }

    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a> {
        self.expr_inner(node)
    }
}

impl<'a> Lowering<'a> {
    fn statement_inner(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.kind() {
            "ERROR" => {
                // What could be recovered inside an error still counts.
                out.extend(self.block(node));
                return;
            }
            "expression_statement" => {
                for child in named(node) {
                    let expr = self.expr(child);
                    out.push(make::statement(expr, range(child)));
                }
                return;
            }
            "import_statement" | "import_from_statement" => {
                self.import(node);
                return;
            }
            "function_definition" => {
                self.function(node, Vec::new());
                return;
            }
            "class_definition" => {
                self.class(node);
                return;
            }
            "decorated_definition" => {
                let mut decorators = Vec::new();
                for child in named(node) {
                    match child.kind() {
                        "decorator" => decorators
                            .extend(named(child).into_iter().map(|inner| self.expr(inner))),
                        "function_definition" => {
                            self.function(child, std::mem::take(&mut decorators));
                        }
                        _ => self.statement(child, out),
                    }
                }
                return;
            }
            "return_statement" => StmtKind::Return(self.first(node)),
            "raise_statement" => StmtKind::Raise(self.first(node)),
            "assert_statement" => match named(node).first() {
                Some(test) => StmtKind::Assert(self.expr(*test)),
                None => return,
            },
            "delete_statement" => StmtKind::Delete(self.exprs(node)),
            "if_statement" => self.if_statement(node),
            "for_statement" => {
                let (Some(left), Some(right)) =
                    (node.child_by_field_name("left"), node.child_by_field_name("right"))
                else {
                    return;
                };
                make::looped(Loop {
                    bind: Some((self.expr(left), self.expr(right))),
                    body: self.field_block(node, "body"),
                    otherwise: self.alternative(node),
                    ..Loop::default()
                })
            }
            "while_statement" => make::looped(Loop {
                test: node.child_by_field_name("condition").map(|test| self.expr(test)),
                body: self.field_block(node, "body"),
                otherwise: self.alternative(node),
                ..Loop::default()
            }),
            "try_statement" => self.try_statement(node),
            "with_statement" => self.with_statement(node),
            "match_statement" => self.match_statement(node),
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "print_statement" | "exec_statement" => {
                let name = if node.kind() == "exec_statement" { "exec" } else { "print" };
                let args = make::args(self.exprs(node));
                StmtKind::Expr(make::called(name, args, range(node)))
            }
            "block" | "module" => StmtKind::Block(self.block(node)),
            "pass_statement"
            | "global_statement"
            | "nonlocal_statement"
            | "comment"
            | "type_alias_statement"
            | "future_import_statement" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }

    fn alternative(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        match node.child_by_field_name("alternative") {
            Some(clause) => self.field_block(clause, "body"),
            None => Vec::new(),
        }
    }

    fn if_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let clauses = all_named(node, "alternative");
        let mut otherwise = Vec::new();
        for clause in clauses.into_iter().rev() {
            if clause.kind() == "else_clause" {
                otherwise = self.field_block(clause, "body");
            } else {
                let kind = self.branch(clause, std::mem::take(&mut otherwise));
                otherwise = vec![Stmt { kind, range: range(clause) }];
            }
        }
        self.branch(node, otherwise)
    }

    fn branch(&mut self, node: Node<'_>, otherwise: Vec<Stmt<'a>>) -> StmtKind<'a> {
        let test = match node.child_by_field_name("condition") {
            Some(test) => self.expr(test),
            None => unknown(node, Vec::new()),
        };
        StmtKind::If { test, then: self.field_block(node, "consequence"), otherwise }
    }

    fn try_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let body = self.field_block(node, "body");
        let (mut handlers, mut otherwise, mut finally) = (Vec::new(), Vec::new(), Vec::new());
        for child in named(node) {
            match child.kind() {
                "except_clause" | "except_group_clause" => {
                    let block = named(child).into_iter().rev().find(|part| part.kind() == "block");
                    let mut handler: Vec<Stmt<'a>> = self.caught(child).into_iter().collect();
                    handler.extend(block.map(|block| self.block(block)).unwrap_or_default());
                    handlers.push(handler);
                }
                "else_clause" => otherwise = self.field_block(child, "body"),
                "finally_clause" => {
                    if let Some(block) =
                        named(child).into_iter().find(|part| part.kind() == "block")
                    {
                        finally = self.block(block);
                    }
                }
                _ => {}
            }
        }
        StmtKind::Try { body, handlers, otherwise, finally }
    }

    /// `except E as e` as `e = __exception__()`, a call that rules can name.
    fn caught(&mut self, clause: Node<'_>) -> Option<Stmt<'a>> {
        let pattern = named(clause).into_iter().find(|part| part.kind() == "as_pattern")?;
        let alias = pattern.child_by_field_name("alias")?.named_child(0)?;
        let place = range(pattern);
        let value = make::called("__exception__", Vec::new(), place);
        Some(make::statement(make::assigned(self.expr(alias), value, place), place))
    }

    fn with_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let mut items = Vec::new();
        for clause in named(node).into_iter().filter(|child| child.kind() == "with_clause") {
            for item in named(clause) {
                let Some(value) = item.child_by_field_name("value") else { continue };
                if value.kind() == "as_pattern" {
                    let subject = value.named_child(0).map(|inner| self.expr(inner));
                    let alias =
                        value.child_by_field_name("alias").and_then(|alias| alias.named_child(0));
                    if let Some(subject) = subject {
                        items.push((subject, alias.map(|alias| self.expr(alias))));
                    }
                } else {
                    items.push((self.expr(value), None));
                }
            }
        }
        StmtKind::With { items, body: self.field_block(node, "body") }
    }

    fn match_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let value = match node.child_by_field_name("subject") {
            Some(subject) => self.expr(subject),
            None => unknown(node, Vec::new()),
        };
        let mut cases = Vec::new();
        if let Some(body) = node.child_by_field_name("body") {
            for clause in named(body).into_iter().filter(|child| child.kind() == "case_clause") {
                let mut values = Vec::new();
                for pattern in
                    named(clause).into_iter().filter(|child| child.kind() == "case_pattern")
                {
                    if self.source.text(pattern) == "_" {
                        continue;
                    }
                    match pattern.named_child(0).filter(|inner| inner.kind() == "union_pattern") {
                        Some(union) => {
                            values.extend(named(union).into_iter().map(|one| self.expr(one)));
                        }
                        None => values.push(self.expr(pattern)),
                    }
                }
                if let Some(guard) = clause.child_by_field_name("guard") {
                    // What it matches is no longer all it takes.
                    let test = self.expr(guard);
                    values = vec![unknown(guard, vec![test])];
                }
                cases.push(Case {
                    values,
                    body: self.field_block(clause, "consequence"),
                    falls_through: false,
                });
            }
        }
        StmtKind::Switch { value, cases }
    }

    fn import(&mut self, node: Node<'_>) {
        let module = node.child_by_field_name("module_name").map(|module| self.source.text(module));
        let names = all_named(node, "name");
        for name in names {
            let (path, alias) = if name.kind() == "aliased_import" {
                (self.source.field(name, "name"), Some(self.source.field(name, "alias")))
            } else {
                (self.source.text(name), None)
            };
            if let Some(module) = module {
                let full = format!("{}.{path}", module.trim_start_matches('.'));
                self.program
                    .imports
                    .insert(alias.unwrap_or(path), full.trim_start_matches('.').to_owned());
            } else {
                // `import a.b` binds `a`, and `a.b.c` is then written in full.
                let local = alias.unwrap_or_else(|| path.split('.').next().unwrap_or(path));
                let full = if alias.is_some() { path } else { local };
                self.program.imports.insert(local, full.to_owned());
            }
        }
    }

    fn class(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let outer = self.class.replace(name);
        let body = self.field_block(node, "body");
        self.class = outer;
        let supers = node.child_by_field_name("superclasses").map(named).unwrap_or_default();
        let supers = supers.into_iter().filter_map(|base| match base.kind() {
            "identifier" => Some(self.source.text(base)),
            // A class is known by its last name, however it was imported.
            "attribute" => Some(self.source.field(base, "attribute")),
            _ => None,
        });
        self.program.supers.insert(name, supers.collect());
        self.program.classes.insert(name, body);
    }

    fn function(&mut self, node: Node<'_>, decorators: Vec<Expr<'a>>) {
        let name = self.source.field(node, "name");
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            for param in named(list) {
                self.param(param, &mut params);
            }
        }
        let class = self.class;
        // Nested functions are functions of their own and no methods.
        let body = {
            let outer = self.class.take();
            let body = self.field_block(node, "body");
            self.class = outer;
            body
        };
        let returns =
            Type { name: Cow::Borrowed(self.source.field(node, "return_type")), ..Type::default() };
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns,
            decorators,
            body,
            top_level: false,
            constructor: class.is_some() && matches!(name, "__init__" | "setUp" | "__post_init__"),
        });
    }

    fn param(&mut self, node: Node<'_>, out: &mut Vec<Param<'a>>) {
        let name_node = match node.kind() {
            "identifier" => Some(node),
            "typed_parameter" | "list_splat_pattern" | "dictionary_splat_pattern" => {
                node.named_child(0)
            }
            "default_parameter" | "typed_default_parameter" => node.child_by_field_name("name"),
            _ => None,
        };
        let Some(name_node) = name_node else { return };
        let default = node.child_by_field_name("value").map(|value| self.expr(value));
        let ty = Type { name: Cow::Borrowed(self.source.field(node, "type")), ..Type::default() };
        let name = self.source.text(name_node).trim_start_matches('*');
        out.push(Param { name, ty, default, range: range(node) });
    }

    fn expr_inner(&mut self, node: Node<'_>) -> Expr<'a> {
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

    fn param_names(&mut self, list: Node<'_>, out: &mut Vec<&'a str>) {
        let mut params = Vec::new();
        for param in named(list) {
            self.param(param, &mut params);
        }
        out.extend(params.into_iter().map(|param| param.name));
    }

    fn dotted_name(&mut self, node: Node<'_>) -> Expr<'a> {
        let mut parts = named(node).into_iter();
        let Some(first) = parts.next() else { return unknown(node, Vec::new()) };
        let mut expr = self.expr(first);
        for part in parts {
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
        let mut whole: Option<Expr<'a>> = None;
        for (pair, op) in operands.windows(2).zip(&operators) {
            let (left, right) = (Box::new(self.expr(pair[0])), Box::new(self.expr(pair[1])));
            let part = Expr::new(ExprKind::Binary { op: binary_op(op), left, right }, range(node));
            whole = Some(match whole {
                None => part,
                Some(before) => Expr::new(
                    ExprKind::Binary {
                        op: BinaryOp::And,
                        left: Box::new(before),
                        right: Box::new(part),
                    },
                    range(node),
                ),
            });
        }
        whole.unwrap_or_else(|| unknown(node, Vec::new()))
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
