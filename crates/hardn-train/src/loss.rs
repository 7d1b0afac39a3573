//! Per-token losses over a row of logits: negative log-likelihood, unlikelihood, Kullback-Leibler divergence.
//!
//! Each function returns one loss per row, in nats, and is differentiable in the logits; the caller
//! multiplies by weights and sums. On the CPU a fused operation keeps two numbers per row between
//! forward and backward; elsewhere the same is written with elementary tensor operations.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Shape, Storage, Tensor,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Result, TrainError,
    exp::{log_sum_exp, scaled_exp},
};

/// Floor on `1 - p`, as in SafeCoder's released trainer; one token costs at most 11.5 nats.
pub const MIN_COMPLEMENT: f64 = 1e-5;

/// What a row's target token is charged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// `-ln p(target)`.
    Nll,
    /// `-ln max(1 - p(target), 1e-5)`; no gradient where the floor holds.
    Unlikelihood,
}

/// Which way a divergence points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlDirection {
    /// `KL(model || reference)`: papers 002 (equation 5) and 004 (equation 2).
    #[default]
    ModelToReference,
    /// `KL(reference || model)`: what the released code of SVEN, SafeCoder and CoSec computes.
    ReferenceToModel,
}

/// The loss of each row's target token: `[n]` f32, in nats, not negative.
///
/// # Shapes
/// - `logits`: `[n, vocab]` f32; row `i` predicts `targets[i]`
/// - `targets`, `terms`: `n` each
///
/// # Errors
/// Shapes that do not fit, or a target outside the vocabulary.
///
/// # Source
/// Unlikelihood: Welleck et al. 2020 (arXiv:1908.04319); on vulnerable tokens: He et al. 2024
/// (arXiv:2402.09497), equation 4. The floor is the released trainer's.
pub fn token_loss(logits: &Tensor, targets: &[u32], terms: &[Term]) -> Result<Tensor> {
    let (n, vocab) = logits.dims2()?;
    if targets.len() != n || terms.len() != n {
        return Err(TrainError::Shape(format!(
            "{n} rows of logits, {} targets, {} terms",
            targets.len(),
            terms.len()
        )));
    }
    if let Some(target) = targets.iter().find(|&&t| t as usize >= vocab) {
        return Err(TrainError::Shape(format!(
            "token {target} is outside the vocabulary of {vocab}; is this the model's tokenizer?"
        )));
    }
    if is_fused(logits) {
        let op = TokenLoss {
            targets: targets.to_vec(),
            terms: terms.to_vec(),
            log_sums: Mutex::new(Vec::new()),
        };
        return Ok(logits.contiguous()?.apply_op1(op)?);
    }
    elementary_token_loss(logits, targets, terms)
}

/// The divergence between the next-token distributions of model and reference, per row: `[n]` f32, in nats.
///
/// # Shapes
/// - `logits`, `reference`: `[n, vocab]` f32; no gradient flows into `reference`
///
/// # Errors
/// Shapes that do not fit.
///
/// # Source
/// He and Vechev 2023 (arXiv:2302.05319), section 4; He et al. 2024 (arXiv:2402.09497), equation 5.
pub fn kl_divergence(
    logits: &Tensor,
    reference: &Tensor,
    direction: KlDirection,
) -> Result<Tensor> {
    if logits.dims2()? != reference.dims2()? {
        return Err(TrainError::Shape(format!(
            "logits {:?}, reference {:?}",
            logits.dims(),
            reference.dims()
        )));
    }
    let reference = reference.detach();
    if is_fused(logits) {
        let op = KlLoss { direction, saved: Mutex::new(Vec::new()) };
        return Ok(logits.contiguous()?.apply_op2(&reference.contiguous()?, op)?);
    }
    elementary_kl_divergence(logits, &reference, direction)
}

fn is_fused(logits: &Tensor) -> bool {
    matches!(logits.device(), Device::Cpu) && logits.dtype() == DType::F32
}

fn elementary_token_loss(logits: &Tensor, targets: &[u32], terms: &[Term]) -> Result<Tensor> {
    let n = targets.len();
    let log_p = log_softmax(logits)?;
    let index = Tensor::from_slice(targets, (n, 1), logits.device())?;
    let log_p = log_p.gather(&index, D::Minus1)?.squeeze(D::Minus1)?; // [n]
    let nll = log_p.neg()?;
    if terms.iter().all(|&term| term == Term::Nll) {
        return Ok(nll);
    }
    // The gradient of 1/complement times p stays finite: `clamp` passes none below the floor.
    let complement = (1.0 - log_p.exp()?)?.clamp(MIN_COMPLEMENT, 1.0)?;
    let unlikelihood = complement.log()?.neg()?;
    let picks: Vec<u8> = terms.iter().map(|&term| u8::from(term == Term::Nll)).collect();
    let picks = Tensor::from_vec(picks, n, logits.device())?;
    Ok(picks.where_cond(&nll, &unlikelihood)?)
}

fn elementary_kl_divergence(
    logits: &Tensor,
    reference: &Tensor,
    direction: KlDirection,
) -> Result<Tensor> {
    let (log_p, log_q) = (log_softmax(logits)?, log_softmax(reference)?);
    let divergence = match direction {
        KlDirection::ModelToReference => (log_p.exp()? * (&log_p - &log_q)?)?,
        KlDirection::ReferenceToModel => (log_q.exp()? * (&log_q - &log_p)?)?,
    };
    Ok(divergence.sum(D::Minus1)?)
}

fn log_softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// The f32 values of a contiguous CPU tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("the fused losses need contiguous logits");
    };
    Ok(&all[start..end])
}

/// Calls `work` with the values of a contiguous CPU tensor.
fn with_values<T>(
    tensor: &Tensor,
    work: impl FnOnce(&[f32]) -> candle_core::Result<T>,
) -> candle_core::Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => work(values(storage, layout)?),
        _ => candle_core::bail!("the fused losses run on the CPU only"),
    }
}

struct TokenLoss {
    targets: Vec<u32>,
    terms: Vec<Term>,
    /// `ln sum exp` of each row, from forward to backward.
    log_sums: Mutex<Vec<f32>>,
}

impl CustomOp1 for TokenLoss {
    fn name(&self) -> &'static str {
        "token-loss"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let logits = values(storage, layout)?;
        let n = self.targets.len();
        let vocab = logits.len() / n.max(1);
        let mut losses = vec![0.0_f32; n];
        let mut log_sums = vec![0.0_f32; n];
        losses.par_iter_mut().zip(&mut log_sums).enumerate().for_each(|(i, (loss, log_sum))| {
            let row = &logits[i * vocab..(i + 1) * vocab];
            *log_sum = log_sum_exp(row);
            let nll = f64::from(*log_sum) - f64::from(row[self.targets[i] as usize]);
            *loss = match self.terms[i] {
                Term::Nll => nll as f32,
                // `fmax` would turn a NaN into the floor and hide it.
                Term::Unlikelihood if nll.is_nan() => f32::NAN,
                Term::Unlikelihood => -(-(-nll).exp_m1()).max(MIN_COMPLEMENT).ln() as f32,
            };
        });
        *self.log_sums.lock().unwrap_or_else(PoisonError::into_inner) = log_sums;
        Ok((CpuStorage::F32(losses), Shape::from(n)))
    }

    /// With `p` the softmax and `y` the target: NLL has gradient `p - [y]`, unlikelihood
    /// `p_y / (1 - p_y) * ([y] - p)`.
    fn bwd(
        &self,
        logits: &Tensor,
        _losses: &Tensor,
        upstream: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let upstream = upstream.to_vec1::<f32>()?;
        let log_sums = self.log_sums.lock().unwrap_or_else(PoisonError::into_inner);
        let gradient = with_values(logits, |logits| {
            let vocab = logits.len() / self.targets.len().max(1);
            Ok(hardn_models::ops::filled(logits.len(), vocab, |i, out| {
                if upstream[i] == 0.0 {
                    return;
                }
                let row = &logits[i * vocab..(i + 1) * vocab];
                let target = self.targets[i] as usize;
                let nll = f64::from(log_sums[i]) - f64::from(row[target]);
                let factor = match self.terms[i] {
                    Term::Nll => 1.0,
                    Term::Unlikelihood => {
                        let complement = -(-nll).exp_m1();
                        if complement < MIN_COMPLEMENT {
                            return;
                        }
                        -(-nll).exp() / complement
                    }
                };
                let scale = (f64::from(upstream[i]) * factor) as f32;
                scaled_exp(row, log_sums[i], scale, out);
                out[target] -= scale;
            }))
        })?;
        Ok(Some(Tensor::from_vec(gradient, logits.dims(), logits.device())?))
    }
}

struct KlLoss {
    direction: KlDirection,
    /// Per row: `ln sum exp` of logits and reference, and the divergence.
    saved: Mutex<Vec<[f32; 3]>>,
}

impl CustomOp2 for KlLoss {
    fn name(&self) -> &'static str {
        "kl-loss"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        reference: &CpuStorage,
        reference_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, vocab) = layout.shape().dims2()?;
        let logits = values(storage, layout)?;
        let reference = values(reference, reference_layout)?;
        let mut saved = vec![[0.0_f32; 3]; n];
        saved.par_iter_mut().enumerate().for_each_init(
            || vec![0.0_f32; vocab],
            |weights, (i, saved)| {
                let x = &logits[i * vocab..(i + 1) * vocab];
                let y = &reference[i * vocab..(i + 1) * vocab];
                let (log_p, log_q) = (log_sum_exp(x), log_sum_exp(y));
                // Sum of w * (ln w - ln v): w is the model's or the reference's distribution.
                let (from, to, from_sum, to_sum) = match self.direction {
                    KlDirection::ModelToReference => (x, y, log_p, log_q),
                    KlDirection::ReferenceToModel => (y, x, log_q, log_p),
                };
                scaled_exp(from, from_sum, 1.0, weights);
                let divergence: f64 = weights
                    .iter()
                    .zip(from.iter().zip(to))
                    .filter(|(w, _)| **w != 0.0)
                    .map(|(&w, (&a, &b))| f64::from(w) * f64::from((a - from_sum) - (b - to_sum)))
                    .sum();
                *saved = [log_p, log_q, divergence as f32];
            },
        );
        let losses = saved.iter().map(|row| row[2]).collect();
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok((CpuStorage::F32(losses), Shape::from(n)))
    }

    /// `KL(p || q)` has gradient `p * (ln p - ln q - KL)`, `KL(q || p)` has `p - q`.
    fn bwd(
        &self,
        logits: &Tensor,
        reference: &Tensor,
        _losses: &Tensor,
        upstream: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, vocab) = logits.dims2()?;
        let upstream = upstream.to_vec1::<f32>()?;
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let gradient = with_values(logits, |logits| {
            with_values(reference, |reference| {
                let mut gradient = hardn_models::ops::zeros(logits.len());
                gradient.par_chunks_mut(vocab).enumerate().for_each(|(i, out)| {
                    let x = &logits[i * vocab..(i + 1) * vocab];
                    let y = &reference[i * vocab..(i + 1) * vocab];
                    let [log_p, log_q, divergence] = saved[i];
                    scaled_exp(x, log_p, upstream[i], out);
                    match self.direction {
                        KlDirection::ModelToReference => {
                            let shift = divergence + log_p - log_q;
                            for (out, (&a, &b)) in out.iter_mut().zip(x.iter().zip(y)) {
                                *out *= a - b - shift;
                            }
                        }
                        KlDirection::ReferenceToModel => {
                            let mut q = vec![0.0_f32; vocab];
                            scaled_exp(y, log_q, upstream[i], &mut q);
                            for (out, q) in out.iter_mut().zip(q) {
                                *out -= q;
                            }
                        }
                    }
                });
                Ok(gradient)
            })
        })?;
        Ok((Some(Tensor::from_vec(gradient, logits.dims(), logits.device())?), None))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    const LN_2: f32 = std::f32::consts::LN_2;

    #[track_caller]
    fn check_token(logits: &[f32], target: u32, term: Term, expected: f32) {
        let row = Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu).unwrap();
        let loss = token_loss(&row, &[target], &[term]).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((loss - expected).abs() < 1e-5, "{loss} is not {expected}");
    }

    #[test]
    fn token_losses() {
        // Two equal logits: p = 1/2.
        check_token(&[0.0, 0.0], 0, Term::Nll, LN_2);
        check_token(&[0.0, 0.0], 1, Term::Unlikelihood, LN_2);
        // Logits ln 3 and 0: p = 3/4, so -ln p = ln 4/3 and -ln(1 - p) = ln 4.
        check_token(&[3_f32.ln(), 0.0], 0, Term::Nll, (4.0_f32 / 3.0).ln());
        check_token(&[3_f32.ln(), 0.0], 0, Term::Unlikelihood, 4_f32.ln());
        // p rounds to 1: the floor holds.
        check_token(&[50.0, 0.0], 0, Term::Unlikelihood, -(1e-5_f32.ln()));
        check_token(&[50.0, 0.0], 1, Term::Unlikelihood, 0.0);
    }

    #[test]
    fn divergence_of_a_fair_from_a_loaded_coin() {
        // p = (3/4, 1/4), q = (1/2, 1/2): KL(p||q) = 3/4 ln 3/2 + 1/4 ln 1/2, KL(q||p) = 1/2 ln 2/3 + 1/2 ln 2.
        let p = Tensor::new(&[[3_f32.ln(), 0.0]], &Device::Cpu).unwrap();
        let q = Tensor::new(&[[1_f32, 1.0]], &Device::Cpu).unwrap();
        let cases = [
            (KlDirection::ModelToReference, 0.75 * 1.5_f32.ln() - 0.25 * LN_2),
            (KlDirection::ReferenceToModel, 0.5 * (2.0_f32 / 3.0).ln() + 0.5 * LN_2),
        ];
        for (direction, expected) in cases {
            let loss = kl_divergence(&p, &q, direction).unwrap().to_vec1::<f32>().unwrap()[0];
            assert!((loss - expected).abs() < 1e-6, "{direction:?}: {loss} is not {expected}");
        }
    }

    /// Losses and gradients of the fused form equal the elementary form's, under uneven upstream gradients.
    #[track_caller]
    fn check_against_elementary(
        rows: usize,
        vocab: usize,
        fused: impl Fn(&Tensor) -> Result<Tensor>,
        elementary: impl Fn(&Tensor) -> Result<Tensor>,
    ) {
        let mut rng = crate::rng::Rng::new(5, &[vocab as u64]);
        let values: Vec<f32> =
            (0..rows * vocab).map(|_| rng.below(8000) as f32 / 1000.0 - 4.0).collect();
        let logits = Var::from_vec(values, (rows, vocab), &Device::Cpu).unwrap();
        let weights: Vec<f32> = (0..rows).map(|i| i as f32 / 3.0 - 0.5).collect();
        let weights = Tensor::from_vec(weights, rows, &Device::Cpu).unwrap();
        let run = |loss: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let losses = loss(logits.as_tensor()).unwrap();
            let sum = (&losses * &weights).unwrap().sum_all().unwrap();
            let gradient = sum.backward().unwrap().remove(logits.as_tensor()).unwrap();
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (losses.to_vec1::<f32>().unwrap(), gradient)
        };
        let (a, b) = (run(&fused), run(&elementary));
        for (a, b) in a.0.iter().zip(&b.0).chain(a.1.iter().zip(&b.1)) {
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "{a} is not {b}");
        }
    }

    #[test]
    fn fused_equals_elementary() {
        for (rows, vocab) in [(1, 2), (6, 5), (9, 40), (4, 333)] {
            let targets: Vec<u32> = (0..rows).map(|i| ((i * 7 + 1) % vocab) as u32).collect();
            let terms: Vec<Term> = (0..rows)
                .map(|i| if i % 2 == 0 { Term::Unlikelihood } else { Term::Nll })
                .collect();
            check_against_elementary(
                rows,
                vocab,
                |x| token_loss(x, &targets, &terms),
                |x| elementary_token_loss(x, &targets, &terms),
            );
            let reference: Vec<f32> =
                (0..rows * vocab).map(|i| ((i * 31 % 17) as f32 - 8.0) / 4.0).collect();
            let reference = Tensor::from_vec(reference, (rows, vocab), &Device::Cpu).unwrap();
            for direction in [KlDirection::ModelToReference, KlDirection::ReferenceToModel] {
                check_against_elementary(
                    rows,
                    vocab,
                    |x| kl_divergence(x, &reference, direction),
                    |x| elementary_kl_divergence(x, &reference, direction),
                );
            }
        }
    }

    #[test]
    fn the_floor_passes_no_gradient() {
        let logits = Var::new(&[[50_f32, 0.0]], &Device::Cpu).unwrap();
        let loss = token_loss(logits.as_tensor(), &[0], &[Term::Unlikelihood]).unwrap();
        let gradient = loss.sum_all().unwrap().backward().unwrap().remove(logits.as_tensor());
        assert_eq!(gradient.unwrap().to_vec2::<f32>().unwrap(), [[0.0, 0.0]]);
    }

    #[test]
    fn not_a_number_stays_one() {
        let logits = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).unwrap();
        for term in [Term::Nll, Term::Unlikelihood] {
            let loss = token_loss(&logits, &[0], &[term]).unwrap().to_vec1::<f32>().unwrap();
            assert!(loss[0].is_nan(), "{term:?}");
        }
    }
}
