//! What a test says of the values in it.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    state::State,
    value::{Constant, Value},
};
use crate::{
    ir::{BinaryOp, Expr, ExprKind},
    rules::{Argument, Guard, Hit, Holds},
};

impl<'p> Flow<'p, '_> {
    /// The state where a test came out as `truth`; `None` where it cannot.
    pub(super) fn refine(
        &mut self,
        test: &'p Expr<'p>,
        truth: bool,
        mut state: State<'p>,
    ) -> Option<State<'p>> {
        if !self.report.step() {
            return Some(state);
        }
        match &test.kind {
            ExprKind::Not(inner) => return self.refine(inner, !truth, state),
            ExprKind::Through(inner) | ExprKind::Cast { value: inner, .. } => {
                return self.refine(inner, truth, state);
            }
            ExprKind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                let both = (*op == BinaryOp::And) == truth;
                if both {
                    let state = self.refine(left, truth, state)?;
                    return self.refine(right, truth, state);
                }
                let first = self.refine(left, truth, state.clone());
                let second = self
                    .refine(left, !truth, state)
                    .and_then(|state| self.refine(right, truth, state));
                return match (first, second) {
                    (Some(mut first), Some(second)) => {
                        first.join(second);
                        Some(first)
                    }
                    (first, second) => first.or(second),
                };
            }
            ExprKind::Binary { op, left, right } => {
                let op = if truth { *op } else { op.negated() };
                return self.comparison(op, left, right, state);
            }
            ExprKind::Bool(value) if *value != truth => return None,
            ExprKind::Int(number) if (*number != 0) != truth => return None,
            ExprKind::Assign { value, .. } => return self.refine(value, truth, state),
            ExprKind::Call { .. } => self.test_call(test, truth, &mut state),
            ExprKind::Name(name) => {
                let known = match state.get(name) {
                    Some(value) => value.truth(),
                    None => self.module.get(name).and_then(Value::truth),
                };
                if known.is_some_and(|known| known != truth) {
                    return None;
                }
                // Taken out, for a test may be about the variable itself: `x = not x`.
                if let Some(test) = state.take_test(name) {
                    return self.refine(test, truth, state);
                }
            }
            _ => {}
        }
        Some(state)
    }

    fn comparison(
        &mut self,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        mut state: State<'p>,
    ) -> Option<State<'p>> {
        let first = self.eval_value(left, &mut state);
        let second = self.eval_value(right, &mut state);
        if let (Some(Constant::Int(a)), Some(Constant::Int(b))) = (first.constant, second.constant)
        {
            let holds = match op {
                BinaryOp::Eq => a == b,
                BinaryOp::Ne => a != b,
                BinaryOp::Lt => a < b,
                BinaryOp::Le => a <= b,
                BinaryOp::Gt => a > b,
                BinaryOp::Ge => a >= b,
                _ => true,
            };
            if !holds && self.constants_decide(left, right) {
                return None;
            }
        }
        match op {
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Is | BinaryOp::IsNot => {
                let equal = matches!(op, BinaryOp::Eq | BinaryOp::Is);
                // Compared with zero or nothing, a call is a test.
                for (call, other) in [(left, &second), (right, &first)] {
                    let nothing = matches!(
                        other.constant,
                        Some(Constant::Null | Constant::Int(0) | Constant::Bool(false))
                    );
                    let something =
                        matches!(other.constant, Some(Constant::Bool(true) | Constant::Int(1)));
                    if nothing || something {
                        state = self.refine(call, equal == something, state)?;
                    }
                }
                if equal {
                    self.equal_calls(left, &mut state);
                    self.equal_calls(right, &mut state);
                }
                if equal && !matches!(op, BinaryOp::Is) {
                    // What equals a clean value is clean.
                    for (expr, value, other) in [(left, &first, &second), (right, &second, &first)]
                    {
                        if !value.is_tainted() || matches!(other.constant, Some(Constant::Null)) {
                            continue;
                        }
                        let bits = other
                            .atoms()
                            .iter()
                            .map(|atom| atom.clean)
                            .reduce(|a, b| a & b)
                            .unwrap_or(u128::MAX);
                        self.clean_expr(expr, bits, &mut state);
                    }
                }
                if !equal
                    && let (Some(Constant::Int(code)), Some(root)) =
                        (second.constant, element_of(left))
                    && let Some(c) = u32::try_from(code).ok().and_then(char::from_u32)
                {
                    // No element is this character.
                    let bits = self.contains_bits(&c.to_string());
                    self.clean_expr(root, bits, &mut state);
                }
            }
            BinaryOp::In => {
                if !second.is_tainted()
                    || matches!(
                        right.kind,
                        ExprKind::Tuple(_) | ExprKind::List(_) | ExprKind::Set(_)
                    )
                {
                    let bits = second
                        .atoms()
                        .iter()
                        .map(|atom| atom.clean)
                        .reduce(|a, b| a & b)
                        .unwrap_or(u128::MAX);
                    self.clean_expr(left, bits, &mut state);
                } else if first.full_text().is_none() {
                    // A list of allowed values that the caller gives is trusted as much as a constant one.
                    let container = right.place().is_some() && !is_text_like(left);
                    if container && self.snippet() {
                        self.clean_expr(left, u128::MAX, &mut state);
                    }
                }
            }
            BinaryOp::NotIn => {
                if let Some(text) = first.full_text() {
                    let bits = self.contains_bits(text);
                    self.clean_expr(right, bits, &mut state);
                } else if let Some(set) = second.full_text() {
                    // No character of the value is in this set.
                    let bits =
                        set.chars().fold(0, |bits, c| bits | self.contains_bits(&c.to_string()));
                    self.clean_expr(left, bits, &mut state);
                }
            }
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
                if self.is_typed() {
                    self.check_counter(op, left, right, &first, &second);
                    // A number that was compared has bounds.
                    for side in [left, right] {
                        self.clean_expr(side, self.index.numbers, &mut state);
                    }
                }
                // `check(x) < 0` failed, or the like.
                if let (ExprKind::Call { .. }, Some(Constant::Int(0))) =
                    (&left.kind, second.constant)
                {
                    match op {
                        BinaryOp::Lt => self.test_call(left, true, &mut state),
                        BinaryOp::Ge => self.test_call(left, false, &mut state),
                        _ => {}
                    }
                }
                if self.language == Language::Go {
                    let (side, bound) = match op {
                        BinaryOp::Gt | BinaryOp::Ge => (left, &second),
                        _ => (right, &first),
                    };
                    let strict = matches!(op, BinaryOp::Gt | BinaryOp::Lt);
                    Self::at_least(side, bound, strict, &mut state);
                }
                let below = match op {
                    BinaryOp::Lt | BinaryOp::Le => left,
                    _ => right,
                };
                self.clean_expr(below, self.index.bounded, &mut state);
                // A character within a range of characters.
                for (side, other) in [(left, &second), (right, &first)] {
                    let letter = matches!(other.constant, Some(Constant::Int(32..=127)))
                        || other.full_text().is_some_and(|text| text.chars().count() == 1);
                    if letter && let Some(root) = element_of(side) {
                        self.clean_expr(root, u128::MAX, &mut state);
                    }
                }
            }
            _ => {}
        }
        Some(state)
    }

    /// A variable that passed a test is at least the number it was compared with.
    fn at_least(side: &Expr<'p>, bound: &Value<'p>, strict: bool, state: &mut State<'p>) {
        let Some(Constant::Int(bound)) = bound.constant else { return };
        let Some(place) = side.peeled().place() else { return };
        let bound = bound.saturating_add(i64::from(strict));
        if let Some(known) = state.get(&place)
            && let Some(Constant::Int(number)) = known.constant
            && number < bound
        {
            let mut known = known.clone();
            known.constant = Some(Constant::Int(bound));
            state.set(&place, known);
        }
    }

    /// Loop counters change; only literals and module constants decide a branch for good.
    fn constants_decide(&self, left: &Expr<'p>, right: &Expr<'p>) -> bool {
        let fixed = |expr: &Expr<'p>| match &expr.kind {
            ExprKind::Int(_) | ExprKind::Bool(_) | ExprKind::Binary { .. } => true,
            ExprKind::Name(name) => {
                self.program.constants.contains_key(name) || self.module.get(name).is_some()
            }
            _ => false,
        };
        fixed(left) && fixed(right)
    }

    /// Rules for which a value without this text is clean.
    fn contains_bits(&self, text: &str) -> u128 {
        self.index
            .contains
            .iter()
            .filter(|(_, texts)| texts.iter().any(|known| known == text))
            .fold(0, |bits, (more, _)| bits | more)
    }

    fn test_call(&mut self, test: &'p Expr<'p>, truth: bool, state: &mut State<'p>) {
        let ExprKind::Call { callee, args } = &test.kind else { return };
        if let ExprKind::Name(name) | ExprKind::Attribute { name, .. } = &callee.kind
            && !matches!(*name, "all" | "any" | "bool")
            && !self.index.is_guard(name)
            && !self.by_name.contains_key(name)
            && state.get(name).is_none()
            && !self.program.imports.contains_key(name)
        {
            return;
        }
        let call = self.prepare(test, callee, args, state);
        if matches!(call.name, "all" | "any") && call.receiver.is_none() && call.args.len() == 1 {
            self.test_elements(call.args[0].1, call.name == "all", truth, state);
            return;
        }
        if call.name == "bool"
            && let Some((_, inner, _)) = call.args.first()
        {
            if let Some(refined) = self.refine(inner, truth, state.clone()) {
                *state = refined;
            }
            return;
        }
        for hit in &call.hits {
            let Hit::Guard { bits, guard, mark, gives } = hit else { continue };
            let outcome = if truth { Holds::True } else { Holds::False };
            if guard.holds.unwrap_or(Holds::True) == outcome
                && guard.mode.is_none_or(|mode| mode == self.mode)
                && guard.when.iter().all(|condition| self.holds(condition, &call))
            {
                self.clean_subjects(&call, guard, *bits, (*mark, *gives), state);
            }
        }
        let receiver = call.receiver.as_ref().and_then(|(_, value)| value.path.clone());
        if let Some((number, method)) = self.callee(callee, args.len(), receiver.as_deref())
            && let Some(summary) = self.summary(number)
        {
            let outcomes = if truth { &summary.when_true } else { &summary.when_false };
            for (param, bits) in outcomes.iter().enumerate() {
                if let Some(bits) = bits.filter(|bits| *bits != 0) {
                    Self::clean_argument(&call, param, bits, method, state);
                }
            }
        }
    }

    /// A call whose result equals what it should: `os.path.commonpath(...) == base`.
    fn equal_calls(&mut self, expr: &'p Expr<'p>, state: &mut State<'p>) {
        let ExprKind::Call { callee, args } = &expr.kind else { return };
        let call = self.prepare(expr, callee, args, state);
        for hit in &call.hits {
            if let Hit::Guard { bits, guard, mark, gives } = hit
                && guard.holds == Some(Holds::Equal)
                && guard.when.iter().all(|condition| self.holds(condition, &call))
            {
                self.clean_subjects(&call, guard, *bits, (*mark, *gives), state);
            }
        }
    }

    /// `all(good(c) for c in value)` and `any(bad in value for bad in ...)`.
    fn test_elements(
        &mut self,
        argument: &'p Expr<'p>,
        all: bool,
        truth: bool,
        state: &mut State<'p>,
    ) {
        let ExprKind::Comprehension { element, clauses, .. } = &argument.kind else { return };
        if all != truth {
            return;
        }
        let ([condition], [(target, iterable)]) = (element.as_slice(), clauses.as_slice()) else {
            return;
        };
        if let ExprKind::Tuple(items) | ExprKind::List(items) | ExprKind::Set(items) =
            &iterable.kind
        {
            // Each of some constants is tested against the value.
            for item in items {
                let mut inner = state.clone();
                let value = self.eval_value(item, &mut inner);
                self.assign(target, value, &mut inner);
                if let Some(refined) = self.refine(condition, truth, inner) {
                    *state = refined;
                }
            }
            return;
        }
        let mut inner = state.clone();
        let whole = self.eval_value(iterable, &mut inner);
        if let Some(text) = whole.full_text().map(str::to_owned) {
            for c in text.chars().take(64) {
                self.assign(target, Value::of_text(&c.to_string()), &mut inner);
                match self.refine(condition, truth, inner) {
                    Some(refined) => inner = refined,
                    None => return,
                }
            }
            *state = inner;
            return;
        }
        self.bind_element(target, iterable, &whole, &mut inner);
        if let Some(refined) = self.refine(condition, truth, inner) {
            // The element's alias took what was learnt back to the value.
            *state = refined;
        }
    }

    /// Marks what a guard is about clean.
    pub(super) fn clean_subjects(
        &mut self,
        call: &Call<'p>,
        guard: &Guard,
        bits: u128,
        (mark, gives): (u32, u32),
        state: &mut State<'p>,
    ) {
        let receiver = Argument { receiver: true, ..Argument::default() };
        let argument = guard.argument.as_ref().unwrap_or(&receiver);
        let subjects: Vec<(&'p Expr<'p>, Value<'p>)> =
            call.select(argument).into_iter().map(|(expr, value)| (expr, value.clone())).collect();
        for (expr, value) in subjects {
            if mark != 0 && value.atoms().iter().any(|atom| atom.marks & mark == 0 && !atom.leading)
            {
                continue;
            }
            if gives == 0 {
                self.clean_expr(expr, bits, state);
            } else if let Some(place) = expr.peeled().place() {
                let mut value = value;
                value.change(|atom| atom.marks |= gives);
                state.set(&place, value);
            }
        }
    }

    /// Marks every place in an expression clean.
    fn clean_expr(&mut self, expr: &'p Expr<'p>, bits: u128, state: &mut State<'p>) {
        if bits == 0 {
            return;
        }
        match &expr.kind {
            ExprKind::List(items) | ExprKind::Tuple(items) | ExprKind::Format(items) => {
                for item in items {
                    self.clean_expr(item, bits, state);
                }
            }
            ExprKind::Call { callee, args } => {
                if let ExprKind::Attribute { base, .. } = &callee.kind {
                    self.clean_expr(base, bits, state);
                }
                for arg in args {
                    self.clean_expr(&arg.value, bits, state);
                }
            }
            ExprKind::Binary { op: BinaryOp::Add | BinaryOp::Div | BinaryOp::Mod, left, right } => {
                self.clean_expr(left, bits, state);
                self.clean_expr(right, bits, state);
            }
            ExprKind::Assign { target, .. } => self.clean_expr(target, bits, state),
            ExprKind::Through(inner)
            | ExprKind::Star(inner)
            | ExprKind::Cast { value: inner, .. } => {
                self.clean_expr(inner, bits, state);
            }
            _ => {
                if let Some(root) = element_of(expr) {
                    // One element stands for all: checks run over the whole value.
                    self.clean_expr(root, bits, state);
                }
                if let Some(place) = expr.place() {
                    let current = self.eval_value(expr, state);
                    state.clean(&place, bits, current);
                }
            }
        }
    }
}

/// The whole that `x[i]` or `*x` is an element of; fields and fixed keys are things of their own.
fn element_of<'e, 'p>(expr: &'e Expr<'p>) -> Option<&'e Expr<'p>> {
    match &expr.kind {
        ExprKind::Subscript { base, index }
            if !matches!(index.kind, ExprKind::Str(_) | ExprKind::Int(_) | ExprKind::Slice(_)) =>
        {
            Some(base)
        }
        ExprKind::Deref(base) => match &base.kind {
            ExprKind::Update { target, .. } => Some(target),
            _ => Some(base),
        },
        ExprKind::Through(inner) | ExprKind::Cast { value: inner, .. } => element_of(inner),
        _ => None,
    }
}

/// `x in y` where `y` is a text, too: then nothing is said of `x`.
fn is_text_like(expr: &Expr<'_>) -> bool {
    matches!(expr.kind, ExprKind::Str(_) | ExprKind::Format(_))
}
