//! A folder that is there whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::failure::{Context, Failure, Outcome};

/// A folder that is filled beside its place. It is gone again unless it is published.
pub(super) struct NewFolder {
    target: PathBuf,
    temporary: PathBuf,
}

/// Files of which one lies in every folder this command writes.
const MARKS: &[&str] = &["config.json", "adapter_config.json", super::GGUF];

impl NewFolder {
    /// # Errors
    /// A target that holds something, unless it is to be replaced and looks like an earlier export; a target that is
    /// one of the `sources`; or no place to write.
    pub(super) fn create(target: &Path, sources: &[&Path], replace: bool) -> Outcome<Self> {
        let is_empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut all| all.next().is_none());
        if target.exists() && !is_empty(target) {
            if let (Ok(target), true) = (target.canonicalize(), replace)
                && sources.iter().any(|source| source.canonicalize().is_ok_and(|s| s == target))
            {
                return Err(Failure::new(format!(
                    "{} is what the export is made of",
                    target.display()
                ))
                .help("give another folder as --out"));
            }
            if !replace {
                return Err(Failure::new(format!("{} exists already", target.display()))
                    .help("give another folder as --out, or --force to replace it"));
            }
            if !MARKS.iter().any(|mark| target.join(mark).is_file()) {
                return Err(Failure::new(format!(
                    "{} is not a model or adapter and is not replaced",
                    target.display()
                ))
                .help("give another folder as --out"));
            }
        }
        let name = target.file_name().ok_or_else(|| {
            Failure::new(format!("{} cannot be the name of a folder", target.display()))
        })?;
        let temporary = target.with_file_name(format!(
            ".writing-{}-{}",
            std::process::id(),
            name.to_string_lossy()
        ));
        fs::create_dir_all(&temporary).context(format!("cannot create {}", temporary.display()))?;
        Ok(Self { target: target.to_owned(), temporary })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name, in place of what had it before.
    pub(super) fn publish(self) -> Outcome {
        let doing = format!("cannot write {}", self.target.display());
        for entry in fs::read_dir(&self.temporary).context(&doing)? {
            let path = entry.context(&doing)?.path();
            fs::File::open(&path).and_then(|file| file.sync_all()).context(&doing)?;
        }
        if !self.target.exists() {
            return fs::rename(&self.temporary, &self.target).context(&doing);
        }
        let old = self.temporary.with_extension("old");
        fs::rename(&self.target, &old).context(&doing)?;
        if let Err(error) = fs::rename(&self.temporary, &self.target) {
            let _ = fs::rename(&old, &self.target);
            return Err(error).context(&doing);
        }
        fs::remove_dir_all(&old).context(format!("cannot remove {}", old.display()))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
    }
}
