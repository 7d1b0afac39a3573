//! Sizes known by name alone: `malloc(size + 1)`, `end = p + size`, `index <= size`.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    Memory, any_stmt,
    eval::describe,
    number::{External, Number},
    state::{Cell, State},
    types,
};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Function, StmtKind, Type},
    rules::MemoryCheck,
};

/// A named quantity plus a constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sum {
    pub(super) term: Rc<str>,
    pub(super) plus: i64,
    /// It is just that, not only at most that.
    pub(super) exact: bool,
}

/// How far from the start of its object a pointer may point, in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reach {
    /// `None` for a constant distance.
    pub(super) term: Option<Rc<str>>,
    pub(super) plus: i64,
}

impl Sum {
    pub(super) fn shifted(&self, by: i64) -> Option<Self> {
        Some(Self { plus: self.plus.checked_add(by)?, ..self.clone() })
    }

    /// What is known of either of two: the larger, of the same quantity.
    pub(super) fn joined(ours: Option<&Self>, theirs: Option<&Self>) -> Option<Self> {
        let (ours, theirs) = (ours?, theirs?);
        (ours.term == theirs.term).then(|| Self {
            term: Rc::clone(&ours.term),
            plus: ours.plus.max(theirs.plus),
            exact: ours.exact && theirs.exact && ours.plus == theirs.plus,
        })
    }
}

impl Reach {
    pub(super) const START: Self = Self { term: None, plus: 0 };

    pub(super) fn shifted(&self, by: i64) -> Option<Self> {
        Some(Self { term: self.term.clone(), plus: self.plus.checked_add(by)? })
    }

    pub(super) fn joined(ours: Option<&Self>, theirs: Option<&Self>) -> Option<Self> {
        let (ours, theirs) = (ours?, theirs?);
        (ours.term == theirs.term)
            .then(|| Self { term: ours.term.clone(), plus: ours.plus.max(theirs.plus) })
    }
}

/// How often each place of a function is given a value; an address that is taken counts as changes. A text whose
/// length is asked has an entry `strlen(text)`.
pub(super) fn count_changes(function: &Function<'_>) -> BTreeMap<String, usize> {
    let mut changes = BTreeMap::new();
    any_stmt(&function.body, &mut |stmt| {
        if let StmtKind::Declare { name, init: Some(_), .. } = &stmt.kind {
            *changes.entry((*name).to_owned()).or_default() += 1;
        }
        for expr in stmt.exprs() {
            count_in(expr, &mut changes);
        }
        false
    });
    for param in &function.params {
        // Its first value is the caller's.
        if let Some(count) = changes.get_mut(param.name) {
            *count += 1;
        }
    }
    changes
}

fn count_in(expr: &Expr<'_>, changes: &mut BTreeMap<String, usize>) {
    let (target, times) = match &expr.kind {
        ExprKind::Assign { op: None, target, .. } => (Some(target), 1),
        ExprKind::Assign { target, .. }
        | ExprKind::Update { target, .. }
        | ExprKind::AddressOf(target) => (Some(target), 2),
        _ => (None, 0),
    };
    if let Some(place) = target.and_then(|target| target.place()) {
        *changes.entry(place).or_default() += times;
    }
    // Texts whose length is asked are kept beside.
    if let ExprKind::Call { callee, args } = &expr.kind
        && let ExprKind::Name("strlen" | "strnlen" | "wcslen") = callee.kind
        && let Some(place) = args.first().and_then(|arg| arg.value.peeled().place())
    {
        *changes.entry(format!("strlen({place})")).or_default() += 1;
    }
    for child in expr.children() {
        count_in(child, changes);
    }
}

impl<'p> Memory<'p, '_> {
    /// An expression as sums of a quantity that never changes and a constant.
    pub(super) fn sums(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Vec<Sum> {
        let expr = expr.peeled();
        match &expr.kind {
            ExprKind::Name(_) | ExprKind::Attribute { .. } => {
                let Some(place) = expr.place() else { return Vec::new() };
                let cell = state.get(&place);
                // What is known as a number needs no name.
                if cell.is_some_and(|cell| cell.number.constant().is_some()) {
                    return Vec::new();
                }
                let bound = cell.and_then(|cell| cell.number.bound.clone());
                let text = cell.and_then(|cell| cell.length_of.as_deref());
                let mut all = Vec::new();
                if let Some(text) = text {
                    all.push(Sum { term: format!("strlen({text})").into(), plus: 0, exact: true });
                }
                if self.changes.get(&place).is_none_or(|count| *count <= 1) {
                    all.push(Sum { term: place.into(), plus: 0, exact: true });
                }
                all.extend(bound);
                all
            }
            ExprKind::Binary { op: op @ (BinaryOp::Add | BinaryOp::Sub), left, right } => {
                let (of, by) = if let Some(by) = self.step(right, state) {
                    (left, if *op == BinaryOp::Sub { -by } else { by })
                } else if let (BinaryOp::Add, Some(by)) = (op, self.step(left, state)) {
                    (right, by)
                } else {
                    return Vec::new();
                };
                self.sums(of, state).iter().filter_map(|sum| sum.shifted(by)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The quantity a value is just as large as.
    pub(super) fn same_as(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Option<Sum> {
        self.sums(expr, state).into_iter().rev().find(|sum| sum.exact)
    }

    /// A number that takes over another is known by that one's name.
    pub(super) fn note_same(
        &mut self,
        value: &'p Expr<'p>,
        ty: &Type<'p>,
        cell: &mut Cell,
        state: &mut State,
    ) {
        if ty.is_integer() && cell.number.bound.is_none() && cell.number.constant().is_none() {
            cell.number.bound = self.same_as(value, state);
        }
    }

    fn step(&mut self, expr: &'p Expr<'p>, state: &mut State) -> Option<i64> {
        match expr.peeled().kind {
            ExprKind::Int(by) => Some(by),
            ExprKind::Name(_) | ExprKind::SizeofType(_) | ExprKind::SizeofValue(_) => {
                self.quiet(expr, state).constant()
            }
            _ => None,
        }
        .filter(|by| by.abs() < 1 << 40)
    }

    /// The size of an allocation in elements, and the bytes of one: `n * sizeof(int)`, `n`.
    pub(super) fn sized(
        &mut self,
        size: &'p Expr<'p>,
        state: &mut State,
    ) -> (Vec<Sum>, Option<i64>) {
        if let ExprKind::Binary { op: BinaryOp::Mul, left, right } = &size.peeled().kind {
            for (of, unit) in [(left, right), (right, left)] {
                if matches!(
                    unit.peeled().kind,
                    ExprKind::SizeofType(_) | ExprKind::SizeofValue(_) | ExprKind::Int(_)
                ) {
                    let unit = self.quiet(unit, state).constant();
                    return (self.sums(of, state), unit);
                }
            }
        }
        (self.sums(size, state), Some(1))
    }

    /// Where a pointer points after `p + expr` or `p - expr`.
    pub(super) fn moved(
        &mut self,
        pointer: &Cell,
        by: &'p Expr<'p>,
        op: BinaryOp,
        state: &mut State,
    ) -> Option<Reach> {
        let reach = pointer.reach.as_ref()?;
        if let Some(step) = self.step(by, state) {
            return reach.shifted(if op == BinaryOp::Sub { -step } else { step });
        }
        if reach.term.is_some() || op != BinaryOp::Add {
            return None;
        }
        let sums = self.sums(by, state);
        let sizes = state.object(pointer.object).map(|object| &object.sizes);
        let fits =
            |sum: &&Sum| sizes.is_some_and(|sizes| sizes.iter().any(|size| size.term == sum.term));
        let sum = sums.iter().find(fits).or(sums.first())?;
        Reach { term: Some(Rc::clone(&sum.term)), plus: reach.plus }.shifted(sum.plus)
    }

    /// An element so far from the start of an object is used.
    pub(super) fn check_reach(
        &mut self,
        access: &'p Expr<'p>,
        base: &'p Expr<'p>,
        object: Option<u32>,
        reach: Option<&Reach>,
        is_write: bool,
        state: &State,
    ) -> bool {
        let Some(Reach { term: Some(term), plus }) = reach else { return false };
        let Some(object) = state.object(object) else { return false };
        let past = object.sizes.iter().any(|size| size.term == *term && *plus >= size.plus);
        let stride = self.ty(base).and_then(|ty| types::stride_of(&ty, self.program));
        if !past || object.unit.is_none() || stride != object.unit {
            return false;
        }
        self.past_end(access, base, is_write);
        true
    }

    pub(super) fn past_end(&mut self, access: &'p Expr<'p>, base: &'p Expr<'p>, is_write: bool) {
        let check =
            if is_write { MemoryCheck::OutOfBoundsWrite } else { MemoryCheck::OutOfBoundsRead };
        let what = describe(base);
        self.alert(
            check,
            access.range,
            format!("the index may be just past the end of `{what}`"),
            Vec::new(),
        );
    }

    /// `base[index]` with both ends known by name alone: whether that settles it.
    pub(super) fn check_named_index(
        &mut self,
        access: &'p Expr<'p>,
        base: &'p Expr<'p>,
        pointer: &Cell,
        (index, at): (&'p Expr<'p>, &Number),
        is_write: bool,
        state: &mut State,
    ) -> bool {
        if pointer.reach.as_ref().is_some_and(|reach| reach.term.is_some()) {
            let reach = self.moved(pointer, index, BinaryOp::Add, state);
            return self.check_reach(access, base, pointer.object, reach.as_ref(), is_write, state);
        }
        let sums = self.sums(index, state);
        if sums.is_empty() {
            return false;
        }
        // Up to its end mark a text can be read.
        let length = base.peeled().place().map(|place| format!("strlen({place})"));
        if let Some(sum) = sums.iter().find(|sum| Some(&*sum.term) == length.as_deref())
            && sum.plus <= 0
            && at.low >= 0
        {
            return true;
        }
        let ty = self.ty(base);
        // `char text[SIZE]` with a constant that is defined elsewhere.
        if let Some(ty) = ty.as_ref().filter(|ty| ty.dimensions.first() == Some(&None)) {
            let Some(size) = ty.dimension_text.as_deref().filter(|text| !text.is_empty()) else {
                return false;
            };
            if ty.dimensions.len() > 1 {
                return false;
            }
            let past = sums.iter().any(|sum| &*sum.term == size && sum.plus >= 0);
            if past {
                self.past_end(access, base, is_write);
            }
            return past;
        }
        let Some(Reach { term: None, plus }) = pointer.reach else { return false };
        let Some(object) = state.object(pointer.object).filter(|object| object.unit.is_some())
        else {
            return false;
        };
        let stride = ty.and_then(|ty| types::stride_of(&ty, self.program));
        let pairs: Vec<(i64, i64)> = object
            .sizes
            .iter()
            .flat_map(|size| sums.iter().map(move |sum| (size, sum)))
            .filter(|(size, sum)| size.term == sum.term)
            .map(|(size, sum)| (sum.plus.saturating_add(plus), size.plus))
            .collect();
        // Where the elements differ in size, nothing is known.
        if pairs.is_empty() || stride != object.unit {
            return false;
        }
        if pairs.iter().any(|(index, size)| index < size) {
            return at.low >= 0 || at.external == External::No;
        }
        self.past_end(access, base, is_write);
        true
    }

    /// `p < end` holds: what it says of where `p` points.
    pub(super) fn compare_reach(
        &mut self,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State,
    ) {
        let back = match op {
            BinaryOp::Lt | BinaryOp::Ne => 1,
            BinaryOp::Le | BinaryOp::Eq => 0,
            _ => return,
        };
        if !state.has_named_sizes() {
            return;
        }
        if !self.ty(right).is_some_and(|ty| ty.is_pointer()) {
            return;
        }
        let mut scratch = state.clone();
        let limit = self.quiet_cell(right, &mut scratch);
        let Some(reach @ Reach { term: Some(term), .. }) = &limit.reach else { return };
        let left = left.peeled();
        let (pointer, by) = match &left.kind {
            ExprKind::Binary { op: op @ (BinaryOp::Add | BinaryOp::Sub), left, right } => {
                (left.peeled(), Some((*op, right)))
            }
            _ => (left, None),
        };
        let Some(place) = pointer.place() else { return };
        let Some(cell) = state.get(&place).filter(|cell| cell.object == limit.object) else {
            return;
        };
        let (known, object) = (cell.reach.clone(), cell.object);
        if object.is_none() {
            return;
        }
        let step = match by {
            None => Some(0),
            Some((op, by)) => {
                self.step(by, &mut scratch).map(|by| if op == BinaryOp::Add { by } else { -by })
            }
        };
        if let Some(step) = step {
            let Some(new) = reach.shifted(-back - step) else { return };
            let tighter = known
                .as_ref()
                .is_some_and(|known| known.term == new.term && known.plus <= new.plus);
            if !tighter {
                state.cell(&place).reach = Some(new);
            }
        } else if let (Some((BinaryOp::Add, index)), Some(Reach { term: None, plus })) = (by, known)
            && let Some(index) = index.peeled().place()
        {
            let plus = reach.plus.saturating_sub(back).saturating_sub(plus);
            state.cell(&index).number.bound =
                Some(Sum { term: Rc::clone(term), plus, exact: false });
        }
    }

    /// `index < size` holds: the index is bounded by a quantity with a name.
    pub(super) fn compare_named(
        &mut self,
        op: BinaryOp,
        known: Option<&Sum>,
        limit: &'p Expr<'p>,
        shift: i64,
        state: &mut State,
    ) -> Option<Sum> {
        let back = match op {
            BinaryOp::Lt => 1,
            BinaryOp::Le | BinaryOp::Eq => 0,
            _ => return known.cloned(),
        };
        let sums = self.sums(limit, state);
        let mut best = known.cloned();
        for sum in sums {
            let Some(sum) = sum.shifted(-back - shift) else { continue };
            match &best {
                Some(known) if known.term != sum.term || known.plus <= sum.plus => {}
                _ => best = Some(Sum { exact: false, ..sum }),
            }
        }
        best
    }
}
