//! Statements of Go.

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{BinaryOp, Case, Expr, ExprKind, Loop, Stmt, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerStatement, MAX_COPIED, first_named, named, range, unknown},
        make,
        operator::binary_op,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
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
                let target = Box::new(self.inner(node));
                let kind = ExprKind::Update { target, by, prefix: true };
                StmtKind::Expr(Expr::new(kind, range(node)))
            }
            "defer_statement" | "go_statement" => StmtKind::Expr(self.inner(node)),
            "send_statement" => {
                // What is sent may be received.
                let target = self.boxed(node, "channel");
                let value = self.boxed(node, "value");
                let kind = ExprKind::Assign { op: None, target, value };
                StmtKind::Expr(Expr::new(kind, range(node)))
            }
            "return_statement" => StmtKind::Return(self.first(node)),
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
                let alias = node.child_by_field_name("alias").and_then(first_named);
                let value = match alias {
                    Some(alias) => {
                        let target = Box::new(self.expr(alias));
                        make::assigned(*target, value, range(alias))
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
            "goto_statement" => match first_named(node) {
                Some(label) => StmtKind::Goto(self.source.text(label)),
                None => return,
            },
            // It leaves the switch: what follows the switch is reached anyway.
            "break_statement" if self.switches > 0 && first_named(node).is_none() => return,
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "block" => StmtKind::Block(self.block(node)),
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }
}

impl<'a> Lowering<'a> {
    fn assignment(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let left = node.child_by_field_name("left");
        let Some(right) = node.child_by_field_name("right") else {
            self.block_into(node, out);
            return;
        };
        let Some(left) = left else {
            out.push(make::statement(self.expr(right), range(node)));
            return;
        };
        let op = match self.source.field(node, "operator") {
            "=" | ":=" | "" => None,
            text => Some(binary_op(text.trim_end_matches('='))),
        };
        let mut targets = self.listed(left);
        let lookup = if right.kind() == "expression_list" { first_named(right) } else { None };
        if let (2, Some(lookup)) = (targets.len(), lookup)
            && named(right).len() == 1
            && lookup.kind() == "index_expression"
        {
            // `v, ok := m[k]`: the second says whether the key is there.
            let value = self.expr(lookup);
            let found = if lookup.descendant_count() > MAX_COPIED {
                unknown(lookup, Vec::new())
            } else {
                self.condition(lookup)
            };
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
        out.push(make::statement(Expr::new(kind, range(node)), range(node)));
    }

    fn for_statement(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let mut inner = Loop::default();
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
                        None => (make::name("_", range(child)), right),
                    });
                }
                _ => inner.test = Some(self.condition(child)),
            }
        }
        let switches = std::mem::take(&mut self.switches);
        inner.body = self.field_block(node, "body");
        self.switches = switches;
        make::looped(inner)
    }

    /// A switch without a value is a chain of conditions.
    fn switch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        if let Some(value) = node.child_by_field_name("value") {
            return StmtKind::Switch { value: self.expr(value), cases: self.cases(node) };
        }
        self.switches += 1;
        let (last, mut clauses): (Vec<_>, Vec<_>) =
            named(node).into_iter().partition(|case| case.kind() == "default_case");
        clauses.retain(|case| case.kind() == "expression_case");
        let branches = self.branches(
            clauses,
            |lowering, case| {
                let tests = case.child_by_field_name("value").map(named).unwrap_or_default();
                let test =
                    lowering.joined(BinaryOp::Or, tests.len(), range(case), |lowering, number| {
                        lowering.condition(tests[number])
                    });
                (test, lowering.case_body(case), range(case))
            },
            |lowering| last.first().map_or_else(Vec::new, |last| lowering.case_body(*last)),
        );
        self.switches -= 1;
        StmtKind::Block(branches)
    }

    fn cases(&mut self, node: Node<'_>) -> Vec<Case<'a>> {
        self.switches += 1;
        let mut cases = Vec::new();
        for case in named(node) {
            let mut body = Vec::new();
            let values = match case.kind() {
                "default_case" => Vec::new(),
                "expression_case" => match case.child_by_field_name("value") {
                    Some(list) => self.listed(list),
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
}
