//! What stands in a run folder's `run.json`: the resolved configuration and where everything came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an arm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The model as it came.
    Base,
    /// The model after hardening.
    Hardened,
    /// A model of the run under another decoder.
    Decoded,
    /// Something a method must beat to count.
    Control,
}

/// One arm of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Its key in `metrics.json`, such as `base`.
    pub id: String,
    /// Its name in tables.
    pub title: String,
    /// One sentence saying what it is.
    pub description: String,
    /// What it is for.
    pub role: Role,
    /// What determines its samples: model, adapter, decoder, seed.
    pub fingerprint: String,
}

/// A file or folder a run read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSource {
    /// What it was used for, such as `training pairs`.
    pub purpose: String,
    /// Its name as the configuration gives it.
    pub name: String,
    /// Rows read.
    pub rows: usize,
    /// SHA-256 of what was read.
    pub sha256: String,
    /// Anything a reader should know, such as rows that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One point of a loss curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Optimiser steps taken.
    pub step: usize,
    /// Mean training loss since the point before, in nats.
    pub train: Option<f64>,
    /// Validation losses by kind (`all`, `utility`, `secure`, `vulnerable`), in nats.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation: BTreeMap<String, f64>,
    /// Shares of 1 on small validation suites, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
}

/// What happened when an arm was trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The arm that was trained.
    pub arm: String,
    /// The resolved recipe.
    pub recipe: serde_json::Value,
    /// Optimiser steps taken.
    pub steps: usize,
    /// The step whose weights were kept.
    pub best_step: usize,
    /// Parameters that were trained.
    pub trainable_parameters: usize,
    /// Examples kept, by split and kind, such as `train secure`.
    pub kept: BTreeMap<String, usize>,
    /// Examples dropped, by split, kind and reason.
    pub dropped: BTreeMap<String, usize>,
    /// The loss curve.
    pub curve: Vec<LossPoint>,
}

/// Everything `run.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// What was run, for the head of the report.
    pub title: String,
    /// The run used the lab: its numbers are lab numbers.
    pub lab: bool,
    /// hardn's version.
    pub hardn: String,
    /// The seed everything was drawn from.
    pub seed: u64,
    /// The base model: name, fingerprint, parameters, context, vocabulary.
    pub model: BTreeMap<String, serde_json::Value>,
    /// The resolved configuration.
    pub config: serde_json::Value,
    /// The arms, in the order of the tables.
    pub arms: Vec<Arm>,
    /// Data that was read.
    pub data: Vec<DataSource>,
    /// Trainings, by arm.
    pub training: Vec<Training>,
    /// Versions of programs that took part: python3, gcc, oracle, rules, sandbox tier.
    pub tools: BTreeMap<String, String>,
    /// What a reader must know: what was skipped, what was cut, what failed.
    pub notes: Vec<String>,
    /// Keys of metrics whose judge also chose what an arm was trained on: they are marked, and never the headline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same_judge: Vec<String>,
}
