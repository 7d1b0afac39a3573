//! Texts made by formats: `%`, `.format`, printf.

use super::value::{HOLE_TEXT, Value, concat};
use crate::ir::Range;

/// The rules that a value can no longer hurt once it was converted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Converted {
    /// Shown by `repr`.
    pub(super) repr: u128,
    /// Put in as a number.
    pub(super) number: u128,
}

/// The names that a format like `%(name)s` asks for.
pub(super) fn names(format: &str) -> Vec<&str> {
    format.split("%(").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// Python's `%`: numeric conversions let no text through. `named` is what is known of the entries of a mapping.
pub(super) fn percent<'p>(
    format: &Value<'p>,
    items: &[Value<'p>],
    named: &[(&str, Value<'p>)],
    is_sequence: bool,
    converted: Converted,
    range: Range,
) -> Value<'p> {
    let Some(text) = format.text.clone() else {
        let mut parts = vec![format.clone()];
        parts.extend(items.iter().cloned());
        return joined(&parts, range);
    };
    // `"..." % values` with a tuple or mapping in a variable fills every place.
    let spread = items.len() == 1
        && (is_sequence || text.matches('%').count() > 1 + 2 * text.matches("%%").count());
    let mut items = items.iter();
    let mut parts = vec![];
    let mut literal = String::new();
    let mut held = format.derived();
    let mut chars = text.chars().peekable();
    let whole = items.clone().next().cloned();
    while let Some(c) = chars.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            literal.push('%');
            continue;
        }
        let mut conversion = None;
        let mut key = String::new();
        while let Some(&next) = chars.peek() {
            chars.next();
            if next == '(' {
                for inner in chars.by_ref() {
                    if inner == ')' {
                        break;
                    }
                    key.push(inner);
                }
            } else if next.is_ascii_alphabetic() && !matches!(next, 'l' | 'h' | 'z' | 'L') {
                conversion = Some(next);
                break;
            } else if !matches!(
                next,
                '0'..='9' | '.' | '-' | '+' | ' ' | '#' | '*' | 'l' | 'h' | 'z' | 'L'
            ) {
                break;
            }
        }
        let value = match named.iter().find(|(name, _)| *name == key) {
            Some((_, value)) => Some(value.clone()),
            None if spread => whole.clone(),
            None => items.next().cloned(),
        };
        let value = value.unwrap_or_default();
        parts.push(Value::of_text(&std::mem::take(&mut literal)));
        parts.push(match conversion {
            Some('d' | 'i' | 'u' | 'x' | 'X' | 'o' | 'f' | 'F' | 'g' | 'e' | 'c' | 'p') => {
                number(&value, converted)
            }
            Some('r' | 'a') => {
                let mut value = scalar(&value);
                value.clean(converted.repr);
                value
            }
            _ => scalar(&value),
        });
    }
    parts.push(Value::of_text(&literal));
    let mut value = joined(&parts, range);
    held.change(|atom| atom.built = true);
    value.absorb(&held);
    value
}

/// Python's `str.format` and anything with braces: the values come in order.
pub(super) fn braces<'p>(
    format: &Value<'p>,
    items: &[Value<'p>],
    named: &[(&str, Value<'p>)],
    converted: Converted,
    range: Range,
) -> Value<'p> {
    let Some(text) = format.text.clone() else {
        let mut parts = vec![format.clone()];
        parts.extend(items.iter().cloned());
        parts.extend(named.iter().map(|(_, value)| value.clone()));
        return joined(&parts, range);
    };
    let mut parts = Vec::new();
    let mut next_item = 0;
    let mut rest: &str = &text;
    let mut literal = String::new();
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        if doubled {
            literal.push_str(&rest[at..=at]);
            rest = &rest[at + 2..];
            continue;
        }
        let end = rest[at..].find('}').map_or(rest.len(), |end| at + end);
        let inner = rest.get(at + 1..end).unwrap_or("");
        let (field, spec) = inner.split_once(':').unwrap_or((inner, ""));
        let shown = field.ends_with("!r") || field.ends_with("!a");
        let field = field.split(['.', '[', '!']).next().unwrap_or("");
        let value = if field.is_empty() {
            next_item += 1;
            items.get(next_item - 1).cloned()
        } else if let Ok(number) = field.parse::<usize>() {
            items.get(number).cloned()
        } else {
            named
                .iter()
                .find(|(name, _)| *name == field)
                .or_else(|| named.iter().find(|(name, _)| name.is_empty()))
                .map(|(_, value)| value.clone())
        };
        parts.push(Value::of_text(&std::mem::take(&mut literal)));
        let numeric = spec.ends_with(['d', 'x', 'X', 'f', 'b', 'o', 'e', 'g']);
        let mut value = scalar(&value.unwrap_or_default());
        if shown {
            value.clean(converted.repr);
        }
        parts.push(if numeric { number(&value, converted) } else { value });
        rest = rest.get(end + 1..).unwrap_or("");
    }
    literal.push_str(rest);
    parts.push(Value::of_text(&literal));
    let mut value = joined(&parts, range);
    let mut held = format.derived();
    held.change(|atom| atom.built = true);
    value.absorb(&held);
    value
}

fn joined<'p>(parts: &[Value<'p>], range: Range) -> Value<'p> {
    // Empty literals around a value are no joining.
    let parts: Vec<Value<'p>> =
        parts.iter().filter(|part| part.text.as_deref() != Some("")).cloned().collect();
    let mut value = concat(&parts);
    value.change(|atom| atom.trace = atom.trace.step(range, "is put into a text".to_owned()));
    if value.text.is_none() {
        value.text = Some(HOLE_TEXT.into());
    }
    value
}

/// Nothing is known of the digits of a number.
fn number<'p>(value: &Value<'p>, converted: Converted) -> Value<'p> {
    let mut value = value.derived();
    value.clean(converted.number);
    value.retain(|atom| atom.clean != u128::MAX);
    value.text = Some(HOLE_TEXT.into());
    value
}

/// A list put into a text is text.
fn scalar<'p>(value: &Value<'p>) -> Value<'p> {
    let mut value = value.clone();
    value.sequence = false;
    value
}
