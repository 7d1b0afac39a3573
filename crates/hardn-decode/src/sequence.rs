//! One text while it is being drawn.

use std::borrow::Cow;

use hardn_models::Tokenizer;
use hardn_types::FinishReason;

use crate::{
    AllowedTokens, ConstraintState, DecodeError, Draws, FunctionEnd, Law, Memory, Row, Sampling,
    Stops, TextStream, distribution, draw, log_prob, pace::Acceptance,
};

/// What a token's bytes are.
pub trait Vocabulary: Sync {
    /// The bytes a token adds to the text.
    fn token_bytes(&self, id: u32) -> &[u8];
}

impl Vocabulary for Tokenizer {
    fn token_bytes(&self, id: u32) -> &[u8] {
        Self::token_bytes(self, id)
    }
}

/// Who chose a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The model whose text it is.
    Base,
    /// The security model, and the base model let it stand.
    Security,
}

impl Author {
    /// As it stands in `hardn complete --json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Security => "security",
        }
    }

    /// As it stands in [`hardn_types::Sample::authors`].
    pub fn letter(self) -> char {
        match self {
            Self::Base => 'b',
            Self::Security => 's',
        }
    }

    /// The author of a letter.
    pub(crate) fn of_letter(letter: char) -> Self {
        if letter == 's' { Self::Security } else { Self::Base }
    }
}

/// What all texts of a generator share.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) vocabulary: &'a dyn Vocabulary,
    pub(crate) sampling: &'a Sampling,
    pub(crate) stops: &'a Stops,
}

/// A token the security model proposed.
struct Proposal {
    id: u32,
    /// Natural log-probability under the distribution it was drawn from.
    log_prob: f64,
    /// That distribution, where the law asks for it.
    kept: Vec<(u32, f64)>,
}

/// The random numbers of a text, by role.
#[derive(Clone, Copy)]
pub(crate) struct TextDraws {
    pub(crate) text: Draws,
    pub(crate) proposal: Draws,
}

/// Where a text begins, and how far it may go.
pub(crate) struct Start<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) draws: TextDraws,
    pub(crate) function: FunctionEnd,
    /// Tokens at most.
    pub(crate) limit: usize,
    /// A token that ends this text, beside those that end all.
    pub(crate) end: Option<u32>,
    /// What the text is to look like.
    pub(crate) form: Option<ConstraintState>,
    /// Holds the prompt but for its last token.
    pub(crate) base: Memory,
    /// The same, of the security model.
    pub(crate) security: Option<Memory>,
}

/// Why a text cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A model's logits were not finite.
    NotFinite,
    /// Its form allows no token.
    Form(DecodeError),
}

/// How a text goes on that was sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redo {
    /// By its draws alone.
    Freely,
    /// Not with the token that stood there.
    OtherToken,
    /// As the security model writes, to the end of the line.
    BySecurity,
}

pub(crate) struct Sequence {
    /// Each memory holds a beginning of `context`, all but its newest token between two rounds.
    pub(crate) base: Memory,
    pub(crate) security: Option<Memory>,
    pub(crate) finish: Option<FinishReason>,
    /// Why it cannot go on.
    pub(crate) failure: Option<Failure>,
    pub(crate) log_probs: Vec<f32>,
    pub(crate) authors: Vec<Author>,
    pub(crate) stream: TextStream,
    pub(crate) acceptance: Acceptance,
    /// Proposals judged, and accepted.
    pub(crate) n_proposed: u32,
    pub(crate) n_accepted: u32,
    /// Tokens drawn, those that were taken back included.
    pub(crate) n_drawn: u64,
    pub(crate) repair: crate::repair::Progress,
    /// What a place must not have: index of the generated token, and ids.
    excluded: (usize, Vec<u32>),
    /// The wanted form, with all tokens of `context` after the prompt.
    form: Option<ConstraintState>,
    /// The security model writes alone up to the next line's end.
    unwatched: bool,
    /// Prompt and text, then drafted tokens while a draft is made.
    context: Vec<u32>,
    n_prompt: usize,
    drafts: Vec<Proposal>,
    /// As it was before the first generated character.
    opening: FunctionEnd,
    function: FunctionEnd,
    draws: TextDraws,
    limit: usize,
    end: Option<u32>,
}

impl Sequence {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            base: start.base,
            security: start.security,
            finish: None,
            failure: None,
            log_probs: Vec::new(),
            authors: Vec::new(),
            stream: TextStream::default(),
            acceptance: Acceptance::default(),
            n_proposed: 0,
            n_accepted: 0,
            n_drawn: 0,
            repair: crate::repair::Progress::default(),
            excluded: (0, Vec::new()),
            form: start.form,
            unwatched: false,
            context: start.prompt.to_vec(),
            n_prompt: start.prompt.len(),
            drafts: Vec::new(),
            opening: start.function.clone(),
            function: start.function,
            draws: start.draws,
            limit: start.limit,
            end: start.end,
        }
    }

    /// Generated tokens, without the end of text.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.context[self.n_prompt..self.context.len() - self.drafts.len()]
    }

    /// The random numbers it is drawn with.
    #[cfg(test)]
    pub(crate) fn draws(&self) -> TextDraws {
        self.draws
    }

    /// Tokens that may still come.
    pub(crate) fn room(&self) -> usize {
        self.limit - self.ids().len()
    }

    /// For the base model to read: what it has not read, without a draft's last token: what follows it is judged when
    /// there is a proposal. Where the base model goes on alone after a draft (`bonus`) that one too.
    pub(crate) fn base_row(&mut self, bonus: bool) -> Row<'_> {
        let end = self.context.len() - if bonus { 0 } else { self.drafts.len().min(1) };
        let ids = &self.context[self.base.len()..end];
        Row { memory: &mut self.base, ids, all: ids.len() > 1 }
    }

    /// For the security model to read: what it has not read, the draft so far included.
    pub(crate) fn security_row(&mut self) -> Option<Row<'_>> {
        let memory = self.security.as_mut()?;
        let ids = &self.context[memory.len()..];
        Some(Row { memory, ids, all: false })
    }

    /// The rows of the security model and of the base model before any draft.
    pub(crate) fn both_rows(&mut self) -> impl Iterator<Item = Row<'_>> {
        let Self { base, security, context, .. } = self;
        security.iter_mut().chain([base]).map(|memory| {
            let ids = &context[memory.len()..];
            Row { memory, ids, all: false }
        })
    }

    /// Draws the next token from the base model's logits, `[vocab_size]`.
    pub(crate) fn step(&mut self, logits: &[f32], rules: &Rules) {
        if self.breaks(logits) {
            return;
        }
        let Some(allowed) = self.allowed(logits) else { return };
        let kept = distribution(&allowed, &self.context, rules.sampling);
        let id = draw(&kept, self.draws.text.uniform(self.ids().len() as u64));
        self.commit(id, Author::Base, logits, rules);
    }

    /// Lets the security model propose one more token, from its logits, `[vocab_size]`.
    pub(crate) fn propose(&mut self, logits: &[f32], law: &Law) {
        if self.breaks(logits) {
            return;
        }
        let Some(logits) = self.allowed(logits) else { return };
        let logits = &*logits;
        let kept = distribution(logits, &self.context, &law.security);
        let index = self.context.len() - self.n_prompt;
        let id = draw(&kept, self.draws.proposal.uniform(index as u64));
        let log_prob = log_prob_in(&kept, logits, &law.security, id);
        let kept = if law.is_speculative() { kept } else { Vec::new() };
        self.drafts.push(Proposal { id, log_prob, kept });
        self.context.push(id);
        self.follow_form(id);
    }

    /// A further proposal makes sense: the draft is shorter than `length`, may still grow and has not ended the text.
    pub(crate) fn may_propose(&self, length: usize, stops: &Stops) -> bool {
        let ended = self.drafts.last().is_some_and(|draft| self.ends(draft.id, stops));
        self.finish.is_none() && self.drafts.len() < length.min(self.room()) && !ended
    }

    fn ends(&self, id: u32, stops: &Stops) -> bool {
        stops.tokens.contains(&id) || self.end == Some(id)
    }

    /// Judges the draft in order, up to the first proposal that is not accepted and is replaced. `logits` are the base
    /// model's, `[rows, vocab_size]`; the last rows stand before the proposals, and where the base model has read the
    /// whole draft, one after them.
    pub(crate) fn judge(&mut self, logits: &[f32], vocab_size: usize, law: &Law, rules: &Rules) {
        let drafts = std::mem::take(&mut self.drafts);
        self.context.truncate(self.context.len() - drafts.len());
        self.take_back(drafts.len());
        let bonus = law.is_speculative();
        let first = logits.len() / vocab_size - drafts.len() - usize::from(bonus);
        let mut rows = logits.chunks_exact(vocab_size).skip(first);
        let mut all_accepted = true;
        for (proposal, logits) in drafts.iter().zip(&mut rows) {
            all_accepted = self.judge_one(proposal, logits, law, rules);
            if !all_accepted || self.finish.is_some() {
                break;
            }
        }
        if let Some(logits) = rows.next().filter(|_| all_accepted && self.finish.is_none()) {
            self.step(logits, rules);
        }
        self.forget_beyond(self.context.len() - 1);
    }

    /// Says whether the proposal was accepted.
    fn judge_one(&mut self, proposal: &Proposal, logits: &[f32], law: &Law, rules: &Rules) -> bool {
        if self.breaks(logits) {
            return false;
        }
        let Some(allowed) = self.allowed(logits) else { return false };
        let u = self.draws.text.uniform(self.ids().len() as u64);
        let kept = law.ratio.changes().then(|| distribution(&allowed, &self.context, &law.ratio));
        let log_base =
            log_prob_in(kept.as_deref().unwrap_or_default(), &allowed, &law.ratio, proposal.id);
        let accepted = self.unwatched || law.accepts(proposal.log_prob, log_base, u);
        self.acceptance.add(accepted);
        self.n_proposed += 1;
        if accepted {
            self.n_accepted += 1;
            let author = if law.is_speculative() { Author::Base } else { Author::Security };
            self.commit(proposal.id, author, logits, rules);
        } else {
            let own = distribution(&allowed, &self.context, &law.redraw);
            let id = law.redraw(&proposal.kept, &own, log_base - proposal.log_prob, u);
            self.commit(id, Author::Base, logits, rules);
        }
        accepted
    }

    /// Goes back to the first `n` generated tokens. With other draws than before the text goes on differently.
    pub(crate) fn rewind(&mut self, n: usize, draws: TextDraws, redo: Redo, rules: &Rules) {
        self.take_back(self.context.len() - self.n_prompt - n);
        self.drafts.clear();
        let old = self.context[self.n_prompt..].get(n).copied();
        self.context.truncate(self.n_prompt + n);
        self.log_probs.truncate(n);
        self.authors.truncate(n);
        self.draws = draws;
        self.finish = None;
        self.unwatched = redo == Redo::BySecurity;
        if self.excluded.0 != n || redo != Redo::OtherToken {
            self.excluded = (n, Vec::new());
        }
        self.excluded.1.extend(old.filter(|_| redo == Redo::OtherToken));
        self.stream = TextStream::default();
        self.function = self.opening.clone();
        for id in &self.context[self.n_prompt..] {
            self.function.feed(self.stream.push(rules.vocabulary.token_bytes(*id)));
        }
        self.repair.judged = self.repair.judged.min(self.stream.text().len());
        self.forget_beyond(self.context.len() - 1);
    }

    /// The logits for a place, without what it must not have; none where nothing is left.
    fn allowed<'l>(&mut self, logits: &'l [f32]) -> Option<Cow<'l, [f32]>> {
        let place = self.context.len() - self.n_prompt;
        let excludes = self.excluded.0 == place && !self.excluded.1.is_empty();
        if self.form.is_none() && !excludes {
            return Some(Cow::Borrowed(logits));
        }
        let mut logits = logits.to_vec();
        if let Some(form) = &mut self.form {
            let mut allowed = AllowedTokens::default();
            if let Err(error) = form.allow(&mut allowed) {
                self.fail(Failure::Form(error));
                return None;
            }
            for (id, logit) in logits.iter_mut().enumerate() {
                if !allowed.contains(id as u32) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let is_possible = |logits: &[f32]| logits.iter().any(|logit| *logit > f32::NEG_INFINITY);
        if excludes {
            let mut fewer = logits.clone();
            for id in &self.excluded.1 {
                fewer[*id as usize] = f32::NEG_INFINITY;
            }
            // Where the form leaves no other token, the same one comes again.
            if is_possible(&fewer) {
                logits = fewer;
            }
        }
        Some(Cow::Owned(logits))
    }

    /// Adds a token to the wanted form's state.
    fn follow_form(&mut self, id: u32) {
        if let Some(form) = &mut self.form
            && let Err(error) = form.push(id)
        {
            self.fail(Failure::Form(error));
        }
    }

    /// Takes tokens back from the wanted form's state.
    fn take_back(&mut self, n: usize) {
        if let Some(form) = &mut self.form
            && let Err(error) = form.rollback(n)
        {
            self.fail(Failure::Form(error));
        }
    }

    /// Nothing can follow in the wanted form.
    fn is_complete(&mut self) -> bool {
        let is_over = self.form.as_mut().map(ConstraintState::is_over);
        match is_over {
            None => false,
            Some(Ok(is_over)) => is_over,
            Some(Err(error)) => {
                self.fail(Failure::Form(error));
                false
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.finish = Some(FinishReason::Stop);
    }

    fn forget_beyond(&mut self, n: usize) {
        self.base.truncate(n);
        if let Some(security) = &mut self.security {
            security.truncate(n);
        }
    }

    /// Adds a token and finds out whether the text ends with it. `logits` are the base model's.
    fn commit(&mut self, id: u32, author: Author, logits: &[f32], rules: &Rules) {
        if self.ends(id, rules.stops) {
            self.finish = Some(FinishReason::Stop);
            return;
        }
        self.context.push(id);
        self.follow_form(id);
        self.n_drawn += 1;
        self.log_probs.push(log_prob(logits, id) as f32);
        self.authors.push(author);
        let seen = self.stream.text().len();
        self.unwatched &= !rules.vocabulary.token_bytes(id).contains(&b'\n');
        let ended = self.function.feed(self.stream.push(rules.vocabulary.token_bytes(id)));
        let stopped = rules.stops.find(self.stream.text(), seen);
        if let Some(end) = ended.into_iter().chain(stopped).min() {
            self.stream.cut(end);
            self.finish = Some(FinishReason::Stop);
        } else if self.is_complete() {
            self.finish = Some(FinishReason::Stop);
        } else if self.room() == 0 {
            self.finish = Some(FinishReason::Length);
        }
    }

    /// Ends the text where a model gave what is not a number.
    fn breaks(&mut self, logits: &[f32]) -> bool {
        let broken = !logits.iter().all(|logit| logit.is_finite());
        if broken {
            self.fail(Failure::NotFinite);
        }
        broken
    }
}

/// A token's natural log-probability under a warped distribution that is at hand, or of the raw one.
fn log_prob_in(kept: &[(u32, f64)], logits: &[f32], sampling: &Sampling, id: u32) -> f64 {
    if !sampling.changes() {
        return log_prob(logits, id);
    }
    let found = kept.binary_search_by_key(&id, |&(id, _)| id);
    found.map_or(f64::NEG_INFINITY, |index| kept[index].1.ln())
}
