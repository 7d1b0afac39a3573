//! Rules over the texts that a function compares with: lists of what is dangerous that forget a member.

use hardn_types::Language;

use super::Flow;
use crate::ir::{BinaryOp, Expr, ExprKind, Range, Stmt, StmtKind};

impl Flow<'_, '_> {
    /// Alerts for functions that compare with one text and not with all that belong to it.
    pub(super) fn check_compared(&mut self) {
        if self.index.compared.is_empty() || self.language == Language::C {
            return;
        }
        for function in &self.program.functions {
            let mut texts = Vec::new();
            in_block(&function.body, &mut texts);
            let index = self.index;
            for (rule, model) in &index.compared {
                let is_there = |pattern: &crate::rules::Pattern| {
                    texts.iter().any(|(text, _)| pattern.is_match(text))
                };
                if model.lacks.iter().all(is_there) {
                    continue;
                }
                let last = texts.iter().rev().find(|(text, _)| model.has.is_match(text));
                if let Some((_, range)) = last {
                    self.alert_here(*rule, *range);
                }
            }
        }
    }
}

fn in_block<'e>(body: &'e [Stmt<'_>], out: &mut Vec<(&'e str, Range)>) {
    for stmt in body {
        for expr in stmt.exprs() {
            in_expr(expr, out);
        }
        if let StmtKind::Switch { cases, .. } = &stmt.kind {
            for value in cases.iter().flat_map(|case| &case.values) {
                text_of(value, value.range, out);
            }
        }
        for block in stmt.blocks() {
            in_block(block, out);
        }
    }
}

fn in_expr<'e>(expr: &'e Expr<'_>, out: &mut Vec<(&'e str, Range)>) {
    match &expr.kind {
        ExprKind::Binary { op: BinaryOp::Eq | BinaryOp::Ne, left, right } => {
            text_of(left, expr.range, out);
            text_of(right, expr.range, out);
        }
        ExprKind::Call { callee, args } => {
            if let ExprKind::Attribute { name, .. } | ExprKind::Name(name) = &callee.kind
                && matches!(
                    *name,
                    "HasPrefix"
                        | "EqualFold"
                        | "startsWith"
                        | "startswith"
                        | "start_with?"
                        | "indexOf"
                        | "equals"
                        | "equalsIgnoreCase"
                )
            {
                for arg in args {
                    text_of(&arg.value, expr.range, out);
                }
            }
        }
        ExprKind::Closure { body, .. } => in_block(body, out),
        _ => {}
    }
    for child in expr.children() {
        in_expr(child, out);
    }
}

fn text_of<'e>(expr: &'e Expr<'_>, range: Range, out: &mut Vec<(&'e str, Range)>) {
    if let ExprKind::Str(text) = &expr.kind {
        out.push((text, range));
    }
}
