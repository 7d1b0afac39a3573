//! Places and what they hold: a sorted list that copies share until one of them changes.

use std::{cmp::Ordering, rc::Rc};

use super::state::Cell;

/// Copies are many and short-lived, and most functions have few places: one flat list is cheaper than a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells(Rc<Vec<Entry>>);

/// A place by the hash of its name, so that most comparisons are of numbers.
#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    place: Rc<str>,
    cell: Rc<Cell>,
}

impl Cells {
    pub(super) fn get(&self, place: &str) -> Option<&Cell> {
        self.find(hash(place), place).ok().map(|at| &*self.0[at].cell)
    }

    /// The cell of a place, which is made where there is none.
    pub(super) fn entry(&mut self, place: &str) -> &mut Cell {
        let hash = hash(place);
        let found = self.find(hash, place);
        let entries = Rc::make_mut(&mut self.0);
        let at = found.unwrap_or_else(|at| {
            entries.insert(at, Entry { hash, place: place.into(), cell: Rc::default() });
            at
        });
        Rc::make_mut(&mut entries[at].cell)
    }

    pub(super) fn insert(&mut self, place: &str, cell: Cell) {
        let hash = hash(place);
        let found = self.find(hash, place);
        let entries = Rc::make_mut(&mut self.0);
        match found {
            Ok(at) => entries[at].cell = Rc::new(cell),
            Err(at) => {
                entries.insert(at, Entry { hash, place: place.into(), cell: Rc::new(cell) });
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Cell)> {
        self.0.iter().map(|entry| (&*entry.place, &*entry.cell))
    }

    pub(super) fn drop_places(&mut self, gone: impl Fn(&str) -> bool) {
        if self.0.iter().any(|entry| gone(&entry.place)) {
            Rc::make_mut(&mut self.0).retain(|entry| !gone(&entry.place));
        }
    }

    /// What holds on either side: `both` joins two cells, `one` says what stays of a cell the other side does not know.
    pub(super) fn join(
        &mut self,
        other: &Self,
        mut both: impl FnMut(&mut Cell, &Cell),
        one: impl Fn(&Cell) -> Option<Cell>,
    ) {
        if Rc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let mut joined = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.hash.cmp(&b.hash).then_with(|| a.place.cmp(&b.place)),
            };
            if order == Ordering::Equal {
                let (Some(a), Some(b)) = (ours.next(), theirs.next()) else { break };
                let mut entry = a.clone();
                if !Rc::ptr_eq(&a.cell, &b.cell) {
                    both(Rc::make_mut(&mut entry.cell), &b.cell);
                }
                joined.push(entry);
            } else {
                let side = if order == Ordering::Less { ours.next() } else { theirs.next() };
                let Some(entry) = side else { break };
                if let Some(cell) = one(&entry.cell) {
                    joined.push(Entry { cell: Rc::new(cell), ..entry.clone() });
                }
            }
        }
        self.0 = Rc::new(joined);
    }

    /// Changes cells by what another state holds in the same places; `None` where nothing changes.
    pub(super) fn update(&mut self, other: &Self, change: impl Fn(&Cell, &Cell) -> Option<Cell>) {
        if Rc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let mut changes = Vec::new();
        for (at, entry) in self.0.iter().enumerate() {
            if let Ok(known) = other.find(entry.hash, &entry.place)
                && !Rc::ptr_eq(&entry.cell, &other.0[known].cell)
                && let Some(cell) = change(&entry.cell, &other.0[known].cell)
            {
                changes.push((at, cell));
            }
        }
        if !changes.is_empty() {
            let entries = Rc::make_mut(&mut self.0);
            for (at, cell) in changes {
                entries[at].cell = Rc::new(cell);
            }
        }
    }

    fn find(&self, hash: u64, place: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|entry| entry.hash.cmp(&hash).then_with(|| (*entry.place).cmp(place)))
    }
}

fn hash(place: &str) -> u64 {
    let mut hash = 0u64;
    for chunk in place.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_the_original_changes() {
        let mut cells = Cells::default();
        for place in ["size", "box.size", "box", "*box"] {
            cells.entry(place).stack = true;
        }
        let copy = cells.clone();
        cells.insert("box", Cell::default());
        cells.drop_places(|place| place.starts_with('*'));
        let known = |cells: &Cells, place: &str| cells.get(place).map(|cell| cell.stack);
        assert_eq!(known(&cells, "box"), Some(false));
        assert_eq!((known(&cells, "*box"), known(&copy, "*box")), (None, Some(true)));
        cells.join(&copy, |ours, theirs| ours.stack |= theirs.stack, |_| None);
        assert_eq!((known(&cells, "box"), known(&cells, "*box")), (Some(true), None));
        assert_eq!(cells.iter().count(), 3);
    }
}
