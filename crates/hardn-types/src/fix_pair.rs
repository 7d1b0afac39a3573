//! Fix pairs: two versions of one piece of code.

use serde::{Deserialize, Serialize};

use crate::{Cwe, Language};

/// Which version of a fix pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// After the fix.
    Secure,
    /// Before the fix.
    Vulnerable,
}

impl Side {
    /// `secure` or `vulnerable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Vulnerable => "vulnerable",
        }
    }
}

/// A changed line as SVEN publishes it. Offsets are code points, half-open, into the text of its side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct LineChange {
    pub line_no: u32,
    pub char_start: usize,
    pub char_end: usize,
    pub line: String,
}

/// A changed stretch of characters as SVEN publishes it. Offsets are code points, half-open; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct CharChange {
    pub char_start: usize,
    pub char_end: usize,
    pub chars: String,
}

/// Changes of both sides: `deleted` indexes into `before`, `added` into `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "published names")]
pub struct Changes<T> {
    pub deleted: Vec<T>,
    pub added: Vec<T>,
}

/// Two versions of one piece of code: `before` has a weakness, `after` has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixPair {
    /// Unique in its file; the row number where the file has none.
    pub id: String,
    /// The vulnerable version.
    pub before: String,
    /// The fixed version.
    pub after: String,
    /// The weakness that was fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwe: Option<Cwe>,
    /// The language both versions are written in.
    pub language: Language,
    /// One sentence saying what the code does; the instruction of instruction-tuned training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The leading text both versions share that a model would be given as prompt; may be empty.
    /// Training may mask it out. Always a prefix of both `before` and `after`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Where it comes from: a commit link, a lab family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The licence of the code, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The file's name in its project; its extension is SafeCoder's "language" in oversampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Published line changes, used where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_changes: Option<Changes<LineChange>>,
    /// Published character changes, used where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub char_changes: Option<Changes<CharChange>>,
    /// Fields of the file that hardn does not know; kept when written again.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl FixPair {
    /// The text of one side.
    pub fn text(&self, side: Side) -> &str {
        match side {
            Side::Secure => &self.after,
            Side::Vulnerable => &self.before,
        }
    }
}
