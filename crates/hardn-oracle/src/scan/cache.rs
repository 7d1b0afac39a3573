//! Results by content: the same text, language, mode, rules and engine give the same findings.
//!
//! One small file per result, `<first two digits>/<other digits>.json` of the key. Entries are written in place: a
//! reader that meets half an entry analyses the code itself, so that runs beside each other do no harm.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use hardn_types::{Analysis, Language};
use sha2::{Digest, Sha256};

use crate::{Mode, Oracle};

/// Bytes that the entries with the same first two digits may take; 256 times this is all.
const MAX_SHARD_BYTES: u64 = 1 << 20;

/// A folder of results.
#[derive(Debug)]
pub struct ScanCache {
    folder: PathBuf,
    max_shard_bytes: u64,
    /// What of a key depends on the language alone.
    prefixes: Mutex<BTreeMap<(Language, Mode), Sha256>>,
    /// Number of entries written per shard.
    written: Vec<AtomicUsize>,
    hits: AtomicUsize,
}

impl ScanCache {
    /// The cache in a folder, which is made when something is written.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            max_shard_bytes: MAX_SHARD_BYTES,
            prefixes: Mutex::default(),
            written: (0..256).map(|_| AtomicUsize::new(0)).collect(),
            hits: AtomicUsize::new(0),
        }
    }

    /// Results that were found in it so far.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// As [`Oracle::analyse`], from the cache where it can be. A cache that cannot be written is no error.
    pub fn analyse(&self, oracle: &Oracle, code: &str, language: Language, mode: Mode) -> Analysis {
        let mut hash = self.prefix(oracle, language, mode);
        hash.update(code);
        let key = hash.finalize();
        let shard = key[0];
        let folder = self.folder.join(format!("{shard:02x}"));
        let path = folder.join(&format!("{key:x}.json")[2..]);
        let read = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(analysis) = read {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return analysis;
        }
        let analysis = oracle.analyse(code, language, mode);
        if let Ok(bytes) = serde_json::to_vec(&analysis) {
            let first = self.written[shard as usize].fetch_add(1, Ordering::Relaxed) == 0;
            let made = !first || fs::create_dir_all(&folder).is_ok();
            let _ = made && fs::write(&path, bytes).is_ok();
        }
        analysis
    }

    /// Removes the oldest entries where this cache wrote and has grown too large.
    pub fn prune(&self) {
        for (shard, written) in self.written.iter().enumerate() {
            if written.load(Ordering::Relaxed) > 0 {
                self.prune_shard(shard);
            }
        }
    }

    fn prune_shard(&self, shard: usize) {
        let Ok(entries) = fs::read_dir(self.folder.join(format!("{shard:02x}"))) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let data = entry.metadata().ok()?;
                Some((data.modified().ok()?, data.len(), entry.path()))
            })
            .collect();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        if total <= self.max_shard_bytes {
            return;
        }
        files.sort();
        for (_, bytes, path) in files {
            // Some room is made, so that the next run need not come here.
            if total <= self.max_shard_bytes / 4 * 3 {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }

    fn prefix(&self, oracle: &Oracle, language: Language, mode: Mode) -> Sha256 {
        let mut prefixes = self.prefixes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        prefixes
            .entry((language, mode))
            .or_insert_with(|| {
                let mut hash = Sha256::new();
                let version = concat!(env!("CARGO_PKG_VERSION"), " ", env!("ENGINE_DIGEST"));
                let rules = oracle.rules().digest(language);
                hash.update(format!("{version}\0{rules}\0{language}\0{mode}\0"));
                hash
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "def f(x):\n    return eval(x)\n";

    fn analyse(cache: &ScanCache, code: &str, mode: Mode) -> Analysis {
        cache.analyse(Oracle::shared(), code, Language::Python, mode)
    }

    fn entries(cache: &ScanCache) -> Vec<PathBuf> {
        let shards = fs::read_dir(&cache.folder).unwrap();
        shards
            .flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    #[test]
    fn the_same_question_is_answered_from_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let cache = ScanCache::new(place.path().join("scan"));
        let first = analyse(&cache, CODE, Mode::Snippet);
        assert_eq!((cache.hits(), first.findings.len()), (0, 1));
        assert_eq!(analyse(&cache, CODE, Mode::Snippet), first);
        assert_eq!(cache.hits(), 1);
        assert!(analyse(&cache, CODE, Mode::Faithful).findings.is_empty());
        analyse(&cache, "x = 1\n", Mode::Snippet);
        assert_eq!((cache.hits(), entries(&cache).len()), (1, 3));
    }

    #[test]
    fn a_truncated_entry_is_written_again_and_a_folder_that_cannot_be_is_none() {
        let place = tempfile::tempdir().unwrap();
        let cache = ScanCache::new(place.path().join("scan"));
        let first = analyse(&cache, CODE, Mode::Snippet);
        let entry = entries(&cache).remove(0);
        let whole = fs::read(&entry).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&entry, &whole[..length]).unwrap();
            assert_eq!(analyse(&cache, CODE, Mode::Snippet), first);
            assert_eq!(fs::read(&entry).unwrap(), whole);
        }
        assert_eq!(cache.hits(), 0);
        fs::write(place.path().join("file"), "").unwrap();
        let broken = ScanCache::new(place.path().join("file"));
        assert_eq!(analyse(&broken, CODE, Mode::Snippet), first);
    }

    #[test]
    fn the_oldest_entries_go_first() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = ScanCache::new(place.path().join("scan"));
        cache.max_shard_bytes = 4000;
        let shard = cache.folder.join("00");
        fs::create_dir_all(&shard).unwrap();
        for age in 0..8 {
            let path = shard.join(format!("{age}.json"));
            fs::write(&path, vec![b' '; 1000]).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(60 * (age + 1));
            fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
        cache.written[0].store(1, Ordering::Relaxed);
        cache.prune();
        let mut left: Vec<String> = entries(&cache)
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["0.json", "1.json", "2.json"]);
    }
}
