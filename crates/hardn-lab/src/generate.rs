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

/// Up to `n` security scenarios of the split `train`, to sample a model on that is then trained on what it wrote.
///
/// They have only what fix pairs have: their families, names, wordings and styles, and none of the weaknesses that are held
/// out. A world does not contain them and does not depend on them.
///
/// # Errors
/// A template that cannot be rendered.
pub fn training_scenarios(library: &Library, seed: u64, n: usize) -> Result<Vec<Scenario>> {
    suite::training_scenarios(library, seed, n)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hardn_types::{Label, Language, Split};

    use super::*;
    use crate::{DocumentKind, generate::pretrain::vulnerable_shares};

    fn world(seed: u64, n: usize) -> World {
        generate(&WorldOptions { seed, n_pretrain_documents: n, ..WorldOptions::default() })
            .unwrap()
    }

    #[test]
    fn a_seed_gives_the_same_world_again_and_another_seed_another() {
        let (one, two) = (world(5, 300), world(5, 300));
        assert_eq!(one, two);
        let other = world(6, 300);
        for file in one.manifest.sha256.keys() {
            assert_ne!(one.manifest.sha256[file], other.manifest.sha256[file], "{file}");
        }
    }

    #[test]
    fn the_rest_of_a_world_does_not_depend_on_its_pretraining_text() {
        let (one, two) = (world(5, 0), world(5, 200));
        for (file, sha256) in &one.manifest.sha256 {
            assert_eq!(*sha256 == two.manifest.sha256[file], file != "pretrain.jsonl", "{file}");
        }
    }

    #[test]
    fn a_world_survives_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(2, 100);
        world.write(dir.path()).unwrap();
        assert_eq!(World::read(dir.path()).unwrap(), world);
        let bytes = std::fs::read(dir.path().join("tasks.jsonl")).unwrap();
        assert_eq!(format!("{:x}", Sha256::digest(bytes)), world.manifest.sha256["tasks.jsonl"]);
        std::fs::remove_file(dir.path().join("pretrain.jsonl")).unwrap();
        assert!(World::read(dir.path()).unwrap().pretrain.is_empty());
    }

    #[test]
    fn families_of_the_parts_are_disjoint() {
        let world = world(1, 5_000);
        let pretraining: BTreeSet<&str> =
            world.pretrain.iter().map(|d| d.family.as_str()).collect();
        let pairs: BTreeSet<&str> = world
            .pairs_train
            .iter()
            .chain(&world.pairs_val)
            .filter_map(|pair| pair.origin.as_deref())
            .chain(world.utility_train.iter().map(|row| row.family.as_str()))
            .collect();
        let scenarios: Vec<&Scenario> = world
            .scenarios
            .iter()
            .chain(&world.tasks)
            .filter(|scenario| scenario.tags.seen_context != Some(true))
            .collect();
        let of = |split| -> BTreeSet<&str> {
            scenarios.iter().filter(|s| s.split == split).map(|s| s.family.as_str()).collect()
        };
        let (val, test) = (of(Split::Val), of(Split::Test));
        assert!(pretraining.is_disjoint(&pairs));
        for suite in [&val, &test] {
            assert!(suite.is_disjoint(&pretraining) && suite.is_disjoint(&pairs));
        }
        assert!(val.is_disjoint(&test));
        for scenario in world.scenarios.iter().filter(|s| s.tags.seen_context == Some(true)) {
            assert!(pairs.contains(scenario.family.as_str()), "{}", scenario.id);
        }
    }

    #[test]
    fn both_sides_of_a_pair_follow_the_same_prompt() {
        let world = world(3, 0);
        assert!(world.pairs_train.len() > 1_200 && world.pairs_val.len() > 100);
        for pair in world.pairs_train.iter().chain(&world.pairs_val) {
            assert!(
                pair.before.starts_with(&pair.prompt) && pair.after.starts_with(&pair.prompt),
                "{}",
                pair.id
            );
            assert_ne!(pair.before, pair.after, "{}", pair.id);
            assert!(pair.prompt.contains(pair.description.as_deref().unwrap()), "{}", pair.id);
        }
        let ids: BTreeSet<&str> =
            world.pairs_train.iter().chain(&world.pairs_val).map(|p| p.id.as_str()).collect();
        assert_eq!(ids.len(), world.pairs_train.len() + world.pairs_val.len());
    }

    #[test]
    fn held_out_styles_and_weaknesses_never_enter_the_pairs() {
        let library = Library::embedded().unwrap();
        let world = world(4, 0);
        let unseen: Vec<&Theme> =
            library.themes().filter(|theme| Library::is_unseen_weakness(theme)).collect();
        let languages: BTreeSet<Language> = unseen.iter().map(|theme| theme.language).collect();
        assert_eq!((unseen.len(), languages.len()), (2, 2));
        for theme in library.themes().filter(|theme| !theme.is_utility()) {
            let held_out = styles(theme, |style| style.in_pairs == Some(false));
            assert!(
                !held_out.is_empty() && held_out.len() * 2 < theme.styles.len(),
                "{}",
                theme.id
            );
            let prefix = format!("{}/", theme.id);
            for pair in
                world.pairs_train.iter().filter(|p| p.origin.as_ref().unwrap().starts_with(&prefix))
            {
                assert!(!Library::is_unseen_weakness(theme), "{}", pair.id);
                assert!(
                    held_out.iter().all(|&i| pair.extra["style"] != theme.styles[i].id.as_str()),
                    "{}",
                    pair.id
                );
            }
        }
    }

    #[test]
    fn training_scenarios_have_what_fix_pairs_have_and_nothing_else() {
        let library = Library::embedded().unwrap();
        let found = training_scenarios(&library, 4, 100).unwrap();
        assert_eq!(found.len(), 100);
        assert_eq!(found, training_scenarios(&library, 4, 100).unwrap());
        assert_eq!(found[..20], training_scenarios(&library, 4, 20).unwrap());
        let world = world(4, 0);
        let of_pairs = |key: fn(&hardn_types::FixPair) -> &str| -> BTreeSet<&str> {
            world.pairs_train.iter().chain(&world.pairs_val).map(key).collect()
        };
        let families = of_pairs(|pair| pair.origin.as_deref().unwrap());
        let styles = of_pairs(|pair| pair.extra["style"].as_str().unwrap());
        let themes = |families: &BTreeSet<&str>| -> BTreeSet<String> {
            families.iter().map(|family| family.rsplitn(3, '/').last().unwrap().into()).collect()
        };
        let ours: BTreeSet<&str> = found.iter().map(|s| s.family.as_str()).collect();
        assert!(ours.is_subset(&families));
        assert_eq!(themes(&ours), themes(&families));
        let rest: Vec<&Scenario> = world.scenarios.iter().chain(&world.tasks).collect();
        for scenario in &found {
            assert!(scenario.split == Split::Train && scenario.tags.seen_context == Some(true));
            assert!(styles.contains(scenario.extra["style"].as_str().unwrap()), "{}", scenario.id);
            assert!(scenario.function_test.is_some() && scenario.attack_test.is_some());
            let same =
                |other: &&Scenario| other.id == scenario.id || other.prompt == scenario.prompt;
            assert!(!rest.iter().any(same), "{}", scenario.id);
        }
    }

    #[test]
    fn documents_have_the_wanted_shares() {
        let world = world(1, 20_000);
        let share = |kind| {
            world.pretrain.iter().filter(|document| document.kind == kind).count() as f64
                / world.pretrain.len() as f64
        };
        assert!((share(DocumentKind::Instruction) - 0.2).abs() < 0.02);
        assert!((share(DocumentKind::Fim) - 0.05).abs() < 0.01);
        assert!((world.manifest.vulnerable_share_drawn.unwrap() - 0.4).abs() < 0.08);
        let shares = vulnerable_shares(&Library::embedded().unwrap(), 1);
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for document in &world.pretrain {
            if let Some(label) = document.label {
                let count = counts.entry(&document.family).or_default();
                count.0 += usize::from(label == Label::Vulnerable);
                count.1 += 1;
            }
        }
        for (family, (vulnerable, n)) in counts {
            let drawn = vulnerable as f64 / n as f64;
            assert!(
                (drawn - shares[family]).abs() < 0.3,
                "{family}: {drawn} of {n}, wanted {}",
                shares[family]
            );
        }
    }

    #[test]
    fn the_suite_has_every_group_and_enough_families() {
        let world = world(1, 0);
        for group in
            ["seen idiom", "unseen idiom", "seen context", "unseen weakness", "trusted", "utility"]
        {
            let n = world.manifest.groups[&format!("test: {group}")];
            assert!(n >= 4, "{group}: {n}");
        }
        let test = |scenario: &&Scenario| scenario.split == Split::Test;
        assert_eq!(world.scenarios.iter().filter(test).count(), 90);
        assert_eq!(world.tasks.iter().filter(test).count(), 60);
        for scenario in &world.scenarios {
            assert!(scenario.attack_test.is_some() && scenario.cwe.is_some(), "{}", scenario.id);
            for label in [Label::Secure, Label::Vulnerable] {
                assert!(
                    scenario.solutions.iter().any(|solution| solution.label == label),
                    "{}",
                    scenario.id
                );
            }
        }
        let library = Library::embedded().unwrap();
        let operations: usize =
            library.themes().filter(|theme| theme.is_utility()).map(|t| t.operations.len()).sum();
        assert!(operations >= 40, "{operations}");
    }

    #[test]
    fn real_code_is_mixed_in() {
        let dir = tempfile::tempdir().unwrap();
        let code = "def function(x):
    return x + 2


"
        .repeat(40);
        std::fs::write(dir.path().join("real.py"), code).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not code").unwrap();
        let options = WorldOptions {
            extra: Some(dir.path().to_owned()),
            n_pretrain_documents: 100,
            ..WorldOptions::default()
        };
        let world = generate(&options).unwrap();
        let extra: Vec<_> =
            world.pretrain.iter().filter(|d| d.kind == DocumentKind::Extra).collect();
        assert!(extra.len() == 1 && extra[0].family == "real.py" && world.pretrain.len() == 100);
    }
}
