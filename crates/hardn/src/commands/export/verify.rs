//! Whether two models say the same.

use std::fmt;

use candle_core::Tensor;
use hardn_models::{ForwardOptions, Model};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Outcome};

/// Lengths of the prompts, as far as the context allows.
const LENGTHS: &[usize] = &[1, 5, 17, 64, 160];

/// How far the logits of two models are apart.
#[derive(Debug)]
pub(super) struct Agreement {
    difference: f32,
    spread: f32,
    allowed: f32,
    prompts: usize,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "largest difference of logits {:.3e} on {} prompts of random tokens, allowed {:.3e} (logits spread over {:.3})",
            self.difference, self.prompts, self.allowed, self.spread
        )
    }
}

/// Compares the logits of every position of some prompts of random tokens.
///
/// # Errors
/// A difference above `share` of what the logits of `expected` spread over.
pub(super) fn compare(expected: &Model, actual: &Model, share: f32) -> Outcome<Agreement> {
    let options = ForwardOptions::evaluate();
    let longest = expected.longest_text(&options)?;
    let (mut difference, mut spread) = (0.0_f32, 0.0_f32);
    let mut prompts = 0;
    let lengths = LENGTHS.iter().filter(|n| **n <= longest);
    for (i, length) in lengths.enumerate() {
        let ids = tokens(i, *length, expected.config().vocab_size);
        let ids = Tensor::new(ids.as_slice(), expected.device())?.unsqueeze(0)?;
        let logits = |model: &Model| -> Outcome<Vec<f32>> {
            Ok(model.logits(&ids, &options)?.flatten_all()?.to_vec1()?)
        };
        let (expected, actual) = (logits(expected)?, logits(actual)?);
        if expected.len() != actual.len() {
            return Err(Failure::new("the written model has another vocabulary"));
        }
        let (low, high) = expected
            .iter()
            .fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
        spread = spread.max(high - low);
        for (a, b) in expected.iter().zip(&actual) {
            // A number that is none makes the comparison fail, whichever side it is on.
            let d = (a - b).abs();
            difference = if d.is_nan() { f32::INFINITY } else { difference.max(d) };
        }
        prompts += 1;
    }
    let agreement = Agreement { difference, spread, allowed: share * spread, prompts };
    if agreement.difference > agreement.allowed || !agreement.spread.is_finite() {
        return Err(Failure::new(format!("the written model differs: {agreement}"))
            .help("nothing was written; a number format with more bits differs less"));
    }
    Ok(agreement)
}

/// Random tokens, the same every time.
fn tokens(prompt: usize, length: usize, vocab_size: usize) -> Vec<u32> {
    let token = |position: usize| {
        let digest = Sha256::digest(format!("{prompt} {position}"));
        let word = digest.iter().take(8).fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        (word % vocab_size as u64) as u32
    };
    (0..length).map(token).collect()
}
