//! Everything a run reads, read and hashed before anything starts.

use std::path::{Path, PathBuf};

use hardn_lab::{UtilityRow, World, WorldOptions};
use hardn_train::{Columns, UtilityItem, read_utility_with};
use hardn_types::{DataSource, FixPair, Scenario, Split};
use sha2::{Digest, Sha256};

use super::config::{RunConfig, WorldConfig};
use crate::{
    failure::{Context, Failure, Outcome},
    improve,
};

/// Data of a run.
#[derive(Default)]
pub(crate) struct Inputs {
    /// Fix pairs to train on.
    pub(crate) pairs: Vec<FixPair>,
    /// Fix pairs to validate on.
    pub(crate) validation_pairs: Vec<FixPair>,
    /// Utility rows to train on.
    pub(crate) utility: Vec<UtilityItem>,
    /// Scenarios and tasks on which models are sampled while they are trained, where suites of them are named.
    pub(crate) validation_suite: Vec<Scenario>,
    /// The world's scenarios and tasks of the split `val`.
    pub(crate) world_validation: Vec<Scenario>,
    /// Scenarios and tasks of the split that is reported.
    pub(crate) suite: Vec<Scenario>,
    /// Scenarios to sample the model on and train it on what it wrote, for `hardn improve`.
    pub(crate) training_suite: Vec<Scenario>,
    /// The model's own secure samples, which are learnt as utility rows are; the utility control does without them.
    pub(crate) own_secure: Vec<UtilityItem>,
    /// All that is evaluated on, rows of `val` and `test` that are not reported included: nothing of it may be trained on.
    pub(crate) held_out: Vec<Scenario>,
    /// Fix pairs on which likelihood preference is measured, by set.
    pub(crate) preference: Vec<(String, Vec<FixPair>)>,
    /// What was read.
    pub(crate) sources: Vec<DataSource>,
    /// What a reader of the report must know.
    pub(crate) notes: Vec<String>,
    /// The run uses the lab's world.
    pub(crate) lab: bool,
}

/// Reads everything the configuration names; training data by the recipe's columns.
pub(crate) fn read(config: &RunConfig, columns: &Columns) -> Outcome<Inputs> {
    let mut inputs = Inputs::default();
    if let Some(world) = &config.world {
        inputs.add_world(world, config)?;
    }
    if let Some(train) = &config.train {
        for path in &train.pairs {
            let pairs = inputs.read_pairs("training pairs", path, columns)?;
            inputs.pairs.extend(pairs);
        }
        for path in &train.validation_pairs {
            let pairs = inputs.read_pairs("validation pairs", path, columns)?;
            inputs.validation_pairs.extend(pairs);
        }
        for path in &train.utility {
            let rows = read_utility_with(path, columns)?;
            inputs.note_source("utility rows", path, rows.len(), file_digest(path)?, Vec::new());
            inputs.utility.extend(rows);
        }
        for path in &train.validation_suites {
            let mut rows = hardn_code::read_scenarios(path)
                .context(format!("reading the suite {}", path.display()))?;
            rows.retain(|scenario| scenario.split == Split::Val);
            inputs.note_source("validation suite", path, rows.len(), digest(&rows)?, Vec::new());
            inputs.held_out.extend(rows.iter().cloned());
            inputs.validation_suite.extend(rows);
        }
        if inputs.pairs.is_empty() && config.improve.is_none() {
            return Err(Failure::new("there are no fix pairs to train on")
                .help("name them under `train.pairs`, or give a `world`"));
        }
    }
    for path in &config.eval.suites {
        inputs.add_suite(path, config)?;
    }
    for path in &config.eval.preference_pairs {
        let pairs = inputs.read_pairs("preference pairs", path, &Columns::default())?;
        inputs.preference.push((set_name(path), pairs));
    }
    if inputs.preference.is_empty() && !inputs.validation_pairs.is_empty() {
        inputs.preference.push(("validation pairs".to_owned(), inputs.validation_pairs.clone()));
    }
    inputs.check_ids()?;
    if let Some(improve) = &config.improve {
        inputs.training_suite = improve::training_suite(config, improve, &mut inputs)?;
    }
    Ok(inputs)
}

/// The world of the lab that a configuration asks for.
pub(crate) fn world(config: &WorldConfig) -> Outcome<World> {
    if let Some(path) = &config.path {
        return World::read(path).context(format!("reading the world in {}", path.display()));
    }
    let options = WorldOptions {
        seed: config.seed.unwrap_or(1),
        idioms: config.idioms.clone(),
        n_pretrain_documents: 0,
        ..WorldOptions::default()
    };
    hardn_lab::generate(&options).context("generating the lab's world")
}

impl Inputs {
    fn add_world(&mut self, source: &WorldConfig, config: &RunConfig) -> Outcome {
        let world = world(source)?;
        self.lab = true;
        let split = config.eval.split;
        let rows = || world.scenarios.iter().chain(&world.tasks);
        let suite: Vec<Scenario> = rows().filter(|s| split.takes(s.split)).cloned().collect();
        self.held_out.extend(rows().cloned());
        self.world_validation = rows().filter(|s| s.split == Split::Val).cloned().collect();
        let name = Path::new("lab");
        let row_digest = |rows: &[FixPair]| digest(rows);
        self.note_source(
            "training pairs",
            name,
            world.pairs_train.len(),
            row_digest(&world.pairs_train)?,
            Vec::new(),
        );
        self.note_source(
            "validation pairs",
            name,
            world.pairs_val.len(),
            row_digest(&world.pairs_val)?,
            Vec::new(),
        );
        self.note_source(
            "utility rows",
            name,
            world.utility_train.len(),
            digest(&world.utility_train)?,
            Vec::new(),
        );
        self.note_source("suite", name, suite.len(), digest(&suite)?, Vec::new());
        self.pairs = world.pairs_train;
        self.validation_pairs = world.pairs_val;
        self.utility = world.utility_train.iter().enumerate().map(utility_item).collect();
        self.suite = suite;
        Ok(())
    }

    fn add_suite(&mut self, path: &Path, config: &RunConfig) -> Outcome {
        let all = hardn_code::read_scenarios(path)
            .context(format!("reading the suite {}", path.display()))?;
        let rows = all.len();
        let split = config.eval.split;
        let is_held_out = |s: &&Scenario| s.split != Split::Train || split.takes(s.split);
        self.held_out.extend(all.iter().filter(is_held_out).cloned());
        let kept: Vec<Scenario> = all.into_iter().filter(|s| split.takes(s.split)).collect();
        let mut notes = Vec::new();
        if kept.len() < rows {
            notes.push(format!("{} of {rows} rows are of another split", rows - kept.len()));
        }
        self.note_source("suite", path, kept.len(), digest(&kept)?, notes);
        self.suite.extend(kept);
        Ok(())
    }

    fn read_pairs(
        &mut self,
        purpose: &str,
        path: &Path,
        columns: &Columns,
    ) -> Outcome<Vec<FixPair>> {
        let (pairs, errors) = hardn_code::read_pairs_with(path, &columns.of_pairs())?;
        let mut notes: Vec<String> = errors.iter().take(3).map(ToString::to_string).collect();
        if errors.len() > 3 {
            notes.push(format!("and {} more rows that cannot be used", errors.len() - 3));
        }
        if pairs.is_empty() {
            let first = notes.first().cloned().unwrap_or_default();
            return Err(Failure::new(format!(
                "{} holds no usable fix pair: {first}",
                path.display()
            )));
        }
        if !errors.is_empty() {
            self.notes.push(format!("{}: {} rows could not be used", set_name(path), errors.len()));
        }
        self.note_source(purpose, path, pairs.len(), digest(&pairs)?, notes);
        Ok(pairs)
    }

    pub(crate) fn note_source(
        &mut self,
        purpose: &str,
        path: &Path,
        rows: usize,
        sha256: String,
        notes: Vec<String>,
    ) {
        self.sources.push(DataSource {
            purpose: purpose.to_owned(),
            name: set_name(path),
            rows,
            sha256,
            notes,
        });
    }

    /// Scenario ids must be unique: samples and verdicts are kept by them.
    fn check_ids(&self) -> Outcome {
        let mut seen = std::collections::BTreeSet::new();
        for scenario in &self.suite {
            if !seen.insert(scenario.id.as_str()) {
                return Err(Failure::new(format!("two scenarios have the id `{}`", scenario.id))
                    .help("rename one, or leave one of the suites out"));
            }
        }
        Ok(())
    }
}

fn utility_item((i, row): (usize, &UtilityRow)) -> UtilityItem {
    UtilityItem {
        id: format!("utility {i}"),
        prompt: row.prompt.clone(),
        completion: row.completion.clone(),
        instruction: row.instruction.clone(),
        language: Some(row.language),
        ..UtilityItem::default()
    }
}

/// The last two parts of a path: enough to tell sets apart, and no machine's own folders.
pub(crate) fn set_name(path: &Path) -> String {
    let parts: Vec<_> =
        path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// SHA-256 of rows as JSON Lines.
pub(crate) fn digest<T: serde::Serialize>(rows: &[T]) -> Outcome<String> {
    let mut hash = Sha256::new();
    for row in rows {
        hash.update(serde_json::to_vec(row)?);
        hash.update(b"\n");
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn file_digest(path: &PathBuf) -> Outcome<String> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Ok(format!("{:x}", Sha256::digest(bytes)))
}
