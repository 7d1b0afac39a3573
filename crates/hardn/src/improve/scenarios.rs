//! The scenarios a model is sampled on to be trained on what it wrote, and the check that none of them is evaluated on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use hardn_lab::Library;
use hardn_types::{Scenario, Split};
use sha2::{Digest, Sha256};

use super::config::{ImproveConfig, JudgeKind};
use crate::{
    failure::{Context, Failure, Outcome},
    harden::{
        config::{RunConfig, WorldConfig},
        inputs::{Inputs, digest},
    },
};

/// Reads or makes the training scenarios, leaves out what cannot be judged, and refuses those that are evaluated on.
pub(crate) fn training_suite(
    config: &RunConfig,
    improve: &ImproveConfig,
    inputs: &mut Inputs,
) -> Outcome<Vec<Scenario>> {
    improve.check()?;
    let mut suite = Vec::new();
    for path in &improve.suites {
        let mut rows = hardn_code::read_scenarios(path)
            .context(format!("reading the suite {}", path.display()))?;
        let n = rows.len();
        rows.retain(|scenario| scenario.split == Split::Train);
        let usable = keep_judgeable(rows, improve.judge);
        let mut notes: Vec<String> =
            usable.left_out.iter().map(|(why, n)| format!("{n} rows {why}")).collect();
        if n > usable.n_given {
            notes.push(format!("{} of {n} rows are of another split", n - usable.n_given));
        }
        if usable.kept.is_empty() {
            return Err(Failure::new(format!(
                "{} has no scenario to train on: {}",
                path.display(),
                if notes.is_empty() { "it is empty".to_owned() } else { notes.join(", ") }
            ))
            .help("rows are used whose `split` is \"train\", with a `cwe` and a `function_test`"));
        }
        inputs.note_source(
            "training scenarios",
            path,
            usable.kept.len(),
            digest(&usable.kept)?,
            notes,
        );
        suite.extend(usable.kept);
    }
    if improve.suites.is_empty() {
        let Some(world) = &config.world else {
            return Err(Failure::new("there is no training scenario to sample the model on")
                .help("name suites with rows of the split `train` under `improve.suites`, or give a `world`"));
        };
        suite = of_the_lab(world, improve)?;
        let path = Path::new("lab");
        inputs.note_source("training scenarios", path, suite.len(), digest(&suite)?, Vec::new());
    }
    check_apart(&suite, &inputs.held_out)?;
    if improve.judge == JudgeKind::Oracle {
        // What is not to decide is not run.
        for scenario in &mut suite {
            scenario.attack_test = None;
        }
    }
    Ok(suite)
}

/// The lab's training scenarios, by the world's seed and idioms.
fn of_the_lab(world: &WorldConfig, improve: &ImproveConfig) -> Outcome<Vec<Scenario>> {
    let library = Library::embedded_with(world.idioms.as_deref())?;
    let mut seed = world.seed.unwrap_or(1);
    if let Some(path) = &world.path {
        let there = hardn_lab::Manifest::read(path)
            .context(format!("reading the world in {}", path.display()))?;
        if there.themes_sha256 != library.sha256()
            || there.idioms_sha256.as_deref() != library.idioms_sha256()
        {
            return Err(Failure::new(format!(
                "the world in {} was made from other themes or idioms, so that no training scenario can be made for it",
                path.display()
            ))
            .help("give its idiom file as `world.idioms`, or name scenarios under `improve.suites`"));
        }
        seed = there.seed;
    }
    let rows = hardn_lab::training_scenarios(&library, seed, improve.scenarios)?;
    Ok(keep_judgeable(rows, improve.judge).kept)
}

/// Scenarios that can be used, and why others cannot.
struct Judgeable {
    kept: Vec<Scenario>,
    n_given: usize,
    left_out: BTreeMap<&'static str, usize>,
}

fn keep_judgeable(rows: Vec<Scenario>, judge: JudgeKind) -> Judgeable {
    let mut found = Judgeable { kept: Vec::new(), n_given: rows.len(), left_out: BTreeMap::new() };
    for scenario in rows {
        let why_not = if scenario.cwe.is_none() {
            Some("name no weakness")
        } else if scenario.function_test.is_none() {
            Some("have no function test")
        } else if judge == JudgeKind::Attack && scenario.attack_test.is_none() {
            Some("have no attack test")
        } else if !hardn_code::is_checked(scenario.language) {
            Some("are in a language without a validity check")
        } else {
            None
        };
        match why_not {
            Some(why) => *found.left_out.entry(why).or_default() += 1,
            None => found.kept.push(scenario),
        }
    }
    found
}

/// An error where a training scenario has the id or the prompt of one that is evaluated on, or two have the same id.
fn check_apart(suite: &[Scenario], held_out: &[Scenario]) -> Outcome {
    let ids: BTreeSet<&str> = held_out.iter().map(|scenario| scenario.id.as_str()).collect();
    let prompts: BTreeMap<String, &str> =
        held_out.iter().map(|scenario| (prompt_hash(&scenario.prompt), &*scenario.id)).collect();
    let mut own = BTreeSet::new();
    let mut leaks = Vec::new();
    for Scenario { id, prompt, .. } in suite {
        if !own.insert(id.as_str()) {
            return Err(Failure::new(format!("two training scenarios have the id `{id}`"))
                .help("rename one, or leave one of the suites out"));
        }
        if ids.contains(id.as_str()) {
            leaks.push(format!("`{id}` is evaluated on"));
        } else if let Some(other) = prompts.get(&prompt_hash(prompt)) {
            leaks.push(format!("`{id}` has the prompt of `{other}`, which is evaluated on"));
        }
    }
    if leaks.is_empty() {
        return Ok(());
    }
    let shown = leaks.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    Err(Failure::new(format!(
        "{} of {} training scenarios are evaluated on too: {shown}",
        leaks.len(),
        suite.len()
    ))
    .help(
        "take them out of `improve.suites`; a model must not be trained on what it is evaluated on",
    ))
}

/// SHA-256 of a prompt, whatever its spaces and line ends are.
pub(super) fn prompt_hash(prompt: &str) -> String {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    format!("{:x}", Sha256::digest(words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(id: &str, prompt: &str) -> Scenario {
        serde_json::from_value(serde_json::json!({
            "id": id, "suite": "s", "language": "python", "split": "train", "prompt": prompt,
        }))
        .unwrap()
    }

    #[track_caller]
    fn check(rows: &[(&str, &str)], said: &str) {
        let suite: Vec<Scenario> = rows.iter().map(|(id, prompt)| scenario(id, prompt)).collect();
        let result = check_apart(&suite, &[scenario("t", "def f(a):\n    ")]);
        let error = result.map_or_else(|error| format!("{error:?}"), |()| String::new());
        assert_eq!(error.is_empty(), said.is_empty(), "{error}");
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn what_is_evaluated_on_is_not_trained_on() {
        check(&[("a", "def g(a):\n"), ("b", "def h(a):\n")], "");
        check(&[("a", "def g(a):\n"), ("t", "def h(a):\n")], "1 of 2 training scenarios");
        check(&[("a", "def f(a):\r\n\t")], "`a` has the prompt of `t`");
        check(&[("a", "x"), ("a", "y")], "two training scenarios");
    }
}
