//! The shared name pools, `themes/names.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    LabError, Part, Result,
    split::part_of_name,
    theme::{SlotValue, slot_values},
};

/// The shared name pools, each in its four parts.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pools: BTreeMap<String, [Vec<SlotValue>; 4]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pools: toml::Table,
}

impl Names {
    /// Reads pools: lists of strings or tables, or `pool.key`, a column of another pool.
    ///
    /// # Errors
    /// Text that is not TOML or not of that form; a column of a pool that is not there.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let parsed: File = toml::from_str(text)
            .map_err(|source| LabError::Toml { file: file.to_owned(), source: Box::new(source) })?;
        let mut names = Self::default();
        let mut columns = Vec::new();
        for (name, value) in &parsed.pools {
            match value {
                toml::Value::String(column) => columns.push((name, column)),
                list => {
                    let values = slot_values(file, &format!("pools.{name}"), list)?;
                    names.pools.insert(name.clone(), into_parts(values));
                }
            }
        }
        for (name, column) in columns {
            let key = format!("pools.{name}");
            let missing = || {
                LabError::key(file, &key, format!("`{column}` is no column of a pool of tables"))
            };
            let (pool, field) = column.split_once('.').ok_or_else(missing)?;
            let rows = names.pools.get(pool).ok_or_else(missing)?;
            let mut parts: [Vec<SlotValue>; 4] = Default::default();
            for (part, rows) in parts.iter_mut().zip(rows) {
                for row in rows {
                    let text = row.field(field).ok_or_else(missing)?;
                    part.push(SlotValue::Text(text.to_owned()));
                }
            }
            names.pools.insert(name.clone(), parts);
        }
        Ok(names)
    }

    /// The names of one part of a pool; `None` where there is no such pool.
    pub fn part(&self, pool: &str, part: Part) -> Option<&[SlotValue]> {
        self.pools.get(pool).map(|parts| parts[part as usize].as_slice())
    }

    /// The names of the pools.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.pools.keys().map(String::as_str)
    }

    /// Whether a pool that is split by its words has this one.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.pools.values().flatten().flatten().any(|value| value.text() == word)
    }

    /// Adds names that only scenarios and tasks use.
    pub(crate) fn add_to_scenarios(
        &mut self,
        file: &str,
        pool: &str,
        values: &[SlotValue],
    ) -> Result<()> {
        let known = self.pools.keys().cloned().collect::<Vec<_>>().join(", ");
        let parts = self.pools.get_mut(pool).ok_or_else(|| {
            LabError::key(
                file,
                format!("names.{pool}"),
                format!("there is no such pool; there are {known}"),
            )
        })?;
        for value in values {
            if parts.iter().flatten().any(|known| known.text() == value.text()) {
                let problem = format!("`{}` is already in the pool; take a new name", value.text());
                return Err(LabError::key(file, format!("names.{pool}"), problem));
            }
        }
        for (i, value) in values.iter().enumerate() {
            let part = if i % 3 == 2 { Part::Val } else { Part::Test };
            parts[part as usize].push(value.clone());
        }
        Ok(())
    }
}

fn into_parts(values: Vec<SlotValue>) -> [Vec<SlotValue>; 4] {
    let mut parts: [Vec<SlotValue>; 4] = Default::default();
    for value in values {
        parts[part_of_name(value.text()) as usize].push(value);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;

    #[test]
    fn a_word_lies_in_the_same_part_in_every_pool() {
        let library = Library::embedded().unwrap();
        let names = library.names();
        let mut seen: BTreeMap<&str, Part> = BTreeMap::new();
        for pool in names.pools().filter(|&pool| pool != "plural") {
            for part in Part::ALL {
                let values = names.part(pool, part).unwrap();
                assert!(values.len() >= 5, "{pool} {part:?} has {}", values.len());
                for value in values {
                    let first = *seen.entry(value.text()).or_insert(part);
                    assert_eq!(first, part, "{}", value.text());
                }
            }
        }
    }

    #[test]
    fn a_column_is_split_with_its_pool() {
        let library = Library::embedded().unwrap();
        for part in Part::ALL {
            let singular = library.names().part("noun", part).unwrap();
            let plural = library.names().part("plural", part).unwrap();
            assert_eq!(singular.len(), plural.len());
            for (one, many) in singular.iter().zip(plural) {
                assert_eq!(one.text()[..2], many.text()[..2]);
            }
        }
    }

    #[test]
    fn errors_name_the_key() {
        let error = Names::parse("names.toml", "[pools]\na = [1]\n").unwrap_err().to_string();
        assert!(error.contains("pools.a[0]"), "{error}");
        let error = Names::parse("names.toml", "[pools]\na = \"b.c\"\n").unwrap_err().to_string();
        assert!(error.contains("pools.a"), "{error}");
    }
}
