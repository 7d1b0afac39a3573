//! The tables of `docs/recipes.md`, made of the recipes; a test says when page and recipes differ.
//!
//! A line `<!-- values: FOLDER -->` of the page is followed by the values that all recipes of the folder share and those
//! that differ, `<!-- changes: FOLDER -->` by what each file states itself, both up to `<!-- end -->`. `.` is the top
//! folder. What a file says behind a value after `#` is shown with it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use toml::{Table, Value};

use super::{Recipe, file};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Set, the test writes the page instead of comparing it.
const WRITE: &str = "HARDN_WRITE_DOCS";

/// What a training depends on most: a recipe of a paper says it itself, so that no default of ours passes for a paper's.
const STATED: [&str; 19] = [
    "adapter.kind",
    "loss.kind",
    "loss.reduction",
    "data.mask",
    "data.max_tokens",
    "optimizer.kind",
    "optimizer.learning_rate",
    "optimizer.weight_decay",
    "optimizer.betas",
    "optimizer.eps",
    "schedule.kind",
    "schedule.warmup_steps",
    "schedule.warmup_ratio",
    "training.epochs",
    "training.batch_size",
    "training.accumulation",
    "training.clip_norm",
    "training.clip_per",
    "training.seed",
];

/// The same, by kind of adapter.
fn stated_by_adapter(kind: &str) -> &'static [&'static str] {
    match kind {
        "lora" => &["r", "lora_alpha", "dropout", "target_modules"],
        "ia3" => &["target_modules", "feedforward_modules"],
        "prefix" => &["num_virtual_tokens", "dropout", "zero_init"],
        _ => &[],
    }
}

/// A value as a file has it and what stands behind it.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    value: Value,
    note: String,
}

/// What a file says: its parent, and its lines by dotted key.
#[derive(Default)]
struct Source {
    extends: Option<String>,
    lines: BTreeMap<String, Line>,
}

impl Source {
    /// Reads a file line by line, because what reads TOML drops comments. A value has to stand on one line.
    fn read(id: &str) -> Self {
        let path = format!("{ROOT}/recipes/{id}.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut lines = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.split(']').next().unwrap_or_default());
            } else if let Some((key, rest)) =
                line.split_once('=').filter(|_| !line.starts_with('#'))
            {
                let (value, note) = split_note(rest);
                let table = format!("x = {value}").parse::<Table>();
                let table = table.unwrap_or_else(|error| panic!("{path}: `{line}`: {error}"));
                flatten(&table["x"], &format!("{section}{}", key.trim()), note, &mut lines);
            }
        }
        let parent = lines.remove("extends");
        Self { extends: parent.map(|line| shown(&line.value)), lines }
    }

    /// With everything it extends.
    fn with_parents(id: &str) -> BTreeMap<String, Line> {
        let own = Self::read(id);
        let mut lines = own.extends.as_deref().map(Self::with_parents).unwrap_or_default();
        for (key, line) in &own.lines {
            // Another kind replaces its table, as where recipes are read.
            if let Some(table) = key.strip_suffix("kind")
                && lines.get(key).is_some_and(|below| below.value != line.value)
            {
                lines.retain(|key, _| !key.starts_with(table));
            }
        }
        lines.extend(own.lines);
        lines
    }
}

/// A value and the comment behind it.
fn split_note(rest: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return (rest[..at].trim(), rest[at + 1..].trim()),
            _ => {}
        }
    }
    (rest.trim(), "")
}

fn flatten(value: &Value, key: &str, note: &str, lines: &mut BTreeMap<String, Line>) {
    if let Value::Table(table) = value {
        for (below, value) in table {
            flatten(value, &format!("{key}.{below}"), note, lines);
        }
    } else {
        lines.insert(key.to_owned(), Line { value: value.clone(), note: note.to_owned() });
    }
}

/// A value as a table shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', "\\n"),
        Value::Float(number) => format!("{number:?}").trim_end_matches(".0").to_owned(),
        Value::Array(items) if items.is_empty() => "all".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A recipe: what its files state, by dotted key.
struct Entry {
    id: String,
    stated: BTreeMap<String, Line>,
}

impl Entry {
    fn load(id: &str) -> Self {
        Self { id: id.to_owned(), stated: Source::with_parents(id) }
    }

    fn value(&self, key: &str) -> String {
        self.stated.get(key).map(|line| shown(&line.value)).unwrap_or_default()
    }
}

fn link(id: &str) -> String {
    format!("[`{id}`](../recipes/{id}.toml)")
}

/// Ids of a folder, or of the top for `.`; bases are no methods by themselves.
fn ids_in(folder: &str) -> Vec<String> {
    let inside = |id: &String| match folder {
        "." => !id.contains('/'),
        _ => id.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
    };
    file::ids().into_iter().filter(inside).collect()
}

fn values_table(folder: &str) -> String {
    let entries: Vec<Entry> = ids_in(folder).iter().map(|id| Entry::load(id)).collect();
    assert!(!entries.is_empty(), "there is no recipe in {folder}");
    let mut keys: Vec<&String> = entries.iter().flat_map(|entry| entry.stated.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| !["title", "model", "paper"].contains(&key.as_str()));
    let same = |key: &&String| {
        entries.iter().all(|entry| entry.stated.get(*key) == entries[0].stated.get(*key))
    };
    let (common, varying): (Vec<&String>, Vec<&String>) = keys.into_iter().partition(same);

    let mut page = String::from("\n| all of them | value | |\n| --- | --- | --- |\n");
    for key in common {
        let line = &entries[0].stated[key];
        writeln!(page, "| `{key}` | {} | {} |", shown(&line.value), line.note).unwrap();
    }
    let mut notes: Vec<&str> = Vec::new();
    let heads: Vec<String> = varying.iter().map(|key| format!(" `{key}` |")).collect();
    let rules = " --- |".repeat(varying.len());
    writeln!(page, "\n| recipe | model | source |{}", heads.concat()).unwrap();
    writeln!(page, "| --- | --- | --- |{rules}").unwrap();
    for entry in &entries {
        let (model, paper) = (entry.value("model"), entry.value("paper"));
        write!(page, "| {} | {model} | {paper} |", link(&entry.id)).unwrap();
        for &key in &varying {
            let note = entry.stated.get(key).map_or("", |line| line.note.as_str());
            let value = entry.value(key);
            let mut mark = String::new();
            if !note.is_empty() {
                let found = notes.iter().position(|known| *known == note);
                let number = found.unwrap_or_else(|| {
                    notes.push(note);
                    notes.len() - 1
                });
                mark = format!(" ({})", number + 1);
            }
            write!(page, " {value}{mark} |").unwrap();
        }
        page.push('\n');
    }
    for (number, note) in notes.iter().enumerate() {
        let gap = if number == 0 { "\n" } else { "" };
        writeln!(page, "{gap}{}. {note}", number + 1).unwrap();
    }
    page.push('\n');
    page
}

fn changes_table(folder: &str) -> String {
    let mut page =
        String::from("\n| recipe | what | extends | states |\n| --- | --- | --- | --- |\n");
    for id in ids_in(folder) {
        let source = Source::read(&id);
        let title = Entry::load(&id).value("title");
        let parent = source.extends.map(|parent| format!("`{parent}`")).unwrap_or_default();
        let own =
            source.lines.iter().filter(|(key, _)| !["title", "paper"].contains(&key.as_str()));
        let state = |(key, line): (&String, &Line)| {
            let note = if line.note.is_empty() { "" } else { &format!(" ({})", line.note) };
            format!("`{key} = {}`{note}", shown(&line.value))
        };
        let own: Vec<String> = own.map(state).collect();
        writeln!(page, "| {} | {title} | {parent} | {} |", link(&id), own.join("; ")).unwrap();
    }
    page.push('\n');
    page
}

/// The page with every table made anew, and the folders it shows.
fn remade(page: &str) -> (String, Vec<String>) {
    let (mut out, mut folders, mut skipping) = (String::new(), Vec::new(), false);
    for line in page.lines() {
        let marker = |name: &str| {
            let rest = line.strip_prefix("<!-- ")?.strip_prefix(name)?.strip_prefix(": ")?;
            rest.strip_suffix(" -->")
        };
        if line == "<!-- end -->" {
            assert!(skipping, "docs/recipes.md: an end without a beginning");
            skipping = false;
        }
        if !skipping {
            out.push_str(line);
            out.push('\n');
        }
        let table = marker("values").map(|folder| (folder, values_table(folder)));
        let table = table.or_else(|| marker("changes").map(|f| (f, changes_table(f))));
        if let Some((folder, table)) = table {
            assert!(!skipping, "docs/recipes.md: `{line}` before the end of another table");
            out.push_str(&table);
            folders.push(folder.to_owned());
            skipping = true;
        }
    }
    assert!(!skipping, "docs/recipes.md: a table without an end");
    (out, folders)
}

#[test]
fn the_page_is_that_of_the_recipes() {
    let path = Path::new(ROOT).join("docs/recipes.md");
    let page = fs::read_to_string(&path).unwrap();
    let (remade, folders) = remade(&page);
    let shown: Vec<String> = folders.iter().flat_map(|folder| ids_in(folder)).collect();
    for id in file::ids().into_iter().filter(|id| !id.starts_with("base/")) {
        assert!(shown.contains(&id), "docs/recipes.md has no table with `{id}`");
    }
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &remade).unwrap();
        return;
    }
    for (number, (now, then)) in page.lines().zip(remade.lines()).enumerate() {
        assert_eq!(
            now,
            then,
            "docs/recipes.md, line {}, is not as the recipes are; `{WRITE}=1 cargo test -p hardn-train document` writes it",
            number + 1
        );
    }
    assert_eq!(page.lines().count(), remade.lines().count(), "docs/recipes.md is cut off");
}

/// The page shows what files say; this says that a recipe loads as they say.
#[test]
fn recipes_have_the_values_of_the_page() {
    for (id, _) in Recipe::list() {
        let recipe = Table::try_from(Recipe::load(&id, &[]).unwrap()).unwrap();
        let mut loaded = BTreeMap::new();
        flatten(&Value::Table(recipe), "", "", &mut loaded);
        for (key, line) in Source::with_parents(&id) {
            let found = &loaded[&format!(".{key}")].value;
            assert_eq!(shown(found), shown(&line.value), "recipes/{id}.toml, key {key}");
        }
    }
}

#[test]
fn commands_of_the_page_name_recipes_and_keys() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/recipes.md")).unwrap();
    let mut n_commands = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("hardn train ")) {
        let line = line.split(" #").next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let sets = words.windows(2).filter(|pair| pair[0] == "--set");
        let sets: Vec<String> = sets.map(|pair| pair[1].trim_matches('\'').to_owned()).collect();
        let loaded = Recipe::load(words[0], &sets);
        assert!(loaded.is_ok(), "docs/recipes.md: `hardn train {line}`: {}", loaded.unwrap_err());
        n_commands += 1;
    }
    assert!(n_commands > 0, "docs/recipes.md shows no command");
}

#[test]
fn sweeps_of_the_lab_name_recipes_and_keys() {
    for name in ["sweep-lab", "sweep-lab-kl"] {
        let text = fs::read_to_string(format!("{ROOT}/examples/{name}.toml")).unwrap();
        let sweep: Table = text.parse().unwrap();
        let shared = &sweep["run"]["train"]["recipe"];
        let grid = sweep.get("grid").and_then(Value::as_table).cloned().unwrap_or_default();
        for arm in sweep["arms"].as_array().unwrap() {
            let recipe = arm.get("recipe").unwrap_or(shared).as_str().unwrap();
            for (key, values) in &grid {
                for value in values.as_array().unwrap() {
                    Recipe::load(recipe, &[format!("{key}={value}")]).unwrap();
                }
            }
            Recipe::load(recipe, &[]).unwrap();
        }
    }
}

#[test]
fn recipes_of_papers_leave_nothing_to_defaults() {
    let folders = ["safecoder", "hexacoder", "cosec", "sven", "exploratory", "gptj"];
    for id in folders.iter().flat_map(|folder| ids_in(folder)) {
        let entry = Entry::load(&id);
        for key in ["title", "paper", "model"] {
            assert!(!entry.value(key).is_empty(), "recipes/{id}.toml has no `{key}`");
        }
        let adapter = entry.value("adapter.kind");
        let of_adapter = stated_by_adapter(&adapter).iter().map(|key| format!("adapter.{key}"));
        for key in STATED.iter().map(|&key| key.to_owned()).chain(of_adapter) {
            let found = entry.stated.contains_key(&key);
            assert!(found, "neither recipes/{id}.toml nor what it extends states `{key}`");
        }
    }
}
