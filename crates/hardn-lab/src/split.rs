//! Which part of the world a name, a wording or a family belongs to. Nothing here depends on the seed:
//! a fresh seed never puts a scenario's names into text that an older base model was pretrained on.

use std::collections::BTreeMap;

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

/// How many of `n` items each part gets: half for pretraining, a quarter for pairs, the rest for scenarios, of which a
/// third (one at least, if there are two) for validation.
fn part_sizes(n: usize) -> [usize; 4] {
    let (pretraining, pairs) = (n / 2, n / 4);
    let scenarios = n - pretraining - pairs;
    [pretraining, pairs, n_val(scenarios), scenarios - n_val(scenarios)]
}

/// Sorts items into parts of the usual sizes by the SHA-256 of their texts.
pub(crate) fn split_by_rank<T: Clone>(items: &[T], text: impl Fn(&T) -> String) -> [Vec<T>; 4] {
    let mut order: Vec<(u64, usize)> =
        items.iter().enumerate().map(|(i, item)| (text_hash(&text(item)), i)).collect();
    order.sort_unstable();
    let mut order = order.into_iter();
    part_sizes(items.len())
        .map(|size| order.by_ref().take(size).map(|(_, i)| items[i].clone()).collect())
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

/// Sorts the words of many lists into parts, so that a word lies in the same part in every list. Words of `known` stay
/// where they are; the others go, in the order of their SHA-256, to the part that their lists want most. The wanted
/// sizes are the usual ones.
pub(crate) fn share_words(
    lists: &[Vec<&str>],
    known: impl Fn(&str) -> Option<Part>,
) -> BTreeMap<String, Part> {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, list) in lists.iter().enumerate() {
        for word in list {
            places.entry(word).or_default().push(i);
        }
    }
    let wanted: Vec<[f64; 4]> =
        lists.iter().map(|list| part_sizes(list.len()).map(|n| n as f64)).collect();
    let mut have = vec![[0.0; 4]; lists.len()];
    let mut left: Vec<usize> = lists.iter().map(Vec::len).collect();
    let mut order: Vec<(bool, u64, &str)> =
        places.keys().map(|word| (known(word).is_none(), text_hash(word), *word)).collect();
    order.sort_unstable();
    let mut parts = BTreeMap::new();
    for (_, _, word) in order {
        let lists = &places[word];
        let lack = |part: Part| -> f64 {
            let p = part as usize;
            let of_list = |&i: &usize| {
                // With as many words left as parts without any, a list cannot wait.
                let n_empty = have[i].iter().filter(|&&n| n == 0.0).count();
                let is_urgent = have[i][p] == 0.0 && left[i] <= n_empty + 1;
                let urgency = if is_urgent { 100.0 } else { 0.0 };
                urgency + (wanted[i][p] - have[i][p]) / wanted[i][p].max(0.5)
            };
            lists.iter().map(of_list).sum()
        };
        let best = Part::ALL.into_iter().rev().max_by(|&a, &b| lack(a).total_cmp(&lack(b)));
        let part = known(word).or(best).unwrap_or(Part::Pretraining);
        for &i in lists {
            have[i][part as usize] += 1.0;
            left[i] -= 1;
        }
        parts.insert(word.to_owned(), part);
    }
    parts
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
