//! What a test says of numbers and pointers.

use super::{
    Memory,
    eval::is_macro_name,
    number::{LOWEST, Number},
    state::{Cell, Null, State},
};
use crate::ir::{BinaryOp, Expr, ExprKind};

impl<'p> Memory<'p, '_> {
    pub(super) fn refine(
        &mut self,
        test: &'p Expr<'p>,
        truth: bool,
        mut state: State,
    ) -> Option<State> {
        if !self.report.step() {
            return Some(state);
        }
        match &test.kind {
            ExprKind::Not(inner) => self.refine(inner, !truth, state),
            ExprKind::Through(inner) | ExprKind::Cast { value: inner, .. } => {
                self.refine(inner, truth, state)
            }
            ExprKind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                if (*op == BinaryOp::And) == truth {
                    let state = self.refine(left, truth, state)?;
                    return self.refine(right, truth, state);
                }
                let first = self.refine(left, truth, state.clone());
                let second = self
                    .refine(left, !truth, state)
                    .and_then(|state| self.refine(right, truth, state));
                match (first, second) {
                    (Some(mut first), Some(second)) => {
                        first.join(second);
                        Some(first)
                    }
                    (first, second) => first.or(second),
                }
            }
            ExprKind::Binary { op, left, right } => {
                let op = if truth { *op } else { op.negated() };
                if matches!(op, BinaryOp::Eq | BinaryOp::Ne) {
                    for (side, other) in [(left, right), (right, left)] {
                        if matches!(other.peeled().kind, ExprKind::Null | ExprKind::Int(0))
                            && (matches!(other.peeled().kind, ExprKind::Null)
                                || self.ty(side).is_none_or(|ty| ty.is_pointer()))
                        {
                            return self.nullness(side, op == BinaryOp::Eq, state);
                        }
                    }
                }
                self.compare_reach(op, left, right, &mut state);
                self.compare_reach(op.mirrored(), right, left, &mut state);
                self.compare(op, left, right, &mut state)?;
                self.compare(op.mirrored(), right, left, &mut state)?;
                Some(state)
            }
            ExprKind::Bool(value) => (*value == truth).then_some(state),
            ExprKind::Int(value) => ((*value != 0) == truth).then_some(state),
            ExprKind::Null => (!truth).then_some(state),
            ExprKind::Assign { op: None, target, .. } => self.nullness(target, !truth, state),
            ExprKind::Call { callee, args } => {
                // `__builtin_expect(x, 1)`, `likely(x)`.
                if let (
                    ExprKind::Name(
                        "__builtin_expect" | "likely" | "unlikely" | "G_LIKELY" | "G_UNLIKELY",
                    ),
                    Some(arg),
                ) = (&callee.kind, args.first())
                {
                    return self.refine(&arg.value, truth, state);
                }
                // Whatever is asked of a pointer may tell whether there is one, as `IS_ERR(p)` does.
                for arg in args {
                    if let Some(place) = arg.value.peeled().place()
                        && state.get(&place).is_some_and(|cell| cell.null == Null::Maybe)
                    {
                        state.cell(&place).null = Null::Unknown;
                    }
                }
                Some(state)
            }
            _ => {
                if let ExprKind::Subscript { base, index } = &test.kind {
                    Self::inside_text(base, index, truth, &mut state);
                }
                if let Some(place) = test.place()
                    && let Some(cell) = state.get(&place)
                    && !self.ty(test).is_some_and(|ty| ty.is_pointer())
                {
                    if let Some(value) = cell.number.constant() {
                        if (value != 0) != truth && self.locals.contains(place.as_str()) {
                            return None;
                        }
                    } else if !truth {
                        let number = cell.number.compared(BinaryOp::Eq, &Number::exactly(0));
                        if let Some(number) = number {
                            state.cell(&place).number = number;
                        }
                    } else if cell.number.low == 0 {
                        state.cell(&place).number.low = 1;
                    }
                }
                self.nullness(test, !truth, state)
            }
        }
    }

    /// While a text goes on at `index`, the index is below its length.
    fn inside_text(base: &'p Expr<'p>, index: &'p Expr<'p>, truth: bool, state: &mut State) {
        let (Some(text), Some(place)) = (base.place(), index.peeled().place()) else { return };
        if !truth {
            return;
        }
        let length = state.get(&format!("strlen({text})")).map(|cell| cell.number.clone());
        if let Some(length) = length
            && let Some(number) = state.cell(&place).number.clone().compared(BinaryOp::Lt, &length)
        {
            let level = length.level.map(|level| level + 1).max(state.cell(&place).number.level);
            state.cell(&place).number = Number { level, ..number };
        }
    }

    fn nullness(&mut self, expr: &'p Expr<'p>, is_null: bool, mut state: State) -> Option<State> {
        let target = match &expr.peeled().kind {
            ExprKind::Assign { target, .. } => target.peeled(),
            _ => expr.peeled(),
        };
        let Some(place) = target.place() else { return Some(state) };
        if self.ty(target).is_some_and(|ty| !ty.is_pointer() && ty.is_integer()) {
            return Some(state);
        }
        let known = state.get(&place).map_or(Null::Unknown, |cell| cell.null);
        if known == Null::No {
            self.check_late_null(target, &place, &state);
        }
        match (known, is_null) {
            (Null::No, true) | (Null::Yes, false) => return None,
            _ => {}
        }
        let cell = state.cell(&place);
        cell.null = if is_null { Null::Yes } else { Null::No };
        if is_null {
            cell.null_at = expr.range;
        }
        Some(state)
    }

    /// `left op right` holds: what it says of the left side. Constants added to it move to the other side.
    fn compare(
        &mut self,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State,
    ) -> Option<()> {
        if matches!(op, BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq)
            && let (Some(greater), Some(lesser)) = (left.peeled().place(), right.peeled().place())
        {
            state.order(&greater, &lesser);
        }
        let narrows = matches!(
            left.peeled().kind,
            ExprKind::Call { .. }
                | ExprKind::Binary { .. }
                | ExprKind::Assign { .. }
                | ExprKind::Update { .. }
        );
        // There is nothing on the left to say more of.
        if !narrows && left.peeled().place().is_none() {
            return Some(());
        }
        let mut scratch = state.clone();
        let mut limit = self.quiet(right, &mut scratch);
        let mut subject = left.peeled();
        let mut shift = 0;
        while let ExprKind::Binary {
            op: sign @ (BinaryOp::Add | BinaryOp::Sub),
            left: a,
            right: b,
        } = &subject.kind
        {
            let step = |number: &Number| number.constant();
            let (first, second) = (self.quiet(a, &mut scratch), self.quiet(b, &mut scratch));
            let (inner, by) = match (sign, step(&first), step(&second)) {
                (BinaryOp::Add, _, Some(by)) => (a, by),
                (BinaryOp::Add, Some(by), _) => (b, by),
                (_, _, Some(by)) => (a, -by),
                _ => break,
            };
            shift += by;
            subject = inner.peeled();
        }
        if shift != 0 {
            limit = Number::combine(BinaryOp::Sub, &limit, &Number::exactly(shift));
        }
        let key = match &subject.kind {
            ExprKind::Call { callee, args } => match (&callee.kind, args.as_slice()) {
                (ExprKind::Name("abs" | "labs" | "llabs" | "imaxabs"), [arg]) => {
                    arg.value.peeled().place()
                }
                (ExprKind::Name("strlen"), [arg]) => {
                    arg.value.peeled().place().map(|place| format!("strlen({place})"))
                }
                _ => None,
            },
            ExprKind::Assign { target, .. } | ExprKind::Update { target, .. } => target.place(),
            _ => subject.place(),
        };
        let Some(key) = key else { return Some(()) };
        let current = match state.get(&key) {
            Some(cell) => cell.number.clone(),
            None => self.quiet(subject, &mut scratch),
        };
        // `MOST` and the like are defined elsewhere: the largest value that is allowed, if they are compared with `<=`.
        let is_constant_elsewhere = matches!(right.peeled().kind, ExprKind::Name(name)
            if is_macro_name(name) && limit.constant().is_none());
        let op = if op == BinaryOp::Le && is_constant_elsewhere { BinaryOp::Lt } else { op };
        match current.compared(op, &limit) {
            Some(mut number) => {
                number.bound =
                    self.compare_named(op, current.bound.as_ref(), right, shift, &mut scratch);
                // The length a variable was taken from is bounded with it.
                let length_of = state.get(&key).and_then(|cell| cell.length_of.clone());
                if let Some(text) = length_of {
                    let length = state.cell(&format!("strlen({text})"));
                    length.number.level = number.level.or(length.number.level);
                    length.number.high = length.number.high.min(number.high);
                    length.number.low = length.number.low.max(0);
                }
                state.cell(&key).number = number;
                Some(())
            }
            None if current.low == LOWEST && limit.low == LOWEST => Some(()),
            None => None,
        }
    }

    /// A number without alerts: the place is evaluated elsewhere.
    pub(super) fn quiet(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Number {
        self.quiet_cell(expr, state).number
    }

    pub(super) fn quiet_cell(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Cell {
        let before = self.report.alerts.len();
        let cell = self.value(expr, state);
        self.report.alerts.truncate(before);
        cell
    }
}
