//! Checks at each use of memory: null, freed, out of bounds.

use super::{
    Memory,
    bound::Reach,
    eval::{collect_places, describe},
    number::{External, HIGHEST, LOWEST, Number},
    state::{Cell, Freed, Null, State},
    types,
};
use crate::{
    engine::Mode,
    ir::{Expr, ExprKind, Range},
    rules::MemoryCheck,
};

impl<'p> Memory<'p, '_> {
    /// A pointer is followed.
    pub(super) fn dereference(&mut self, expr: &'p Expr<'p>, cell: &Cell, state: &mut State) {
        // Arrays are no pointers.
        if self.ty(expr).is_some_and(|ty| !ty.dimensions.is_empty()) {
            return;
        }
        self.use_pointer(expr, cell, true, state);
        if matches!(cell.null, Null::Maybe | Null::Yes) && !is_literal(expr) {
            let what = describe(expr);
            self.alert(
                MemoryCheck::NullDereference,
                expr.range,
                format!("`{what}` may be null here"),
                vec![(cell.null_at, "may be null".to_owned())],
            );
        }
        if let Some(place) = expr.peeled().place()
            && let Some(null) = state.get(&place).map(|cell| cell.null)
        {
            let cell = state.cell(&place);
            cell.null = Null::No;
            if null == Null::Unknown {
                cell.used_at = Some(expr.range);
            }
        }
    }

    /// A pointer's value is used: it must not have been freed. Where that is told by a function's name alone, only
    /// following the pointer counts.
    pub(super) fn use_pointer(
        &mut self,
        expr: &'p Expr<'p>,
        cell: &Cell,
        follows: bool,
        state: &State,
    ) {
        let Some(object) = state.object(cell.object) else { return };
        if object.freed == Freed::No
            || cell.null == Null::Yes
            || object.ended_by.is_some() && !follows
        {
            return;
        }
        let at = object.freed_at;
        let what = describe(expr);
        self.alert(
            MemoryCheck::UseAfterFree,
            expr.range,
            format!("`{what}` was freed"),
            vec![(at, "is freed here".to_owned())],
        );
    }

    /// An element of an array is read or written.
    pub(super) fn check_index(
        &mut self,
        access: &'p Expr<'p>,
        base: &'p Expr<'p>,
        pointer: &Cell,
        index: &Cell,
        is_write: bool,
        state: &mut State,
    ) {
        // CodeQL looks at the elements of arrays in arrays no closer.
        if self.mode == Mode::Faithful && is_nested(base) {
            return;
        }
        let at = &index.number;
        let ty = self.ty(base);
        let length = self.elements(base, state);
        let place = base.peeled().place();
        // A signed number: an unsigned one may have wrapped around.
        let inside = place.is_some() && index.within == place && self.is_signed_index(access);
        let object = base.peeled().place().and_then(|place| state.get(&place)?.object);
        let size_text = state.object(object).and_then(|object| object.size_text.as_deref());
        let allocated = size_text.is_some();
        // Allocated for as much as the index says, and more.
        let made_for = match (&access.kind, size_text) {
            (ExprKind::Subscript { index, .. }, Some(text)) => {
                let mut places = Vec::new();
                collect_places(index, &mut places);
                !places.is_empty() && places.iter().all(|place| has_name(text, place))
            }
            _ => false,
        };
        let fixed_here =
            base.root().is_some_and(|root| !self.params.contains(root)) && length.is_some();
        let outside = at.external == External::Yes;
        let above = match length {
            Some(length) if at.low >= length => true,
            Some(length) if at.high != HIGHEST => {
                at.high >= length && (at.level.is_none() || at.loose_limit && fixed_here)
            }
            Some(_) => match at.level {
                Some(level) => level < 1 || (at.loose_limit && fixed_here),
                None => outside || (at.counter && is_write),
            },
            None => {
                let pointer = ty.as_ref().is_some_and(super::super::ir::Type::is_pointer);
                let given =
                    !allocated && base.root().is_some_and(|root| self.params.contains(root));
                match at.level {
                    Some(level) => level < 1 && (outside || at.counter) && given,
                    None if at.high != HIGHEST => false,
                    None => pointer && (outside || (at.counter && is_write && given)),
                }
            }
        };
        let from_start = ty.as_ref().is_some_and(|ty| !ty.dimensions.is_empty())
            || pointer.reach == Some(Reach::START);
        let below = (at.high < 0 && from_start)
            || (outside && at.low == LOWEST && !at.checked)
            || (at.low < 0 && at.low != LOWEST && outside)
            // The upper end alone was thought of.
            || (at.external == External::Read
                && at.low == LOWEST
                && !at.checked
                && at.is_bounded()
                && ![127, 32767].contains(&at.high));
        let above = above && !inside && !(made_for && at.level.is_none());
        let below = below && !self.is_unsigned_index(access);
        if !(above || below) {
            return;
        }
        if matches!(access.kind, ExprKind::Subscript { .. })
            && ty.as_ref().is_none_or(|ty| !ty.is_pointer())
        {
            return; // a map or vector, which may check for itself
        }
        let check =
            if is_write { MemoryCheck::OutOfBoundsWrite } else { MemoryCheck::OutOfBoundsRead };
        let what = describe(base);
        let why = if above { "may lie past the end of" } else { "may be negative for" };
        self.alert(check, access.range, format!("the index {why} `{what}`"), Vec::new());
    }

    fn is_signed_index(&self, access: &Expr<'p>) -> bool {
        matches!(&access.kind, ExprKind::Subscript { index, .. }
            if self.ty(index).is_some_and(|ty| ty.is_integer() && !ty.is_unsigned()))
    }

    fn is_unsigned_index(&self, access: &Expr<'p>) -> bool {
        match &access.kind {
            ExprKind::Subscript { index, .. } if !matches!(index.kind, ExprKind::Int(_)) => {
                self.ty(index).is_some_and(|ty| ty.is_unsigned())
            }
            _ => false,
        }
    }

    /// Elements of what an expression holds, where that is known.
    pub(super) fn elements(&mut self, base: &'p Expr<'p>, state: &mut State) -> Option<i64> {
        let ty = self.ty(base);
        if let Some(length) = ty.as_ref().and_then(types::length_of) {
            let ExprKind::Attribute { base: owner, name, .. } = &base.peeled().kind else {
                return Some(length);
            };
            if length > 1 {
                return Some(length);
            }
            let bytes = self.room_of_end(owner, name, state)?;
            return bytes.checked_div(types::stride_of(ty.as_ref()?, self.program)?);
        }
        let object = state.get(&base.peeled().place()?)?.object;
        let bytes = state.object(object)?.bytes?;
        let stride = types::stride_of(ty.as_ref()?, self.program)?;
        bytes.checked_div(stride)
    }

    /// In a whole program, a size that someone else chose needs a limit.
    pub(super) fn check_limit(&mut self, size: &Number, range: Range) {
        if self.mode == Mode::Faithful
            && size.external == External::Yes
            && !size.is_bounded()
            && !size.checked
            && !size.is_length
        {
            let why = "nothing limits it".to_owned();
            self.alert(MemoryCheck::IntegerOverflow, range, why, Vec::new());
        }
    }

    /// Arithmetic that may wrap gives the size of an allocation.
    pub(super) fn check_size(&mut self, size: &Number) {
        if let Some(at) = size.wraps {
            self.alert(
                MemoryCheck::IntegerOverflow,
                at,
                "the result is used as a size unchecked".to_owned(),
                Vec::new(),
            );
        }
    }
}

fn is_nested(base: &Expr<'_>) -> bool {
    match &base.peeled().kind {
        ExprKind::Subscript { .. } => true,
        ExprKind::Attribute { base, .. } => is_nested(base),
        _ => false,
    }
}

fn is_literal(expr: &Expr<'_>) -> bool {
    matches!(expr.peeled().kind, ExprKind::Null | ExprKind::Int(_))
}

/// Whether a name or a place stands in a text as a word of its own: `i` is no part of `sizeof(int)`.
fn has_name(text: &str, place: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(place).any(|(at, _)| {
        !text[..at].ends_with(in_word) && !text[at + place.len()..].starts_with(in_word)
    })
}
