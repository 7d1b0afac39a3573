//! Java to the common form.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use tree_sitter::Node;

use super::{MAX_DEPTH, Source, error_bytes, literal, named, range, unknown};
use crate::ir::{
    Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Range, Stmt, StmtKind,
    Type,
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        class: None,
        fields: BTreeSet::new(),
        locals: Locals::default(),
        in_method: false,
        methods_too: true,
        bodies: Vec::new(),
        depth: 0,
    };
    lowering.program.functions.push(Function::top_level());
    let mut body = Vec::new();
    for child in named(root) {
        lowering.member(child, &mut body);
    }
    lowering.program.functions[0].body = body;
    lowering.program.error_bytes = error_bytes(root);
    lowering.program
}

/// Names of variables in scope: those that are not may be fields.
#[derive(Default)]
struct Locals<'a> {
    counts: BTreeMap<&'a str, usize>,
    order: Vec<&'a str>,
}

impl<'a> Locals<'a> {
    fn add(&mut self, name: &'a str) {
        *self.counts.entry(name).or_default() += 1;
        self.order.push(name);
    }

    fn leave(&mut self, mark: usize) {
        for name in self.order.drain(mark..) {
            if let Some(count) = self.counts.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.counts.get(name).is_some_and(|count| *count > 0)
    }
}

struct Lowering<'a, 't> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    /// Fields of the classes around the current place.
    fields: BTreeSet<&'a str>,
    locals: Locals<'a>,
    /// Inside a method a bare name may be a field.
    in_method: bool,
    /// Methods of anonymous classes become functions of their own as well.
    methods_too: bool,
    /// Bodies of the classes around the current place: their fields hold in inner classes too.
    bodies: Vec<Node<'t>>,
    depth: u32,
}

impl<'a, 't> Lowering<'a, 't> {
    /// What stands in a class body or outside all classes.
    fn member(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.member_inner(node, out);
        }
        self.depth -= 1;
    }

    fn member_inner(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        match node.kind() {
            "import_declaration" => self.import(node),
            "method_declaration"
            | "constructor_declaration"
            | "compact_constructor_declaration" => {
                self.annotations(node, out);
                self.function(node);
            }
            "field_declaration" | "constant_declaration" => {
                self.annotations(node, out);
                self.declaration(node, out);
            }
            "static_initializer" => {
                for child in named(node) {
                    self.statement(child, out);
                }
            }
            "enum_body_declarations" | "ERROR" => {
                for child in named(node) {
                    self.member(child, out);
                }
            }
            "enum_constant" => {
                for child in named(node) {
                    if child.kind() == "argument_list" {
                        let args = self.exprs(child);
                        let expr = Expr::new(ExprKind::Unknown(args), range(child));
                        out.push(Stmt { kind: StmtKind::Expr(expr), range: range(child) });
                    }
                }
                if let Some(body) = node.child_by_field_name("body") {
                    for child in named(body) {
                        self.member(child, out);
                    }
                }
            }
            "package_declaration"
            | "module_declaration"
            | "modifiers"
            | "identifier"
            | "type_identifier" => {}
            _ => self.statement(node, out),
        }
    }

    /// Annotations as calls, so that rules can read their arguments: `@Name(..)`.
    fn annotations(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        for expr in self.decorators(node) {
            let range = expr.range;
            out.push(Stmt { kind: StmtKind::Expr(expr), range });
        }
    }

    fn decorators(&mut self, node: Node<'t>) -> Vec<Expr<'a>> {
        let mut out = Vec::new();
        for child in named(node) {
            match child.kind() {
                "modifiers" => out.extend(self.decorators(child)),
                "annotation" | "marker_annotation" => out.push(self.annotation(child)),
                _ => {}
            }
        }
        out
    }

    /// The name of an annotation with its sign, without the package.
    fn annotation_name(&self, node: Node<'t>) -> &'a str {
        let name = node.child_by_field_name("name");
        match name {
            Some(name) if name.kind() == "identifier" => {
                self.source.code.get(node.start_byte()..name.end_byte()).unwrap_or("")
            }
            Some(name) => self.source.field(name, "name"),
            None => "",
        }
    }

    fn annotation(&mut self, node: Node<'t>) -> Expr<'a> {
        let callee = Box::new(Expr::new(ExprKind::Name(self.annotation_name(node)), range(node)));
        let mut args = Vec::new();
        if let Some(list) = node.child_by_field_name("arguments") {
            for child in named(list) {
                if child.kind() == "element_value_pair" {
                    let name = Some(self.source.field(child, "key"));
                    args.push(Arg { name, value: *self.boxed(child, "value") });
                } else {
                    args.push(Arg { name: None, value: self.expr(child) });
                }
            }
        }
        Expr::new(ExprKind::Call { callee, args }, range(node))
    }

    /// Classes are known by their simple names; what is imported from classes by the class and the name.
    fn import(&mut self, node: Node<'t>) {
        let mut cursor = node.walk();
        if !node.children(&mut cursor).any(|child| child.kind() == "static") {
            return;
        }
        let Some(path) = named(node).into_iter().find(|child| child.kind() == "scoped_identifier")
        else {
            return;
        };
        let name = self.source.field(path, "name");
        let class = self.source.field(path, "scope").rsplit('.').next().unwrap_or("");
        if named(node).iter().all(|child| child.kind() != "asterisk") {
            self.program.imports.insert(name, format!("{class}.{name}"));
        }
    }

    fn class(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.annotations(node, out);
        let name = self.source.field(node, "name");
        let decorators = self.decorators(node);
        self.program.decorators.insert(name, decorators);
        let supers: Vec<&'a str> = named(node)
            .into_iter()
            .filter(|child| {
                matches!(child.kind(), "superclass" | "super_interfaces" | "extends_interfaces")
            })
            .flat_map(|child| {
                let list = named(child);
                match list.as_slice() {
                    [only] if only.kind() == "type_list" => named(*only),
                    _ => list,
                }
            })
            .map(|ty| self.type_name(ty))
            .collect();
        self.program.supers.insert(name, supers);
        let Some(body) = node.child_by_field_name("body") else { return };
        let outer_class = self.class.replace(name);
        let outer_fields = self.fields.clone();
        let outer_locals = std::mem::take(&mut self.locals);
        let outer_method = std::mem::replace(&mut self.in_method, false);
        let mut statements = Vec::new();
        // Fields of the classes around are fields here, too.
        for at in 0..self.bodies.len().min(4) {
            for field in named(self.bodies[at]) {
                if matches!(field.kind(), "field_declaration" | "constant_declaration") {
                    self.declaration(field, &mut statements);
                }
            }
        }
        self.collect_fields(body);
        if let Some(params) = node.child_by_field_name("parameters") {
            let mut fields = Vec::new();
            for param in named(params) {
                self.param(param, &mut fields);
            }
            for param in fields {
                self.fields.insert(param.name);
                let kind = StmtKind::Declare { name: param.name, ty: param.ty, init: None };
                statements.push(Stmt { kind, range: param.range });
            }
        }
        self.bodies.push(body);
        for child in named(body) {
            self.member(child, &mut statements);
        }
        self.bodies.pop();
        self.class = outer_class;
        self.fields = outer_fields;
        self.locals = outer_locals;
        self.in_method = outer_method;
        self.program.classes.insert(name, statements);
    }

    fn collect_fields(&mut self, body: Node<'t>) {
        for child in named(body) {
            match child.kind() {
                "field_declaration" | "constant_declaration" => {
                    let mut cursor = child.walk();
                    for declarator in child.children_by_field_name("declarator", &mut cursor) {
                        self.fields.insert(self.source.field(declarator, "name"));
                    }
                }
                "enum_body_declarations" => self.collect_fields(child),
                _ => {}
            }
        }
    }

    fn function(&mut self, node: Node<'t>) {
        let Some(body) = node.child_by_field_name("body") else { return };
        let name = self.source.field(node, "name");
        let constructor = node.kind() != "method_declaration";
        let mut decorators = self.decorators(node);
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let mark = self.locals.order.len();
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            for param in named(list) {
                self.param(param, &mut params);
                let Some(last) = params.last() else { continue };
                // An annotation of a parameter names it.
                for annotation in annotations_of(param) {
                    let place = Range { start: last.range.start, end: last.range.end };
                    let value = Expr::new(ExprKind::Name(last.name), place);
                    let callee = ExprKind::Name(self.annotation_name(annotation));
                    let kind = ExprKind::Call {
                        callee: Box::new(Expr::new(callee, range(annotation))),
                        args: vec![Arg { name: Some(PARAMETER), value }],
                    };
                    decorators.push(Expr::new(kind, range(annotation)));
                }
            }
        }
        for param in &params {
            self.locals.add(param.name);
        }
        let body = self.block(body);
        self.locals.leave(mark);
        self.in_method = outer_method;
        let returns = match node.child_by_field_name("type") {
            Some(ty) => self.ty(ty),
            None => Type { name: Cow::Borrowed(name), ..Type::default() },
        };
        self.program.functions.push(Function {
            name,
            class: self.class,
            params,
            returns,
            decorators,
            body,
            top_level: false,
            constructor,
        });
    }

    fn param(&mut self, node: Node<'t>, out: &mut Vec<Param<'a>>) {
        let (name, ty) = match node.kind() {
            "formal_parameter" | "catch_formal_parameter" => {
                let ty = match node.child_by_field_name("type") {
                    Some(ty) => self.ty(ty),
                    None => Type::default(),
                };
                (self.source.field(node, "name"), ty)
            }
            "spread_parameter" => {
                let declarator =
                    named(node).into_iter().find(|part| part.kind() == "variable_declarator");
                let ty = named(node)
                    .into_iter()
                    .find(|part| !matches!(part.kind(), "modifiers" | "variable_declarator"))
                    .map(|ty| format!("{}[]", self.type_name(ty)));
                let ty = Type { name: Cow::Owned(ty.unwrap_or_default()), ..Type::default() };
                (declarator.map_or("", |node| self.source.field(node, "name")), ty)
            }
            "identifier" => (self.source.text(node), Type::default()),
            _ => return,
        };
        out.push(Param { name, ty, default: None, range: range(node) });
    }

    /// The simple name of a type, without packages, outer classes and parameters.
    fn type_name(&self, node: Node<'t>) -> &'a str {
        let mut node = node;
        for _ in 0..MAX_DEPTH {
            let next = match node.kind() {
                "generic_type" => named(node).into_iter().next(),
                "scoped_type_identifier" => {
                    named(node).into_iter().rev().find(|part| part.kind() == "type_identifier")
                }
                "annotated_type" => named(node).into_iter().next_back(),
                "array_type" => node.child_by_field_name("element"),
                _ => None,
            };
            match next {
                Some(inner) => node = inner,
                None => break,
            }
        }
        self.source.text(node)
    }

    fn ty(&self, node: Node<'t>) -> Type<'a> {
        let name = self.type_name(node);
        let name = if node.kind() == "array_type" {
            Cow::Owned(format!("{name}[]"))
        } else {
            Cow::Borrowed(name)
        };
        Type { name, ..Type::default() }
    }

    fn block(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let mark = self.locals.order.len();
        let mut out = Vec::new();
        for child in named(node) {
            self.statement(child, &mut out);
        }
        self.locals.leave(mark);
        out
    }

    /// The statement or block in a field, as a block.
    fn field_block(&mut self, node: Node<'t>, field: &str) -> Vec<Stmt<'a>> {
        match node.child_by_field_name(field) {
            Some(body) if matches!(body.kind(), "block" | "constructor_body") => self.block(body),
            Some(body) => {
                let mut out = Vec::new();
                self.statement(body, &mut out);
                out
            }
            None => Vec::new(),
        }
    }

    fn statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.statement_inner(node, out);
        }
        self.depth -= 1;
    }

    fn statement_inner(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.kind() {
            "ERROR" => {
                // What could be recovered inside an error still counts.
                for child in named(node) {
                    self.statement(child, out);
                }
                return;
            }
            "expression_statement" => {
                for child in named(node) {
                    if child.kind() == "switch_expression" {
                        self.statement(child, out);
                        continue;
                    }
                    let expr = self.expr(child);
                    out.push(Stmt { kind: StmtKind::Expr(expr), range: range(child) });
                }
                return;
            }
            "import_declaration" | "package_declaration" => {
                self.import(node);
                return;
            }
            "class_declaration"
            | "interface_declaration"
            | "enum_declaration"
            | "record_declaration"
            | "annotation_type_declaration" => {
                self.class(node, out);
                return;
            }
            "method_declaration" | "constructor_declaration" => {
                self.function(node);
                return;
            }
            "local_variable_declaration" | "field_declaration" => {
                self.declaration(node, out);
                return;
            }
            "return_statement" | "yield_statement" => {
                StmtKind::Return(named(node).first().map(|value| self.expr(*value)))
            }
            "throw_statement" => {
                StmtKind::Raise(named(node).first().map(|value| self.expr(*value)))
            }
            // Assertions are off unless asked for.
            "assert_statement" => {
                StmtKind::Expr(Expr::new(ExprKind::Unknown(self.exprs(node)), range(node)))
            }
            "if_statement" => {
                let test = *self.boxed(node, "condition");
                let then = self.field_block(node, "consequence");
                let otherwise = self.field_block(node, "alternative");
                StmtKind::If { test, then, otherwise }
            }
            "while_statement" => StmtKind::Loop(Box::new(Loop {
                init: Vec::new(),
                bind: None,
                test: self.loop_test(node),
                body: self.field_block(node, "body"),
                step: None,
                otherwise: Vec::new(),
                body_first: false,
            })),
            "do_statement" => {
                let body = self.field_block(node, "body");
                StmtKind::Loop(Box::new(Loop {
                    init: Vec::new(),
                    bind: None,
                    test: self.loop_test(node),
                    body,
                    step: None,
                    otherwise: Vec::new(),
                    body_first: true,
                }))
            }
            "for_statement" => self.for_statement(node),
            "enhanced_for_statement" => self.for_each(node),
            "labeled_statement" => {
                if let Some(inner) = named(node).into_iter().nth(1) {
                    self.statement(inner, out);
                }
                return;
            }
            "switch_expression" | "switch_statement" => self.switch(node, false),
            "synchronized_statement" => {
                for child in named(node) {
                    if child.kind() == "parenthesized_expression" {
                        let expr = self.expr(child);
                        out.push(Stmt { kind: StmtKind::Expr(expr), range: range(child) });
                    }
                }
                StmtKind::Block(self.field_block(node, "body"))
            }
            "try_statement" | "try_with_resources_statement" => self.try_statement(node),
            "block" | "constructor_body" | "class_body" => StmtKind::Block(self.block(node)),
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "explicit_constructor_invocation" => {
                let name = self.source.field(node, "constructor");
                let callee = Box::new(Expr::new(ExprKind::Name(name), range(node)));
                let args = self.arguments(node);
                StmtKind::Expr(Expr::new(ExprKind::Call { callee, args }, range(node)))
            }
            "modifiers" | "line_comment" | "block_comment" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }

    fn declaration(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let ty = match node.child_by_field_name("type") {
            Some(ty) => self.ty(ty),
            None => Type::default(),
        };
        let mut cursor = node.walk();
        let declarators: Vec<Node<'t>> =
            node.children_by_field_name("declarator", &mut cursor).collect();
        for declarator in declarators {
            let init = declarator.child_by_field_name("value").map(|value| self.expr(value));
            let name = self.source.field(declarator, "name");
            let mut ty = if ty.name == "var" { Type::default() } else { ty.clone() };
            if declarator.child_by_field_name("dimensions").is_some() {
                ty.name = Cow::Owned(format!("{}[]", ty.name));
            }
            if self.in_method {
                self.locals.add(name);
            }
            out.push(Stmt { kind: StmtKind::Declare { name, ty, init }, range: range(declarator) });
        }
    }

    fn loop_test(&mut self, node: Node<'t>) -> Option<Expr<'a>> {
        let test = node.child_by_field_name("condition").map(|test| self.expr(test))?;
        self.program.loop_tests.insert(test.range.start);
        Some(test)
    }

    fn for_statement(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let mut init = Vec::new();
        let mut cursor = node.walk();
        let parts: Vec<Node<'t>> = node.children_by_field_name("init", &mut cursor).collect();
        for part in parts {
            self.statement(part, &mut init);
        }
        let test = self.loop_test(node);
        let mut cursor = node.walk();
        let updates: Vec<Node<'t>> = node.children_by_field_name("update", &mut cursor).collect();
        let body = self.field_block(node, "body");
        let mut steps: Vec<Expr<'a>> = updates.into_iter().map(|step| self.expr(step)).collect();
        self.locals.leave(mark);
        let step = if steps.len() > 1 {
            Some(Expr::new(ExprKind::Sequence(steps), range(node)))
        } else {
            steps.pop()
        };
        let (bind, otherwise, body_first) = (None, Vec::new(), false);
        StmtKind::Loop(Box::new(Loop { init, bind, test, body, step, otherwise, body_first }))
    }

    fn for_each(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let iterable = *self.boxed(node, "value");
        let place = node.child_by_field_name("name").map_or_else(|| range(node), range);
        let name = self.source.field(node, "name");
        self.locals.add(name);
        let variable = |kind| Expr::new(kind, place);
        let mut body = Vec::new();
        if let Some(ty) = node.child_by_field_name("type")
            && self.source.text(ty) != "var"
        {
            let init = variable(ExprKind::Sequence(vec![variable(ExprKind::Name(name))]));
            let kind = StmtKind::Declare { name, ty: self.ty(ty), init: Some(init) };
            body.push(Stmt { kind, range: place });
        }
        body.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        StmtKind::Loop(Box::new(Loop {
            init: Vec::new(),
            bind: Some((variable(ExprKind::Name(name)), iterable)),
            test: None,
            body,
            step: None,
            otherwise: Vec::new(),
            body_first: false,
        }))
    }

    /// A switch; as an expression its arrows return their values.
    fn switch(&mut self, node: Node<'t>, as_value: bool) -> StmtKind<'a> {
        let value = *self.boxed(node, "condition");
        let mut cases = Vec::new();
        if let Some(body) = node.child_by_field_name("body") {
            for clause in named(body) {
                let falls_through = clause.kind() == "switch_block_statement_group";
                let mark = self.locals.order.len();
                let mut values = Vec::new();
                let mut statements = Vec::new();
                for part in named(clause) {
                    if part.kind() == "switch_label" {
                        for value in named(part) {
                            values.push(self.expr(value));
                        }
                    } else if as_value && part.kind() == "expression_statement" {
                        for inner in named(part) {
                            let value = self.expr(inner);
                            let kind = StmtKind::Return(Some(value));
                            statements.push(Stmt { kind, range: range(inner) });
                        }
                    } else {
                        self.statement(part, &mut statements);
                    }
                }
                self.locals.leave(mark);
                cases.push(Case { values, body: statements, falls_through });
            }
        }
        StmtKind::Switch { value, cases }
    }

    fn try_statement(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let mut body = Vec::new();
        if let Some(resources) = node.child_by_field_name("resources") {
            for resource in named(resources) {
                self.resource(resource, &mut body);
            }
        }
        body.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        let (mut handlers, mut finally) = (Vec::new(), Vec::new());
        for child in named(node) {
            match child.kind() {
                "catch_clause" => handlers.push(self.catch(child)),
                "finally_clause" => {
                    if let Some(block) = named(child).into_iter().next() {
                        finally = self.block(block);
                    }
                }
                _ => {}
            }
        }
        StmtKind::Try { body, handlers, otherwise: Vec::new(), finally }
    }

    fn resource(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.child_by_field_name("value") {
            Some(value) => {
                let init = Some(self.expr(value));
                let ty = match node.child_by_field_name("type") {
                    Some(ty) if self.source.text(ty) != "var" => self.ty(ty),
                    _ => Type::default(),
                };
                let name = self.source.field(node, "name");
                self.locals.add(name);
                StmtKind::Declare { name, ty, init }
            }
            None => match named(node).first() {
                Some(inner) => StmtKind::Expr(self.expr(*inner)),
                None => return,
            },
        };
        out.push(Stmt { kind, range: range(node) });
    }

    fn catch(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let mark = self.locals.order.len();
        let mut out = Vec::new();
        if let Some(param) =
            named(node).into_iter().find(|child| child.kind() == "catch_formal_parameter")
        {
            let ty = named(param)
                .into_iter()
                .find(|part| part.kind() == "catch_type")
                .and_then(|types| named(types).into_iter().next())
                .map(|ty| self.ty(ty))
                .unwrap_or_default();
            let name = self.source.field(param, "name");
            self.locals.add(name);
            out.push(Stmt {
                kind: StmtKind::Declare { name, ty, init: None },
                range: range(param),
            });
        }
        out.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        out
    }

    fn exprs(&mut self, node: Node<'t>) -> Vec<Expr<'a>> {
        named(node).into_iter().map(|child| self.expr(child)).collect()
    }

    fn expr(&mut self, node: Node<'t>) -> Expr<'a> {
        self.depth += 1;
        let expr =
            if self.depth > MAX_DEPTH { unknown(node, Vec::new()) } else { self.expr_inner(node) };
        self.depth -= 1;
        expr
    }

    fn boxed(&mut self, node: Node<'t>, field: &str) -> Box<Expr<'a>> {
        Box::new(match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        })
    }

    /// A bare name: a variable, or a field where no variable has the name.
    fn name(&self, name: &'a str, place: Range) -> ExprKind<'a> {
        if self.in_method && !self.locals.has(name) && self.fields.contains(name) {
            let base = Box::new(Expr::new(ExprKind::Name("self"), place));
            return ExprKind::Attribute { base, name, arrow: false };
        }
        ExprKind::Name(name)
    }

    fn expr_inner(&mut self, node: Node<'t>) -> Expr<'a> {
        let kind = match node.kind() {
            "identifier" => self.name(self.source.text(node), range(node)),
            "type_identifier" | "super" => ExprKind::Name(self.source.text(node)),
            "this" => ExprKind::Name("self"),
            "decimal_integer_literal"
            | "hex_integer_literal"
            | "octal_integer_literal"
            | "binary_integer_literal" => {
                let text = self.source.text(node);
                let kind = literal::integer(text).map_or(ExprKind::Float, ExprKind::Int);
                if text.ends_with(['l', 'L']) {
                    let value = Box::new(Expr::new(kind, range(node)));
                    let ty = Type { name: Cow::Borrowed("long"), ..Type::default() };
                    ExprKind::Cast { ty, value }
                } else {
                    kind
                }
            }
            "decimal_floating_point_literal" | "hex_floating_point_literal" => ExprKind::Float,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "null_literal" => ExprKind::Null,
            "character_literal" => {
                let text = self.source.text(node);
                let body = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
                ExprKind::Str(literal::unescape(body, false))
            }
            "string_literal" => self.string(node),
            "field_access" => {
                let name = self.source.field(node, "field");
                let base = self.boxed(node, "object");
                if name == "this" {
                    // `Outer.this`: fields of the classes around count as one's own.
                    ExprKind::Name("self")
                } else {
                    ExprKind::Attribute { base, name, arrow: false }
                }
            }
            "scoped_identifier" => ExprKind::Attribute {
                base: self.boxed(node, "scope"),
                name: self.source.field(node, "name"),
                arrow: false,
            },
            "class_literal" => {
                let name = named(node).into_iter().next().map_or("", |inner| self.type_name(inner));
                let base = Box::new(Expr::new(ExprKind::Name(name), range(node)));
                ExprKind::Attribute { base, name: "class", arrow: false }
            }
            "array_access" => ExprKind::Subscript {
                base: self.boxed(node, "array"),
                index: self.boxed(node, "index"),
            },
            "method_invocation" => {
                let name_node = node.child_by_field_name("name");
                let name = name_node.map_or("", |name| self.source.text(name));
                let place = name_node.map_or_else(|| range(node), range);
                let callee = match node.child_by_field_name("object") {
                    Some(object) => {
                        let base = Box::new(self.expr(object));
                        let whole = Range { start: base.range.start, end: place.end };
                        Expr::new(ExprKind::Attribute { base, name, arrow: false }, whole)
                    }
                    None => Expr::new(ExprKind::Name(name), place),
                };
                ExprKind::Call { callee: Box::new(callee), args: self.arguments(node) }
            }
            "object_creation_expression" => return self.creation(node),
            "method_reference" => {
                let parts = named(node);
                let name = parts.last().map_or("", |last| self.source.text(*last));
                match parts.first() {
                    Some(first) if parts.len() > 1 => ExprKind::Attribute {
                        base: Box::new(self.expr(*first)),
                        name,
                        arrow: false,
                    },
                    _ => ExprKind::Unknown(self.exprs(node)),
                }
            }
            "array_creation_expression" => return self.array(node),
            "array_initializer" | "element_value_array_initializer" => {
                ExprKind::List(self.exprs(node))
            }
            "binary_expression" => return self.binary(node),
            "instanceof_expression" => {
                let value = self.boxed(node, "left");
                let nothing = Expr::new(ExprKind::Unknown(Vec::new()), range(node));
                let right = node.child_by_field_name("right");
                match (node.child_by_field_name("name"), right) {
                    (Some(name), Some(right)) => {
                        let text = self.source.text(name);
                        self.locals.add(text);
                        let target = Box::new(Expr::new(ExprKind::Name(text), range(name)));
                        let cast = ExprKind::Cast { ty: self.ty(right), value };
                        let value = Box::new(Expr::new(cast, range(node)));
                        let assign = ExprKind::Assign { op: None, target, value };
                        ExprKind::Sequence(vec![Expr::new(assign, range(node)), nothing])
                    }
                    _ => ExprKind::Sequence(vec![*value, nothing]),
                }
            }
            "unary_expression" => {
                let inner = self.boxed(node, "operand");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("-", ExprKind::Int(number)) => ExprKind::Int(number.wrapping_neg()),
                    ("-", _) => ExprKind::Minus(inner),
                    ("!", _) => ExprKind::Not(inner),
                    _ => ExprKind::Through(inner),
                }
            }
            "update_expression" => match named(node).first() {
                Some(target) => {
                    let text = self.source.text(node);
                    let prefix = text.starts_with(['+', '-']);
                    let by = if text.contains("++") { 1 } else { -1 };
                    ExprKind::Update { target: Box::new(self.expr(*target)), by, prefix }
                }
                None => ExprKind::Unknown(Vec::new()),
            },
            "parenthesized_expression" | "guard" | "pattern" => match named(node).first() {
                Some(inner) => return self.expr(*inner),
                None => ExprKind::Unknown(Vec::new()),
            },
            "cast_expression" => {
                let ty = match node.child_by_field_name("type") {
                    Some(ty) => self.ty(ty),
                    None => Type::default(),
                };
                ExprKind::Cast { ty, value: self.boxed(node, "value") }
            }
            "ternary_expression" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "assignment_expression" => {
                let op = match self.source.field(node, "operator").trim_end_matches('=') {
                    "" => None,
                    text => Some(binary_op(text)),
                };
                let value = self.boxed(node, "right");
                ExprKind::Assign { op, target: self.boxed(node, "left"), value }
            }
            "lambda_expression" => self.lambda(node),
            "switch_expression" => {
                let kind = self.switch(node, true);
                let body = vec![Stmt { kind, range: range(node) }];
                ExprKind::Closure { params: Vec::new(), body }
            }
            "annotation" | "marker_annotation" => return self.annotation(node),
            "block" => {
                let body = self.block(node);
                ExprKind::Closure { params: Vec::new(), body }
            }
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, range(node))
    }

    /// `new byte[n]` is a call of `byte.[]`; with elements it is a list of them.
    fn array(&mut self, node: Node<'t>) -> Expr<'a> {
        if let Some(value) = node.child_by_field_name("value") {
            return self.expr(value);
        }
        let name = node.child_by_field_name("type").map_or("", |ty| self.type_name(ty));
        let mut args = Vec::new();
        for child in named(node) {
            if child.kind() == "dimensions_expr"
                && let Some(size) = named(child).into_iter().next()
            {
                args.push(Arg { name: None, value: self.expr(size) });
            }
        }
        let base = Box::new(Expr::new(ExprKind::Name(name), range(node)));
        let callee = ExprKind::Attribute { base, name: "[]", arrow: false };
        let callee = Box::new(Expr::new(callee, range(node)));
        Expr::new(ExprKind::Construct { callee, args }, range(node))
    }

    fn string(&mut self, node: Node<'t>) -> ExprKind<'a> {
        let parts = named(node);
        if parts.iter().any(|part| part.kind() == "string_interpolation") {
            return ExprKind::Format(
                parts
                    .into_iter()
                    .map(|part| {
                        if part.kind() == "string_interpolation" {
                            let inner = named(part).into_iter().next();
                            inner
                                .map_or_else(|| unknown(part, Vec::new()), |inner| self.expr(inner))
                        } else {
                            let text = literal::unescape(self.source.text(part), false);
                            Expr::new(ExprKind::Str(text), range(part))
                        }
                    })
                    .collect(),
            );
        }
        let text = self.source.text(node);
        let quotes = if text.len() >= 6 && text.starts_with("\"\"\"") { 3 } else { 1 };
        let body = text.get(quotes..text.len().saturating_sub(quotes)).unwrap_or("");
        ExprKind::Str(literal::unescape(body, false))
    }

    fn arguments(&mut self, node: Node<'t>) -> Vec<Arg<'a>> {
        match node.child_by_field_name("arguments") {
            Some(list) => named(list)
                .into_iter()
                .map(|child| Arg { name: None, value: self.expr(child) })
                .collect(),
            None => Vec::new(),
        }
    }

    fn creation(&mut self, node: Node<'t>) -> Expr<'a> {
        let ty = node.child_by_field_name("type");
        let name = ty.map_or("", |ty| self.type_name(ty));
        let place = ty.map_or_else(|| range(node), range);
        let callee = Box::new(Expr::new(ExprKind::Name(name), place));
        let args = self.arguments(node);
        let object = Expr::new(ExprKind::Construct { callee, args }, range(node));
        let Some(body) = named(node).into_iter().find(|child| child.kind() == "class_body") else {
            return object;
        };
        let mut parts = Vec::new();
        if self.methods_too {
            self.methods_too = false;
            let first = self.program.functions.len();
            self.anonymous_functions(name, body);
            let numbers = (first..self.program.functions.len()).collect();
            self.program.anonymous.insert(range(node).start, numbers);
            self.methods_too = true;
        }
        parts.push(self.anonymous_closure(body));
        parts.push(object);
        Expr::new(ExprKind::Sequence(parts), range(node))
    }

    /// Methods of an anonymous class as functions: what is asked of overriding methods is asked of them.
    fn anonymous_functions(&mut self, name: &'a str, body: Node<'t>) {
        let outer = self.class.replace(name);
        for child in named(body) {
            if child.kind() == "method_declaration" {
                self.function(child);
            }
        }
        self.class = outer;
    }

    /// The same where they stand: they see the variables around them.
    fn anonymous_closure(&mut self, body: Node<'t>) -> Expr<'a> {
        let mark = self.locals.order.len();
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let mut statements = Vec::new();
        for child in named(body) {
            if child.kind() == "field_declaration" {
                self.declaration(child, &mut statements);
            }
        }
        for child in named(body) {
            match child.kind() {
                "method_declaration" => {
                    let Some(block) = child.child_by_field_name("body") else { continue };
                    let inner = self.locals.order.len();
                    let mut params = Vec::new();
                    if let Some(list) = child.child_by_field_name("parameters") {
                        for param in named(list) {
                            self.param(param, &mut params);
                        }
                    }
                    for param in &params {
                        self.locals.add(param.name);
                    }
                    let body = self.block(block);
                    self.locals.leave(inner);
                    let closure = Expr::new(ExprKind::Closure { params, body }, range(child));
                    statements.push(Stmt { kind: StmtKind::Expr(closure), range: range(child) });
                }
                "block" => self.statement(child, &mut statements),
                _ => {}
            }
        }
        self.in_method = outer_method;
        self.locals.leave(mark);
        Expr::new(ExprKind::Closure { params: Vec::new(), body: statements }, range(body))
    }

    fn lambda(&mut self, node: Node<'t>) -> ExprKind<'a> {
        let mark = self.locals.order.len();
        let mut params = Vec::new();
        if let Some(list) = node.child_by_field_name("parameters") {
            if list.kind() == "identifier" {
                self.param(list, &mut params);
            } else {
                for param in named(list) {
                    self.param(param, &mut params);
                }
            }
        }
        for param in &params {
            self.locals.add(param.name);
        }
        let outer_method = std::mem::replace(&mut self.in_method, true);
        let body = match node.child_by_field_name("body") {
            Some(body) if body.kind() == "block" => self.block(body),
            Some(body) => {
                let value = self.expr(body);
                vec![Stmt { kind: StmtKind::Return(Some(value)), range: range(body) }]
            }
            None => Vec::new(),
        };
        self.in_method = outer_method;
        self.locals.leave(mark);
        ExprKind::Closure { params, body }
    }

    /// Texts joined by `+` become one text; other operators stay as they are.
    fn binary(&mut self, node: Node<'t>) -> Expr<'a> {
        let op = self.source.field(node, "operator");
        if op == "+" {
            let mut operands = Vec::new();
            let mut spine = vec![node];
            let mut current = node;
            while let Some(left) = current.child_by_field_name("left") {
                if left.kind() == "binary_expression" && self.source.field(left, "operator") == "+"
                {
                    spine.push(left);
                    current = left;
                } else {
                    operands.push(left);
                    break;
                }
            }
            operands.extend(
                spine.into_iter().rev().filter_map(|node| node.child_by_field_name("right")),
            );
            if operands.len() > 2 && operands.iter().any(|part| part.kind() == "string_literal") {
                let parts = operands.into_iter().map(|part| self.expr(part)).collect();
                return Expr::new(ExprKind::Format(parts), range(node));
            }
        }
        let kind = ExprKind::Binary {
            op: binary_op(op),
            left: self.boxed(node, "left"),
            right: self.boxed(node, "right"),
        };
        Expr::new(kind, range(node))
    }
}

/// The keyword under which an annotation of a parameter names it.
pub(crate) const PARAMETER: &str = "parameter";

fn annotations_of(param: Node<'_>) -> Vec<Node<'_>> {
    named(param)
        .into_iter()
        .filter(|child| child.kind() == "modifiers")
        .flat_map(named)
        .filter(|child| matches!(child.kind(), "annotation" | "marker_annotation"))
        .collect()
}

fn binary_op(text: &str) -> BinaryOp {
    match text {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "<<" => BinaryOp::Shl,
        ">>" | ">>>" => BinaryOp::Shr,
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
