//! Many texts side by side, with continuous batching: a text that ends makes room for the next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use rayon::prelude::*;

use crate::{
    Constraint, DecodeError, DraftLength, Draws, FunctionEnd, LanguageModel, Law, Memory, Phase,
    Result, Role, Row, StopRule,
    pace::{Acceptance, Pace},
    repair::Repair,
    sequence::{Failure, Rules, Sequence, Start, TextDraws},
};

/// What a text begins with.
pub(crate) struct PromptText {
    /// Names it in errors.
    pub(crate) task: String,
    pub(crate) ids: Vec<u32>,
    /// Keys the draws.
    pub(crate) hash: [u8; 32],
    pub(crate) text: String,
    pub(crate) rule: StopRule,
}

/// A text that is to be drawn.
pub(crate) struct Request {
    pub(crate) prompt: Arc<PromptText>,
    /// The caller's number of the prompt.
    pub(crate) number: usize,
    /// The number of the sample.
    pub(crate) index: u32,
    pub(crate) phase: Phase,
    /// Tokens at most.
    pub(crate) limit: usize,
    /// A token that ends this text, beside those that end all.
    pub(crate) end: Option<u32>,
    /// It is not an import block: an oracle reads along and a form is asked for, where there is one.
    pub(crate) is_rest: bool,
}

impl Request {
    /// The random numbers of its text; `attempt` counts how often it went back.
    pub(crate) fn draws(&self, seed: u64, attempt: u32) -> TextDraws {
        let of = |role| Draws::new(seed, &self.prompt.hash, self.index, self.phase, attempt, role);
        TextDraws { text: of(Role::Text), proposal: of(Role::Proposal) }
    }
}

/// A security model, and how it and the base model choose.
pub(crate) struct Watch<'a> {
    pub(crate) model: &'a dyn LanguageModel,
    pub(crate) law: Law,
    pub(crate) draft: DraftLength,
}

/// Draws texts from one model, or from two.
pub(crate) struct Engine<'a> {
    pub(crate) base: &'a dyn LanguageModel,
    pub(crate) watch: Option<Watch<'a>>,
    pub(crate) rules: Rules<'a>,
    pub(crate) seed: u64,
    pub(crate) batch_size: usize,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) counts: &'a Counts,
    pub(crate) repair: Option<Repair<'a>>,
    /// What texts are to look like.
    pub(crate) form: Option<Constraint>,
}

/// What was done so far, all texts together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tokens: AtomicU64,
    /// Proposals judged, and accepted.
    pub(crate) proposed: AtomicU64,
    pub(crate) accepted: AtomicU64,
}

/// A prompt the models have read, but for its last token.
struct Prefix {
    base: Memory,
    security: Option<Memory>,
    /// Requests that have not begun.
    n_waiting: usize,
}

/// A text being drawn.
pub(crate) struct Active {
    pub(crate) request: Request,
    pub(crate) sequence: Sequence,
}

/// Sees texts after each round, whole or not.
pub(crate) type Watcher<'a> = &'a mut dyn FnMut(&mut Active) -> Result<()>;

impl Engine<'_> {
    /// Draws what is asked for. `on_done` takes each text when it is whole and says what is to be drawn because of it.
    pub(crate) fn run(
        &self,
        requests: Vec<Request>,
        mut on_growth: Option<Watcher>,
        on_done: &mut dyn FnMut(Active) -> Result<Vec<Request>>,
    ) -> Result<()> {
        let mut waiting = VecDeque::from(requests);
        let mut prefixes: HashMap<usize, Prefix> = HashMap::new();
        let mut active: Vec<Active> = Vec::new();
        let mut pace = Pace::new(self.watch.as_ref().map_or(DraftLength::Fixed(1), |w| w.draft));
        loop {
            let room = self.batch_size - active.len();
            let next: Vec<Request> = waiting.drain(..room.min(waiting.len())).collect();
            self.read_prompts(&next, &waiting, &mut prefixes)?;
            for request in next {
                active.push(self.begin(request, &mut prefixes));
            }
            if active.is_empty() {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(DecodeError::Stopped);
            }
            let n_before = n_drawn(&active);
            self.round(&mut active, &mut pace)?;
            self.counts.tokens.fetch_add(n_drawn(&active) - n_before, Ordering::Relaxed);
            if let Some(repair) = self.repair {
                let going = active
                    .par_iter_mut()
                    .filter(|text| text.request.is_rest && text.sequence.failure.is_none());
                going.for_each(|text| repair.look(text, self.seed, &self.rules));
            }
            if let Some(on_growth) = &mut on_growth {
                active.iter_mut().try_for_each(&mut **on_growth)?;
            }
            let (done, going): (Vec<_>, Vec<_>) =
                active.into_iter().partition(|text| text.sequence.finish.is_some());
            active = going;
            for text in done {
                match text.sequence.failure {
                    None => {}
                    Some(Failure::Form(error)) => return Err(error),
                    Some(Failure::NotFinite) => {
                        let (task, index) = (text.request.prompt.task.clone(), text.request.index);
                        let position = text.sequence.ids().len();
                        return Err(DecodeError::NotFinite { task, index, position });
                    }
                }
                for request in on_done(text)?.into_iter().rev() {
                    waiting.push_front(request);
                }
            }
        }
    }

    /// Lets the models read prompts that are new, but for each one's last token.
    fn read_prompts(
        &self,
        next: &[Request],
        later: &VecDeque<Request>,
        prefixes: &mut HashMap<usize, Prefix>,
    ) -> Result<()> {
        let mut new: Vec<(&Request, Prefix)> = Vec::new();
        for request in next {
            let key = key(request);
            if prefixes.contains_key(&key) || new.iter().any(|(other, _)| self::key(other) == key) {
                continue;
            }
            let capacity = request.prompt.ids.len() + request.limit;
            let base = self.base.memory(capacity)?;
            let security =
                self.watch.as_ref().map(|watch| watch.model.memory(capacity)).transpose()?;
            let n_waiting =
                next.iter().chain(later).filter(|other| self::key(other) == key).count();
            new.push((request, Prefix { base, security, n_waiting }));
        }
        let read = |model: &dyn LanguageModel,
                    memory: fn(&mut Prefix) -> Option<&mut Memory>,
                    new: &mut [(&Request, Prefix)]| {
            let mut rows: Vec<Row> = Vec::new();
            for (request, prefix) in new {
                let ids = &request.prompt.ids[..request.prompt.ids.len() - 1];
                if let Some(memory) = memory(prefix).filter(|_| !ids.is_empty()) {
                    rows.push(Row { memory, ids, all: false });
                }
            }
            if rows.is_empty() { Ok(()) } else { model.read(&mut rows).map(|_| ()) }
        };
        read(self.base, |prefix| Some(&mut prefix.base), &mut new)?;
        if let Some(watch) = &self.watch {
            read(watch.model, |prefix| prefix.security.as_mut(), &mut new)?;
        }
        prefixes.extend(new.into_iter().map(|(request, prefix)| (key(request), prefix)));
        Ok(())
    }

    fn begin(&self, request: Request, prefixes: &mut HashMap<usize, Prefix>) -> Active {
        let key = key(&request);
        let prefix = prefixes.get_mut(&key).expect("`read_prompts` came before");
        prefix.n_waiting -= 1;
        let sequence = Sequence::new(Start {
            prompt: &request.prompt.ids,
            draws: request.draws(self.seed, 0),
            function: FunctionEnd::new(request.prompt.rule, &request.prompt.text),
            limit: request.limit,
            end: request.end,
            form: self.form.as_ref().filter(|_| request.is_rest).map(Constraint::start),
            base: prefix.base.clone(),
            security: prefix.security.clone(),
        });
        if prefix.n_waiting == 0 {
            prefixes.remove(&key);
        }
        Active { request, sequence }
    }

    /// Adds at least one token to every text.
    fn round(&self, active: &mut [Active], pace: &mut Pace) -> Result<()> {
        let vocab_size = self.base.vocab_size();
        let Some(watch) = &self.watch else {
            let logits = self.base.read(&mut base_rows(active, false))?;
            active.par_iter_mut().zip(&logits).for_each(|(text, logits)| {
                text.sequence.step(logits, &self.rules);
            });
            return Ok(());
        };
        let texts: Vec<Acceptance> = active.iter().map(|text| text.sequence.acceptance).collect();
        let length = pace.length(&texts);
        let together = length == 1 && watch.model.weights() == self.base.weights();
        let logits = if together && !watch.law.is_speculative() {
            self.step_together(active, watch)?
        } else {
            self.draft(active, watch, length, pace)?;
            let mut rows = base_rows(active, watch.law.is_speculative());
            let n_read = rows.iter().map(|row| row.ids.len()).sum();
            let start = Instant::now();
            let logits = self.base.read(&mut rows)?;
            pace.base_pass(n_read, start.elapsed());
            logits
        };
        let before: Vec<(u32, u32)> = active.iter().map(judged).collect();
        active
            .par_iter_mut()
            .zip(&logits)
            .filter(|(text, _)| text.sequence.finish.is_none())
            .for_each(|(text, logits)| {
                text.sequence.judge(logits, vocab_size, &watch.law, &self.rules);
            });
        for (text, (proposed, accepted)) in active.iter().zip(before) {
            let (now_proposed, now_accepted) = judged(text);
            let n_accepted = now_accepted - accepted;
            self.counts.proposed.fetch_add(u64::from(now_proposed - proposed), Ordering::Relaxed);
            self.counts.accepted.fetch_add(u64::from(n_accepted), Ordering::Relaxed);
            for i in 0..now_proposed - proposed {
                pace.judged(i < n_accepted);
            }
        }
        Ok(())
    }

    /// Lets the security model propose up to `length` tokens for every text.
    fn draft(
        &self,
        active: &mut [Active],
        watch: &Watch,
        length: usize,
        pace: &mut Pace,
    ) -> Result<()> {
        loop {
            let mut going: Vec<&mut Active> = active
                .iter_mut()
                .filter(|text| text.sequence.may_propose(length, self.rules.stops))
                .collect();
            if going.is_empty() {
                return Ok(());
            }
            let mut rows: Vec<Row> =
                going.iter_mut().filter_map(|text| text.sequence.security_row()).collect();
            let n_read = rows.len();
            let start = Instant::now();
            let logits = watch.model.read(&mut rows)?;
            pace.security_pass(n_read, start.elapsed());
            going.par_iter_mut().zip(&logits).for_each(|(text, logits)| {
                text.sequence.propose(self.shared_part(logits), &watch.law);
            });
        }
    }

    /// One proposal a text where both models have the same weights: their rows in one pass. Returns the base's logits.
    fn step_together(&self, active: &mut [Active], watch: &Watch) -> Result<Vec<Vec<f32>>> {
        let mut rows: Vec<Row> = Vec::with_capacity(2 * active.len());
        for text in active.iter_mut() {
            rows.extend(text.sequence.both_rows());
        }
        let mut logits = self.base.read(&mut rows)?.into_iter();
        let mut base = Vec::with_capacity(active.len());
        for text in active.iter_mut() {
            let security = logits.next().unwrap_or_default();
            text.sequence.propose(&security, &watch.law);
            base.push(logits.next().unwrap_or_default());
        }
        Ok(base)
    }

    /// Logits of the security model for tokens the base model has too. Padding of vocabularies differs.
    fn shared_part<'l>(&self, logits: &'l [f32]) -> &'l [f32] {
        &logits[..logits.len().min(self.base.vocab_size())]
    }
}

fn key(request: &Request) -> usize {
    Arc::as_ptr(&request.prompt) as usize
}

fn base_rows(active: &mut [Active], bonus: bool) -> Vec<Row<'_>> {
    active.iter_mut().map(|text| text.sequence.base_row(bonus)).collect()
}

fn judged(text: &Active) -> (u32, u32) {
    (text.sequence.n_proposed, text.sequence.n_accepted)
}

fn n_drawn(active: &[Active]) -> u64 {
    active.iter().map(|text| text.sequence.n_drawn).sum()
}

#[cfg(test)]
mod tests;
