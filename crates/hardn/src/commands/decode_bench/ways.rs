//! The ways of decoding that are held against each other, and their runs.

use std::{fmt, process::Command, sync::Arc, time::Instant};

use hardn_decode::{DecoderConfig, DraftLength, LocalGenerator};
use hardn_types::{Prompt, Sample};
use serde_json::json;

use crate::{
    args::DecodeBenchArgs,
    assets::model_folder,
    commands::bench::peer::Peer,
    decoding::{Models, Ready},
    failure::{Failure, Outcome},
    hub,
    output::Progress,
};

const PEER: &str = include_str!("../../../../../bench/peer_co_decoding.py");

/// A way of decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    Base,
    CoDecoding(DraftLength),
    Speculative,
    Peer,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("bare base model"),
            Self::CoDecoding(DraftLength::Fixed(1)) => f.write_str("co-decoding, step by step"),
            Self::CoDecoding(DraftLength::Fixed(length)) => {
                write!(f, "co-decoding, drafts of {length}")
            }
            Self::CoDecoding(DraftLength::Adaptive) => f.write_str("co-decoding, adaptive drafts"),
            Self::Speculative => {
                f.write_str("base model, speculative sampling with the unhardened small model")
            }
            Self::Peer => f.write_str("co-decoding in transformers, token by token"),
        }
    }
}

/// What a way's runs gave.
pub(super) struct Measured {
    pub(super) way: Way,
    /// Tokens a second, a turn each.
    rates: Vec<f64>,
    pub(super) acceptance: Option<f64>,
    /// Of the first turn, sorted.
    samples: Vec<Sample>,
}

impl Measured {
    /// Tokens a second: the median.
    pub(super) fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    /// How many times as fast as another way, turn by turn: the median.
    pub(super) fn times(&self, other: &Self) -> f64 {
        median(self.rates.iter().zip(&other.rates).map(|(ours, theirs)| ours / theirs).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Ways of co-decoding whose samples are not those of the first one, with the numbers of those that differ.
pub(super) fn differing(measured: &[Measured]) -> Vec<(Way, Vec<usize>)> {
    let mut drafted = measured.iter().filter(|one| matches!(one.way, Way::CoDecoding(_)));
    let Some(first) = drafted.next() else { return Vec::new() };
    drafted
        .map(|one| {
            let pairs = one.samples.iter().zip(&first.samples).enumerate();
            let numbers = pairs.filter(|(_, (a, b))| a != b).map(|(number, _)| number).collect();
            (one.way, numbers)
        })
        .filter(|(_, numbers): &(Way, Vec<usize>)| !numbers.is_empty())
        .collect()
}

pub(super) struct Bench<'a> {
    args: &'a DecodeBenchArgs,
    decoder: DecoderConfig,
    pub(super) models: Models,
    prompts: Vec<Prompt>,
    quiet: bool,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        args: &'a DecodeBenchArgs,
        decoder: DecoderConfig,
        models: Models,
        prompts: Vec<Prompt>,
        quiet: bool,
    ) -> Self {
        Self { args, decoder, models, prompts, quiet }
    }

    pub(super) fn n_samples(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.indices.len()).sum()
    }

    /// What is asked for, the base model first.
    pub(super) fn ways(&self) -> Outcome<Vec<Way>> {
        let mut drafts = Vec::new();
        for text in &self.args.drafts {
            drafts.push(match (text.as_str(), text.parse()) {
                ("adaptive", _) => DraftLength::Adaptive,
                (_, Ok(length @ 1..=16)) => DraftLength::Fixed(length),
                _ => {
                    return Err(Failure::new(format!("`{text}` is not a draft length"))
                        .help("numbers from 1 to 16, or adaptive"));
                }
            });
        }
        // Step by step comes first: the others are held against it.
        drafts.retain(|draft| *draft != DraftLength::Fixed(1));
        drafts.insert(0, DraftLength::Fixed(1));
        let co_decoding = drafts.into_iter().map(Way::CoDecoding);
        if self.args.verify {
            return Ok(co_decoding.collect());
        }
        let mut ways = vec![Way::Base];
        ways.extend(co_decoding);
        if self.args.models.security_model.is_some() {
            ways.push(Way::Speculative);
        }
        if self.args.peer_python.is_some() {
            ways.push(Way::Peer);
        }
        Ok(ways)
    }

    /// Every way in turn, as often as asked.
    pub(super) fn measure(&self, ways: &[Way]) -> Outcome<Vec<Measured>> {
        let unhardened = match &self.args.models.security_model {
            Some(name) if ways.contains(&Way::Speculative) => {
                Some(Ready::load(name, None, self.args.models.dtype)?)
            }
            _ => None,
        };
        let mut peer = if ways.contains(&Way::Peer) { Some(self.start_peer()?) } else { None };
        let turns = if self.args.verify { 1 } else { self.args.turns.max(1) };
        let total = (turns * ways.len()) as u64;
        let mut progress = Progress::new("decoding", "runs", total, self.quiet);
        let mut measured: Vec<Measured> = ways
            .iter()
            .map(|&way| Measured { way, rates: vec![], acceptance: None, samples: vec![] })
            .collect();
        let mut n_done = 0;
        for _ in 0..turns {
            for one in &mut measured {
                match (&mut peer, one.way) {
                    (Some(peer), Way::Peer) => self.run_peer(peer, one)?,
                    _ => self.run(one, unhardened.as_ref())?,
                }
                n_done += 1;
                progress.set(n_done, &one.way.to_string());
            }
        }
        progress.finish(&format!("{n_done}"));
        Ok(measured)
    }

    /// One run of our own.
    fn run(&self, one: &mut Measured, unhardened: Option<&Ready>) -> Outcome {
        let generator = self.generator(one.way, unhardened)?.with_batch_size(self.args.streams);
        let mut samples = Vec::new();
        let start = Instant::now();
        generator.draw_samples("bench", &self.prompts, &mut |sample| {
            samples.push(sample);
            Ok(())
        })?;
        one.rates.push(generator.n_tokens() as f64 / start.elapsed().as_secs_f64());
        one.acceptance = generator.acceptance();
        if one.samples.is_empty() {
            samples.sort_by(|a, b| (&a.task, a.index).cmp(&(&b.task, b.index)));
            one.samples = samples;
        }
        Ok(())
    }

    fn generator(&self, way: Way, unhardened: Option<&Ready>) -> Outcome<LocalGenerator> {
        let mut decoder = self.decoder.clone();
        let seed = self.args.seed;
        if let (Way::CoDecoding(draft), Some(section)) = (way, &mut decoder.co_decoding) {
            section.draft = draft;
            return self.models.generator(decoder, seed);
        }
        decoder.co_decoding = None;
        let generator = self.models.without_security().generator(decoder, seed)?;
        Ok(match (way, unhardened) {
            (Way::Speculative, Some(small)) => {
                generator.with_draft_model(Arc::new(small.model.clone()), DraftLength::Adaptive)
            }
            _ => generator,
        })
    }

    fn start_peer(&self) -> Outcome<Peer> {
        let python =
            self.args.peer_python.as_ref().ok_or_else(|| Failure::new("no --peer-python"))?;
        let models = &self.args.models;
        let security = models.security_model.as_deref().unwrap_or(&models.model);
        let adapter = models.security_adapter.as_deref().map(hub::adapter_folder).transpose()?;
        let section = self.decoder.co_decoding.clone().unwrap_or_default();
        let mut command = Command::new(python);
        command.args(["-c", PEER]);
        let setup = json!({
            "base": model_folder(&models.model)?, "security": model_folder(security)?, "security_adapter": adapter,
            "threads": rayon::current_num_threads(), "temperature": self.decoder.temperature, "top_p": self.decoder.top_p,
            "threshold": section.threshold,
        });
        Peer::start(command, &setup)
    }

    fn run_peer(&self, peer: &mut Peer, one: &mut Measured) -> Outcome {
        let mut prompts = Vec::new();
        for prompt in &self.prompts {
            let ids = self.models.tokenizer.encode_prompt(&prompt.text)?.ids;
            prompts.extend(prompt.indices.iter().map(|_| ids.clone()));
        }
        let question = json!({
            "prompts": prompts, "new": self.decoder.max_new_tokens,
            "ends": self.models.tokenizer.eos().into_iter().collect::<Vec<u32>>(),
        });
        let answer = peer.ask(&question)?;
        let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
        one.rates.push(number("tokens") / number("seconds"));
        one.acceptance = Some(number("accepted") / number("tokens"));
        Ok(())
    }

    /// The tokens of the longest prompt.
    pub(super) fn longest_text(&self) -> Outcome<Vec<u32>> {
        let mut longest = Vec::new();
        for prompt in &self.prompts {
            let ids = self.models.tokenizer.encode_prompt(&prompt.text)?.ids;
            if ids.len() > longest.len() {
                longest = ids;
            }
        }
        Ok(longest)
    }
}
