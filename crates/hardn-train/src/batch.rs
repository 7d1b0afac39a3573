//! Examples and the padded batches they make.

use std::sync::Arc;

use hardn_models::Segments;
use serde::{Deserialize, Serialize};

use crate::{LossRecipe, Reduction, Term};

/// What an example is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExampleKind {
    /// Keeps or teaches ability; pretraining text is of this kind too.
    Utility,
    /// The fixed side of a pair.
    Secure,
    /// The other side of a pair.
    Vulnerable,
}

impl ExampleKind {
    /// Every kind, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Utility, Self::Secure, Self::Vulnerable];

    /// `utility`, `secure` or `vulnerable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utility => "utility",
            Self::Secure => "secure",
            Self::Vulnerable => "vulnerable",
        }
    }

    /// Which of two adapters is its own: 0, the secure side's, or 1.
    pub(crate) fn adapter(self) -> usize {
        usize::from(self == Self::Vulnerable)
    }
}

/// One sequence with the tokens that are learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The pair's or item's id, with the side behind a `#` where it is one of two.
    pub id: String,
    /// What it is for.
    pub kind: ExampleKind,
    /// Token ids.
    pub ids: Vec<u32>,
    /// 1 where the token is learnt, one per token. The first token has nothing before it that could predict it:
    /// selecting it has no effect.
    pub selected: Vec<u8>,
}

impl Example {
    /// How many tokens are learnt.
    pub fn n_selected(&self) -> usize {
        self.selected.iter().skip(1).filter(|&&bit| bit != 0).count()
    }
}

/// How examples are weighed against each other in one update.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weighing {
    /// Each example's reduced loss, divided by the number of samples of the step.
    PerSample { reduction: Reduction, n_samples: usize },
    /// Every token of the step alike: its loss is divided by one of these.
    PerToken {
        /// For selected tokens.
        selected: f64,
        /// For divergences.
        others: f64,
        /// For pairs whose loss takes both sides together.
        pairs: f64,
    },
}

impl Weighing {
    /// A token's share in the mean over some examples, of which the step has `n_batches` such sets.
    pub(crate) fn mean_of_tokens(
        examples: &[&Example],
        loss: &LossRecipe,
        n_batches: usize,
    ) -> Self {
        let n_selected = examples.iter().map(|example| example.n_selected()).sum();
        let n_others = |example: &&Example| {
            let n = example.ids.len().saturating_sub(1) - example.n_selected();
            if loss.diverges(example.kind) { n } else { 0 }
        };
        let n_others = examples.iter().map(n_others).sum();
        // Every vulnerable side has its secure one before it.
        let pairs =
            examples.iter().filter(|example| example.kind == ExampleKind::Vulnerable).count();
        let share = |n: usize| (n.max(1) * n_batches.max(1)) as f64;
        Self::PerToken { selected: share(n_selected), others: share(n_others), pairs: share(pairs) }
    }
}

/// A right-padded batch with the positions that carry a loss. `rows` index the flattened `[batch * seq]` positions;
/// the hidden state at a row predicts the token after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MicroBatch {
    pub(crate) ids: Vec<u32>,
    pub(crate) shape: (usize, usize),
    pub(crate) rows: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    pub(crate) terms: Vec<Term>,
    /// Which example a row belongs to.
    pub(crate) owners: Vec<usize>,
    /// The row's share in its example's reduced loss: 1 / n selected, or 1.
    pub(crate) shares: Vec<f32>,
    /// What the row's loss is multiplied by in the update.
    pub(crate) weights: Vec<f32>,
    pub(crate) kl_rows: Vec<u32>,
    pub(crate) kl_owners: Vec<usize>,
    pub(crate) kl_shares: Vec<f32>,
    pub(crate) kl_weights: Vec<f32>,
    pub(crate) kinds: Vec<ExampleKind>,
    pub(crate) examples: Vec<String>,
    /// Secure and vulnerable example of every pair whose loss takes both together.
    pub(crate) pairs: Vec<[usize; 2]>,
    /// What a row's loss, times its share, is multiplied by in the update.
    pub(crate) scale: f64,
    /// Where rows hold several examples.
    pub(crate) segments: Option<Arc<Segments>>,
    /// Tokens of every example.
    pub(crate) lengths: Vec<usize>,
    /// The first example of every row, and the number of examples behind them.
    pub(crate) row_starts: Vec<usize>,
    /// What a pair's loss is multiplied by.
    pub(crate) pair_scale: f64,
    /// Tokens without padding.
    pub(crate) n_tokens: usize,
}

impl MicroBatch {
    /// `loss` must be resolved. Where it is pairwise, every vulnerable example follows its secure one.
    pub(crate) fn new(examples: &[&Example], loss: &LossRecipe, weighing: Weighing) -> Self {
        let rows: Vec<Vec<&Example>> = examples.iter().map(|example| vec![*example]).collect();
        Self::of_rows(&rows, loss, weighing)
    }

    /// The same with the examples of each row one behind the other.
    pub(crate) fn of_rows(rows: &[Vec<&Example>], loss: &LossRecipe, weighing: Weighing) -> Self {
        let length = |row: &Vec<&Example>| row.iter().map(|example| example.ids.len()).sum();
        let longest: usize = rows.iter().map(length).max().unwrap_or(0);
        let (scale, kl_scale, pair_scale) = match weighing {
            Weighing::PerSample { n_samples, .. } => {
                let scale = 1.0 / n_samples.max(1) as f64;
                (scale, scale, scale)
            }
            Weighing::PerToken { selected, others, pairs } => {
                (1.0 / selected, 1.0 / others, 1.0 / pairs)
            }
        };
        let mut batch = Self {
            ids: vec![0; rows.len() * longest],
            shape: (rows.len(), longest),
            scale,
            row_starts: vec![0],
            pair_scale,
            ..Self::default()
        };
        if rows.iter().any(|row| row.len() > 1) {
            let lengths = |row: &Vec<&Example>| row.iter().map(|e| e.ids.len()).collect();
            // Rows are as long as the longest of them, so that they always fit.
            batch.segments =
                Segments::new(rows.iter().map(lengths).collect(), longest).ok().map(Arc::new);
        }
        let mut places = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let mut start = i * longest;
            for example in row {
                places.push((start, *example));
                start += example.ids.len();
            }
            batch.row_starts.push(places.len());
        }
        for (owner, &(start, example)) in places.iter().enumerate() {
            batch.ids[start..start + example.ids.len()].copy_from_slice(&example.ids);
            batch.n_tokens += example.ids.len();
            batch.lengths.push(example.ids.len());
            batch.kinds.push(example.kind);
            batch.examples.push(example.id.clone());
            let n_selected = example.n_selected();
            let n_others = example.ids.len().saturating_sub(1) - n_selected;
            let (share, kl_share) = match weighing {
                Weighing::PerSample { reduction: Reduction::Mean | Reduction::Tokens, .. } => {
                    (1.0 / n_selected.max(1) as f64, 1.0 / n_others.max(1) as f64)
                }
                Weighing::PerSample { reduction: Reduction::Sum, .. }
                | Weighing::PerToken { .. } => (1.0, 1.0),
            };
            let (term, factor) = loss.token_term(example.kind);
            let with_kl = loss.diverges(example.kind);
            if loss.kind.is_pairwise()
                && example.kind == ExampleKind::Vulnerable
                && let Some(secure) = owner.checked_sub(1)
            {
                batch.pairs.push([secure, owner]);
            }
            for t in 1..example.ids.len() {
                let row = (start + t - 1) as u32;
                if example.selected[t] != 0 {
                    batch.rows.push(row);
                    batch.targets.push(example.ids[t]);
                    batch.terms.push(term);
                    batch.owners.push(owner);
                    batch.shares.push(share as f32);
                    batch.weights.push((share * factor * scale) as f32);
                } else if with_kl {
                    batch.kl_rows.push(row);
                    batch.kl_owners.push(owner);
                    batch.kl_shares.push(kl_share as f32);
                    batch.kl_weights.push((kl_share * loss.kl_weight * kl_scale) as f32);
                }
            }
        }
        batch
    }
}

impl MicroBatch {
    /// Fewest padded tokens of a half: with fewer, preparing the weights twice costs more than it saves.
    const MIN_HALF: usize = 512;

    /// The first and the other rows as batches of their own, whose losses and gradients add up to this one's;
    /// `None` where it does not pay or a half would have no loss. Both sides of a pair stay together.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let (rows, seq) = self.shape;
        let cut = self.pairs.iter().find(|[_, second]| *second == rows / 2);
        let middle = cut.map_or(rows / 2, |[first, _]| *first);
        let halves = [self.part(0, middle), self.part(middle, rows)];
        let is_empty = |half: &Self| half.rows.is_empty() && half.kl_rows.is_empty();
        let pays = middle * seq >= Self::MIN_HALF && !halves.iter().any(is_empty);
        pays.then_some(halves)
    }

    /// Rows `top..bottom`.
    fn part(&self, top: usize, bottom: usize) -> Self {
        fn some<T: Copy>(values: &[T], kept: &[usize]) -> Vec<T> {
            kept.iter().map(|&i| values[i]).collect()
        }
        let (first, end) = (self.row_starts[top], self.row_starts[bottom]);
        let seq = self.shape.1;
        let of = |owners: &[usize]| -> Vec<usize> {
            (0..owners.len()).filter(|&i| (first..end).contains(&owners[i])).collect()
        };
        let (kept, kl_kept) = (of(&self.owners), of(&self.kl_owners));
        let moved = |rows: &[u32], kept: &[usize]| -> Vec<u32> {
            kept.iter().map(|&i| rows[i] - (top * seq) as u32).collect()
        };
        let owners = |owners: &[usize], kept: &[usize]| -> Vec<usize> {
            kept.iter().map(|&i| owners[i] - first).collect()
        };
        let inside = |pair: &&[usize; 2]| (first..end).contains(&pair[0]);
        let pairs = self.pairs.iter().filter(inside).map(|pair| pair.map(|owner| owner - first));
        Self {
            ids: self.ids[top * seq..bottom * seq].to_vec(),
            shape: (bottom - top, seq),
            rows: moved(&self.rows, &kept),
            targets: some(&self.targets, &kept),
            terms: some(&self.terms, &kept),
            owners: owners(&self.owners, &kept),
            shares: some(&self.shares, &kept),
            weights: some(&self.weights, &kept),
            kl_rows: moved(&self.kl_rows, &kl_kept),
            kl_owners: owners(&self.kl_owners, &kl_kept),
            kl_shares: some(&self.kl_shares, &kl_kept),
            kl_weights: some(&self.kl_weights, &kl_kept),
            kinds: self.kinds[first..end].to_vec(),
            examples: self.examples[first..end].to_vec(),
            pairs: pairs.collect(),
            scale: self.scale,
            segments: self.segments.as_ref().map(|all| Arc::new(all.rows(top..bottom))),
            lengths: self.lengths[first..end].to_vec(),
            row_starts: self.row_starts[top..=bottom].iter().map(|start| start - first).collect(),
            pair_scale: self.pair_scale,
            n_tokens: 0,
        }
    }
}

/// Puts examples into rows of at most `capacity` tokens, in as few as the longest-first, tightest-fit rule finds. Rows are
/// in the order of their longest examples; an example that is longer has a row to itself.
pub(crate) fn pack(mut examples: Vec<&Example>, capacity: usize) -> Vec<Vec<&Example>> {
    examples.sort_by_key(|example| std::cmp::Reverse(example.ids.len()));
    let mut rows: Vec<(usize, Vec<&Example>)> = Vec::new();
    for example in examples {
        let length = example.ids.len();
        let fitting = rows.iter_mut().filter(|(used, _)| used + length <= capacity);
        match fitting.max_by_key(|(used, row)| (*used, std::cmp::Reverse(row.len()))) {
            Some((used, row)) => {
                *used += length;
                row.push(example);
            }
            None => rows.push((length, vec![example])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// [`group_by_length`] of samples of one or more examples, which stay together in their order; what counts as a
/// sample's length is its longest example.
pub(crate) fn group_samples(
    mut samples: Vec<Vec<&Example>>,
    max_padded: usize,
) -> Vec<Vec<&Example>> {
    let length_of = |sample: &[&Example]| sample.iter().map(|example| example.ids.len()).max();
    samples.sort_by_key(|sample| length_of(sample));
    let mut groups: Vec<(usize, Vec<&Example>)> = Vec::new();
    for sample in samples {
        let length = length_of(&sample).unwrap_or(0);
        let fits = groups.last().is_some_and(|(shortest, group)| {
            let padded = (group.len() + sample.len()) * length;
            // A batch of few tokens costs as much in overhead as the padding it saves.
            padded <= max_padded && (padded <= 1024 || length * 4 <= shortest * 5)
        });
        match groups.last_mut() {
            Some((_, group)) if fits => group.extend(sample),
            _ => groups.push((length, sample)),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Cuts examples into groups of similar length: at most `max_padded` padded tokens (always at least one example),
/// and little padding. Order within equal lengths is kept.
pub(crate) fn group_by_length(examples: Vec<&Example>, max_padded: usize) -> Vec<Vec<&Example>> {
    group_samples(examples.into_iter().map(|example| vec![example]).collect(), max_padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(kind: ExampleKind, ids: &[u32], selected: &[u8]) -> Example {
        Example { id: "x".to_owned(), kind, ids: ids.to_vec(), selected: selected.to_vec() }
    }

    #[test]
    fn a_selected_token_is_charged_at_the_position_before_it() {
        let a = example(ExampleKind::Secure, &[10, 11, 12], &[1, 0, 1]);
        let b = example(ExampleKind::Vulnerable, &[20, 21, 22, 23], &[0, 1, 1, 0]);
        let loss = LossRecipe { kl_weight: 2.0, ..LossRecipe::default() };
        let weighing = Weighing::PerSample { reduction: Reduction::Mean, n_samples: 2 };
        let batch = MicroBatch::new(&[&a, &b], &loss, weighing);
        assert_eq!(batch.ids, [10, 11, 12, 0, 20, 21, 22, 23]);
        assert_eq!(batch.rows, [1, 4, 5]);
        assert_eq!(batch.targets, [12, 21, 22]);
        assert_eq!(batch.terms, [Term::Nll, Term::Unlikelihood, Term::Unlikelihood]);
        assert_eq!(batch.weights, [0.5, 0.25, 0.25]);
        assert_eq!(batch.kl_rows, [0, 6]);
        assert_eq!(batch.kl_weights, [1.0, 1.0]);
    }

    #[test]
    fn halves_are_what_new_makes_of_their_examples() {
        let kinds = [ExampleKind::Secure, ExampleKind::Vulnerable, ExampleKind::Utility];
        let examples: Vec<Example> = (0..5_u32)
            .map(|i| {
                let ids: Vec<u32> = (0..300).map(|t| t * 7 + i).collect();
                let selected: Vec<u8> = (0..300).map(|t| u8::from((t + i) % 3 == 0)).collect();
                example(kinds[i as usize % 3], &ids, &selected)
            })
            .collect();
        let all: Vec<&Example> = examples.iter().collect();
        let loss = LossRecipe { kl_weight: 2.0, ..LossRecipe::default() };
        let weighing = Weighing::PerSample { reduction: Reduction::Mean, n_samples: 5 };
        let new = |examples: &[&Example]| MicroBatch {
            n_tokens: 0,
            ..MicroBatch::new(examples, &loss, weighing)
        };
        let halves = MicroBatch::new(&all, &loss, weighing).halves().unwrap();
        for (half, expected) in halves.iter().zip([new(&all[..2]), new(&all[2..])]) {
            assert_eq!(format!("{half:?}"), format!("{expected:?}"));
        }
        // Too little to cut, and one half without loss.
        assert!(new(&all[..2]).halves().is_none());
        let silent = Example { selected: vec![0; 300], ..examples[2].clone() };
        assert!(new(&[&silent, &silent, all[0], all[1]]).halves().is_none());
    }

    #[test]
    fn packed_rows_and_their_halves() {
        let examples: Vec<Example> = [400_u32, 300, 250, 200, 90, 20]
            .iter()
            .map(|&n| {
                example(ExampleKind::Secure, &(0..n).collect::<Vec<_>>(), &vec![1; n as usize])
            })
            .collect();
        let rows = pack(examples.iter().rev().collect(), 512);
        let lengths: Vec<Vec<usize>> =
            rows.iter().map(|row| row.iter().map(|e| e.ids.len()).collect()).collect();
        assert_eq!(lengths, [vec![400, 90, 20], vec![300, 200], vec![250]]);
        let weighing = Weighing::PerSample { reduction: Reduction::Mean, n_samples: 6 };
        let new = |rows: &[Vec<&Example>]| MicroBatch {
            n_tokens: 0,
            ..MicroBatch::of_rows(rows, &LossRecipe::default(), weighing)
        };
        let batch = new(&rows);
        assert_eq!(batch.shape, (3, 510));
        // The first token of a sample is nobody's target.
        assert_eq!(batch.rows.len(), 1260 - 6);
        assert!(!batch.rows.contains(&399) && batch.rows.contains(&400));
        assert_eq!(batch.ids[510 + 300..510 + 303], [0, 1, 2]);
        let two = &[rows[0].clone(), rows[1].clone(), rows[0].clone(), rows[1].clone()];
        for (half, expected) in new(two).halves().unwrap().iter().zip([&two[..2], &two[2..]]) {
            assert_eq!(format!("{half:?}"), format!("{:?}", new(expected)));
        }
    }

    #[test]
    fn no_cut_separates_what_belongs_together() {
        let ids: Vec<u32> = (0..600).collect();
        let selected: Vec<u8> = (0..600).map(|t| u8::from(t % 3 == 0)).collect();
        let [secure, vulnerable, utility] =
            [ExampleKind::Secure, ExampleKind::Vulnerable, ExampleKind::Utility]
                .map(|kind| example(kind, &ids, &selected));
        let loss = LossRecipe { kind: crate::LossKind::Simpo, ..LossRecipe::default() }.resolved();
        let weighing = Weighing::PerSample { reduction: Reduction::Mean, n_samples: 3 };
        let check = |examples: &[&Example], expected: Option<[usize; 2]>| {
            let halves = MicroBatch::new(examples, &loss, weighing).halves();
            let sizes =
                halves.as_ref().map(|halves| halves.each_ref().map(|half| half.kinds.len()));
            assert_eq!(sizes, expected);
            for half in halves.iter().flatten() {
                let is_pair = |&[a, b]: &[usize; 2]| {
                    [half.kinds[a], half.kinds[b]] == [ExampleKind::Secure, ExampleKind::Vulnerable]
                };
                let n = half.kinds.iter().filter(|kind| **kind == ExampleKind::Secure).count();
                assert!(
                    half.pairs.len() == n && half.pairs.iter().all(is_pair),
                    "{:?}",
                    half.pairs
                );
            }
        };
        check(&[&secure, &vulnerable], None);
        check(&[&secure, &vulnerable, &secure, &vulnerable], Some([2, 2]));
        check(&[&utility, &secure, &vulnerable, &utility], Some([1, 3]));
        check(&[&secure, &vulnerable, &secure, &vulnerable, &secure, &vulnerable], Some([2, 4]));
        let short = example(ExampleKind::Utility, &ids[..10], &selected[..10]);
        let groups = group_samples(vec![vec![&secure, &short], vec![&short], vec![&utility]], 1200);
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 2, 1]);
    }

    #[test]
    fn groups_hold_similar_lengths() {
        let lengths = [600, 30, 610, 31, 900, 29, 605];
        let examples: Vec<Example> = lengths
            .iter()
            .map(|&n| example(ExampleKind::Utility, &vec![1; n], &vec![1; n]))
            .collect();
        let groups = group_by_length(examples.iter().collect(), 2_000);
        let lengths: Vec<Vec<usize>> =
            groups.iter().map(|g| g.iter().map(|e| e.ids.len()).collect()).collect();
        assert_eq!(lengths, [vec![29, 30, 31], vec![600, 605, 610], vec![900]]);
    }
}
