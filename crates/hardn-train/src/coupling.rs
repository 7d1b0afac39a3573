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
