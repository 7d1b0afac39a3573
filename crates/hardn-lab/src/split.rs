//! Which part of the world a name, a wording or a family belongs to. Nothing here depends on the seed:
//! a fresh seed never puts a scenario's names into text that an older base model was pretrained on.

use serde::{Deserialize, Serialize};

use crate::rng::text_hash;

/// A part of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Text that base models are pretrained on.
    Pretraining,
    /// Fix pairs, and the utility rows that are trained on beside them.
    Pairs,
    /// Scenarios and tasks on which hyper-parameters are chosen.
    Val,
    /// Scenarios and tasks that are reported.
    Test,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Pretraining, Self::Pairs, Self::Val, Self::Test];
}

/// Sorts items into parts by the SHA-256 of their texts: half for pretraining, a quarter for pairs, the rest for
/// scenarios, of which a third (one at least, if there are two) for validation.
pub(crate) fn split_by_rank<T: Clone>(items: &[T], text: impl Fn(&T) -> String) -> [Vec<T>; 4] {
    let mut order: Vec<(u64, usize)> =
        items.iter().enumerate().map(|(i, item)| (text_hash(&text(item)), i)).collect();
    order.sort_unstable();
    let n = items.len();
    let (pretraining, pairs) = (n / 2, n / 4);
    let scenarios = n - pretraining - pairs;
    let val = n_val(scenarios);
    let mut parts: [Vec<T>; 4] = Default::default();
    for (rank, (_, i)) in order.into_iter().enumerate() {
        let part = if rank < pretraining {
            Part::Pretraining
        } else if rank < pretraining + pairs {
            Part::Pairs
        } else if rank < pretraining + pairs + val {
            Part::Val
        } else {
            Part::Test
        };
        parts[part as usize].push(items[i].clone());
    }
    parts
}

/// The part of a name of a shared pool, by its SHA-256 alone, so that a word lies in the same part in every pool.
pub(crate) fn part_of_name(text: &str) -> Part {
    match text_hash(text) >> 56 {
        0..128 => Part::Pretraining,
        128..192 => Part::Pairs,
        192..213 => Part::Val,
        _ => Part::Test,
    }
}

/// How many of `n` scenario items are for validation.
fn n_val(n: usize) -> usize {
    if n < 2 { 0 } else { (n / 3).max(1) }
}

/// Splits items into those for validation and those for the test, by the SHA-256 of their texts.
pub(crate) fn val_and_test<T: Clone>(items: &[T], text: impl Fn(&T) -> String) -> (Vec<T>, Vec<T>) {
    let mut order: Vec<(u64, usize)> =
        items.iter().enumerate().map(|(i, item)| (text_hash(&text(item)), i)).collect();
    order.sort_unstable();
    let sorted: Vec<T> = order.into_iter().map(|(_, i)| items[i].clone()).collect();
    let (val, test) = sorted.split_at(n_val(sorted.len()));
    (val.to_vec(), test.to_vec())
}

/// Where the families of a theme go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FamilyPart {
    Pretraining,
    Pairs,
    Scenarios,
}

/// The part of the family of operation `i` in setting `j`.
pub(crate) fn family_part(i: usize, j: usize) -> FamilyPart {
    match (i + j) % 4 {
        0 | 1 => FamilyPart::Pretraining,
        2 => FamilyPart::Pairs,
        _ => FamilyPart::Scenarios,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n: usize, sizes: [usize; 4]) {
        let items: Vec<usize> = (0..n).collect();
        let parts = split_by_rank(&items, |i| format!("item {i}"));
        assert_eq!(parts.each_ref().map(Vec::len), sizes);
        let mut all: Vec<usize> = parts.concat();
        all.sort_unstable();
        assert_eq!(all, items);
    }

    #[test]
    fn parts_are_disjoint_and_complete() {
        check(8, [4, 2, 1, 1]);
        check(9, [4, 2, 1, 2]);
        check(12, [6, 3, 1, 2]);
        check(100, [50, 25, 8, 17]);
    }

    #[test]
    fn each_operation_is_in_every_part_of_four_settings() {
        for i in 0..4 {
            let parts: Vec<_> = (0..4).map(|j| family_part(i, j)).collect();
            assert_eq!(parts.iter().filter(|&&p| p == FamilyPart::Pretraining).count(), 2);
            assert_eq!(parts.iter().filter(|&&p| p == FamilyPart::Scenarios).count(), 1);
        }
    }
}
