//! A Jinja environment in which templates written for transformers render the same.

use std::{borrow::Cow, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Rest, ValueKind},
};
use regex::Regex;

use super::python;

static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
    let usual = SyntaxConfig::default();
    let mut trimmed = usual.to_builder();
    trimmed.trim_blocks(true).lstrip_blocks(true);
    trimmed.build().unwrap_or(usual)
});

/// The environment of transformers' chat templates: blocks leave no line break or indentation behind, no escaping, and the
/// functions `raise_exception` and `strftime_now`. Of Jinja it lacks the `%` operator on texts, an error, and a macro's
/// `varargs`.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(SYNTAX.clone());
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
        .set_formatter(|out, _, value| out.write_str(&python::text(value)).map_err(Error::from));
    environment.set_unknown_method_callback(python::method);
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
    });
    environment.add_function("strftime_now", |format: &str| {
        jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, format!("`strftime_now({format})`: {error}"))
        })
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = python::text(value);
        match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
            None => python::strip(&text).to_owned(),
        }
    });
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("replace", |value: &Value, old: &str, new: &str, n: Option<usize>| {
        let text = python::text(value);
        n.map_or_else(|| text.replace(old, new), |n| text.replacen(old, new, n))
    });
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    // A text and a mapping are sequences too, as is what is not defined.
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_sequence);
    environment
}

fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Undefined
            | ValueKind::String
            | ValueKind::Seq
            | ValueKind::Map
            | ValueKind::Iterable
    )
}

/// `default(default_value='', boolean=false)`.
fn default(value: Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |place: usize, key: &str| match placed.get(place) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get::<Option<Value>>(key),
    };
    let other = argument(0, "default_value")?;
    let boolean = argument(1, "boolean")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let absent = value.is_undefined() || (boolean && !value.is_true());
    Ok(if absent { other.unwrap_or_else(|| Value::from("")) } else { value })
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("a {} has no length", value.kind()))
    })
}

/// `tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, by place or by name.
fn to_json(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |place: usize, key: &str| -> Result<Option<Value>, Error> {
        let given = match placed.get(place) {
            Some(value) => Some(value.clone()),
            None => named.get(key)?,
        };
        Ok(given.filter(|value| !value.is_none()))
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = is_true(argument(0, "ensure_ascii")?);
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = is_true(argument(3, "sort_keys")?);
    named.assert_all_used()?;
    let indent = indent
        .map(|indent| match indent.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => i64::try_from(indent).map(|n| " ".repeat(usize::try_from(n).unwrap_or(0))),
        })
        .transpose()?;
    let separators = match separators {
        None => None,
        Some(pair) => {
            let both = (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?);
            Some((both.0.to_string(), both.1.to_string()))
        }
    };
    python::json(value, &python::JsonStyle { ensure_ascii, indent, separators, sort_keys })
}

/// `{% generation %}` marks what the model wrote; it renders as what is inside, with variables of its own.
pub(super) fn plain_blocks(template: &str) -> Cow<'_, str> {
    static OPEN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*generation\s*([-+]?)%\}").unwrap());
    static CLOSE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}").unwrap());
    if !template.contains("endgeneration") {
        return Cow::Borrowed(template);
    }
    let opened = OPEN.replace_all(template, "{%$1 with $2%}");
    Cow::Owned(CLOSE.replace_all(&opened, "{%$1 endwith $2%}").into_owned())
}
