//! A run's folder: what is in it, and whether it belongs to the run that is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hardn_types::{write_atomic, write_jsonl};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// What says which run a folder belongs to.
const IDENTITY: &str = "identity.json";

/// A run's folder.
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, or takes up the run that is in it.
    ///
    /// A folder that holds a run of another configuration, model or data is an error unless `fresh` throws it away.
    pub(crate) fn open(path: &Path, identity: &Value, fresh: bool) -> Outcome<Self> {
        let folder = Self { path: path.to_owned() };
        let file = folder.file(IDENTITY);
        if fresh && file.exists() {
            fs::remove_dir_all(path).map_err(|error| {
                Failure::new(format!("cannot clear {}: {error}", path.display()))
            })?;
        }
        if let Ok(bytes) = fs::read(&file) {
            let there: Value = serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", file.display()))
            })?;
            if there != *identity {
                let differs = first_difference(&there, identity, "");
                return Err(Failure::new(format!(
                    "{} holds another run: `{differs}` differs",
                    path.display()
                ))
                .help("choose another folder with --out, or throw the old run away with --fresh"));
            }
        } else if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::new(format!("{} is not empty and holds no run", path.display()))
                .help("choose another folder with --out"));
        }
        folder.write_json(IDENTITY, identity)?;
        Ok(folder)
    }

    /// A folder in the run's, for records of its own.
    pub(crate) fn inner(&self, name: &str) -> Self {
        Self { path: self.path.join(name) }
    }

    /// A file of the run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of an arm's training.
    pub(crate) fn training(&self, arm: &str) -> PathBuf {
        self.path.join("training").join(arm)
    }

    /// Writes a JSON file, atomically, indented.
    pub(crate) fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Outcome {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        Ok(write_atomic(&self.file(name), &bytes)?)
    }

    /// Writes a JSON Lines file, atomically.
    pub(crate) fn write_rows<T: Serialize>(&self, name: &str, rows: &[T]) -> Outcome {
        Ok(write_jsonl(&self.file(name), rows)?)
    }
}

/// The key of the first value that differs, such as `config.eval.samples`.
fn first_difference(a: &Value, b: &Value, at: &str) -> String {
    let inner = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let (x, y) =
                    (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                if x != y {
                    return first_difference(x, y, &inner(key));
                }
            }
            at.to_owned()
        }
        _ => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_run_in_the_folder_is_named_and_kept() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path().join("run");
        RunFolder::open(&run, &json!({"config": {"seed": 1}}), false).unwrap();
        RunFolder::open(&run, &json!({"config": {"seed": 1}}), false).unwrap();
        let error = RunFolder::open(&run, &json!({"config": {"seed": 2}}), false).err().unwrap();
        assert!(format!("{error:?}").contains("config.seed"));
        RunFolder::open(&run, &json!({"config": {"seed": 2}}), true).unwrap();
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("thesis.tex"), "x").unwrap();
        assert!(RunFolder::open(place.path(), &json!({}), true).is_err());
        assert!(place.path().join("thesis.tex").exists());
    }
}
