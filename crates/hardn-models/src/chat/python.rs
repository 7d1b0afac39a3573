//! Python's way with values, where templates written for it depend on it.

use std::fmt::Write;

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{ValueKind, from_args},
};

/// How `json.dumps` writes.
pub(super) struct JsonStyle {
    pub(super) ensure_ascii: bool,
    pub(super) indent: Option<String>,
    /// Between items, and between key and value.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
}

/// `json.loads`.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::from)
            .or_else(|| number.as_u64().map(Value::from))
            .unwrap_or_else(|| Value::from(number.as_f64().unwrap_or(f64::NAN))),
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, item)| (key.as_str(), value(item))))
        }
    }
}

/// `str(value)`.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map => repr(value),
        ValueKind::Number => number(value),
        _ => value.to_string(),
    }
}

/// `repr(value)`.
fn repr(value: &Value) -> String {
    let items = |value: &Value| -> Vec<Value> {
        value.try_iter().map(Iterator::collect).unwrap_or_default()
    };
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number => number(value),
        ValueKind::Seq => {
            let inside: Vec<String> = items(value).iter().map(repr).collect();
            match inside.as_slice() {
                [one] if value.is_tuple() => format!("({one},)"),
                all if value.is_tuple() => format!("({})", all.join(", ")),
                all => format!("[{}]", all.join(", ")),
            }
        }
        ValueKind::Map => {
            let entry = |key: &Value| {
                let item = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&item))
            };
            let inside: Vec<String> = items(value).iter().map(entry).collect();
            format!("{{{}}}", inside.join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => _ = write!(out, "\\{c}"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => _ = write!(out, "\\x{:02x}", c as u32),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_nan() => "nan".to_owned(),
        Ok(x) if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.to_owned(),
        Ok(x) => float(x),
        Err(_) => value.to_string(),
    }
}

/// The shortest digits that give the number back, with an exponent below 1e-4 and from 1e16.
fn float(x: f64) -> String {
    let scientific = format!("{x:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let power: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    let plain = format!("{x}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// `json.dumps(value)`.
pub(super) fn json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, style, 0)?;
    Ok(out)
}

fn write_json(
    out: &mut String,
    value: &Value,
    style: &JsonStyle,
    depth: usize,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(match number(value).as_str() {
            "nan" => "NaN",
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            finite => finite,
        }),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ['[', ']'], &items, style, depth, |out, item| {
                write_json(out, item, style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            let between = style.separators.as_ref().map_or(": ", |(_, colon)| colon.as_str());
            write_items(out, ['{', '}'], &keys, style, depth, |out, key| {
                match key.kind() {
                    ValueKind::String => write_string(out, key.as_str().unwrap_or_default(), style),
                    ValueKind::None => out.push_str("\"null\""),
                    ValueKind::Bool => _ = write!(out, "\"{}\"", key.is_true()),
                    _ => _ = write!(out, "\"{}\"", text(key)),
                }
                out.push_str(between);
                write_json(out, &value.get_item(key)?, style, depth + 1)
            })?;
        }
        other => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("an {other} value is not JSON serializable"),
            ));
        }
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    [open, close]: [char; 2],
    items: &[Value],
    style: &JsonStyle,
    depth: usize,
    mut write: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let usual = if style.indent.is_some() { "," } else { ", " };
    let between = style.separators.as_ref().map_or(usual, |(comma, _)| comma.as_str());
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = style.indent.as_ref().filter(|_| !items.is_empty()) {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    out.push(open);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        line(out, depth + 1);
        write(out, item)?;
    }
    line(out, depth);
    out.push(close);
    Ok(())
}

fn write_string(out: &mut String, text: &str, style: &JsonStyle) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
            c if style.ensure_ascii && (c as u32) >= 0x7f => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What `str.isspace` holds for one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The methods of Python's texts and mappings.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments);
    };
    let trims = arguments.is_empty() || (arguments.len() == 1 && arguments[0].is_none());
    Ok(match name {
        "strip" if trims => strip(text).into(),
        "lstrip" if trims => text.trim_start_matches(is_space).into(),
        "rstrip" if trims => text.trim_end_matches(is_space).into(),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (mark,): (&str,) = from_args(arguments)?;
            let parts =
                if name == "partition" { text.split_once(mark) } else { text.rsplit_once(mark) };
            Value::from(&match parts {
                Some((before, after)) => (before, mark, after),
                None if name == "partition" => (text, "", ""),
                None => ("", "", text),
            })
        }
        "index" => {
            let (part,): (&str,) = from_args(arguments)?;
            let place = text.find(part).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "`index`: the part does not occur")
            })?;
            text[..place].chars().count().into()
        }
        "casefold" => text.to_lowercase().into(),
        "rsplit" => {
            let (mark, n): (&str, Option<usize>) = from_args(arguments)?;
            let n = n.map_or(usize::MAX, |n| n + 1);
            let mut parts: Vec<Value> = text.rsplitn(n, mark).map(Value::from).collect();
            parts.reverse();
            parts.into()
        }
        "join" => {
            let (list,): (&Value,) = from_args(arguments)?;
            let parts: Vec<String> = list.try_iter()?.map(|item| self::text(&item)).collect();
            parts.join(text).into()
        }
        _ => {
            return minijinja_contrib::pycompat::unknown_method_callback(
                state, value, name, arguments,
            );
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_python_prints_them() {
        for (x, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0.0"),
        ] {
            assert_eq!(float(x), expected);
        }
    }
}
