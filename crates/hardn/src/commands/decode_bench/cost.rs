//! What passes of both models cost, and what drafts of a length pay for it.

use std::time::Instant;

use hardn_decode::{LanguageModel, Row};

use crate::failure::Outcome;

/// Longest draft looked at.
pub(super) const MAX_DRAFT: usize = 16;
/// Times each pass is timed.
const TIMES: usize = 15;

/// Costs in passes of the base model over one token.
pub(super) struct Cost {
    /// Seconds of that pass.
    pub(super) pass: f64,
    /// The security model's pass over one token.
    pub(super) security: f64,
    /// The base model's pass over g tokens of a text, for g from 1.
    pub(super) base: Vec<f64>,
}

impl Cost {
    /// Times both models after a text.
    pub(super) fn measure(
        base: &dyn LanguageModel,
        security: &dyn LanguageModel,
        text: &[u32],
    ) -> Outcome<Self> {
        let mut all = Vec::new();
        for g in 1..=MAX_DRAFT {
            all.push(pass(base, text, g)?);
        }
        let security = pass(security, text, 1)? / all[0];
        Ok(Self { pass: all[0], security, base: all.iter().map(|time| time / all[0]).collect() })
    }

    /// How many times as fast as the base model alone drafts of `g` are with a share `alpha` of proposals accepted.
    pub(super) fn gain(&self, alpha: f64, g: usize) -> f64 {
        let tokens: f64 = (0..g).map(|i| alpha.powi(i as i32)).sum();
        tokens / (g as f64 * self.security + self.base[g - 1])
    }

    /// The draft that gains most, and its gain.
    pub(super) fn best(&self, alpha: f64) -> (usize, f64) {
        let gains = (1..=MAX_DRAFT).map(|g| (g, self.gain(alpha, g)));
        gains.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((1, 0.0))
    }
}

/// Seconds of a pass over `g` tokens after a text: the median.
fn pass(model: &dyn LanguageModel, text: &[u32], g: usize) -> Outcome<f64> {
    let mut memory = model.memory(text.len() + g)?;
    model.read(&mut [Row { memory: &mut memory, ids: text, all: false }])?;
    let ids = &text[..g.min(text.len())];
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let start = Instant::now();
        model.read(&mut [Row { memory: &mut memory, ids, all: true }])?;
        times.push(start.elapsed().as_secs_f64());
        memory.truncate(text.len());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TIMES / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_are_those_of_the_formula() {
        let cost = Cost { pass: 1.0, security: 0.125, base: vec![1.0; MAX_DRAFT] };
        // A draft of 1 is a step: a pass of each model.
        assert!((cost.gain(0.5, 1) - 1.0 / 1.125).abs() < 1e-12);
        assert!((cost.gain(0.5, 2) - 1.5 / 1.25).abs() < 1e-12);
        assert!(cost.best(0.95).0 > cost.best(0.5).0);
        let dear = Cost { pass: 1.0, security: 9.0, base: (1..=16).map(f64::from).collect() };
        assert_eq!(dear.best(0.9).0, 1);
    }
}
