//! Names of packages and types, and the escapes of texts.

use std::borrow::Cow;

/// The name a package is used by where the import gives none, and the path rules know it by: the last part of the
/// import path without versions. Packages of the standard library that share a name keep the part before it.
pub(super) fn package_path(path: &str) -> (&str, String) {
    let mut whole = path;
    if let Some((rest, last)) = path.rsplit_once('/')
        && last.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok())
    {
        whole = rest;
    }
    let mut last = whole.rsplit('/').next().unwrap_or(whole);
    if let Some((rest, version)) = last.rsplit_once(".v")
        && version.parse::<u32>().is_ok()
    {
        last = rest;
    }
    for prefix in ["go-", "golang-"] {
        last = last.strip_prefix(prefix).unwrap_or(last);
    }
    for suffix in ["-go", ".go", "-golang"] {
        last = last.strip_suffix(suffix).unwrap_or(last);
    }
    let known = match whole {
        "html/template" | "text/template" | "crypto/rand" | "math/rand" => whole,
        _ => last,
    };
    (last, known.to_owned())
}

/// Numbers and truth values.
pub(super) fn is_number(name: &str) -> bool {
    matches!(
        name,
        "int"
            | "int8"
            | "int16"
            | "int32"
            | "int64"
            | "uint"
            | "uint8"
            | "uint16"
            | "uint32"
            | "uint64"
            | "uintptr"
            | "float32"
            | "float64"
            | "bool"
            | "rune"
            | "byte"
    )
}

/// The text between the quotes with escapes replaced. Numeric escapes of bell and backspace stay as they are: a regular
/// expression reads them the same way, and unlike `\b` they were meant.
pub(super) fn unescape(body: &str) -> Cow<'_, str> {
    if !body.contains('\\') {
        return Cow::Borrowed(body);
    }
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let (skip, digits, radix) = match c {
            'x' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='7' => (0, 3, 8),
            _ => {
                out.push(match c {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    other => other,
                });
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        let code = rest.get(skip..skip + digits);
        let number = code.and_then(|code| u32::from_str_radix(code, radix).ok());
        match (number, number.and_then(char::from_u32)) {
            (Some(7 | 8), _) | (_, None) => out.push('\\'),
            (_, Some(known)) => {
                // The mark of unknown text is no text of its own.
                out.push(if known == '\u{1}' { '\u{2}' } else { known });
                rest = &rest[skip + digits..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_their_last_part() {
        for (path, local, known) in [
            ("net/http", "http", "http"),
            ("math/rand/v2", "rand", "math/rand"),
            ("github.com/golang-jwt/jwt/v4", "jwt", "jwt"),
            ("gopkg.in/square/go-jose.v2", "jose", "jose"),
            ("github.com/dgrijalva/jwt-go", "jwt", "jwt"),
            ("html/template", "template", "html/template"),
        ] {
            assert_eq!(package_path(path), (local, known.to_owned()), "{path}");
        }
    }

    #[test]
    fn escapes() {
        for (body, text) in [
            (r"a\tb", "a\tb"),
            (r"\bx", "\u{8}x"),
            (r"\x08x", r"\x08x"),
            (r"\\b", r"\b"),
            (r"\u00e9\101", "éA"),
            ("\\", "\\"),
            (r"\x4", r"\x4"),
        ] {
            assert_eq!(unescape(body), text, "{body}");
        }
    }
}
