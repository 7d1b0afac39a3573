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
mod tests {
    use hardn_models::{
        AdapterWeights, DecodeModel, DecodeRow, LAB_SPECIALS, Model, ModelConfig, ModuleTerm,
        train_bpe,
    };

    use super::*;

    const CODE: &str = "def load(path):\n    with open(path) as f:\n        return f.read()\n\n";

    struct Lab {
        model: Arc<DecodeModel>,
        tokenizer: Arc<Tokenizer>,
    }

    fn lab(context: usize, hidden: usize) -> Lab {
        let tokenizer = train_bpe(std::iter::repeat_n(CODE, 50), 320, LAB_SPECIALS).unwrap();
        let mut config =
            ModelConfig::llama(tokenizer.vocab_size(), hidden, 2, 2, 2 * hidden, context).unwrap();
        config.eos_token_id = tokenizer.eos().map(TokenIds::One);
        let model = Model::random(&config, 3).unwrap();
        Lab { model: Arc::new(DecodeModel::new(&model).unwrap()), tokenizer: Arc::new(tokenizer) }
    }

    impl Lab {
        fn generator(&self, overrides: &[&str]) -> LocalGenerator {
            let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
            let config = DecoderConfig::load("plain", &overrides).unwrap();
            let (model, tokenizer) = (self.model.clone(), self.tokenizer.clone());
            LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap()
        }
    }

    fn prompts() -> Vec<Prompt> {
        ["def load(", "    with open", "", "def load(path):\n    with open(path) as f:\n"]
            .iter()
            .enumerate()
            .map(|(number, text)| Prompt {
                task: format!("task-{number}"),
                text: (*text).to_owned(),
                indices: (0..5).collect(),
            })
            .collect()
    }

    /// All samples, sorted.
    #[track_caller]
    fn samples(generator: &LocalGenerator, prompts: &[Prompt]) -> Vec<Sample> {
        let mut samples = Vec::new();
        generator
            .generate("base", prompts, &mut |sample| {
                samples.push(sample);
                Ok(())
            })
            .unwrap();
        samples.sort_by(|a, b| (&a.task, a.index).cmp(&(&b.task, b.index)));
        samples
    }

    #[test]
    fn samples_depend_on_nothing_but_their_key() {
        let lab = lab(128, 32);
        let settings =
            ["max_new_tokens=24", "temperature=1.0", "top_p=0.9", "repetition_penalty=1.1"];
        let expected = samples(&lab.generator(&settings), &prompts());
        assert_eq!(expected.len(), 20);
        for batch_size in [1, 3, 7] {
            let generator = lab.generator(&settings).with_batch_size(batch_size);
            assert_eq!(samples(&generator, &prompts()), expected, "batches of {batch_size}");
        }
        let mut shuffled = prompts();
        shuffled.reverse();
        for prompt in &mut shuffled {
            prompt.indices.reverse();
        }
        assert_eq!(samples(&lab.generator(&settings), &shuffled), expected);
        // A resumed run asks for what is missing.
        let mut rest = prompts();
        rest.remove(0);
        rest[1].indices = vec![4];
        let rest = samples(&lab.generator(&settings), &rest);
        assert!(rest.iter().all(|sample| expected.contains(sample)) && rest.len() == 11);
        let mut keys: Vec<&str> = expected.iter().map(|sample| sample.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 20);
    }

    #[test]
    fn samples_differ_and_greedy_ones_do_not() {
        let lab = lab(128, 32);
        let drawn = samples(&lab.generator(&["max_new_tokens=24", "temperature=1.0"]), &prompts());
        assert_ne!(drawn[0].text, drawn[1].text);
        let greedy = samples(&lab.generator(&["max_new_tokens=24", "temperature=0"]), &prompts());
        assert_eq!(greedy[0].text, greedy[1].text);
    }

    #[test]
    fn samples_are_whole() {
        let lab = lab(128, 32);
        for sample in samples(&lab.generator(&["max_new_tokens=40", "temperature=1.5"]), &prompts())
        {
            assert_eq!(sample.ids.len(), sample.token_chars.len());
            assert_eq!(sample.ids.len(), sample.log_probs.len());
            let chars: u32 = sample.token_chars.iter().sum();
            assert_eq!(chars as usize, sample.text.chars().count());
            assert!(sample.log_probs.iter().all(|log_prob| *log_prob <= 0.0));
            assert_eq!(sample.finish == FinishReason::Length, sample.ids.len() == 40);
        }
    }

    #[test]
    fn log_probs_are_those_of_the_whole_text() {
        let lab = lab(128, 32);
        let prompt =
            Prompt { task: "t".to_owned(), text: "def load(".to_owned(), indices: vec![0] };
        let sample = samples(&lab.generator(&["max_new_tokens=20"]), &[prompt]).remove(0);
        let mut ids = lab.tokenizer.encode("def load(").unwrap().ids;
        let n_prompt = ids.len();
        ids.extend(&sample.ids);
        let mut cache = lab.model.cache(ids.len());
        let mut rows = [DecodeRow { cache: &mut cache, ids: &ids, all_logits: true }];
        let logits = lab.model.forward(&mut rows).unwrap().remove(0);
        let vocab = lab.model.config().vocab_size;
        for (i, (id, found)) in sample.ids.iter().zip(&sample.log_probs).enumerate() {
            let row = &logits[(n_prompt + i - 1) * vocab..][..vocab];
            assert_eq!(crate::log_prob(row, *id) as f32, *found, "{i}");
        }
    }

    #[test]
    fn long_prompts_are_cut_or_refused() {
        let lab = lab(64, 32);
        let text = CODE.repeat(20);
        let prompt = Prompt { task: "long".to_owned(), text, indices: vec![0, 1] };
        let generator = lab.generator(&["max_new_tokens=16"]);
        assert_eq!(samples(&generator, std::slice::from_ref(&prompt)).len(), 2);
        assert_eq!(generator.n_truncated(), 1);
        // More than the context may be asked for; it ends the text.
        let generator = lab.generator(&["max_new_tokens=500"]);
        assert!(samples(&generator, std::slice::from_ref(&prompt))[0].ids.len() <= 32);
        let generator = lab.generator(&["max_new_tokens=16", "long_prompt=error"]);
        let error = generator.draw_samples("base", &[prompt], &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("`long`"), "{error}");
    }

    #[test]
    fn stop_strings_and_rules_end_the_text_before_them() {
        let lab = lab(128, 32);
        let all = samples(&lab.generator(&["max_new_tokens=60", "temperature=2.0"]), &prompts());
        let settings = ["max_new_tokens=60", "temperature=2.0", "stop=['\\n', 'a']"];
        let overrides = settings.map(|text| text.replace('\'', "\""));
        let overrides = overrides.each_ref().map(String::as_str);
        let stopped = samples(&lab.generator(&overrides), &prompts());
        for (all, stopped) in all.iter().zip(&stopped) {
            let end = all.text.find(['\n', 'a']).unwrap_or(all.text.len());
            assert_eq!(stopped.text, all.text[..end]);
            assert!(all.ids.starts_with(&stopped.ids));
        }
        let generator = lab
            .generator(&["max_new_tokens=60", "temperature=2.0"])
            .with_stop_rules(|_| StopRule::PythonFunction);
        for (all, ruled) in all.iter().zip(samples(&generator, &prompts())) {
            assert!(all.text.starts_with(&ruled.text));
            assert_ne!(all.key, ruled.key);
        }
    }

    #[test]
    fn interruption_and_takers_errors_are_passed_on() {
        let lab = lab(128, 32);
        let stop = Arc::new(AtomicBool::new(false));
        let generator =
            lab.generator(&["max_new_tokens=8"]).with_stop(stop.clone()).with_batch_size(2);
        let mut n_samples = 0;
        let error = generator
            .draw_samples("base", &prompts(), &mut |_| {
                n_samples += 1;
                stop.store(true, Ordering::Relaxed);
                Ok(())
            })
            .unwrap_err();
        assert!(matches!(error, DecodeError::Stopped) && n_samples <= 2, "{error}");
        let generator = lab.generator(&["max_new_tokens=8"]);
        let error = generator.generate("base", &prompts(), &mut |_| Err("disk full".into()));
        assert_eq!(error.unwrap_err().to_string(), "disk full");
    }

    #[test]
    fn drafts_change_nothing_with_real_models() {
        let base = lab(128, 48);
        let security = |hidden| {
            let of = lab(128, hidden).model;
            Arc::new(LocalModel::new(of)) as Arc<dyn LanguageModel>
        };
        for settings in
            [["threshold=0.97", "preset=cosec-released"], ["threshold=0.9", "preset=cosec-warped"]]
        {
            let settings =
                [&settings[..], &["max_new_tokens=24", "repetition_penalty=1.1"]].concat();
            let draw = |draft: &str, batch_size: usize| {
                let mut overrides: Vec<String> =
                    settings.iter().map(|&item| item.to_owned()).collect();
                overrides.push(format!("draft={draft}"));
                let config = DecoderConfig::load("co-decoding", &overrides).unwrap();
                let (model, tokenizer) = (base.model.clone(), base.tokenizer.clone());
                let generator =
                    LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
                let generator = generator.with_security(security(32), "s").unwrap();
                let found = samples(&generator.with_batch_size(batch_size), &prompts());
                assert!(found.iter().all(|sample| sample.authors.len() == sample.ids.len()));
                found
            };
            let stepwise = draw("1", 1);
            let authors: String = stepwise.iter().map(|sample| sample.authors.as_str()).collect();
            assert!(authors.contains('s') && authors.contains('b'), "{authors}");
            for (draft, batch_size) in [("1", 7), ("3", 1), ("8", 32), ("adaptive", 2)] {
                assert_eq!(draw(draft, batch_size), stepwise, "{draft}, batches of {batch_size}");
            }
        }
    }

    #[test]
    fn texts_have_the_wanted_form_with_drafts_and_without() {
        let base = lab(128, 48);
        let draw = |draft: &str, regex: &str| {
            let overrides = [
                format!("draft={draft}"),
                format!("constraint.regex='{regex}'"),
                "threshold=0.97".to_owned(),
                "max_new_tokens=40".to_owned(),
            ];
            let config = DecoderConfig::load("co-decoding", &overrides).unwrap();
            let (model, tokenizer) = (base.model.clone(), base.tokenizer.clone());
            let generator =
                LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
            let security = Arc::new(LocalModel::new(lab(128, 32).model));
            samples(&generator.with_security(security, "s").unwrap(), &prompts())
        };
        let regex = "[a-z]{2,8}(, [a-z]{1,3}){0,2}\\)";
        let stepwise = draw("1", regex);
        assert_eq!(draw("6", regex), stepwise);
        for sample in &stepwise {
            let words: Vec<&str> = sample.text.trim_end_matches(')').split(", ").collect();
            let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(sample.text.ends_with(')') && words.iter().all(is_word), "{:?}", sample.text);
            assert!(words.len() <= 3 && (2..=8).contains(&words[0].len()), "{:?}", sample.text);
            assert_eq!(sample.finish, FinishReason::Stop);
        }
    }

    #[test]
    fn an_adapter_on_the_base_is_read_in_one_pass_with_it() {
        let lab = lab(128, 32);
        let modules = AdapterWeights::modules_of(lab.model.config());
        let factors = |(name, out, _): (String, usize, usize)| {
            let numbers = (0..out).map(|i| 0.5 + (i % 7) as f32 / 4.0).collect();
            (name, ModuleTerm::OutputFactors(numbers))
        };
        let weights =
            AdapterWeights { modules: modules.into_iter().map(factors).collect(), prefix: None };
        let draw = |own_copy: bool, draft: &str| {
            let overrides = [format!("draft={draft}"), "max_new_tokens=24".to_owned()];
            let config = DecoderConfig::load("co-decoding-warped", &overrides).unwrap();
            let (model, tokenizer) = (lab.model.clone(), lab.tokenizer.clone());
            let generator =
                LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
            // A second packing of the same weights is another model to the engine.
            let of = if own_copy { self::lab(128, 32).model } else { lab.model.clone() };
            let adapter = of.adapter(&weights).unwrap();
            let security = Arc::new(LocalModel::with_adapter(of, adapter));
            samples(&generator.with_security(security, "s").unwrap(), &prompts())
        };
        let together = draw(false, "1");
        let authors: String = together.iter().map(|sample| sample.authors.as_str()).collect();
        assert!(authors.contains('s') && authors.contains('b'), "{authors}");
        assert_eq!(draw(true, "1"), together);
        assert_eq!(draw(false, "4"), together);
    }

    #[test]
    fn imports_come_before_the_rest() {
        let lab = lab(128, 32);
        let text = "import os\n\n\ndef load(path):\n";
        let prompt =
            Prompt { task: "t".to_owned(), text: text.to_owned(), indices: (0..6).collect() };
        let draw = |settings: &[&str], prompt: &Prompt| {
            let overrides: Vec<String> = settings.iter().map(|&item| item.to_owned()).collect();
            let config = DecoderConfig::load("two-step", &overrides).unwrap();
            let (model, tokenizer) = (lab.model.clone(), lab.tokenizer.clone());
            let generator =
                LocalGenerator::new(model, tokenizer, "fp".to_owned(), config, 11).unwrap();
            let generator = generator.with_languages(|_| Some(Language::Python));
            samples(&generator, std::slice::from_ref(prompt))
        };
        // Every import is likelier than anything else, so that some are written.
        let biased = |word: &str| {
            let bias: Vec<String> = lab
                .tokenizer
                .encode(word)
                .unwrap()
                .ids
                .iter()
                .map(|id| format!("[{id}, 9.0]"))
                .collect();
            format!("bias=[{}]", bias.join(", "))
        };
        let bias = biased("\nimport re\n");
        let settings = ["max_new_tokens=12", "temperature=1.0", &bias];
        let shared = draw(&settings, &prompt);
        assert_eq!(shared.len(), 6);
        assert!(shared.iter().all(|sample| sample.prompt == shared[0].prompt));
        // Those that are missing are drawn as they would have been.
        let rest = Prompt { indices: vec![3, 5], ..prompt.clone() };
        assert_eq!(draw(&settings, &rest), [shared[3].clone(), shared[5].clone()]);
        let own = draw(&[&settings[..], &["per=sample"]].concat(), &prompt);
        assert_ne!(own, shared);
        let one_step = Prompt { text: "def load(path):\n".to_owned(), ..prompt.clone() };
        assert!(draw(&settings, &one_step).iter().all(|sample| sample.prompt.is_none()));
        for sample in shared.iter().chain(&own) {
            if let Some(changed) = &sample.prompt {
                assert!(
                    changed.starts_with("import os\n") && changed.ends_with("def load(path):\n")
                );
            }
        }
    }

    /// CPU time of this process so far, in seconds.
    fn cpu_secs() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Prints the speed of models of the lab's sizes; run with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement; cargo test -p hardn-decode --lib -- --ignored --nocapture"]
    #[expect(clippy::print_stderr, reason = "its output is the point")]
    fn speed() {
        let tokenizer =
            Arc::new(train_bpe(std::iter::repeat_n(CODE, 50), 320, LAB_SPECIALS).unwrap());
        for (layers, hidden) in [(4, 128), (6, 224)] {
            let config = ModelConfig::llama(4096, hidden, layers, 4, hidden * 8 / 3, 1024).unwrap();
            let parameters = config.parameters();
            let model = Model::random(&config, 3).unwrap();
            let model = Arc::new(DecodeModel::new(&model).unwrap());
            let lab = Lab { model, tokenizer: tokenizer.clone() };
            let prompts: Vec<Prompt> = (0..4)
                .map(|number| Prompt {
                    task: number.to_string(),
                    text: CODE.repeat(3),
                    indices: (0..8).collect(),
                })
                .collect();
            // A random model is close to uniform, the worst case of top-p; a trained one is near to greedy.
            for (batch_size, temperature) in [(1, 0.0), (32, 0.0), (32, 0.4)] {
                let temperature = format!("temperature={temperature}");
                let generator = lab
                    .generator(&["max_new_tokens=100", &temperature])
                    .with_batch_size(batch_size);
                let (start, cpu) = (std::time::Instant::now(), cpu_secs());
                samples(&generator, &prompts);
                let n_tokens = generator.n_tokens() as f64;
                eprintln!(
                    "{parameters} parameters, batch {batch_size}, {temperature}: {:.0} tokens/s, {:.0} tokens per CPU second",
                    n_tokens / start.elapsed().as_secs_f64(),
                    n_tokens / (cpu_secs() - cpu),
                );
            }
        }
    }
}
