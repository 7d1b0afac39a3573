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

/// `rope_scaling` of type `llama3` that gives these factors. Its three lengths can be told apart up to a common
/// scale; the usual lowest one, 1, is taken.
pub(super) fn llama3(factors: &[f64], theta: f64) -> Result<Json, String> {
    let dims = 2 * factors.len();
    let factor = factors.iter().copied().fold(1.0, f64::max);
    let mut guesses = vec![USUAL];
    // Between the bounds, the smoothness is a straight line in the number of turns.
    let smooth = |i: usize| (1.0 / factors[i] - 1.0 / factor) / (1.0 - 1.0 / factor);
    let between: Vec<usize> = (0..factors.len())
        .filter(|i| factors[*i] > 1.0 + 1e-4 && factors[*i] < factor * (1.0 - 1e-4))
        .collect();
    if let [first, .., last] = between[..] {
        let (x0, x1) = (turns(1.0, theta, first, dims), turns(1.0, theta, last, dims));
        let slope = (smooth(first) - smooth(last)) / (x0 - x1);
        let at_zero = smooth(first) - slope * x0;
        if at_zero < 0.0 {
            let high = 1.0 - 1.0 / at_zero;
            let original = slope * (high - 1.0);
            guesses.push((1.0, high, original.round().clamp(1.0, 1e12) as usize));
            guesses.push((1.0, high.round(), original.round().clamp(1.0, 1e12) as usize));
        }
    }
    for (low, high, original) in guesses {
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
