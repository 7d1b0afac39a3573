//! Recipe files: finding them, `extends`, and `--set` assignments.

use std::{fs, path::Path};

use hardn_types::toml_number;
use include_dir::{Dir, include_dir};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{Result, TrainError};

static RECIPES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../recipes");

/// Recipes that extend one another any deeper than this form a circle.
const MAX_DEPTH: usize = 8;

/// Ids of the recipes that ship with hardn, sorted: their paths without `.toml`.
pub(crate) fn ids() -> Vec<String> {
    fn walk(dir: &Dir<'_>, ids: &mut Vec<String>) {
        for file in dir.files() {
            if file.path().extension().is_some_and(|extension| extension == "toml") {
                ids.push(file.path().with_extension("").to_string_lossy().replace('\\', "/"));
            }
        }
        for dir in dir.dirs() {
            walk(dir, ids);
        }
    }
    let mut ids = Vec::new();
    walk(&RECIPES, &mut ids);
    ids.sort();
    ids
}

/// Loads a recipe by id or from a file (a name that ends in `.toml`), and applies assignments in order.
pub(crate) fn load<T: Serialize + DeserializeOwned>(
    name: &str,
    assignments: &[String],
) -> Result<T> {
    let table = read(name, None, 0)?;
    let mut recipe: T = table.try_into().map_err(|error: toml::de::Error| TrainError::Recipe {
        name: name.to_owned(),
        message: error.message().to_owned(),
    })?;
    for assignment in assignments {
        recipe = Assignment::parse(assignment)?.apply(&recipe)?;
    }
    Ok(recipe)
}

/// Reads a file with everything it extends merged in.
fn read(name: &str, relative_to: Option<&Path>, depth: usize) -> Result<Table> {
    let error = |message: String| TrainError::Recipe { name: name.to_owned(), message };
    if depth > MAX_DEPTH {
        return Err(error("`extends` goes in a circle".to_owned()));
    }
    let mut folder = None;
    let text = if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        let beside = relative_to.map(|folder| folder.join(name)).filter(|path| path.exists());
        let shipped = RECIPES.get_file(name).and_then(|file| file.contents_utf8());
        match (beside, shipped) {
            (None, Some(text)) if relative_to.is_some() || !Path::new(name).exists() => {
                text.to_owned()
            }
            (beside, _) => {
                let path = beside.unwrap_or_else(|| name.into());
                folder = path.parent().map(Path::to_owned);
                fs::read_to_string(&path).map_err(TrainError::file("read", path))?
            }
        }
    } else {
        let file = RECIPES.get_file(format!("{name}.toml"));
        file.and_then(|file| file.contents_utf8()).ok_or_else(|| unknown_recipe(name))?.to_owned()
    };
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| error(e.to_string()))?;
    match table.remove("extends") {
        None => Ok(table),
        Some(Value::String(parent)) => {
            let mut merged =
                read(&parent, Some(folder.as_deref().unwrap_or(Path::new(""))), depth + 1)?;
            merge(&mut merged, table);
            Ok(merged)
        }
        Some(_) => Err(error("`extends` must be the name of another recipe".to_owned())),
    }
}

fn unknown_recipe(name: &str) -> TrainError {
    let ids: Vec<String> = ids().into_iter().filter(|id| !id.starts_with("base/")).collect();
    let suggestion = closest(name, ids.iter().map(String::as_str))
        .map(|id| format!("; did you mean `{id}`?"))
        .unwrap_or_default();
    // Of a folder with many recipes, the folder; unless it was asked for.
    let folder = name.split_once('/').map(|(folder, _)| folder);
    let mut available: Vec<String> = Vec::new();
    for id in ids {
        let shown = match id.split_once('/') {
            Some((inside, _)) if Some(inside) != folder => format!("{inside}/*"),
            _ => id,
        };
        if available.last() != Some(&shown) {
            available.push(shown);
        }
    }
    TrainError::NoRecipe { name: name.to_owned(), available: available.join(", "), suggestion }
}

/// Lays `table` over `base`: tables merge key by key, except that another `kind` replaces the whole table.
fn merge(base: &mut Table, table: Table) {
    for (key, value) in table {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                let other_kind = above
                    .get("kind")
                    .is_some_and(|kind| below.get("kind").is_some_and(|below| below != kind));
                if other_kind {
                    *below = above;
                } else {
                    merge(below, above);
                }
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// One `key=value` with a dotted key.
pub(crate) struct Assignment {
    text: String,
    key: String,
    value: String,
}

impl Assignment {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(TrainError::Override {
                assignment: text.to_owned(),
                message: "expected key=value".to_owned(),
            });
        };
        Ok(Self {
            text: text.to_owned(),
            key: key.trim().to_owned(),
            value: toml_number(value.trim()).into_owned(),
        })
    }

    /// The recipe with this one value changed.
    pub(crate) fn apply<T: Serialize + DeserializeOwned>(&self, recipe: &T) -> Result<T> {
        let mut table = Table::try_from(recipe).map_err(|error| self.error(error.to_string()))?;
        let (parents, leaf) = self.key.rsplit_once('.').unwrap_or(("", &self.key));
        let known = leaves(&table, "");
        let mut place = &mut table;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            match place.get_mut(part) {
                Some(Value::Table(inner)) => place = inner,
                _ => return Err(self.unknown(&known)),
            }
        }
        let Some(current) = place.get(leaf) else {
            // A table whose keys the user names takes it; all others refuse.
            let value = format!("x = {}", self.value).parse::<Table>().ok();
            let value = value.and_then(|mut table| table.remove("x"));
            place.insert(leaf.to_owned(), value.ok_or_else(|| self.unknown(&known))?);
            return table.try_into().map_err(|_: toml::de::Error| self.unknown(&known));
        };
        let value = self.typed(current)?;
        if leaf == "kind" && *current != value && !parents.is_empty() {
            // The other kind has other keys. Those it shares keep their values where that works.
            let mut kept = table.clone();
            put(&mut kept, parents, leaf, value.clone());
            if let Ok(recipe) = kept.try_into() {
                return Ok(recipe);
            }
            clear(&mut table, parents);
            put(&mut table, parents, leaf, value);
        } else {
            place.insert(leaf.to_owned(), value);
        }
        table.try_into().map_err(|error: toml::de::Error| self.error(error.message().to_owned()))
    }

    /// The value, read as what stands there now.
    fn typed(&self, current: &Value) -> Result<Value> {
        let wrong = |what: &str| self.error(format!("`{}` must be {what}", self.key));
        Ok(match current {
            Value::String(_) => Value::String(self.value.trim_matches('"').to_owned()),
            Value::Integer(_) => {
                Value::Integer(self.value.parse().map_err(|_| wrong("a whole number"))?)
            }
            Value::Float(_) => Value::Float(self.value.parse().map_err(|_| wrong("a number"))?),
            Value::Boolean(_) => {
                Value::Boolean(self.value.parse().map_err(|_| wrong("true or false"))?)
            }
            Value::Array(_) => {
                let table: Table = format!("x = {}", self.value)
                    .parse()
                    .map_err(|_| wrong("a list such as [\"a\", \"b\"]"))?;
                match table.get("x") {
                    Some(Value::Array(items)) => Value::Array(items.clone()),
                    _ => return Err(wrong("a list such as [\"a\", \"b\"]")),
                }
            }
            Value::Table(_) => {
                return Err(self.error(format!("`{0}` is a table; set `{0}.<key>`", self.key)));
            }
            Value::Datetime(_) => return Err(wrong("left alone")),
        })
    }

    fn unknown(&self, known: &[String]) -> TrainError {
        let leaf = self.key.rsplit('.').next().unwrap_or_default();
        let same_leaf = known.iter().find(|key| key.rsplit('.').next() == Some(leaf));
        let suggestion = same_leaf
            .map(String::as_str)
            .or_else(|| closest(&self.key, known.iter().map(String::as_str)))
            .map(|key| format!("; did you mean `{key}`?"))
            .unwrap_or_default();
        self.error(format!("there is no key `{}`{suggestion}", self.key))
    }

    fn error(&self, message: String) -> TrainError {
        TrainError::Override { assignment: self.text.clone(), message }
    }
}

fn put(table: &mut Table, parents: &str, leaf: &str, value: Value) {
    let mut place = table;
    for part in parents.split('.') {
        match place.get_mut(part) {
            Some(Value::Table(inner)) => place = inner,
            _ => return,
        }
    }
    place.insert(leaf.to_owned(), value);
}

fn clear(table: &mut Table, parents: &str) {
    let mut place = table;
    for part in parents.split('.') {
        match place.get_mut(part) {
            Some(Value::Table(inner)) => place = inner,
            _ => return,
        }
    }
    place.clear();
}

/// Dotted keys of every value in a table.
fn leaves(table: &Table, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => keys.extend(leaves(inner, &path)),
            _ => keys.push(path),
        }
    }
    keys
}

/// The candidate within a third of its length in edits.
fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(edit_distance("epochs", "epoch"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn another_kind_replaces_a_table() {
        let mut base: Table = "[a]\nkind = \"x\"\nr = 1\n[b]\np = 1\nq = 2".parse().unwrap();
        merge(&mut base, "[a]\nkind = \"y\"\n[b]\nq = 3".parse().unwrap());
        assert_eq!(base, "[a]\nkind = \"y\"\n[b]\np = 1\nq = 3".parse().unwrap());
    }

    #[test]
    fn a_recipe_file_may_extend_a_shipped_one_and_one_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        fs::write(dir.path().join("half.toml"), "extends = \"safecoder\"\ntitle = \"half\"")
            .unwrap();
        fs::write(&path, "extends = \"half.toml\"\n[training]\nseed = 9").unwrap();
        let recipe: crate::Recipe = load(path.to_str().unwrap(), &[]).unwrap();
        assert_eq!((recipe.title.as_str(), recipe.training.seed), ("half", 9));
        fs::write(&path, "extends = \"mine.toml\"").unwrap();
        assert!(
            load::<crate::Recipe>(path.to_str().unwrap(), &[])
                .unwrap_err()
                .to_string()
                .contains("circle")
        );
        fs::write(&path, "extends = \"safecoder\"\n[training]\nsead = 9").unwrap();
        assert!(
            load::<crate::Recipe>(path.to_str().unwrap(), &[])
                .unwrap_err()
                .to_string()
                .contains("sead")
        );
    }

    #[test]
    fn an_unknown_recipe_is_answered_with_the_known_ones() {
        let error = load::<crate::Recipe>("safecodr", &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `safecoder`?") && error.contains("sft"), "{error}");
        assert!(error.contains("sven/*") && !error.contains("sven/codegen-2b"), "{error}");
        let error = load::<crate::Recipe>("sven/codegen-1b", &[]).unwrap_err().to_string();
        assert!(error.contains("sven/codegen-2b") && error.contains("hexacoder/*"), "{error}");
    }
}
