//! The schema of a theme file, and what must hold of it before anything is rendered.

use std::collections::BTreeSet;

use hardn_types::{Cwe, Language};
use serde::{Deserialize, Deserializer, de};

use crate::{LabError, Result};

/// A list of values needs this many, so that each part of the world gets some.
const MIN_VALUES: usize = 8;

/// One weakness, or one topic without any, in one language.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// The path without its ending, such as `python/cwe-089-sql`.
    #[serde(skip)]
    pub id: String,
    /// What it is about, in a few words.
    pub title: String,
    /// The language of its programs: Python or C.
    pub language: Language,
    /// The weakness; `None` for a topic that has nothing to do with security.
    #[serde(default)]
    pub cwe: Option<Cwe>,
    /// The names drawn for each program, as written; read them with [`Theme::slots`].
    #[serde(default, rename = "slots")]
    raw_slots: toml::Table,
    /// The same, checked.
    #[serde(skip)]
    slots: Vec<(String, Slot)>,
    /// What the code does.
    pub operations: Vec<Operation>,
    /// Where the value comes from, and the layout of the code.
    pub settings: Vec<Setting>,
    /// Groups of idioms with a visible cue in the prompt.
    pub styles: Vec<Style>,
    /// How a program is tested.
    pub tests: Tests,
}

/// What the code does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says it")]
pub struct Operation {
    pub id: String,
    /// Ways to say it, each a template.
    pub wordings: Vec<String>,
    /// More of them, from an idiom file, which only scenarios and tasks use.
    #[serde(skip)]
    pub scenario_wordings: Vec<String>,
    #[serde(default, deserialize_with = "ordered")]
    pub vars: Vec<(String, String)>,
}

/// Where the value comes from, and the layout of the code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says it")]
pub struct Setting {
    pub id: String,
    /// Everything before the body.
    pub prompt: String,
    /// How the tests call the function.
    #[serde(default)]
    pub call: Option<String>,
    #[serde(default, deserialize_with = "ordered")]
    pub vars: Vec<(String, String)>,
    /// The value is constant or already checked: the naive idiom is right.
    #[serde(default)]
    pub trusted: bool,
}

/// A body as written: a template, ending in a newline.
pub type Body = String;

/// A group of idioms with a visible cue in the prompt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says it")]
pub struct Style {
    pub id: String,
    #[serde(default, deserialize_with = "ordered")]
    pub vars: Vec<(String, String)>,
    /// Import lines or constants above the function.
    #[serde(default)]
    pub cue: String,
    /// First lines of the body that belong to the prompt.
    #[serde(default)]
    pub lead: String,
    #[serde(default)]
    pub vulnerable: Vec<Body>,
    #[serde(default)]
    pub secure: Vec<Body>,
    /// The right bodies in a trusted setting; the vulnerable ones where there are none.
    #[serde(default)]
    pub trusted: Vec<Body>,
    /// Whether fix pairs use it. Shipped themes leave it to the lab, which holds out at least one style.
    #[serde(skip)]
    pub in_pairs: Option<bool>,
    /// It comes from an idiom file.
    #[serde(skip)]
    pub added: bool,
}

/// How a program is tested.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the schema says it")]
pub struct Tests {
    pub function: String,
    #[serde(default)]
    pub attack: Option<String>,
    /// How to fix it, in one sentence.
    #[serde(default)]
    pub secure_hint: Option<String>,
}

/// Where the value of a slot comes from.
#[derive(Clone, Debug)]
pub enum Slot {
    /// A shared name pool.
    Pool(String),
    /// The theme's own list.
    Values(Vec<SlotValue>),
}

/// A value of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotValue {
    /// A text.
    Text(String),
    /// Several texts that belong together, in the order of the file.
    Table(Vec<(String, String)>),
}

impl SlotValue {
    /// The text, or a table's first text.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Table(fields) => fields.first().map_or("", |(_, text)| text),
        }
    }

    /// The text, if it is a plain identifier.
    pub(crate) fn identifier(&self) -> Option<&str> {
        match self {
            Self::Text(text)
                if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
            {
                Some(text)
            }
            _ => None,
        }
    }

    /// A text of a table.
    pub fn field(&self, name: &str) -> Option<&str> {
        match self {
            Self::Text(_) => None,
            Self::Table(fields) => {
                fields.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str())
            }
        }
    }
}

impl Theme {
    /// Reads a theme and checks everything that can be checked without rendering.
    ///
    /// # Errors
    /// Text that is not of the schema, with the line; a rule that is broken, with the key.
    pub fn parse(id: &str, text: &str) -> Result<Self> {
        let file = format!("{id}.toml");
        let mut theme: Self = toml::from_str(text)
            .map_err(|source| LabError::Toml { file: file.clone(), source: Box::new(source) })?;
        id.clone_into(&mut theme.id);
        let raw = std::mem::take(&mut theme.raw_slots);
        for (name, value) in &raw {
            let slot = match value {
                toml::Value::String(pool) => {
                    let problem = "expected a list, or the name of a pool such as \"@noun\"";
                    let pool = pool
                        .strip_prefix('@')
                        .ok_or_else(|| LabError::key(&file, format!("slots.{name}"), problem))?;
                    Slot::Pool(pool.to_owned())
                }
                list => Slot::Values(slot_values(&file, &format!("slots.{name}"), list)?),
            };
            theme.slots.push((name.clone(), slot));
        }
        theme.validate(&file)?;
        Ok(theme)
    }

    /// The names drawn for each program, in the order in which they are drawn.
    pub fn slots(&self) -> &[(String, Slot)] {
        &self.slots
    }

    /// True where the theme has nothing to do with security.
    pub fn is_utility(&self) -> bool {
        self.cwe.is_none()
    }

    /// True where the naive idiom is right: everywhere in a utility theme, and in trusted settings.
    pub fn is_trusted(&self, setting: usize) -> bool {
        self.is_utility() || self.settings[setting].trusted
    }

    fn validate(&self, file: &str) -> Result<()> {
        let bad = |key: String, problem: String| Err(LabError::key(file, key, problem));
        let folder = self.id.split('/').next().unwrap_or_default();
        if folder != self.language.name()
            || !matches!(self.language, Language::Python | Language::C)
        {
            let problem = format!(
                "`{}` does not fit the folder `{folder}`; python and c are known",
                self.language
            );
            return bad("language".into(), problem);
        }
        for (name, slot) in &self.slots {
            if let Slot::Values(values) = slot {
                if values.len() < MIN_VALUES {
                    let problem =
                        format!("{} values; at least {MIN_VALUES} are needed", values.len());
                    return bad(format!("slots.{name}"), problem);
                }
                unique(file, &format!("slots.{name}"), values.iter().map(SlotValue::text))?;
            }
        }
        for (key, n) in [("operations", self.operations.len()), ("settings", self.settings.len())] {
            if n < 3 {
                return bad(key.into(), format!("{n}; at least 3 are needed, 4 are better"));
            }
        }
        unique(file, "operations", self.operations.iter().map(|o| o.id.as_str()))?;
        unique(file, "settings", self.settings.iter().map(|s| s.id.as_str()))?;
        unique(file, "styles", self.styles.iter().map(|s| s.id.as_str()))?;
        for operation in &self.operations {
            let key = format!("operations[{}].wordings", operation.id);
            if operation.wordings.len() < MIN_VALUES {
                let problem = format!(
                    "{} wordings; at least {MIN_VALUES} are needed",
                    operation.wordings.len()
                );
                return bad(key, problem);
            }
            unique(file, &key, operation.wordings.iter().map(String::as_str))?;
        }
        for setting in &self.settings {
            let n = setting.prompt.replace(' ', "").matches("{{doc}}").count();
            if n != 1 {
                let problem = format!("contains {{{{ doc }}}} {n} times; it must once");
                return bad(format!("settings[{}].prompt", setting.id), problem);
            }
        }
        self.validate_styles(file)
    }

    fn validate_styles(&self, file: &str) -> Result<()> {
        let bad = |key: String, problem: &str| Err(LabError::key(file, key, problem));
        for style in &self.styles {
            style.validate(file, &format!("styles[{}]", style.id), self.is_utility())?;
        }
        if self.is_utility() {
            if self.styles.is_empty() {
                return bad("styles".into(), "there is none");
            }
            if self.tests.attack.is_some() {
                return bad("tests.attack".into(), "a theme without `cwe` has nothing to attack");
            }
            return Ok(());
        }
        if self.styles.len() < 4 {
            return bad(
                "styles".into(),
                "a weakness needs at least 4 styles, as one is kept out of the fix pairs",
            );
        }
        if self.tests.attack.is_none() {
            return bad("tests.attack".into(), "a theme with a `cwe` needs an attack");
        }
        if self.settings.iter().filter(|setting| !setting.trusted).count() < 3 {
            return bad("settings".into(), "at least 3 settings must not be trusted");
        }
        Ok(())
    }
}

impl Operation {
    /// The shipped wordings, then those of an idiom file.
    pub(crate) fn all_wordings(&self) -> impl Iterator<Item = &String> {
        self.wordings.iter().chain(&self.scenario_wordings)
    }
}

impl Style {
    pub(crate) fn validate(&self, file: &str, key: &str, utility: bool) -> Result<()> {
        for (name, text) in [("cue", &self.cue), ("lead", &self.lead)] {
            if !text.is_empty() && !text.ends_with('\n') {
                return Err(LabError::key(file, format!("{key}.{name}"), "must end in a newline"));
            }
        }
        let groups = [
            ("vulnerable", &self.vulnerable),
            ("secure", &self.secure),
            ("trusted", &self.trusted),
        ];
        for (name, bodies) in groups {
            for (i, body) in bodies.iter().enumerate() {
                if !body.ends_with('\n') {
                    let key = format!("{key}.{name}[{i}]");
                    return Err(LabError::key(file, key, "must end in a newline"));
                }
            }
            let wanted = (name == "trusted") == utility;
            if wanted && bodies.is_empty() {
                return Err(LabError::key(
                    file,
                    format!("{key}.{name}"),
                    "needs at least one body",
                ));
            }
            if utility && name != "trusted" && !bodies.is_empty() {
                let problem = "a theme without `cwe` has `trusted` bodies only";
                return Err(LabError::key(file, format!("{key}.{name}"), problem));
            }
        }
        Ok(())
    }
}

fn unique<'a>(file: &str, key: &str, texts: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for text in texts {
        if !seen.insert(text) {
            return Err(LabError::key(file, key, format!("`{text}` occurs twice")));
        }
    }
    Ok(())
}

/// Reads a list of strings or of tables of strings.
pub(crate) fn slot_values(file: &str, key: &str, value: &toml::Value) -> Result<Vec<SlotValue>> {
    let list = value.as_array().ok_or_else(|| {
        LabError::key(file, key, "expected a list of strings or of tables of strings")
    })?;
    let mut values = Vec::new();
    for (i, item) in list.iter().enumerate() {
        let wrong = || {
            LabError::key(file, format!("{key}[{i}]"), "expected a string or a table of strings")
        };
        values.push(match item {
            toml::Value::String(text) => SlotValue::Text(text.clone()),
            toml::Value::Table(table) => SlotValue::Table(
                table
                    .iter()
                    .map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
                    .collect::<Option<_>>()
                    .ok_or_else(wrong)?,
            ),
            _ => return Err(wrong()),
        });
    }
    Ok(values)
}

/// A table of strings in the order of the file.
fn ordered<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<(String, String)>, D::Error> {
    let table = toml::Table::deserialize(deserializer)?;
    table
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            other => Err(de::Error::custom(format!(
                "`vars.{name}` must be a string, not {}",
                other.type_str()
            ))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
title = "T"
language = "python"
operations = [
    { id = "a", wordings = ["1", "2", "3", "4", "5", "6", "7", "8"], vars = { z = "1", a = "2" } },
    { id = "b", wordings = ["1", "2", "3", "4", "5", "6", "7", "8"] },
    { id = "c", wordings = ["1", "2", "3", "4", "5", "6", "7", "8"] },
]
settings = [
    { id = "a", prompt = "{{ doc }}" },
    { id = "b", prompt = "{{ doc }}" },
    { id = "c", prompt = "{{ doc }}" },
]
styles = [{ id = "one", trusted = ["x\n"] }]
tests = { function = "pass" }
[slots]
word = "@word"
"#;

    #[track_caller]
    fn fails(from: &str, to: &str, wanted: &str) {
        assert!(GOOD.contains(from), "{from}");
        let message = Theme::parse("python/t", &GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(message.contains(wanted), "`{wanted}` is missing in: {message}");
    }

    #[test]
    fn variables_keep_the_order_of_the_file() {
        let theme = Theme::parse("python/t", GOOD).unwrap();
        let names: Vec<&str> =
            theme.operations[0].vars.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
    }

    #[test]
    fn errors_name_the_key() {
        fails("title", "titel", "titel");
        fails("language = \"python\"", "language = \"c\"", "key `language`");
        fails("\"@word\"", "\"word\"", "key `slots.word`");
        fails("\"@word\"", "[\"a\", \"b\"]", "at least 8");
        fails("{ id = \"b\", prompt", "{ id = \"a\", prompt", "`a` occurs twice");
        fails(
            "id = \"c\", prompt = \"{{ doc }}\"",
            "id = \"c\", prompt = \"\"",
            "settings[c].prompt",
        );
        fails("\"7\", \"8\"] },\n]", "\"8\"] },\n]", "operations[c].wordings");
        fails("x\\n", "x", "styles[one].trusted[0]");
        fails("trusted = ", "secure = ", "styles[one]");
        fails("title = \"T\"", "title = \"T\"\ncwe = \"CWE-89\"", "styles[one]");
        fails("z = \"1\"", "z = 1", "vars.z");
    }
}
