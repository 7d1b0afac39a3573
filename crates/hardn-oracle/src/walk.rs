//! Runs an abstract domain over a function: statements in order, branches joined, loops twice, gotos forward.

use std::collections::BTreeMap;

use crate::ir::{Case, Expr, Loop, Range, Stmt, StmtKind, Type};

/// Loops within loops that are run twice; deeper ones run once.
const FULL_NESTING: u32 = 3;

/// What an analysis does at each kind of step. Evaluation comes before refinement: `eval` has a test's effects,
/// `assume` only narrows the state.
pub(crate) trait Domain<'p> {
    /// What is known at one point of the program.
    type State: Clone;

    /// A loop's body is taken to run at least once, so that checks and effects inside it hold after it.
    const LOOP_RUNS_ONCE: bool;

    fn join(&mut self, into: &mut Self::State, other: Self::State);
    /// Gives up what changes from round to round: `into` is the loop's head, `entry` what it was before the loop.
    fn widen(&mut self, _entry: &Self::State, _into: &mut Self::State) {}
    fn eval(&mut self, expr: &'p Expr<'p>, state: &mut Self::State);
    /// `None` where the test cannot come out this way.
    fn assume(
        &mut self,
        test: &'p Expr<'p>,
        truth: bool,
        state: Self::State,
    ) -> Option<Self::State>;
    fn declare(
        &mut self,
        name: &'p str,
        ty: &'p Type<'p>,
        init: Option<&'p Expr<'p>>,
        range: Range,
        state: &mut Self::State,
    );
    fn bind(&mut self, target: &'p Expr<'p>, iterable: &'p Expr<'p>, state: &mut Self::State);
    fn enter(&mut self, item: &'p Expr<'p>, target: Option<&'p Expr<'p>>, state: &mut Self::State);
    fn returns(&mut self, value: Option<&'p Expr<'p>>, range: Range, state: &mut Self::State);
    fn raises(&mut self, value: Option<&'p Expr<'p>>, state: &mut Self::State);
    fn delete(&mut self, target: &'p Expr<'p>, state: &mut Self::State);
    /// The value of a `switch` is one of `values`; empty for the default case.
    fn selects(
        &mut self,
        value: &'p Expr<'p>,
        values: &'p [Expr<'p>],
        state: Self::State,
    ) -> Option<Self::State>;
    /// Whether a `switch` takes one of these cases, where that is certain.
    fn takes(
        &mut self,
        _value: &'p Expr<'p>,
        _values: &'p [Expr<'p>],
        _state: &Self::State,
    ) -> Option<bool> {
        None
    }
    /// Control does not come back from evaluating this.
    fn ends(&mut self, expr: &'p Expr<'p>) -> bool;
}

/// Runs `body` from `state`; the result is the state at its end, `None` where control never gets there.
pub(crate) fn run<'p, D: Domain<'p>>(
    domain: &mut D,
    body: &'p [Stmt<'p>],
    state: D::State,
) -> Option<D::State> {
    let mut walker = Walker { domain, jumps: Vec::new(), nesting: 0, labels: BTreeMap::new() };
    walker.block(body, Some(state))
}

/// Where `break` and `continue` go.
struct Jumps<S> {
    breaks: Option<S>,
    continues: Option<S>,
    is_loop: bool,
}

struct Walker<'w, 'p, D: Domain<'p>> {
    domain: &'w mut D,
    jumps: Vec<Jumps<D::State>>,
    /// Loops around the current statement.
    nesting: u32,
    labels: BTreeMap<&'p str, D::State>,
}

impl<'p, D: Domain<'p>> Walker<'_, 'p, D> {
    fn block(&mut self, body: &'p [Stmt<'p>], mut state: Option<D::State>) -> Option<D::State> {
        for stmt in body {
            if let StmtKind::Label(name) = stmt.kind {
                let pending = self.labels.remove(name);
                state = self.merge(state, pending);
            } else if let Some(reached) = state {
                state = self.stmt(stmt, reached);
            } else if has_label(stmt) {
                // Reached by a goto alone.
                state = self.unreached(stmt);
            }
        }
        state
    }

    /// A block that control only enters at a label inside it.
    fn unreached(&mut self, stmt: &'p Stmt<'p>) -> Option<D::State> {
        match &stmt.kind {
            StmtKind::Block(body) => self.block(body, None),
            StmtKind::If { then, otherwise, .. } => {
                let then = self.block(then, None);
                let otherwise = self.block(otherwise, None);
                self.merge(then, otherwise)
            }
            StmtKind::Loop(inner) => self.block(&inner.body, None),
            _ => None,
        }
    }

    fn merge(&mut self, left: Option<D::State>, right: Option<D::State>) -> Option<D::State> {
        match (left, right) {
            (Some(mut left), Some(right)) => {
                self.domain.join(&mut left, right);
                Some(left)
            }
            (left, right) => left.or(right),
        }
    }

    fn stmt(&mut self, stmt: &'p Stmt<'p>, mut state: D::State) -> Option<D::State> {
        match &stmt.kind {
            StmtKind::Expr(expr) => {
                self.domain.eval(expr, &mut state);
                if self.domain.ends(expr) { None } else { Some(state) }
            }
            StmtKind::Declare { name, ty, init } => {
                self.domain.declare(name, ty, init.as_ref(), stmt.range, &mut state);
                Some(state)
            }
            StmtKind::Return(value) => {
                self.domain.returns(value.as_ref(), stmt.range, &mut state);
                None
            }
            StmtKind::Raise(value) => {
                self.domain.raises(value.as_ref(), &mut state);
                None
            }
            StmtKind::Assert(test) => {
                self.domain.eval(test, &mut state);
                self.domain.assume(test, true, state)
            }
            StmtKind::Delete(targets) => {
                for target in targets {
                    self.domain.delete(target, &mut state);
                }
                Some(state)
            }
            StmtKind::If { test, then, otherwise } => {
                self.domain.eval(test, &mut state);
                let yes = self.domain.assume(test, true, state.clone());
                let no = self.domain.assume(test, false, state);
                let yes = self.block(then, yes);
                let no = self.block(otherwise, no);
                self.merge(yes, no)
            }
            StmtKind::Loop(inner) => self.repeat(inner, state),
            StmtKind::Switch { value, cases } => self.switch(value, cases, state),
            StmtKind::Try { body, handlers, otherwise, finally } => {
                let entry = state.clone();
                // What raises may stand behind any statement, the last one too.
                let mut thrown = Some(entry.clone());
                let mut end = Some(state);
                for at in 0..body.len() {
                    end = self.block(&body[at..=at], end);
                    thrown = self.merge(thrown, end.clone());
                }
                let mut result = self.block(otherwise, end);
                for handler in handlers {
                    let handled = self.block(handler, thrown.clone());
                    result = self.merge(result, handled);
                }
                if result.is_none() {
                    self.block(finally, Some(entry));
                    return None;
                }
                self.block(finally, result)
            }
            StmtKind::With { items, body } => {
                for (item, target) in items {
                    self.domain.enter(item, target.as_ref(), &mut state);
                }
                self.block(body, Some(state))
            }
            StmtKind::Block(body) => self.block(body, Some(state)),
            StmtKind::Goto(label) => {
                let pending = self.labels.remove(label);
                if let Some(merged) = self.merge(pending, Some(state)) {
                    self.labels.insert(label, merged);
                }
                None
            }
            StmtKind::Label(_) => Some(state),
            StmtKind::Break => {
                self.jump(state, true);
                None
            }
            StmtKind::Continue => {
                self.jump(state, false);
                None
            }
        }
    }

    fn jump(&mut self, state: D::State, is_break: bool) {
        let Some(at) = self.jumps.iter().rposition(|jumps| is_break || jumps.is_loop) else {
            return;
        };
        let slot =
            if is_break { self.jumps[at].breaks.take() } else { self.jumps[at].continues.take() };
        let merged = self.merge(slot, Some(state));
        let jumps = &mut self.jumps[at];
        if is_break {
            jumps.breaks = merged;
        } else {
            jumps.continues = merged;
        }
    }

    fn repeat(&mut self, inner: &'p Loop<'p>, state: D::State) -> Option<D::State> {
        let entry = self.block(&inner.init, Some(state))?;
        self.jumps.push(Jumps { breaks: None, continues: None, is_loop: true });
        let mut head = entry.clone();
        let mut end = None;
        // Each level of nesting doubles the work, so the inner ones get one round.
        let rounds = if self.nesting < FULL_NESTING { 2 } else { 1 };
        self.nesting += 1;
        for round in 0..rounds {
            end = self.round(inner, head.clone(), round == 0 && inner.body_first);
            if let Some(after) = end.clone() {
                self.domain.join(&mut head, after);
            }
            if round + 1 < rounds {
                self.domain.widen(&entry, &mut head);
            }
        }
        self.nesting -= 1;
        let runs_once = D::LOOP_RUNS_ONCE || inner.body_first;
        let last = match end {
            Some(end) if runs_once => end,
            // What the last round leaves is tighter than the widened head.
            Some(end) => {
                let mut last = entry;
                self.domain.join(&mut last, end);
                last
            }
            None if inner.body_first => {
                let jumps = self.jumps.pop();
                return jumps.and_then(|jumps| jumps.breaks);
            }
            None => entry,
        };
        let exit = match &inner.test {
            Some(test) => {
                let mut last = last;
                self.domain.eval(test, &mut last);
                self.domain.assume(test, false, last)
            }
            None if inner.bind.is_some() => Some(last),
            None => None,
        };
        let breaks = self.jumps.pop().and_then(|jumps| jumps.breaks);
        let exit = self.block(&inner.otherwise, exit);
        self.merge(exit, breaks)
    }

    fn round(
        &mut self,
        inner: &'p Loop<'p>,
        mut state: D::State,
        skip_test: bool,
    ) -> Option<D::State> {
        if let Some((target, iterable)) = &inner.bind {
            self.domain.bind(target, iterable, &mut state);
        }
        let entered = match &inner.test {
            Some(test) if !skip_test => {
                self.domain.eval(test, &mut state);
                self.domain.assume(test, true, state)
            }
            _ => Some(state),
        };
        let end = self.block(&inner.body, entered);
        let continued = self.jumps.last_mut().and_then(|jumps| jumps.continues.take());
        let mut end = self.merge(end, continued);
        if let (Some(step), Some(end)) = (&inner.step, &mut end) {
            self.domain.eval(step, end);
        }
        end
    }

    fn switch(
        &mut self,
        value: &'p Expr<'p>,
        cases: &'p [Case<'p>],
        mut state: D::State,
    ) -> Option<D::State> {
        self.domain.eval(value, &mut state);
        let collects = cases.iter().any(|case| case.falls_through);
        if collects {
            self.jumps.push(Jumps { breaks: None, continues: None, is_loop: false });
        }
        let mut ends = None;
        let mut falling = None;
        let (mut has_default, mut certain) = (false, false);
        for case in cases {
            let is_default = case.values.is_empty();
            let taken =
                if is_default { None } else { self.domain.takes(value, &case.values, &state) };
            // Beside a case that is certain, nothing else is selected.
            let selected = if certain || taken == Some(false) {
                None
            } else {
                self.domain.selects(value, &case.values, state.clone())
            };
            certain |= taken == Some(true);
            has_default |= is_default || taken == Some(true);
            let start = self.merge(selected, falling.take());
            let end = self.block(&case.body, start);
            if case.falls_through {
                falling = end;
            } else {
                ends = self.merge(ends, end);
            }
        }
        ends = self.merge(ends, falling);
        if collects {
            let breaks = self.jumps.pop().and_then(|jumps| jumps.breaks);
            ends = self.merge(ends, breaks);
        }
        if has_default { ends } else { self.merge(ends, Some(state)) }
    }
}

fn has_label(stmt: &Stmt<'_>) -> bool {
    matches!(stmt.kind, StmtKind::Label(_))
        || stmt.blocks().into_iter().any(|block| block.iter().any(has_label))
}
