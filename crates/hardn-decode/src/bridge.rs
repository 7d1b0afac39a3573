//! Co-decoding of two models with different vocabularies (named as future work in paper 004). An approximation.
//!
//! Both models read the same bytes, each as tokens of its own. The unit of decision is one token t of the security model
//! S. Where the base model B has a token with t's bytes, B(t) is its probability; otherwise t's bytes are read as B's
//! tokenizer reads them alone, and the probabilities of the pieces are multiplied. Since a token of S may end where none
//! of B does, the last piece counts together with the longer tokens of B that begin with it, unless S could have proposed
//! the whole: S, to write `load`, must begin with `lo` where it has no such token, and B, which has one, would give `lo`
//! alone next to nothing. An accepted t stands in B's text as its pieces. Where t is not accepted, B draws one of its own
//! tokens, and S reads its bytes as its own tokenizer does. With equal vocabularies this is Algorithm 1, token for token.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use hardn_models::Tokenizer;
use hardn_types::FinishReason;

use crate::{
    Author, DecodeError, FunctionEnd, LanguageModel, Memory, Result, Row, Sampling,
    bytes::{ByBytes, Unit},
    distribution, draw,
    engine::{Active, Engine, Request, Watch, Watcher},
    log_prob,
    sequence::{Sequence, Start, log_prob_in},
};

/// Tokens of the security model that a token of the base model may be, on average over a text, before the text ends.
const SPREAD: usize = 4;

/// Two vocabularies.
pub(crate) struct Bridge {
    security: ByBytes,
    base: ByBytes,
    /// Which of its tokens the security model may propose.
    choosable: Vec<bool>,
    /// Tokens of the security model in the base model's vocabulary, as far as they came up.
    units: Mutex<HashMap<u32, Arc<Unit>>>,
}

/// The security model's view of a text.
struct Reading {
    memory: Memory,
    /// Prompt and text; the memory holds a beginning.
    ids: Vec<u32>,
    capacity: usize,
}

impl Bridge {
    pub(crate) fn new(security: Arc<Tokenizer>, base: Arc<Tokenizer>) -> Self {
        let (security, base) = (ByBytes::new(security), ByBytes::new(base));
        let n = security.tokenizer().vocab_size() as u32;
        let choosable = (0..n).map(|id| security.may_choose(id, &base)).collect();
        Self { security, base, choosable, units: Mutex::default() }
    }

    /// Draws what is asked for, one text after the other, as [`Engine::run`] does.
    pub(crate) fn run(
        &self,
        engine: &Engine,
        requests: Vec<Request>,
        mut on_growth: Option<Watcher>,
        on_done: &mut dyn FnMut(Active) -> Result<Vec<Request>>,
    ) -> Result<()> {
        let Some(watch) = &engine.watch else { return engine.run(requests, on_growth, on_done) };
        let mut waiting = VecDeque::from(requests);
        while let Some(request) = waiting.pop_front() {
            let (mut text, mut reading) = self.begin(engine, watch, request)?;
            let mut place = 0;
            while text.sequence.finish.is_none() {
                if engine.stop.load(Ordering::Relaxed) {
                    return Err(DecodeError::Stopped);
                }
                let before = text.sequence.n_drawn;
                self.decide(engine, watch, &mut text.sequence, &mut reading, place)?;
                place += 1;
                let n_new = text.sequence.n_drawn - before;
                engine.counts.tokens.fetch_add(n_new, Ordering::Relaxed);
                if let Some(on_growth) = &mut on_growth {
                    on_growth(&mut text)?;
                }
            }
            let (proposed, accepted) = (text.sequence.n_proposed, text.sequence.n_accepted);
            engine.counts.proposed.fetch_add(u64::from(proposed), Ordering::Relaxed);
            engine.counts.accepted.fetch_add(u64::from(accepted), Ordering::Relaxed);
            let text = text.whole()?;
            for request in on_done(text)?.into_iter().rev() {
                waiting.push_front(request);
            }
        }
        Ok(())
    }

    /// Both models read the prompt but for its last token.
    fn begin(&self, engine: &Engine, watch: &Watch, request: Request) -> Result<(Active, Reading)> {
        let prompt = &request.prompt;
        let tokenizer = self.security.tokenizer();
        let mut ids = tokenizer.encode_prompt(&prompt.text)?.ids;
        if ids.is_empty() {
            let start = tokenizer.bos().or(tokenizer.eos());
            ids.push(start.ok_or_else(|| DecodeError::EmptyPrompt { task: prompt.task.clone() })?);
        }
        let longest = watch.model.longest_text();
        let room = longest.saturating_sub(request.limit).max(longest / 2).max(1);
        ids.drain(..ids.len().saturating_sub(room));
        let capacity = longest.min(ids.len() + SPREAD * request.limit + 1);
        let read = |model: &dyn LanguageModel, ids: &[u32], capacity: usize| {
            let mut memory = model.memory(capacity)?;
            if let Some((_, ids @ [_, ..])) = ids.split_last() {
                model.read(&mut [Row { memory: &mut memory, ids, all: false }])?;
            }
            Ok::<_, DecodeError>(memory)
        };
        let sequence = Sequence::new(Start {
            prompt: &prompt.ids,
            draws: request.draws(engine.seed, 0),
            function: FunctionEnd::new(prompt.rule, &prompt.text),
            limit: request.limit,
            end: request.end,
            base: read(engine.base, &prompt.ids, prompt.ids.len() + request.limit)?,
            security: None,
            form: None,
        });
        let reading = Reading { memory: read(watch.model, &ids, capacity)?, ids, capacity };
        Ok((Active { request, sequence }, reading))
    }

    /// Proposes one token of the security model and judges it. `place` counts decisions.
    fn decide(
        &self,
        engine: &Engine,
        watch: &Watch,
        text: &mut Sequence,
        reading: &mut Reading,
        place: u64,
    ) -> Result<()> {
        if reading.ids.len() >= reading.capacity {
            text.finish = Some(FinishReason::Length);
            return Ok(());
        }
        let new = &reading.ids[reading.memory.len()..];
        let row = Row { memory: &mut reading.memory, ids: new, all: false };
        let mut logits = watch.model.read(&mut [row])?.pop().unwrap_or_default();
        if text.breaks(&logits) {
            return Ok(());
        }
        for (id, logit) in logits.iter_mut().enumerate() {
            if !self.choosable.get(id).is_some_and(|choosable| *choosable) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let kept = distribution(&logits, &reading.ids, &watch.law.security);
        let proposal = draw(&kept, text.draws().proposal.uniform(place));
        let log_security = log_prob_in(&kept, &logits, &watch.law.security, proposal);
        let unit = self.unit(proposal)?;
        let pieces = &unit.pieces[..unit.pieces.len().min(text.room())];
        let rows = read_pieces(engine.base, text, pieces)?;
        if rows.iter().any(|logits| text.breaks(logits)) {
            return Ok(());
        }
        let longer = if pieces.len() == unit.pieces.len() { &unit.longer[..] } else { &[] };
        let mut before = text.context().to_vec();
        let mut log_base = 0.0;
        for (i, (&piece, logits)) in pieces.iter().zip(&rows).enumerate() {
            let more = if i + 1 == pieces.len() { longer } else { &[] };
            log_base += log_prob_of(piece, more, logits, &before, &watch.law.ratio);
            before.push(piece);
        }
        let u = text.draws().text.uniform(place);
        text.n_proposed += 1;
        if watch.law.accepts(log_security, log_base, u) {
            text.n_accepted += 1;
            for (&piece, logits) in pieces.iter().zip(&rows) {
                text.add(piece, Author::Security, log_prob(logits, piece), &engine.rules);
                if text.finish.is_some() {
                    break;
                }
            }
            reading.ids.push(proposal);
            return Ok(());
        }
        let own = distribution(&rows[0], text.context(), &watch.law.redraw);
        let id = draw(&own, u);
        text.replace(id, log_prob(&rows[0], id), &engine.rules);
        if text.finish.is_none() {
            let unit = self.base.in_other(id, &self.security);
            reading.ids.extend(unit.ok_or_else(|| no_bytes(&self.base, id, "security"))?.pieces);
        }
        Ok(())
    }

    fn unit(&self, id: u32) -> Result<Arc<Unit>> {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = units.get(&id) {
            return Ok(unit.clone());
        }
        let unit = self.security.in_other(id, &self.base);
        let unit = Arc::new(unit.ok_or_else(|| no_bytes(&self.security, id, "base"))?);
        units.insert(id, unit.clone());
        Ok(unit)
    }
}

/// The base model's logits before each of some pieces, read as if all but the last followed the text.
fn read_pieces(
    base: &dyn LanguageModel,
    text: &mut Sequence,
    pieces: &[u32],
) -> Result<Vec<Vec<f32>>> {
    let ahead = &pieces[..pieces.len() - 1];
    let ids = [&text.context()[text.base.len()..], ahead].concat();
    let row = Row { memory: &mut text.base, ids: &ids, all: ids.len() > 1 };
    let logits = base.read(&mut [row])?.pop().unwrap_or_default();
    let rows: Vec<Vec<f32>> = logits.chunks_exact(base.vocab_size()).map(<[f32]>::to_vec).collect();
    Ok(rows[rows.len() - pieces.len()..].to_vec())
}

/// Natural log-probability of a token or any of some others.
fn log_prob_of(
    id: u32,
    others: &[u32],
    logits: &[f32],
    before: &[u32],
    sampling: &Sampling,
) -> f64 {
    let kept = if sampling.changes() { distribution(logits, before, sampling) } else { Vec::new() };
    let of = |id: u32| log_prob_in(&kept, logits, sampling, id);
    if others.is_empty() {
        return of(id);
    }
    // The normaliser of raw probabilities is the same for all.
    let own = of(id);
    let sum: f64 = others
        .iter()
        .map(|&other| {
            if sampling.changes() {
                of(other).exp()
            } else {
                (own + f64::from(logits[other as usize]) - f64::from(logits[id as usize])).exp()
            }
        })
        .sum();
    (own.exp() + sum).ln()
}

/// A token that the other model cannot write.
fn no_bytes(of: &ByBytes, id: u32, other: &str) -> DecodeError {
    let text = String::from_utf8_lossy(of.tokenizer().token_bytes(id)).into_owned();
    DecodeError::Decoder {
        name: "co_decoding".to_owned(),
        message: format!("the {other} model has no tokens for token {id} ({text:?}) of the other"),
    }
}

#[cfg(test)]
mod tests {
    use hardn_models::{DecodeModel, LAB_SPECIALS, Model, ModelConfig, TokenIds, train_bpe};
    use hardn_types::{Prompt, Sample};

    use crate::{DecoderConfig, Fidelity, LocalGenerator, LocalModel};

    use super::*;

    const CODE: &str =
        "def load(path):\n    with open(path) as f:\n        return f.read()  # caf\u{e9}\n\n";

    /// A random model with a tokenizer of its own.
    fn model(vocab_size: usize, seed: u64) -> (LocalModel, Arc<Tokenizer>) {
        let texts = std::iter::repeat_n(CODE, 50);
        let tokenizer = train_bpe(texts, vocab_size, LAB_SPECIALS).unwrap();
        let n = tokenizer.vocab_size();
        let mut config = ModelConfig::llama(n, 32, 2, 2, 64, 256).unwrap();
        config.eos_token_id = tokenizer.eos().map(TokenIds::One);
        let model = Model::random(&config, seed).unwrap();
        (Arc::new(DecodeModel::new(&model).unwrap()).into(), Arc::new(tokenizer))
    }

    fn draw(
        base: &(LocalModel, Arc<Tokenizer>),
        security: Option<&(LocalModel, Arc<Tokenizer>)>,
        overrides: &[&str],
    ) -> (Vec<Sample>, Option<Fidelity>) {
        let overrides: Vec<String> = overrides.iter().map(|&item| item.to_owned()).collect();
        let config = DecoderConfig::parse("test", "max_new_tokens = 40", &overrides).unwrap();
        let mut generator =
            LocalGenerator::new(base.0.clone(), base.1.clone(), "fp".to_owned(), config, 5)
                .unwrap();
        if let Some((model, tokenizer)) = security {
            generator = generator
                .with_security(Arc::new(model.clone()), "other")
                .and_then(|generator| generator.with_security_tokenizer(tokenizer.clone()))
                .unwrap();
        }
        let prompt = |number: u32, text: &str| Prompt {
            task: number.to_string(),
            text: text.to_owned(),
            indices: (0..6).collect(),
        };
        let prompts =
            [prompt(0, "def load("), prompt(1, "    with open(p"), prompt(2, "# caf\u{e9}")];
        let mut samples = Vec::new();
        generator
            .draw_samples("", &prompts, &mut |sample| {
                samples.push(Sample { key: String::new(), ..sample });
                Ok(())
            })
            .unwrap();
        samples.sort_by_key(|sample| (sample.task.clone(), sample.index));
        (samples, generator.fidelity().cloned())
    }

    const BYTES: &str = "co_decoding.vocabularies=bytes";

    #[test]
    fn equal_vocabularies_give_the_texts_of_algorithm_1() {
        let (base, security) = (model(320, 3), model(320, 4));
        for (preset, threshold) in
            [("cosec-released", 0.5), ("cosec-warped", 0.8), ("cosec-algorithm1", 0.0)]
        {
            let preset = format!("co_decoding.preset={preset}");
            let threshold = format!("co_decoding.threshold={threshold}");
            let settings = [&preset[..], &threshold, "temperature=0.8", "top_p=0.95"];
            let expected = draw(&base, Some(&security), &settings);
            assert_eq!(expected.1, None);
            let found = draw(&base, Some(&security), &[&settings[..], &[BYTES]].concat());
            assert_eq!(found.0, expected.0, "{preset}, {threshold}");
            assert!(matches!(found.1, Some(Fidelity::Approximate(_))));
        }
    }

    #[test]
    fn different_vocabularies_meet_in_bytes() {
        let (small, large) = (model(280, 3), model(330, 4));
        for (base, security) in [(&small, &large), (&large, &small)] {
            let mut authors = String::new();
            for threshold in ["0.0", "0.3", "0.9"] {
                let threshold = format!("co_decoding.threshold={threshold}");
                let (samples, _) = draw(base, Some(security), &[BYTES, &threshold]);
                for sample in &samples {
                    let bytes: Vec<u8> =
                        sample.ids.iter().flat_map(|&id| base.1.token_bytes(id)).copied().collect();
                    assert!(String::from_utf8_lossy(&bytes).starts_with(&sample.text));
                    assert!(sample.ids.len() <= 40 && sample.ids.len() == sample.authors.len());
                    authors += &sample.authors;
                }
                if threshold.ends_with("0.0") {
                    assert!(!authors.contains('b'));
                }
            }
            assert!(authors.contains('b') && authors.contains('s'));
            // Where nothing is accepted, the base model writes alone.
            let alone = draw(base, None, &["temperature=0.7"]).0;
            let settings = ["co_decoding.preset=cosec-warped", "co_decoding.threshold=1.0"];
            let settings = [&settings[..], &["temperature=0.7", BYTES]].concat();
            let watched = draw(base, Some(security), &settings).0;
            let ids = |samples: &[Sample]| -> Vec<Vec<u32>> {
                samples.iter().map(|sample| sample.ids.clone()).collect()
            };
            assert_eq!(ids(&watched), ids(&alone));
        }
    }
}
