//! Softmax of one row.

use super::exp;

/// Chains that run side by side.
const LANES: usize = 16;

/// Probabilities of `scale * scores`, in place. The order of additions depends on the number of scores alone.
pub(crate) fn softmax(scores: &mut [f32], scale: f32) {
    let max = max(scores);
    for score in scores.iter_mut() {
        *score = exp((*score - max) * scale);
    }
    let inverse = 1.0 / sum(scores);
    for score in scores {
        *score *= inverse;
    }
}

fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, value| larger(max, *value))
}

fn sum(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_known_odds() {
        // e^(0.5 * 2 ln k) = k, so the odds are 1 : 2 : ... : n.
        for n in [1, 5, 16, 37] {
            let mut scores: Vec<f32> = (1..=n).map(|k| 2.0 * (k as f32).ln()).collect();
            softmax(&mut scores, 0.5);
            let total = (n * (n + 1) / 2) as f32;
            for (k, p) in (1..=n).zip(scores) {
                assert!((p - k as f32 / total).abs() < 1e-6, "{k} of {n}: {p}");
            }
        }
    }
}
