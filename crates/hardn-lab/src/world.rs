//! A world: everything one seed gives, and its files.

use std::path::{Path, PathBuf};

use hardn_types::{FixPair, Label, Language, Scenario, read_jsonl, write_atomic, write_jsonl};
use serde::{Deserialize, Serialize};

use crate::{LabError, Manifest, Result};

/// What to make. Sizes are upper bounds: a theme with few names may give less.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldOptions {
    /// Everything is drawn from it.
    pub seed: u64,
    /// New styles, names and wordings.
    pub idioms: Option<PathBuf>,
    /// Themes of a folder instead of the shipped ones.
    pub themes: Option<PathBuf>,
    /// A folder of real code to mix into pretraining text.
    pub extra: Option<PathBuf>,
    /// Share of pretraining documents that are real code, where there is any.
    pub extra_share: f64,
    /// Pretraining documents. The rest of the world does not depend on it.
    pub n_pretrain_documents: usize,
    /// Share of them that are tasks with answers.
    pub instruction_share: f64,
    /// Share of them that are code with a hole.
    pub fim_share: f64,
    /// Fix pairs, those for validation included.
    pub n_pairs: usize,
    /// Utility rows.
    pub n_utility_rows: usize,
    /// Security scenarios of the test split.
    pub n_test_scenarios: usize,
    /// Security scenarios of the validation split.
    pub n_val_scenarios: usize,
    /// Tasks of the test split.
    pub n_test_tasks: usize,
    /// Tasks of the validation split.
    pub n_val_tasks: usize,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            idioms: None,
            themes: None,
            extra: None,
            extra_share: 0.2,
            n_pretrain_documents: 60_000,
            instruction_share: 0.2,
            fim_share: 0.05,
            n_pairs: 1_500,
            n_utility_rows: 3_000,
            n_test_scenarios: 90,
            n_val_scenarios: 30,
            n_test_tasks: 60,
            n_val_tasks: 20,
        }
    }
}

/// The form of a pretraining document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DocumentKind {
    /// A program as it is.
    Code,
    /// A task and its answer.
    Instruction,
    /// A program with a hole, and what fills it.
    Fim,
    /// A piece of real code.
    Extra,
}

/// A pretraining document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The text.
    pub text: String,
    /// Its form.
    pub kind: DocumentKind,
    /// The theme; `extra` for real code.
    pub theme: String,
    /// The family; a file's name for real code.
    pub family: String,
    /// What it is; `None` where there is nothing to attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// The idiom; empty for real code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub idiom: String,
}

/// A prompt and a right completion that have nothing to do with fixes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UtilityRow {
    /// The text a completion continues.
    pub prompt: String,
    /// The rest of the program.
    pub completion: String,
    /// What is asked for, in one sentence.
    #[serde(default)]
    pub instruction: String,
    /// The language of both.
    pub language: Language,
    /// The family.
    #[serde(default)]
    pub family: String,
}

/// Everything one seed gives.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// What it was made from and what is in it.
    pub manifest: Manifest,
    /// Text to pretrain base models on.
    pub pretrain: Vec<Document>,
    /// Fix pairs to train on.
    pub pairs_train: Vec<FixPair>,
    /// Fix pairs to validate on.
    pub pairs_val: Vec<FixPair>,
    /// Utility rows to train on.
    pub utility_train: Vec<UtilityRow>,
    /// Security scenarios, validation and test.
    pub scenarios: Vec<Scenario>,
    /// Utility tasks, validation and test.
    pub tasks: Vec<Scenario>,
}

impl World {
    /// Writes `pretrain.jsonl`, `pairs.train.jsonl`, `pairs.val.jsonl`, `utility.train.jsonl`, `scenarios.jsonl`,
    /// `tasks.jsonl` and, last, `world.json` into a folder. Each file is old or new, never half.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_jsonl(&dir.join("pretrain.jsonl"), &self.pretrain)?;
        write_jsonl(&dir.join("pairs.train.jsonl"), &self.pairs_train)?;
        write_jsonl(&dir.join("pairs.val.jsonl"), &self.pairs_val)?;
        write_jsonl(&dir.join("utility.train.jsonl"), &self.utility_train)?;
        write_jsonl(&dir.join("scenarios.jsonl"), &self.scenarios)?;
        write_jsonl(&dir.join("tasks.jsonl"), &self.tasks)?;
        let path = dir.join("world.json");
        let mut bytes = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|source| LabError::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        write_atomic(&path, &bytes)?;
        Ok(())
    }

    /// Reads what [`World::write`] wrote. Without `pretrain.jsonl` the pretraining text is empty.
    ///
    /// # Errors
    /// A file that is not there or not of the form.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let pretrain = dir.join("pretrain.jsonl");
        Ok(Self {
            manifest,
            pretrain: if pretrain.exists() { read_jsonl(&pretrain)? } else { Vec::new() },
            pairs_train: read_jsonl(&dir.join("pairs.train.jsonl"))?,
            pairs_val: read_jsonl(&dir.join("pairs.val.jsonl"))?,
            utility_train: read_jsonl(&dir.join("utility.train.jsonl"))?,
            scenarios: read_jsonl(&dir.join("scenarios.jsonl"))?,
            tasks: read_jsonl(&dir.join("tasks.jsonl"))?,
        })
    }
}
