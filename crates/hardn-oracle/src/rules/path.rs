//! Patterns over dotted paths, such as `subprocess.run` and `*.execute`.

/// A pattern over the components of a dotted path; it matches the last components of a path.
#[derive(Clone, Debug)]
pub(crate) struct PathPattern {
    components: Vec<String>,
    any_receiver: bool,
    everything: bool,
}

impl PathPattern {
    /// Reads `a.b`, `*.b` (any receiver), `b` (no receiver), stars inside components, and `**` for everything.
    pub(crate) fn new(text: &str) -> Self {
        let mut components: Vec<String> = split(text).map(str::to_owned).collect();
        let any_receiver = components.len() > 1 && components[0] == "*";
        if any_receiver {
            components.remove(0);
        }
        Self { components, any_receiver, everything: text == "**" }
    }

    /// The last component, under which the pattern is indexed; `None` where it holds a star.
    pub(crate) fn key(&self) -> Option<&str> {
        self.components.last().map(String::as_str).filter(|last| !last.contains('*'))
    }

    /// Whether the path ends in this pattern. A pattern without a receiver needs a path without one.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.everything {
            return true;
        }
        let parts: Vec<&str> = split(path).collect();
        let wanted = self.components.len();
        if parts.len() < wanted + usize::from(self.any_receiver) {
            return false;
        }
        if wanted == 1 && !self.any_receiver && parts.len() > 1 {
            return false;
        }
        let tail = &parts[parts.len() - wanted..];
        self.components.iter().zip(tail).all(|(pattern, part)| glob(pattern, part))
    }
}

/// The last component of a path.
pub(crate) fn last(path: &str) -> &str {
    split(path).last().unwrap_or(path)
}

/// Dots inside brackets belong to no path; paths written by the lowering have none there.
fn split(path: &str) -> impl Iterator<Item = &str> {
    path.split('.')
}

/// Stars match any run of characters, `[A-Z]` at the start a capital letter.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    if let Some(pattern) = pattern.strip_prefix("[A-Z]") {
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
