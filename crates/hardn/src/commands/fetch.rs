//! `hardn fetch`: what other commands need, fetched before they need it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hardn_hub::{HubName, HubOptions, Origin};
use serde_json::json;

use crate::{
    args::{FetchCommand, FetchModelArgs},
    failure::{Context, Failure, Outcome},
    hub,
    output::{put, put_json},
};

pub(crate) fn run(command: FetchCommand) -> Outcome {
    match command {
        FetchCommand::Model(args) => model(&args),
    }
}

fn model(args: &FetchModelArgs) -> Outcome {
    let name = name(args)?;
    // Who asks for a fetch wants to know that it failed, even where an older snapshot would do.
    let options = HubOptions { stale_if_unreachable: false, ..hub::options() };
    let found = hub::fetch(&name, options)?;
    let origin = found.origin.ok_or_else(|| Failure::new("the model has no origin"))?;
    let path = match &args.out {
        Some(out) => copy_out(&found.path, &origin, out)?,
        None => found.path,
    };
    let bytes: u64 = origin.files.iter().map(|file| file.bytes).sum();
    let new = origin.files.iter().filter(|file| file.fetched);
    if args.json {
        let files: Vec<_> = origin
            .files
            .iter()
            .map(|file| json!({"name": file.name, "bytes": file.bytes, "fetched": file.fetched}))
            .collect();
        return put_json(&json!({
            "model": name.to_string(), "pinned": origin.pinned().to_string(), "commit": origin.commit, "path": path,
            "bytes": bytes, "bytes_fetched": new.map(|file| file.bytes).sum::<u64>(), "files": files,
        }));
    }
    put(&format!(
        "{}\n{} files, {}, of which {} were fetched\n{}\n",
        origin.pinned(),
        origin.files.len(),
        indicatif::DecimalBytes(bytes),
        new.count(),
        path.display()
    ))
}

fn name(args: &FetchModelArgs) -> Outcome<HubName> {
    let mut name = HubName::parse(&args.name).map_err(|error| hub::failure(&error))?;
    if let Some(revision) = &args.revision {
        if name.revision.as_ref().is_some_and(|named| named != revision) {
            return Err(Failure::new(format!(
                "`{}` names another revision than `{revision}`",
                args.name
            ))
            .help("name the revision once: NAME@REVISION, or --revision"));
        }
        name.revision = Some(revision.clone());
        // Read again, so that --revision is held to what @REVISION may be.
        name = HubName::parse(&name.to_string()).map_err(|error| hub::failure(&error))?;
    }
    Ok(name)
}

/// Copies a snapshot's files to a folder that holds nothing else; each is there whole or not at all.
fn copy_out(path: &Path, origin: &Origin, out: &Path) -> Outcome<PathBuf> {
    const UNFINISHED: &str = ".incomplete";
    let snapshot = match &origin.name.file {
        Some(file) => path.ancestors().nth(Path::new(file).components().count()).unwrap_or(path),
        None => path,
    };
    let tops: Vec<&str> =
        origin.files.iter().filter_map(|file| file.name.split('/').next()).collect();
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !tops.contains(&name.strip_suffix(UNFINISHED).unwrap_or(&name)) {
            return Err(Failure::new(format!(
                "{} holds {name}, which is no file of {}",
                out.display(),
                origin.name
            ))
            .help("give --out a new folder, so that files of two models cannot mix"));
        }
    }
    for file in &origin.files {
        let target = out.join(&file.name);
        let doing = || format!("cannot write {}", target.display());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).context(doing())?;
        }
        let mut unfinished = target.clone().into_os_string();
        unfinished.push(UNFINISHED);
        fs::copy(snapshot.join(&file.name), &unfinished).context(doing())?;
        fs::rename(&unfinished, &target).context(doing())?;
    }
    Ok(origin.name.file.as_ref().map_or_else(|| out.to_owned(), |file| out.join(file)))
}
