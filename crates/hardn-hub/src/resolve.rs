//! From a name to the folder to load.

use std::{fs, path::PathBuf};

use crate::{
    HubError, HubName, HubOptions, ModelSource, Progress, Result,
    cache::RepoCache,
    client::{Asked, Client, Info, Meta},
    select::{self, Wanted},
    source::is_commit,
    transfer::{Tell, Transfer, is_whole, patiently},
};

/// A path to load from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// A folder, or the one file that was named.
    pub path: PathBuf,
    /// Where it comes from, if from the hub.
    pub origin: Option<Origin>,
}

/// What a hub name stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name as given.
    pub name: HubName,
    /// The commit: naming it as the revision gives the same files for ever.
    pub commit: String,
    /// The files that make the model.
    pub files: Vec<CachedFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Whether this call fetched it.
    pub fetched: bool,
}

impl Origin {
    /// `owner/name@commit[:file]`: the name that always means these files.
    pub fn pinned(&self) -> HubName {
        HubName { revision: Some(self.commit.clone()), ..self.name.clone() }
    }
}

/// The path of a model, fetched first where it is not cached.
///
/// A complete snapshot is used without asking the hub if `options.offline` is set or the revision is a full commit
/// hash. Otherwise the hub says which commit the revision is, and only what is missing of it is fetched.
///
/// # Errors
/// [`HubError`], whose `help` says what to do.
pub fn resolve(
    source: &ModelSource,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Resolved> {
    match source {
        ModelSource::Local(path) if path.exists() => {
            Ok(Resolved { path: path.clone(), origin: None })
        }
        ModelSource::Local(path) => {
            Err(HubError::NoSuchPath { text: path.to_string_lossy().into_owned() })
        }
        ModelSource::Hub(name) => {
            Fetch { name, options, cache: RepoCache::new(&options.cache, &name.repo) }.run(progress)
        }
    }
}

struct Fetch<'a> {
    name: &'a HubName,
    options: &'a HubOptions,
    cache: RepoCache,
}

impl Fetch<'_> {
    fn run(&self, tell: Tell<'_>) -> Result<Resolved> {
        let revision = self.name.revision();
        if self.options.offline {
            let (commit, files) = self.cached().map_err(|missing| self.not_cached(missing))?;
            return self.resolved(&commit, files, &[]);
        }
        if is_commit(revision) {
            let files = match &self.name.file {
                Some(file) => self.cache.sufficient(revision, Some(file)).ok(),
                None => self.cache.complete(revision),
            };
            if let Some(files) = files {
                tell(Progress::Cached { commit: revision });
                return self.resolved(revision, files, &[]);
            }
        }
        let client = Client::new(self.options);
        match patiently(self.options, tell, || client.info(self.asked(revision))) {
            Ok(info) => self.fetch(&client, &info, tell),
            Err(error @ HubError::Unreachable { .. }) if self.options.stale_if_unreachable => {
                let Ok((commit, files)) = self.cached() else { return Err(error) };
                tell(Progress::Stale { commit: &commit, why: error.to_string() });
                self.resolved(&commit, files, &[])
            }
            Err(error) => Err(error),
        }
    }

    fn asked<'a>(&'a self, revision: &'a str) -> Asked<'a> {
        Asked { repo: &self.name.repo, revision, file: None }
    }

    /// A snapshot that suffices, or what is missing of it.
    fn cached(&self) -> Result<(String, Vec<String>), Vec<String>> {
        let revision = self.name.revision();
        let commit = self
            .cache
            .commit_of(revision)
            .ok_or_else(|| vec!["it was never fetched".to_owned()])?;
        let files =
            self.cache.sufficient(&commit, self.name.file.as_deref()).map_err(|missing| {
                missing.into_iter().map(|file| format!("{file} is missing")).collect::<Vec<_>>()
            })?;
        Ok((commit, files))
    }

    fn not_cached(&self, missing: Vec<String>) -> HubError {
        HubError::NotCached {
            repo: self.name.repo.clone(),
            revision: self.name.revision().to_owned(),
            cache: self.options.cache.clone(),
            missing,
        }
    }

    fn fetch(&self, client: &Client, info: &Info, tell: Tell<'_>) -> Result<Resolved> {
        let wanted = self.choose(info)?;
        let mut files = wanted.plain;
        let mut fetched = Vec::new();
        if let Some(index) = wanted.index {
            // The shards are known only from the index.
            let mut quiet = |_: Progress<'_>| {};
            let one = std::slice::from_ref(&index);
            self.fetch_files(client, &info.commit, one, &mut fetched, &mut quiet)?;
            let path = self.cache.snapshot(&info.commit).join(&index);
            let text = fs::read(&path).map_err(|error| HubError::read(&path, error))?;
            let shards = select::shards(&text);
            let shards = shards.map_err(|message| self.broken_index(&path, message))?;
            if let Some(lost) = shards.iter().find(|shard| !info.files.contains(shard)) {
                let message = format!("it names {lost}, which the repository does not have");
                return Err(self.broken_index(&path, message));
            }
            files.push(index);
            files.extend(shards);
        }
        // Weights come last: a snapshot that has them has the rest.
        files.extend(wanted.weights);
        self.fetch_files(client, &info.commit, &files, &mut fetched, tell)?;
        if self.name.file.is_none() {
            self.cache.set_listing(&info.commit, &files);
        }
        if !is_commit(self.name.revision()) {
            self.cache.set_commit_of(self.name.revision(), &info.commit)?;
        }
        self.resolved(&info.commit, files, &fetched)
    }

    fn choose(&self, info: &Info) -> Result<Wanted> {
        let (repo, revision) = (self.name.repo.clone(), self.name.revision().to_owned());
        let others = || select::gguf_files(&info.files);
        match &self.name.file {
            Some(file) => select::choose_file(&info.files, file).ok_or_else(|| HubError::NoFile {
                repo,
                revision,
                file: file.clone(),
                others: others(),
            }),
            None => select::choose(&info.files).ok_or_else(|| HubError::NoWeights {
                repo,
                revision,
                others: others(),
            }),
        }
    }

    fn broken_index(&self, path: &std::path::Path, message: String) -> HubError {
        HubError::Index { repo: self.name.repo.clone(), path: path.to_owned(), message }
    }

    /// Fetches what the snapshot lacks of `files`.
    fn fetch_files(
        &self,
        client: &Client,
        commit: &str,
        files: &[String],
        fetched: &mut Vec<String>,
        tell: Tell<'_>,
    ) -> Result<()> {
        let snapshot = self.cache.snapshot(commit);
        let asked = self.asked(commit);
        let mut metas: Vec<Meta> = Vec::new();
        for file in files.iter().filter(|file| !snapshot.join(file).is_file()) {
            metas.push(patiently(self.options, tell, || client.meta(asked, file))?);
        }
        let partial = |meta: &Meta| {
            fs::metadata(self.cache.partial(&meta.etag)).map_or(0, |found| found.len())
        };
        let missing: Vec<&Meta> =
            metas.iter().filter(|meta| !is_whole(&self.cache.blob(&meta.etag), meta)).collect();
        let bytes: u64 = missing.iter().filter_map(|meta| meta.size).sum();
        let already: u64 = missing.iter().map(|meta| partial(meta)).sum();
        if !missing.is_empty() {
            self.check_room(bytes.saturating_sub(already))?;
            tell(Progress::Start { n_files: missing.len(), bytes, already });
        }
        let mut elsewhere = already;
        for meta in &metas {
            let is_new = !is_whole(&self.cache.blob(&meta.etag), meta);
            elsewhere = elsewhere.saturating_sub(partial(meta));
            let options = self.options;
            let transfer = Transfer { client, cache: &self.cache, options, asked, elsewhere };
            let size = transfer.run(commit, meta, tell)?;
            if is_new {
                elsewhere += size;
                fetched.push(meta.file.clone());
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn check_room(&self, needed: u64) -> Result<()> {
        let folder = self.cache.folder();
        let Some(place) = folder.ancestors().find(|place| place.exists()) else { return Ok(()) };
        let Ok(found) = rustix::fs::statvfs(place) else { return Ok(()) };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        // Some file systems do not say how much is free.
        if free < needed && found.f_blocks > 0 {
            return Err(HubError::NoRoom { path: folder.to_owned(), needed, free });
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn check_room(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn resolved(&self, commit: &str, files: Vec<String>, fetched: &[String]) -> Result<Resolved> {
        let snapshot = self.cache.snapshot(commit);
        let path = self.name.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file));
        let files = files
            .into_iter()
            .map(|name| {
                let at = snapshot.join(&name);
                let found = fs::metadata(&at).map_err(|error| HubError::read(&at, error))?;
                Ok(CachedFile { fetched: fetched.contains(&name), bytes: found.len(), name })
            })
            .collect::<Result<_>>()?;
        let origin = Origin { name: self.name.clone(), commit: commit.to_owned(), files };
        Ok(Resolved { path, origin: Some(origin) })
    }
}
