//! Statements of Ruby.

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{BinaryOp, Case, Expr, ExprKind, Loop, Stmt, StmtKind},
    lower::{
        front_end::{FrontEnd, LowerStatement, all_named, first_named, named, range},
        make,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a, '_> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let at = range(node);
        let kind = match node.kind() {
            // What could be recovered inside an error still counts.
            "ERROR" => {
                out.extend(self.block(node));
                return;
            }
            "method" | "singleton_method" => {
                self.method(node);
                return;
            }
            "class" | "module" => {
                self.class(node);
                return;
            }
            "singleton_class" => {
                if let Some(body) = node.child_by_field_name("body") {
                    let statements = self.block(body);
                    out.extend(statements);
                }
                return;
            }
            "begin" | "begin_block" | "end_block" => StmtKind::Block(self.block(node)),
            "parenthesized_statements" if named(node).len() > 1 => {
                StmtKind::Block(self.block(node))
            }
            "if" | "elsif" | "unless" => self.branch(node),
            "if_modifier" | "unless_modifier" => {
                let body = node.child_by_field_name("body");
                let then = body.map(|body| self.body(body)).unwrap_or_default();
                let test = self.condition(node, node.kind() == "unless_modifier");
                StmtKind::If { test, then, otherwise: Vec::new() }
            }
            "while" | "until" | "while_modifier" | "until_modifier" => {
                let outer = std::mem::replace(&mut self.in_loop, true);
                let test = self.condition(node, node.kind().starts_with("until"));
                let body = self.field_block(node, "body");
                self.in_loop = outer;
                let body_first = node.kind().ends_with("modifier")
                    && node.child_by_field_name("body").is_some_and(|body| body.kind() == "begin");
                make::looped(Loop { test: Some(test), body, body_first, ..Loop::default() })
            }
            "for" => {
                let outer = std::mem::replace(&mut self.in_loop, true);
                let bind = (*self.boxed(node, "pattern"), *self.boxed(node, "value"));
                let body = self.field_block(node, "body");
                self.in_loop = outer;
                make::looped(Loop { bind: Some(bind), body, ..Loop::default() })
            }
            "case" | "case_match" => self.case(node),
            "return" => StmtKind::Return(self.given(node)),
            "next" | "break" if !self.in_loop => StmtKind::Return(self.given(node)),
            "next" | "redo" | "retry" => StmtKind::Continue,
            "break" => StmtKind::Break,
            "binary" if leaves(node) => {
                // `redirect_to path and return`
                let test = *self.boxed(node, "left");
                let mut last = Vec::new();
                if let Some(right) = node.child_by_field_name("right") {
                    self.statement(right, &mut last);
                }
                if says_done(&test) {
                    out.push(make::statement(test, at));
                    out.extend(last);
                    return;
                }
                let and = matches!(self.source.field(node, "operator"), "and" | "&&");
                let (then, otherwise) = if and { (last, Vec::new()) } else { (Vec::new(), last) };
                StmtKind::If { test, then, otherwise }
            }
            "call" if self.is_raise(node) => {
                let args = node.child_by_field_name("arguments");
                let values = args.map(|args| self.exprs(args)).unwrap_or_default();
                StmtKind::Raise(Some(Expr::new(ExprKind::Unknown(values), at)))
            }
            "identifier" if matches!(self.source.text(node), "raise" | "fail") => {
                StmtKind::Raise(None)
            }
            "heredoc_body" | "heredoc_end" | "comment" | "empty_statement" | "uninterpreted"
            | "alias" | "undef" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: at });
    }
}

impl<'a> Lowering<'a, '_> {
    pub(super) fn rescued(&mut self, node: Node<'_>, children: &[Node<'_>]) -> Stmt<'a> {
        let (mut body, mut handlers, mut otherwise, mut finally) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for child in children {
            match child.kind() {
                "rescue" => handlers.push(self.rescue(*child)),
                "else" => otherwise = self.block(*child),
                "ensure" => finally = self.block(*child),
                _ => self.statement(*child, &mut body),
            }
        }
        let kind = StmtKind::Try { body, handlers, otherwise, finally };
        Stmt { kind, range: range(node) }
    }

    /// `rescue Error => e`: the variable holds an `Exception`.
    fn rescue(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        let variable = node.child_by_field_name("variable").and_then(first_named);
        if let Some(variable) = variable {
            let at = range(variable);
            let value = make::constructed("Exception", Vec::new(), at);
            let target = Box::new(self.expr(variable));
            out.push(make::statement(make::assigned(*target, value, at), at));
        }
        out.extend(self.field_block(node, "body"));
        out
    }

    fn is_raise(&self, node: Node<'_>) -> bool {
        node.child_by_field_name("receiver").is_none()
            && matches!(self.source.field(node, "method"), "raise" | "fail")
    }

    /// What `return`, `next` and `break` carry.
    fn given(&mut self, node: Node<'_>) -> Option<Expr<'a>> {
        let list = first_named(node)?;
        let mut values = self.exprs(list);
        match values.len() {
            0 => None,
            1 => values.pop(),
            _ => Some(Expr::new(ExprKind::List(values), range(list))),
        }
    }

    fn condition(&mut self, node: Node<'_>, negated: bool) -> Expr<'a> {
        let test = self.boxed(node, "condition");
        if negated { Expr::new(ExprKind::Not(test), range(node)) } else { *test }
    }

    fn branch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let test = self.condition(node, node.kind() == "unless");
        let then = self.field_block(node, "consequence");
        let otherwise = match node.child_by_field_name("alternative") {
            Some(clause) => self.body(clause),
            None => Vec::new(),
        };
        StmtKind::If { test, then, otherwise }
    }

    /// `case value` is a switch; without a value it is a chain of tests.
    fn case(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let Some(value) = node.child_by_field_name("value") else {
            return StmtKind::Block(self.tests(node));
        };
        let value = self.expr(value);
        let mut cases = Vec::new();
        for child in named(node) {
            let values = match child.kind() {
                "when" => patterns(child).into_iter().map(|pattern| self.expr(pattern)).collect(),
                "in_clause" => vec![*self.boxed(child, "pattern")],
                "else" => Vec::new(),
                _ => continue,
            };
            let body = if child.kind() == "else" {
                self.block(child)
            } else {
                self.field_block(child, "body")
            };
            cases.push(Case { values, body, falls_through: false });
        }
        StmtKind::Switch { value, cases }
    }

    fn tests(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let at = range(node);
        let clauses = |kind| named(node).into_iter().filter(move |child| child.kind() == kind);
        self.branches(
            clauses("when").collect(),
            |lowering, clause| {
                let tests = patterns(clause);
                let test = lowering.joined(BinaryOp::Or, tests.len(), at, |lowering, number| {
                    lowering.expr(tests[number])
                });
                (test, lowering.field_block(clause, "body"), at)
            },
            |lowering| clauses("else").next().map_or_else(Vec::new, |last| lowering.block(last)),
        )
    }
}

fn patterns(clause: Node<'_>) -> Vec<Node<'_>> {
    let patterns = all_named(clause, "pattern").into_iter().filter(Node::is_named);
    patterns.filter_map(first_named).collect()
}

/// The value of the last statement is what a method or block returns.
pub(super) fn returning(body: &mut [Stmt<'_>]) {
    let Some(last) = body.last_mut() else { return };
    match &mut last.kind {
        StmtKind::Expr(_) => {
            let kind = std::mem::replace(&mut last.kind, StmtKind::Break);
            if let StmtKind::Expr(expr) = kind {
                last.kind = StmtKind::Return(Some(expr));
            }
        }
        StmtKind::If { then, otherwise, .. } => {
            returning(then);
            returning(otherwise);
        }
        StmtKind::Switch { cases, .. } => {
            for case in cases {
                returning(&mut case.body);
            }
        }
        StmtKind::Try { body, handlers, otherwise, .. } => {
            returning(if otherwise.is_empty() { body } else { otherwise });
            for handler in handlers {
                returning(handler);
            }
        }
        StmtKind::Block(body) => returning(body),
        _ => {}
    }
}

/// `a and return`: control leaves on the right.
fn leaves(node: Node<'_>) -> bool {
    let Some(right) = node.child_by_field_name("right") else { return false };
    let operator = node.child_by_field_name("operator").map_or("", |node| node.kind());
    matches!(operator, "and" | "or" | "&&" | "||")
        && matches!(right.kind(), "return" | "next" | "break")
}

/// A call that answers the request: what follows `and` is always done.
fn says_done(test: &Expr<'_>) -> bool {
    matches!(&test.kind, ExprKind::Call { callee, .. }
        if matches!(callee.kind, ExprKind::Name("render" | "redirect_to" | "head" | "send_file" | "puts")))
}
