//! Runs what is missing of a sweep, several processes at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hardn_types::write_atomic;
use serde::{Deserialize, Serialize};

use super::config::{Cell, Sweep};
use crate::{
    device,
    failure::{Failure, Outcome},
    limits,
    output::Progress,
    stop,
};

/// How long a run may take to finish its step after it was asked to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellState {
    Missing,
    Begun,
    /// Its folder holds a run of other settings, to be thrown away.
    Outdated,
    Done,
}

impl CellState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Begun => "begun",
            Self::Outdated => "outdated",
            Self::Done => "done",
        }
    }
}

/// A run that came to no end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FailedCell {
    pub(crate) arm: String,
    pub(crate) seed: u64,
    pub(crate) message: String,
}

/// Where a cell's run is.
pub(crate) fn cell_folder(out: &Path, cell: &Cell) -> PathBuf {
    out.join("runs").join(&cell.arm).join(format!("seed-{}", cell.seed))
}

fn beside(folder: &Path, extension: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(extension);
    folder.with_file_name(name)
}

pub(crate) struct Runner<'a> {
    pub(crate) sweep: &'a Sweep,
    pub(crate) out: &'a Path,
    pub(crate) jobs: usize,
    pub(crate) quiet: bool,
}

struct Running {
    index: usize,
    child: Child,
    asked: Option<Instant>,
}

impl Runner<'_> {
    /// How far each run is. A folder with a run of other settings is an error unless `fresh`.
    pub(crate) fn states(&self, fresh: bool) -> Outcome<Vec<CellState>> {
        let state = |cell: &Cell| {
            let folder = cell_folder(self.out, cell);
            let Ok(there) = fs::read_to_string(beside(&folder, ".toml")) else {
                return Ok(CellState::Missing);
            };
            if there == toml::to_string(&cell.config)? {
                let is_done = folder.join("metrics.json").exists();
                return Ok(if is_done { CellState::Done } else { CellState::Begun });
            }
            if fresh {
                return Ok(CellState::Outdated);
            }
            Err(Failure::new(format!("{} holds a run of other settings", folder.display()))
                .help("choose another folder with --out, or throw such runs away with --fresh"))
        };
        self.sweep.cells.iter().map(state).collect()
    }

    /// Runs what is not done; returns the runs that failed.
    pub(crate) fn run(&self, states: &[CellState]) -> Outcome<Vec<FailedCell>> {
        let cells = &self.sweep.cells;
        let mut done: Vec<bool> = states.iter().map(|&state| state == CellState::Done).collect();
        let mut ended = done.clone();
        let mut waiting: Vec<usize> = (0..cells.len()).filter(|&i| !done[i]).collect();
        let mut failed: Vec<FailedCell> = Vec::new();
        let mut running: Vec<Running> = Vec::new();
        let mut progress = Progress::new("runs", "runs", cells.len() as u64, self.quiet);
        let count = |done: &[bool]| done.iter().filter(|&&done| done).count() as u64;
        progress.start_at(count(&done));
        while !(waiting.is_empty() && running.is_empty()) {
            if stop::requested() {
                waiting.clear();
            }
            // Those of a seed wait for its first arm's run, to take over what it sampled.
            let is_open = |first: &Cell, i: usize| first.is_first && first.seed == cells[i].seed;
            let first_runs = |i| cells.iter().zip(&ended).any(|(c, ended)| is_open(c, i) && !ended);
            let ready = |&i: &usize| cells[i].is_first || !first_runs(i);
            while running.len() < self.jobs
                && let Some(place) = waiting.iter().position(ready)
            {
                let index = waiting.remove(place);
                let child = self.start(&cells[index], states[index])?;
                running.push(Running { index, child, asked: None });
            }
            let mut still = Vec::new();
            for mut run in running {
                let cell = &cells[run.index];
                let Some(status) = run.child.try_wait()? else {
                    run.stop_if_asked();
                    still.push(run);
                    continue;
                };
                ended[run.index] = true;
                if status.success() {
                    done[run.index] = true;
                } else if !stop::requested() {
                    failed.push(self.failure(cell, &status.to_string()));
                }
            }
            running = still;
            let names = running.iter().map(|run| {
                let cell = &cells[run.index];
                format!("{} seed {}", cell.arm, cell.seed)
            });
            progress.set(count(&done), &names.collect::<Vec<_>>().join(", "));
            thread::sleep(Duration::from_millis(50));
        }
        if stop::requested() {
            progress.clear();
            return Err(Failure::interrupted(format!(
                "{} of {} runs are done; run the same command to go on",
                count(&done),
                cells.len()
            )));
        }
        progress.finish(&format!("{} of {}", count(&done), cells.len()));
        Ok(failed)
    }

    fn start(&self, cell: &Cell, state: CellState) -> Outcome<Child> {
        let folder = cell_folder(self.out, cell);
        let config = beside(&folder, ".toml");
        let is_outdated = state == CellState::Outdated;
        if is_outdated && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        write_atomic(&config, toml::to_string(&cell.config)?.as_bytes())?;
        let log = fs::File::create(beside(&folder, ".log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("harden").arg(&config).arg("--out").arg(&folder);
        command.args(["--quiet", "--json", "--stop-at-eof"]);
        command.args(["--device", device::chosen_name()]);
        if limits::weaker_is_allowed() {
            command.arg("--allow-weaker-sandbox");
        }
        let first = self.sweep.cells.iter().find(|c| c.is_first && c.seed == cell.seed);
        if let Some(first) = first.filter(|_| !cell.is_first) {
            let first = cell_folder(self.out, first);
            if first.join("metrics.json").exists() {
                command.arg("--reuse").arg(first);
            }
        }
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads = cores.div_ceil(self.jobs).max(1);
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        Ok(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn()?)
    }

    fn failure(&self, cell: &Cell, status: &str) -> FailedCell {
        let log = beside(&cell_folder(self.out, cell), ".log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let from = text.find("error:").unwrap_or(0);
        let said = text[from..].trim();
        let message = if said.is_empty() { status.to_owned() } else { said.to_owned() };
        FailedCell { arm: cell.arm.clone(), seed: cell.seed, message }
    }
}

impl Running {
    /// Closing its input asks the run to finish its step and save; one that does not is killed, and goes on later all
    /// the same.
    fn stop_if_asked(&mut self) {
        if !stop::requested() {
            return;
        }
        drop(self.child.stdin.take());
        let asked = *self.asked.get_or_insert_with(Instant::now);
        if asked.elapsed() > PATIENCE {
            let _ = self.child.kill();
        }
    }
}
