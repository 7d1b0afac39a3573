//! Per-token losses over a row of logits: negative log-likelihood, unlikelihood, Kullback-Leibler divergence.
//!
//! Each function returns one loss per row, in nats, and is differentiable in the logits; the caller
//! multiplies by weights and sums. They are written with elementary tensor operations, for any device; on the
//! CPU training takes [`hardn_models::Model::head_loss`], which never holds the logits of all rows.

use candle_core::{D, Tensor};
pub use hardn_models::ops::{KlDirection, MIN_COMPLEMENT, Term};

use crate::{Result, TrainError};

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
    let reference = &reference.detach();
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use hardn_models::ops::{Charges, Head, vocabulary_loss, vocabulary_losses};

    use super::*;

    const LN_2: f32 = std::f32::consts::LN_2;

    /// Both forms of losses from logits: the head of the fused one changes nothing.
    fn fused(logits: &Tensor, charges: &Charges, reference: Option<&Tensor>) -> (Tensor, Vec<f32>) {
        let head = |x: &Tensor| Head {
            x: x.clone(),
            weight: Tensor::eye(x.dim(1).unwrap(), DType::F32, &Device::Cpu).unwrap(),
            bias: None,
            low_rank: None,
        };
        vocabulary_loss(&head(logits), charges, reference.map(head).as_ref()).unwrap()
    }

    fn tokens<'a>(targets: &'a [u32], terms: &'a [Term], weights: &'a [f32]) -> Charges<'a> {
        let direction = KlDirection::default();
        Charges { targets, terms, weights, kl_weights: &[], direction }
    }

    fn divergences(kl_weights: &[f32], direction: KlDirection) -> Charges<'_> {
        Charges { targets: &[], terms: &[], weights: &[], kl_weights, direction }
    }

    #[track_caller]
    fn check_token(logits: &[f32], target: u32, term: Term, expected: f32) {
        let row = Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu).unwrap();
        let plain = token_loss(&row, &[target], &[term]).unwrap().to_vec1::<f32>().unwrap()[0];
        let (_, fused) = fused(&row, &tokens(&[target], &[term], &[1.0]), None);
        for loss in [plain, fused[0]] {
            assert!((loss - expected).abs() < 1e-5, "{loss} is not {expected}");
        }
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
            let plain = kl_divergence(&p, &q, direction).unwrap().to_vec1::<f32>().unwrap()[0];
            let (_, fused) = fused(&p, &divergences(&[1.0], direction), Some(&q));
            for loss in [plain, fused[0]] {
                assert!((loss - expected).abs() < 1e-6, "{direction:?}: {loss} is not {expected}");
            }
        }
    }

    fn drawn(seed: u64, shape: &[usize], size: f32) -> Var {
        let mut rng = crate::rng::Rng::new(seed, &[shape[0] as u64]);
        let n = shape.iter().product();
        let values: Vec<f32> =
            (0..n).map(|_| (rng.below(8000) as f32 / 4000.0 - 1.0) * size).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Losses and gradients of the fused form equal the elementary form's, for rows of both kinds.
    #[track_caller]
    fn check_against_elementary(
        (n, n_kl, vocab, width): (usize, usize, usize, usize),
        with_bias: bool,
        rank: usize,
        direction: KlDirection,
    ) {
        let bias = drawn(3, &[vocab], 1.0);
        let head = |seed: u64, rows: usize| Head {
            x: drawn(seed, &[rows, width], 2.0).as_tensor().clone(),
            weight: drawn(seed + 1, &[vocab, width], 1.0).as_tensor().clone(),
            bias: with_bias.then(|| bias.as_tensor().clone()),
            low_rank: (rank > 0).then(|| {
                let low = drawn(seed + 2, &[rows, rank], 1.0).as_tensor().clone();
                (low, drawn(seed + 3, &[vocab, rank], 1.0).as_tensor().clone())
            }),
        };
        let (own, reference) = (head(10, n + n_kl), head(20, n_kl));
        let logits = |head: &Head| {
            let mut logits = head.x.matmul(&head.weight.t().unwrap()).unwrap();
            if let Some((low, b)) = &head.low_rank {
                logits = (logits + low.matmul(&b.t().unwrap()).unwrap()).unwrap();
            }
            head.bias.iter().fold(logits, |logits, bias| logits.broadcast_add(bias).unwrap())
        };
        let targets: Vec<u32> = (0..n).map(|i| ((i * 7 + 1) % vocab) as u32).collect();
        let terms: Vec<Term> =
            (0..n).map(|i| if i % 2 == 0 { Term::Unlikelihood } else { Term::Nll }).collect();
        let weight = |i: usize| (i % 11) as f32 / 3.0 - 0.5;
        let weights: Vec<f32> = (0..n).map(weight).collect();
        let kl_weights: Vec<f32> = (0..n_kl).map(weight).collect();
        let charges = Charges {
            targets: &targets,
            terms: &terms,
            weights: &weights,
            kl_weights: &kl_weights,
            direction,
        };
        // Beside another head over the same reference, each is what it is alone.
        let other = head(30, n + n_kl);
        let [(_, of_other), (fused_total, fused_losses)] =
            vocabulary_losses([&other, &own], [&charges, &charges], Some(&reference)).unwrap();
        assert_eq!(of_other, vocabulary_loss(&other, &charges, Some(&reference)).unwrap().1);

        let all = logits(&own);
        let mut losses = Vec::new();
        if n > 0 {
            losses.push(token_loss(&all.narrow(0, 0, n).unwrap(), &targets, &terms).unwrap());
        }
        if n_kl > 0 {
            let rows = all.narrow(0, n, n_kl).unwrap();
            losses.push(kl_divergence(&rows, &logits(&reference), direction).unwrap());
        }
        let losses = Tensor::cat(&losses, 0).unwrap();
        let factors = Tensor::new([weights, kl_weights].concat(), &Device::Cpu).unwrap();
        let total = (&losses * factors).unwrap().sum_all().unwrap();
        for (a, b) in fused_losses.iter().zip(losses.to_vec1::<f32>().unwrap()) {
            assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "loss: {a} is not {b}");
        }
        // An upstream gradient of 2.
        let fused = (fused_total * 2.0).unwrap().backward().unwrap();
        let plain = (total * 2.0).unwrap().backward().unwrap();
        let mut trained = vec![&own.x];
        match &own.low_rank {
            Some((low, b)) => trained.extend([low, b]),
            None => trained.extend([&own.weight].into_iter().chain(&own.bias)),
        }
        for (i, tensor) in trained.into_iter().enumerate() {
            let values = |grads: &candle_core::backprop::GradStore| {
                let gradient = grads.get(tensor).unwrap_or_else(|| panic!("no gradient {i}"));
                gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let (a, b) = (values(&fused), values(&plain));
            let size = b.iter().fold(1.0_f32, |max, b| max.max(b.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() < 2e-5 * size, "gradient {i}: {a} is not {b} at {size}");
            }
        }
    }

    #[test]
    fn fused_equals_elementary() {
        // The last two take several chunks of rows and blocks of words.
        for sizes in
            [(1, 0, 2, 1), (6, 1, 5, 4), (0, 9, 40, 7), (40, 37, 1333, 16), (300, 270, 17_000, 3)]
        {
            for direction in [KlDirection::ModelToReference, KlDirection::ReferenceToModel] {
                check_against_elementary(sizes, false, 0, direction);
                check_against_elementary(sizes, true, 3, direction);
            }
            check_against_elementary(sizes, true, 0, KlDirection::default());
        }
    }

    #[test]
    fn the_floor_passes_no_gradient() {
        let logits = Var::new(&[[50_f32, 0.0]], &Device::Cpu).unwrap();
        let charges = tokens(&[0], &[Term::Unlikelihood], &[1.0]);
        let (fused, _) = fused(logits.as_tensor(), &charges, None);
        let plain = token_loss(logits.as_tensor(), &[0], &[Term::Unlikelihood]).unwrap();
        for loss in [fused, plain.sum_all().unwrap()] {
            let gradient = loss.backward().unwrap().remove(logits.as_tensor());
            assert_eq!(gradient.unwrap().to_vec2::<f32>().unwrap(), [[0.0, 0.0]]);
        }
    }

    #[test]
    fn not_a_number_stays_one() {
        let logits = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).unwrap();
        for term in [Term::Nll, Term::Unlikelihood] {
            let (total, losses) = fused(&logits, &tokens(&[0], &[term], &[1.0]), None);
            assert!(losses[0].is_nan() && total.to_scalar::<f32>().unwrap().is_nan(), "{term:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let logits = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
        let head = Head {
            x: logits.clone(),
            weight: Tensor::zeros((5, 4), DType::F32, &Device::Cpu).unwrap(),
            bias: None,
            low_rank: None,
        };
        let refused = |targets: &[u32], kl_weights: &[f32]| {
            let n = targets.len();
            let (terms, weights) = (vec![Term::Nll; n], vec![1.0; n]);
            let charges = Charges { kl_weights, ..tokens(targets, &terms, &weights) };
            vocabulary_loss(&head, &charges, None).is_err()
        };
        assert!(!refused(&[0, 4], &[]));
        assert!(refused(&[0, 5], &[]));
        assert!(refused(&[0], &[]));
        assert!(refused(&[0], &[1.0]));
        assert!(refused(&[0, 1, 2], &[]));
        assert!(refused(&[], &[1.0, 1.0, 1.0]));
        // Heads share the rows of the reference.
        let reference =
            Head { x: Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap(), ..head.clone() };
        let (terms, weights) = ([Term::Nll; 2], [1.0; 2]);
        let two = tokens(&[0, 1], &terms, &weights);
        let one = Charges { kl_weights: &[1.0], ..tokens(&[0], &terms[..1], &weights[..1]) };
        assert!(vocabulary_losses([&head, &head], [&one, &one], Some(&reference)).is_ok());
        assert!(vocabulary_losses([&head, &head], [&one, &two], Some(&reference)).is_err());
    }
}
