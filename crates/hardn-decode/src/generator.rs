//! A generator over a model on this machine, with continuous batching.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use hardn_models::{TokenIds, Tokenizer};
use hardn_types::{BoxError, FinishReason, Generator, Language, Prompt, Sample};
use sha2::{Digest, Sha256};

use crate::{
    Constraint, DecodeError, DecoderConfig, DraftLength, LanguageModel, Law, LocalModel,
    LongPrompt, Per, Phase, Result, Sampling, StopRule, Stops,
    engine::{Active, Counts, Engine, PromptText, Request, Watch, Watcher},
    prompt_hash,
    repair::{Inspector, Repair},
    sequence::{Rules, Sequence},
    two_step::{Split, TwoStep, Unused},
};

/// Samples drawn side by side unless told otherwise.
const BATCH_SIZE: usize = 32;

/// Chooses the stop rule of a prompt.
type RuleOf = Box<dyn Fn(&Prompt) -> StopRule + Send + Sync>;
/// Says what a prompt is written in.
type LanguageOf = Box<dyn Fn(&Prompt) -> Option<Language> + Send + Sync>;

/// The import block's part of a text, and the rest's.
const IMPORTS: Phase = 0;
const REST: Phase = 1;

/// Completes prompts with one model, or with two.
pub struct LocalGenerator {
    model: Arc<dyn LanguageModel>,
    security: Option<Arc<dyn LanguageModel>>,
    drafter: Option<(Arc<dyn LanguageModel>, DraftLength)>,
    inspector: Option<Arc<dyn Inspector>>,
    /// What comes after the gap that is filled.
    suffix: Option<String>,
    tokenizer: Arc<Tokenizer>,
    /// Of all models.
    fingerprint: String,
    start_token: Option<u32>,
    config: DecoderConfig,
    sampling: Sampling,
    stops: Stops,
    seed: u64,
    batch_size: usize,
    rule_of: RuleOf,
    language_of: LanguageOf,
    stop: Arc<AtomicBool>,
    truncated: AtomicU64,
    counts: Counts,
}

impl LocalGenerator {
    /// A generator. `model_fingerprint` is [`hardn_models::Model::fingerprint`] of the model that `model` was made of;
    /// `seed` is the arm's own ([`crate::arm_seed`]), so that arms draw independently.
    ///
    /// # Errors
    /// [`DecodeError::Decoder`] where a stop token does not exist.
    pub fn new(
        model: impl Into<LocalModel>,
        tokenizer: Arc<Tokenizer>,
        model_fingerprint: String,
        config: DecoderConfig,
        seed: u64,
    ) -> Result<Self> {
        let mut config = config;
        if let Some(constraint) = &mut config.constraint {
            *constraint = constraint.resolved()?;
        }
        let model = model.into();
        let settings = model.inner().config();
        let mut tokens: Vec<u32> = tokenizer.eos().into_iter().collect();
        tokens.extend(settings.eos_token_id.iter().flat_map(TokenIds::as_slice));
        for name in &config.stop_tokens {
            tokens.push(tokenizer.special(name).ok_or_else(|| DecodeError::Decoder {
                name: "stop_tokens".to_owned(),
                message: format!("the tokenizer has no token `{name}`"),
            })?);
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(Self {
            sampling: config.sampling(),
            stops: Stops { tokens, strings: config.stop.clone() },
            start_token: settings.bos_token_id.or(tokenizer.eos()),
            model: Arc::new(model),
            security: None,
            drafter: None,
            inspector: None,
            suffix: None,
            tokenizer,
            fingerprint: model_fingerprint,
            config,
            seed,
            batch_size: BATCH_SIZE,
            rule_of: Box::new(|_| StopRule::None),
            language_of: Box::new(|_| None),
            stop: Arc::default(),
            truncated: AtomicU64::new(0),
            counts: Counts::default(),
        })
    }

    /// The security model of co-decoding, with the same tokenizer. It may share the base model's weights under an
    /// adapter ([`LocalModel::with_adapter`]); both are then computed in one pass.
    ///
    /// # Errors
    /// [`DecodeError::Decoder`] where the decoder has no section `[co_decoding]`.
    pub fn with_security(
        mut self,
        model: Arc<dyn LanguageModel>,
        fingerprint: &str,
    ) -> Result<Self> {
        if self.config.co_decoding.is_none() {
            return Err(DecodeError::Decoder {
                name: "co_decoding".to_owned(),
                message: "the decoder has no such section, so no security model can take part; help: use \
                          --decoder co-decoding"
                    .to_owned(),
            });
        }
        self.fingerprint = hex([self.fingerprint.as_bytes(), fingerprint.as_bytes()]);
        self.security = Some(model);
        Ok(self)
    }

    /// A smaller model with the same tokenizer that only saves time: it drafts, and texts keep the law of plain decoding
    /// (speculative sampling). With `[co_decoding]` the security model drafts, and this one is not asked.
    #[must_use]
    pub fn with_draft_model(mut self, model: Arc<dyn LanguageModel>, draft: DraftLength) -> Self {
        self.drafter = Some((model, draft));
        self
    }

    /// Who reads along for `[repair]`. Its `name` is part of a sample's key.
    #[must_use]
    pub fn with_inspector(mut self, inspector: Arc<dyn Inspector>, name: &str) -> Self {
        if self.config.repair.is_some() {
            self.fingerprint = hex([self.fingerprint.as_bytes(), name.as_bytes()]);
            self.inspector = Some(inspector);
        }
        self
    }

    /// Tokens that end a text besides those the tokenizer and the model's configuration name, such as those of
    /// `generation_config.json`.
    #[must_use]
    pub fn with_end_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.stops.tokens.extend(tokens);
        self.stops.tokens.sort_unstable();
        self.stops.tokens.dedup();
        self
    }

    /// How many samples are drawn side by side; changes speed and memory, never a sample.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// Ends a completion early where its function has ended. The rule is part of a sample's key.
    #[must_use]
    pub fn with_stop_rules(
        mut self,
        rule_of: impl Fn(&Prompt) -> StopRule + Send + Sync + 'static,
    ) -> Self {
        self.rule_of = Box::new(rule_of);
        self
    }

    /// Fills the gap between each prompt and this text, in the tokenizer's fill-in-the-middle form.
    #[must_use]
    pub fn with_suffix(mut self, suffix: &str) -> Self {
        self.fingerprint = hex([self.fingerprint.as_bytes(), b"suffix", suffix.as_bytes()]);
        self.suffix = Some(suffix.to_owned());
        let end = self.tokenizer.fim_end();
        self.with_end_tokens(end)
    }

    /// What prompts are written in, for decoders that read code.
    #[must_use]
    pub fn with_languages(
        mut self,
        language_of: impl Fn(&Prompt) -> Option<Language> + Send + Sync + 'static,
    ) -> Self {
        self.language_of = Box::new(language_of);
        self
    }

    /// Ends generation with [`DecodeError::Stopped`] soon after the flag is set.
    #[must_use]
    pub fn with_stop(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// The seed samples are drawn with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// An oracle reads along.
    pub(crate) fn is_repaired(&self) -> bool {
        self.config.repair.is_some()
    }

    /// What ends a text.
    pub(crate) fn stops(&self) -> &Stops {
        &self.stops
    }

    /// The decoder.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Prompts whose beginning was left out so far.
    pub fn n_truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Tokens drawn so far.
    pub fn n_tokens(&self) -> u64 {
        self.counts.tokens.load(Ordering::Relaxed)
    }

    /// The share of proposals that was accepted so far; none where nothing was proposed.
    pub fn acceptance(&self) -> Option<f64> {
        let proposed = self.counts.proposed.load(Ordering::Relaxed);
        let accepted = self.counts.accepted.load(Ordering::Relaxed);
        (proposed > 0).then(|| accepted as f64 / proposed as f64)
    }

    /// The key of a sample: what a resumed run looks for among the samples it has.
    pub fn key(&self, prompt: &Prompt, index: u32) -> String {
        let rule = serde_json::to_string(&(self.rule_of)(prompt)).unwrap_or_default();
        hex([
            self.fingerprint.as_bytes(),
            prompt.text.as_bytes(),
            self.config.canonical().as_bytes(),
            rule.as_bytes(),
            &self.seed.to_le_bytes(),
            &index.to_le_bytes(),
        ])
    }

    /// Draws the samples asked for and hands each over when it is complete.
    ///
    /// # Errors
    /// [`DecodeError`]; samples handed over before stay good.
    pub fn draw_samples(
        &self,
        arm: &str,
        prompts: &[Prompt],
        on_sample: &mut dyn FnMut(Sample) -> Result<(), BoxError>,
    ) -> Result<()> {
        self.draw_watched(arm, prompts, None, on_sample)
    }

    /// The same, and lets somebody see the texts after each round.
    pub(crate) fn draw_watched(
        &self,
        arm: &str,
        prompts: &[Prompt],
        watcher: Option<Watcher>,
        on_sample: &mut dyn FnMut(Sample) -> Result<(), BoxError>,
    ) -> Result<()> {
        let mut requests = Vec::new();
        let mut splits = Vec::with_capacity(prompts.len());
        for (number, prompt) in prompts.iter().enumerate() {
            let split = self.split(prompt)?;
            if let (Some(split), Some(two_step)) = (&split, &self.config.two_step) {
                requests.extend(self.import_requests(prompt, number, split, two_step)?);
            } else {
                let text = self.prompt_text(prompt)?;
                requests.extend(self.requests(text, number, &prompt.indices));
            }
            splits.push(split);
        }
        self.engine()?.run(requests, watcher, &mut |done| {
            let number = done.request.number;
            let prompt = &prompts[number];
            match &splits[number] {
                Some(split) if done.request.phase == IMPORTS => {
                    self.rest_requests(prompt, split, done)
                }
                split => {
                    let sample = self.sample(arm, prompt, split.as_ref(), done)?;
                    on_sample(sample).map_err(DecodeError::Taker)?;
                    Ok(Vec::new())
                }
            }
        })
    }

    /// The prompt around its imports, where they are written first.
    fn split(&self, prompt: &Prompt) -> Result<Option<Split>> {
        let Some(two_step) = &self.config.two_step else { return Ok(None) };
        let language = (self.language_of)(prompt).ok_or_else(|| DecodeError::Decoder {
            name: "two_step".to_owned(),
            message: format!("nobody said what language the prompt of `{}` is in", prompt.task),
        })?;
        Split::new(&prompt.text, language, two_step.form)
    }

    /// Requests for the whole of a text, or for what comes after its imports.
    fn requests(&self, text: PromptText, number: usize, indices: &[u32]) -> Vec<Request> {
        let limit = self.limit(text.ids.len());
        let text = Arc::new(text);
        let phase = if self.config.two_step.is_some() { REST } else { 0 };
        let request = |&index: &u32| Request {
            prompt: text.clone(),
            number,
            index,
            phase,
            limit,
            end: None,
            is_rest: true,
        };
        indices.iter().map(request).collect()
    }

    /// Requests for the import block of a prompt: one, or one a sample.
    fn import_requests(
        &self,
        prompt: &Prompt,
        number: usize,
        split: &Split,
        two_step: &TwoStep,
    ) -> Result<Vec<Request>> {
        let first = split.first_step(two_step.form, &self.tokenizer)?;
        let hash = self.prompt_text(prompt)?.hash;
        let task = prompt.task.clone();
        let mut ids = first.ids;
        let room = self.context().saturating_sub(two_step.import_tokens).max(1);
        ids.drain(..ids.len().saturating_sub(room));
        let text = Arc::new(PromptText { task, ids, hash, text: first.text, rule: StopRule::None });
        // Imports that all samples share are those of the sample 0, whichever are asked for.
        let shared = [0];
        let indices = match two_step.per {
            Per::Prompt => &shared[..prompt.indices.len().min(1)],
            Per::Sample => &prompt.indices[..],
        };
        let request = |&index: &u32| Request {
            prompt: text.clone(),
            number,
            index,
            phase: IMPORTS,
            limit: two_step.import_tokens.min(self.context().saturating_sub(text.ids.len())).max(1),
            end: first.end,
            is_rest: false,
        };
        Ok(indices.iter().map(request).collect())
    }

    /// Requests for what comes after imports that were written.
    fn rest_requests(&self, prompt: &Prompt, split: &Split, done: Active) -> Result<Vec<Request>> {
        let Active { request, sequence } = done;
        let ended = sequence.finish == Some(FinishReason::Stop);
        let joined = split.joined(sequence.stream.text(), ended)?;
        let mut text = self.prompt_text(&Prompt { text: joined, ..prompt.clone() })?;
        text.hash = request.prompt.hash;
        let per_sample = self.config.two_step.as_ref().is_some_and(|two| two.per == Per::Sample);
        let own = [request.index];
        let indices = if per_sample { &own[..] } else { &prompt.indices };
        Ok(self.requests(text, request.number, indices))
    }

    fn engine(&self) -> Result<Engine<'_>> {
        let watch = match (&self.config.co_decoding, &self.security) {
            (None, _) => self.drafter.as_ref().map(|(model, draft)| Watch {
                model: &**model,
                law: Law::speculative(&self.sampling),
                draft: *draft,
            }),
            (Some(co_decoding), Some(model)) => Some(Watch {
                model: &**model,
                law: co_decoding.law(&self.sampling),
                draft: co_decoding.draft,
            }),
            (Some(_), None) => {
                return Err(DecodeError::Decoder {
                    name: "co_decoding".to_owned(),
                    message: "it takes a security model; help: give --security-model, or --security-adapter for an \
                              adapter on the model itself"
                        .to_owned(),
                });
            }
        };
        let repair = match (&self.config.repair, &self.inspector) {
            (None, _) => None,
            (Some(config), Some(inspector)) => Some(Repair { config, inspector: &**inspector }),
            (Some(_), None) => {
                return Err(DecodeError::Decoder {
                    name: "repair".to_owned(),
                    message: "nobody is there to judge what is written".to_owned(),
                });
            }
        };
        let vocab_size = self.model.vocab_size();
        let form =
            self.config.constraint.as_ref().map(|config| {
                Constraint::new(config, &self.tokenizer, vocab_size, &self.stops.tokens)
            });
        Ok(Engine {
            form: form.transpose()?,
            repair,
            base: &*self.model,
            watch,
            rules: Rules {
                vocabulary: &*self.tokenizer,
                sampling: &self.sampling,
                stops: &self.stops,
            },
            seed: self.seed,
            batch_size: self.batch_size,
            stop: &self.stop,
            counts: &self.counts,
        })
    }

    /// Tokens a text can have: what fits into both models.
    fn context(&self) -> usize {
        let drafter = self.drafter.as_ref().map(|(model, _)| model);
        let others = self.security.iter().chain(drafter).map(|model| model.longest_text());
        others.fold(self.model.longest_text(), usize::min)
    }

    /// Tokens that may follow a prompt.
    fn limit(&self, n_prompt: usize) -> usize {
        self.config.max_new_tokens.min(self.context().saturating_sub(n_prompt)).max(1)
    }

    /// The prompt's tokens, with what the tokenizer puts before a text, cut to what the context holds.
    fn prompt_text(&self, prompt: &Prompt) -> Result<PromptText> {
        let mut ids = match &self.suffix {
            None => self.tokenizer.encode_prompt(&prompt.text)?.ids,
            Some(suffix) => self.tokenizer.fim_prompt(&prompt.text, suffix)?,
        };
        if ids.is_empty() {
            let task = prompt.task.clone();
            ids.push(self.start_token.ok_or(DecodeError::EmptyPrompt { task })?);
        }
        let context = self.context();
        let max_new_tokens = self.config.max_new_tokens;
        // Half of the context belongs to the prompt however much may be generated.
        let room = context.saturating_sub(max_new_tokens).max(context / 2).max(1);
        if ids.len() > room {
            // The marks of a gap stand at the beginning.
            if self.config.long_prompt == LongPrompt::Error || self.suffix.is_some() {
                let (task, n_tokens) = (prompt.task.clone(), ids.len());
                return Err(DecodeError::LongPrompt { task, n_tokens, room, max_new_tokens });
            }
            self.truncated.fetch_add(1, Ordering::Relaxed);
            ids.drain(..ids.len() - room);
        }
        Ok(PromptText {
            task: prompt.task.clone(),
            hash: prompt_hash(&ids),
            ids,
            text: prompt.text.clone(),
            rule: (self.rule_of)(prompt),
        })
    }

    fn sample(
        &self,
        arm: &str,
        prompt: &Prompt,
        split: Option<&Split>,
        done: Active,
    ) -> Result<Sample> {
        let Active { request, sequence } = done;
        let mut ids = sequence.ids().to_vec();
        let Sequence { mut log_probs, mut authors, stream, finish, repair, .. } = sequence;
        let (text, token_chars) = stream.finish();
        ids.truncate(token_chars.len());
        log_probs.truncate(token_chars.len());
        authors.truncate(token_chars.len());
        let watched = self.security.is_some();
        let drops = self.config.two_step.as_ref().is_some_and(|two| two.unused == Unused::Drop);
        let read = match split {
            Some(split) if drops => split.without_unused(&request.prompt.text, &text)?,
            _ => request.prompt.text.clone(),
        };
        Ok(Sample {
            arm: arm.to_owned(),
            task: prompt.task.clone(),
            index: request.index,
            key: self.key(prompt, request.index),
            text,
            ids,
            token_chars,
            log_probs,
            authors: authors.iter().filter(|_| watched).map(|author| author.letter()).collect(),
            repairs: repair.n_repairs,
            prompt: (read != prompt.text).then_some(read),
            finish: finish.unwrap_or(FinishReason::Length),
        })
    }
}

impl Generator for LocalGenerator {
    fn fingerprint(&self) -> String {
        hex([
            self.fingerprint.as_bytes(),
            self.config.canonical().as_bytes(),
            &self.seed.to_le_bytes(),
        ])
    }

    fn generate(
        &self,
        arm: &str,
        prompts: &[Prompt],
        on_sample: &mut dyn FnMut(Sample) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        self.draw_samples(arm, prompts, on_sample).map_err(|error| match error {
            DecodeError::Taker(error) => error,
            other => other.into(),
        })
    }
}

/// SHA-256, in hexadecimal, of parts that cannot run into each other.
fn hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests;
