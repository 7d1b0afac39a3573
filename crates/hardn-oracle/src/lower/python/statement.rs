//! Statements of Python.

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Case, Loop, Stmt, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerStatement, all_named, first_named, named, range, unknown},
        make,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
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
            "assert_statement" => match first_named(node) {
                Some(test) => StmtKind::Assert(self.expr(test)),
                None => return,
            },
            "delete_statement" => StmtKind::Delete(self.exprs(node)),
            "if_statement" => {
                out.extend(self.if_statement(node));
                return;
            }
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
}

impl<'a> Lowering<'a> {
    fn alternative(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        match node.child_by_field_name("alternative") {
            Some(clause) => self.field_block(clause, "body"),
            None => Vec::new(),
        }
    }

    fn if_statement(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let (last, mut clauses): (Vec<_>, Vec<_>) = all_named(node, "alternative")
            .into_iter()
            .partition(|clause| clause.kind() == "else_clause");
        clauses.insert(0, node);
        self.branches(
            clauses,
            |lowering, clause| {
                let test = lowering.field_expr(clause, "condition");
                (test, lowering.field_block(clause, "consequence"), range(clause))
            },
            |lowering| {
                last.first().map_or_else(Vec::new, |last| lowering.field_block(*last, "body"))
            },
        )
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
        let alias = first_named(pattern.child_by_field_name("alias")?)?;
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
                    let subject = first_named(value).map(|inner| self.expr(inner));
                    let alias = value.child_by_field_name("alias").and_then(first_named);
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
                    match first_named(pattern).filter(|inner| inner.kind() == "union_pattern") {
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
}
