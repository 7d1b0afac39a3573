//! What is weak about a regular expression or a chain of replacements, as words that rules ask for.

use std::sync::LazyLock;

use regex::Regex;

/// `good.com`, with or without a backslash before the dots, as a whole host name ends.
const HOST: &str = r"[a-z0-9-]+\\*\.(com|org|net|io|gov|edu|dev|co|uk|de|jp|fr|me|in)(\b|$)";

static UNANCHORED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?i)^\(?(https?\??:|https\?:|\(https?:?\)\??|\(\?:https\?:\)\??|\(https\?:\)\??)?(\\?/\\?/)?\(?(\(?www\\?\.\)?\??|\(\?:www\\?\.\)\?)?([a-z0-9-]+\\?\.)*{HOST}"
    ))
    .ok()
});
static OPEN_DOT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)(^|[^\\.\])*+?}])\.([a-z0-9-]+\\?\.)*[a-z0-9-]+\\?\.(com|org|net|io|gov|edu|co|uk|de)(\b|$)|(?i)[a-z0-9-]\.(com|org|net|io|gov|edu)(\\?/|\$|$|\)|:)").ok()
});
static TAG: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?is)<\(?script.*</?\\?/?\(?script|<!--.*--(!\?)?>").ok());
/// The texts that tell how much of a document an expression for tags finds.
const TAGS: [(&str, &[&str]); 3] = [
    (
        "<script>foo</script>",
        &[
            "<script src=\"foo\">foo</script>",
            "<script>foo</script >",
            "<script>foo</script foo=\"bar\">",
            "<script>foo\nbar</script>",
            "<SCRIPT>foo</SCRIPT>",
            "<script>foo</script\t\n bar>",
        ],
    ),
    ("<!-- foo -->", &["<!-- foo --!>", "<!-- foo\nbar -->"]),
    ("<script>", &["<SCRIPT>", "<script src=\"foo\">"]),
];
static MULTI: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)<!--|<\(?\\?/?\(?(script|iframe|object|embed|style)|<\.\*cript|<[^\[\]()]*\[\^>\]|<\.[*+]\??>|<\\?/\?|\bon\\w\+|\.on\\w|\\s\*?on|\\\.\\\.|^\.\./|<\(\?!?|script.*>").ok()
});
static RANGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^([A-Z]-[a-z]|[!-/]-[:-@\[-`{-~]|[!-/]-[A-Za-z0-9]|[0-9]-[A-Za-z]|[:-@]-[A-Za-z\[-`]|[,.]-_|A-f|a-F|\$-`)").ok()
});

fn fits(regex: &LazyLock<Option<Regex>>, text: &str) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// Weaknesses of an expression on its own. `removes` says that matches are replaced, so that where they stand is no matter.
pub(super) fn of_pattern(pattern: &str, flags: &str, removes: bool) -> String {
    let mut out = Vec::new();
    let parts = alternatives(pattern);
    if half_anchored(&parts) {
        out.push("half-anchored");
    }
    let starts = pattern.replace("\\/", "/");
    if !removes && !pattern.starts_with('^') && fits(&UNANCHORED, &starts) {
        out.push("unanchored-host");
    }
    if !removes && fits(&OPEN_DOT, &starts) && (starts.contains("//") || starts.starts_with('^')) {
        out.push("host-dot");
    }
    if classes(pattern).iter().any(|class| overlong(class)) {
        out.push("range");
    }
    if misses_tags(pattern, flags).unwrap_or_else(|| fits(&TAG, &pattern.replace("\\/", "/"))) {
        out.push("tag");
    }
    out.join(" ")
}

/// Whether an expression that finds a tag or a comment misses other ways to write it; `None` where it cannot be tried out.
fn misses_tags(pattern: &str, flags: &str) -> Option<bool> {
    if !pattern.contains('<') {
        return Some(false);
    }
    let options: String = flags.chars().filter(|c| matches!(c, 'i' | 's' | 'm')).collect();
    let options = if options.is_empty() { options } else { format!("(?{options})") };
    let inner = pattern.replace("\\/", "/").replace("[^]", "[\\s\\S]");
    let whole = Regex::new(&format!("{options}(?:{inner})")).ok()?;
    let found = |text: &str| {
        whole.find_iter(text).any(|found| found.start() == 0 && found.end() == text.len())
    };
    // Any tag is as good as another.
    if found("<foo>") || found("<foo>foo</foo>") {
        return Some(false);
    }
    for (plain, others) in TAGS {
        if found(plain) {
            return Some(others.iter().any(|other| !found(other)));
        }
    }
    Some(false)
}

/// The texts between top-level bars.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut class) = (0usize, false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                if let Some(part) = parts.last_mut() {
                    part.push(c);
                    part.extend(chars.next());
                }
                continue;
            }
            '[' => class = true,
            ']' => class = false,
            '(' if !class => depth += 1,
            ')' if !class => depth = depth.saturating_sub(1),
            '|' if !class && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// `^a|b` and `a|b$`: the anchor belongs to one alternative only.
fn half_anchored(parts: &[String]) -> bool {
    let ([first, .., last], true) = (parts, parts.len() > 1) else { return false };
    let wordy = |part: &String| part.chars().any(char::is_alphanumeric);
    if !parts.iter().all(wordy) {
        return false;
    }
    let starts = |part: &String| part.starts_with('^') || part.starts_with("(^");
    let ends = |part: &String| part.ends_with('$') || part.ends_with("$)");
    let front = first.starts_with('^') && !parts[1..].iter().any(&starts);
    let back = last.ends_with('$') && !parts[..parts.len() - 1].iter().any(&ends);
    let any_front = parts.iter().any(starts);
    let any_back = parts.iter().any(ends);
    (front && !any_back)
        || (back && !any_front)
        || (front && back && parts.len() >= 2 && !ends(first) && !starts(last) && parts.len() > 2)
}

/// The insides of character classes.
fn classes(pattern: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut current: Option<String> = None;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, &mut current) {
            ('\\', Some(class)) => {
                class.push('\\');
                class.extend(chars.next());
            }
            ('\\', None) => {
                chars.next();
            }
            ('[', None) => current = Some(String::new()),
            (']', Some(_)) => out.extend(current.take()),
            (c, Some(class)) => class.push(c),
            _ => {}
        }
    }
    out
}

fn overlong(class: &str) -> bool {
    let chars: Vec<char> = class.chars().collect();
    let mut at = usize::from(chars.first() == Some(&'^'));
    while at + 2 < chars.len() {
        if chars[at] == '\\' {
            at += 2;
        } else if chars[at + 1] == '-' && chars[at + 2] != '\\' {
            let range: String = chars[at..at + 3].iter().collect();
            if fits(&RANGE, &range) {
                return true;
            }
            at += 3;
        } else {
            at += 1;
        }
    }
    false
}

/// Whether a literal holds a backslash that neither the text nor, by then, the expression sees.
pub(super) fn lost_escape(raw: &str) -> bool {
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c == '\\'
            && let Some(next) = chars.next()
            && (matches!(
                next,
                '.' | '*'
                    | '+'
                    | '?'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '|'
                    | '^'
                    | '$'
                    | '/'
                    | '-'
            ) || next.is_ascii_alphabetic()
                && !matches!(next, 'n' | 'r' | 't' | 'b' | 'f' | 'v' | 'u' | 'x'))
        {
            return true;
        }
    }
    false
}

/// One `replace(pattern, by)`.
pub(super) struct Step<'a> {
    /// The pattern without its delimiters.
    pub(super) pattern: &'a str,
    pub(super) is_regex: bool,
    pub(super) global: bool,
    /// The text that is put in; `None` where it is not known.
    pub(super) by: Option<String>,
}

/// Weaknesses of the last replacement of a chain, given in the order they happen.
pub(super) fn of_chain(steps: &[Step<'_>]) -> String {
    let Some((step, before)) = steps.split_last() else { return String::new() };
    let mut out = Vec::new();
    let plain: String =
        step.pattern.chars().filter(|c| !matches!(c, '(' | ')' | '[' | ']')).collect();
    let bare = if step.is_regex { plain.replace('\\', "") } else { step.pattern.to_owned() };
    let meta = |text: &str| {
        let n = text.chars().count();
        (1..=2).contains(&n)
            && text.chars().all(|c| {
                matches!(
                    c,
                    '\'' | '"'
                        | '<'
                        | '>'
                        | '&'
                        | '`'
                        | '|'
                        | ';'
                        | '$'
                        | '*'
                        | '{'
                        | '}'
                        | '['
                        | ']'
                        | '%'
                        | '/'
                        | '.'
                        | '\\'
                        | '\n'
                        | '('
                        | ')'
                        | '#'
                )
            })
            || matches!(text, "../" | "/..")
    };
    let one = if step.is_regex {
        (meta(&bare) || matches!(step.pattern, "\\\\" | "\\n" | "\\r?\\n" | "\\.\\.\\/" | "\\.\\."))
            && !step.pattern.starts_with("[^")
    } else {
        meta(&bare) || matches!(step.pattern, "\\n" | "\\\\" | "\\'" | "\\\"")
    };
    // Taking off what comes first is a thing of its own: `replace("#", "")`.
    let strips = !step.is_regex
        && step.by.as_deref() == Some("")
        && matches!(step.pattern, "#" | "." | "/" | "$" | "%");
    let closes = before.last().is_some_and(|before| is_pair(before, step));
    if one && !step.global && !strips && !closes && step.by.is_some() {
        out.push("first-only");
    }
    if step.is_regex
        && step.global
        && matches!(step.by.as_deref(), Some("" | " "))
        && !step.pattern.starts_with('[')
        && fits(&MULTI, &step.pattern.replace("\\/", "/"))
    {
        out.push("multi-character");
    }
    if step.is_regex
        && !step.global
        && step.by.as_deref() == Some("")
        && fits(&MULTI, &step.pattern.replace("\\/", "/"))
        && !step.pattern.starts_with('^')
    {
        out.push("multi-character");
    }
    let escapes_quote = step.global
        && matches!(bare.as_str(), "'" | "\"" | "`" | "$" | "\n" | "'\"" | "\"'" | "|")
        && step.by.as_deref().is_some_and(|by| by.starts_with('\\') && by != "\\n");
    let backslash = |other: &Step<'_>| {
        other.pattern.contains("\\\\") || (!other.is_regex && other.pattern == "\\")
    };
    if escapes_quote && !before.iter().any(backslash) && !backslash(step) {
        out.push("backslash");
    }
    let entity = |text: &str| text.starts_with('&') && text.ends_with(';');
    let double = (bare == "&"
        && step.by.as_deref() == Some("&amp;")
        && before.iter().any(|step| {
            step.by.as_deref().is_some_and(entity)
                || step.by.is_none() && step.pattern.contains(['"', '\'', '<'])
        }))
        || (entity(step.pattern)
            && step.pattern != "&amp;"
            && before.iter().any(|step| step.pattern == "&amp;"))
        || (step.is_regex
            && step.pattern.starts_with("\\\\")
            && step.pattern.len() > 2
            && before.iter().any(|step| {
                matches!(step.pattern, "\\\\" | "\\\\\\\\") && step.by.as_deref() == Some("\\")
            }))
        || (step.pattern == "\\\\"
            && step.by.as_deref() == Some("\\\\")
            && before.iter().any(|step| {
                step.by.as_deref().is_some_and(|by| by.starts_with('\\') && by.len() > 1)
            }))
        || (step.pattern == "%" && step.by.as_deref() == Some("%25") && !before.is_empty())
        || (step.pattern.starts_with('%')
            && step.pattern.len() == 3
            && before.iter().any(|step| step.pattern == "%25" && step.by.as_deref() == Some("%")));
    if double {
        out.push("double");
    }
    if bare.chars().count() == 1
        && step.by.as_deref() == Some(bare.as_str())
        && matches!(bare.as_str(), "\"" | "'" | "\\" | "&" | "<" | ">" | "`" | "$" | "/")
    {
        out.push("identity");
    }
    out.join(" ")
}

/// An opening bracket and its closing one, each taken off.
pub(super) fn is_pair(first: &Step<'_>, second: &Step<'_>) -> bool {
    let bare = |step: &Step<'_>| step.pattern.trim_start_matches(['\\', '^']).to_owned();
    let empty = |step: &Step<'_>| step.by.as_deref() == Some("");
    empty(first)
        && empty(second)
        && matches!(
            (bare(first).as_str(), bare(second).trim_end_matches('$')),
            ("[", "]") | ("(", ")") | ("{", "}") | ("<", ">") | ("\"", "\"") | ("'", "'")
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_expressions_are_named() {
        for (pattern, removes, expected) in [
            ("^a|b", false, "half-anchored"),
            ("^(a|b)$", false, ""),
            ("a|b$", false, "half-anchored"),
            ("^a|b|c$", false, "half-anchored"),
            (r"https?:\/\/good\.com", false, "unanchored-host"),
            (r"https?:\/\/good\.com", true, ""),
            (r"^https:\/\/www.good\.com\/", false, "host-dot"),
            (r"^https:\/\/www\.good\.com\/", false, ""),
            ("[A-z]", false, "range"),
            ("[A-Za-z_-]", false, ""),
            (r"<script.*?>.*?<\/script>", true, "tag"),
        ] {
            assert_eq!(of_pattern(pattern, "", removes), expected, "{pattern}");
        }
        assert!(lost_escape(r"^\d+$") && !lost_escape(r"^\\d+\n$"));
    }

    #[test]
    fn weak_replacements_are_named() {
        let step = |pattern, is_regex, global, by: &str| Step {
            pattern,
            is_regex,
            global,
            by: Some(by.to_owned()),
        };
        for (steps, expected) in [
            (vec![step("'", false, false, "")], "first-only"),
            (vec![step("'", true, true, "")], ""),
            (vec![step("'", true, true, "\\'")], "backslash"),
            (vec![step("\\\\", true, true, "\\\\"), step("'", true, true, "\\'")], ""),
            (vec![step("<", true, true, "&lt;"), step("&", true, true, "&amp;")], "double"),
            (vec![step("&", true, true, "&amp;"), step("<", true, true, "&lt;")], ""),
            (vec![step("<!--", true, true, "")], "multi-character"),
        ] {
            assert_eq!(of_chain(&steps), expected, "{}", steps.len());
        }
    }
}
