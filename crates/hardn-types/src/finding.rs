//! What an oracle engine says of a piece of code.

use serde::{Deserialize, Serialize};

use crate::{Cwe, Language};

/// A stretch of source text. Lines and columns count from 1; columns count code points; the end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

/// One step of the path a value took from its source to the place that is flagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct TraceStep {
    pub span: Span,
    pub message: String,
}

/// One weakness found in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The engine that found it, such as `hardn`.
    pub engine: String,
    /// The rule's id: its path under `rules/` without the extension.
    pub rule: String,
    /// The classes the rule belongs to, most specific first.
    pub cwe: Vec<Cwe>,
    /// The place that is flagged.
    #[serde(flatten)]
    pub span: Span,
    /// What is wrong here, in one sentence.
    pub message: String,
    /// From source to sink; empty for findings without flow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TraceStep>,
}

/// The answer of an oracle on one piece of code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// The language the code was read as.
    pub language: Option<Language>,
    /// What was found, in source order.
    pub findings: Vec<Finding>,
    /// The classes the engine has rules for in this language: silence means something only for these. Empty where the
    /// engine cannot say.
    pub covers: Vec<Cwe>,
    /// Why the code was not analysed; then `findings` is empty and means nothing.
    pub not_analysed: Option<String>,
}

impl Analysis {
    /// The answer of an engine that did not look.
    pub fn not_analysed(language: Option<Language>, why: impl Into<String>) -> Self {
        let not_analysed = Some(why.into());
        Self { language, findings: Vec::new(), covers: Vec::new(), not_analysed }
    }
}
