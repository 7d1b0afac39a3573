//! From logits to a token.
//!
//! Order: repetition penalty, bias, temperature, top-k, top-p, min-p. Ties are ordered by (logit descending, id
//! ascending); the inverse distribution function runs over ids in ascending order.

use serde::{Deserialize, Serialize};

/// How a distribution is warped before a token is drawn from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Keeps the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of likeliest tokens that holds this much probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Divides positive and multiplies negative logits of tokens that occur in the text; 1 does nothing
    /// (Keskar et al. 2019, arXiv:1909.05858, as in common libraries).
    pub repetition_penalty: f64,
    /// Token ids and what is added to their logits.
    pub bias: Vec<(u32, f64)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Whether a distribution differs from the softmax of the logits.
    pub fn changes(&self) -> bool {
        *self != Self::default()
    }

    /// What makes no sense, by key.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let within = |value: f64, low: f64, high: f64| (low..=high).contains(&value);
        if !within(self.temperature, 0.0, 100.0) {
            Some("`temperature` must be between 0 (greedy) and 100")
        } else if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            Some("`top_p` must be above 0 and at most 1")
        } else if !within(self.min_p, 0.0, 1.0) {
            Some("`min_p` must be between 0 and 1")
        } else if !within(self.repetition_penalty, 1e-3, 1e3) {
            Some("`repetition_penalty` must be between 0.001 and 1000 (1 does nothing)")
        } else if self.bias.iter().any(|(_, bias)| bias.is_nan()) {
            Some("`bias` holds a value that is not a number")
        } else {
            None
        }
    }
}

/// The warped distribution: pairs of token id and probability, ids ascending, probabilities above 0 with sum 1.
///
/// `logits` has one entry per token, all finite; `context` is the text so far, prompt included.
pub fn distribution(logits: &[f32], context: &[u32], sampling: &Sampling) -> Vec<(u32, f64)> {
    let changed = adjusted(logits, context, sampling);
    let logits = changed.as_deref().unwrap_or(logits);
    let best = argmax(logits);
    if sampling.temperature == 0.0 {
        return vec![(best as u32, 1.0)];
    }
    let top = logits[best];
    let scale = (1.0 / sampling.temperature) as f32;
    let mut kept: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .map(|(id, &logit)| (id as u32, f64::from(((logit - top) * scale).exp())))
        .filter(|&(_, weight)| weight > 0.0)
        .collect();
    // Likelier first. Weights may tie where logits do not, so logits decide.
    let likelier = |a: &(u32, f64), b: &(u32, f64)| {
        logits[b.0 as usize].total_cmp(&logits[a.0 as usize]).then(a.0.cmp(&b.0))
    };
    if sampling.top_k > 0 && sampling.top_k < kept.len() {
        kept.select_nth_unstable_by(sampling.top_k - 1, likelier);
        kept.truncate(sampling.top_k);
        kept.sort_unstable_by_key(|&(id, _)| id);
    }
    if sampling.top_p < 1.0 {
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        let wanted = sampling.top_p * total;
        // All tokens this unlikely hold too little together to be needed, so few remain to be sorted.
        let floor = (total - wanted) / kept.len() as f64;
        let mut likely: Vec<(u32, f64)> =
            kept.iter().copied().filter(|&(_, weight)| weight > floor * 0.999).collect();
        likely.sort_unstable_by(likelier);
        let mut sum = 0.0;
        let n_kept = likely.iter().position(|&(_, weight)| {
            sum += weight;
            sum >= wanted
        });
        likely.truncate(n_kept.map_or(likely.len(), |index| index + 1));
        kept = likely;
    }
    if sampling.min_p > 0.0 {
        // The likeliest token's weight is 1.
        kept.retain(|&(_, weight)| weight >= sampling.min_p);
    }
    kept.sort_unstable_by_key(|&(id, _)| id);
    let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
    for (_, weight) in &mut kept {
        *weight /= total;
    }
    kept
}

/// The token at `u` in `[0, 1)` of a distribution from [`distribution`].
pub fn draw(distribution: &[(u32, f64)], u: f64) -> u32 {
    let mut sum = 0.0;
    for &(id, probability) in distribution {
        sum += probability;
        if u < sum {
            return id;
        }
    }
    // Rounding left the sum below 1.
    distribution.last().map_or(0, |&(id, _)| id)
}

/// Natural log-probability of a token under the softmax of the logits, before any warping.
pub fn log_prob(logits: &[f32], id: u32) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - top).exp())).sum();
    f64::from(logits[id as usize] - top) - sum.ln()
}

/// Logits after penalty and bias; `None` where neither changes anything.
fn adjusted(logits: &[f32], context: &[u32], sampling: &Sampling) -> Option<Vec<f32>> {
    if sampling.repetition_penalty == 1.0 && sampling.bias.is_empty() {
        return None;
    }
    let mut logits = logits.to_vec();
    if sampling.repetition_penalty != 1.0 {
        let penalty = sampling.repetition_penalty as f32;
        let mut seen = context.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }
    for &(id, bias) in &sampling.bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias as f32;
        }
    }
    Some(logits)
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax is these probabilities.
    fn of(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    #[track_caller]
    fn check(probabilities: &[f64], sampling: &Sampling, expected: &[(u32, f64)]) {
        let found = distribution(&of(probabilities), &[], sampling);
        let ids: Vec<u32> = found.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, expected.iter().map(|&(id, _)| id).collect::<Vec<_>>(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.1 - expected.1).abs() < 1e-6, "{found:?}, expected {expected:?}");
        }
    }

    fn sampling(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        sampling
    }

    #[test]
    fn each_warp_alone() {
        let p = [0.1, 0.4, 0.2, 0.3];
        check(&p, &Sampling::default(), &[(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)]);
        check(&p, &sampling(|s| s.temperature = 0.0), &[(1, 1.0)]);
        // At half the temperature probabilities are squared: 1, 16, 4 and 9 of 30.
        let squared = [(0, 1.0 / 30.0), (1, 16.0 / 30.0), (2, 4.0 / 30.0), (3, 9.0 / 30.0)];
        check(&p, &sampling(|s| s.temperature = 0.5), &squared);
        check(&p, &sampling(|s| s.top_k = 2), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        check(&p, &sampling(|s| s.top_k = 9), &[(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)]);
        check(&p, &sampling(|s| s.top_p = 0.65), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        check(&p, &sampling(|s| s.top_p = 0.75), &[(1, 4.0 / 9.0), (2, 2.0 / 9.0), (3, 3.0 / 9.0)]);
        check(&p, &sampling(|s| s.top_p = 0.001), &[(1, 1.0)]);
        check(&p, &sampling(|s| s.min_p = 0.49), &[(1, 4.0 / 9.0), (2, 2.0 / 9.0), (3, 3.0 / 9.0)]);
        check(
            &p,
            &sampling(|s| s.bias = vec![(1, f64::NEG_INFINITY), (77, 1.0)]),
            &[(0, 1.0 / 6.0), (2, 2.0 / 6.0), (3, 3.0 / 6.0)],
        );
    }

    #[test]
    fn top_p_counts_after_top_k() {
        // Of the two kept tokens the first holds 4/7, enough for one half.
        let both = sampling(|s| (s.top_k, s.top_p) = (2, 0.5));
        check(&[0.1, 0.4, 0.2, 0.3], &both, &[(1, 1.0)]);
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        let p = [0.25; 4];
        check(&p, &sampling(|s| s.top_k = 2), &[(0, 0.5), (1, 0.5)]);
        check(&p, &sampling(|s| s.top_p = 0.3), &[(0, 0.5), (1, 0.5)]);
        check(&p, &sampling(|s| s.temperature = 0.0), &[(0, 1.0)]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_whatever_the_shape() {
        for seed in 1..50_u32 {
            let logits: Vec<f32> = (0..500_u32)
                .map(|i| {
                    ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977)) >> 20) as f32 / 400.0
                })
                .collect();
            let full = distribution(&logits, &[], &Sampling::default());
            let mut sorted: Vec<f64> = full.iter().map(|&(_, p)| p).collect();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for top_p in [0.1, 0.5, 0.9, 0.95, 0.999] {
                let kept = distribution(&logits, &[], &sampling(|s| s.top_p = top_p));
                let mass = |n: usize| sorted[..n].iter().sum::<f64>();
                assert!(mass(kept.len()) >= top_p - 1e-9, "{seed} {top_p}");
                assert!(mass(kept.len() - 1) < top_p + 1e-9, "{seed} {top_p}");
            }
        }
    }

    #[test]
    fn the_penalty_moves_logits_towards_unlikely() {
        let penalised = sampling(|s| s.repetition_penalty = 2.0);
        let found = distribution(&[2.0, -1.0, 0.0], &[0, 1, 1, 99], &penalised);
        let expected = distribution(&[1.0, -2.0, 0.0], &[], &Sampling::default());
        assert_eq!(found, expected);
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let p = [0.05, 0.5, 0.15, 0.3];
        let kept = distribution(&of(&p), &[], &Sampling::default());
        let draws = crate::Draws::new(3, &[0; 32], 0, 0, 0, crate::Role::Text);
        let mut counts = [0_u32; 4];
        let n = 100_000;
        for index in 0..n {
            counts[draw(&kept, draws.uniform(index)) as usize] += 1;
        }
        for (count, p) in counts.into_iter().zip(p) {
            // Four standard deviations.
            let error = (f64::from(count) / n as f64 - p).abs();
            assert!(error < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn the_inverse_runs_over_ids() {
        let kept = distribution(&of(&[0.25, 0.5, 0.25]), &[], &Sampling::default());
        for (u, id) in
            [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 2), (0.999_999_999_999, 2)]
        {
            assert_eq!(draw(&kept, u), id, "{u}");
        }
        assert_eq!(draw(&[(4, 0.5), (6, 0.4)], 0.95), 6);
    }

    #[test]
    fn log_probs_are_of_the_raw_distribution() {
        let logits = of(&[0.25, 0.75]);
        assert!((log_prob(&logits, 1) - 0.75_f64.ln()).abs() < 1e-6);
        assert!((log_prob(&[1000.0, 0.0], 1) + 1000.0).abs() < 1e-3);
    }
}
