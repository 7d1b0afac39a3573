//! Completions as `hardn complete` shows them.

use hardn_types::{BoxError, FinishReason, Prompt};
use serde::{Deserialize, Serialize};

use crate::{LocalGenerator, Result};

/// One completion; a line of `hardn complete --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The number of the prompt, from 0.
    pub prompt: usize,
    /// The number of the sample, from 0.
    pub sample: u32,
    /// The generated text.
    pub text: String,
    /// Generated token ids, without the end-of-text token.
    pub ids: Vec<u32>,
    /// Whose choice each token was: `base`, or `security` in co-decoding.
    pub chosen_by: Vec<String>,
    /// Natural log-probability of the ids before warping: the sum over tokens.
    pub log_prob: f64,
    /// Why generation ended.
    pub finish: FinishReason,
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
        let prompt = Prompt {
            task: format!("prompt {number}"),
            text: text.clone(),
            indices: (0..n).collect(),
        };
        let mut samples = Vec::new();
        generator.draw_samples("", &[prompt], &mut |sample| {
            samples.push(sample);
            Ok(())
        })?;
        samples.sort_by_key(|sample| sample.index);
        for sample in samples {
            let completion = Completion {
                prompt: number,
                sample: sample.index,
                chosen_by: vec!["base".to_owned(); sample.ids.len()],
                log_prob: sample.log_probs.iter().map(|&log_prob| f64::from(log_prob)).sum(),
                text: sample.text,
                ids: sample.ids,
                finish: sample.finish,
            };
            on_completion(completion).map_err(crate::DecodeError::Taker)?;
        }
    }
    Ok(())
}
