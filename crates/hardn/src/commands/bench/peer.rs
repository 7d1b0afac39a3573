//! A process that does one step for each line it is given: a Python peer, or hardn itself.

use std::{
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// What the Python peers of training run.
pub(super) const TRAIN_STEP: &str = include_str!("../../../../../bench/peer_train_step.py");

pub(in crate::commands) struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The first answer.
    pub(super) facts: Value,
}

impl Peer {
    pub(in crate::commands) fn start(mut command: Command, setup: &Value) -> Outcome<Self> {
        let name = command.get_program().display().to_string();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start {name}: {error}")))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::new("the peer has no pipes"));
        };
        let mut peer = Self { process, input, output: BufReader::new(output), facts: Value::Null };
        peer.facts = peer.ask(setup)?;
        Ok(peer)
    }

    pub(in crate::commands) fn ask(&mut self, question: &Value) -> Outcome<Value> {
        let lost = |_| {
            Failure::new("the peer ended").help(
                "does its Python have torch, transformers and peft? scripts/peers.sh makes one",
            )
        };
        writeln!(self.input, "{question}").map_err(lost)?;
        self.input.flush().map_err(lost)?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(lost)?;
        serde_json::from_str(&line).map_err(|_| lost(std::io::Error::other("no answer")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
