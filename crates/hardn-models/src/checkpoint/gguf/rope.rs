//! Factors of rotary frequencies, which llama.cpp keeps in place of Llama 3's parameters.

use serde_json::{Value as Json, json};

use super::header::TensorInfo;
use crate::config::RopeScaling;

/// What Llama 3.1 was published with; kept where the factors cannot tell.
const USUAL: (f64, f64, usize) = (1.0, 4.0, 8192);

/// The factors of a file: f32.
pub(super) fn factors(file: &[u8], info: &TensorInfo) -> Result<Vec<f64>, String> {
    let [n] = info.shape[..] else { return Err("is not a vector".to_owned()) };
    let end = n.checked_mul(4).and_then(|bytes| bytes.checked_add(info.start));
    let bytes = end.and_then(|end| file.get(info.start..end)).filter(|_| info.kind == 0);
    let bytes = bytes.ok_or("is not f32 within the file")?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
}

/// What each frequency is divided by.
pub(super) fn llama3_factors(scaling: &RopeScaling, theta: f64, dims: usize) -> Option<Vec<f64>> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    } = *scaling
    else {
        return None;
    };
    let factor_at = |i: usize| {
        let turns = turns(original as f64, theta, i, dims);
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Some((0..dims / 2).map(factor_at).collect())
}

/// How often dimension `i` turns within `context` tokens.
fn turns(context: f64, theta: f64, i: usize, dims: usize) -> f64 {
    context / (std::f64::consts::TAU * theta.powf(2.0 * i as f64 / dims as f64))
}

/// `rope_scaling` of type `llama3` that gives these factors. Its three lengths can be told apart only up to a common
/// scale, and less where few frequencies lie between the bounds; where the published ones do not fit, others with the
/// published context are taken that do.
pub(super) fn llama3(factors: &[f64], theta: f64) -> Result<Json, String> {
    let dims = 2 * factors.len();
    let factor = factors.iter().copied().fold(1.0, f64::max);
    for (low, high, original) in guesses(factors, theta, factor) {
        let scaling = RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        };
        let made = llama3_factors(&scaling, theta, dims).unwrap_or_default();
        if made.iter().zip(factors).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs()) {
            return Ok(json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }));
        }
    }
    Err("holds factors that no scaling of Llama 3's kind gives".to_owned())
}

/// Bounds and contexts that may give the factors, the likeliest first.
fn guesses(factors: &[f64], theta: f64, factor: f64) -> Vec<(f64, f64, usize)> {
    let (.., original) = USUAL;
    let turns = |i: usize| turns(original as f64, theta, i, 2 * factors.len());
    let is_kept = |i: usize| factors[i] < 1.0 + 1e-4;
    let is_full = |i: usize| factors[i] > factor * (1.0 - 1e-4);
    let between: Vec<usize> = (0..factors.len()).filter(|i| !is_kept(*i) && !is_full(*i)).collect();
    // Between the bounds, the smoothness is a straight line in the number of turns.
    let smooth = |i: usize| (1.0 / factors[i] - 1.0 / factor) / (1.0 - 1.0 / factor);
    let mut guesses = vec![USUAL];
    match between[..] {
        [first, .., last] => {
            let slope = (smooth(first) - smooth(last)) / (turns(first) - turns(last));
            let low = turns(last) - smooth(last) / slope;
            guesses.push((low, low + 1.0 / slope, original));
        }
        [only] => {
            for ratio in [4.0, 2.0, 3.0, 1.5, 8.0, 1.2, 16.0, 1.05, 64.0] {
                let low = turns(only) / (1.0 + smooth(only) * (ratio - 1.0));
                guesses.push((low, ratio * low, original));
            }
        }
        [] => {
            // The bounds lie between the last frequency that is kept and the first that is not.
            let n_kept = (0..factors.len()).take_while(|i| is_kept(*i)).count();
            let below = if n_kept < factors.len() { turns(n_kept) } else { 0.0 };
            let above = if n_kept == 0 { 3.0 * below } else { turns(n_kept - 1) };
            let third = (above - below) / 3.0;
            guesses.push((below + third, above - third, original));
        }
    }
    guesses
}
