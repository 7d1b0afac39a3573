//! Which lines Python 3.11's `difflib.ndiff` would mark, without junk functions.
//!
//! `ndiff` differs from plain opcodes inside a replaced stretch: it looks there for the most similar pair of
//! lines, or else an identical pair, and compares afresh before and behind that pair. Two identical lines may
//! thus end up unmarked although no matching block holds them, and others end up marked.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use crate::sequence_matcher::{OpTag, SequenceMatcher};

/// Two lines that are at least this similar are a pair to synchronise on.
const CLOSE_ENOUGH: f64 = 0.75;

/// The marked lines of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NdiffMarks {
    /// For each line of the first list: it is shown as deleted.
    pub deleted: Vec<bool>,
    /// For each line of the second list: it is shown as added.
    pub added: Vec<bool>,
}

/// Compares two lists of lines. The time is about that of the block matching, plus
/// `n_replaced · n_similar_lines` for each pair that is synchronised on.
pub fn ndiff<S: AsRef<str>>(a: &[S], b: &[S]) -> NdiffMarks {
    let (a, b): (Vec<&str>, Vec<&str>) =
        (a.iter().map(AsRef::as_ref).collect(), b.iter().map(AsRef::as_ref).collect());
    let mut marks = NdiffMarks { deleted: vec![false; a.len()], added: vec![false; b.len()] };
    for op in SequenceMatcher::new(&a, &b, true).opcodes() {
        match op.tag {
            OpTag::Equal => {}
            OpTag::Delete => marks.deleted[op.a].fill(true),
            OpTag::Insert => marks.added[op.b].fill(true),
            OpTag::Replace => Replaced::new(&a[op.a.clone()], &b[op.b.clone()])
                .mark(&mut marks.deleted[op.a], &mut marks.added[op.b]),
        }
    }
    marks
}

/// A stretch of lines replaced by another one, with the partners of each distinct line worked out once.
struct Replaced {
    /// Where each distinct line of `a` stands, ascending.
    places: Vec<Vec<usize>>,
    /// The partners of each distinct line of `b`.
    partners: Vec<Partners>,
    /// For each line of `b`, its index in `partners`.
    lines_b: Vec<usize>,
    n_a: usize,
}

/// The lines of `a` that one line of `b` can be synchronised with, as indices into [`Replaced::places`].
struct Partners {
    identical: Option<usize>,
    /// With their ratios, most similar first.
    similar: Vec<(f64, usize)>,
}

/// A pair of lines to synchronise on.
#[derive(Clone, Copy)]
struct Anchor {
    i: usize,
    j: usize,
    identical: bool,
}

impl Replaced {
    fn new(a: &[&str], b: &[&str]) -> Self {
        let mut standing: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, line) in a.iter().enumerate() {
            standing.entry(line).or_default().push(i);
        }
        let spelt = |line: &str| line.chars().collect::<Vec<char>>();
        let distinct: Vec<(&str, Vec<char>)> =
            standing.keys().map(|line| (*line, spelt(line))).collect();

        let mut seen: HashMap<&str, usize> = HashMap::new();
        let (mut partners, mut lines_b) = (Vec::new(), Vec::new());
        for &line in b {
            let number = *seen.entry(line).or_insert_with(|| {
                let letters = spelt(line);
                let identical = distinct.iter().position(|(other, _)| *other == line);
                let mut similar: Vec<(f64, usize)> = distinct
                    .iter()
                    .enumerate()
                    .filter(|&(k, _)| Some(k) != identical)
                    .filter_map(|(k, (_, other))| Some((similarity(other, &letters)?, k)))
                    .collect();
                similar.sort_by(|x, y| y.0.total_cmp(&x.0));
                partners.push(Partners { identical, similar });
                partners.len() - 1
            });
            lines_b.push(number);
        }
        Self { places: standing.into_values().collect(), partners, lines_b, n_a: a.len() }
    }

    /// Marks everything that no synchronisation on an identical pair spares.
    fn mark(&self, deleted: &mut [bool], added: &mut [bool]) {
        let mut open = vec![(0..self.n_a, 0..self.lines_b.len())];
        while let Some((a, b)) = open.pop() {
            let anchor = if a.is_empty() || b.is_empty() { None } else { self.anchor(&a, &b) };
            let Some(anchor) = anchor else {
                deleted[a].fill(true);
                added[b].fill(true);
                continue;
            };
            deleted[anchor.i] = !anchor.identical;
            added[anchor.j] = !anchor.identical;
            open.push((a.start..anchor.i, b.start..anchor.j));
            open.push((anchor.i + 1..a.end, anchor.j + 1..b.end));
        }
    }

    /// The most similar pair that is not identical, else the first identical one; ties go to the first line of
    /// `b`, then of `a`.
    fn anchor(&self, a: &Range<usize>, b: &Range<usize>) -> Option<Anchor> {
        let mut best: Option<(f64, Anchor)> = None;
        for j in b.clone() {
            // The candidates stand most similar first; among equally similar ones the least place must be looked for.
            let mut here: Option<(f64, usize)> = None;
            for &(candidate, line) in &self.partners[self.lines_b[j]].similar {
                let too_late = here.is_some_and(|(ratio, _)| ratio > candidate);
                if too_late || best.is_some_and(|(ratio, _)| candidate <= ratio) {
                    break;
                }
                if let Some(i) = first_within(&self.places[line], a)
                    && here.is_none_or(|(_, least)| i < least)
                {
                    here = Some((candidate, i));
                }
            }
            if let Some((ratio, i)) = here {
                best = Some((ratio, Anchor { i, j, identical: false }));
            }
        }
        best.map(|(_, anchor)| anchor).or_else(|| {
            b.clone().find_map(|j| {
                let line = self.partners[self.lines_b[j]].identical?;
                let i = first_within(&self.places[line], a)?;
                Some(Anchor { i, j, identical: true })
            })
        })
    }
}

/// The ratio of two different lines where it reaches [`CLOSE_ENOUGH`].
fn similarity(a: &[char], b: &[char]) -> Option<f64> {
    let length_bound = 2.0 * a.len().min(b.len()) as f64 / (a.len() + b.len()).max(1) as f64;
    if length_bound < CLOSE_ENOUGH {
        return None;
    }
    let matcher = SequenceMatcher::new(a, b, true);
    if matcher.quick_ratio() < CLOSE_ENOUGH {
        return None;
    }
    Some(matcher.ratio()).filter(|&ratio| ratio >= CLOSE_ENOUGH)
}

/// The first of the ascending places that lies in the range.
fn first_within(places: &[usize], range: &Range<usize>) -> Option<usize> {
    let next = places.partition_point(|&i| i < range.start);
    places.get(next).copied().filter(|&i| i < range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines are space-separated; the expectation shows marked ones with `*`.
    #[track_caller]
    fn check(a: &str, b: &str, deleted: &str, added: &str) {
        let split = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let marks = ndiff(&split(a), &split(b));
        let show = |marks: &[bool]| {
            marks.iter().map(|&marked| if marked { '*' } else { '.' }).collect::<String>()
        };
        assert_eq!((show(&marks.deleted).as_str(), show(&marks.added).as_str()), (deleted, added));
    }

    #[test]
    fn marks() {
        check("1 2 3", "1 2 3", "...", "...");
        check("1 2 3", "1 3", ".*.", "..");
        check("1 22 3", "1 44 3", ".*.", ".*.");
        // A close pair (ratio 0.8) is marked on both sides, and what stands around it is compared afresh.
        check("9 12345 8", "7 12346 6", "***", "***");
    }
}
