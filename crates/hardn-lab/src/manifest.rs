//! What a world was made from and what is in it.

use std::{collections::BTreeMap, fs, path::Path};

use hardn_types::{Cwe, Language};
use serde::{Deserialize, Serialize};

use crate::{LabError, Leak, Result};

/// What a world was made from and what is in it; `world.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the lab.
    pub lab_version: String,
    /// The seed.
    pub seed: u64,
    /// SHA-256 of the theme files.
    pub themes_sha256: String,
    /// SHA-256 of the idiom file, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idioms_sha256: Option<String>,
    /// Rows of each file.
    pub counts: BTreeMap<String, usize>,
    /// SHA-256 of each file.
    pub sha256: BTreeMap<String, String>,
    /// One row for each theme.
    pub themes: Vec<ThemeRow>,
    /// Share of vulnerable programs in pretraining text that each family was given.
    pub vulnerable_shares: BTreeMap<String, f64>,
    /// The mean of these.
    pub vulnerable_share_mean: f64,
    /// The share that was drawn, over all pretraining programs where the value is not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vulnerable_share_drawn: Option<f64>,
    /// Scenarios and tasks by split and group.
    pub groups: BTreeMap<String, usize>,
    /// Overlap of scenarios and tasks with the texts that models are trained on. Without pretraining text, its
    /// numbers for pretraining are 0 and mean nothing.
    pub leak: Leak,
}

impl Manifest {
    /// Reads `world.json` of a world's folder.
    ///
    /// # Errors
    /// A file that is not there or not of the form.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("world.json");
        let bytes =
            fs::read(&path).map_err(|source| LabError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| LabError::Json { path, source })
    }
}

/// A theme and what was made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThemeRow {
    /// The theme's id.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// The language of its programs.
    pub language: Language,
    /// The weakness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwe: Option<Cwe>,
    /// Operations.
    pub operations: usize,
    /// Settings, trusted ones included.
    pub settings: usize,
    /// Settings in which the value is trusted.
    pub trusted_settings: usize,
    /// Styles.
    pub styles: usize,
    /// Bodies over all styles.
    pub idioms: usize,
    /// Styles that no fix pair uses.
    pub held_out_styles: Vec<String>,
    /// No fix pair is made of the theme.
    pub unseen_weakness: bool,
    /// Pretraining documents.
    pub documents: usize,
    /// Fix pairs, for training and validation.
    pub pairs: usize,
    /// Utility rows.
    pub utility_rows: usize,
    /// Security scenarios.
    pub scenarios: usize,
    /// Tasks.
    pub tasks: usize,
}
