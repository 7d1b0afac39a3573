//! From what is given to what is trained on: items, the split, examples, and why others were dropped.

use std::collections::BTreeMap;

use hardn_models::Tokenizer;

use crate::{
    Counts, Example, ExampleBuilder, Granularity, PairExamples, Recipe, Result, TrainingData,
    UtilityItem,
    items::{items, split_off},
    mix::{class_of, drop_single_sides},
};

/// Utility examples that are drawn in one proportion.
#[derive(Clone, Debug, Default)]
pub(crate) struct UtilitySource {
    /// Samples per security sample; 0: all there are.
    pub(crate) ratio: f64,
    pub(crate) examples: Vec<Example>,
}

/// The examples of a training.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) pairs: Vec<PairExamples>,
    pub(crate) utility: Vec<UtilitySource>,
    pub(crate) validation_pairs: Vec<PairExamples>,
    pub(crate) validation_utility: Vec<Example>,
    pub(crate) train_counts: Counts,
    pub(crate) validation_counts: Counts,
}

/// Makes examples as a recipe says. `context` is the model's, in tokens.
///
/// # Errors
/// A template that cannot be used, a source in `data.utility_sources` that nothing comes from, or text that cannot be
/// tokenized or parsed.
pub(crate) fn prepare(
    tokenizer: &Tokenizer,
    context: usize,
    recipe: &Recipe,
    given: &TrainingData<'_>,
) -> Result<Prepared> {
    let (data, loss) = (&recipe.data, recipe.loss.resolved());
    let builder = ExampleBuilder::new(tokenizer, data, &loss, context)?;
    let mut prepared = Prepared::default();
    let (counts, held_counts) = (&mut prepared.train_counts, &mut prepared.validation_counts);
    let class = |pair: &_| class_of(pair, recipe.oversampling.by);
    let fraction = if given.validation_pairs.is_empty() { data.validation_fraction } else { 0.0 };
    let seed = recipe.training.seed;
    let (pairs, _) = split_off(given.pairs.to_vec(), 1.0 - data.pair_fraction, seed);
    if data.granularity == Granularity::Pair {
        let (train, mut held) = split_off(pairs, fraction, seed);
        held.extend_from_slice(given.validation_pairs);
        prepared.pairs = builder.pairs(&train, class, counts)?;
        prepared.validation_pairs = builder.pairs(&held, class, held_counts)?;
        drop_single_sides(&mut prepared.pairs, &loss, counts);
        drop_single_sides(&mut prepared.validation_pairs, &loss, held_counts);
    } else {
        let all = items(&pairs, data.granularity, class, counts)?;
        let (train, mut held) = split_off(all, fraction, seed);
        held.extend(items(given.validation_pairs, data.granularity, class, held_counts)?);
        prepared.pairs = builder.items(&train, counts)?;
        prepared.validation_pairs = builder.items(&held, held_counts)?;
    }
    prepared.utility = sources(&builder, recipe, given.utility, counts)?;
    prepared.validation_utility = builder.utilities(given.validation_utility, held_counts)?;
    Ok(prepared)
}

/// Utility examples by source: those that the recipe names, then all others together.
fn sources(
    builder: &ExampleBuilder<'_>,
    recipe: &Recipe,
    items: &[UtilityItem],
    counts: &mut Counts,
) -> Result<Vec<UtilitySource>> {
    let data = &recipe.data;
    let mut named: BTreeMap<&str, Vec<UtilityItem>> =
        data.utility_sources.keys().map(|name| (name.as_str(), Vec::new())).collect();
    let mut others = Vec::new();
    for item in items {
        match named.get_mut(item.source.as_str()) {
            Some(list) => list.push(item.clone()),
            None => others.push(item.clone()),
        }
    }
    let mut sources = Vec::new();
    for (name, items) in named {
        if items.is_empty() {
            return Err(crate::TrainError::Missing {
                what: format!("utility row of the source `{name}` (`data.utility_sources.{name}`)"),
                help: "a source is a file's name without its ending, or a row's `source`"
                    .to_owned(),
            });
        }
        let ratio = data.utility_sources[name];
        if ratio > 0.0 {
            sources.push(UtilitySource { ratio, examples: builder.utilities(&items, counts)? });
        }
    }
    let examples = builder.utilities(&others, counts)?;
    sources.push(UtilitySource { ratio: data.utility_ratio, examples });
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pair, tokenizer};

    /// Pairs trained on and kept for validation, by name.
    fn shares(assignments: &[&str], n_validation: usize) -> [Vec<String>; 2] {
        let assignments: Vec<String> = assignments.iter().map(|&text| text.to_owned()).collect();
        let recipe = Recipe::load("safecoder-lab", &assignments).unwrap();
        let pairs: Vec<_> = (0..20)
            .map(|i| pair(&format!("p{i}"), "def run(a):\n", "old(a)", "new([a])"))
            .collect();
        let given = TrainingData {
            pairs: &pairs,
            utility: &[],
            validation_pairs: &pairs[..n_validation],
            validation_utility: &[],
        };
        let prepared = prepare(&tokenizer(), 128, &recipe, &given).unwrap();
        [prepared.pairs, prepared.validation_pairs].map(|pairs| {
            let sides = pairs.iter().filter_map(|pair| pair.secure.as_ref());
            sides.map(|example| example.id.clone()).collect()
        })
    }

    #[track_caller]
    fn check(assignments: &[&str], n_validation: usize, expected: [usize; 2]) {
        let [trained, held] = shares(assignments, n_validation);
        assert_eq!([trained.len(), held.len()], expected);
        let both = n_validation == 0 && trained.iter().any(|id| held.contains(id));
        assert!(!both, "a pair is trained on and validated on");
    }

    #[test]
    fn shares_of_pairs() {
        check(&[], 0, [20, 0]);
        check(&["data.pair_fraction=0.5"], 0, [10, 0]);
        check(&["data.pair_fraction=0.5"], 3, [10, 3]);
        check(&["data.validation_fraction=0.1"], 0, [18, 2]);
        check(&["data.pair_fraction=0.5", "data.validation_fraction=0.2"], 0, [8, 2]);
        let half = |seed| shares(&["data.pair_fraction=0.5", seed], 0);
        assert_eq!(half("training.seed=1"), half("training.seed=1"));
        assert_ne!(half("training.seed=1"), half("training.seed=2"));
    }
}
