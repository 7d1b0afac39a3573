//! A generator over a model on this machine, with continuous batching.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hardn_models::{DecodeModel, DecodeRow, KvCache, TokenIds, Tokenizer};
use hardn_types::{BoxError, Generator, Prompt, Sample};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    DecodeError, DecoderConfig, Draws, FunctionEnd, LongPrompt, PlainDecoder, Result, Role,
    Sampling, StopRule, Stops, prompt_hash,
    sequence::{Rules, Sequence},
};

/// Samples drawn side by side unless told otherwise.
const BATCH_SIZE: usize = 32;

/// Chooses the stop rule of a prompt.
type RuleOf = Box<dyn Fn(&Prompt) -> StopRule + Send + Sync>;

/// Completes prompts with one model on the CPU.
pub struct LocalGenerator {
    model: Arc<DecodeModel>,
    tokenizer: Arc<Tokenizer>,
    model_fingerprint: String,
    config: DecoderConfig,
    sampling: Sampling,
    stops: Stops,
    seed: u64,
    batch_size: usize,
    rule_of: RuleOf,
    stop: Arc<AtomicBool>,
    truncated: AtomicU64,
    n_tokens: AtomicU64,
}

/// A prompt that was read by the model.
struct Prefix {
    ids: Vec<u32>,
    hash: [u8; 32],
    cache: KvCache,
    logits: Vec<f32>,
    /// Samples that have not begun.
    n_waiting: usize,
}

impl LocalGenerator {
    /// A generator. `model_fingerprint` is [`hardn_models::Model::fingerprint`] of the model that `model` was made of;
    /// `seed` is the arm's own ([`crate::arm_seed`]), so that arms draw independently.
    ///
    /// # Errors
    /// [`DecodeError::Decoder`] where a stop token does not exist.
    pub fn new(
        model: Arc<DecodeModel>,
        tokenizer: Arc<Tokenizer>,
        model_fingerprint: String,
        config: DecoderConfig,
        seed: u64,
    ) -> Result<Self> {
        let DecoderConfig::Plain(plain) = &config;
        let mut tokens: Vec<u32> = tokenizer.eos().into_iter().collect();
        tokens.extend(model.config().eos_token_id.iter().flat_map(TokenIds::as_slice));
        for name in &plain.stop_tokens {
            tokens.push(tokenizer.special(name).ok_or_else(|| DecodeError::Decoder {
                name: "stop_tokens".to_owned(),
                message: format!("the tokenizer has no token `{name}`"),
            })?);
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(Self {
            sampling: plain.sampling(),
            stops: Stops { tokens, strings: plain.stop.clone() },
            model,
            tokenizer,
            model_fingerprint,
            config,
            seed,
            batch_size: BATCH_SIZE,
            rule_of: Box::new(|_| StopRule::None),
            stop: Arc::default(),
            truncated: AtomicU64::new(0),
            n_tokens: AtomicU64::new(0),
        })
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
        self.n_tokens.load(Ordering::Relaxed)
    }

    /// The key of a sample: what a resumed run looks for among the samples it has.
    pub fn key(&self, prompt: &Prompt, index: u32) -> String {
        let rule = serde_json::to_string(&(self.rule_of)(prompt)).unwrap_or_default();
        hex([
            self.model_fingerprint.as_bytes(),
            prompt.text.as_bytes(),
            self.config.canonical().as_bytes(),
            rule.as_bytes(),
            &self.seed.to_le_bytes(),
            &index.to_le_bytes(),
        ])
    }

    fn plain(&self) -> &PlainDecoder {
        let DecoderConfig::Plain(plain) = &self.config;
        plain
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
        let mut waiting: VecDeque<(usize, u32)> = prompts
            .iter()
            .enumerate()
            .flat_map(|(number, prompt)| prompt.indices.iter().map(move |&index| (number, index)))
            .collect();
        let rules =
            Rules { tokenizer: &self.tokenizer, sampling: &self.sampling, stops: &self.stops };
        let mut prefixes: BTreeMap<usize, Prefix> = BTreeMap::new();
        let mut active: Vec<Sequence> = Vec::new();
        loop {
            let room = self.batch_size - active.len();
            let next: Vec<(usize, u32)> = waiting.drain(..room.min(waiting.len())).collect();
            self.read_prompts(prompts, &next, &mut prefixes)?;
            for (number, index) in next {
                active.push(self.begin(prompts, number, index, &mut prefixes));
            }
            if active.is_empty() {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(DecodeError::Stopped);
            }
            active.par_iter_mut().for_each(|sequence| sequence.step(&rules));
            self.n_tokens.fetch_add(active.len() as u64, Ordering::Relaxed);
            let (done, going): (Vec<_>, Vec<_>) =
                active.into_iter().partition(|sequence| sequence.finish.is_some());
            for sequence in done {
                let sample = self.sample(arm, &prompts[sequence.prompt], sequence)?;
                on_sample(sample).map_err(DecodeError::Taker)?;
            }
            active = going;
            self.advance(&mut active)?;
        }
    }

    /// Runs the model over prompts that are new, all in one pass.
    fn read_prompts(
        &self,
        prompts: &[Prompt],
        next: &[(usize, u32)],
        prefixes: &mut BTreeMap<usize, Prefix>,
    ) -> Result<()> {
        let mut new: Vec<(usize, Prefix)> = Vec::new();
        for &(number, _) in next {
            if prefixes.contains_key(&number) || new.iter().any(|(other, _)| *other == number) {
                continue;
            }
            let ids = self.prompt_ids(&prompts[number])?;
            let capacity = ids.len() + self.plain().max_new_tokens;
            let prefix = Prefix {
                hash: prompt_hash(&ids),
                cache: self.model.cache(capacity),
                logits: Vec::new(),
                n_waiting: prompts[number].indices.len(),
                ids,
            };
            new.push((number, prefix));
        }
        let mut rows: Vec<DecodeRow> = new
            .iter_mut()
            .map(|(_, prefix)| DecodeRow {
                cache: &mut prefix.cache,
                ids: &prefix.ids,
                all_logits: false,
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let logits = self.model.forward(&mut rows)?;
        for ((number, mut prefix), logits) in new.into_iter().zip(logits) {
            prefix.logits = logits;
            prefixes.insert(number, prefix);
        }
        Ok(())
    }

    /// The prompt's tokens, with what the tokenizer puts before a text, cut to what the context holds.
    fn prompt_ids(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_prompt(&prompt.text)?.ids;
        if ids.is_empty() {
            let start = self.model.config().bos_token_id.or(self.tokenizer.eos());
            ids.push(start.ok_or_else(|| DecodeError::EmptyPrompt { task: prompt.task.clone() })?);
        }
        let context = self.model.longest_text();
        let max_new_tokens = self.plain().max_new_tokens;
        // Half of the context belongs to the prompt however much may be generated.
        let room = context.saturating_sub(max_new_tokens).max(context / 2).max(1);
        if ids.len() > room {
            if self.plain().long_prompt == LongPrompt::Error {
                let (task, n_tokens) = (prompt.task.clone(), ids.len());
                return Err(DecodeError::LongPrompt { task, n_tokens, room, max_new_tokens });
            }
            self.truncated.fetch_add(1, Ordering::Relaxed);
            ids.drain(..ids.len() - room);
        }
        Ok(ids)
    }

    fn begin(
        &self,
        prompts: &[Prompt],
        number: usize,
        index: u32,
        prefixes: &mut BTreeMap<usize, Prefix>,
    ) -> Sequence {
        let prefix = prefixes.get_mut(&number).expect("`read_prompts` came before");
        prefix.n_waiting -= 1;
        let draws = Draws::new(self.seed, &prefix.hash, index, 0, 0, Role::Text);
        let prompt = &prompts[number];
        let function = FunctionEnd::new((self.rule_of)(prompt), &prompt.text);
        let context = self.model.longest_text();
        let limit = self.plain().max_new_tokens.min(context - prefix.ids.len()).max(1);
        let (cache, logits) = (prefix.cache.clone(), prefix.logits.clone());
        let sequence =
            Sequence::new(number, index, &prefix.ids, cache, logits, draws, function, limit);
        if prefix.n_waiting == 0 {
            prefixes.remove(&number);
        }
        sequence
    }

    /// Lets the model read each sequence's newest token.
    fn advance(&self, active: &mut [Sequence]) -> Result<()> {
        if active.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<DecodeRow> = active
            .iter_mut()
            .map(|sequence| DecodeRow {
                cache: &mut sequence.cache,
                ids: &sequence.newest,
                all_logits: false,
            })
            .collect();
        let logits = self.model.forward(&mut rows)?;
        for (sequence, logits) in active.iter_mut().zip(logits) {
            sequence.logits = logits;
        }
        Ok(())
    }

    fn sample(&self, arm: &str, prompt: &Prompt, sequence: Sequence) -> Result<Sample> {
        let Sequence { index, mut ids, mut log_probs, stream, finish, broken, .. } = sequence;
        if broken {
            let task = prompt.task.clone();
            return Err(DecodeError::NotFinite { task, index, position: ids.len() });
        }
        let (text, token_chars) = stream.finish();
        ids.truncate(token_chars.len());
        log_probs.truncate(token_chars.len());
        Ok(Sample {
            arm: arm.to_owned(),
            task: prompt.task.clone(),
            index,
            key: self.key(prompt, index),
            text,
            ids,
            token_chars,
            log_probs,
            finish: finish.unwrap_or(hardn_types::FinishReason::Length),
        })
    }
}

impl Generator for LocalGenerator {
    fn fingerprint(&self) -> String {
        hex([
            self.model_fingerprint.as_bytes(),
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
    use hardn_models::{LAB_SPECIALS, Model, ModelConfig, train_bpe};
    use hardn_types::FinishReason;

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
            assert_eq!(crate::log_prob(row, *id), *found, "{i}");
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
