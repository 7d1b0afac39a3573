//! One sample while it is being drawn.

use hardn_models::{KvCache, Tokenizer};
use hardn_types::FinishReason;

use crate::{Draws, FunctionEnd, Sampling, Stops, TextStream, distribution, draw, log_prob};

/// What all samples of a generator share.
pub(crate) struct Rules<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) sampling: &'a Sampling,
    pub(crate) stops: &'a Stops,
}

pub(crate) struct Sequence {
    /// Which of the prompts.
    pub(crate) prompt: usize,
    /// Which sample of it.
    pub(crate) index: u32,
    /// Holds the prompt and all but the newest token.
    pub(crate) cache: KvCache,
    /// For the next token: `[vocab_size]`.
    pub(crate) logits: Vec<f32>,
    /// The newest token, not in the cache yet.
    pub(crate) newest: [u32; 1],
    pub(crate) finish: Option<FinishReason>,
    /// The model's logits were not finite.
    pub(crate) broken: bool,
    pub(crate) ids: Vec<u32>,
    pub(crate) log_probs: Vec<f32>,
    pub(crate) stream: TextStream,
    /// Prompt and text, for the repetition penalty.
    context: Vec<u32>,
    function: FunctionEnd,
    draws: Draws,
    /// Tokens at most.
    limit: usize,
}

impl Sequence {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different thing, and there is one caller"
    )]
    pub(crate) fn new(
        prompt: usize,
        index: u32,
        prompt_ids: &[u32],
        cache: KvCache,
        logits: Vec<f32>,
        draws: Draws,
        function: FunctionEnd,
        limit: usize,
    ) -> Self {
        Self {
            prompt,
            index,
            cache,
            logits,
            newest: [0],
            finish: None,
            broken: false,
            ids: Vec::new(),
            log_probs: Vec::new(),
            stream: TextStream::default(),
            context: prompt_ids.to_vec(),
            function,
            draws,
            limit,
        }
    }

    /// Draws the next token and finds out whether the text ends with it.
    pub(crate) fn step(&mut self, rules: &Rules) {
        if !self.logits.iter().all(|logit| logit.is_finite()) {
            self.broken = true;
            self.finish = Some(FinishReason::Stop);
            return;
        }
        let kept = distribution(&self.logits, &self.context, rules.sampling);
        let id = draw(&kept, self.draws.uniform(self.ids.len() as u64));
        if rules.stops.tokens.contains(&id) {
            self.finish = Some(FinishReason::Stop);
            return;
        }
        self.newest = [id];
        self.ids.push(id);
        self.context.push(id);
        self.log_probs.push(log_prob(&self.logits, id));
        let seen = self.stream.text().len();
        let ended = self.function.feed(self.stream.push(rules.tokenizer.token_bytes(id)));
        let stopped = rules.stops.find(self.stream.text(), seen);
        if let Some(end) = ended.into_iter().chain(stopped).min() {
            self.stream.cut(end);
            self.finish = Some(FinishReason::Stop);
        } else if self.ids.len() >= self.limit {
            self.finish = Some(FinishReason::Length);
        }
    }
}
