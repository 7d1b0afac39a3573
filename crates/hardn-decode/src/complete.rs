//! Completions as `hardn complete` shows them.

use hardn_types::{BoxError, FinishReason, Prompt, Sample};
use serde::{Deserialize, Serialize};

use crate::{Author, DecodeError, LocalGenerator, Result, engine::Active};

/// One completion; a line of `hardn complete --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The number of the prompt, from 0.
    pub prompt: usize,
    /// The number of the sample, from 0.
    pub sample: u32,
    /// What the text continues where that is not the prompt: two-step generation adds imports to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_prompt: Option<String>,
    /// The generated text.
    pub text: String,
    /// Generated token ids, without the end-of-text token.
    pub ids: Vec<u32>,
    /// Whose choice each token was: `base`, or `security` in co-decoding.
    pub chosen_by: Vec<String>,
    /// Natural log-probability of the ids before warping, under the model whose text it is: the sum over tokens.
    pub log_prob: f64,
    /// Why generation ended.
    pub finish: FinishReason,
    /// How it came about, token by token.
    #[serde(skip)]
    pub trace: Vec<Token>,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// What it added to the text. A character made by several tokens stands at the last of them.
    pub text: String,
    /// Whose choice it was.
    pub chosen_by: String,
    /// Its natural log-probability before warping, under the model whose text it is.
    pub log_prob: f32,
}

/// A piece of a text that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What is new. It will not be taken back.
    pub text: &'a str,
    /// Who chose it.
    pub author: Author,
}

/// Completes each prompt `n` times and hands the completions over, sorted by prompt and sample.
///
/// # Errors
/// As [`LocalGenerator::draw_samples`].
pub fn complete(
    generator: &LocalGenerator,
    prompts: &[String],
    n: u32,
    on_completion: &mut dyn FnMut(Completion) -> Result<(), BoxError>,
) -> Result<()> {
    for (number, text) in prompts.iter().enumerate() {
        let mut samples = Vec::new();
        generator.draw_samples("", &[prompt(number, text, 0..n)], &mut |sample| {
            samples.push(sample);
            Ok(())
        })?;
        samples.sort_by_key(|sample| sample.index);
        for sample in samples {
            on_completion(completion(number, sample)).map_err(DecodeError::Taker)?;
        }
    }
    Ok(())
}

/// Completes a prompt once and hands over pieces as they are written.
///
/// # Errors
/// As [`LocalGenerator::draw_samples`], and what `on_piece` reports.
pub fn stream(
    generator: &LocalGenerator,
    text: &str,
    index: u32,
    on_piece: &mut dyn FnMut(Piece) -> Result<(), BoxError>,
) -> Result<Completion> {
    let mut shown = Shown::default();
    let mut last = None;
    let mut watcher = |active: &mut Active| shown.grow(active, generator, on_piece);
    let prompt = prompt(0, text, index..index + 1);
    generator.draw_watched("", &[prompt], Some(&mut watcher), &mut |sample| {
        last = Some(completion(0, sample));
        Ok(())
    })?;
    last.ok_or_else(|| DecodeError::Taker("no text was written".into()))
}

/// How much of a text was handed over.
#[derive(Default)]
struct Shown {
    n_tokens: usize,
    n_bytes: usize,
}

impl Shown {
    fn grow(
        &mut self,
        active: &mut Active,
        generator: &LocalGenerator,
        on_piece: &mut dyn FnMut(Piece) -> Result<(), BoxError>,
    ) -> Result<()> {
        let sequence = &active.sequence;
        let text = sequence.stream.text();
        let whole = sequence.finish.is_some();
        let pending = if whole { 0 } else { generator.stops().pending(text) };
        let judged =
            if whole || !generator.is_repaired() { text.len() } else { sequence.repair.judged };
        let safe = (text.len() - pending).min(judged);
        for (chars, author) in
            sequence.stream.token_chars().iter().zip(&sequence.authors).skip(self.n_tokens)
        {
            let rest = &text[self.n_bytes..];
            let length = rest.char_indices().nth(*chars as usize).map_or(rest.len(), |(i, _)| i);
            if self.n_bytes + length > safe {
                break;
            }
            self.n_tokens += 1;
            self.n_bytes += length;
            if length > 0 {
                let piece = Piece { text: &rest[..length], author: *author };
                on_piece(piece).map_err(DecodeError::Taker)?;
            }
        }
        Ok(())
    }
}

fn prompt(number: usize, text: &str, samples: std::ops::Range<u32>) -> Prompt {
    Prompt { task: format!("prompt {number}"), text: text.to_owned(), indices: samples.collect() }
}

fn completion(prompt: usize, sample: Sample) -> Completion {
    let mut authors: Vec<Author> = sample.authors.chars().map(Author::of_letter).collect();
    authors.resize(sample.ids.len(), Author::Base);
    let chosen_by: Vec<String> = authors.iter().map(|author| author.name().to_owned()).collect();
    let mut rest = sample.text.chars();
    let trace = (sample.ids.iter().zip(&sample.token_chars))
        .zip(chosen_by.iter().zip(&sample.log_probs))
        .map(|((&id, &n_chars), (chosen_by, &log_prob))| Token {
            id,
            text: rest.by_ref().take(n_chars as usize).collect(),
            chosen_by: chosen_by.clone(),
            log_prob,
        })
        .collect();
    Completion {
        prompt,
        sample: sample.index,
        chosen_by,
        log_prob: sample.log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum(),
        completed_prompt: sample.prompt,
        text: sample.text,
        ids: sample.ids,
        finish: sample.finish,
        trace,
    }
}
