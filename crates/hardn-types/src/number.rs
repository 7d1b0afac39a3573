//! Numbers as people type them.

use std::borrow::Cow;

/// A number as TOML wants it: `.3` and `3.` get the zero they lack. Anything else stays what it is.
pub fn toml_number(text: &str) -> Cow<'_, str> {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (sign, number) = match text.strip_prefix(['-', '+']) {
        Some(number) => (&text[..1], number),
        None => ("", text),
    };
    match number.split_once('.') {
        Some(("", after)) if !after.is_empty() && digits(after) => {
            Cow::Owned(format!("{sign}0.{after}"))
        }
        Some((before, "")) if !before.is_empty() && digits(before) => {
            Cow::Owned(format!("{sign}{before}.0"))
        }
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_change() {
        for (text, expected) in [
            (".3", "0.3"),
            ("-.25", "-0.25"),
            ("1.", "1.0"),
            ("0.3", "0.3"),
            (".", "."),
            ("..", ".."),
            ("./a", "./a"),
            (".x", ".x"),
            ("", ""),
        ] {
            assert_eq!(toml_number(text), expected);
        }
    }
}
