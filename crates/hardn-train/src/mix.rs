//! The data mix: oversampling, the share of utility samples, and what each step trains on.

use std::collections::BTreeMap;

use hardn_types::FixPair;

use crate::{
    ClipPer, Counts, Example, ExampleKind, GroupByLength, Leftover, LossKind, LossRecipe,
    OversamplingBy, OversamplingMode, OversamplingRecipe, OversamplingUnit, PairExamples, Pairing,
    Recipe, Reduction,
    batch::{MicroBatch, Weighing, group_samples, pack},
    prepare::{Prepared, UtilitySource},
    rng::Rng,
    run_loop::{Plan, StepPlan},
};

/// Padded tokens per micro-batch, at most.
const MAX_PADDED: usize = 4096;

/// The class oversampling counts a pair in: file extension or language, and CWE.
pub(crate) fn class_of(pair: &FixPair, by: OversamplingBy) -> [String; 2] {
    let extension = pair
        .file_name
        .as_deref()
        .and_then(|name| std::path::Path::new(name).extension())
        .map(|extension| extension.to_string_lossy().into_owned());
    let language = match by {
        OversamplingBy::Extension => extension.unwrap_or_else(|| pair.language.extension().into()),
        OversamplingBy::Language => pair.language.name().to_owned(),
    };
    [language, pair.cwe.map(|cwe| cwe.to_string()).unwrap_or_default()]
}

/// Drops the sides whose other side was dropped, as far as a resolved loss has no use for them.
pub(crate) fn drop_single_sides(
    pairs: &mut [PairExamples],
    loss: &LossRecipe,
    counts: &mut Counts,
) {
    for pair in pairs {
        let single = match (&pair.secure, &pair.vulnerable) {
            (Some(_), None) => &mut pair.secure,
            (None, Some(_)) => &mut pair.vulnerable,
            _ => continue,
        };
        if let Some(example) = single.take_if(|example| loss.wastes_alone(example.kind)) {
            let name = example.kind.name();
            if let Some(n) = counts.kept.get_mut(name) {
                *n -= 1;
            }
            *counts.dropped.entry(format!("{name}: the other side was dropped")).or_default() += 1;
        }
    }
}

/// What takes part in a step as one sample: indices of examples; two where sides are joined.
pub(crate) type Unit = Vec<usize>;

/// The security samples of one epoch: sides or pairs, with the duplicates of small classes.
///
/// `UtilityOnly` gets the same units, so that its epochs are as long; its plan puts utility samples in their place.
pub(crate) fn security_units(
    pairs: Vec<PairExamples>,
    recipe: &Recipe,
    n_utility: usize,
) -> (Vec<Example>, Vec<Unit>) {
    let OversamplingRecipe { mode, k, unit, percent, .. } = recipe.oversampling;
    let loss = recipe.loss.resolved();
    let vulnerable_too = match loss.kind {
        LossKind::UtilityOnly => recipe.loss.weights.unlikelihood != 0.0,
        _ => loss.uses(ExampleKind::Vulnerable),
    };
    let joint = loss.pairing == Pairing::Joint;
    let by_sides = unit == OversamplingUnit::Sides;
    let mut examples = Vec::new();
    let mut classes: BTreeMap<[String; 2], Vec<Unit>> = BTreeMap::new();
    for pair in pairs {
        let vulnerable = pair.vulnerable.filter(|_| vulnerable_too);
        let mut sides = Vec::new();
        for example in [pair.secure, vulnerable].into_iter().flatten() {
            sides.push(examples.len());
            examples.push(example);
        }
        if sides.is_empty() {
            continue;
        }
        let groups = classes.entry(pair.class).or_default();
        if by_sides && !joint {
            groups.extend(sides.into_iter().map(|side| vec![side]));
        } else {
            groups.push(sides);
        }
    }
    let count = |groups: &[Unit]| -> usize {
        if by_sides { groups.iter().map(Vec::len).sum() } else { groups.len() }
    };
    // With one side alone the released trainer halves its target.
    let target = if by_sides && !vulnerable_too { k.div_ceil(2) } else { k };
    let largest = classes.values().map(|groups| count(groups)).max().unwrap_or(0);
    let target = match mode {
        OversamplingMode::Minority => target,
        OversamplingMode::All => target.max(largest),
        OversamplingMode::None
        | OversamplingMode::Uniform
        | OversamplingMode::InverseProportional => 0,
    };
    let mut rng = Rng::new(recipe.training.seed, &[0x0e45]);
    let mut units = Vec::new();
    let classes: Vec<Vec<Unit>> = classes.into_values().collect();
    if matches!(mode, OversamplingMode::Uniform | OversamplingMode::InverseProportional) {
        let percent = if by_sides && !vulnerable_too { percent / 2.0 } else { percent };
        let wanted = (percent / 100.0 * n_utility as f64).ceil() as usize;
        let all: Vec<Unit> = classes.iter().flatten().cloned().collect();
        let mut size = count(&all);
        while size < wanted && !all.is_empty() {
            // A class, then a member of it: each as likely as one over its class's size.
            let from = match mode {
                OversamplingMode::Uniform => &all,
                _ => &classes[rng.below(classes.len())],
            };
            let copy = from[rng.below(from.len())].clone();
            size += if by_sides { copy.len() } else { 1 };
            units.push(copy);
        }
    }
    for mut groups in classes {
        let n = groups.len();
        let mut size = count(&groups);
        while size < target {
            let copy = groups[rng.below(n)].clone();
            size += if by_sides { copy.len() } else { 1 };
            groups.push(copy);
        }
        units.extend(groups);
    }
    if !joint {
        units = units.into_iter().flatten().map(|side| vec![side]).collect();
    }
    (examples, units)
}

/// Utility samples of one source, an endless row that is shuffled anew each time round; each epoch takes the next stretch.
struct UtilityRow {
    /// Of examples.
    indices: Vec<usize>,
    /// Samples of one epoch.
    n: usize,
}

impl UtilityRow {
    /// The samples of an epoch. `number` tells sources apart.
    fn stretch(&self, epoch: usize, seed: u64, number: usize) -> Vec<Unit> {
        let mut lap = usize::MAX;
        let mut order = Vec::new();
        let mut units = Vec::new();
        for i in epoch * self.n..(epoch + 1) * self.n {
            if i / self.indices.len() != lap {
                lap = i / self.indices.len();
                order.clone_from(&self.indices);
                let key = [0x0711, lap as u64, number as u64];
                let key = if number == 0 { &key[..2] } else { &key };
                Rng::new(seed, key).shuffle(&mut order);
            }
            units.push(vec![order[i % self.indices.len()]]);
        }
        units
    }
}

/// Which examples each step of a training on pairs sees.
pub(crate) struct MixPlan {
    examples: Vec<Example>,
    security: Vec<Unit>,
    utility: Vec<UtilityRow>,
    utility_only: bool,
    loss: LossRecipe,
    clip_per: ClipPer,
    grouping: GroupByLength,
    /// Tokens of a row, where several samples go into one.
    capacity: Option<usize>,
    leftover: Leftover,
    batch_size: usize,
    accumulation: usize,
    seed: u64,
    total: usize,
    epoch: Option<(usize, Vec<Unit>)>,
    validation: Vec<MicroBatch>,
}

impl MixPlan {
    /// `context` is the model's, in tokens.
    pub(crate) fn new(recipe: &Recipe, prepared: Prepared, context: usize) -> Self {
        let Prepared { pairs, mut utility, validation_pairs, validation_utility, .. } = prepared;
        let loss = recipe.loss.resolved();
        if !loss.uses(ExampleKind::Utility) {
            utility.clear();
        }
        let n_given = utility.iter().map(|source| source.examples.len()).sum();
        let (mut examples, security) = security_units(pairs, recipe, n_given);
        let n_sides: usize = security.iter().map(Vec::len).sum();
        let row = |UtilitySource { ratio, examples: own }: UtilitySource| {
            let n = match (ratio * n_sides as f64).round() as usize {
                _ if ratio == 0.0 => own.len(),
                wanted => wanted.min(own.len()),
            };
            let first = examples.len();
            examples.extend(own);
            UtilityRow { indices: (first..examples.len()).collect(), n }
        };
        // The unnamed ones come last and count as number 0.
        let utility = utility.into_iter().rev().map(row).filter(|row| !row.indices.is_empty());
        let mut utility: Vec<UtilityRow> = utility.collect();
        let utility_only = recipe.loss.kind == LossKind::UtilityOnly;
        if utility_only && !utility.is_empty() {
            let indices = utility.iter().flat_map(|row| row.indices.iter().copied()).collect();
            let n = security.len() + utility.iter().map(|row| row.n).sum::<usize>();
            utility = vec![UtilityRow { indices, n }];
        }
        let training = &recipe.training;
        let mut plan = Self {
            examples,
            security,
            utility,
            utility_only,
            loss,
            clip_per: training.clip_per,
            grouping: recipe.data.group_by_length,
            capacity: recipe.data.packing.then(|| recipe.data.max_tokens.min(context)),
            leftover: training.leftover,
            batch_size: training.batch_size,
            accumulation: training.accumulation,
            seed: training.seed,
            total: 0,
            epoch: None,
            validation: validation_batches(validation_pairs, validation_utility, &loss),
        };
        plan.total = match training.max_steps {
            0 => (training.epochs * plan.steps_per_epoch() as f64).ceil() as usize,
            steps => steps,
        };
        plan
    }

    /// Token losses are told as means over tokens, not over examples.
    pub(crate) fn is_per_token(&self) -> bool {
        self.loss.reduction == Reduction::Tokens
    }

    /// Samples of one epoch.
    pub(crate) fn samples_per_epoch(&self) -> usize {
        let n_utility: usize = self.utility.iter().map(|row| row.n).sum();
        if self.utility_only { n_utility } else { self.security.len() + n_utility }
    }

    /// Examples that may take part, for a fingerprint.
    pub(crate) fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// 0 where left-over micro-batches are carried on and an epoch has too few for a step.
    pub(crate) fn steps_per_epoch(&self) -> usize {
        let n_micro_batches = self.samples_per_epoch().div_ceil(self.batch_size);
        match self.leftover {
            Leftover::Step => n_micro_batches.div_ceil(self.accumulation),
            Leftover::Carry => n_micro_batches / self.accumulation,
        }
    }

    fn per_step(&self) -> usize {
        self.batch_size * self.accumulation
    }

    /// The examples of some samples, by what is computed together: rows of one example, or of several.
    fn groups(&self, units: &[Unit]) -> Vec<Vec<Vec<&Example>>> {
        let examples = |unit: &Unit| unit.iter().map(|&i| &self.examples[i]).collect::<Vec<_>>();
        let by_length = self.clip_per == ClipPer::Step
            && self.loss.reduction != Reduction::Tokens
            && self.grouping != GroupByLength::Off;
        let Some(capacity) = self.capacity else {
            let groups = if by_length {
                group(units.iter().map(examples).collect(), &self.loss)
            } else {
                units
                    .chunks(self.batch_size)
                    .map(|u| u.iter().flat_map(examples).collect())
                    .collect()
            };
            return groups.into_iter().map(alone).collect();
        };
        if !by_length {
            let micro_batches = units.chunks(self.batch_size);
            return micro_batches
                .map(|units| pack(units.iter().flat_map(examples).collect(), capacity))
                .collect();
        }
        // Utility samples apart where sides take more forward passes.
        let all = units.iter().flat_map(examples);
        let apart = self.loss.has_passes_of_sides();
        let (first, second) = all.partition(|e| !apart || e.kind != ExampleKind::Utility);
        let mut groups = Vec::new();
        for examples in [first, second] {
            let rows = pack(examples, capacity);
            groups.extend(rows.chunks((MAX_PADDED / capacity).max(1)).map(<[_]>::to_vec));
        }
        groups
    }

    /// The samples of an epoch, shuffled together: a function of the seed and the epoch.
    fn lay_out(&self, epoch: usize) -> Vec<Unit> {
        let mut units = Vec::new();
        if !self.utility_only {
            units.extend(self.security.iter().cloned());
        }
        for (number, row) in self.utility.iter().enumerate() {
            units.extend(row.stretch(epoch, self.seed, number));
        }
        Rng::new(self.seed, &[0x0e60, epoch as u64]).shuffle(&mut units);
        if self.grouping == GroupByLength::Epoch {
            self.sort_stretches(&mut units);
        }
        units
    }

    /// Sorts stretches of up to 50 steps, the longest sample first; the longest of all comes first, so that a step that is
    /// too large for memory is the first one (as transformers' sampler that groups by length).
    fn sort_stretches(&self, units: &mut [Unit]) {
        let length = |unit: &Unit| unit.iter().map(|&i| self.examples[i].ids.len()).max();
        let n_steps = (units.len() / (self.per_step() * 4)).clamp(1, 50);
        let stretch = n_steps * self.per_step();
        for stretch in units.chunks_mut(stretch) {
            stretch.sort_by_key(|unit| std::cmp::Reverse(length(unit)));
        }
        let heads = (0..units.len()).step_by(stretch);
        if let Some(longest) = heads.rev().max_by_key(|&i| length(&units[i])) {
            units.swap(0, longest);
        }
    }
}

/// Each example in a row of its own.
fn alone(examples: Vec<&Example>) -> Vec<Vec<&Example>> {
    examples.into_iter().map(|example| vec![example]).collect()
}

/// Groups samples by length; those whose sides take more forward passes than utility samples do apart from these.
fn group<'a>(samples: Vec<Vec<&'a Example>>, loss: &LossRecipe) -> Vec<Vec<&'a Example>> {
    let samples = if loss.kind.is_pairwise() {
        samples
    } else {
        samples.into_iter().flatten().map(|example| vec![example]).collect()
    };
    if !loss.has_passes_of_sides() {
        return group_samples(samples, MAX_PADDED);
    }
    let is_utility = |sample: &Vec<&Example>| sample[0].kind == ExampleKind::Utility;
    let (utility, sides): (Vec<_>, Vec<_>) = samples.into_iter().partition(is_utility);
    let mut groups = group_samples(sides, MAX_PADDED);
    groups.extend(group_samples(utility, MAX_PADDED));
    groups
}

/// Batches whose losses add up to the mean weighted loss of a validation sample.
fn validation_batches(
    pairs: Vec<PairExamples>,
    utility: Vec<Example>,
    loss: &LossRecipe,
) -> Vec<MicroBatch> {
    let sides = |pair: PairExamples| -> Vec<Example> {
        [pair.secure, pair.vulnerable].into_iter().flatten().collect()
    };
    let mut samples: Vec<Vec<Example>> = utility.into_iter().map(|example| vec![example]).collect();
    let pairs = pairs.into_iter().map(sides).filter(|sides| !sides.is_empty());
    if loss.kind.is_pairwise() {
        samples.extend(pairs);
    } else {
        samples.extend(pairs.flatten().map(|example| vec![example]));
    }
    // What a recipe gives no weight to is reported all the same, but does not dilute the mean.
    let n_samples = samples.iter().filter(|sample| loss.weighs(sample[0].kind)).count();
    let weighing = match loss.reduction {
        Reduction::Tokens => {
            let all = samples.iter().flatten().filter(|example| loss.weighs(example.kind));
            Weighing::mean_of_tokens(&all.collect::<Vec<_>>(), loss, 1)
        }
        reduction => Weighing::PerSample { reduction, n_samples },
    };
    group(samples.iter().map(|sample| sample.iter().collect()).collect(), loss)
        .iter()
        .map(|group| MicroBatch::new(group, loss, weighing))
        .collect()
}

impl Plan for MixPlan {
    fn total_steps(&self) -> usize {
        self.total
    }

    fn step(&mut self, step: usize) -> StepPlan {
        let (epoch, place) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let units = match self.epoch.take() {
            Some((laid_out, units)) if laid_out == epoch => units,
            _ => self.lay_out(epoch),
        };
        let start = place * self.per_step();
        let work = &units[start..units.len().min(start + self.per_step())];
        let mut groups = Vec::new();
        let before: Vec<Unit>;
        let mut n_samples = work.len();
        if self.leftover == Leftover::Carry {
            n_samples = self.per_step();
            if place == 0 && epoch > 0 {
                before = self.lay_out(epoch - 1).split_off(self.steps_per_epoch() * n_samples);
                groups = self.groups(&before);
            }
        }
        groups.extend(self.groups(work));
        let n_batches = match self.leftover {
            Leftover::Step => groups.len(),
            Leftover::Carry => self.accumulation,
        };
        let batch = |rows: &Vec<Vec<&Example>>| {
            let weighing = match self.loss.reduction {
                Reduction::Tokens => {
                    let examples: Vec<&Example> = rows.iter().flatten().copied().collect();
                    Weighing::mean_of_tokens(&examples, &self.loss, n_batches)
                }
                reduction => Weighing::PerSample { reduction, n_samples },
            };
            MicroBatch::of_rows(rows, &self.loss, weighing)
        };
        let batches = groups.iter().map(batch).collect();
        self.epoch = Some((epoch, units));
        StepPlan { batches }
    }

    fn validation(&self) -> &[MicroBatch] {
        &self.validation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: usize, kind: ExampleKind) -> Example {
        Example {
            id: format!("{id}#{}", kind.name()),
            kind,
            ids: vec![id as u32 + 1; 6],
            selected: vec![0, 0, 1, 1, 0, 0],
        }
    }

    /// `n` pairs of the class, some without a vulnerable side.
    fn pairs(class: &str, n: usize, one_sided: usize) -> Vec<PairExamples> {
        let pair = |i| PairExamples {
            class: ["py".to_owned(), class.to_owned()],
            secure: Some(example(i, ExampleKind::Secure)),
            vulnerable: (i >= one_sided).then(|| example(i, ExampleKind::Vulnerable)),
        };
        (0..n).map(pair).collect()
    }

    fn recipe(assignments: &[&str]) -> Recipe {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        Recipe::load("safecoder", &assignments).unwrap()
    }

    #[track_caller]
    fn check_units(assignments: &[&str], expected: usize) {
        let all = [pairs("CWE-001", 3, 1), pairs("CWE-002", 15, 0)].concat();
        let (_, units) = security_units(all, &recipe(assignments), 200);
        assert_eq!(units.len(), expected, "{assignments:?}");
    }

    #[test]
    fn oversampling() {
        // 3 pairs give 5 sides, 15 give 30. Defaults: minority classes to 20 sides.
        check_units(&[], 20 + 30);
        check_units(&["oversampling.mode=none"], 35);
        check_units(&["oversampling.mode=all"], 60);
        // 20 pairs each; a copied pair may lack its vulnerable side, so only an even class is certain.
        let (_, units) =
            security_units(pairs("CWE-002", 15, 0), &recipe(&["oversampling.unit=pairs"]), 0);
        assert_eq!(units.len(), 40);
        check_units(&["loss.pairing=joint", "oversampling.unit=pairs"], 40);
        check_units(&["loss.kind=nll"], 10 + 15);
        check_units(&["loss.weights.unlikelihood=0"], 10 + 15);
        // 200 utility samples are given; what is there already stays, however few are wanted.
        for mode in ["oversampling.mode=uniform", "oversampling.mode=inverse_proportional"] {
            check_units(&["oversampling.percent=40", mode], 80);
            check_units(&["oversampling.percent=10", mode], 35);
            check_units(&["oversampling.percent=40", mode, "loss.kind=nll"], 40);
        }
        // Of 3 and 15 pairs, copies are of the small class in one of six cases, or in every other one.
        for (mode, share) in [("uniform", 1.0 / 6.0), ("inverse_proportional", 0.5)] {
            let all = [pairs("CWE-001", 3, 0), pairs("CWE-002", 15, 0)].concat();
            let mode = format!("oversampling.mode={mode}");
            let recipe = recipe(&["oversampling.percent=100", &mode]);
            let (_, units) = security_units(all, &recipe, 6000);
            let n_small = units.iter().filter(|unit| unit[0] < 6).count();
            let found = (n_small - 6) as f64 / (6000.0 - 36.0);
            assert!((found - share).abs() < 0.03, "{mode}: {found}");
        }
    }

    fn plan(assignments: &[&str]) -> MixPlan {
        let mut all =
            vec!["oversampling.mode=none", "data.utility_ratio=2", "training.accumulation=4"];
        all.extend(assignments);
        let utility = (100..150).map(|i| example(i, ExampleKind::Utility)).collect();
        new_plan(&recipe(&all), utility)
    }

    fn new_plan(recipe: &Recipe, examples: Vec<Example>) -> MixPlan {
        let prepared = Prepared {
            pairs: pairs("CWE-001", 10, 0),
            utility: vec![UtilitySource { ratio: recipe.data.utility_ratio, examples }],
            ..Prepared::default()
        };
        MixPlan::new(recipe, prepared, 1024)
    }

    fn ids(plan: &mut MixPlan, step: usize) -> Vec<String> {
        plan.step(step).batches.into_iter().flat_map(|batch| batch.examples).collect()
    }

    #[test]
    fn an_epoch_holds_everything_once_and_utility_by_ratio() {
        let mut plan = plan(&[]);
        assert_eq!(plan.samples_per_epoch(), 20 + 40);
        assert_eq!(plan.total_steps(), 5 * 15);
        let mut seen: Vec<String> = (0..15).flat_map(|step| ids(&mut plan, step)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 60);
        assert_ne!(ids(&mut plan, 0), ids(&mut plan, 15));
    }

    #[test]
    fn the_utility_control_takes_as_many_steps_on_utility_alone() {
        let mut control = plan(&["loss.kind=utility_only"]);
        assert_eq!(control.total_steps(), plan(&[]).total_steps());
        for step in 0..control.total_steps() {
            assert!(ids(&mut control, step).iter().all(|id| id.ends_with("utility")));
        }
    }

    #[test]
    fn a_step_is_a_function_of_its_number() {
        for extra in ["training.seed=3", "training.clip_per=micro_batch", "loss.pairing=joint"] {
            let mut whole = plan(&[extra]);
            let steps: Vec<_> = (0..whole.total_steps()).map(|i| ids(&mut whole, i)).collect();
            for i in [steps.len() - 1, 3, 16] {
                assert_eq!(ids(&mut plan(&[extra]), i), steps[i], "{extra}, step {i}");
            }
        }
    }

    #[test]
    fn joined_sides_share_a_step() {
        let mut plan = plan(&["loss.pairing=joint"]);
        assert_eq!(plan.samples_per_epoch(), 10 + 40);
        for step in 0..13 {
            let ids = ids(&mut plan, step);
            for id in ids.iter().filter_map(|id| id.strip_suffix("secure")) {
                assert!(ids.contains(&format!("{id}vulnerable")), "{ids:?}");
            }
        }
    }

    #[test]
    fn sources_have_ratios_of_their_own() {
        let recipe = recipe(&["oversampling.mode=none", "data.utility_ratio=0.5"]);
        let source = |ratio, ids: std::ops::Range<usize>| UtilitySource {
            ratio,
            examples: ids.map(|i| example(i, ExampleKind::Utility)).collect(),
        };
        let prepared = Prepared {
            pairs: pairs("CWE-001", 10, 0),
            utility: vec![source(0.25, 200..220), source(9.0, 300..330), source(0.5, 100..150)],
            ..Prepared::default()
        };
        let mut plan = MixPlan::new(&recipe, prepared, 1024);
        // 20 sides: a quarter, all there are, and half of it.
        assert_eq!(plan.samples_per_epoch(), 20 + 5 + 30 + 10);
        let mut counts = [0; 4];
        for step in 0..4 * plan.steps_per_epoch() {
            for id in ids(&mut plan, step) {
                let number: usize = id.split('#').next().unwrap().parse().unwrap();
                counts[number / 100] += 1;
            }
        }
        assert_eq!(counts, [80, 40, 20, 120]);
    }

    #[test]
    fn packing_and_grouping_change_how_samples_are_computed_alone() {
        let long = |i: usize| Example {
            ids: vec![1; 4 + i * 3],
            selected: vec![1; 4 + i * 3],
            ..example(100 + i, ExampleKind::Utility)
        };
        let plan = |assignments: &[&str]| {
            let base = ["data.utility_ratio=0", "training.batch_size=4", "training.accumulation=2"];
            new_plan(&recipe(&[&base, assignments].concat()), (0..60).map(long).collect())
        };
        let sorted = |plan: &mut MixPlan, step| {
            let mut ids = ids(plan, step);
            ids.sort();
            ids
        };
        let mut as_drawn = plan(&[]);
        for same in [
            &["data.packing=true", "data.max_tokens=256"][..],
            &["data.packing=true", "data.max_tokens=256", "training.clip_per=micro_batch"],
            &["data.group_by_length=off"],
        ] {
            let mut other = plan(same);
            for step in 0..as_drawn.total_steps().min(20) {
                assert_eq!(sorted(&mut other, step), sorted(&mut as_drawn, step), "{same:?}");
                assert!(other.step(step).batches.iter().all(|batch| batch.shape.1 <= 256));
            }
        }
        let mut grouped = plan(&["data.group_by_length=epoch"]);
        let steps = grouped.steps_per_epoch();
        let all = |plan: &mut MixPlan| {
            let mut all: Vec<String> = (0..steps).flat_map(|step| ids(plan, step)).collect();
            all.sort();
            all
        };
        assert_eq!(all(&mut grouped), all(&mut as_drawn));
        // What a step's shortest and longest batch differ by.
        let spread = |plan: &mut MixPlan| -> usize {
            let of_step = |batches: &[MicroBatch]| {
                let lengths = batches.iter().map(|batch| batch.shape.1);
                lengths.clone().max().unwrap() - lengths.min().unwrap()
            };
            (0..steps).map(|step| of_step(&plan.step(step).batches)).sum()
        };
        assert!(spread(&mut grouped) < spread(&mut as_drawn) / 2);
        assert_eq!(ids(&mut plan(&["data.group_by_length=epoch"]), 3), ids(&mut grouped, 3));
    }

    #[test]
    fn a_pairwise_loss_has_both_sides_of_a_pair_in_one_batch() {
        for extra in ["training.clip_per=step", "training.clip_per=micro_batch"] {
            for reduction in ["loss.reduction=mean", "loss.reduction=tokens"] {
                let mut plan = plan(&["loss.kind=dpo", "training.batch_size=2", extra, reduction]);
                // A pair is one sample.
                assert_eq!(plan.samples_per_epoch(), 10 + 40);
                let mut n_pairs = 0;
                for step in 0..plan.steps_per_epoch() {
                    for batch in plan.step(step).batches {
                        n_pairs += batch.pairs.len();
                        for [secure, vulnerable] in &batch.pairs {
                            let id = batch.examples[*secure].strip_suffix("secure").unwrap();
                            assert_eq!(batch.examples[*vulnerable], format!("{id}vulnerable"));
                        }
                    }
                }
                assert_eq!(n_pairs, 10);
            }
        }
    }

    #[test]
    fn a_side_alone_is_dropped_where_a_loss_takes_both() {
        let mut pairs = pairs("CWE-001", 3, 1);
        let kept = [("secure".to_owned(), 3), ("vulnerable".to_owned(), 2)].into();
        let mut counts = Counts { kept, ..Counts::default() };
        let loss = LossRecipe { kind: LossKind::Dpo, ..LossRecipe::default() };
        let mut with_likelihood = pairs.clone();
        let weighted = LossRecipe { nll_weight: 1.0, ..loss }.resolved();
        drop_single_sides(&mut with_likelihood, &weighted, &mut counts.clone());
        assert!(with_likelihood[0].secure.is_some());
        let all = pairs.clone();
        drop_single_sides(&mut pairs, &loss.resolved(), &mut counts);
        assert!(pairs[0].secure.is_none() && pairs[1].secure.is_some());
        assert_eq!(counts.kept["secure"], 2);
        assert_eq!(counts.dropped["secure: the other side was dropped"], 1);
        // Of losses that take sides by themselves, only where that is asked for, and where they use both.
        let n_secure = |assignments: &[&str]| {
            let (mut pairs, loss) = (all.clone(), recipe(assignments).loss.resolved());
            drop_single_sides(&mut pairs, &loss, &mut Counts::default());
            pairs.iter().filter(|pair| pair.secure.is_some()).count()
        };
        for kind in ["safecoder", "sven", "nll"].map(|kind| format!("loss.kind={kind}")) {
            assert_eq!(n_secure(&[&kind]), 3);
            assert_eq!(n_secure(&[&kind, "loss.one_sided=next_token"]), 3);
            let n = if kind.ends_with("nll") { 3 } else { 2 };
            assert_eq!(n_secure(&[&kind, "loss.one_sided=drop"]), n);
        }
        assert_eq!(n_secure(&["loss.kind=simpo", "loss.nll_weight=1", "loss.one_sided=drop"]), 2);
    }

    #[test]
    fn left_over_micro_batches_go_on_to_the_next_epoch() {
        // 60 samples in micro-batches of 7: 9 of them, so 2 steps of 4, and one of 4 samples is left over.
        let extra = ["training.batch_size=7", "training.leftover=carry"];
        for clip in ["training.clip_per=step", "training.clip_per=micro_batch"] {
            let carried = || plan(&[extra[0], extra[1], clip]);
            let mut whole = carried();
            assert_eq!((whole.steps_per_epoch(), whole.total_steps()), (2, 10));
            let steps: Vec<_> = (0..10).map(|i| ids(&mut whole, i)).collect();
            let sizes: Vec<usize> = steps.iter().map(Vec::len).collect();
            assert_eq!(sizes, [28, 28, 32, 28, 32, 28, 32, 28, 32, 28]);
            // What would make a smaller third step stands before the next epoch's.
            let rest = ids(&mut plan(&[extra[0], clip]), 2);
            assert!(rest.len() == 4 && rest.iter().all(|id| steps[2].contains(id)), "{rest:?}");
            for i in [8, 2, 3] {
                assert_eq!(ids(&mut carried(), i), steps[i], "step {i}");
            }
            // Every sample weighs as much as one of a full step.
            for batch in whole.step(2).batches {
                assert_eq!(batch.scale, 1.0 / 28.0);
            }
        }
    }

    #[test]
    fn what_weighs_nothing_takes_no_part() {
        assert_eq!(plan(&["loss.weights.utility=0"]).samples_per_epoch(), 20);
        assert_eq!(plan(&["loss.weights.unlikelihood=0"]).samples_per_epoch(), 10 + 20);
        let control = plan(&["loss.weights.utility=0", "loss.kind=utility_only"]);
        assert_eq!(control.samples_per_epoch(), 20 + 40);
    }

    #[test]
    fn classes_by_extension_and_language() {
        let mut pair = crate::testing::pair("p", "", "a", "b");
        pair.file_name = Some("src/x.pyi".to_owned());
        assert_eq!(class_of(&pair, OversamplingBy::Extension), ["pyi", "CWE-078"]);
        assert_eq!(class_of(&pair, OversamplingBy::Language), ["python", "CWE-078"]);
        pair.file_name = None;
        assert_eq!(class_of(&pair, OversamplingBy::Extension), ["py", "CWE-078"]);
    }
}
