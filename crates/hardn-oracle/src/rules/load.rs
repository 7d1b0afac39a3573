//! Reading rule files: from the binary, or from a folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use hardn_types::{Cwe, Language};
use include_dir::{Dir, include_dir};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    index::Index,
    models::{self, ModelReport},
    schema::{Kind, RuleFile},
};
use crate::{OracleError, Result};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../rules");

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its path under `rules/` without the extension.
    pub id: String,
    /// The folder it lies in; rules for C also apply to C++.
    pub language: Language,
    pub(crate) file: RuleFile,
}

/// What `hardn rules list` and `show` say of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// Its path under `rules/` without the extension.
    pub id: String,
    /// The language of the code it reads.
    pub language: Language,
    /// `flow`, `pattern` or `typestate`.
    pub kind: &'static str,
    /// The classes it belongs to, most specific first.
    pub cwe: Vec<Cwe>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// How to fix it.
    pub help: String,
    /// Where to read on.
    pub references: Vec<String>,
    /// Samples without a finding, and with one.
    pub samples: (usize, usize),
}

impl Rule {
    /// Whether it reads code of this language.
    pub fn applies_to(&self, language: Language) -> bool {
        applies(self.language, language)
    }

    /// The rule as it is shown to people.
    pub fn info(&self) -> RuleInfo {
        let file = &self.file;
        RuleInfo {
            id: self.id.clone(),
            language: self.language,
            kind: match file.kind {
                Kind::Flow => "flow",
                Kind::Pattern => "pattern",
                Kind::Typestate => "typestate",
                Kind::Shared => "shared",
            },
            cwe: file.cwe.clone(),
            message: file.message.clone(),
            help: file.help.trim().to_owned(),
            references: file.references.clone(),
            samples: (
                file.valid.len() + file.faithful.valid.len(),
                file.invalid.len() + file.faithful.invalid.len(),
            ),
        }
    }
}

/// All rules, read and compiled per language, when a language is first asked for.
#[derive(Debug)]
pub struct RuleSet {
    languages: BTreeMap<Language, Group>,
}

/// The rule files of one folder.
#[derive(Debug, Default)]
struct Group {
    /// Ids and texts.
    files: Vec<(String, String)>,
    rules: OnceLock<Vec<Arc<Rule>>>,
    index: OnceLock<Option<Index>>,
}

impl RuleSet {
    /// The rules that are part of the binary.
    ///
    /// # Errors
    /// [`OracleError::Rule`] names the file and the key; a test keeps shipped rules free of it.
    pub fn embedded() -> Result<Self> {
        let mut files = Vec::new();
        for folder in EMBEDDED.dirs() {
            for file in folder.files() {
                if file.path().extension().is_some_and(|extension| extension == "yml") {
                    let text = file.contents_utf8().unwrap_or("");
                    files.push((
                        file.path().with_extension("").to_string_lossy().replace('\\', "/"),
                        text.to_owned(),
                    ));
                }
            }
        }
        Self::grouped(files)
    }

    /// The rules of a folder laid out as `<language>/<name>.yml`.
    ///
    /// # Errors
    /// [`OracleError::Read`] where the folder cannot be read, [`OracleError::Rule`] for a file that is no rule.
    pub fn from_folder(root: &Path) -> Result<Self> {
        let read = |path: &Path| -> Result<Vec<std::path::PathBuf>> {
            let wrap = |source| OracleError::Read { path: path.to_owned(), source };
            let mut entries = Vec::new();
            for entry in fs::read_dir(path).map_err(wrap)? {
                entries.push(entry.map_err(wrap)?.path());
            }
            entries.sort();
            Ok(entries)
        };
        let mut files = Vec::new();
        for folder in read(root)?.into_iter().filter(|path| path.is_dir()) {
            for path in read(&folder)? {
                if path.extension().is_some_and(|extension| extension == "yml") {
                    let text = fs::read_to_string(&path)
                        .map_err(|source| OracleError::Read { path: path.clone(), source })?;
                    let id = path.strip_prefix(root).unwrap_or(&path).with_extension("");
                    files.push((id.to_string_lossy().replace('\\', "/"), text));
                }
            }
        }
        Self::from_texts(files)
    }

    /// The same rules with rows of model tables added: YAML files, and folders of them.
    ///
    /// # Errors
    /// [`OracleError::Read`] where a file cannot be read, [`OracleError::Rule`] for one that holds no model rows.
    pub fn with_models(mut self, paths: &[PathBuf]) -> Result<(Self, ModelReport)> {
        let none = Group::default();
        let (additions, report) =
            models::read(paths, |folder| self.languages.get(&folder).unwrap_or(&none).rules())?;
        for (id, models) in additions {
            let folder: Option<Language> = id.split('/').next().and_then(|name| name.parse().ok());
            let Some(group) = folder.and_then(|folder| self.languages.get_mut(&folder)) else {
                continue;
            };
            if !group.files.iter().any(|(known, _)| *known == id) {
                group.files.push((id.clone(), "kind: shared\n".to_owned()));
            }
            for (known, text) in &mut group.files {
                if *known == id {
                    *text = models::add_to(text, &models).map_err(|message| OracleError::Rule {
                        file: format!("{id}.yml"),
                        message,
                    })?;
                }
            }
        }
        let files = self.languages.into_values().flat_map(|group| group.files).collect();
        Ok((Self::grouped(files)?, report))
    }

    /// Everything is read at once, so that a mistake is found.
    fn from_texts(files: Vec<(String, String)>) -> Result<Self> {
        let set = Self::grouped(files)?;
        for group in set.languages.values() {
            let _ = group.rules.set(group.read()?);
        }
        for (language, group) in &set.languages {
            let _ = group.index.set(set.compiled(*language)?);
        }
        Ok(set)
    }

    /// Whether a text is a rule.
    pub(super) fn check(id: &str, text: &str) -> Result<()> {
        read_rule(id.to_owned(), text).map(|_| ())
    }

    fn grouped(mut files: Vec<(String, String)>) -> Result<Self> {
        files.sort();
        let mut languages: BTreeMap<Language, Group> =
            Language::ALL.into_iter().map(|language| (language, Group::default())).collect();
        for (id, text) in files {
            let folder = id.split('/').next().unwrap_or("");
            let language: Language = folder.parse().map_err(|_| OracleError::Rule {
                file: format!("{id}.yml"),
                message: format!("the folder `{folder}` is no language"),
            })?;
            languages.entry(language).or_default().files.push((id, text));
        }
        Ok(Self { languages })
    }

    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.languages.values().flat_map(Group::rules)
    }

    /// The rules of a language, and of the one it adds to.
    fn compiled(&self, language: Language) -> Result<Option<Index>> {
        let rules: Vec<Arc<Rule>> = self.groups(language).flat_map(Group::rules).cloned().collect();
        let index = Index::new(&rules, language)?;
        Ok(Some(index).filter(|index| !index.covers.is_empty()))
    }

    pub(crate) fn index(&self, language: Language) -> Option<&Index> {
        let group = self.languages.get(&language)?;
        let make = || self.compiled(language).expect("a test compiles every shipped rule");
        group.index.get_or_init(make).as_ref()
    }

    /// Every rule that can flag something, by id.
    pub fn list(&self) -> impl Iterator<Item = &Rule> {
        self.rules().map(AsRef::as_ref).filter(|rule| rule.file.kind != Kind::Shared)
    }

    /// Whether there is a rule file for a language.
    pub(crate) fn has(&self, language: Language) -> bool {
        self.groups(language).any(|group| !group.files.is_empty())
    }

    /// A hash of every rule file that has a say in a language.
    pub(crate) fn digest(&self, language: Language) -> String {
        let mut hash = Sha256::new();
        for (id, text) in self.groups(language).flat_map(|group| &group.files) {
            for part in [id, text] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        format!("{:x}", hash.finalize())
    }

    fn groups(&self, language: Language) -> impl Iterator<Item = &Group> {
        let folders = self.languages.iter();
        folders.filter(move |(folder, _)| applies(**folder, language)).map(|(_, group)| group)
    }

    /// One rule.
    ///
    /// # Errors
    /// [`OracleError::NoSuchRule`], with the id most like it.
    pub fn show(&self, id: &str) -> Result<&Rule> {
        let folder = id.split('/').next().and_then(|folder| folder.parse().ok());
        let group = folder.and_then(|folder: Language| self.languages.get(&folder));
        let mut rules = group.into_iter().flat_map(Group::rules).map(AsRef::as_ref);
        if let Some(rule) = rules.find(|rule| rule.id == id && rule.file.kind != Kind::Shared) {
            return Ok(rule);
        }
        let nearest =
            self.list().max_by_key(|rule| likeness(&rule.id, id)).map(|rule| rule.id.clone());
        Err(OracleError::NoSuchRule { id: id.to_owned(), nearest })
    }
}

impl Group {
    fn read(&self) -> Result<Vec<Arc<Rule>>> {
        self.files.iter().map(|(id, text)| Ok(Arc::new(read_rule(id.clone(), text)?))).collect()
    }

    fn rules(&self) -> &[Arc<Rule>] {
        self.rules.get_or_init(|| self.read().expect("a test reads every shipped rule"))
    }
}

/// Whether rules of a folder apply to a language.
fn applies(folder: Language, language: Language) -> bool {
    folder == language
        || (folder == Language::C && language == Language::Cpp)
        || (folder == Language::JavaScript && language == Language::TypeScript)
}

/// Pairs of neighbouring characters two ids share.
fn likeness(left: &str, right: &str) -> usize {
    left.as_bytes()
        .windows(2)
        .filter(|pair| right.as_bytes().windows(2).any(|other| other == *pair))
        .count()
}

fn read_rule(id: String, text: &str) -> Result<Rule> {
    let fail = |message: String| OracleError::Rule { file: format!("{id}.yml"), message };
    let mut file: RuleFile =
        serde_yaml_ng::from_str(text).map_err(|error| fail(error.to_string()))?;
    let folder = id.split('/').next().unwrap_or("");
    let language: Language =
        folder.parse().map_err(|_| fail(format!("the folder `{folder}` is no language")))?;
    models::expand(&mut file, language).map_err(fail)?;
    let empty = |key: &str| fail(format!("key `{key}` is missing or empty"));
    if file.kind != Kind::Shared {
        if file.cwe.is_empty() {
            return Err(empty("cwe"));
        }
        if file.message.is_empty() {
            return Err(empty("message"));
        }
        if file.help.is_empty() {
            return Err(empty("help"));
        }
        if file.valid.is_empty() {
            return Err(empty("valid"));
        }
        if file.invalid.is_empty() {
            return Err(empty("invalid"));
        }
    }
    let wrong = match file.kind {
        Kind::Flow if file.sinks.is_empty() => Some("sinks"),
        Kind::Pattern
            if file.calls.is_empty()
                && file.literals.is_empty()
                && file.attributes.is_empty()
                && file.contains.is_empty()
                && file.compared.is_empty() =>
        {
            Some("calls")
        }
        Kind::Typestate if file.check.is_none() => Some("check"),
        _ => None,
    };
    if let Some(key) = wrong {
        return Err(empty(key));
    }
    Ok(Rule { id, language, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_named_with_their_file() {
        let error =
            read_rule("python/x".to_owned(), "kind: flow\nsinkz: []\n").unwrap_err().to_string();
        assert!(error.contains("python/x.yml") && error.contains("sinkz"), "{error}");
        let error = read_rule("python/x".to_owned(), "kind: pattern\ncwe: [CWE-001]\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("message"), "{error}");
    }

    #[test]
    fn model_rows_become_part_of_the_rules() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("acme.model.yml");
        let text = r#"
            extensions:
              - addsTo: {pack: codeql/python-all, extensible: sinkModel}
                data:
                  - ["acme", "Member[run_query].Argument[0]", "sql-injection"]
                  - ["acme", "Member[f].Argument[0]", "moon-phase"]
              - addsTo: {pack: codeql/python-all, extensible: sourceModel}
                data:
                  - ["acme", "Member[read_socket].ReturnValue", "remote"]
              - addsTo: {pack: codeql/python-all, extensible: summaryModel}
                data:
                  - ["acme", "Member[wrap]", "Argument[0]", "ReturnValue", "taint"]
        "#;
        fs::write(&path, text).unwrap();
        let (rules, report) = RuleSet::embedded().unwrap().with_models(&[path]).unwrap();
        assert_eq!((report.rows, report.understood.len(), report.left_out.len()), (4, 3, 1));
        assert!(report.left_out.keys().any(|why| why.contains("moon-phase")));
        let code = "import acme\ndef f():\n    q = acme.wrap(acme.read_socket())\n    acme.run_query('SELECT ' + q)\n";
        let flagged = |rules: RuleSet| {
            let oracle = crate::Oracle::new(rules);
            let analysis = oracle.analyse(code, Language::Python, crate::Mode::Faithful);
            analysis.findings.iter().map(|found| found.rule.clone()).collect::<Vec<_>>()
        };
        assert_eq!(flagged(rules), ["python/cwe-089-sql-injection"]);
        assert!(flagged(RuleSet::embedded().unwrap()).is_empty());
    }

    #[test]
    fn a_rule_file_may_hold_model_rows() {
        let text = "kind: flow\ncwe: [CWE-089]\nmessage: m\nhelp: h\nvalid: [x]\ninvalid: [x]\nmodels:\n  \
            sinks:\n    - [acme, \"Member[run].Argument[0]\", sql-injection]\n  \
            sources:\n    - [acme, \"Member[read].ReturnValue\", remote]\n";
        let rule = read_rule("python/x".to_owned(), text).unwrap();
        assert_eq!(rule.file.sinks[0].call, ["acme.run"]);
        assert_eq!(rule.file.sources[0].call, ["acme.read"]);
        let error =
            read_rule("python/x".to_owned(), &text.replace("Member[run]", "Fuzzy")).unwrap_err();
        assert!(error.to_string().contains("Fuzzy"), "{error}");
    }

    #[test]
    fn shipped_rules_load_and_unknown_ids_get_a_hint() {
        let rules = RuleSet::embedded().unwrap();
        assert!(rules.list().count() > 20);
        let error = rules.show("python/cwe-089-sql").unwrap_err().to_string();
        assert!(error.contains("did you mean `python/cwe-089"), "{error}");
    }
}
