//! Variables, pointers and the objects they point to, at one point of the program.

use std::collections::BTreeMap;

use super::number::{HIGHEST, LOWEST, Number};
use crate::ir::Range;

/// Whether a pointer can be null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Null {
    #[default]
    Unknown,
    No,
    Maybe,
    Yes,
}

/// Whether an object was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Freed {
    #[default]
    No,
    Maybe,
    Yes,
}

/// What a place holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) number: Number,
    pub(super) null: Null,
    /// Where it became null, or may have.
    pub(super) null_at: Range,
    pub(super) object: Option<u32>,
    /// It is the length of the text in this place.
    pub(super) length_of: Option<String>,
    /// It is the address of a variable of this function.
    pub(super) stack: bool,
}

/// A piece of memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    pub(super) freed: Freed,
    pub(super) freed_at: Range,
    /// Bytes, where known.
    pub(super) bytes: Option<i64>,
    /// The size as written, where it is no constant.
    pub(super) size_text: Option<String>,
    /// Allocated with the bare length of a text: where.
    pub(super) no_end: Option<Range>,
}

/// One point of the program.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    cells: BTreeMap<String, Cell>,
    pub(super) objects: BTreeMap<u32, Object>,
}

impl State {
    pub(super) fn get(&self, place: &str) -> Option<&Cell> {
        self.cells.get(place)
    }

    pub(super) fn cell(&mut self, place: &str) -> &mut Cell {
        self.cells.entry(place.to_owned()).or_default()
    }

    /// A new value; what depended on the old one is gone.
    pub(super) fn set(&mut self, place: &str, cell: Cell) {
        self.forget(place);
        self.cells.insert(place.to_owned(), cell);
    }

    /// Drops everything that is named by way of a place: its fields, elements, what it points to, its length.
    pub(super) fn forget(&mut self, place: &str) {
        self.cells.retain(|key, _| {
            // Most places have nothing to do with this one.
            !key.contains(place)
                || !(key == place
                    || is_part(key, place)
                    || is_index(key, place)
                    || is_order(key, place)
                    || is_length(key, place))
        });
    }

    /// One place holds at least what another does, until either changes.
    pub(super) fn order(&mut self, greater: &str, lesser: &str) {
        self.cells.insert(format!("{greater}>={lesser}"), Cell::default());
    }

    pub(super) fn is_at_least(&self, greater: &str, lesser: &str) -> bool {
        self.cells.contains_key(&format!("{greater}>={lesser}"))
    }

    /// Drops the parts of a place, but not the place.
    pub(super) fn forget_parts(&mut self, place: &str) {
        self.cells.retain(|key, _| {
            !key.contains(place) || !(is_part(key, place) || is_length(key, place))
        });
    }

    pub(super) fn join(&mut self, other: Self) {
        self.cells.retain(|place, cell| {
            let Some(theirs) = other.cells.get(place) else {
                // The other side knows nothing of it.
                *cell = one_sided(cell);
                return cell.null == Null::Maybe || cell.object.is_some() || cell.number.checked;
            };
            let (null, at) = join_null(cell, theirs);
            cell.null = null;
            cell.null_at = at;
            cell.stack |= theirs.stack;
            cell.number.join(&theirs.number);
            if cell.length_of != theirs.length_of {
                cell.length_of = None;
            }
            if cell.object != theirs.object {
                cell.object = None;
            }
            true
        });
        for (place, theirs) in &other.cells {
            if !self.cells.contains_key(place) {
                let cell = one_sided(theirs);
                if cell.null == Null::Maybe || cell.object.is_some() || cell.number.checked {
                    self.cells.insert(place.clone(), cell);
                }
            }
        }
        // First seen on one side: on the other it was not freed.
        for (id, object) in &mut self.objects {
            if object.freed == Freed::Yes && !other.objects.contains_key(id) {
                object.freed = Freed::Maybe;
            }
        }
        for (id, theirs) in other.objects {
            if let Some(ours) = self.objects.get_mut(&id) {
                if ours.freed != theirs.freed {
                    if ours.freed == Freed::No {
                        ours.freed_at = theirs.freed_at;
                    }
                    ours.freed = Freed::Maybe;
                }
                if ours.bytes != theirs.bytes {
                    ours.bytes = None;
                }
                if ours.size_text != theirs.size_text {
                    ours.size_text = None;
                }
            } else {
                let freed = if theirs.freed == Freed::Yes { Freed::Maybe } else { theirs.freed };
                self.objects.insert(id, Object { freed, ..theirs });
            }
        }
    }

    /// Gives up limits that moved between the entry of a loop and the end of its body.
    pub(super) fn widen(&mut self, entry: &Self) {
        for (place, cell) in &mut self.cells {
            let Some(before) = entry.cells.get(place) else { continue };
            if cell.number.high > before.number.high {
                cell.number.high = HIGHEST;
            }
            if cell.number.low < before.number.low {
                cell.number.low = LOWEST;
            }
        }
    }
}

/// What stays of a place the other side knows nothing of: its object, and that it may be null.
fn one_sided(cell: &Cell) -> Cell {
    let null =
        if matches!(cell.null, Null::Maybe | Null::Yes) { Null::Maybe } else { Null::Unknown };
    let Number { checked, external, wide, .. } = cell.number;
    let number = Number { external, checked, wide, ..Number::default() };
    Cell { number, null, null_at: cell.null_at, object: cell.object, ..Cell::default() }
}

/// `a[place]` in any place.
fn is_index(key: &str, place: &str) -> bool {
    key.match_indices(place)
        .any(|(at, _)| key[..at].ends_with('[') && key[at + place.len()..].starts_with(']'))
}

/// `place>=other` or `other>=place`.
fn is_order(key: &str, place: &str) -> bool {
    key.split_once(">=").is_some_and(|(greater, lesser)| greater == place || lesser == place)
}

/// `strlen(place)`.
fn is_length(key: &str, place: &str) -> bool {
    key.strip_prefix("strlen(").and_then(|rest| rest.strip_suffix(')')) == Some(place)
}

fn is_part(key: &str, place: &str) -> bool {
    let inner = key.trim_start_matches('*');
    (inner.len() < key.len() && inner == place)
        || inner.strip_prefix(place).is_some_and(|rest| rest.starts_with(['.', '[']))
}

fn join_null(ours: &Cell, theirs: &Cell) -> (Null, Range) {
    match (ours.null, theirs.null) {
        (a, b) if a == b => (a, ours.null_at),
        (Null::Maybe | Null::Yes, _) => (Null::Maybe, ours.null_at),
        (_, Null::Maybe | Null::Yes) => (Null::Maybe, theirs.null_at),
        _ => (Null::Unknown, ours.null_at),
    }
}
