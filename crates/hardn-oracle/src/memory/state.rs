//! Variables, pointers and the objects they point to, at one point of the program.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    bound::{Reach, Sum},
    cells::Cells,
    number::{HIGHEST, LOWEST, Number},
};
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
    /// It is less than the length of the text in this place.
    pub(super) within: Option<String>,
    /// It is the address of a variable of this function.
    pub(super) stack: bool,
    /// Where it points to in its object, as far as that has a name.
    pub(super) reach: Option<Reach>,
    /// It was followed without a look whether it is null: where.
    pub(super) used_at: Option<Range>,
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
    /// The size in elements, as sums of something that has a name.
    pub(super) sizes: Vec<Sum>,
    /// Bytes of an element by which `sizes` counts.
    pub(super) unit: Option<i64>,
    /// The function that freed it, where only its name says that it frees.
    pub(super) ended_by: Option<Rc<str>>,
}

impl Object {
    /// Nothing is known of it.
    fn is_plain(&self) -> bool {
        self.freed == Freed::No
            && self.bytes.is_none()
            && self.size_text.is_none()
            && self.no_end.is_none()
            && self.sizes.is_empty()
    }
}

/// One point of the program.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    cells: Cells,
    /// Those of which more is known than that they are there.
    objects: Rc<BTreeMap<u32, Object>>,
}

impl State {
    pub(super) fn object(&self, id: Option<u32>) -> Option<&Object> {
        self.objects.get(&id?)
    }

    pub(super) fn object_mut(&mut self, id: u32) -> &mut Object {
        Rc::make_mut(&mut self.objects).entry(id).or_default()
    }

    pub(super) fn put_object(&mut self, id: u32, object: Object) {
        if !object.is_plain() {
            Rc::make_mut(&mut self.objects).insert(id, object);
        }
    }

    /// Fields that are known, where any memory was freed.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &Cell)> {
        let any = self.objects.values().any(|object| object.freed != Freed::No);
        self.cells
            .iter()
            .filter(move |(place, _)| any && place.contains('.') && !place.contains(['(', '>']))
    }

    pub(super) fn has_named_sizes(&self) -> bool {
        self.objects.values().any(|object| !object.sizes.is_empty())
    }

    pub(super) fn get(&self, place: &str) -> Option<&Cell> {
        self.cells.get(place)
    }

    pub(super) fn cell(&mut self, place: &str) -> &mut Cell {
        self.cells.entry(place)
    }

    /// A new value; what depended on the old one is gone.
    pub(super) fn set(&mut self, place: &str, cell: Cell) {
        self.forget(place);
        self.cells.insert(place, cell);
    }

    /// Drops everything that is named by way of a place: its fields, elements, what it points to, its length.
    pub(super) fn forget(&mut self, place: &str) {
        self.cells.drop_places(|key| {
            // Most places have nothing to do with this one.
            mentions(key, place)
                && (key == place
                    || is_part(key, place)
                    || is_index(key, place)
                    || is_order(key, place)
                    || is_length(key, place))
        });
    }

    /// One place holds at least what another does, until either changes.
    pub(super) fn order(&mut self, greater: &str, lesser: &str) {
        let key = format!("{greater}>={lesser}");
        if self.cells.get(&key).is_none() {
            self.cells.insert(&key, Cell::default());
        }
    }

    pub(super) fn is_at_least(&self, greater: &str, lesser: &str) -> bool {
        self.cells.get(&format!("{greater}>={lesser}")).is_some()
    }

    /// Drops the parts of a place, but not the place.
    pub(super) fn forget_parts(&mut self, place: &str) {
        self.cells.drop_places(|key| {
            mentions(key, place) && (is_part(key, place) || is_length(key, place))
        });
    }

    pub(super) fn join(&mut self, other: Self) {
        let kept = self.join_cells(&other);
        // Where the pointer is null, it says nothing of the object.
        let kept: Vec<(u32, Object)> = kept
            .into_iter()
            .map(|(id, is_ours)| {
                let objects = if is_ours { &self.objects } else { &other.objects };
                (id, objects.get(&id).cloned().unwrap_or_default())
            })
            .collect();
        if !Rc::ptr_eq(&self.objects, &other.objects) {
            self.join_objects(&other);
            for (id, object) in kept {
                let joined = self.object_mut(id);
                joined.freed = object.freed;
                joined.freed_at = object.freed_at;
                joined.ended_by = object.ended_by;
            }
        }
    }

    fn join_objects(&mut self, other: &Self) {
        let objects = Rc::make_mut(&mut self.objects);
        // First seen on one side: on the other it was not freed.
        for (id, object) in &mut *objects {
            if object.freed == Freed::Yes && !other.objects.contains_key(id) {
                object.freed = Freed::Maybe;
            }
        }
        for (id, theirs) in other.objects.iter() {
            if let Some(ours) = objects.get_mut(id) {
                if ours.freed != theirs.freed {
                    if ours.freed == Freed::No {
                        ours.freed_at = theirs.freed_at;
                    }
                    ours.freed = Freed::Maybe;
                    if ours.ended_by.is_none() {
                        ours.ended_by.clone_from(&theirs.ended_by);
                    }
                }
                if ours.bytes != theirs.bytes {
                    ours.bytes = None;
                }
                if ours.size_text != theirs.size_text {
                    ours.size_text = None;
                }
                if ours.sizes != theirs.sizes {
                    ours.sizes.clear();
                }
            } else {
                let freed = if theirs.freed == Freed::Yes { Freed::Maybe } else { theirs.freed };
                objects.insert(*id, Object { freed, ..theirs.clone() });
            }
        }
    }

    /// Also says which objects stay where one side has a null pointer, and whether they are ours.
    fn join_cells(&mut self, other: &Self) -> Vec<(u32, bool)> {
        let mut kept = Vec::new();
        let both = |cell: &mut Cell, theirs: &Cell| {
            let ours_is_null = cell.null == Null::Yes;
            let (null, at) = join_null(cell, theirs);
            cell.null = null;
            cell.null_at = at;
            cell.stack |= theirs.stack;
            cell.used_at = cell.used_at.filter(|_| theirs.used_at.is_some());
            cell.reach = Reach::joined(cell.reach.as_ref(), theirs.reach.as_ref());
            cell.number.join(&theirs.number);
            if cell.within != theirs.within {
                cell.within = None;
            }
            if cell.length_of != theirs.length_of {
                cell.length_of = None;
            }
            if cell.object != theirs.object {
                cell.object = match (ours_is_null, theirs.null == Null::Yes) {
                    (true, false) => theirs.object,
                    (false, true) => cell.object,
                    _ => None,
                };
                kept.extend(cell.object.map(|id| (id, !ours_is_null)));
            }
        };
        // The other side knows nothing of it.
        let one = |cell: &Cell| {
            let cell = one_sided(cell);
            let stays = cell.null == Null::Maybe || cell.object.is_some() || cell.number.checked;
            stays.then_some(cell)
        };
        self.cells.join(&other.cells, both, one);
        kept
    }

    /// Gives up limits that moved between the entry of a loop and the end of its body.
    pub(super) fn widen(&mut self, entry: &Self) {
        self.cells.update(&entry.cells, |cell, before| {
            let rises = cell.number.high > before.number.high;
            let falls = cell.number.low < before.number.low;
            let moves = cell.reach != before.reach;
            let drifts = cell.number.bound != before.number.bound;
            (rises || falls || moves || drifts).then(|| {
                let mut cell = cell.clone();
                if rises {
                    cell.number.high = HIGHEST;
                }
                if falls {
                    cell.number.low = LOWEST;
                }
                if moves {
                    cell.reach = None;
                }
                if drifts {
                    cell.number.bound = None;
                }
                cell
            })
        });
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

/// Keys are short, so that looking at each position is faster than a clever search.
fn mentions(key: &str, place: &str) -> bool {
    let (key, place) = (key.as_bytes(), place.as_bytes());
    let Some(first) = place.first() else { return true };
    key.len() >= place.len()
        && (0..=key.len() - place.len())
            .any(|at| key[at] == *first && key[at..at + place.len()] == *place)
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
