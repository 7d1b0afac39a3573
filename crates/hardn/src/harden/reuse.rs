//! Taking over from another run's folder what would come out the same here: samples, verdicts and preference.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use hardn_eval::{Record, Store};
use hardn_types::{RunInfo, Sample, Scenario, Verdict, read_jsonl};

use super::{arms::ArmPlan, config::Dedup, folder::RunFolder, judge};
use crate::failure::{Context, Failure, Outcome};

/// Copies the samples of the other run's arms of the same name, with their verdicts and their preference.
///
/// A sample stays only if it is what this run would draw: [`super::generate::draw`] compares the hash of everything that
/// determines it, and preference carries its model's fingerprint. A verdict is taken if both runs used the same tools,
/// and its scenario is the same in both, tests included.
pub(crate) fn take_over(
    other: &Path,
    folder: &RunFolder,
    suite: &[Scenario],
    arms: &[ArmPlan],
    dedup: Dedup,
    samples: &mut Store<Sample>,
) -> Outcome {
    let file = other.join("run.json");
    let bytes = std::fs::read(&file).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", file.display()))
            .help("`--reuse` takes the folder of a finished run")
    })?;
    let info: RunInfo =
        serde_json::from_slice(&bytes).context(format!("reading {}", file.display()))?;
    let wanted = |arm: &str| arms.iter().any(|plan| plan.id == arm && !plan.is_trained());
    let ours: BTreeMap<&str, &Scenario> = suite.iter().map(|row| (row.id.as_str(), row)).collect();
    for sample in read_jsonl::<Sample>(&other.join("samples.jsonl"))? {
        let in_suite = ours.contains_key(sample.task.as_str());
        if in_suite && wanted(&sample.arm) && !samples.rows().contains_key(&sample.record_key()) {
            samples.append(sample)?;
        }
    }
    for arm in arms.iter().filter(|arm| wanted(&arm.id)) {
        let name = format!("preference.{}.json", arm.id);
        if let Ok(bytes) = std::fs::read(other.join(&name)) {
            hardn_types::write_atomic(&folder.file(&name), &bytes)?;
        }
    }
    // Duplicates that are taken out are not judged.
    if info.tools != judge::tools()? || info.config["eval"]["dedup"] != serde_json::to_value(dedup)?
    {
        return Ok(());
    }
    let theirs = read_jsonl::<Scenario>(&other.join("suite.jsonl"))?;
    let same: BTreeSet<&str> = theirs
        .iter()
        .filter(|row| ours.get(row.id.as_str()).is_some_and(|our| our == row))
        .map(|row| row.id.as_str())
        .collect();
    let mut verdicts: Store<Verdict> = Store::open(&folder.file("verdicts.jsonl"))?;
    for verdict in read_jsonl::<Verdict>(&other.join("verdicts.jsonl"))? {
        let is_same = same.contains(verdict.task.as_str());
        let is_new = !verdicts.rows().contains_key(&verdict.record_key());
        if is_same && is_new && wanted(&verdict.arm) {
            verdicts.append(verdict)?;
        }
    }
    Ok(())
}
