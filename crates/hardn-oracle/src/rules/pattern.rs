//! Regular expressions of rules.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use regex::Regex;
use serde::Deserialize;

/// A regular expression, checked when the rule is read and compiled when it is first asked: most of a language's rules
/// have nothing to say of a snippet, and compiling takes longer than reading.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Arc<Lazy>);

#[derive(Debug)]
struct Lazy {
    text: String,
    regex: OnceLock<Regex>,
}

/// Longer expressions, and those with counted repetitions, may be too large to compile: they are tried at once.
const SURELY_SMALL: usize = 2000;

impl Pattern {
    fn new(text: String) -> Result<Self, String> {
        let regex = OnceLock::new();
        if text.contains('{') || text.len() > SURELY_SMALL {
            let compiled = Regex::new(&text).map_err(|error| error.to_string())?;
            let _ = regex.set(compiled);
        } else {
            regex_syntax::parse(&text).map_err(|error| error.to_string())?;
        }
        Ok(Self(Arc::new(Lazy { text, regex })))
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let compile = || Regex::new(&self.0.text).expect("a small expression that was checked");
        self.0.regex.get_or_init(compile).is_match(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compiled_is_an_error_when_it_is_read() {
        assert!(Pattern::new("a+(b|c)$".to_owned()).unwrap().is_match("xaab"));
        for wrong in ["a(", "[z-a]", "(?=a)b", "(\\w{1000}){1000}"] {
            assert!(Pattern::new(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
