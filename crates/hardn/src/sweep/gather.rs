//! The numbers of a sweep's finished runs, one row each.

use std::{fs, path::Path};

use hardn_eval::Metrics;
use hardn_train::read_events;
use hardn_types::{Role, RunInfo};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    config::{Cell, Sweep},
    runner::cell_folder,
};
use crate::failure::{Context, Outcome};

/// A row of the table: an arm of the sweep, or what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct RowName {
    /// Base first, then the sweep's arms with their models under further decoders, then controls.
    pub(crate) rank: u8,
    /// The arm's place in the file.
    pub(crate) place: usize,
    pub(crate) name: String,
}

/// One metric of one run.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) row: RowName,
    pub(crate) seed: u64,
    pub(crate) metric: String,
    pub(crate) value: f64,
}

/// One point of a curve.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) step: usize,
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) term: String,
    pub(crate) value: f64,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) values: Vec<Measured>,
    pub(crate) points: Vec<Point>,
}

/// Reads every finished run.
pub(crate) fn gather(sweep: &Sweep, out: &Path) -> Outcome<Found> {
    let mut found = Found::default();
    for cell in &sweep.cells {
        let folder = cell_folder(out, cell);
        if folder.join("metrics.json").exists() && folder.join("run.json").exists() {
            let place = sweep.arms.iter().position(|arm| arm.name == cell.arm).unwrap_or(0);
            found.add(cell, place, &folder)?;
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, cell: &Cell, place: usize, folder: &Path) -> Outcome {
        let metrics: Metrics = read(&folder.join("metrics.json"))?;
        let info: RunInfo = read(&folder.join("run.json"))?;
        let of_first = cell.is_first;
        let is_decoded =
            |arm: &str| info.arms.iter().any(|one| one.id == arm && one.role == Role::Decoded);
        let row_of = |arm: &str| {
            let (rank, name) = match arm {
                "hardened" => (1, cell.arm.clone()),
                "base" if of_first => (0, arm.to_owned()),
                "base" => return None,
                _ if is_decoded(arm) => (1, format!("{}/{arm}", cell.arm)),
                _ if of_first => (2, arm.to_owned()),
                _ => (2, format!("{}/{arm}", cell.arm)),
            };
            Some(RowName { rank, place: if rank == 0 { 0 } else { place }, name })
        };
        for (arm, set) in &metrics.arms {
            let Some(row) = row_of(arm) else { continue };
            for (metric, found) in set {
                if let Some(value) = found.value {
                    self.value(&row, cell.seed, metric, value);
                }
            }
        }
        for training in &info.training {
            let Some(row) = row_of(&training.arm) else { continue };
            self.value(&row, cell.seed, "steps", training.steps as f64);
            let kept = training
                .curve
                .iter()
                .rev()
                .find(|point| !point.validation.is_empty() && point.step <= training.best_step);
            let losses = kept.map(|point| point.validation.clone()).unwrap_or_default();
            for (kind, loss) in losses {
                self.value(&row, cell.seed, &format!("validation_loss_{kind}"), loss);
            }
            self.curve(&row.name, cell.seed, &folder.join("training").join(&training.arm));
        }
        Ok(())
    }

    fn value(&mut self, row: &RowName, seed: u64, metric: &str, value: f64) {
        self.values.push(Measured { row: row.clone(), seed, metric: metric.to_owned(), value });
    }

    fn curve(&mut self, arm: &str, seed: u64, folder: &Path) {
        for event in read_events(folder) {
            let step = event.step();
            self.points.extend(event.scalars().into_iter().map(|(term, value)| Point {
                step,
                arm: arm.to_owned(),
                seed,
                term,
                value,
            }));
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Outcome<T> {
    let doing = || format!("reading {}", path.display());
    let bytes = fs::read(path).context(doing())?;
    serde_json::from_slice(&bytes).context(doing())
}
