//! Checkpoints: everything a training needs to go on, written so that a kill leaves whole ones only.
//!
//! A checkpoint is a folder `step-00000012` with `state.json` and `state.safetensors` (values and both moments of
//! every trained variable). It is written under another name, synced and renamed, so a folder of that name is complete.
//! Nothing random is kept: dropout, shuffles and draws are functions of the seed and the step.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";

/// What `state.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What the training is made of: recipe, data, model. By name, so that a difference can be named.
    pub(crate) identity: BTreeMap<String, String>,
    /// Steps done.
    pub(crate) step: usize,
    /// Updates the optimiser made.
    pub(crate) updates: usize,
    /// Tokens seen, without padding.
    pub(crate) tokens: u64,
    /// The step of the best validation so far, and what it is best by: a loss, or a score with its sign turned.
    pub(crate) best: Option<(usize, f64)>,
    /// Validations in a row that were not better.
    #[serde(default)]
    pub(crate) stale: usize,
}

/// The checkpoints of one training.
pub(crate) struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    pub(crate) fn new(dir: PathBuf, keep: usize) -> Self {
        Self { dir, keep: keep.max(1) }
    }

    pub(crate) fn path(&self, step: usize) -> PathBuf {
        self.dir.join(format!("step-{step:08}"))
    }

    /// Steps of the complete checkpoints, ascending.
    pub(crate) fn steps(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut steps: Vec<usize> =
            entries.filter_map(|entry| name(entry).strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }

    /// Writes a checkpoint, then removes those that are neither among the last nor the best.
    pub(crate) fn save(&self, state: &State, tensors: BTreeMap<String, Tensor>) -> Result<PathBuf> {
        let path = self.path(state.step);
        if !path.exists() {
            let temporary = self.dir.join(format!(".writing-{:08}", state.step));
            if let Err(error) = fill(&temporary, state, tensors) {
                // On a full disk what is half written would keep others from writing.
                let _ = remove(&temporary);
                return Err(error);
            }
            fs::rename(&temporary, &path).map_err(TrainError::file("rename to", &path))?;
            sync(&self.dir)?;
        }
        self.prune(state.best.map(|(step, _)| step))?;
        Ok(path)
    }

    /// Removes what a kill left half written.
    pub(crate) fn clean(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".writing-") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Reads a checkpoint onto the CPU.
    pub(crate) fn load(&self, step: usize) -> Result<(State, HashMap<String, Tensor>)> {
        let path = self.path(step);
        let error = |message: String| TrainError::Checkpoint { path: path.clone(), message };
        let json = fs::read(path.join(STATE)).map_err(|e| error(format!("{STATE}: {e}")))?;
        let state = serde_json::from_slice(&json).map_err(|e| error(format!("{STATE}: {e}")))?;
        let tensors = candle_core::safetensors::load(path.join(TENSORS), &Device::Cpu)
            .map_err(|e| error(format!("{TENSORS}: {e}")))?;
        Ok((state, tensors))
    }

    fn prune(&self, best: Option<usize>) -> Result<()> {
        let steps = self.steps();
        for &step in steps.iter().rev().skip(self.keep) {
            if Some(step) != best {
                // Renamed first: a folder that is half removed must not look complete.
                let doomed = self.dir.join(format!(".writing-{step:08}"));
                remove(&doomed)?;
                fs::rename(self.path(step), &doomed)
                    .map_err(TrainError::file("rename", &doomed))?;
                remove(&doomed)?;
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint's files to a new folder and waits until they are on the disk.
fn fill(dir: &Path, state: &State, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    remove(dir)?;
    fs::create_dir_all(dir).map_err(TrainError::file("create", dir))?;
    let file = dir.join(TENSORS);
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    let failed = |e: candle_core::Error| std::io::Error::other(e.to_string());
    let saved = candle_core::safetensors::save(&tensors, &file).map_err(failed);
    saved.map_err(TrainError::file("write the checkpoint", &file))?;
    sync(&file)?;
    let json = serde_json::to_vec_pretty(state).unwrap_or_default();
    hardn_types::write_atomic(&dir.join(STATE), &json)?;
    sync(dir)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(TrainError::file("remove", path))?;
    }
    Ok(())
}

/// Waits until a file's or folder's contents are on the disk.
fn sync(path: &Path) -> Result<()> {
    let file = fs::File::open(path).map_err(TrainError::file("open", path))?;
    file.sync_all().map_err(TrainError::file("sync", path))
}

/// Fills a new folder and puts it in place of `dir` in one rename; what was there before is removed.
pub(crate) fn write_folder(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = std::ffi::OsString::from(".writing-");
    name.push(dir.file_name().unwrap_or_default());
    let temporary = dir.with_file_name(name);
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(TrainError::file("create", &temporary))?;
    fill(&temporary)?;
    for entry in fs::read_dir(&temporary).into_iter().flatten().flatten() {
        sync(&entry.path())?;
    }
    remove(dir)?;
    fs::rename(&temporary, dir).map_err(TrainError::file("rename to", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: usize, best: Option<usize>) -> State {
        State {
            identity: BTreeMap::new(),
            step,
            updates: step,
            tokens: 7,
            best: best.map(|step| (step, 0.5)),
            stale: 0,
        }
    }

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        BTreeMap::from([("value.w".to_owned(), Tensor::new(&[value], &Device::Cpu).unwrap())])
    }

    #[test]
    fn the_last_and_the_best_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().join("checkpoints"), 2);
        for step in 1..=6 {
            checkpoints.save(&state(step, Some(2)), tensors(step as f32)).unwrap();
        }
        assert_eq!(checkpoints.steps(), [2, 5, 6]);
        let (loaded, values) = checkpoints.load(2).unwrap();
        assert_eq!(loaded, state(2, Some(2)));
        assert_eq!(values["value.w"].to_vec1::<f32>().unwrap(), [2.0]);
    }

    #[test]
    fn a_half_written_checkpoint_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().to_owned(), 2);
        checkpoints.save(&state(3, None), tensors(3.0)).unwrap();
        let half = dir.path().join(".writing-00000004");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join(TENSORS), b"torn").unwrap();
        assert_eq!(checkpoints.steps(), [3]);
        checkpoints.clean().unwrap();
        assert!(!half.exists());
        checkpoints.save(&state(4, None), tensors(4.0)).unwrap();
        assert_eq!(checkpoints.steps(), [3, 4]);
    }

    #[test]
    fn a_damaged_checkpoint_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(dir.path().to_owned(), 2);
        let path = checkpoints.save(&state(1, None), tensors(1.0)).unwrap();
        fs::write(path.join(TENSORS), b"torn").unwrap();
        let error = checkpoints.load(1).unwrap_err().to_string();
        assert!(error.contains("step-00000001") && error.contains(TENSORS), "{error}");
    }
}
