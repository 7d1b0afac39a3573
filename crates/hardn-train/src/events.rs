//! The record of a training: one line per step and validation, the same after a kill and a resume.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use hardn_types::{LossPoint, append_jsonl, write_atomic, write_jsonl};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Result, TrainError, tensorboard::TensorBoard};

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
        /// Shares of 1 on small suites, by name: `security`, `utility`, `secure_pass`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        scores: BTreeMap<String, f64>,
    },
}

impl Event {
    /// Steps done, this one included.
    pub fn step(&self) -> usize {
        match self {
            Self::Step { step, .. } | Self::Validation { step, .. } => *step,
        }
    }

    /// Its numbers by name, such as `train/loss`, `validation/all`, `score/security`, `learning_rate`.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let named = |part: &str, values: &BTreeMap<String, f64>| {
            values
                .iter()
                .map(|(name, value)| (format!("{part}/{name}"), *value))
                .collect::<Vec<_>>()
        };
        match self {
            Self::Step { loss, terms, learning_rate, gradient_norm, .. } => {
                let mut scalars = vec![("train/loss".to_owned(), *loss)];
                scalars.extend(named("train", terms));
                scalars.push(("learning_rate".to_owned(), *learning_rate));
                scalars.push(("gradient_norm".to_owned(), *gradient_norm));
                scalars
            }
            Self::Validation { losses, scores, .. } => {
                [named("validation", losses), named("score", scores)].concat()
            }
        }
    }
}

/// The open record, and beside it the timings, which differ between runs.
pub(crate) struct EventLog {
    path: PathBuf,
    file: fs::File,
    timings: fs::File,
    timings_path: PathBuf,
    board: TensorBoard,
}

#[derive(Serialize, Deserialize)]
struct Timing {
    step: usize,
    seconds: f64,
    tokens: usize,
}

impl EventLog {
    /// Opens the record in `dir`, without whatever was written after `step`.
    pub(crate) fn open(dir: &Path, step: usize) -> Result<Self> {
        let (path, timings_path) = (dir.join("events.jsonl"), dir.join("timings.jsonl"));
        let is_kept = |at: usize| step > 0 && at <= step;
        let mut events: Vec<Event> = read(&path);
        events.retain(|event| is_kept(event.step()));
        write_jsonl(&path, &events)?;
        let mut timings: Vec<Timing> = read(&timings_path);
        timings.retain(|timing| is_kept(timing.step));
        write_jsonl(&timings_path, &timings)?;
        let open = |path: &Path| {
            fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(TrainError::file("open", path))
        };
        let (file, timings) = (open(&path)?, open(&timings_path)?);
        let board = TensorBoard::open(dir, step)?;
        Ok(Self { path, file, timings, timings_path, board })
    }

    pub(crate) fn write(&mut self, event: &Event) -> Result<()> {
        append_jsonl(&mut self.file, &self.path, event)?;
        self.board.write(event.step(), &event.scalars())
    }

    pub(crate) fn timing(&mut self, step: usize, seconds: f64, tokens: usize) -> Result<()> {
        let timing = Timing { step, seconds, tokens };
        append_jsonl(&mut self.timings, &self.timings_path, &timing)?;
        let rate = tokens as f64 / seconds.max(1e-9);
        self.board.write(step, &[("tokens_per_second".to_owned(), rate)])
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

/// Writes `curve.csv`: a row `step,term,value` for each number of each event.
pub(crate) fn write_csv(dir: &Path, events: &[Event]) -> Result<()> {
    let mut text = String::from("step,term,value\n");
    for event in events {
        for (term, value) in event.scalars() {
            let _ = writeln!(text, "{},{term},{value}", event.step());
        }
    }
    Ok(write_atomic(&dir.join("curve.csv"), text.as_bytes())?)
}

fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
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
        LossPoint { step, train: Some(mean), ..LossPoint::default() }
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
            Event::Validation { step, losses, scores } => {
                if !pending.is_empty() {
                    points.push(close(&mut pending, last_step));
                }
                if points.last().is_none_or(|point| point.step != *step) {
                    points.push(LossPoint { step: *step, ..LossPoint::default() });
                }
                if let Some(point) = points.last_mut() {
                    point.validation.clone_from(losses);
                    point.scores.clone_from(scores);
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
        let mut events =
            vec![Event::Validation { step: 0, losses: BTreeMap::new(), scores: BTreeMap::new() }];
        for i in 1..=1000 {
            events.push(step(i));
        }
        let losses = BTreeMap::from([("all".to_owned(), 2.0)]);
        let scores = BTreeMap::from([("security".to_owned(), 0.5)]);
        let (validation, shares) = (losses.clone(), scores.clone());
        events.push(Event::Validation { step: 1000, losses: validation, scores: shares });
        let points = curve(&events);
        assert_eq!(points.len(), 201);
        assert_eq!(points[1].train, Some(3.0)); // mean of 1 to 5
        assert_eq!((&points[200].validation, &points[200].scores), (&losses, &scores));
    }
}
