//! The values of literals: strings with their escapes, and numbers.

use std::borrow::Cow;

/// The text between the quotes with escapes replaced; `raw` keeps backslashes.
pub(super) fn unescape(body: &str, raw: bool) -> Cow<'_, str> {
    if raw || !body.contains('\\') {
        return Cow::Borrowed(body);
    }
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('0') => out.push('\0'),
            Some('\n') => {}
            Some('x') => {
                let code: String = chars.clone().take(2).collect();
                match u8::from_str_radix(&code, 16) {
                    Ok(byte) => {
                        out.push(char::from(byte));
                        chars.nth(1);
                    }
                    Err(_) => out.push_str("\\x"),
                }
            }
            Some(c @ ('\\' | '\'' | '"')) => out.push(c),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    Cow::Owned(out)
}

/// The value of an integer literal of Python or C; `None` for floats and what does not fit.
pub(super) fn integer(text: &str) -> Option<i64> {
    let clean: String = text.chars().filter(|c| !matches!(c, '_' | '\'')).collect();
    let lower = clean.to_ascii_lowercase();
    let hex = lower.starts_with("0x");
    let digits = if hex {
        lower.trim_end_matches(['u', 'l'])
    } else {
        lower.trim_end_matches(['u', 'l', 'z'])
    };
    if let Some(rest) = digits.strip_prefix("0x") {
        return i64::from_str_radix(rest, 16).ok();
    }
    if let Some(rest) = digits.strip_prefix("0b") {
        return i64::from_str_radix(rest, 2).ok();
    }
    if let Some(rest) = digits.strip_prefix("0o") {
        return i64::from_str_radix(rest, 8).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return i64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_have_their_values() {
        for (text, value) in [
            ("0x1F", Some(31)),
            ("0o777", Some(511)),
            ("0777", Some(511)),
            ("10UL", Some(10)),
            ("1.5", None),
            ("1_000", Some(1000)),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
        assert_eq!(unescape(r"a\n\x41\d", false), "a\nA\\d");
        assert_eq!(unescape(r"a\n", true), r"a\n");
    }
}
