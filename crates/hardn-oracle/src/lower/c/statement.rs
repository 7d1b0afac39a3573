//! Statements of C and C++.

use tree_sitter::Node;

use super::{Lowering, constant::is_identifier};
use crate::{
    ir::{Case, Expr, Loop, Stmt, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerStatement, named, range, unknown},
        make,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
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
                    out.push(make::statement(expr, range(child)));
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
                StmtKind::If { test, then: self.field_block(node, "consequence"), otherwise }
            }
            "while_statement" | "do_statement" => {
                let test = self.condition(node, out);
                make::looped(Loop {
                    test: Some(test),
                    body: self.field_block(node, "body"),
                    body_first: node.kind() == "do_statement",
                    ..Loop::default()
                })
            }
            "for_statement" => {
                let mut init = Vec::new();
                if let Some(first) = node.child_by_field_name("initializer") {
                    self.statement(first, &mut init);
                }
                let test = node.child_by_field_name("condition").map(|test| self.expr(test));
                let step = node.child_by_field_name("update").map(|step| self.expr(step));
                make::looped(Loop {
                    init,
                    test,
                    body: self.field_block(node, "body"),
                    step,
                    ..Loop::default()
                })
            }
            "for_range_loop" => {
                let declarator =
                    node.child_by_field_name("declarator").map(|inner| self.declarator(inner));
                let name = declarator.map_or("", |declarator| declarator.name);
                let target = make::name(name, range(node));
                let iterable = *self.boxed(node, "right");
                make::looped(Loop {
                    bind: Some((target, iterable)),
                    body: self.field_block(node, "body"),
                    ..Loop::default()
                })
            }
            "switch_statement" => self.switch(node),
            "case_statement" => StmtKind::Block(self.case(node).body),
            "return_statement" | "co_return_statement" => StmtKind::Return(self.first(node)),
            "throw_statement" => StmtKind::Raise(self.first(node)),
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
                let body = self.field_block(node, "body");
                let handlers = named(node)
                    .into_iter()
                    .filter(|child| child.kind() == "catch_clause")
                    .map(|clause| self.field_block(clause, "body"))
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
}

impl<'a> Lowering<'a> {
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
                        make::name(name, range(value))
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
}
