//! Losses that tie the log-probabilities of several rows together.
//!
//! Each is a function of the rows' negative log-likelihoods, so its gradient is that of a weighted sum of these, with
//! the function's derivatives as weights: one pass over the vocabulary gives the values, another one, with the weights,
//! the gradient.

use crate::{ExampleKind, LogProbs, LossRecipe, batch::MicroBatch};

/// What a coupled loss adds to a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Coupled {
    /// Its part of the loss that is minimised.
    pub(crate) loss: f64,
    /// Names, sums over examples or pairs, and how many these are, for reports.
    pub(crate) terms: Vec<(&'static str, f64, f64)>,
    /// For every pass, what each row's negative log-likelihood is multiplied by besides its own weight.
    pub(crate) weights: Vec<Vec<f64>>,
}

/// The contrast of a side's own adapter with the other one: `-ln(p_own / (p_own + p_other))` of every selected token.
///
/// `nll`: of every row under the secure and under the vulnerable adapter, in nats. `per_token`: it is reported as a mean
/// over tokens, not over examples.
///
/// # Source
/// He and Vechev 2023 (arXiv:2302.05319), section 4, the contrastive loss.
pub(crate) fn contrast(
    loss: &LossRecipe,
    batch: &MicroBatch,
    nll: [&[f32]; 2],
    per_token: bool,
) -> Coupled {
    let mut weights = vec![vec![0.0; batch.rows.len()]; 2];
    let (mut total, mut sum, mut owners) = (0.0, 0.0, Vec::new());
    for (row, &owner) in batch.owners.iter().enumerate() {
        if batch.kinds[owner] == ExampleKind::Utility {
            continue;
        }
        let own = batch.kinds[owner].adapter();
        // -ln(p / (p + q)) = ln(1 + e^(ln q - ln p)).
        let difference = f64::from(nll[own][row]) - f64::from(nll[1 - own][row]);
        let share = f64::from(batch.shares[row]);
        let factor = share * batch.scale * loss.contrastive_weight;
        weights[own][row] = factor * sigmoid(difference);
        weights[1 - own][row] = -factor * sigmoid(difference);
        total += factor * softplus(difference);
        sum += share * softplus(difference);
        owners.push(owner);
    }
    if !per_token {
        owners.dedup();
    }
    Coupled { loss: total, terms: vec![("contrastive", sum, owners.len() as f64)], weights }
}

/// The logistic loss of every pair: `-ln σ(β (s_secure - s_vulnerable) - γ)`, where a side's score `s` is the sum or
/// mean of its selected tokens' log-probabilities, less the same of the reference where there is one.
///
/// `nll` and `reference`: of every row, in nats. Reports the loss and the `margin` `β (s_secure - s_vulnerable)`.
///
/// # Source
/// Rafailov et al. 2023 (arXiv:2305.18290), equation 7; Meng et al. 2024 (arXiv:2405.14734), equation 6.
pub(crate) fn preference(
    loss: &LossRecipe,
    batch: &MicroBatch,
    nll: &[f32],
    reference: Option<&[f32]>,
) -> Coupled {
    let n_examples = batch.kinds.len();
    let mut counts = vec![0_usize; n_examples];
    let mut scores = vec![0.0; n_examples];
    for (row, &owner) in batch.owners.iter().enumerate() {
        counts[owner] += 1;
        scores[owner] += reference.map_or(0.0, |of| f64::from(of[row])) - f64::from(nll[row]);
    }
    let share = |owner: usize| match loss.log_probs {
        LogProbs::Sum => 1.0,
        LogProbs::Mean | LogProbs::Paper => 1.0 / counts[owner].max(1) as f64,
    };
    // What a side's score changes the loss by.
    let mut slopes = vec![0.0; n_examples];
    let (mut sum, mut margins) = (0.0, 0.0);
    for &[secure, vulnerable] in &batch.pairs {
        let advantage = scores[secure] * share(secure) - scores[vulnerable] * share(vulnerable);
        let margin = loss.beta * advantage;
        sum += softplus(loss.gamma - margin);
        margins += margin;
        let slope = -loss.beta * sigmoid(loss.gamma - margin) * batch.pair_scale;
        (slopes[secure], slopes[vulnerable]) = (slope, -slope);
    }
    let weights = batch.owners.iter().map(|&owner| -slopes[owner] * share(owner)).collect();
    let n = batch.pairs.len() as f64;
    Coupled {
        loss: sum * batch.pair_scale,
        terms: vec![(loss.kind.pair_term(), sum, n), ("margin", margins, n)],
        weights: vec![weights],
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;
    use crate::LossKind;

    /// Two examples with a row each, or two for the second.
    fn batch(kinds: [ExampleKind; 2], owners: &[usize]) -> MicroBatch {
        let n = owners.len();
        MicroBatch {
            kinds: kinds.to_vec(),
            owners: owners.to_vec(),
            rows: vec![0; n],
            shares: owners.iter().map(|&owner| 1.0 / (1 + owner) as f32).collect(),
            pairs: vec![[0, 1]],
            scale: 0.5,
            pair_scale: 0.5,
            ..MicroBatch::default()
        }
    }

    fn recipe(kind: LossKind) -> LossRecipe {
        LossRecipe { kind, ..LossRecipe::default() }.resolved()
    }

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn a_token_as_likely_under_both_adapters_costs_ln_2() {
        let sides = batch([ExampleKind::Secure, ExampleKind::Vulnerable], &[0, 1, 1]);
        // The second row: p = 1/4 under the secure adapter, 3/4 under its own, so -ln(3/4).
        let (quarter, own) = (4_f32.ln(), (4.0_f32 / 3.0).ln());
        let nll = [&[1.0, quarter, 2.0][..], &[1.0, own, 2.0]];
        let found = contrast(&recipe(LossKind::Sven), &sides, nll, false);
        let expected = [LN_2, (4.0_f64 / 3.0).ln() / 2.0, LN_2 / 2.0];
        close(found.loss, 4.0 * 0.5 * expected.iter().sum::<f64>());
        assert_eq!((found.terms[0].0, found.terms[0].2), ("contrastive", 2.0));
        close(found.terms[0].1, expected.iter().sum());
        // Derivatives: half of the factor where both are alike, a quarter of it where p = 3/4.
        for (weight, expected) in found.weights[0].iter().zip([1.0, -0.25, -0.5]) {
            close(*weight, expected);
        }
        for (weight, expected) in found.weights[1].iter().zip([-1.0, 0.25, 0.5]) {
            close(*weight, expected);
        }
    }

    #[test]
    fn a_preference_is_logistic_in_the_margin() {
        let pair = batch([ExampleKind::Secure, ExampleKind::Vulnerable], &[0, 1, 1]);
        let nll = [1.0, 2.0, 4.0];
        // Scores -1 and -6: beta 0.1 makes a margin of 0.5. Against a reference that is the same: none.
        let loss = recipe(LossKind::Dpo);
        let found = preference(&loss, &pair, &nll, None);
        let expected = (1.0 + (-0.5_f64).exp()).ln();
        close(found.loss, 0.5 * expected);
        assert_eq!(found.terms[0].0, "dpo");
        close(found.terms[1].1, 0.5);
        let slope = 0.5 * 0.1 / (1.0 + 0.5_f64.exp());
        for (weight, expected) in found.weights[0].iter().zip([slope, -slope, -slope]) {
            close(*weight, expected);
        }
        close(preference(&loss, &pair, &nll, Some(&nll)).loss, 0.5 * LN_2);
        // Means: -1 and -3; beta 2 makes 4, the margin asked for.
        let loss = LossRecipe { gamma: 4.0, ..recipe(LossKind::Simpo) };
        let found = preference(&loss, &pair, &nll, None);
        close(found.loss, 0.5 * LN_2);
        for (weight, expected) in found.weights[0].iter().zip([0.5, -0.25, -0.25]) {
            close(*weight, expected);
        }
    }

    #[test]
    fn neither_overflows_nor_hides_what_is_no_number() {
        close(softplus(1e4), 1e4);
        close(softplus(-1e4), 0.0);
        assert!(softplus(f64::NAN).is_nan() && sigmoid(f64::NAN).is_nan());
        let pair = batch([ExampleKind::Secure, ExampleKind::Vulnerable], &[0, 1]);
        let found = preference(&recipe(LossKind::Simpo), &pair, &[f32::NAN, 1.0], None);
        assert!(found.loss.is_nan());
    }
}
