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
