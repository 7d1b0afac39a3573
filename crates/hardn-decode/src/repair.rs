//! The oracle in the loop: what was written is judged statement by statement, and a flagged statement is written again.

use serde::{Deserialize, Serialize};

use crate::{
    engine::Active,
    sequence::{Redo, Rules},
};

/// Finds weaknesses in a text that is being written.
pub trait Inspector: Send + Sync {
    /// Where the first weakness of the completion begins, in bytes from the completion's start, among those that begin
    /// at `from` or later. What the prompt has is not the completion's. `task` is [`hardn_types::Prompt::task`].
    fn inspect(&self, task: &str, prompt: &str, completion: &str, from: usize) -> Option<usize>;
}

/// Where a flagged text goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// At the beginning of the line in which the weakness begins.
    #[default]
    Statement,
    /// At the token with which it begins.
    Token,
}

/// What is different the next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Other random numbers.
    #[default]
    Resample,
    /// These, and the first token must be another one.
    Exclude,
    /// The security model writes the statement alone.
    Security,
}

/// The section `[repair]` of a decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepairConfig {
    /// Where a flagged text goes on.
    pub back: Back,
    /// What is different then.
    pub by: By,
    /// How often one place is written again before it stays as it is.
    pub attempts: u32,
    /// How often a whole text may go back.
    pub budget: u32,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self { back: Back::default(), by: By::default(), attempts: 4, budget: 16 }
    }
}

impl RepairConfig {
    pub(crate) fn problem(&self, co_decoding: bool) -> Option<String> {
        if self.attempts == 0 || self.budget == 0 {
            Some("`attempts` and `budget` of [repair] must be at least 1".to_owned())
        } else if self.by == By::Security && !co_decoding {
            Some("`by = \"security\"` of [repair] needs a section [co_decoding]".to_owned())
        } else {
            None
        }
    }
}

/// Who judges, and what is done then.
#[derive(Clone, Copy)]
pub(crate) struct Repair<'a> {
    pub(crate) config: &'a RepairConfig,
    pub(crate) inspector: &'a dyn Inspector,
}

/// How far a text was judged, and what was done about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of the text that were judged.
    pub(crate) judged: usize,
    /// Weaknesses that begin before stay.
    settled: usize,
    /// How often the text went back.
    pub(crate) n_repairs: u32,
    /// The token to which it last went back, and how often it did so running.
    place: (usize, u32),
}

impl Repair<'_> {
    /// Judges what is new in a text, line by line as if it had come token by token, and sends it back at the first
    /// weakness.
    pub(crate) fn look(&self, text: &mut Active, seed: u64, rules: &Rules) {
        loop {
            let sequence = &text.sequence;
            let written = sequence.stream.text();
            let progress = &sequence.repair;
            let line = written[progress.judged..].find('\n').map(|at| progress.judged + at + 1);
            let end = match (line, sequence.finish) {
                (Some(end), _) => end,
                (None, Some(_)) if progress.judged < written.len() => written.len(),
                _ => return,
            };
            let prompt = &text.request.prompt;
            let found = self.inspector.inspect(
                &prompt.task,
                &prompt.text,
                &written[..end],
                progress.settled,
            );
            match found {
                None => text.sequence.repair.judged = end,
                Some(at) if self.may_go_back(text, at) => {
                    self.go_back(text, at, seed, rules);
                    return;
                }
                Some(at) => text.sequence.repair.settled = at + 1,
            }
        }
    }

    fn may_go_back(&self, text: &Active, at: usize) -> bool {
        let progress = &text.sequence.repair;
        let (place, times) = progress.place;
        let tried = if place == self.target(text, at) { times } else { 0 };
        progress.n_repairs < self.config.budget && tried < self.config.attempts
    }

    /// The first token to be written again.
    fn target(&self, text: &Active, at: usize) -> usize {
        let stream = &text.sequence.stream;
        let written = stream.text();
        match self.config.back {
            Back::Token => stream.token_at(at),
            Back::Statement => {
                let line = written[..at.min(written.len())].rfind('\n').map_or(0, |at| at + 1);
                // The line's end and the next one's indent are often one token.
                let token = stream.token_at(line);
                token + usize::from(stream.token_start(token) < line)
            }
        }
    }

    fn go_back(&self, text: &mut Active, at: usize, seed: u64, rules: &Rules) {
        let target = self.target(text, at);
        let start = text.sequence.stream.token_start(target);
        let progress = &mut text.sequence.repair;
        progress.settled = progress.settled.min(start);
        progress.n_repairs += 1;
        let (place, times) = progress.place;
        progress.place = (target, if place == target { times + 1 } else { 1 });
        let attempt = progress.n_repairs;
        let redo = match self.config.by {
            By::Resample => Redo::Freely,
            By::Exclude => Redo::OtherToken,
            By::Security => Redo::BySecurity,
        };
        let draws = text.request.draws(seed, attempt);
        text.sequence.rewind(target, draws, redo, rules);
    }
}
