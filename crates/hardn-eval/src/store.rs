//! Records of a run: appended one by one, complete after a kill, in the same order at the end.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use hardn_types::{Sample, Verdict, append_jsonl, write_jsonl};
use serde::{Serialize, de::DeserializeOwned};

use crate::{EvalError, Result};

/// Which sample of a run a record is about. Records are sorted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The arm of the comparison.
    pub arm: String,
    /// The scenario's id.
    pub task: String,
    /// The number of the sample.
    pub index: u32,
}

/// A row that belongs to one sample.
pub trait Record: Clone + Serialize + DeserializeOwned {
    /// The sample it belongs to.
    fn record_key(&self) -> RecordKey;

    /// The hash of what determined the sample.
    fn determined_by(&self) -> &str;
}

impl Record for Sample {
    fn record_key(&self) -> RecordKey {
        RecordKey { arm: self.arm.clone(), task: self.task.clone(), index: self.index }
    }

    fn determined_by(&self) -> &str {
        &self.key
    }
}

impl Record for Verdict {
    fn record_key(&self) -> RecordKey {
        RecordKey { arm: self.arm.clone(), task: self.task.clone(), index: self.index }
    }

    fn determined_by(&self) -> &str {
        &self.key
    }
}

/// A JSON Lines file of records that is only ever appended to, until [`Store::canonicalise`] puts it in order.
///
/// Each append is one write, so that a kill can leave at most one torn line, at the end; opening drops it.
pub struct Store<T> {
    path: PathBuf,
    file: File,
    rows: BTreeMap<RecordKey, T>,
}

impl<T: Record> Store<T> {
    /// Opens or creates a file of records and locks it against other processes.
    ///
    /// # Errors
    /// [`EvalError::InUse`], a file that cannot be read or written, or a malformed row that is not the last one.
    pub fn open(path: &Path) -> Result<Self> {
        let write_error = |source| EvalError::Write { path: path.to_owned(), source };
        let read_error = |source| EvalError::Read { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(write_error)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(write_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EvalError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(write_error(source)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read_error)?;
        let (rows, whole) = read_rows(path, &bytes)?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(write_error)?;
            file.seek(SeekFrom::End(0)).map_err(write_error)?;
        }
        Ok(Self { path: path.to_owned(), file, rows })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records by key. Of several with the same key the last one counts.
    pub fn rows(&self) -> &BTreeMap<RecordKey, T> {
        &self.rows
    }

    /// The records in the order of their keys.
    pub fn to_vec(&self) -> Vec<T> {
        self.rows.values().cloned().collect()
    }

    /// Adds a record, in one write.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&mut self, row: T) -> Result<()> {
        append_jsonl(&mut self.file, &self.path, &row)?;
        self.rows.insert(row.record_key(), row);
        Ok(())
    }

    /// Forgets the records that no longer hold, such as those of another model. The file still has them until
    /// newer ones take their place or [`Store::canonicalise`] writes it anew.
    pub fn retain(&mut self, mut holds: impl FnMut(&T) -> bool) {
        self.rows.retain(|_, row| holds(row));
    }

    /// The sample numbers from 0 to `n - 1` that an arm still lacks for a task.
    pub fn missing(&self, arm: &str, task: &str, n: u32) -> Vec<u32> {
        let mut key = RecordKey { arm: arm.to_owned(), task: task.to_owned(), index: 0 };
        (0..n)
            .filter(|&index| {
                key.index = index;
                !self.rows.contains_key(&key)
            })
            .collect()
    }

    /// Rewrites the file in the order of the keys, atomically: a run that was killed and resumed ends with the same
    /// bytes as one that was not.
    ///
    /// # Errors
    /// A file that cannot be written; then the old one stays.
    pub fn canonicalise(self) -> Result<Vec<T>> {
        let rows: Vec<T> = self.rows.into_values().collect();
        write_jsonl(&self.path, &rows)?;
        Ok(rows)
    }
}

impl Store<Verdict> {
    /// Which samples still lack a verdict, or have one on an older sample.
    pub fn unjudged<'a>(&self, samples: &'a Store<Sample>) -> Vec<&'a Sample> {
        let is_judged = |key: &RecordKey, sample: &Sample| {
            self.rows.get(key).is_some_and(|verdict| verdict.key == sample.key)
        };
        samples
            .rows
            .iter()
            .filter(|(key, sample)| !is_judged(key, sample))
            .map(|(_, s)| s)
            .collect()
    }
}

/// The rows of a file's content, and how many of its bytes are whole rows.
fn read_rows<T: Record>(path: &Path, bytes: &[u8]) -> Result<(BTreeMap<RecordKey, T>, usize)> {
    let mut rows = BTreeMap::new();
    let mut start = 0;
    let mut line = 0;
    while let Some(length) = bytes[start..].iter().position(|&byte| byte == b'\n') {
        line += 1;
        let text = &bytes[start..start + length];
        let is_last = start + length + 1 == bytes.len();
        if !text.trim_ascii().is_empty() {
            match serde_json::from_slice::<T>(text) {
                Ok(row) => {
                    rows.insert(row.record_key(), row);
                }
                Err(_) if is_last => return Ok((rows, start)),
                Err(source) => {
                    return Err(EvalError::Row { path: path.to_owned(), line, source });
                }
            }
        }
        start += length + 1;
    }
    Ok((rows, start))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hardn_types::FinishReason;

    use super::*;

    fn sample(task: &str, index: u32) -> Sample {
        Sample {
            arm: "base".to_owned(),
            task: task.to_owned(),
            index,
            key: format!("{task}{index}"),
            text: format!("x = {index}\n"),
            ids: vec![1],
            token_chars: vec![2],
            log_probs: vec![-0.1],
            authors: String::new(),
            prompt: None,
            repairs: 0,
            finish: FinishReason::Stop,
        }
    }

    #[test]
    fn a_killed_run_ends_with_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, killed) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
        let mut store = Store::open(&whole).unwrap();
        for (task, index) in [("t", 0), ("t", 1), ("u", 0), ("u", 1)] {
            store.append(sample(task, index)).unwrap();
        }
        store.canonicalise().unwrap();

        let mut store = Store::open(&killed).unwrap();
        store.append(sample("u", 1)).unwrap();
        store.append(sample("t", 1)).unwrap();
        drop(store);
        let torn = serde_json::to_string(&sample("t", 0)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&killed).unwrap();
        file.write_all(&torn.as_bytes()[..40]).unwrap();
        drop(file);

        let mut store: Store<Sample> = Store::open(&killed).unwrap();
        assert_eq!(store.missing("base", "t", 2), [0]);
        assert_eq!(store.missing("base", "u", 2), [0]);
        assert_eq!(store.missing("other", "u", 2), [0, 1]);
        store.append(sample("u", 0)).unwrap();
        store.append(sample("t", 0)).unwrap();
        assert_eq!(store.canonicalise().unwrap().len(), 4);
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&killed).unwrap());
    }

    #[test]
    fn one_process_at_a_time_and_no_silent_loss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let store: Store<Sample> = Store::open(&path).unwrap();
        assert!(matches!(Store::<Sample>::open(&path), Err(EvalError::InUse { .. })));
        drop(store);
        let row = serde_json::to_string(&sample("t", 0)).unwrap();
        std::fs::write(&path, format!("{{}}\n{row}\n")).unwrap();
        let error = Store::<Sample>::open(&path).err().unwrap().to_string();
        assert!(error.contains("samples.jsonl line 1"), "{error}");
    }
}
