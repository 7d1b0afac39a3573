//! From options to a world.

mod pairs;
mod pretrain;
mod suite;

use std::collections::BTreeMap;

use hardn_types::Scenario;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    Cell, LAB_VERSION, Library, Manifest, Result, Theme, ThemeRow, World, WorldOptions,
    leak::{self, group},
};

/// Makes a world. The same options, themes and version give the same bytes, whatever the number of threads.
///
/// # Errors
/// Themes or an idiom file that cannot be read or rendered; a folder of real code that cannot be read.
pub fn generate(options: &WorldOptions) -> Result<World> {
    let library = match &options.themes {
        Some(dir) => Library::from_dir(dir, options.idioms.as_deref())?,
        None => Library::embedded_with(options.idioms.as_deref())?,
    };
    let shares = pretrain::vulnerable_shares(&library, options.seed);
    let pretrain = pretrain::documents(&library, options, &shares)?;
    let (pairs_train, pairs_val) = pairs::pairs(&library, options)?;
    let utility_train = pairs::utility_rows(&library, options)?;
    let scenarios = suite::scenarios(&library, options)?;
    let tasks = suite::tasks(&library, options)?;

    let both: Vec<&Scenario> = scenarios.iter().chain(&tasks).collect();
    let texts: Vec<&str> = pretrain.iter().map(|document| document.text.as_str()).collect();
    let utility: Vec<String> =
        utility_train.iter().map(|row| format!("{}{}", row.prompt, row.completion)).collect();
    let pairs = || pairs_train.iter().chain(&pairs_val);
    let sides: Vec<&str> = pairs()
        .flat_map(|pair| [pair.before.as_str(), pair.after.as_str()])
        .chain(utility.iter().map(String::as_str))
        .collect();
    let leak = leak::measure(&both, &texts, &sides);

    let mut counts = BTreeMap::new();
    let mut sha256 = BTreeMap::new();
    let mut file = |name: &str, n: usize, digest: String| {
        counts.insert(name.to_owned(), n);
        sha256.insert(name.to_owned(), digest);
    };
    file("pretrain.jsonl", pretrain.len(), digest(&pretrain));
    file("pairs.train.jsonl", pairs_train.len(), digest(&pairs_train));
    file("pairs.val.jsonl", pairs_val.len(), digest(&pairs_val));
    file("utility.train.jsonl", utility_train.len(), digest(&utility_train));
    file("scenarios.jsonl", scenarios.len(), digest(&scenarios));
    file("tasks.jsonl", tasks.len(), digest(&tasks));

    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for scenario in &both {
        let split = format!("{:?}", scenario.split).to_lowercase();
        *groups.entry(format!("{split}: {}", group(scenario))).or_default() += 1;
    }
    let of = |theme: &Theme, family: &str| {
        family.strip_prefix(&theme.id).is_some_and(|rest| rest.starts_with('/'))
    };
    let themes = library.themes().map(|theme| ThemeRow {
        id: theme.id.clone(),
        title: theme.title.clone(),
        language: theme.language,
        cwe: theme.cwe,
        operations: theme.operations.len(),
        settings: theme.settings.len(),
        trusted_settings: theme.settings.iter().filter(|setting| setting.trusted).count(),
        styles: theme.styles.len(),
        idioms: theme
            .styles
            .iter()
            .map(|s| s.vulnerable.len() + s.secure.len() + s.trusted.len())
            .sum(),
        held_out_styles: theme
            .styles
            .iter()
            .filter(|s| s.in_pairs == Some(false))
            .map(|s| s.id.clone())
            .collect(),
        unseen_weakness: Library::is_unseen_weakness(theme),
        documents: pretrain.iter().filter(|document| document.theme == theme.id).count(),
        pairs: pairs()
            .filter(|pair| pair.origin.as_ref().is_some_and(|family| of(theme, family)))
            .count(),
        utility_rows: utility_train.iter().filter(|row| of(theme, &row.family)).count(),
        scenarios: scenarios.iter().filter(|scenario| of(theme, &scenario.family)).count(),
        tasks: tasks.iter().filter(|task| of(theme, &task.family)).count(),
    });
    let themes = themes.collect();
    let mean = shares.values().sum::<f64>() / shares.len().max(1) as f64;
    let labelled = pretrain.iter().filter_map(|document| document.label);
    let n_labelled = labelled.clone().count();
    let n_vulnerable = labelled.filter(|label| *label == hardn_types::Label::Vulnerable).count();
    let manifest = Manifest {
        lab_version: LAB_VERSION.to_owned(),
        seed: options.seed,
        themes_sha256: library.sha256().to_owned(),
        idioms_sha256: library.idioms_sha256().map(str::to_owned),
        counts,
        sha256,
        themes,
        vulnerable_share_mean: mean,
        vulnerable_share_drawn: (n_labelled > 0).then(|| n_vulnerable as f64 / n_labelled as f64),
        vulnerable_shares: shares,
        groups,
        leak,
    };
    Ok(World { manifest, pretrain, pairs_train, pairs_val, utility_train, scenarios, tasks })
}

/// SHA-256 of rows as JSON Lines: that of the file they are written to.
fn digest<T: Serialize>(rows: &[T]) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        // Rows of the lab are plain data: turning them into JSON cannot fail.
        hash.update(serde_json::to_vec(row).unwrap_or_default());
        hash.update(b"\n");
    }
    format!("{:x}", hash.finalize())
}

/// The styles whose positions a condition keeps.
fn styles(theme: &Theme, keep: impl Fn(&crate::Style) -> bool) -> Vec<usize> {
    (0..theme.styles.len()).filter(|&i| keep(&theme.styles[i])).collect()
}

fn cell((operation, setting): (usize, usize), style: usize) -> Cell {
    Cell { operation, setting, style }
}
