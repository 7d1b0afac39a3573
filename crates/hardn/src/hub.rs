//! Models by hub name: one way for every command to get a folder, with progress.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hardn_hub::{HubError, HubName, HubOptions, ModelSource, Origin, Resolved};
use hardn_train::{SECURE_ADAPTER, TRAINING_ONLY, VULNERABLE_ADAPTER};
use indicatif::DecimalBytes;

use crate::{
    failure::{Failure, Outcome},
    output::{BYTES, Progress, say},
    stop,
};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Names found in this process: model and tokenizer of a name must be of the same commit.
static FOUND: Mutex<BTreeMap<String, Resolved>> = Mutex::new(BTreeMap::new());

/// `--quiet`: no progress on standard error.
pub(crate) fn quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// The path that a text names: one that exists, or a hub name's, fetched where it is not cached. `None` for what
/// looks like a path and does not exist.
pub(crate) fn find(text: &str) -> Outcome<Option<PathBuf>> {
    let mut known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(text) {
        return Ok(Some(found.path.clone()));
    }
    let name = match ModelSource::parse(text) {
        Ok(ModelSource::Local(path)) => return Ok(Some(path)),
        Ok(ModelSource::Hub(name)) => name,
        Err(HubError::NoSuchPath { .. }) => return Ok(None),
        Err(error) => return Err(failure(&error)),
    };
    let found = fetch(&name, options())?;
    let path = found.path.clone();
    known.insert(text.to_owned(), found);
    Ok(Some(path))
}

/// The folder of an adapter to use: a path, or a hub name. Of a folder that holds one for each side of pairs it is the
/// secure side's.
///
/// # Errors
/// No such folder, or an adapter that exists for training alone: the vulnerable side's writes vulnerable code.
pub(crate) fn adapter_folder(adapter: &Path) -> Outcome<PathBuf> {
    let folder = any_adapter_folder(adapter)?;
    let is_adapter = |folder: &Path| folder.join("adapter_config.json").is_file();
    if !is_adapter(&folder) && is_adapter(&folder.join(SECURE_ADAPTER)) {
        return Ok(folder.join(SECURE_ADAPTER));
    }
    // The path may end in `..` or be a link.
    let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let is_named =
        real.ends_with(VULNERABLE_ADAPTER) && is_adapter(&real.with_file_name(SECURE_ADAPTER));
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if is_named || config.get(TRAINING_ONLY) == Some(&serde_json::Value::Bool(true)) {
        return Err(Failure::new(format!(
            "the adapter {} was trained to write vulnerable code and exists for training alone",
            folder.display()
        ))
        .help(format!("use the folder `{SECURE_ADAPTER}` beside it")));
    }
    Ok(folder)
}

/// The folder of an adapter, or of one for each side, to look at: a path, or a hub name.
pub(crate) fn any_adapter_folder(adapter: &Path) -> Outcome<PathBuf> {
    if adapter.exists() {
        return Ok(adapter.to_owned());
    }
    let text = adapter.to_string_lossy();
    find(&text)?.ok_or_else(|| {
        Failure::new(format!("there is no adapter `{text}`")).help(
            "give a folder with adapter_config.json and adapter_model.safetensors, or a hub name (owner/name)",
        )
    })
}

/// The name and commit that a text stood for, if it was a hub name.
pub(crate) fn origin(text: &str) -> Option<Origin> {
    let known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(text)?.origin.clone()
}

/// What the environment says.
pub(crate) fn options() -> HubOptions {
    HubOptions { stop: stop::flag(), ..HubOptions::from_env() }
}

/// Fetches a model with progress on standard error.
pub(crate) fn fetch(name: &HubName, options: HubOptions) -> Outcome<Resolved> {
    let quiet = QUIET.load(Ordering::Relaxed);
    let mut bar: Option<Progress> = None;
    let source = ModelSource::Hub(name.clone());
    let result = hardn_hub::resolve(&source, &options, &mut |event| {
        show(name, &event, &mut bar, quiet);
    });
    if let Some(bar) = bar {
        match &result {
            Ok(_) => bar.finish(&name.to_string()),
            Err(_) => bar.clear(),
        }
    }
    result.map_err(|error| failure(&error))
}

fn show(name: &HubName, event: &hardn_hub::Progress<'_>, bar: &mut Option<Progress>, quiet: bool) {
    use hardn_hub::Progress as Event;
    let note = match event {
        Event::Cached { .. } => return,
        Event::Start { n_files, bytes, already } => {
            let mut new = Progress::new("fetch", BYTES, *bytes, quiet);
            new.start_at(*already);
            *bar = Some(new);
            let left = DecimalBytes(bytes.saturating_sub(*already));
            let here = if *already > 0 {
                format!(", {} are here already", DecimalBytes(*already))
            } else {
                String::new()
            };
            format!("fetching {name}: {n_files} files, {left}{here}")
        }
        Event::Bytes { file, done } => {
            if let Some(bar) = bar {
                bar.set(*done, file);
            }
            return;
        }
        Event::Checking { file } => {
            if let Some(bar) = bar {
                bar.message(&format!("checking {file}"));
            }
            return;
        }
        Event::Unverified { file } => {
            format!("{file}: the hub names no hash, only the size was checked")
        }
        Event::Waiting { file } => format!("{file}: another process fetches it, waiting"),
        Event::Retry { why, wait } => {
            format!("{why}; trying again in {:.0} s", wait.as_secs_f64())
        }
        Event::Stale { commit, why } => {
            format!("{why}; using {name} as fetched last, commit {commit}")
        }
    };
    // What changes the meaning of the result is said in any case.
    let always = matches!(event, Event::Unverified { .. } | Event::Stale { .. });
    if quiet && !always {
        return;
    }
    match bar {
        Some(bar) => bar.note(&note),
        None => say(&note),
    }
}

/// An error of the hub as users see it.
pub(crate) fn failure(error: &HubError) -> Failure {
    let help = error.help();
    if matches!(error, HubError::Stopped) {
        return Failure::interrupted(help.unwrap_or_default());
    }
    match help {
        Some(help) => Failure::new(error).help(help),
        None => Failure::new(error),
    }
}
