//! The only place that prints: results on standard output, everything else on standard error.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    path::Path,
    time::{Duration, Instant},
};

use hardn_types::write_atomic;
use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{Context, Failure, Outcome};

/// One line for people, on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stderr().lock(), "{line}");
}

/// Text for standard output. A reader that closed the pipe is not an error.
pub(crate) fn put(text: &str) -> Outcome {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => {
            other.map_err(|error| Failure::new(format!("cannot write to standard output: {error}")))
        }
    }
}

/// Text for a file, or for standard output. A file is there whole or not at all; what is no file is written to.
pub(crate) fn put_to(file: Option<&Path>, text: &str) -> Outcome {
    let Some(path) = file else { return put(text) };
    if path.exists() && !path.is_file() {
        return std::fs::write(path, text).context(format!("cannot write {}", path.display()));
    }
    Ok(write_atomic(path, text.as_bytes())?)
}

/// One JSON line on standard output.
pub(crate) fn put_json<T: Serialize>(value: &T) -> Outcome {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    put(&line)
}

/// The unit that is shown as kB, MB and GB.
pub(crate) const BYTES: &str = "bytes";

/// A progress bar with rate and time left; plain lines every few seconds where standard error is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    name: String,
    unit: &'static str,
    started: Instant,
    first: u64,
    last_line: Instant,
    plain: bool,
}

impl Progress {
    pub(crate) fn new(name: &str, unit: &'static str, total: u64, quiet: bool) -> Self {
        let plain = !stderr().is_terminal();
        let bar = ProgressBar::new(total);
        if plain || quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = if unit == BYTES {
            "{prefix:<22} {bar:28} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} left {eta} {msg}"
        } else {
            "{prefix:<22} {bar:28} {pos}/{len} {per_sec} left {eta} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(name.to_owned());
        let (name, now) = (name.to_owned(), Instant::now());
        Self { bar, name, unit, started: now, first: 0, last_line: now, plain: plain && !quiet }
    }

    /// Where a resumed job starts; so that the rate counts only what is done now.
    pub(crate) fn start_at(&mut self, done: u64) {
        self.first = done;
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    pub(crate) fn set(&mut self, done: u64, message: &str) {
        self.bar.set_position(done);
        self.bar.set_message(message.to_owned());
        if self.plain && self.last_line.elapsed() > Duration::from_secs(10) {
            self.last_line = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            let rate = (done - self.first.min(done)) as f64 / self.started.elapsed().as_secs_f64();
            let left = total.saturating_sub(done) as f64 / rate;
            let left = if left.is_finite() { format!("{left:.0} s left") } else { String::new() };
            let amounts = if self.unit == BYTES {
                let rate = DecimalBytes(rate as u64);
                format!("{}/{}, {rate}/s", DecimalBytes(done), DecimalBytes(total))
            } else {
                format!("{done}/{total} {}, {rate:.1}/s", self.unit)
            };
            say(&format!("{}: {amounts}, {left} {message}", self.name));
        }
    }

    /// What is being done, where nothing is counted.
    pub(crate) fn message(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// A line for people, above the bar.
    pub(crate) fn note(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Leaves nothing behind.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub(crate) fn finish(self, message: &str) {
        self.bar.finish_and_clear();
        if self.plain || !self.bar.is_hidden() {
            let seconds = self.started.elapsed().as_secs_f64();
            say(&format!("{}: {message} ({seconds:.1} s)", self.name));
        }
    }
}
