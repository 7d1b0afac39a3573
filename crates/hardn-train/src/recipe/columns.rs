//! The names of a user's own columns.

use serde::{Deserialize, Serialize};

/// Where a row has what hardn needs. An empty name: as hardn's own rows have it; rows that SVEN, SafeCoder and HexaCoder
/// publish are known too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Unique in its file.
    pub id: String,
    /// The vulnerable code.
    pub before: String,
    /// The fixed code.
    pub after: String,
    /// The language, by name or file extension.
    pub language: String,
    /// The weakness, such as `CWE-79` or `79`.
    pub cwe: String,
    /// What the code does, in a sentence.
    pub description: String,
    /// The file's name in its project; tells the language where there is no column for it.
    pub file_name: String,
    /// The text both versions start with; of a utility row, the text to continue.
    pub prompt: String,
    /// Of a utility row: what should follow the prompt.
    pub completion: String,
    /// Of a utility row: what is asked for.
    pub instruction: String,
    /// Of a utility row: what the instruction is about.
    pub input: String,
    /// The language of rows that do not say it; empty: such rows are errors.
    pub default_language: String,
}
