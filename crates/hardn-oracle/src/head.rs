//! Functions cut out of a C file without the type they return, as in `copy(char *to) { ... }`.

/// Stands for the type that is missing; no type of C, so that nothing is concluded from it.
pub(crate) const MISSING_TYPE: &str = "untyped ";

/// Where the type is missing: before the name of a function that is defined right at the start of the code.
pub(crate) fn missing_type(code: &str) -> Option<usize> {
    let start = code.len() - skip_blank(code).len();
    let rest = &code[start..];
    let name_end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let name = &rest[..name_end];
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || matches!(name, "if" | "while" | "for" | "switch" | "return" | "sizeof" | "do")
    {
        return None;
    }
    let list = skip_blank(&rest[name_end..]);
    let after = after_parentheses(list)?;
    skip_blank(after).starts_with('{').then_some(start)
}

/// What follows blanks and comments.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        let rest = if let Some(comment) = text.strip_prefix("/*") {
            comment.find("*/").map(|end| &comment[end + 2..])
        } else if text.starts_with("//") {
            text.find('\n').map(|end| &text[end..])
        } else {
            None
        };
        match rest {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// What follows a list in parentheses at the start of a text.
fn after_parentheses(text: &str) -> Option<&str> {
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            // No list of parameters.
            '{' | '}' | ';' | '"' => return None,
            _ => {}
        }
        if depth == 0 {
            return (c == ')').then(|| &text[at + 1..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definition_without_its_type_lacks_one() {
        for (code, at) in [
            ("copy(char *to, int n)\n{ }", Some(0)),
            ("\n/* copies */ copy(int (*f)(int), ...) { }", Some(14)),
            ("int copy(char *to) { }", None),
            ("copy(to, 4);", None),
            ("while (n) { n--; }", None),
            ("static", None),
            ("", None),
        ] {
            assert_eq!(missing_type(code), at, "{code}");
        }
    }
}
