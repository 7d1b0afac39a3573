//! Losses over the vocabulary from hidden states, with logits of a few rows in memory at a time.
//!
//! Losses and gradients are computed together, so that no logit is computed twice: the gradient of a weighted sum
//! is known as soon as a row's logits are. Logits lie transposed, `[vocab, rows]`, for then the largest factor, the
//! head's weight, is read as it is and never rearranged.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    column_stats::{Divergence, block_rows, divergences, log_sums},
    known::Known,
    linear::product_shape,
    storage::{elements, tensor},
    sums::add,
};
use crate::kernels::{Matrix, exp, matmul, zeros};

/// Floor on `1 - p`, as in SafeCoder's released trainer; one token costs at most 11.5 nats.
pub const MIN_COMPLEMENT: f64 = 1e-5;

/// Logits in memory at a time, unless [`MIN_ROWS`] rows have more.
const CHUNK: usize = 1 << 22;
/// Rows are taken at least this many at a time, so that passes over the weight stay few.
const MIN_ROWS: usize = 256;
/// Columns of panels in the products: rows are padded to a multiple.
const LANES: usize = 32;
/// Words of the vocabulary whose part of the weight is rearranged at a time.
const WORDS: usize = 4096;

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

/// What logits are made of: `x weight^T + bias + low b^T`, with `(low, b)` the low-rank term.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[n, hidden]` f32.
    pub x: Tensor,
    /// `[vocab, hidden]` f32.
    pub weight: Tensor,
    /// `[vocab]` f32.
    pub bias: Option<Tensor>,
    /// `[n, r]` and `[vocab, r]` f32; with it, weight and bias get no gradient.
    pub low_rank: Option<(Tensor, Tensor)>,
}

/// What the rows of a [`Head`] are charged with: the first ones for a target each, the others for a divergence.
#[derive(Clone, Copy, Debug)]
pub struct Charges<'a> {
    /// A token of the vocabulary for each of the first rows.
    pub targets: &'a [u32],
    /// As many.
    pub terms: &'a [Term],
    /// The factor of each of these rows' losses in the sum.
    pub weights: &'a [f32],
    /// Factors of the other rows' divergences.
    pub kl_weights: &'a [f32],
    /// Which way these point.
    pub direction: KlDirection,
}

/// The weighted sum of the rows' losses, a differentiable scalar f32, and the loss of every row, in nats.
///
/// The sum has gradients for `x`, and for `weight` and `bias` or for the low-rank term. `reference` has as many rows
/// as there are divergences; no gradient flows into it. Results do not depend on the number of threads.
///
/// # Errors
/// Sizes that do not fit, a target outside the vocabulary, or tensors that are not f32 on the CPU.
///
/// # Source
/// Unlikelihood: Welleck et al. 2020 (arXiv:1908.04319); on vulnerable tokens: He et al. 2024 (arXiv:2402.09497),
/// equation 4. Divergence: He and Vechev 2023 (arXiv:2302.05319), section 4; He et al. 2024, equation 5.
pub fn vocabulary_loss(
    head: &Head,
    charges: &Charges,
    reference: Option<&Head>,
) -> Result<(Tensor, Vec<f32>)> {
    let [loss] = vocabulary_losses([head], [charges], reference)?;
    Ok(loss)
}

/// As [`vocabulary_loss`] for several heads whose divergences are measured from the same rows of one reference, whose
/// logits are computed once for all of them.
///
/// # Errors
/// As [`vocabulary_loss`], and heads that differ in their number of divergences.
pub fn vocabulary_losses<const N: usize>(
    heads: [&Head; N],
    charges: [&Charges; N],
    reference: Option<&Head>,
) -> Result<[(Tensor, Vec<f32>); N]> {
    let n_kl = charges.first().map_or(0, |charges| charges.kl_weights.len());
    let reference = reference.filter(|_| n_kl > 0).map(Head::detached);
    if n_kl > 0 && reference.is_none() {
        bail!("{n_kl} divergences without a reference")
    }
    let mut all = Vec::with_capacity(N);
    for (head, charges) in heads.into_iter().zip(charges) {
        let vocab = charges.check(head, n_kl)?;
        match &reference {
            Some(reference) if reference.check()? != (n_kl, vocab) => {
                bail!("the reference gives {:?}, not {n_kl} rows of {vocab}", reference.check()?)
            }
            _ => (),
        }
        let head = head.contiguous()?;
        all.push(Charged {
            work: Work::new(&head),
            chunk: chunk(vocab),
            losses: Vec::new(),
            head,
            charges,
        });
    }
    let mut buffers = Buffers::default();
    for one in &mut all {
        one.tokens(&mut buffers)?;
    }
    if let (Some(reference), Some(chunk)) = (&reference, all.first().map(|one| one.chunk)) {
        for first in (0..n_kl).step_by(chunk) {
            let range = first..n_kl.min(first + chunk);
            let to = buffers.logits(reference, range.clone())?;
            for one in &mut all {
                one.divergences(&mut buffers, range.clone(), &to)?;
            }
            buffers.0.push(to);
        }
    }
    let losses = all.into_iter().map(Charged::finish).collect::<Result<Vec<_>>>()?;
    losses.try_into().map_err(|_| candle_core::Error::Msg("a head was lost".to_owned()))
}

/// Rows whose logits are in memory at a time.
fn chunk(vocab: usize) -> usize {
    (CHUNK / vocab).max(MIN_ROWS) / LANES * LANES
}

impl Charges<'_> {
    /// The words of a head, once it has the rows that are charged.
    fn check(&self, head: &Head, n_kl: usize) -> Result<usize> {
        let n = self.targets.len();
        let (rows, vocab) = head.check()?;
        if [self.terms.len(), self.weights.len(), rows - rows.min(n_kl)] != [n; 3]
            || self.kl_weights.len() != n_kl
        {
            bail!(
                "{rows} rows of hidden states, {n} targets, {} terms, {} and {n_kl} weights",
                self.terms.len(),
                self.weights.len()
            )
        }
        if let Some(target) = self.targets.iter().find(|&&target| target as usize >= vocab) {
            bail!(
                "token {target} is outside the vocabulary of {vocab}; is this the model's tokenizer?"
            )
        }
        Ok(vocab)
    }
}

/// A head with its charges, and what is known of its losses and gradients so far.
struct Charged<'a> {
    head: Head,
    charges: &'a Charges<'a>,
    work: Work,
    chunk: usize,
    losses: Vec<f32>,
}

impl Charged<'_> {
    fn tokens(&mut self, buffers: &mut Buffers) -> Result<()> {
        let charges = self.charges;
        let n = charges.targets.len();
        for first in (0..n).step_by(self.chunk) {
            let range = first..n.min(first + self.chunk);
            let mut logits = buffers.logits(&self.head, range.clone())?;
            let targets = &charges.targets[range.clone()];
            let terms = &charges.terms[range.clone()];
            let weights = &charges.weights[range.clone()];
            let is_wanted = self.work.is_wanted();
            self.losses.extend(token_losses(&mut logits, targets, terms, weights, is_wanted));
            self.work.add_gradients(&self.head, range, &logits)?;
            buffers.0.push(logits);
        }
        Ok(())
    }

    /// Of some of the rows that have one; `to`: the reference's logits there.
    fn divergences(
        &mut self,
        buffers: &mut Buffers,
        range: Range<usize>,
        to: &Logits,
    ) -> Result<()> {
        let charges = self.charges;
        let n = charges.targets.len();
        let rows = n + range.start..n + range.end;
        let mut logits = buffers.logits(&self.head, rows.clone())?;
        let weights = &charges.kl_weights[range];
        let is_wanted = self.work.is_wanted();
        self.losses.extend(kl_losses(&mut logits, to, charges.direction, weights, is_wanted));
        self.work.add_gradients(&self.head, rows, &logits)?;
        buffers.0.push(logits);
        Ok(())
    }

    fn finish(self) -> Result<(Tensor, Vec<f32>)> {
        let factors = self.charges.weights.iter().chain(self.charges.kl_weights);
        let product = |(loss, weight): (&f32, &f32)| f64::from(*loss) * f64::from(*weight);
        let total: f64 = self.losses.iter().zip(factors).map(product).sum();
        Ok((self.work.finish(&self.head, total as f32)?, self.losses))
    }
}

impl Head {
    /// Rows and words, once all sizes fit.
    fn check(&self) -> Result<(usize, usize)> {
        let (_, [rows, vocab, _]) = product_shape(self.x.shape(), self.weight.shape())?;
        if let Some(bias) = &self.bias
            && bias.elem_count() != vocab
        {
            bail!("a bias of {:?} for a vocabulary of {vocab}", bias.shape())
        }
        if let Some((low, b)) = &self.low_rank {
            let (_, [low_rows, low_vocab, _]) = product_shape(low.shape(), b.shape())?;
            if (low_rows, low_vocab) != (rows, vocab) {
                bail!("a low-rank term of {:?} and {:?} for {rows} rows", low.shape(), b.shape())
            }
        }
        Ok((rows, vocab))
    }

    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let low_rank = match &self.low_rank {
            Some((low, b)) => Some((f(low)?, f(b)?)),
            None => None,
        };
        let bias = self.bias.as_ref().map(&f).transpose()?;
        Ok(Self { x: f(&self.x)?, weight: f(&self.weight)?, bias, low_rank })
    }

    fn contiguous(&self) -> Result<Self> {
        self.map(Tensor::contiguous)
    }

    fn detached(&self) -> Self {
        let detach = |tensor: &Tensor| tensor.detach();
        Self {
            x: detach(&self.x),
            weight: detach(&self.weight),
            bias: self.bias.as_ref().map(detach),
            low_rank: self.low_rank.as_ref().map(|(low, b)| (detach(low), detach(b))),
        }
    }
}

/// Logits of a few rows, `[vocab, lanes]`; lanes beyond the rows are padding.
struct Logits {
    values: Vec<f32>,
    lanes: usize,
}

/// Logits that are no longer needed, to be written over.
#[derive(Default)]
struct Buffers(Vec<Logits>);

impl Buffers {
    /// Logits of some rows.
    fn logits(&mut self, head: &Head, rows: Range<usize>) -> Result<Logits> {
        let (vocab, width) = head.weight.dims2()?;
        let lanes = rows.len().next_multiple_of(LANES);
        let mut logits = self.0.pop().unwrap_or_else(|| Logits { values: Vec::new(), lanes });
        logits.lanes = lanes;
        if logits.values.len() != vocab * lanes {
            logits.values = zeros(vocab * lanes);
        }
        let x = padded(&elements(&head.x)?, width, &rows, lanes);
        let weight = elements(&head.weight)?;
        let x = Matrix::new(&x, lanes, width).t();
        matmul(&mut logits.values, Matrix::new(&weight, vocab, width), x, false);
        if let Some((low, b)) = &head.low_rank {
            let r = b.dim(1)?;
            let low = padded(&elements(low)?, r, &rows, lanes);
            let b = elements(b)?;
            let low = Matrix::new(&low, lanes, r).t();
            matmul(&mut logits.values, Matrix::new(&b, vocab, r), low, true);
        }
        if let Some(bias) = &head.bias {
            let bias = elements(bias)?;
            logits.values.par_chunks_mut(lanes * block_rows()).enumerate().for_each(
                |(i, block)| {
                    for (row, bias) in block.chunks_exact_mut(lanes).zip(&bias[i * block_rows()..])
                    {
                        for value in row {
                            *value += bias;
                        }
                    }
                },
            );
        }
        Ok(logits)
    }
}

/// Gradients as they add up, each where it is wanted.
struct Work {
    dx: Option<Vec<f32>>,
    d_weight: Option<Vec<f32>>,
    d_bias: Option<Vec<f32>>,
    d_low: Option<Vec<f32>>,
    d_b: Option<Vec<f32>>,
}

impl Work {
    fn new(head: &Head) -> Self {
        let wanted = |tensor: &Tensor| tensor.track_op().then(|| zeros(tensor.elem_count()));
        let is_frozen = head.low_rank.is_some();
        let low_rank = head.low_rank.as_ref();
        Self {
            dx: wanted(&head.x),
            d_weight: wanted(&head.weight).filter(|_| !is_frozen),
            d_bias: head.bias.as_ref().and_then(wanted).filter(|_| !is_frozen),
            d_low: low_rank.and_then(|(low, _)| wanted(low)),
            d_b: low_rank.and_then(|(_, b)| wanted(b)),
        }
    }

    fn is_wanted(&self) -> bool {
        [&self.dx, &self.d_weight, &self.d_bias, &self.d_low, &self.d_b].iter().any(|g| g.is_some())
    }

    /// Adds what `gradient`, of the logits of some rows, gives to all gradients.
    fn add_gradients(&mut self, head: &Head, rows: Range<usize>, gradient: &Logits) -> Result<()> {
        let lanes = gradient.lanes;
        let vocab = head.weight.dim(0)?;
        let inward = |of: &Tensor, to: &mut [f32]| -> Result<()> {
            let width = of.dim(1)?;
            let of = elements(of)?;
            let mut sums = vec![0.0; lanes * width];
            for (of, part) in of.chunks(WORDS * width).zip(gradient.values.chunks(WORDS * lanes)) {
                let words = of.len() / width;
                let part = Matrix::new(part, words, lanes).t();
                matmul(&mut sums, part, Matrix::new(of, words, width), true);
            }
            to[rows.start * width..rows.end * width].copy_from_slice(&sums[..rows.len() * width]);
            Ok(())
        };
        let across = |of: &Tensor, to: &mut [f32]| -> Result<()> {
            let width = of.elem_count() / of.dims()[..of.rank() - 1].iter().product::<usize>();
            let of = padded(&elements(of)?, width, &rows, lanes);
            let of = Matrix::new(&of, lanes, width);
            matmul(to, Matrix::new(&gradient.values, vocab, lanes), of, true);
            Ok(())
        };
        if let Some(dx) = &mut self.dx {
            inward(&head.weight, dx)?;
        }
        if let Some(d_weight) = &mut self.d_weight {
            across(&head.x, d_weight)?;
        }
        if let Some(d_bias) = &mut self.d_bias {
            let sums = gradient.values.chunks_exact(lanes).map(super::sums::sum);
            add(d_bias, &sums.collect::<Vec<_>>());
        }
        if let Some((low, b)) = &head.low_rank {
            if let Some(d_low) = &mut self.d_low {
                inward(b, d_low)?;
            }
            if let Some(d_b) = &mut self.d_b {
                across(low, d_b)?;
            }
        }
        Ok(())
    }

    /// The scalar whose gradients are known.
    fn finish(self, head: &Head, total: f32) -> Result<Tensor> {
        let made = |gradient: Option<Vec<f32>>, of: Option<&Tensor>| match (gradient, of) {
            (Some(gradient), Some(of)) => tensor(gradient, of.shape()).map(Some),
            _ => Ok(None),
        };
        let dx = made(self.dx, Some(&head.x))?;
        let known = |second, third| Known::new(total, [dx, second, third]);
        match (&head.low_rank, &head.bias) {
            (Some((low, b)), _) => {
                let (d_low, d_b) = (made(self.d_low, Some(low))?, made(self.d_b, Some(b))?);
                head.x.apply_op3(low, b, known(d_low, d_b))
            }
            (None, Some(bias)) => {
                let d_weight = made(self.d_weight, Some(&head.weight))?;
                let d_bias = made(self.d_bias, Some(bias))?;
                head.x.apply_op3(&head.weight, bias, known(d_weight, d_bias))
            }
            (None, None) => {
                let d_weight = made(self.d_weight, Some(&head.weight))?;
                head.x.apply_op2(&head.weight, known(d_weight, None))
            }
        }
    }
}

/// Some rows of `width` values, followed by rows of zeros.
fn padded(data: &[f32], width: usize, rows: &Range<usize>, lanes: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(lanes * width);
    out.extend_from_slice(&data[rows.start * width..rows.end * width]);
    out.resize(lanes * width, 0.0);
    out
}

/// Losses of targets. Where a gradient is wanted, logits become that of the weighted sum.
///
/// With `p` the softmax and `y` the target: NLL has gradient `p - [y]`, unlikelihood `p_y / (1 - p_y) * ([y] - p)`.
fn token_losses(
    logits: &mut Logits,
    targets: &[u32],
    terms: &[Term],
    weights: &[f32],
    is_wanted: bool,
) -> Vec<f32> {
    let lanes = logits.lanes;
    let sums = log_sums(&logits.values, lanes);
    let mut losses = Vec::with_capacity(targets.len());
    let mut scales = vec![0.0; lanes];
    for (i, ((target, term), weight)) in targets.iter().zip(terms).zip(weights).enumerate() {
        let nll = sums[i].value() - f64::from(logits.values[*target as usize * lanes + i]);
        let complement = -(-nll).exp_m1();
        let (loss, factor) = match term {
            Term::Nll => (nll, 1.0),
            // The larger of the floor and not-a-number would be the floor, and hide it.
            Term::Unlikelihood if nll.is_nan() => (nll, nll),
            Term::Unlikelihood if complement < MIN_COMPLEMENT => (-MIN_COMPLEMENT.ln(), 0.0),
            Term::Unlikelihood => (-complement.ln(), -(-nll).exp() / complement),
        };
        losses.push(loss as f32);
        scales[i] = (f64::from(*weight) * factor) as f32;
    }
    if is_wanted {
        let shifts: Vec<f32> = sums.iter().map(|sum| sum.value() as f32).collect();
        logits.values.par_chunks_mut(lanes * block_rows()).for_each(|block| {
            for row in block.chunks_exact_mut(lanes) {
                for ((value, shift), scale) in row.iter_mut().zip(&shifts).zip(&scales) {
                    *value = exp(*value - shift) * scale;
                }
            }
        });
        for (i, target) in targets.iter().enumerate() {
            logits.values[*target as usize * lanes + i] -= scales[i];
        }
    }
    losses
}

/// Divergences. Where a gradient is wanted, logits become that of the weighted sum.
///
/// `KL(p || q)` has gradient `p * (ln p - ln q - KL)`, `KL(q || p)` has `p - q`.
fn kl_losses(
    logits: &mut Logits,
    reference: &Logits,
    direction: KlDirection,
    weights: &[f32],
    is_wanted: bool,
) -> Vec<f32> {
    let lanes = logits.lanes;
    let is_forward = direction == KlDirection::ModelToReference;
    let (from, to) = if is_forward { (&*logits, reference) } else { (reference, &*logits) };
    let divergences = divergences(&from.values, &to.values, lanes);
    let losses: Vec<f32> =
        divergences.iter().take(weights.len()).map(|row| row.value() as f32).collect();
    if is_wanted {
        let per_lane = |f: &dyn Fn(&Divergence) -> f64| -> Vec<f32> {
            divergences.iter().map(|row| f(row) as f32).collect()
        };
        let own = |row: &Divergence| if is_forward { &row.from } else { &row.to }.value();
        let other = |row: &Divergence| if is_forward { &row.to } else { &row.from }.value();
        let (own_sums, other_sums) = (per_lane(&own), per_lane(&other));
        let shifts = per_lane(&|row| row.value() + row.from.value() - row.to.value());
        let mut scales = weights.to_vec();
        scales.resize(lanes, 0.0);
        let blocks = logits.values.par_chunks_mut(lanes * block_rows());
        blocks.zip(reference.values.par_chunks(lanes * block_rows())).for_each(|(own, other)| {
            for (own, other) in own.chunks_exact_mut(lanes).zip(other.chunks_exact(lanes)) {
                for j in 0..lanes {
                    let p = exp(own[j] - own_sums[j]);
                    own[j] = scales[j]
                        * if is_forward {
                            p * (own[j] - other[j] - shifts[j])
                        } else {
                            p - exp(other[j] - other_sums[j])
                        };
                }
            }
        });
    }
    losses
}
