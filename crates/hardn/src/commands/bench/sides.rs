//! Training steps of hardn and of a peer in turns, each in a process of its own: time and memory.

use std::process::Command;

use serde_json::Value;

use super::{Row, median, peer::Peer};
use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
};

/// Steps that warm caches and pools on both sides.
pub(super) const WARM: usize = 2;

/// How far the losses of one step may be apart, relatively: both sides compute in f32.
const TOLERANCE: f64 = 1e-4;

pub(super) struct Sides {
    /// Ours, and the peer's.
    processes: [Option<Peer>; 2],
    n_steps: usize,
    /// Seconds of every step that is not for warming.
    taken: [Vec<f64>; 2],
    peaks: [f64; 2],
    /// Of the last step.
    losses: [f64; 2],
}

impl Sides {
    /// Starts both sides with the same `setup`; the peer, which runs `script`, only where there is a Python for it.
    pub(super) fn start(args: &BenchArgs, script: &str, setup: &Value) -> Outcome<Self> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
        let mut command = Command::new(own);
        command.args(["bench", "--worker"]);
        let ours = Peer::start(command, setup)?;
        let theirs = args.peer_python.as_deref().map(|python| {
            let mut command = Command::new(python);
            command.args(["-c", script]);
            Peer::start(command, setup)
        });
        Ok(Self {
            processes: [Some(ours), theirs.transpose()?],
            n_steps: 0,
            taken: Default::default(),
            peaks: [f64::NAN; 2],
            losses: [f64::NAN; 2],
        })
    }

    /// One step on each side.
    pub(super) fn step(&mut self, question: &Value) -> Outcome {
        for (i, side) in self.processes.iter_mut().enumerate() {
            let Some(side) = side else { continue };
            let answer = side.ask(question)?;
            let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
            self.peaks[i] = number("peak_kib") / 1024.0;
            self.losses[i] = number("loss");
            if self.n_steps >= WARM {
                self.taken[i].push(number("seconds"));
            }
        }
        self.n_steps += 1;
        Ok(())
    }

    /// Both sides found the same loss in the last step.
    ///
    /// # Errors
    /// They did not.
    pub(super) fn agree(&self, what: &str) -> Outcome {
        let [ours, theirs] = self.losses;
        let is_near = (ours - theirs).abs() <= TOLERANCE * theirs.abs();
        if self.processes[1].is_none() || is_near {
            return Ok(());
        }
        Err(Failure::new(format!("{what}: the loss of step {} is {ours}, the peer's {theirs}", self.n_steps))
            .help("times of different computations say nothing; is the peer's transformers the version scripts/peers.sh names?"))
    }

    /// Time and memory.
    pub(super) fn rows(self, what: &str) -> Vec<Row> {
        let torch = self.processes[1].as_ref().and_then(|peer| peer.facts["torch"].as_str());
        let torch = torch.unwrap_or("?");
        let row = |what: String, [ours, peer]: [f64; 2], unit: &str| Row {
            what,
            ours: format!("{ours:.0} {unit}"),
            peer: if peer.is_nan() {
                "not measured: give --peer-python".to_owned()
            } else {
                format!("{peer:.0} {unit}, PyTorch {torch}")
            },
            ratio: if peer.is_nan() { "–".to_owned() } else { format!("{:.2}", ours / peer) },
        };
        let times = self.taken.map(|seconds| 1e3 * median(seconds));
        vec![
            row(what.to_owned(), times, "ms"),
            row(format!("{what}: peak memory"), self.peaks, "MiB"),
        ]
    }
}
