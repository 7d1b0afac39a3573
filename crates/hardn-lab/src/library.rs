//! All themes and name pools: those shipped with the lab, or those of a folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use crate::{
    Cell, Drawn, IdiomFile, LabError, Names, Part, Result, Rng, Theme,
    draw::Compiled,
    rng::text_hash,
    split::{FamilyPart, family_part, part_of_name, share_words},
    theme::{Slot, SlotValue},
};

/// The version of the lab: a change of generator, themes or splits is a new one.
pub const LAB_VERSION: &str = "3";

/// Weaknesses of which no fix pair is made: one of each language.
const UNSEEN_WEAKNESSES: [&str; 2] = ["python/cwe-502-load", "c/cwe-190-arithmetic"];

static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/themes");

/// All themes and name pools, compiled.
#[derive(Debug)]
pub struct Library {
    names: Names,
    themes: Vec<Compiled>,
    sha256: String,
    idioms_sha256: Option<String>,
}

impl Library {
    /// The themes shipped with the lab.
    ///
    /// # Errors
    /// A theme that is broken: a bug of the lab.
    pub fn embedded() -> Result<Self> {
        Self::embedded_with(None)
    }

    /// The themes shipped with the lab, and the idioms of a file.
    ///
    /// # Errors
    /// An idiom file that cannot be read or used.
    pub fn embedded_with(idioms: Option<&Path>) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(&SHIPPED, &mut files);
        Self::from_files(files, idioms)
    }

    /// The themes of a folder: `names.toml` and `<language>/<slug>.toml`.
    ///
    /// # Errors
    /// A folder or file that cannot be read; a theme that is broken, with its key.
    pub fn from_dir(dir: &Path, idioms: Option<&Path>) -> Result<Self> {
        let mut files = BTreeMap::new();
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|source| LabError::Read { path: path.to_owned(), source })
        };
        files.insert("names.toml".to_owned(), read(&dir.join("names.toml"))?);
        for language in ["python", "c"] {
            let folder = dir.join(language);
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let name = format!("{language}/{}", entry.file_name().to_string_lossy());
                    files.insert(name, read(&path)?);
                }
            }
        }
        if files.len() < 2 {
            return Err(LabError::NoThemes { path: dir.to_owned() });
        }
        Self::from_files(files, idioms)
    }

    fn from_files(files: BTreeMap<String, String>, idioms: Option<&Path>) -> Result<Self> {
        let mut hash = Sha256::new();
        for (name, text) in &files {
            hash.update(format!("{name}\n{}\n", text.len()));
            hash.update(text);
        }
        let mut names =
            Names::parse("names.toml", files.get("names.toml").map_or("", String::as_str))?;
        let mut themes = Vec::new();
        for (name, text) in &files {
            if let Some(id) = name.strip_suffix(".toml").filter(|id| id.contains('/')) {
                themes.push(Theme::parse(id, text)?);
            }
        }
        let mut idioms_sha256 = None;
        if let Some(path) = idioms {
            let (file, sha256) = IdiomFile::read(path)?;
            file.apply(&mut themes, &mut names)?;
            idioms_sha256 = Some(sha256);
        }
        for theme in &mut themes {
            hold_out_styles(theme);
        }
        let words = parts_of_words(&themes, &names);
        let bases = bases(&files, &names, &words);
        let themes = themes
            .into_iter()
            .map(|theme| Compiled::new(theme, &names, &words, Arc::clone(&bases)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { names, themes, sha256: format!("{:x}", hash.finalize()), idioms_sha256 })
    }

    /// The shared name pools.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The themes, sorted by id.
    pub fn themes(&self) -> impl Iterator<Item = &Theme> {
        self.themes.iter().map(|compiled| &compiled.theme)
    }

    /// SHA-256 over the names and texts of all theme files.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// SHA-256 of the idiom file, where there is one.
    pub fn idioms_sha256(&self) -> Option<&str> {
        self.idioms_sha256.as_deref()
    }

    /// True where no fix pair is made of the theme.
    pub fn is_unseen_weakness(theme: &Theme) -> bool {
        UNSEEN_WEAKNESSES.contains(&theme.id.as_str())
    }

    /// Draws names and a wording from a part of the world, and renders the prompt of a cell.
    ///
    /// # Errors
    /// A theme that is not there; a template that cannot be rendered.
    pub fn draw(&self, theme: &str, cell: Cell, part: Part, rng: &mut Rng) -> Result<Drawn<'_>> {
        self.find(theme)?.draw(cell, part, rng)
    }

    pub(crate) fn find(&self, theme: &str) -> Result<&Compiled> {
        self.themes.iter().find(|compiled| compiled.theme.id == theme).ok_or_else(|| {
            LabError::UnknownTheme {
                given: theme.to_owned(),
                known: self.themes().map(|theme| theme.id.as_str()).collect::<Vec<_>>().join(", "),
            }
        })
    }

    pub(crate) fn compiled(&self) -> &[Compiled] {
        &self.themes
    }
}

/// The families of a theme in a part: positions of operation and setting.
pub(crate) fn families(theme: &Theme, part: FamilyPart) -> Vec<(usize, usize)> {
    let mut families = Vec::new();
    for i in 0..theme.operations.len() {
        for j in 0..theme.settings.len() {
            if family_part(i, j) == part {
                families.push((i, j));
            }
        }
    }
    families
}

/// The parts of the words of the themes' own lists, the same in every theme and pool.
fn parts_of_words(themes: &[Theme], names: &Names) -> BTreeMap<String, Part> {
    let lists: Vec<Vec<&str>> = themes
        .iter()
        .flat_map(Theme::slots)
        .filter_map(|(_, slot)| match slot {
            Slot::Values(values) => values.iter().map(SlotValue::identifier).collect(),
            Slot::Pool(_) => None,
        })
        .collect();
    share_words(&lists, |word| names.has(word).then(|| part_of_name(word)))
}

/// The words of all theme files, to make up names from: their pieces are those that a tokenizer learns. Names of other
/// parts than pretraining are left out.
fn bases(
    files: &BTreeMap<String, String>,
    names: &Names,
    words: &BTreeMap<String, Part>,
) -> Arc<[String]> {
    let mut bases = BTreeSet::new();
    for word in files.values().flat_map(|text| text.split(|c: char| !c.is_ascii_lowercase())) {
        let part = words
            .get(word)
            .copied()
            .or_else(|| names.has(word).then(|| part_of_name(word)))
            .unwrap_or(Part::Pretraining);
        if (4..=12).contains(&word.len()) && part == Part::Pretraining {
            bases.insert(word.to_owned());
        }
    }
    bases.into_iter().collect()
}

/// Decides which styles the fix pairs use: one in five is held out, one at least, by the SHA-256 of its name.
/// Styles of an idiom file say it themselves.
fn hold_out_styles(theme: &mut Theme) {
    let mut undecided: Vec<(u64, usize)> = Vec::new();
    for (i, style) in theme.styles.iter().enumerate() {
        if style.in_pairs.is_none() {
            undecided.push((text_hash(&format!("{}/{}", theme.id, style.id)), i));
        }
    }
    undecided.sort_unstable();
    let n_held_out = (undecided.len() / 5).max(1);
    for (rank, (_, i)) in undecided.into_iter().enumerate() {
        theme.styles[i].in_pairs = Some(theme.cwe.is_none() || rank >= n_held_out);
    }
}

fn collect(dir: &Dir<'_>, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        let name = file.path().to_string_lossy().replace('\\', "/");
        let is_toml = file.path().extension().is_some_and(|extension| extension == "toml");
        if let Some(text) = file.contents_utf8().filter(|_| is_toml) {
            files.insert(name, text.to_owned());
        }
    }
    for dir in dir.dirs() {
        collect(dir, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_themes_are_those_of_the_folder() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("themes");
        let (shipped, read) =
            (Library::embedded().unwrap(), Library::from_dir(&dir, None).unwrap());
        assert_eq!(shipped.sha256(), read.sha256());
        assert!(shipped.themes().filter(|theme| !theme.is_utility()).count() >= 12);
    }

    #[test]
    fn a_theme_that_is_not_there_is_named_with_those_that_are() {
        let library = Library::embedded().unwrap();
        let cell = Cell { operation: 0, setting: 0, style: 0 };
        let error = library
            .draw("python/none", cell, Part::Test, &mut Rng::new(1, "x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("python/none") && error.contains("python/cwe-089-sql"), "{error}");
    }

    #[test]
    fn a_word_of_the_themes_lies_in_the_same_part_in_every_list() {
        let library = Library::embedded().unwrap();
        let mut seen: BTreeMap<&str, (Part, &str)> = BTreeMap::new();
        for compiled in library.compiled() {
            for (name, parts) in compiled.slots() {
                let all = parts.iter().flatten();
                let is_list = |(_, slot): &(String, Slot)| matches!(slot, Slot::Values(values) if values.iter().all(|v| v.identifier().is_some()));
                let own = compiled.theme.slots().iter().any(|slot| slot.0 == name && is_list(slot));
                if !own || all.clone().count() == 0 {
                    continue;
                }
                for part in Part::ALL {
                    let id = &compiled.theme.id;
                    assert!(!parts[part as usize].is_empty(), "{id}: {name} has none for {part:?}");
                    for value in &parts[part as usize] {
                        let first = *seen.entry(value.text()).or_insert((part, id));
                        assert_eq!(first.0, part, "`{}` of {id} and {}", value.text(), first.1);
                    }
                }
            }
        }
        assert!(seen.len() > 100);
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Library::from_dir(dir.path(), None), Err(LabError::Read { .. })));
        fs::write(dir.path().join("names.toml"), "[pools]\n").unwrap();
        assert!(matches!(Library::from_dir(dir.path(), None), Err(LabError::NoThemes { .. })));
    }
}
