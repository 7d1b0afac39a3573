//! Checks that come after what they are to protect, or are missing where a sum of lengths goes on.

use super::{Memory, any_stmt, state::State};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Function, StmtKind},
    rules::MemoryCheck,
};

impl<'p> Memory<'p, '_> {
    /// A pointer is compared with null that was followed before.
    pub(super) fn check_late_null(&mut self, expr: &'p Expr<'p>, place: &str, state: &State) {
        let Some(at) = state.get(place).and_then(|cell| cell.used_at) else { return };
        if !matches!(expr.kind, ExprKind::Name(_)) {
            return;
        }
        self.alert(
            MemoryCheck::LateNullCheck,
            expr.range,
            format!("`{place}` was followed before"),
            vec![(at, "is followed here".to_owned())],
        );
    }

    /// `a[i] && i < n` reads before it knows that it may.
    pub(super) fn check_late_index(&mut self, test: &'p Expr<'p>) {
        let mut parts = Vec::new();
        conjuncts(test, &mut parts);
        for (at, part) in parts.iter().enumerate() {
            let Some(index) = limited(part) else { continue };
            // What was limited before may be limited more closely after.
            if parts[..at].iter().any(|part| limited(part) == Some(index)) {
                continue;
            }
            for earlier in &parts[..at] {
                if let Some(access) = indexed(earlier, index) {
                    self.alert(
                        MemoryCheck::LateIndexCheck,
                        access.range,
                        format!("`{index}` is compared with its limit only afterwards"),
                        Vec::new(),
                    );
                }
            }
        }
    }

    /// `n += snprintf(out + n, size - n, ...)` in a loop that never looks at `n`.
    pub(super) fn check_length_sums(&mut self, function: &'p Function<'p>) {
        any_stmt(&function.body, &mut |stmt| {
            let StmtKind::Loop(inner) = &stmt.kind else { return false };
            let mut sums = Vec::new();
            let mut compared = Vec::new();
            any_stmt(&inner.body, &mut |stmt| {
                for expr in stmt.exprs() {
                    length_sums(expr, &mut sums);
                    compared_names(expr, &mut compared);
                }
                false
            });
            if let Some(test) = &inner.test {
                compared_names(test, &mut compared);
            }
            for (call, name) in sums {
                if !compared.contains(&name) {
                    self.alert(
                        MemoryCheck::LengthSum,
                        call.range,
                        format!("`{name}` may have grown past the size"),
                        Vec::new(),
                    );
                }
            }
            false
        });
    }
}

fn conjuncts<'e, 'p>(test: &'e Expr<'p>, out: &mut Vec<&'e Expr<'p>>) {
    match &test.kind {
        ExprKind::Binary { op: BinaryOp::And, left, right } => {
            conjuncts(left, out);
            conjuncts(right, out);
        }
        _ => out.push(test),
    }
}

/// The variable that a comparison limits from above.
fn limited<'p>(test: &Expr<'p>) -> Option<&'p str> {
    let ExprKind::Binary { op, left, right } = &test.kind else { return None };
    let lesser = match op {
        BinaryOp::Lt | BinaryOp::Le => left,
        BinaryOp::Gt | BinaryOp::Ge => right,
        _ => return None,
    };
    match lesser.peeled().kind {
        ExprKind::Name(name) => Some(name),
        _ => None,
    }
}

/// Where an element is read at this index.
fn indexed<'e, 'p>(expr: &'e Expr<'p>, index: &str) -> Option<&'e Expr<'p>> {
    if let ExprKind::Subscript { index: at, .. } = &expr.kind
        && matches!(at.peeled().kind, ExprKind::Name(name) if name == index)
    {
        return Some(expr);
    }
    expr.children().into_iter().find_map(|child| indexed(child, index))
}

/// Sums of what `snprintf` returns that also say where the next call writes.
fn length_sums<'e, 'p>(expr: &'e Expr<'p>, out: &mut Vec<(&'e Expr<'p>, String)>) {
    if let ExprKind::Assign { op, target, value } = &expr.kind
        && let Some(name) = target.place()
    {
        let call = match (op, &value.peeled().kind) {
            (Some(BinaryOp::Add), ExprKind::Call { .. }) => Some(value.peeled()),
            (None, ExprKind::Binary { op: BinaryOp::Add, left, right }) => [left, right]
                .into_iter()
                .map(|side| side.peeled())
                .find(|side| matches!(side.kind, ExprKind::Call { .. })),
            _ => None,
        };
        if let Some(call) = call
            && let ExprKind::Call { callee, args } = &call.kind
            && matches!(callee.kind, ExprKind::Name("snprintf" | "vsnprintf" | "swprintf"))
            && args.get(1).is_some_and(|size| reads(&size.value, &name))
            && args.get(2).is_none_or(|format| match &format.value.peeled().kind {
                ExprKind::Str(text) => text.contains("%s"),
                _ => true,
            })
        {
            out.push((call, name));
        }
    }
    for child in expr.children() {
        length_sums(child, out);
    }
}

fn reads(expr: &Expr<'_>, place: &str) -> bool {
    expr.place().as_deref() == Some(place)
        || expr.children().into_iter().any(|child| reads(child, place))
}

/// Places that an ordering comparison looks at.
fn compared_names(expr: &Expr<'_>, out: &mut Vec<String>) {
    if let ExprKind::Binary { op, left, right } = &expr.kind
        && op.is_order()
    {
        for side in [left, right] {
            places(side, out);
        }
    }
    for child in expr.children() {
        compared_names(child, out);
    }
}

fn places(expr: &Expr<'_>, out: &mut Vec<String>) {
    out.extend(expr.place());
    for child in expr.children() {
        places(child, out);
    }
}
