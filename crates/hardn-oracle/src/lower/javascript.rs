//! JavaScript and TypeScript to the common form.
//!
//! Functions at the top become functions of the program; the others are closures that see the variables around them.
//! Patterns are taken apart into one assignment a name; a pattern's own text names the value in between.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use tree_sitter::Node;

use super::{MAX_DEPTH, Source, error_bytes, literal, named, range, regexp, unknown};
use crate::ir::{
    Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Range, Stmt, StmtKind,
    Type,
};

/// The decorator that marks functions other files can call.
const EXPORT: &str = "export";

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        class: None,
        exported: BTreeSet::new(),
        exporting: false,
        setters: BTreeMap::new(),
        inside: 0,
        depth: 0,
    };
    lowering.program.functions.push(Function::top_level());
    let body = lowering.block(root);
    lowering.program.functions[0].body = body;
    lowering.program.error_bytes = error_bytes(root);
    lowering.mark_exported();
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    /// Names of functions and classes that are exported by name.
    exported: BTreeSet<&'a str>,
    /// Inside an export statement.
    exporting: bool,
    /// Functions that set a variable, by the hook that gave both.
    setters: BTreeMap<&'a str, &'a str>,
    /// Functions around the current node.
    inside: u32,
    depth: u32,
}

impl<'a> Lowering<'a> {
    fn block(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        let children = named(node);
        // Declared functions are there from the start of their block.
        for hoisted in [true, false] {
            for child in &children {
                let declares = matches!(
                    child.kind(),
                    "function_declaration" | "generator_function_declaration"
                );
                if declares == hoisted {
                    self.statement(*child, &mut out);
                }
            }
        }
        out
    }

    /// A block, or one statement that stands for it.
    fn body(&mut self, node: Node<'_>, field: &str) -> Vec<Stmt<'a>> {
        let Some(body) = node.child_by_field_name(field) else { return Vec::new() };
        if body.kind() == "statement_block" {
            return self.nested(body);
        }
        let mut out = Vec::new();
        self.statement(body, &mut out);
        out
    }

    fn nested(&mut self, block: Node<'_>) -> Vec<Stmt<'a>> {
        self.depth += 1;
        let out = if self.depth > MAX_DEPTH { Vec::new() } else { self.block(block) };
        self.depth -= 1;
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
            "ERROR" => {
                out.extend(self.block(node));
                return;
            }
            "expression_statement" => {
                for child in named(node) {
                    self.expression_statement(child, out);
                }
                return;
            }
            "lexical_declaration" | "variable_declaration" | "using_declaration" => {
                for child in named(node) {
                    if child.kind() == "variable_declarator" {
                        self.declarator(child, out);
                    }
                }
                return;
            }
            "function_declaration" | "generator_function_declaration" => {
                let name = self.source.field(node, "name");
                self.function(name, node, out);
                return;
            }
            "class_declaration" | "abstract_class_declaration" | "class" => {
                self.class(node, self.source.field(node, "name"));
                return;
            }
            "import_statement" => {
                self.import(node);
                return;
            }
            "export_statement" => {
                self.export(node, out);
                return;
            }
            "return_statement" => {
                StmtKind::Return(named(node).first().map(|value| self.expr(*value)))
            }
            "throw_statement" => {
                StmtKind::Raise(named(node).first().map(|value| self.expr(*value)))
            }
            "if_statement" => {
                let test = self.field_expr(node, "condition");
                let then = self.body(node, "consequence");
                let otherwise = match node.child_by_field_name("alternative") {
                    Some(clause) => self.block(clause),
                    None => Vec::new(),
                };
                StmtKind::If { test, then, otherwise }
            }
            "for_statement" => {
                let mut init = Vec::new();
                if let Some(first) = node.child_by_field_name("initializer") {
                    self.statement(first, &mut init);
                }
                let test = node.child_by_field_name("condition").and_then(|test| {
                    let inner = if test.kind() == "expression_statement" {
                        test.named_child(0)?
                    } else {
                        test
                    };
                    (inner.kind() != "empty_statement").then(|| self.expr(inner))
                });
                let step = node.child_by_field_name("increment").map(|step| self.expr(step));
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
            "for_in_statement" => self.for_in(node),
            "while_statement" | "do_statement" => StmtKind::Loop(Box::new(Loop {
                init: Vec::new(),
                bind: None,
                test: node.child_by_field_name("condition").map(|test| self.expr(test)),
                body: self.body(node, "body"),
                step: None,
                otherwise: Vec::new(),
                body_first: node.kind() == "do_statement",
            })),
            "switch_statement" => self.switch(node),
            "try_statement" => self.try_statement(node),
            "with_statement" => StmtKind::With { items: Vec::new(), body: self.body(node, "body") },
            "statement_block" | "program" => StmtKind::Block(self.block(node)),
            "labeled_statement" | "internal_module" | "module" => {
                StmtKind::Block(self.body(node, "body"))
            }
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "enum_declaration"
            | "interface_declaration"
            | "type_alias_declaration"
            | "ambient_declaration"
            | "import_alias"
            | "function_signature"
            | "comment"
            | "empty_statement"
            | "debugger_statement"
            | "hash_bang_line" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }

    /// Assignments of functions to exports and fields make them functions of the program.
    fn expression_statement(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        if node.kind() == "assignment_expression"
            && let (Some(left), Some(right)) =
                (node.child_by_field_name("left"), node.child_by_field_name("right"))
        {
            if matches!(left.kind(), "object_pattern" | "array_pattern") {
                let value = self.expr(right);
                self.bind(left, value, out);
                return;
            }
            let path = self.source.text(left);
            let exports = path.starts_with("module.exports")
                || path.starts_with("exports.")
                // A plugin of jQuery is called by other people's pages.
                || path.starts_with("$.fn.")
                || path.starts_with("jQuery.fn.");
            let outer = self.exporting;
            self.exporting |= exports && self.inside == 0;
            if self.exporting && right.kind() == "identifier" {
                self.exported.insert(self.source.text(right));
            }
            if self.exporting && right.kind() == "new_expression" {
                // An object's methods are for others to call, too.
                self.exported.insert(self.source.field(right, "constructor"));
            }
            let listener = path.strip_suffix("onmessage");
            if let Some(object) = listener.filter(|_| is_function(right.kind()))
                && (object.is_empty() || object.ends_with('.'))
            {
                // The same as listening for the event.
                let of_page = matches!(object, "" | "window." | "self.");
                let mut args = vec![Arg {
                    name: None,
                    value: Expr::new(ExprKind::Str(Cow::Borrowed("message")), range(left)),
                }];
                args.push(Arg { name: None, value: self.expr(right) });
                if of_page && self.trusts_message(right) {
                    push_weakness("origin".to_owned(), range(right), &mut args);
                }
                let name = "addEventListener";
                let kind = if of_page {
                    ExprKind::Name(name)
                } else {
                    ExprKind::Attribute { base: self.boxed(left, "object"), name, arrow: false }
                };
                let callee = Box::new(Expr::new(kind, range(left)));
                let call = Expr::new(ExprKind::Call { callee, args }, range(node));
                out.push(Stmt { kind: StmtKind::Expr(call), range: range(node) });
                return;
            }
            let name = match left.kind() {
                "identifier" => path,
                "member_expression" => self.source.field(left, "property"),
                _ => "",
            };
            let plugin = path.starts_with("$.fn.") || path.starts_with("jQuery.fn.");
            let method_of = path.split_once(".prototype.").map(|(class, _)| class);
            let done = if let Some(class) = method_of.filter(|_| is_function(right.kind())) {
                let outer = self.class.replace(class);
                let inside = std::mem::take(&mut self.inside);
                self.add_function(name, right);
                self.inside = inside;
                self.class = outer;
                true
            } else if (self.inside == 0 || plugin || exports && path != "module.exports")
                && !name.is_empty()
                && is_function(right.kind())
            {
                let outer = self.exporting;
                self.exporting |= exports;
                let inside = std::mem::take(&mut self.inside);
                self.function(name, right, out);
                self.inside = inside;
                self.exporting = outer;
                true
            } else if right.kind() == "class" && self.inside == 0 {
                let own = self.source.field(right, "name");
                self.class(right, if own.is_empty() { name } else { own });
                true
            } else {
                false
            };
            if !done {
                let expr = self.expr(node);
                out.push(Stmt { kind: StmtKind::Expr(expr), range: range(node) });
            }
            self.exporting = outer;
            return;
        }
        let expr = self.expr(node);
        out.push(Stmt { kind: StmtKind::Expr(expr), range: range(node) });
    }

    fn declarator(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let Some(target) = node.child_by_field_name("name") else { return };
        let name = self.source.text(target);
        let Some(value) = node.child_by_field_name("value") else {
            let kind = StmtKind::Declare { name, ty: Type::default(), init: None };
            if target.kind() == "identifier" {
                out.push(Stmt { kind, range: range(node) });
            }
            return;
        };
        if target.kind() == "identifier" {
            if is_function(value.kind()) {
                self.function(name, value, out);
                return;
            }
            if value.kind() == "class" {
                self.class(value, name);
                return;
            }
            if let Some(module) = self.required(value) {
                self.program.imports.insert(name, module);
            }
        }
        if target.kind() == "array_pattern"
            && let [state, setter] = named(target).as_slice()
            && self.source.field(value, "function").ends_with("useState")
        {
            self.setters.insert(self.source.text(*setter), self.source.text(*state));
        }
        let value = self.expr(value);
        self.bind(target, value, out);
    }

    /// Assigns a value to a name or to the names in a pattern.
    fn bind(&mut self, target: Node<'_>, value: Expr<'a>, out: &mut Vec<Stmt<'a>>) {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.bind_inner(target, value, out);
        }
        self.depth -= 1;
    }

    fn bind_inner(&mut self, target: Node<'_>, value: Expr<'a>, out: &mut Vec<Stmt<'a>>) {
        let at = range(target);
        match target.kind() {
            "object_pattern" | "array_pattern" => {
                let whole = self.source.text(target);
                push_assign(Expr::new(ExprKind::Name(whole), at), value, at, out);
                for (number, child) in named(target).into_iter().enumerate() {
                    let base = Box::new(Expr::new(ExprKind::Name(whole), at));
                    if target.kind() == "array_pattern" {
                        let index = Box::new(Expr::new(ExprKind::Int(number as i64), range(child)));
                        let part = match child.kind() {
                            "rest_pattern" => *base,
                            _ => Expr::new(ExprKind::Subscript { base, index }, range(child)),
                        };
                        self.bind(child, part, out);
                        continue;
                    }
                    let (key, inner) = match child.kind() {
                        "pair_pattern" => {
                            (child.child_by_field_name("key"), child.child_by_field_name("value"))
                        }
                        "object_assignment_pattern" => {
                            (child.child_by_field_name("left"), Some(child))
                        }
                        "rest_pattern" => {
                            self.bind(child, *base, out);
                            continue;
                        }
                        _ => (Some(child), Some(child)),
                    };
                    let (Some(key), Some(inner)) = (key, inner) else { continue };
                    let name = self.source.text(key).trim_matches(['"', '\'']);
                    let part =
                        Expr::new(ExprKind::Attribute { base, name, arrow: false }, range(child));
                    self.bind(inner, part, out);
                }
            }
            "assignment_pattern" | "object_assignment_pattern" => {
                let default = self.field_expr(target, "right");
                let kind = ExprKind::Binary {
                    op: BinaryOp::Or,
                    left: Box::new(value),
                    right: Box::new(default),
                };
                if let Some(left) = target.child_by_field_name("left") {
                    self.bind(left, Expr::new(kind, at), out);
                }
            }
            "rest_pattern" => {
                if let Some(inner) = target.named_child(0) {
                    self.bind(inner, value, out);
                }
            }
            "shorthand_property_identifier_pattern" => {
                let name = ExprKind::Name(self.source.text(target));
                push_assign(Expr::new(name, at), value, at, out);
            }
            _ => {
                let target = self.expr(target);
                push_assign(target, value, at, out);
            }
        }
    }

    fn for_in(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let iterable = self.field_expr(node, "right");
        let mut body = Vec::new();
        let target = match node.child_by_field_name("left") {
            Some(left) if matches!(left.kind(), "object_pattern" | "array_pattern") => {
                let whole = ExprKind::Name(self.source.text(left));
                self.bind(left, Expr::new(whole, range(left)), &mut body);
                Expr::new(ExprKind::Name(self.source.text(left)), range(left))
            }
            Some(left) => self.expr(left),
            None => unknown(node, Vec::new()),
        };
        body.extend(self.body(node, "body"));
        // The keys of an object are its own, of a list numbers.
        let keys = self.source.field(node, "operator") == "in";
        let iterable = if keys {
            let callee = Box::new(Expr::new(ExprKind::Name("for_in"), iterable.range));
            let at = iterable.range;
            Expr::new(
                ExprKind::Call { callee, args: vec![Arg { name: None, value: iterable }] },
                at,
            )
        } else {
            iterable
        };
        StmtKind::Loop(Box::new(Loop {
            init: Vec::new(),
            bind: Some((target, iterable)),
            test: None,
            body,
            step: None,
            otherwise: Vec::new(),
            body_first: false,
        }))
    }

    fn switch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let value = self.field_expr(node, "value");
        let mut cases = Vec::new();
        for clause in node.child_by_field_name("body").map(named).unwrap_or_default() {
            let test = clause.child_by_field_name("value");
            let mut body = Vec::new();
            for child in named(clause) {
                if Some(child) != test {
                    self.statement(child, &mut body);
                }
            }
            let values = test.map(|test| self.expr(test)).into_iter().collect();
            cases.push(Case { values, body, falls_through: true });
        }
        StmtKind::Switch { value, cases }
    }

    fn try_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let body = self.body(node, "body");
        let mut handlers = Vec::new();
        if let Some(handler) = node.child_by_field_name("handler") {
            let mut block = Vec::new();
            if let Some(param) = handler.child_by_field_name("parameter") {
                // What is thrown may tell of what the calls were given.
                let at = range(param);
                let mut args = Vec::new();
                if let Some(body) = node.child_by_field_name("body") {
                    self.thrown(body, false, &mut args);
                }
                let callee = Box::new(Expr::new(ExprKind::Name("caught"), at));
                let value = Expr::new(ExprKind::Call { callee, args }, at);
                self.bind(param, value, &mut block);
            }
            block.extend(self.body(handler, "body"));
            handlers.push(block);
        }
        let finally = match node.child_by_field_name("finalizer") {
            Some(clause) => self.body(clause, "body"),
            None => Vec::new(),
        };
        StmtKind::Try { body, handlers, otherwise: Vec::new(), finally }
    }

    /// What a function that is called with an error knows of: `load(name, function (error) { .. })`,
    /// `load(name).catch(function (e) { .. })`.
    fn failed(&mut self, node: Node<'_>, args: &mut [Arg<'a>]) {
        let Some(callee) = node.child_by_field_name("function") else { return };
        let Some(last) = args.last_mut() else { return };
        let ExprKind::Closure { params, body } = &mut last.value.kind else { return };
        let Some(first) = params.first() else { return };
        let at = first.range;
        let mut given = Vec::new();
        if self.source.field(callee, "property") == "catch" {
            let Some(object) = callee.child_by_field_name("object") else { return };
            self.thrown(object, true, &mut given);
        } else if matches!(first.name, "err" | "error") {
            self.thrown(node, false, &mut given);
        }
        if given.is_empty() {
            return;
        }
        let caught = Box::new(Expr::new(ExprKind::Name("caught"), at));
        let value = Expr::new(ExprKind::Call { callee: caught, args: given }, at);
        let mut bound = Vec::new();
        push_assign(Expr::new(ExprKind::Name(first.name), at), value, at, &mut bound);
        body.splice(0..0, bound);
    }

    /// Variables that are handed to calls in a block, `deep`: also inside functions.
    fn thrown(&mut self, block: Node<'_>, deep: bool, args: &mut Vec<Arg<'a>>) {
        let mut stack = vec![block];
        let mut budget = 2000;
        while let Some(node) = stack.pop() {
            budget -= 1;
            if budget == 0 || args.len() >= 12 {
                return;
            }
            if is_function(node.kind()) && !deep {
                continue;
            }
            if node.kind() == "throw_statement"
                || node.kind() == "arguments"
                    && node.parent().is_some_and(|call| {
                        let text = call
                            .child_by_field_name("function")
                            .map_or("", |callee| self.source.text(callee));
                        call.kind() == "call_expression"
                            && !text.starts_with("console.")
                            && !text.starts_with('$')
                            && !text.starts_with("log")
                            && !["JSON.parse", "Object.", "_.", "localStorage."]
                                .iter()
                                .any(|known| text.starts_with(known))
                            && ![".test", ".join", ".push", ".info", ".concat"]
                                .iter()
                                .any(|known| text.ends_with(known))
                    })
            {
                for value in named(node) {
                    if matches!(
                        value.kind(),
                        "identifier"
                            | "member_expression"
                            | "binary_expression"
                            | "template_string"
                            | "object"
                    ) {
                        let value = self.expr(value);
                        args.push(Arg { name: None, value });
                    }
                }
            }
            stack.extend(named(node));
        }
    }

    fn import(&mut self, node: Node<'_>) {
        let module = match node.child_by_field_name("source") {
            Some(source) => module_path(self.source.text(source)),
            None => return,
        };
        let mut stack = named(node);
        while let Some(part) = stack.pop() {
            match part.kind() {
                "import_clause" | "named_imports" => stack.extend(named(part)),
                "identifier" => {
                    self.program.imports.insert(self.source.text(part), module.clone());
                }
                "namespace_import" => {
                    if let Some(name) = part.named_child(0) {
                        self.program.imports.insert(self.source.text(name), module.clone());
                    }
                }
                "import_require_clause" => {
                    let source = self.source.field(part, "source");
                    if let Some(name) = part.named_child(0) {
                        let path = module_path(source);
                        self.program.imports.insert(self.source.text(name), path);
                    }
                }
                "import_specifier" => {
                    let name = self.source.field(part, "name");
                    let alias = self.source.field(part, "alias");
                    let path =
                        if name == "default" { module.clone() } else { format!("{module}.{name}") };
                    self.program.imports.insert(if alias.is_empty() { name } else { alias }, path);
                }
                _ => {}
            }
        }
    }

    fn export(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let outer = std::mem::replace(&mut self.exporting, true);
        for child in named(node) {
            match child.kind() {
                "export_clause" => {
                    for part in named(child) {
                        self.exported.insert(self.source.field(part, "name"));
                    }
                }
                "identifier" => {
                    self.exported.insert(self.source.text(child));
                }
                "string" | "decorator" | "namespace_export" => {}
                kind if is_function(kind) => self.function("default", child, out),
                _ => self.statement(child, out),
            }
        }
        self.exporting = outer;
    }

    /// What was exported by name after it was declared.
    fn mark_exported(&mut self) {
        for function in &mut self.program.functions {
            let named = self.exported.contains(function.name)
                || function.class.is_some_and(|class| self.exported.contains(class));
            let known = function
                .decorators
                .iter()
                .any(|decorator| matches!(decorator.kind, ExprKind::Name(EXPORT)));
            if named && !known && !function.top_level {
                function.decorators.push(Expr::new(ExprKind::Name(EXPORT), Range::default()));
            }
        }
    }

    fn class(&mut self, node: Node<'_>, name: &'a str) {
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
                        let target = Expr::new(ExprKind::Name(name), range(key));
                        push_assign(target, value, range(member), &mut fields);
                    }
                }
                "class_static_block" => fields.extend(self.body(member, "body")),
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
    fn function(&mut self, name: &'a str, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        if self.inside == 0 {
            let class = self.class.take();
            self.add_function(name, node);
            self.class = class;
        } else {
            let at = range(node);
            let value = self.expr_of_function(node);
            push_assign(Expr::new(ExprKind::Name(name), at), value, at, out);
        }
    }

    fn add_function(&mut self, name: &'a str, node: Node<'_>) {
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
            decorators.push(Expr::new(ExprKind::Name(EXPORT), range(node)));
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

    fn expr_of_function(&mut self, node: Node<'_>) -> Expr<'a> {
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
                body.extend(self.nested(block));
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
            if let Some(inner) = decorator.and_then(|decorator| decorator.named_child(0)) {
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
            pattern = pattern.named_child(0).unwrap_or(pattern);
        }
        let name = self.source.text(pattern);
        let at = range(pattern);
        if matches!(pattern.kind(), "object_pattern" | "array_pattern") {
            self.bind(pattern, Expr::new(ExprKind::Name(name), at), body);
        }
        let kept = named(node)
            .iter()
            .any(|child| matches!(child.kind(), "accessibility_modifier" | "readonly"));
        if constructor && kept {
            let base = Box::new(Expr::new(ExprKind::Name("self"), at));
            let field = Expr::new(ExprKind::Attribute { base, name, arrow: false }, at);
            push_assign(field, Expr::new(ExprKind::Name(name), at), at, body);
        }
        params.push(Param { name, ty, default, range: at });
    }

    fn exprs(&mut self, node: Node<'_>) -> Vec<Expr<'a>> {
        named(node).into_iter().map(|child| self.expr(child)).collect()
    }

    fn field_expr(&mut self, node: Node<'_>, field: &str) -> Expr<'a> {
        match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        }
    }

    fn boxed(&mut self, node: Node<'_>, field: &str) -> Box<Expr<'a>> {
        Box::new(self.field_expr(node, field))
    }

    fn expr(&mut self, node: Node<'_>) -> Expr<'a> {
        self.depth += 1;
        let expr =
            if self.depth > MAX_DEPTH { unknown(node, Vec::new()) } else { self.expr_inner(node) };
        self.depth -= 1;
        expr
    }

    fn expr_inner(&mut self, node: Node<'_>) -> Expr<'a> {
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
            "await_expression" | "yield_expression" => match named(node).first() {
                Some(inner) => ExprKind::Through(Box::new(self.expr(*inner))),
                None => ExprKind::Null,
            },
            "spread_element" => match node.named_child(0) {
                Some(inner) => ExprKind::Star(Box::new(self.expr(inner))),
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
            | "computed_property_name" => match node.named_child(0) {
                Some(inner) => return self.expr(inner),
                None => ExprKind::Unknown(Vec::new()),
            },
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

    fn template(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let mut parts: Vec<Expr<'a>> = Vec::new();
        let mut at = node.start_byte() + 1;
        let close = node.end_byte().saturating_sub(1);
        for child in named(node) {
            if child.kind() != "template_substitution" {
                continue;
            }
            self.literal_part(at, child.start_byte(), &mut parts);
            if let Some(inner) = child.named_child(0) {
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
                    entries.push((Some(key), Expr::new(ExprKind::Name(name), range(child))));
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

    fn arguments(&mut self, list: Node<'_>) -> Vec<Arg<'a>> {
        if list.kind() == "template_string" {
            let mut args = Vec::new();
            for child in named(list) {
                if child.kind() == "template_substitution"
                    && let Some(inner) = child.named_child(0)
                {
                    args.push(Arg { name: None, value: self.expr(inner) });
                }
            }
            let text = Expr::new(ExprKind::Str(Cow::Borrowed(self.source.text(list))), range(list));
            args.insert(0, Arg { name: None, value: text });
            return args;
        }
        named(list).into_iter().map(|child| Arg { name: None, value: self.expr(child) }).collect()
    }

    fn call(&mut self, node: Node<'_>) -> Expr<'a> {
        if let Some(module) = self.required(node)
            && let Some(text) = node
                .child_by_field_name("arguments")
                .and_then(|list| list.named_child(0))
                .map(|first| self.source.text(first))
        {
            // The quotes keep the module apart from variables of the same name.
            self.program.imports.insert(text, module);
            return Expr::new(ExprKind::Name(text), range(node));
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
    fn is_by_name(node: Node<'_>) -> bool {
        let callee = node
            .child_by_field_name("function")
            .or_else(|| node.child_by_field_name("constructor"));
        callee
            .filter(|callee| callee.kind() == "subscript_expression")
            .and_then(|callee| callee.child_by_field_name("index"))
            .is_some_and(|index| !matches!(index.kind(), "string" | "number"))
    }

    /// It is asked who chose the name, then the call happens.
    fn call_by_name(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let field = if node.kind() == "new_expression" { "constructor" } else { "function" };
        let mut parts = Vec::new();
        if let Some(target) = node.child_by_field_name(field) {
            let index = self.field_expr(target, "index");
            let callee = Box::new(Expr::new(ExprKind::Name("method_by_name"), at));
            let args = vec![Arg { name: None, value: index }];
            parts.push(Expr::new(ExprKind::Call { callee, args }, range(target)));
        }
        let callee = self.boxed(node, field);
        let list = node.child_by_field_name("arguments");
        let args = list.map(|list| self.arguments(list)).unwrap_or_default();
        parts.push(Expr::new(ExprKind::Call { callee, args }, at));
        Expr::new(ExprKind::Sequence(parts), at)
    }

    /// An expression, and what is weak about it.
    fn regexp(&self, node: Node<'_>, text: Expr<'a>, pattern: &str, flags: &str) -> ExprKind<'a> {
        let at = text.range;
        let mut args = vec![Arg { name: None, value: text }];
        push_weakness(regexp::of_pattern(pattern, flags, self.is_replaced(node)), at, &mut args);
        ExprKind::Construct { callee: Box::new(Expr::new(ExprKind::Name("RegExp"), at)), args }
    }

    fn add_weakness(&self, node: Node<'_>, args: &mut Vec<Arg<'a>>) {
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
        let first = call.child_by_field_name("arguments").and_then(|list| list.named_child(0));
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
                "expression_statement" => statement.named_child(0)?,
                "lexical_declaration" | "variable_declaration" => statement.named_child(0)?,
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
    fn held<'t>(&self, node: Node<'t>) -> Node<'t> {
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
    fn trusts_message(&self, function: Node<'_>) -> bool {
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

    /// The module that `require("...")` gives.
    fn required(&self, node: Node<'_>) -> Option<String> {
        if node.kind() != "call_expression" || self.source.field(node, "function") != "require" {
            return None;
        }
        let first = node.child_by_field_name("arguments")?.named_child(0)?;
        (first.kind() == "string").then(|| module_path(self.source.text(first)))
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
                let callee = Box::new(Expr::new(ExprKind::Name("typeof"), at));
                ExprKind::Call { callee, args: vec![Arg { name: None, value: *inner }] }
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
                Err(left) => return plain(op, left, right, at),
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
                let callee = Box::new(Expr::new(ExprKind::Name("scheme_is"), at));
                let args =
                    [left, right].into_iter().map(|value| Arg { name: None, value }).collect();
                let test = Expr::new(ExprKind::Call { callee, args }, at);
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
                    Err(_) => plain(op, left, right, at),
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
                    Err(left) => plain(op, left, right, at),
                };
            }
        }
        // At the very start: the text begins with it.
        let begins = equal && matches!(right.kind, ExprKind::Int(0));
        if let Some(found) = found {
            return match with_name(left, "indexOf", "includes") {
                Ok(test) => negated(test, !found, at),
                Err(left) => plain(op, left, right, at),
            };
        }
        if begins {
            return match with_name(left, "indexOf", "startsWith") {
                Ok(test) => negated(test, op == BinaryOp::Ne, at),
                Err(left) => plain(op, left, right, at),
            };
        }
        if matches!(op, BinaryOp::Mod | BinaryOp::Div) {
            // Kept apart so that a rule can ask what is made a smaller number.
            let callee = Box::new(Expr::new(ExprKind::Name("biased_number"), at));
            let args = [left, right].into_iter().map(|value| Arg { name: None, value }).collect();
            return Expr::new(ExprKind::Call { callee, args }, at);
        }
        plain(op, left, right, at)
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
                "jsx_expression" => args.push(Arg { name: None, value: self.expr(child) }),
                _ => {}
            }
        }
        if open != node {
            for child in named(node) {
                if !matches!(
                    child.kind(),
                    "jsx_opening_element" | "jsx_closing_element" | "jsx_text"
                ) {
                    args.push(Arg { name: None, value: self.expr(child) });
                }
            }
        }
        let base = Box::new(Expr::new(ExprKind::Name("jsx"), range(open)));
        let callee = ExprKind::Attribute { base, name: tag, arrow: false };
        ExprKind::Call { callee: Box::new(Expr::new(callee, range(open))), args }
    }
}

fn push_assign<'a>(target: Expr<'a>, value: Expr<'a>, at: Range, out: &mut Vec<Stmt<'a>>) {
    // An assignment to itself says nothing; patterns of parameters make some.
    if let (ExprKind::Name(a), ExprKind::Name(b)) = (&target.kind, &value.kind)
        && a == b
    {
        return;
    }
    let at = Range { start: at.start, end: at.end.max(value.range.end) };
    let kind = ExprKind::Assign { op: None, target: Box::new(target), value: Box::new(value) };
    out.push(Stmt { kind: StmtKind::Expr(Expr::new(kind, at)), range: at });
}

/// Words for rules, as an argument that no program gives.
fn push_weakness(words: String, at: Range, args: &mut Vec<Arg<'_>>) {
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

fn plain<'a>(op: BinaryOp, left: Expr<'a>, right: Expr<'a>, at: Range) -> Expr<'a> {
    Expr::new(ExprKind::Binary { op, left: Box::new(left), right: Box::new(right) }, at)
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

fn is_function(kind: &str) -> bool {
    matches!(kind, "function_expression" | "arrow_function" | "generator_function" | "function")
}

/// The text between quotes.
fn quoted(text: &str) -> &str {
    text.get(1..text.len().saturating_sub(1)).unwrap_or("")
}

/// A module as a dotted path: `node:fs/promises` is `fs.promises`.
fn module_path(quoted_text: &str) -> String {
    let text = quoted(quoted_text);
    let text = text.strip_prefix("node:").unwrap_or(text);
    match text {
        "fs/promises" => "fs.promises".to_owned(),
        "dns/promises" => "dns.promises".to_owned(),
        _ => text.strip_suffix(".js").unwrap_or(text).to_owned(),
    }
}

fn binary_op(text: &str) -> BinaryOp {
    match text {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" | "**" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        "%" => BinaryOp::Mod,
        "<<" => BinaryOp::Shl,
        ">>" | ">>>" => BinaryOp::Shr,
        "&" => BinaryOp::BitAnd,
        "|" => BinaryOp::BitOr,
        "^" => BinaryOp::BitXor,
        "==" | "===" => BinaryOp::Eq,
        "!=" | "!==" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        "&&" => BinaryOp::And,
        "||" | "??" => BinaryOp::Or,
        "in" => BinaryOp::In,
        "instanceof" => BinaryOp::Is,
        _ => BinaryOp::Other,
    }
}
