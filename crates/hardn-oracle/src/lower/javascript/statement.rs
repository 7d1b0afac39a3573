//! Statements of JavaScript.

use std::borrow::Cow;

use tree_sitter::Node;

use super::{Lowering, call::push_weakness, function::is_function, pattern::push_assign};
use crate::{
    ir::{Arg, Case, Expr, ExprKind, Loop, Stmt, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerStatement, first_named, named, range, unknown},
        make,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
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
            "return_statement" => StmtKind::Return(self.first(node)),
            "throw_statement" => StmtKind::Raise(self.first(node)),
            "if_statement" => {
                let test = self.field_expr(node, "condition");
                let then = self.field_block(node, "consequence");
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
                        first_named(test)?
                    } else {
                        test
                    };
                    (inner.kind() != "empty_statement").then(|| self.expr(inner))
                });
                let step = node.child_by_field_name("increment").map(|step| self.expr(step));
                make::looped(Loop {
                    init,
                    test,
                    body: self.field_block(node, "body"),
                    step,
                    ..Loop::default()
                })
            }
            "for_in_statement" => self.for_in(node),
            "while_statement" | "do_statement" => make::looped(Loop {
                test: node.child_by_field_name("condition").map(|test| self.expr(test)),
                body: self.field_block(node, "body"),
                body_first: node.kind() == "do_statement",
                ..Loop::default()
            }),
            "switch_statement" => self.switch(node),
            "try_statement" => self.try_statement(node),
            "with_statement" => {
                StmtKind::With { items: Vec::new(), body: self.field_block(node, "body") }
            }
            "statement_block" | "program" => StmtKind::Block(self.block(node)),
            "labeled_statement" | "internal_module" | "module" => {
                StmtKind::Block(self.field_block(node, "body"))
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
}

impl<'a> Lowering<'a> {
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
                let event = Expr::new(ExprKind::Str(Cow::Borrowed("message")), range(left));
                let mut args = make::args([event, self.expr(right)]);
                if of_page && self.trusts_message(right) {
                    push_weakness("origin".to_owned(), range(right), &mut args);
                }
                let name = "addEventListener";
                let call = if of_page {
                    make::called(name, args, range(node))
                } else {
                    make::method_called(self.field_expr(left, "object"), name, args, range(node))
                };
                out.push(make::statement(call, range(node)));
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
                out.push(make::statement(expr, range(node)));
            }
            self.exporting = outer;
            return;
        }
        let expr = self.expr(node);
        out.push(make::statement(expr, range(node)));
    }

    fn for_in(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let iterable = self.field_expr(node, "right");
        let mut body = Vec::new();
        let target = match node.child_by_field_name("left") {
            Some(left) if matches!(left.kind(), "object_pattern" | "array_pattern") => {
                let whole = ExprKind::Name(self.source.text(left));
                self.bind(left, Expr::new(whole, range(left)), &mut body);
                make::name(self.source.text(left), range(left))
            }
            Some(left) => self.expr(left),
            None => unknown(node, Vec::new()),
        };
        body.extend(self.field_block(node, "body"));
        // The keys of an object are its own, of a list numbers.
        let keys = self.source.field(node, "operator") == "in";
        let iterable = if keys {
            let at = iterable.range;
            make::called("for_in", vec![make::arg(iterable)], at)
        } else {
            iterable
        };
        make::looped(Loop { bind: Some((target, iterable)), body, ..Loop::default() })
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
        let body = self.field_block(node, "body");
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
                self.bind(param, make::called("caught", args, at), &mut block);
            }
            block.extend(self.field_block(handler, "body"));
            handlers.push(block);
        }
        let finally = match node.child_by_field_name("finalizer") {
            Some(clause) => self.field_block(clause, "body"),
            None => Vec::new(),
        };
        StmtKind::Try { body, handlers, otherwise: Vec::new(), finally }
    }

    /// What a function that is called with an error knows of: `load(name, function (error) { .. })`,
    /// `load(name).catch(function (e) { .. })`.
    pub(super) fn failed(&mut self, node: Node<'_>, args: &mut [Arg<'a>]) {
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
        let value = make::called("caught", given, at);
        let mut bound = Vec::new();
        push_assign(make::name(first.name, at), value, at, &mut bound);
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
                        args.push(make::arg(self.copy(value)));
                    }
                }
            }
            stack.extend(named(node));
        }
    }
}
