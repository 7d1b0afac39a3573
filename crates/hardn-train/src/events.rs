//! The record of a training: one line per step and validation, the same after a kill and a resume.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use hardn_types::{LossPoint, append_jsonl, write_atomic};
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// Points a loss curve is reduced to, at most.
const MAX_POINTS: usize = 200;

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An optimiser step.
    Step {
        /// Steps done, this one included.
        step: usize,
        /// The weighted sum that was minimised, in nats.
        loss: f64,
        /// Mean loss per example, by term, in nats.
        terms: BTreeMap<String, f64>,
        /// The learning rate of this step.
        learning_rate: f64,
        /// Euclidean norm of the gradient before clipping.
        gradient_norm: f64,
        /// Tokens seen so far, without padding.
        tokens: u64,
    },
    /// A validation.
    Validation {
        /// Steps done before it.
        step: usize,
        /// Mean loss per example, by kind; `all` is what the recipe minimises.
        losses: BTreeMap<String, f64>,
    },
}

impl Event {
    fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Validation { step, .. } => *step,
        }
    }
}

/// The open record, and beside it the timings, which differ between runs.
pub(crate) struct EventLog {
    path: PathBuf,
    file: fs::File,
    timings: fs::File,
    timings_path: PathBuf,
}

#[derive(Serialize)]
struct Timing {
    step: usize,
    seconds: f64,
    tokens: usize,
}

impl EventLog {
    /// Opens the record in `dir`, without whatever was written after `step`.
    pub(crate) fn open(dir: &Path, step: usize) -> Result<Self> {
        let (path, timings_path) = (dir.join("events.jsonl"), dir.join("timings.jsonl"));
        let kept: Vec<Event> = read(&path).into_iter().filter(|e| e.step() <= step).collect();
        let mut bytes = Vec::new();
        if step > 0 {
            for event in &kept {
                bytes.extend(serde_json::to_vec(event).unwrap_or_default());
                bytes.push(b'\n');
            }
        }
        write_atomic(&path, &bytes)?;
        let open = |path: &Path| {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(TrainError::file("open", path))
        };
        let (file, timings) = (open(&path)?, open(&timings_path)?);
        Ok(Self { path, file, timings, timings_path })
    }

    pub(crate) fn write(&mut self, event: &Event) -> Result<()> {
        Ok(append_jsonl(&mut self.file, &self.path, event)?)
    }

    pub(crate) fn timing(&mut self, step: usize, seconds: f64, tokens: usize) -> Result<()> {
        let timing = Timing { step, seconds, tokens };
        Ok(append_jsonl(&mut self.timings, &self.timings_path, &timing)?)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(TrainError::file("write", &self.path))?;
        self.file.sync_data().map_err(TrainError::file("sync", &self.path))
    }
}

/// The events of a training, up to the first line a kill tore.
pub fn read_events(dir: &Path) -> Vec<Event> {
    read(&dir.join("events.jsonl"))
}

fn read(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

/// The loss curve: a point at each validation, and in between enough to draw it.
pub(crate) fn curve(events: &[Event]) -> Vec<LossPoint> {
    let n_steps = events.iter().filter(|event| matches!(event, Event::Step { .. })).count();
    let stride = n_steps.div_ceil(MAX_POINTS).max(1);
    let mut points: Vec<LossPoint> = Vec::new();
    let mut pending: Vec<f64> = Vec::new();
    let mut last_step = 0;
    let close = |pending: &mut Vec<f64>, step: usize| {
        let mean = pending.iter().sum::<f64>() / pending.len() as f64;
        pending.clear();
        LossPoint { step, train: Some(mean), validation: BTreeMap::new() }
    };
    for event in events {
        match event {
            Event::Step { step, loss, .. } => {
                pending.push(*loss);
                last_step = *step;
                if pending.len() == stride {
                    points.push(close(&mut pending, *step));
                }
            }
            Event::Validation { step, losses } => {
                if !pending.is_empty() {
                    points.push(close(&mut pending, last_step));
                }
                match points.last_mut() {
                    Some(point) if point.step == *step => point.validation.clone_from(losses),
                    _ => points.push(LossPoint {
                        step: *step,
                        train: None,
                        validation: losses.clone(),
                    }),
                }
            }
        }
    }
    if !pending.is_empty() {
        points.push(close(&mut pending, last_step));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> Event {
        Event::Step {
            step,
            loss: step as f64,
            terms: BTreeMap::from([("secure".to_owned(), 0.1)]),
            learning_rate: 1e-3,
            gradient_norm: 0.3,
            tokens: 10,
        }
    }

    #[test]
    fn what_came_after_the_checkpoint_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path(), 0).unwrap();
        for i in 1..=5 {
            log.write(&step(i)).unwrap();
        }
        log.flush().unwrap();
        let path = dir.path().join("events.jsonl");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"event\":\"st")).unwrap();
        let mut log = EventLog::open(dir.path(), 3).unwrap();
        assert_eq!(read_events(dir.path()).len(), 3);
        for i in 4..=5 {
            log.write(&step(i)).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn a_curve_has_every_validation_and_few_points() {
        let mut events = vec![Event::Validation { step: 0, losses: BTreeMap::new() }];
        for i in 1..=1000 {
            events.push(step(i));
        }
        let losses = BTreeMap::from([("all".to_owned(), 2.0)]);
        events.push(Event::Validation { step: 1000, losses: losses.clone() });
        let points = curve(&events);
        assert_eq!(points.len(), 201);
        assert_eq!(points[1].train, Some(3.0)); // mean of 1 to 5
        assert_eq!(points[200].validation, losses);
    }
}
