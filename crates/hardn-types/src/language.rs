//! Programming languages, their names and file extensions.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// A programming language hardn knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    #[serde(alias = "py")]
    Python,
    C,
    #[serde(alias = "c++", alias = "cc")]
    Cpp,
    #[serde(alias = "js", alias = "jsx")]
    JavaScript,
    #[serde(alias = "ts", alias = "tsx")]
    TypeScript,
    Go,
    Java,
    #[serde(alias = "rb")]
    Ruby,
}

/// A name or extension that belongs to no known language.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a language hardn knows (python, c, cpp, javascript, typescript, go, java, ruby)"
)]
pub struct LanguageError(String);

impl Language {
    /// Every language, in the order of their names in reports.
    pub const ALL: [Self; 8] = [
        Self::Python,
        Self::C,
        Self::Cpp,
        Self::JavaScript,
        Self::TypeScript,
        Self::Go,
        Self::Java,
        Self::Ruby,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Go => "go",
            Self::Java => "java",
            Self::Ruby => "ruby",
        }
    }

    /// The usual file extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Python => "py",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::JavaScript => "js",
            Self::TypeScript => "ts",
            Self::Go => "go",
            Self::Java => "java",
            Self::Ruby => "rb",
        }
    }

    /// The mark that starts a line comment.
    pub fn comment(self) -> &'static str {
        match self {
            Self::Python | Self::Ruby => "#",
            _ => "//",
        }
    }

    /// The language of a file, by its extension.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "py" | "pyi" | "pyw" => Self::Python,
            "c" | "h" => Self::C,
            "cc" | "cpp" | "cxx" | "hpp" | "hh" | "hxx" => Self::Cpp,
            "js" | "jsx" | "mjs" | "cjs" => Self::JavaScript,
            "ts" | "tsx" => Self::TypeScript,
            "go" => Self::Go,
            "java" => Self::Java,
            "rb" => Self::Ruby,
            _ => return None,
        })
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = LanguageError;

    fn from_str(text: &str) -> Result<Self, LanguageError> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|language| language.name() == lower)
            .or_else(|| Self::of_path(Path::new(&format!("x.{lower}"))))
            .or_else(|| (lower == "c++").then_some(Self::Cpp))
            .ok_or_else(|| LanguageError(text.to_owned()))
    }
}
