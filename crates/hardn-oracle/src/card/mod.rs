//! The oracle card: how far findings agree with the labels of a corpus, and where the oracle is blind.

mod corpus;
mod markdown;
mod score;
mod tally;

use std::{collections::BTreeMap, path::Path};

use hardn_types::{Analysis, Cwe, Language};
use rayon::prelude::*;
use serde::Serialize;

use crate::{Mode, Oracle, Result};
use corpus::Record;
pub use score::{Agreement, LanguageScore, PairScore};
pub use tally::Score;

/// Agreement in both modes, and what the numbers rest on.
#[derive(Clone, Debug, Serialize)]
pub struct OracleCard {
    /// Engine and version.
    pub engine: String,
    /// The corpus: what was read.
    pub corpus: CorpusInfo,
    /// Rules that flag something, per folder.
    pub rules: BTreeMap<Language, usize>,
    /// Only data from outside counts.
    pub faithful: Agreement,
    /// Parameters count, too.
    pub snippet: Agreement,
    /// Rules by language and class, for cells of low recall.
    pub rules_of: BTreeMap<String, BTreeMap<Cwe, Vec<String>>>,
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CorpusInfo {
    /// Files of the folder.
    pub files: usize,
    /// Rows in them.
    pub records: usize,
    /// SHA-256 over the files' bytes, by name.
    pub sha256: String,
}

/// Runs the oracle over a labelled corpus, a folder of `*.jsonl.gz` files, in both modes. `watch` gets the numbers of
/// records done and of all, both modes together.
///
/// # Errors
/// [`crate::OracleError::Read`] for a folder that cannot be read, [`crate::OracleError::Corpus`] for a row that is none.
pub fn oracle_card(
    oracle: &Oracle,
    folder: &Path,
    watch: &(dyn Fn(usize, usize) + Sync),
) -> Result<OracleCard> {
    let (records, corpus) = corpus::read(folder)?;
    let done = std::sync::atomic::AtomicUsize::new(0);
    let total = 2 * records.len();
    let run = |mode: Mode| {
        let analyses: Vec<Analysis> = records
            .par_iter()
            .map(|record| {
                let analysis = analyse(oracle, record, mode);
                watch(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
                analysis
            })
            .collect();
        score::score(records.iter().zip(&analyses))
    };
    let (faithful, snippet) = (run(Mode::Faithful), run(Mode::Snippet));
    let mut rules: BTreeMap<Language, usize> = BTreeMap::new();
    let mut rules_of: BTreeMap<String, BTreeMap<Cwe, Vec<String>>> = BTreeMap::new();
    for rule in oracle.rules().list() {
        *rules.entry(rule.language).or_default() += 1;
        let language = score::group(rule.language.name()).to_owned();
        for class in &rule.info().cwe {
            let ids = rules_of.entry(language.clone()).or_default().entry(*class).or_default();
            ids.push(rule.id.clone());
        }
    }
    let engine = format!("{} {}", crate::ENGINE, env!("CARGO_PKG_VERSION"));
    Ok(OracleCard { engine, corpus, rules, faithful, snippet, rules_of })
}

fn analyse(oracle: &Oracle, record: &Record, mode: Mode) -> Analysis {
    match record.language.parse::<Language>() {
        Ok(language) => oracle.analyse(&record.text, language, mode),
        Err(error) => Analysis {
            language: None,
            findings: Vec::new(),
            covers: Vec::new(),
            not_analysed: Some(error.to_string()),
        },
    }
}
