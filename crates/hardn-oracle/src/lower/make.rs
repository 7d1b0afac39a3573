//! Pieces of the common form that every front end makes.

use super::front_end::MAX_CHAIN;
use crate::ir::{Arg, BinaryOp, Case, Expr, ExprKind, Loop, Range, Stmt, StmtKind};

/// An argument by position.
pub(super) fn arg(value: Expr<'_>) -> Arg<'_> {
    Arg { name: None, value }
}

/// Arguments by position.
pub(super) fn args<'a>(values: impl IntoIterator<Item = Expr<'a>>) -> Vec<Arg<'a>> {
    values.into_iter().map(arg).collect()
}

pub(super) fn name(name: &str, at: Range) -> Expr<'_> {
    Expr::new(ExprKind::Name(name), at)
}

pub(super) fn attribute<'a>(base: Expr<'a>, name: &'a str, at: Range) -> Expr<'a> {
    Expr::new(ExprKind::Attribute { base: Box::new(base), name, arrow: false }, at)
}

/// A field of the object at hand.
pub(super) fn own_field(field: &str, at: Range) -> Expr<'_> {
    attribute(name("self", at), field, at)
}

/// A call without a receiver.
pub(super) fn called<'a>(callee: &'a str, args: Vec<Arg<'a>>, at: Range) -> Expr<'a> {
    Expr::new(ExprKind::Call { callee: Box::new(name(callee, at)), args }, at)
}

pub(super) fn method_called<'a>(
    base: Expr<'a>,
    name: &'a str,
    args: Vec<Arg<'a>>,
    at: Range,
) -> Expr<'a> {
    let callee = Box::new(attribute(base, name, at));
    Expr::new(ExprKind::Call { callee, args }, at)
}

pub(super) fn constructed<'a>(class: &'a str, args: Vec<Arg<'a>>, at: Range) -> Expr<'a> {
    Expr::new(ExprKind::Construct { callee: Box::new(name(class, at)), args }, at)
}

pub(super) fn binary<'a>(op: BinaryOp, left: Expr<'a>, right: Expr<'a>, at: Range) -> Expr<'a> {
    Expr::new(ExprKind::Binary { op, left: Box::new(left), right: Box::new(right) }, at)
}

/// A number with its sign changed, or what stands for it.
pub(super) fn negative(inner: Box<Expr<'_>>) -> ExprKind<'_> {
    match inner.kind {
        ExprKind::Int(number) => ExprKind::Int(number.wrapping_neg()),
        _ => ExprKind::Minus(inner),
    }
}

pub(super) fn assigned<'a>(target: Expr<'a>, value: Expr<'a>, at: Range) -> Expr<'a> {
    let (target, value) = (Box::new(target), Box::new(value));
    Expr::new(ExprKind::Assign { op: None, target, value }, at)
}

pub(super) fn statement(expr: Expr<'_>, range: Range) -> Stmt<'_> {
    Stmt { kind: StmtKind::Expr(expr), range }
}

/// `if`, `else if` and so on: each branch stands in the `otherwise` of the one before it. Where there are too many for
/// that, any one of the rest is taken.
pub(super) fn branches<'a>(
    mut branches: Vec<(Expr<'a>, Vec<Stmt<'a>>, Range)>,
    mut otherwise: Vec<Stmt<'a>>,
) -> Vec<Stmt<'a>> {
    let rest = branches.split_off(branches.len().min(MAX_CHAIN));
    if let Some(&(_, _, range)) = rest.first() {
        let value = Expr::new(ExprKind::Unknown(Vec::new()), range);
        let case = |values, body| Case { values, body, falls_through: false };
        let mut cases: Vec<Case<'a>> =
            rest.into_iter().map(|(test, body, _)| case(vec![test], body)).collect();
        cases.push(case(Vec::new(), otherwise));
        otherwise = vec![Stmt { kind: StmtKind::Switch { value, cases }, range }];
    }
    for (test, then, range) in branches.into_iter().rev() {
        let kind = StmtKind::If { test, then, otherwise };
        otherwise = vec![Stmt { kind, range }];
    }
    otherwise
}

pub(super) fn looped(inner: Loop<'_>) -> StmtKind<'_> {
    StmtKind::Loop(Box::new(inner))
}
