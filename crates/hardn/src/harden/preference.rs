//! Likelihood preference of an arm: needs no sample and no oracle.

use std::collections::BTreeMap;

use hardn_models::Model;
use rayon::prelude::*;

use super::{Job, arms::ArmPlan};
use crate::{
    failure::{Failure, Outcome},
    stop,
};

/// By set, what each cluster (a pair's family, or the pair) adds: pairs that prefer the secure side, pairs.
pub(crate) type PreferenceRows = BTreeMap<String, BTreeMap<String, [f64; 2]>>;

/// Measures every set of pairs of the run, or reads what was measured before.
pub(crate) fn measure(job: &Job<'_>, arm: &ArmPlan, model: &Model) -> Outcome<PreferenceRows> {
    let file = format!("preference.{}.json", arm.id);
    let fingerprint = model.fingerprint()?;
    if let Ok(bytes) = std::fs::read(job.folder.file(&file))
        && let Ok((there, rows)) = serde_json::from_slice::<(String, PreferenceRows)>(&bytes)
        && there == fingerprint
    {
        return Ok(rows);
    }
    let mut sets = PreferenceRows::new();
    for (name, pairs) in &job.inputs.preference {
        if stop::requested() {
            return Err(Failure::interrupted(
                "everything made so far is saved; run the same command to go on",
            ));
        }
        let found: Vec<_> = pairs
            .par_iter()
            .map(|pair| hardn_train::preference(model, &job.tokenizer, pair))
            .collect::<Result<_, _>>()?;
        let clusters = sets.entry(name.clone()).or_default();
        for (pair, found) in pairs.iter().zip(found) {
            let Some(prefers) = found.ok().and_then(|found| found.prefers_secure()) else {
                continue;
            };
            let cluster = pair.origin.clone().unwrap_or_else(|| pair.id.clone());
            let row = clusters.entry(cluster).or_insert([0.0, 0.0]);
            row[0] += f64::from(u8::from(prefers));
            row[1] += 1.0;
        }
    }
    job.folder.write_json(&file, &(fingerprint, &sets))?;
    Ok(sets)
}
