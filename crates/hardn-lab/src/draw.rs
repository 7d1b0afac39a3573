//! Rendering: a cell of a theme and a part of the world give a prompt, its bodies and its tests.

use std::{collections::BTreeMap, sync::Arc};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, syntax::SyntaxConfig};

use crate::{
    LabError, Names, Part, Result, Rng,
    split::split_by_rank,
    theme::{Slot, SlotValue, Theme},
};

/// Tries to draw a value that no other slot of the program has.
const MAX_REDRAWS: usize = 20;

/// Share of the words in training text that are made up: a model that has seen only a few hundred names learns them by
/// heart instead of learning to copy the prompt's, and fine-tuning on a few dozen makes it forget how.
const MADE_UP_SHARE: f64 = 0.8;

/// Words that a made-up name must not hit.
const RESERVED: [&str; 33] = [
    "and", "def", "for", "int", "len", "not", "max", "min", "str", "auto", "bool", "break",
    "bytes", "case", "char", "class", "const", "dict", "float", "from", "input", "list", "long",
    "none", "pass", "print", "raise", "range", "return", "short", "static", "struct", "while",
];

/// One operation in one setting in one style, by their positions in the theme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Cell {
    pub operation: usize,
    pub setting: usize,
    pub style: usize,
}

/// Which bodies of a style.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum BodyKind {
    Vulnerable,
    Secure,
    Trusted,
}

impl BodyKind {
    /// The key of these bodies in a theme file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulnerable => "vulnerable",
            Self::Secure => "secure",
            Self::Trusted => "trusted",
        }
    }
}

/// A theme with its templates compiled and its values sorted into the parts of the world.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) theme: Theme,
    environment: Environment<'static>,
    slots: Vec<(Arc<str>, [Vec<SlotValue>; 4])>,
    /// Words to make up names from.
    bases: Arc<[String]>,
    /// By operation and part, positions of wordings.
    wordings: Vec<[Vec<usize>; 4]>,
}

/// A program's prompt, and everything that can follow it.
#[derive(Debug)]
pub struct Drawn<'a> {
    compiled: &'a Compiled,
    cell: Cell,
    context: Vec<(Arc<str>, Value)>,
    /// The sentence that says what the code does.
    pub doc: String,
    /// Everything before the body.
    pub prompt: String,
}

impl Compiled {
    /// `words` says where the words of the theme's own lists go; names are made up from `bases`.
    pub(crate) fn new(
        theme: Theme,
        names: &Names,
        words: &BTreeMap<String, Part>,
        bases: Arc<[String]>,
    ) -> Result<Self> {
        let file = format!("{}.toml", theme.id);
        let mut slots = Vec::new();
        for (name, slot) in theme.slots() {
            let parts = match slot {
                Slot::Values(values) if values.iter().all(|value| value.identifier().is_some()) => {
                    Part::ALL.map(|part| {
                        let is_in = |value: &&SlotValue| words.get(value.text()) == Some(&part);
                        values.iter().filter(is_in).cloned().collect()
                    })
                }
                Slot::Values(values) => split_by_rank(values, |value| value.text().to_owned()),
                Slot::Pool(pool) => {
                    let mut parts: [Vec<SlotValue>; 4] = Default::default();
                    for part in Part::ALL {
                        let values = names.part(pool, part).ok_or_else(|| {
                            let known = names.pools().collect::<Vec<_>>().join(", ");
                            let problem = format!("there is no pool `{pool}`; there are {known}");
                            LabError::key(&file, format!("slots.{name}"), problem)
                        })?;
                        parts[part as usize] = values.to_vec();
                    }
                    parts
                }
            };
            slots.push((Arc::from(name.as_str()), parts));
        }
        let wordings = theme
            .operations
            .iter()
            .map(|operation| {
                let positions: Vec<usize> = (0..operation.wordings.len()).collect();
                let mut parts = split_by_rank(&positions, |&i| operation.wordings[i].clone());
                for i in 0..operation.scenario_wordings.len() {
                    let part = if i % 3 == 2 { Part::Val } else { Part::Test };
                    parts[part as usize].push(operation.wordings.len() + i);
                }
                parts
            })
            .collect();
        let mut compiled = Self { environment: environment(), theme, slots, bases, wordings };
        compiled.add_templates()?;
        Ok(compiled)
    }

    /// Each slot's values, by part.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> impl Iterator<Item = (&str, &[Vec<SlotValue>; 4])> {
        self.slots.iter().map(|(name, parts)| (name.as_ref(), parts))
    }

    fn add_templates(&mut self) -> Result<()> {
        let theme = &self.theme;
        let mut templates: Vec<(String, String)> = Vec::new();
        for (name, parts) in &self.slots {
            for value in parts.iter().flatten() {
                match value {
                    SlotValue::Text(text) => {
                        templates.push((slot_key(name, text, None), text.clone()));
                    }
                    SlotValue::Table(fields) => {
                        templates.extend(fields.iter().map(|(field, text)| {
                            (slot_key(name, value.text(), Some(field)), text.clone())
                        }));
                    }
                }
            }
        }
        let mut add = |key: String, text: &str| templates.push((key, text.to_owned()));
        for operation in &theme.operations {
            let key = format!("operations[{}]", operation.id);
            for (i, wording) in operation.all_wordings().enumerate() {
                add(format!("{key}.wordings[{i}]"), wording);
            }
            for (name, text) in &operation.vars {
                add(format!("{key}.vars.{name}"), text);
            }
        }
        for setting in &theme.settings {
            let key = format!("settings[{}]", setting.id);
            add(format!("{key}.prompt"), &setting.prompt);
            for (name, text) in &setting.vars {
                add(format!("{key}.vars.{name}"), text);
            }
            if let Some(call) = &setting.call {
                add(format!("{key}.call"), call);
            }
        }
        for style in &theme.styles {
            let key = format!("styles[{}]", style.id);
            for (name, text) in &style.vars {
                add(format!("{key}.vars.{name}"), text);
            }
            add(format!("{key}.cue"), &style.cue);
            add(format!("{key}.lead"), &style.lead);
            for (kind, bodies) in [
                (BodyKind::Vulnerable, &style.vulnerable),
                (BodyKind::Secure, &style.secure),
                (BodyKind::Trusted, &style.trusted),
            ] {
                for (i, body) in bodies.iter().enumerate() {
                    add(format!("{key}.{}[{i}]", kind.name()), body);
                }
            }
        }
        add("tests.function".into(), &theme.tests.function);
        if let Some(attack) = &theme.tests.attack {
            add("tests.attack".into(), attack);
        }
        for (key, text) in templates {
            // A text without a tag is its own rendering.
            if is_template(&text) {
                let fail = |error: minijinja::Error| template_error(&theme.id, &key, &error);
                self.environment.add_template_owned(key.clone(), text).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Draws names and a wording from a part, and renders the prompt.
    pub(crate) fn draw(&self, cell: Cell, part: Part, rng: &mut Rng) -> Result<Drawn<'_>> {
        let theme = &self.theme;
        let (operation, setting) =
            (&theme.operations[cell.operation], &theme.settings[cell.setting]);
        let style = &theme.styles[cell.style];
        let mut context: Vec<(Arc<str>, Value)> = Vec::with_capacity(24);
        for (name, id) in [("op", &operation.id), ("setting", &setting.id), ("style", &style.id)] {
            context.push((Arc::from(name), Value::from(id)));
        }
        self.draw_slots(part, rng, &mut context)?;
        let wording = *rng.pick(&self.wordings[cell.operation][part as usize]);
        let mut set = |name: &str, key: String, text: &str| -> Result<String> {
            let rendered = self.render(&key, text, &context)?;
            context.push((Arc::from(name), Value::from(&rendered)));
            Ok(rendered)
        };
        let key = format!("operations[{}]", operation.id);
        let text = operation.all_wordings().nth(wording).map_or("", String::as_str);
        let doc = set("doc", format!("{key}.wordings[{wording}]"), text)?;
        for (name, text) in &operation.vars {
            set(name, format!("{key}.vars.{name}"), text)?;
        }
        let key = format!("settings[{}]", setting.id);
        for (name, text) in &setting.vars {
            set(name, format!("{key}.vars.{name}"), text)?;
        }
        if let Some(call) = &setting.call {
            set("call", format!("{key}.call"), call)?;
        }
        let style_key = format!("styles[{}]", style.id);
        for (name, text) in &style.vars {
            set(name, format!("{style_key}.vars.{name}"), text)?;
        }
        set("cue", format!("{style_key}.cue"), &style.cue)?;
        set("lead", format!("{style_key}.lead"), &style.lead)?;
        let prompt = self.render(&format!("{key}.prompt"), &setting.prompt, &context)?;
        Ok(Drawn { compiled: self, cell, context, doc, prompt })
    }

    fn draw_slots(
        &self,
        part: Part,
        rng: &mut Rng,
        context: &mut Vec<(Arc<str>, Value)>,
    ) -> Result<()> {
        let mut taken: Vec<String> = Vec::new();
        for (name, parts) in &self.slots {
            let values = &parts[part as usize];
            if values.is_empty() {
                let problem = format!("no value is left for {part:?}; add more");
                return Err(LabError::key(
                    &format!("{}.toml", self.theme.id),
                    format!("slots.{name}"),
                    problem,
                ));
            }
            let mut tries = 0;
            let (text, value) = loop {
                let picked = rng.pick(values);
                let (text, value) = self.slot_value(name, picked, context)?;
                tries += 1;
                let is_training = matches!(part, Part::Pretraining | Part::Pairs);
                if is_training && can_be_made_up(picked) && rng.chance(MADE_UP_SHARE) {
                    break self.made_up(picked, rng);
                }
                if tries > MAX_REDRAWS || !taken.contains(&text) {
                    break (text, value);
                }
            };
            taken.push(text);
            context.push((Arc::clone(name), value));
        }
        Ok(())
    }

    /// A word that no pool has, in place of a value.
    fn made_up(&self, value: &SlotValue, rng: &mut Rng) -> (String, Value) {
        let mut word = made_up_word(&self.bases, rng);
        while word.len() < 3 || word.len() > 16 || RESERVED.contains(&word.as_str()) {
            word = made_up_word(&self.bases, rng);
        }
        let value = match value {
            SlotValue::Text(_) => Value::from(&word),
            SlotValue::Table(_) => {
                Value::from_pairs([("one", word.clone()), ("many", format!("{word}s"))])
            }
        };
        (word, value)
    }

    fn slot_value(
        &self,
        name: &str,
        value: &SlotValue,
        context: &[(Arc<str>, Value)],
    ) -> Result<(String, Value)> {
        match value {
            SlotValue::Text(text) => {
                let text = self.render(&slot_key(name, text, None), text, context)?;
                let value = Value::from(&text);
                Ok((text, value))
            }
            SlotValue::Table(fields) => {
                let mut rendered: BTreeMap<&str, String> = BTreeMap::new();
                let mut first = None;
                for (field, text) in fields {
                    let text =
                        self.render(&slot_key(name, value.text(), Some(field)), text, context)?;
                    first.get_or_insert_with(|| text.clone());
                    rendered.insert(field, text);
                }
                Ok((first.unwrap_or_default(), Value::from_pairs(rendered)))
            }
        }
    }

    fn render(&self, key: &str, text: &str, context: &[(Arc<str>, Value)]) -> Result<String> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        let context = Value::from_pairs(
            context.iter().map(|(name, value)| (Value::from(name), value.clone())),
        );
        self.environment
            .get_template(key)
            .and_then(|template| template.render(context))
            .map_err(|error| template_error(&self.theme.id, key, &error))
    }
}

/// Whether a slot's value is a plain lower-case word, or a word and its plural, so that any other word would do as well.
fn can_be_made_up(value: &SlotValue) -> bool {
    let is_word = |text: &str| {
        text.len() >= 3 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match value {
        SlotValue::Text(text) => is_word(text),
        SlotValue::Table(fields) => {
            let [(one, word), (many, plural)] = fields.as_slice() else { return false };
            one == "one" && many == "many" && is_word(word) && is_word(plural)
        }
    }
}

/// A made-up word: mostly pieces of real words, which a tokenizer cuts as it cuts names it has not seen, so that few of
/// its tokens stay rare; else syllables, or letters in any order.
fn made_up_word(bases: &[String], rng: &mut Rng) -> String {
    let kind = rng.unit();
    if kind < 0.25 || bases.is_empty() {
        return syllables(rng);
    }
    if kind < 0.4 {
        return (0..4 + rng.below(5)).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
    }
    let n_pieces = if kind < 0.55 { 1 } else { 2 + usize::from(kind > 0.9) };
    let mut word = String::new();
    for _ in 0..n_pieces {
        let base = rng.pick(bases);
        let length = (2 + rng.below(6)).min(base.len());
        let start = if rng.chance(0.6) { 0 } else { rng.below(base.len() - length + 1) };
        word.push_str(&base[start..start + length]);
    }
    word
}

/// Two to four syllables.
fn syllables(rng: &mut Rng) -> String {
    const ONSETS: &[u8] = b"bcdfghklmnprstvwz";
    const VOWELS: &[u8] = b"aeiou";
    const ENDS: &[u8] = b"nrst";
    let mut word = String::new();
    for _ in 0..2 + rng.below(3) {
        word.push(char::from(*rng.pick(ONSETS)));
        word.push(char::from(*rng.pick(VOWELS)));
        if rng.chance(0.3) {
            word.push(char::from(*rng.pick(ENDS)));
        }
    }
    word
}

impl Drawn<'_> {
    /// How many bodies of a kind this program can have. In a trusted setting only trusted bodies are right.
    pub fn n_bodies(&self, kind: BodyKind) -> usize {
        self.bodies(kind).1.len()
    }

    /// A body.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn body(&self, kind: BodyKind, i: usize) -> Result<String> {
        let (name, bodies) = self.bodies(kind);
        let style = &self.style().id;
        self.compiled.render(&format!("styles[{style}].{name}[{i}]"), &bodies[i], &self.context)
    }

    /// The name of a body's idiom, such as `direct/secure-0`.
    pub fn idiom(&self, kind: BodyKind, i: usize) -> String {
        format!("{}/{}-{i}", self.style().id, self.bodies(kind).0)
    }

    /// The test that exits with 0 where the function is right.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn function_test(&self) -> Result<String> {
        self.compiled.render("tests.function", &self.compiled.theme.tests.function, &self.context)
    }

    /// The test that exits with 0 where the program holds.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn attack_test(&self) -> Result<Option<String>> {
        let attack = self.compiled.theme.tests.attack.as_ref();
        attack.map(|attack| self.compiled.render("tests.attack", attack, &self.context)).transpose()
    }

    /// The family: theme, operation and setting.
    pub fn family(&self) -> String {
        family(&self.compiled.theme, self.cell)
    }

    /// Which operation, setting and style it is.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    fn style(&self) -> &crate::Style {
        &self.compiled.theme.styles[self.cell.style]
    }

    fn bodies(&self, kind: BodyKind) -> (&'static str, &[String]) {
        let style = self.style();
        match kind {
            BodyKind::Vulnerable => ("vulnerable", &style.vulnerable),
            BodyKind::Secure => ("secure", &style.secure),
            BodyKind::Trusted if style.trusted.is_empty() => ("vulnerable", &style.vulnerable),
            BodyKind::Trusted => ("trusted", &style.trusted),
        }
    }
}

/// The id of a cell's family.
pub(crate) fn family(theme: &Theme, cell: Cell) -> String {
    format!(
        "{}/{}/{}",
        theme.id, theme.operations[cell.operation].id, theme.settings[cell.setting].id
    )
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment
}

fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

fn slot_key(name: &str, text: &str, field: Option<&str>) -> String {
    match field {
        None => format!("slots.{name}[{text}]"),
        Some(field) => format!("slots.{name}[{text}].{field}"),
    }
}

fn template_error(theme: &str, key: &str, error: &minijinja::Error) -> LabError {
    let mut problem = error.kind().to_string();
    if let Some(detail) = error.detail() {
        problem = format!("{problem}: {detail}");
    }
    if let Some(line) = error.line() {
        problem = format!("{problem} (line {line} of the template)");
    }
    let source = error.range().and_then(|range| error.template_source()?.get(range));
    if let Some(source) = source {
        problem = format!("{problem}, at `{source}`");
    }
    LabError::Template { theme: theme.to_owned(), key: key.to_owned(), problem }
}
