//! What a panel needs to know of an engine beside its answers.

use std::collections::BTreeMap;

use hardn_types::{Analysis, Judge, Language, Piece};

use crate::{ENGINE, Oracle};

/// A [`Judge`] with a name that stands in findings.
pub trait Engine: Judge {
    /// Its name in findings.
    fn id(&self) -> &str;

    /// Whether it reads a language. Silence on another is no failure of it.
    fn reads(&self, language: Language) -> bool;

    /// What determines its answers: its version, and hashes of queries where it has any.
    fn record(&self) -> BTreeMap<String, String>;

    /// Whether it can be asked at all.
    ///
    /// # Errors
    /// Why not, and how to get it.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Engine for Oracle {
    fn id(&self) -> &'static str {
        ENGINE
    }

    fn reads(&self, language: Language) -> bool {
        self.rules().index(language).is_some()
    }

    fn record(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())])
    }
}

/// An engine that somebody else keeps.
pub struct Borrowed<'a>(pub &'a dyn Engine);

impl Judge for Borrowed<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn judge(&self, code: &str, language: Language) -> Analysis {
        self.0.judge(code, language)
    }

    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        self.0.judge_all(pieces)
    }
}

impl Engine for Borrowed<'_> {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn reads(&self, language: Language) -> bool {
        self.0.reads(language)
    }

    fn record(&self) -> BTreeMap<String, String> {
        self.0.record()
    }

    fn ready(&self) -> Result<(), String> {
        self.0.ready()
    }
}
