//! The keys of `[improve]`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

/// How to train a model on its own samples.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ImproveConfig {
    /// Rounds of sampling, judging and training.
    pub(crate) rounds: u32,
    /// Samples of each training scenario in a round.
    pub(crate) samples: u32,
    /// Training scenarios: files or published folders, of which the rows of the split `train` are used; without any, the
    /// lab's own where the run has a world.
    pub(crate) suites: Vec<PathBuf>,
    /// How many training scenarios the lab makes.
    pub(crate) scenarios: usize,
    /// Overrides of the decoder's keys while samples to train on are drawn; after those of `eval.set`.
    pub(crate) set: BTreeMap<String, toml::Value>,
    /// What says whether a sample is secure.
    pub(crate) judge: JudgeKind,
    /// What is made of the samples.
    pub(crate) keep: Keep,
    /// The most pairs, and the most secure samples, of one prompt in one round.
    pub(crate) per_prompt: usize,
    /// What a round's training starts from, and what data it has.
    pub(crate) from: StartFrom,
    /// Train on the run's fix pairs too: those of `train.pairs` or of the world.
    pub(crate) fix_pairs: bool,
}

impl Default for ImproveConfig {
    fn default() -> Self {
        Self {
            rounds: 2,
            samples: 8,
            suites: Vec::new(),
            scenarios: 200,
            set: BTreeMap::new(),
            judge: JudgeKind::Oracle,
            keep: Keep::Pairs,
            per_prompt: 2,
            from: StartFrom::Base,
            fix_pairs: false,
        }
    }
}

/// What says whether a sample is secure. Whether it is right, its function test says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JudgeKind {
    /// The oracle; attack tests are not run.
    Oracle,
    /// The scenario's attack test.
    Attack,
}

/// What is made of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keep {
    /// Pairs of a secure and right sample and a vulnerable one of the same prompt.
    Pairs,
    /// The secure and right samples alone, each learnt whole (rejection sampling).
    Secure,
    /// Pairs, and the secure and right samples as utility rows of the source `own_secure`.
    Both,
}

/// What a round's training starts from, and what data it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartFrom {
    /// The base model, on what all rounds so far gave.
    Base,
    /// The model of the round before, on what this round gave.
    Previous,
}

impl ImproveConfig {
    /// An error where a number makes no sense.
    pub(crate) fn check(&self) -> Outcome {
        for (name, value) in [
            ("rounds", self.rounds as usize),
            ("samples", self.samples as usize),
            ("scenarios", self.scenarios),
            ("per_prompt", self.per_prompt),
        ] {
            if value == 0 {
                return Err(Failure::new(format!("`improve.{name}` is 0, but must be at least 1")));
            }
        }
        if self.samples == 1 && self.keep == Keep::Pairs {
            return Err(Failure::new("`improve.samples` is 1, and a pair takes two of one prompt")
                .help("draw more samples, or keep \"secure\" ones alone"));
        }
        Ok(())
    }
}
