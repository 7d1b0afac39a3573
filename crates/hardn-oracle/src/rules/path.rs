//! Patterns over dotted paths, such as `subprocess.run` and `*.execute`.

use std::{collections::HashMap, sync::OnceLock};

use aho_corasick::AhoCorasick;

/// Stands for one capital letter, at the start of a component.
const CAPITAL: &str = "[A-Z]";

/// Longer paths are no way to an API, and looking for patterns in them would take long.
const LONGEST: usize = 4000;

/// One component of a pattern.
#[derive(Clone, Debug)]
enum Part {
    Exact(Box<str>),
    Any,
    /// With stars inside.
    Glob(Box<str>),
}

impl Part {
    fn new(text: &str) -> Self {
        match text {
            "*" => Self::Any,
            _ if text.contains('*') || text.starts_with(CAPITAL) => Self::Glob(text.into()),
            _ => Self::Exact(text.into()),
        }
    }

    fn matches(&self, component: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *component,
            Self::Any => true,
            Self::Glob(pattern) => glob(pattern, component),
        }
    }
}

/// A pattern over the components of a dotted path; it matches the last components of a path.
#[derive(Clone, Debug)]
pub(crate) struct PathPattern {
    parts: Vec<Part>,
    any_receiver: bool,
    everything: bool,
}

impl PathPattern {
    /// Reads `a.b`, `*.b` (any receiver), `b` (no receiver), stars inside components, and `**` for everything.
    pub(crate) fn new(text: &str) -> Self {
        let mut parts: Vec<Part> = split(text).map(Part::new).collect();
        let any_receiver = parts.len() > 1 && matches!(parts[0], Part::Any);
        if any_receiver {
            parts.remove(0);
        }
        Self { parts, any_receiver, everything: text == "**" }
    }

    /// Whether the path ends in this pattern. A pattern without a receiver needs a path without one.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.everything {
            return true;
        }
        let mut components = split(path).rev();
        let ends = self
            .parts
            .iter()
            .rev()
            .all(|part| components.next().is_some_and(|component| part.matches(component)));
        let mut has_receiver = || components.next().is_some();
        ends && match (self.any_receiver, self.parts.len()) {
            (true, _) => has_receiver(),
            (false, 1) => !has_receiver(),
            _ => true,
        }
    }
}

/// Values under patterns, indexed by what the last components must be, so that a path asks only for what may match it.
#[derive(Debug)]
pub(crate) struct PathMap<T> {
    entries: Vec<(PathPattern, T)>,
    /// Patterns that end in this component.
    by_last: HashMap<Box<str>, Vec<usize>>,
    /// Patterns that end in this component and then any other.
    by_owner: HashMap<Box<str>, Vec<usize>>,
    /// Patterns with stars in the last component, by a text that must stand in it.
    globs: Vec<(Box<str>, usize)>,
    /// All others.
    rest: Vec<usize>,
    /// Finds the texts of `globs`, all at once.
    finder: OnceLock<Option<AhoCorasick>>,
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            by_last: HashMap::new(),
            by_owner: HashMap::new(),
            globs: Vec::new(),
            rest: Vec::new(),
            finder: OnceLock::new(),
        }
    }
}

impl PathMap<()> {
    /// Only patterns: asked with [`PathMap::is_match`].
    pub(crate) fn of(patterns: &[String]) -> Self {
        let mut map = Self::default();
        for pattern in patterns {
            map.insert(pattern, ());
        }
        map
    }
}

impl<T> PathMap<T> {
    pub(crate) fn insert(&mut self, pattern: &str, value: T) {
        let pattern = PathPattern::new(pattern);
        let at = self.entries.len();
        match pattern.parts.as_slice() {
            [.., Part::Exact(last)] => {
                self.by_last.entry(last.clone()).or_default().push(at);
            }
            [.., Part::Exact(owner), Part::Any] => {
                self.by_owner.entry(owner.clone()).or_default().push(at);
            }
            [.., Part::Glob(text)] if !pattern.everything => {
                let text = text.strip_prefix(CAPITAL).unwrap_or(text);
                match text
                    .split('*')
                    .max_by_key(|piece| piece.len())
                    .filter(|text| !text.is_empty())
                {
                    Some(longest) => self.globs.push((longest.into(), at)),
                    None => self.rest.push(at),
                }
            }
            _ => self.rest.push(at),
        }
        self.entries.push((pattern, value));
        self.finder = OnceLock::new();
    }

    /// The values whose patterns match, in the order in which they were inserted.
    pub(crate) fn matching(&self, path: &str) -> impl Iterator<Item = &T> {
        let mut found: Vec<usize> = Vec::new();
        self.each_match(path, |at| found.push(at));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| &self.entries[at].1)
    }

    /// Whether any pattern matches.
    pub(crate) fn is_match(&self, path: &str) -> bool {
        let mut found = false;
        self.each_match(path, |_| found = true);
        found
    }

    fn each_match(&self, path: &str, mut add: impl FnMut(usize)) {
        if path.len() > LONGEST {
            return;
        }
        let mut components = split(path).rev();
        let last = components.next().unwrap_or(path);
        let named = self.by_last.get(last);
        let owned = components.next().and_then(|owner| self.by_owner.get(owner));
        let listed = named.into_iter().chain(owned).flatten().chain(&self.rest).copied();
        let globs = self.finder().into_iter().flat_map(|finder| {
            let found = finder.find_overlapping_iter(last);
            found.map(|text| self.globs[text.pattern().as_usize()].1)
        });
        for at in listed.chain(globs) {
            if self.entries[at].0.matches(path) {
                add(at);
            }
        }
    }

    /// Whether a path that ends in this component can match at all.
    pub(crate) fn knows(&self, last: &str) -> bool {
        self.by_last.contains_key(last)
            || !self.by_owner.is_empty()
            || !self.rest.is_empty()
            || self.finder().is_some_and(|finder| finder.is_match(last))
    }

    fn finder(&self) -> Option<&AhoCorasick> {
        let make = || {
            let texts = self.globs.iter().map(|(text, _)| text.as_bytes());
            (!self.globs.is_empty())
                .then(|| AhoCorasick::new(texts).expect("names in rules are short and few"))
        };
        self.finder.get_or_init(make).as_ref()
    }
}

/// Dots inside brackets belong to no path; paths written by the lowering have none there.
fn split(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    // Paths are short: a plain loop over bytes finds the dots soonest, and a dot is never part of another character.
    path.as_bytes().split(|byte| *byte == b'.').map(|part| {
        std::str::from_utf8(part).expect("a piece of a text between two dots is a text")
    })
}

/// Stars match any run of characters, `[A-Z]` at the start a capital letter.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    if let Some(pattern) = pattern.strip_prefix(CAPITAL) {
        let rest = text.strip_prefix(|c: char| c.is_ascii_uppercase());
        return rest.is_some_and(|rest| glob(pattern, rest));
    }
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut rest = rest;
    loop {
        match rest.split_once('*') {
            None => return text.ends_with(rest),
            Some((middle, after)) => match text.find(middle) {
                Some(at) => {
                    text = &text[at + middle.len()..];
                    rest = after;
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        assert_eq!(PathPattern::new(pattern).matches(path), expected, "{pattern} on {path}");
    }

    #[test]
    fn a_map_finds_what_its_patterns_match() {
        let patterns = [
            "open", "*.open", "os.*", "*.*open*", "*escape*", "**", "a*.b", "*.x_*_y", "os.open",
            "[A-Z]*",
        ];
        let mut map = PathMap::default();
        for pattern in patterns {
            map.insert(pattern, pattern);
        }
        for path in [
            "open",
            "os.open",
            "f().reopened",
            "escape",
            "ab.b",
            "z.x_1_y",
            "os.path.join",
            "User",
            "",
        ] {
            let expected: Vec<&str> = patterns
                .into_iter()
                .filter(|pattern| PathPattern::new(pattern).matches(path))
                .collect();
            assert_eq!(map.matching(path).copied().collect::<Vec<_>>(), expected, "{path}");
        }
    }

    #[test]
    fn patterns_match_the_end_of_paths() {
        check("os.system", "os.system", true);
        check("os.system", "self.os.system", true);
        check("os.system", "system", false);
        check("open", "open", true);
        check("open", "webbrowser.open", false);
        check("*.execute", "db.cursor().execute", true);
        check("*.execute", "execute", false);
        check("os.exec*", "os.execvp", true);
        check("*sanitize*", "_sanitize_name", true);
        check("*.get_*_or_*", "x.get_a_or_b", true);
        check("*.get_*_or_*", "x.get_a", false);
        check("[A-Z]*", "User", true);
        check("[A-Z]*", "user", false);
        check("*.[A-Z]*", "Shop.User", true);
    }
}
