//! Idiom files: new styles, names and wordings for a world that nobody tuned to.

use std::{fs, path::Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{LabError, Names, Result, Style, Theme, theme::slot_values};

/// New styles, names and wordings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdiomFile {
    /// The file's name, for messages.
    #[serde(skip)]
    file: String,
    /// New styles of shipped themes.
    #[serde(default)]
    styles: Vec<NewStyle>,
    /// New names by pool, used by scenarios and tasks only.
    #[serde(default)]
    names: toml::Table,
    /// New wordings of shipped operations.
    #[serde(default)]
    wordings: Vec<NewWordings>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStyle {
    theme: String,
    id: String,
    #[serde(default)]
    vars: toml::Table,
    #[serde(default)]
    cue: String,
    #[serde(default)]
    lead: String,
    #[serde(default)]
    vulnerable: Vec<String>,
    #[serde(default)]
    secure: Vec<String>,
    #[serde(default)]
    trusted: Vec<String>,
    #[serde(default)]
    in_pairs: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWordings {
    theme: String,
    operation: String,
    texts: Vec<String>,
}

impl IdiomFile {
    /// Reads a file; also gives its SHA-256.
    ///
    /// # Errors
    /// A file that cannot be read or is not of the schema, with the line.
    pub fn read(path: &Path) -> Result<(Self, String)> {
        let text = fs::read_to_string(path)
            .map_err(|source| LabError::Read { path: path.to_owned(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok((Self::parse(&name, &text)?, format!("{:x}", Sha256::digest(text.as_bytes()))))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Text that is not of the schema, with the line.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let parsed: Self = toml::from_str(text)
            .map_err(|source| LabError::Toml { file: file.to_owned(), source: Box::new(source) })?;
        Ok(Self { file: file.to_owned(), ..parsed })
    }

    /// Adds everything to themes and names.
    pub(crate) fn apply(self, themes: &mut [Theme], names: &mut Names) -> Result<()> {
        let file = self.file;
        for (i, new) in self.styles.into_iter().enumerate() {
            let key = format!("styles[{i}]");
            let theme = find(themes, &file, &format!("{key}.theme"), &new.theme)?;
            if theme.styles.iter().any(|style| style.id == new.id) {
                let problem =
                    format!("{} already has a style `{}`; take a new id", theme.id, new.id);
                return Err(LabError::key(&file, format!("{key}.id"), problem));
            }
            let mut vars = Vec::new();
            for (name, value) in &new.vars {
                let text = value.as_str().ok_or_else(|| {
                    LabError::key(&file, format!("{key}.vars.{name}"), "must be a string")
                })?;
                vars.push((name.clone(), text.to_owned()));
            }
            let style = Style {
                id: new.id,
                vars,
                cue: new.cue,
                lead: new.lead,
                vulnerable: new.vulnerable,
                secure: new.secure,
                trusted: new.trusted,
                in_pairs: Some(new.in_pairs),
                added: true,
            };
            style.validate(&file, &key, theme.is_utility())?;
            theme.styles.push(style);
        }
        for (i, new) in self.wordings.into_iter().enumerate() {
            let key = format!("wordings[{i}]");
            let theme = find(themes, &file, &format!("{key}.theme"), &new.theme)?;
            let id = theme.id.clone();
            let known =
                theme.operations.iter().map(|o| o.id.as_str()).collect::<Vec<_>>().join(", ");
            let operation =
                theme.operations.iter_mut().find(|o| o.id == new.operation).ok_or_else(|| {
                    let problem =
                        format!("{id} has no operation `{}`; it has {known}", new.operation);
                    LabError::key(&file, format!("{key}.operation"), problem)
                })?;
            for text in new.texts {
                if operation.wordings.contains(&text) || operation.scenario_wordings.contains(&text)
                {
                    return Err(LabError::key(
                        &file,
                        format!("{key}.texts"),
                        format!("`{text}` is there already"),
                    ));
                }
                operation.scenario_wordings.push(text);
            }
        }
        for (pool, list) in &self.names {
            let values = slot_values(&file, &format!("names.{pool}"), list)?;
            names.add_to_scenarios(&file, pool, &values)?;
        }
        Ok(())
    }
}

fn find<'a>(themes: &'a mut [Theme], file: &str, key: &str, id: &str) -> Result<&'a mut Theme> {
    let known = themes.iter().map(|theme| theme.id.as_str()).collect::<Vec<_>>().join(", ");
    themes.iter_mut().find(|theme| theme.id == id).ok_or_else(|| {
        LabError::key(file, key, format!("there is no theme `{id}`; there are {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Library, Part, WorldOptions, check, generate};

    fn example() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/idioms.toml")
    }

    #[test]
    fn the_documented_example_gives_scenarios_of_its_own() {
        let library = Library::embedded_with(Some(&example())).unwrap();
        assert_eq!(check(&library), []);
        let options = WorldOptions {
            idioms: Some(example()),
            n_pretrain_documents: 2_000,
            ..WorldOptions::default()
        };
        let world = generate(&options).unwrap();
        let of = |style: &str| -> Vec<_> {
            world.scenarios.iter().filter(|s| s.id.contains(&format!("added-{style}."))).collect()
        };
        assert_eq!((of("joined").len(), of("lines").len()), (4, 4));
        assert!(of("joined").iter().all(|s| s.tags.seen_idiom == Some(false)));
        assert!(of("lines").iter().all(|s| s.tags.seen_idiom == Some(true)));
        let in_pairs =
            |style: &str| world.pairs_train.iter().any(|pair| pair.extra["style"] == style);
        assert!(in_pairs("lines") && !in_pairs("joined"));
        assert!(world.pretrain.iter().any(|document| document.idiom.starts_with("joined/")));
        assert!(!world.pretrain.iter().any(|document| document.text.contains("anvil")));
        assert!(
            library
                .names()
                .part("noun", Part::Test)
                .unwrap()
                .iter()
                .any(|name| name.text() == "anvil")
        );
    }

    #[track_caller]
    fn fails(text: &str, wanted: &[&str]) {
        let mut themes = vec![Theme::parse("python/t", THEME).unwrap()];
        let mut names = Names::parse("names.toml", "[pools]\nnoun = [\"a\", \"b\"]\n").unwrap();
        let result = IdiomFile::parse("mine.toml", text)
            .and_then(|file| file.apply(&mut themes, &mut names));
        let message = result.unwrap_err().to_string();
        for part in wanted.iter().chain(&["mine.toml"]) {
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        let style = "[[styles]]\ntheme = \"python/t\"\nid = \"new\"\ntrusted = [\"x\\n\"]\n";
        fails(
            &style.replace("python/t", "python/u"),
            &["styles[0].theme", "python/u", "there are python/t"],
        );
        fails(&style.replace("new", "one"), &["styles[0].id", "already has a style `one`"]);
        fails(&style.replace("x\\n", "x"), &["styles[0].trusted[0]", "newline"]);
        fails(&style.replace("trusted", "trusty"), &["trusty", "line 4"]);
        fails(&style.replace("trusted", "secure"), &["styles[0]", "without `cwe`"]);
        fails("[names]\nverb = [\"go\"]\n", &["names.verb", "there are noun"]);
        fails("[names]\nnoun = [\"a\"]\n", &["names.noun", "already"]);
        fails("[names]\nnoun = [3]\n", &["names.noun[0]"]);
        fails(
            "[[wordings]]\ntheme = \"python/t\"\noperation = \"zero\"\ntexts = [\"x\"]\n",
            &["wordings[0].operation", "it has a, b, c"],
        );
    }

    const THEME: &str = r#"
title = "T"
language = "python"
operations = [
    { id = "a", wordings = ["1", "2", "3", "4", "5", "6", "7", "8"] },
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
"#;
}
