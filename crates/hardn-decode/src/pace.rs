//! How many tokens are drafted at once.
//!
//! With a share α of proposals accepted, a draft of g tokens gives (1 − α^g) / (1 − α) tokens on average (Leviathan et
//! al. 2023, arXiv:2211.17192, equation 1, without the extra token: here the base model cannot go on alone). It costs g
//! passes of the security model and one pass of the base model over g tokens a text.

use std::{collections::BTreeMap, time::Duration};

use crate::{DraftLength, decoder::MAX_DRAFT};

/// Lengths tried first, so that the cost of several is known.
const FIRST: [usize; 5] = [4, 1, 8, 2, 16];
/// What a new measurement counts for in a mean.
const WEIGHT: f64 = 0.1;
/// Proposals a text's own acceptance is averaged over, about.
const MEMORY: f64 = 32.0;

/// Seconds of a pass by the number of tokens it reads.
#[derive(Clone, Debug, Default)]
struct Cost(BTreeMap<usize, f64>);

impl Cost {
    fn add(&mut self, n_tokens: usize, seconds: f64) {
        let mean = self.0.entry(n_tokens).or_insert(seconds);
        // What another process took from this one is not the pass's cost.
        *mean += WEIGHT * (seconds.min(2.0 * *mean) - *mean);
    }

    /// The mean, or a line through the nearest two.
    fn of(&self, n_tokens: usize) -> f64 {
        if let Some(seconds) = self.0.get(&n_tokens) {
            return *seconds;
        }
        let below = self.0.range(..n_tokens).next_back();
        let above = self.0.range(n_tokens..).next();
        match (below, above) {
            (Some((&x0, &y0)), Some((&x1, &y1))) => {
                y0 + (y1 - y0) * (n_tokens - x0) as f64 / (x1 - x0) as f64
            }
            (Some((&x, &y)), None) => y * n_tokens as f64 / x as f64,
            (None, Some((_, &y))) => y,
            (None, None) => 0.0,
        }
    }
}

/// The share of a text's proposals that was accepted, the latest counting most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acceptance {
    accepted: f64,
    proposed: f64,
}

impl Acceptance {
    pub(crate) fn add(&mut self, accepted: bool) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.accepted = self.accepted * keep + f64::from(u8::from(accepted));
        self.proposed = self.proposed * keep + 1.0;
    }

    /// The share, drawn towards `prior` while little is known.
    fn share(self, prior: f64) -> f64 {
        (self.accepted + 4.0 * prior) / (self.proposed + 4.0)
    }
}

/// Chooses draft lengths.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    draft: DraftLength,
    n_rounds: usize,
    security: Cost,
    base: Cost,
    all: Acceptance,
}

impl Pace {
    pub(crate) fn new(draft: DraftLength) -> Self {
        Self {
            draft,
            n_rounds: 0,
            security: Cost::default(),
            base: Cost::default(),
            all: Acceptance::default(),
        }
    }

    /// A pass of the security model.
    pub(crate) fn security_pass(&mut self, n_tokens: usize, time: Duration) {
        self.security.add(n_tokens, time.as_secs_f64());
    }

    /// A pass of the base model.
    pub(crate) fn base_pass(&mut self, n_tokens: usize, time: Duration) {
        self.base.add(n_tokens, time.as_secs_f64());
    }

    /// A proposal was judged.
    pub(crate) fn judged(&mut self, accepted: bool) {
        self.all.add(accepted);
    }

    /// The length for texts that go on side by side.
    pub(crate) fn length(&mut self, texts: &[Acceptance]) -> usize {
        if let DraftLength::Fixed(length) = self.draft {
            return length;
        }
        self.n_rounds += 1;
        if let Some(length) = FIRST.get(self.n_rounds - 1) {
            return *length;
        }
        let prior = self.all.share(0.8);
        let n = texts.len().max(1);
        let alpha = texts.iter().map(|text| text.share(prior)).sum::<f64>() / n as f64;
        let step = self.security.of(n);
        let tokens_a_second = |g: usize| {
            let tokens =
                if alpha < 1.0 { (1.0 - alpha.powi(g as i32)) / (1.0 - alpha) } else { g as f64 };
            tokens / (g as f64 * step + self.base.of(n * g))
        };
        (1..=MAX_DRAFT)
            .max_by(|&a, &b| tokens_a_second(a).total_cmp(&tokens_a_second(b)).then(b.cmp(&a)))
            .unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length for one text once costs are known, with passes of the security model at `c` of the base model's, and
    /// each further token of its pass at `v`.
    fn length(accepted: u32, of: u32, c: f64, v: f64) -> usize {
        let mut pace = Pace::new(DraftLength::Adaptive);
        let mut text = Acceptance::default();
        for i in 0..640 {
            text.add(i * accepted % of < accepted);
        }
        for _ in FIRST {
            let g = pace.length(&[text]);
            pace.security_pass(1, Duration::from_secs_f64(c));
            pace.base_pass(g, Duration::from_secs_f64(1.0 + v * (g - 1) as f64));
        }
        pace.length(&[text])
    }

    #[test]
    fn drafts_are_long_where_they_pay() {
        // A dear security model, a base model that gains nothing from many tokens at once, and good cases.
        for (accepted, of, c, v, expected) in [
            (9, 10, 20.0, 0.0, 1..=1),
            (9, 10, 0.1, 1.0, 1..=1),
            (1, 10, 0.125, 0.1, 1..=1),
            (1, 2, 0.125, 0.05, 2..=3),
            (9, 10, 0.125, 0.05, 4..=10),
            (1, 1, 0.05, 0.0, 16..=16),
        ] {
            let found = length(accepted, of, c, v);
            assert!(expected.contains(&found), "{accepted}/{of} c {c} v {v}: {found}");
        }
        let mut fixed = Pace::new(DraftLength::Fixed(3));
        assert_eq!([fixed.length(&[]), fixed.length(&[])], [3, 3]);
    }
}
