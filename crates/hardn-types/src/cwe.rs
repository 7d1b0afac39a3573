//! Weakness classes of the Common Weakness Enumeration.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A CWE number. Reads `CWE-89`, `cwe-089`, `089` and `89`; writes `CWE-089`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cwe(pub u16);

/// A text that is not a CWE.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a CWE (expected a form such as CWE-089, cwe-89 or 89)")]
pub struct CweError(String);

impl fmt::Display for Cwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CWE-{:03}", self.0)
    }
}

impl FromStr for Cwe {
    type Err = CweError;

    fn from_str(text: &str) -> Result<Self, CweError> {
        let trimmed = text.trim();
        let digits = match trimmed.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("cwe-") => &trimmed[4..],
            _ => trimmed,
        };
        match digits.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(CweError(text.to_owned())),
        }
    }
}

impl Serialize for Cwe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cwe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = match &value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_published_spelling() {
        for text in ["CWE-89", "cwe-089", "089", "89", " Cwe-89 "] {
            assert_eq!(text.parse::<Cwe>().unwrap(), Cwe(89), "{text}");
        }
        for text in ["", "CWE-", "CWE-0", "sql", "CWE-89x"] {
            assert!(text.parse::<Cwe>().is_err(), "{text}");
        }
        assert_eq!(Cwe(89).to_string(), "CWE-089");
    }
}
