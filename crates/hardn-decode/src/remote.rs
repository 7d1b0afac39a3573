//! Co-decoding with the base model behind an OpenAI-compatible server.
//!
//! Algorithm 1 asks two things of the base model: how likely a proposal is to it, and a token of its own where the
//! proposal is not accepted. A server that scores given tokens answers the first for a whole draft in one request, and
//! draws the second at temperature 1. Where neither is warped (presets `cosec-released` and `cosec-algorithm1`), the
//! text follows Algorithm 1's law exactly.
//!
//! Otherwise the base model is known by its k likeliest tokens at each place, step by step, and the text approximates
//! the law: in the ratio, a token outside the k counts as one of the others that share evenly what probability the k
//! leave (nothing, where the ratio is warped); a draw that is warped comes from the k alone, one that is not is the
//! server's own, from the whole distribution.

use std::{
    collections::HashMap,
    fmt,
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use hardn_endpoint::{Answer, Ask, Endpoint, EndpointOptions, Named, Names, Scored};
use hardn_models::Tokenizer;

use crate::{
    DecodeError, Draws, LanguageModel, Law, Memory, Result, Row, Sampling, Vocabulary,
    distribution, draw,
    engine::Active,
    pace::Pace,
    sequence::{Rules, Sequence},
};

/// What a server's vocabulary is tried with.
const PROBE: &str =
    "import os\n\n\ndef load(path):\n    # caf\u{e9}\n    return open(path, \"rb\").read()\n";

/// How texts relate to the law they are meant to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// They follow it.
    Exact,
    /// They follow it about, and why.
    Approximate(String),
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact in distribution"),
            Self::Approximate(why) => write!(f, "approximate: {why}"),
        }
    }
}

/// A token the base model drew for a place that the text has not reached, or has just reached.
pub(crate) struct Ahead {
    /// Tokens before it, prompt included.
    place: usize,
    draws: Draws,
    id: u32,
    log_prob: f64,
}

/// A base model behind a server.
pub struct RemoteBase {
    endpoint: Endpoint,
    vocabulary: Arc<dyn Vocabulary + Send + Sync>,
    vocab_size: usize,
    eos: Option<u32>,
    longest_text: usize,
    scores: bool,
    /// The server leaves the space before a word out of its name.
    drops_spaces: bool,
    /// Tokens by their bytes; none where two have the same.
    by_bytes: HashMap<Vec<u8>, Option<u32>>,
    /// How many likely tokens it gives, once that was asked.
    top: usize,
    fidelity: Fidelity,
}

impl RemoteBase {
    /// Connects to a server whose model has the vocabulary of a tokenizer, as far as that can be seen.
    ///
    /// # Errors
    /// [`DecodeError::Endpoint`] for a server that cannot be used; [`DecodeError::OtherVocabulary`].
    pub fn connect(options: EndpointOptions, tokenizer: &Arc<Tokenizer>) -> Result<Self> {
        let ids = tokenizer.encode(PROBE)?.ids;
        let (n, eos) = (tokenizer.vocab_size(), tokenizer.eos());
        Self::connect_with(options, tokenizer.clone(), n, eos, &ids)
    }

    pub(crate) fn connect_with(
        options: EndpointOptions,
        vocabulary: Arc<dyn Vocabulary + Send + Sync>,
        vocab_size: usize,
        eos: Option<u32>,
        probe: &[u32],
    ) -> Result<Self> {
        let (endpoint, abilities) = Endpoint::connect(options, probe)?;
        let mut by_bytes = HashMap::new();
        for id in 0..vocab_size as u32 {
            let bytes = vocabulary.token_bytes(id);
            if !bytes.is_empty() {
                by_bytes.entry(bytes.to_vec()).and_modify(|id| *id = None).or_insert(Some(id));
            }
        }
        let mut base = Self {
            endpoint,
            vocabulary,
            vocab_size,
            eos,
            longest_text: abilities.longest_text.map_or(usize::MAX, |n| n.saturating_sub(1)),
            scores: abilities.scores(),
            drops_spaces: false,
            by_bytes,
            top: 0,
            fidelity: Fidelity::Exact,
        };
        for (scored, &id) in abilities.scored.iter().zip(probe) {
            base.check(&scored.token, id)?;
            let own = base.vocabulary.token_bytes(id).strip_prefix(b" ");
            let text = scored.token.text.as_deref().map(str::as_bytes);
            base.drops_spaces |= own.is_some() && text == own;
        }
        if let Some(drawn) = &abilities.drawn {
            base.find(&drawn.token)?;
        }
        Ok(base)
    }

    /// Makes ready for a law.
    ///
    /// # Errors
    /// A server that gives no log-probabilities of likely tokens where they are needed.
    pub(crate) fn prepare(&mut self, law: &Law) -> Result<()> {
        let warped = law.ratio.changes() || law.redraw.changes();
        if self.scores && !warped {
            return Ok(());
        }
        let start =
            (0..self.vocab_size as u32).find(|&id| !self.vocabulary.token_bytes(id).is_empty());
        self.top = self.endpoint.most_likely(&[start.unwrap_or_default()])?;
        let known =
            format!("the base model is known by its {} likeliest tokens at each place", self.top);
        self.fidelity = Fidelity::Approximate(if warped {
            format!("{known}, and the decoder warps its distribution")
        } else {
            format!("{known}, because the server does not score given tokens")
        });
        Ok(())
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        self.endpoint.url()
    }

    /// The model's name there.
    pub fn model(&self) -> &str {
        self.endpoint.model()
    }

    /// How texts relate to Algorithm 1's law.
    pub fn fidelity(&self) -> &Fidelity {
        &self.fidelity
    }

    /// Drafts longer than one token can be judged.
    pub(crate) fn goes_ahead(&self) -> bool {
        self.fidelity == Fidelity::Exact
    }

    /// Judges every text's draft, side by side.
    pub(crate) fn judge(
        &self,
        active: &mut [Active],
        law: &Law,
        rules: &Rules,
        pace: &mut Pace,
    ) -> Result<()> {
        let texts: Vec<&mut Sequence> = active
            .iter_mut()
            .map(|text| &mut text.sequence)
            .filter(|text| text.finish.is_none() && text.n_drafted() > 0)
            .collect();
        let n_drafted = texts.iter().map(|text| text.n_drafted()).sum();
        let took = side_by_side(texts, &|text: &mut Sequence| {
            if self.goes_ahead() {
                self.judge_exactly(text, law, rules)
            } else {
                self.judge_about(text, law, rules)
            }
        })?;
        if let Some(longest) = took.into_iter().max() {
            pace.base_pass(n_drafted, longest);
        }
        Ok(())
    }

    /// One request scores the draft; another one draws where a proposal was not accepted, unless an earlier request drew
    /// for that place already. Returns how long the first one took.
    fn judge_exactly(&self, text: &mut Sequence, law: &Law, rules: &Rules) -> Result<Duration> {
        let n_drafted = text.n_drafted();
        let ahead = text.ahead.take();
        let start = Instant::now();
        let answer = self.ask(text.context(), seed(text, n_drafted), true, 1)?;
        let took = start.elapsed();
        let scored = self.scored(&answer, text.context())?;
        let scored = &scored[scored.len() - n_drafted..];
        let log_probs: Vec<(f64, f64)> =
            scored.iter().map(|&log_prob| (log_prob, log_prob)).collect();
        let rejected = text.judge_scored(&log_probs, law, rules);
        let (place, draws) = (text.context().len(), text.draws().text);
        if rejected {
            let is_here = |ahead: &Ahead| ahead.place == place && ahead.draws == draws;
            let (id, log_prob) = match ahead.filter(is_here) {
                Some(ahead) => (ahead.id, ahead.log_prob),
                None => self.drawn(&self.ask(text.context(), seed(text, 0), false, 1)?)?,
            };
            text.replace(id, log_prob, rules);
        } else if text.finish.is_none() {
            let (id, log_prob) = self.drawn(&answer)?;
            text.ahead = Some(Ahead { place, draws, id, log_prob });
        }
        Ok(took)
    }

    /// One request for the place of a single proposal.
    fn judge_about(&self, text: &mut Sequence, law: &Law, rules: &Rules) -> Result<Duration> {
        let (proposal, before) = text.context().split_last().unwrap_or((&0, &[]));
        let proposal = *proposal;
        let start = Instant::now();
        let answer = self.ask(before, seed(text, 0), false, self.top)?;
        let took = start.elapsed();
        let (drawn, drawn_log_prob) = self.drawn(&answer)?;
        let place = self.place(&answer);
        let warped = |sampling: &Sampling, before: &[u32]| {
            distribution(&place.logits(self.vocab_size), before, sampling)
        };
        let raw = place.log_prob(proposal);
        let ratio = if law.ratio.changes() {
            let kept = warped(&law.ratio, before);
            let found = kept.iter().find(|(id, _)| *id == proposal);
            found.map_or(f64::NEG_INFINITY, |(_, p)| p.ln())
        } else {
            raw
        };
        if text.judge_scored(&[(ratio, raw)], law, rules) {
            let (id, log_prob) = if law.redraw.changes() {
                let u = text.draws().text.uniform(text.ids().len() as u64);
                let id = draw(&warped(&law.redraw, text.context()), u);
                (id, place.log_prob(id))
            } else {
                (drawn, drawn_log_prob)
            };
            text.replace(id, log_prob, rules);
        }
        Ok(took)
    }

    fn ask(&self, prompt: &[u32], seed: u32, echo: bool, top: usize) -> Result<Answer> {
        Ok(self.endpoint.ask(&Ask { prompt, seed, echo, top, names: Names::Ids })?)
    }

    /// Natural log-probabilities of all tokens but the first, which must be those that were asked for.
    fn scored(&self, answer: &Answer, asked: &[u32]) -> Result<Vec<f64>> {
        if answer.prompt.len() != asked.len() {
            return Err(self.nonsense("it does not score given tokens, though it did before"));
        }
        let mut all = Vec::with_capacity(asked.len());
        for (i, (scored, &id)) in answer.prompt.iter().zip(asked).enumerate() {
            self.check(&scored.token, id)?;
            match scored.log_prob {
                Some(log_prob) => all.push(log_prob),
                None if i == 0 => {}
                None => {
                    let message = format!("token {i} of {} has no log-probability", asked.len());
                    return Err(self.nonsense(&message));
                }
            }
        }
        Ok(all)
    }

    /// The token the server drew, and its natural log-probability.
    fn drawn(&self, answer: &Answer) -> Result<(u32, f64)> {
        match (&answer.drawn, self.eos) {
            (Some(Scored { token, log_prob, .. }), eos) => {
                let unnamed = answer.ended && token.id.is_none() && token.bytes.is_none();
                let id = match eos.filter(|_| unnamed) {
                    Some(eos) => eos,
                    None => self.find(token)?,
                };
                Ok((id, log_prob.unwrap_or_default()))
            }
            (None, Some(eos)) => Ok((eos, 0.0)),
            (None, None) => {
                Err(self.nonsense("it ended the text, and the tokenizer has no token for that"))
            }
        }
    }

    /// The likeliest tokens of an answer.
    fn place(&self, answer: &Answer) -> Place {
        let top = answer.drawn.as_ref().map_or(&[][..], |drawn| &drawn.top);
        let left = 1.0 - top.iter().map(|(_, log_prob)| log_prob.exp()).sum::<f64>();
        let n_others = self.vocab_size.saturating_sub(top.len());
        let known =
            top.iter().filter_map(|(token, p)| Some((self.find(token).ok()?, *p))).collect();
        Place { known, other: (left.max(0.0) / n_others.max(1) as f64).ln() }
    }

    /// Refuses a token that is called something else than it is here.
    fn check(&self, token: &Named, id: u32) -> Result<()> {
        let own = self.vocabulary.token_bytes(id);
        let is_same = token.id.is_none_or(|other| other == id)
            && token.bytes.as_deref().is_none_or(|bytes| bytes == own)
            && token.text.as_deref().is_none_or(|text| is_text_of(text, own));
        if is_same {
            return Ok(());
        }
        let here = String::from_utf8_lossy(own);
        let there = match token {
            Named { text: Some(text), .. } => format!("{text:?}"),
            Named { bytes: Some(bytes), .. } => format!("{:?}", String::from_utf8_lossy(bytes)),
            Named { id, .. } => format!("token {}", id.unwrap_or_default()),
        };
        Err(self.other_vocabulary(format!("token {id} is {here:?} here and {there} there")))
    }

    /// The token a server means.
    fn find(&self, token: &Named) -> Result<u32> {
        if let Some(id) = token.id {
            let is_known = (id as usize) < self.vocab_size
                && (!self.vocabulary.token_bytes(id).is_empty() || self.eos == Some(id));
            if !is_known {
                return Err(self.other_vocabulary(format!("there is no token {id} here")));
            }
            return self.check(token, id).map(|()| id);
        }
        let is_clear =
            |text: &&str| !self.drops_spaces && !text.contains(char::REPLACEMENT_CHARACTER);
        let text = token.text.as_deref().filter(is_clear).map(str::as_bytes);
        let Some(bytes) = token.bytes.as_deref().or(text) else {
            return Err(self.nonsense(
                "it names tokens by a text that can mean several; it should give token ids",
            ));
        };
        match self.by_bytes.get(bytes) {
            Some(Some(id)) => Ok(*id),
            Some(None) => {
                let text = String::from_utf8_lossy(bytes);
                Err(self
                    .nonsense(&format!("several tokens are {text:?}; it should give token ids")))
            }
            None => {
                let text = String::from_utf8_lossy(bytes);
                Err(self.other_vocabulary(format!("no token here is {text:?}")))
            }
        }
    }

    fn other_vocabulary(&self, message: String) -> DecodeError {
        DecodeError::OtherVocabulary { url: self.url().to_owned(), message }
    }

    fn nonsense(&self, message: &str) -> DecodeError {
        let (url, message) = (self.url().to_owned(), message.to_owned());
        hardn_endpoint::EndpointError::Answer { url, message }.into()
    }
}

/// Nothing is read here: each request brings its whole text.
impl LanguageModel for RemoteBase {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn longest_text(&self) -> usize {
        self.longest_text
    }

    fn memory(&self, _: usize) -> Result<Memory> {
        Ok(Memory::Tokens(Vec::new()))
    }

    fn read(&self, rows: &mut [Row]) -> Result<Vec<Vec<f32>>> {
        Ok(vec![Vec::new(); rows.len()])
    }

    fn weights(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

/// What is known of a distribution.
struct Place {
    /// Ids and natural log-probabilities.
    known: Vec<(u32, f64)>,
    /// Natural log-probability of any other token.
    other: f64,
}

impl Place {
    fn log_prob(&self, id: u32) -> f64 {
        let found = self.known.iter().find(|(other, _)| *other == id);
        found.map_or(self.other, |(_, log_prob)| *log_prob)
    }

    /// Logits of the known tokens alone.
    fn logits(&self, vocab_size: usize) -> Vec<f32> {
        let mut logits = vec![f32::NEG_INFINITY; vocab_size];
        for &(id, log_prob) in &self.known {
            logits[id as usize] = log_prob as f32;
        }
        logits
    }
}

/// What the server draws the token with that stands `ahead` of the text. It depends on the place alone, so that a server
/// whose draws depend on its seed alone gives the same token whichever request asks.
fn seed(text: &Sequence, ahead: usize) -> u32 {
    let u = text.draws().text.uniform((text.ids().len() + ahead) as u64);
    (u * f64::from(1_u32 << 31)) as u32
}

/// Whether a server's text can be a token's: parts of characters have no text of their own, and some tokenizers leave
/// the space before a word, or a special token, out.
fn is_text_of(text: &str, bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(own) => text == own || text.is_empty() || own.strip_prefix(' ') == Some(text),
        Err(_) => true,
    }
}

/// Does work that waits for others, in a thread each.
fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    work: &(impl Fn(T) -> Result<R> + Sync),
) -> Result<Vec<R>> {
    if items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    thread::scope(|scope| {
        let threads: Vec<_> =
            items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}
