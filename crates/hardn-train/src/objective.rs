//! From a batch to a loss: forward pass, heads only where a loss is, losses, their weighted sum.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use hardn_models::{
    ForwardOptions, Model,
    ops::{Charges, Gradients},
};

use crate::{
    ExampleKind, KlDirection, Result, TrainError, batch::MicroBatch, kl_divergence,
    rng::derive_seed, token_loss,
};

/// Sums of reduced losses, by term: `utility`, `secure` (both likelihood), `vulnerable` (unlikelihood) and `kl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    sums: BTreeMap<&'static str, (f64, f64)>,
    /// The weighted sum that is minimised.
    pub(crate) loss: f64,
}

impl Terms {
    fn add(&mut self, term: &'static str, loss: f64, count: f64) {
        let sum = self.sums.entry(term).or_default();
        sum.0 += loss;
        sum.1 += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (term, (loss, count)) in &other.sums {
            self.add(term, *loss, *count);
        }
        self.loss += other.loss;
    }

    /// Mean reduced loss per example, by term.
    pub(crate) fn means(&self) -> BTreeMap<String, f64> {
        self.sums.iter().map(|(term, (loss, n))| ((*term).to_owned(), loss / n)).collect()
    }
}

/// Where the divergence's reference comes from.
pub(crate) enum Reference<'a> {
    /// The same weights with the adapter off.
    AdapterOff,
    /// A frozen copy.
    Copy(&'a Model),
}

pub(crate) struct Objective<'a> {
    pub(crate) model: &'a Model,
    pub(crate) reference: Reference<'a>,
    pub(crate) kl_direction: KlDirection,
    /// Keep only the states between layers for the backward pass, and compute the rest again.
    pub(crate) checkpointing: bool,
    /// Report token losses as means over all tokens of a kind, not over examples.
    pub(crate) per_token: bool,
}

impl Objective<'_> {
    /// The parts of the loss to minimise, and its gradients. `dropout_seed` switches dropout on.
    pub(crate) fn gradients(
        &self,
        batch: &MicroBatch,
        dropout_seed: Option<u64>,
        variables: &[Var],
    ) -> Result<(Terms, Gradients)> {
        let Some([first, second]) = batch.halves() else {
            return self.gradients_at_once(batch, dropout_seed, variables);
        };
        // What runs on one thread in one half is then hidden by the other, and the cut depends on the batch alone.
        let other_seed = dropout_seed.map(|seed| derive_seed(seed, &[1]));
        let (first, second) = rayon::join(
            || self.gradients_at_once(&first, dropout_seed, variables),
            || self.gradients_at_once(&second, other_seed, variables),
        );
        let ((mut terms, gradients), (others, other_gradients)) = (first?, second?);
        terms.merge(&others);
        Ok((terms, gradients.merged(other_gradients)?))
    }

    fn gradients_at_once(
        &self,
        batch: &MicroBatch,
        dropout_seed: Option<u64>,
        variables: &[Var],
    ) -> Result<(Terms, Gradients)> {
        let options = ForwardOptions { dropout_seed, ..ForwardOptions::default() };
        if !self.checkpointing {
            let (loss, terms) = self.forward(batch, &options)?;
            return Ok((terms, Gradients::of(&loss, variables)?));
        }
        let ids = Tensor::from_slice(&batch.ids, batch.shape, self.model.device())?;
        let loss = |hidden: &Tensor| self.losses(batch, &ids, hidden, &options);
        self.model.checkpointed(&ids, &options, loss, variables)
    }

    /// The parts of the loss without dropout and without anything kept for a gradient.
    pub(crate) fn evaluate(&self, batch: &MicroBatch) -> Result<Terms> {
        Ok(self.forward(batch, &ForwardOptions::evaluate())?.1)
    }

    fn forward(&self, batch: &MicroBatch, options: &ForwardOptions) -> Result<(Tensor, Terms)> {
        let ids = Tensor::from_slice(&batch.ids, batch.shape, self.model.device())?;
        self.losses(batch, &ids, &self.model.hidden(&ids, options)?, options)
    }

    /// The weighted sum of the losses, a scalar, and its parts, from the last hidden states `[b, s, hidden]`.
    fn losses(
        &self,
        batch: &MicroBatch,
        ids: &Tensor,
        hidden: &Tensor,
        options: &ForwardOptions,
    ) -> Result<(Tensor, Terms)> {
        if batch.rows.is_empty() && batch.kl_rows.is_empty() {
            return Err(TrainError::EmptySelection);
        }
        let (n, n_kl) = (batch.rows.len(), batch.kl_rows.len());
        let rows: Vec<u32> = batch.rows.iter().chain(&batch.kl_rows).copied().collect();
        let hidden = rows_of(hidden, rows)?; // [n + n_kl, hidden]
        let off = ForwardOptions::base();
        let reference = match &self.reference {
            _ if n_kl == 0 => None,
            Reference::AdapterOff => Some(self.model),
            Reference::Copy(model) => Some(*model),
        };
        let reference = match reference {
            Some(model) => Some((model, hidden_at(model, ids, batch.kl_rows.clone(), &off)?, &off)),
            None => None,
        };
        let charges = Charges {
            targets: &batch.targets,
            terms: &batch.terms,
            weights: &batch.weights,
            kl_weights: &batch.kl_weights,
            direction: self.kl_direction,
        };
        let (total, losses) = charged(self.model, &hidden, options, &charges, reference.as_ref())?;
        let mut terms = Terms { loss: f64::from(total.to_scalar::<f32>()?), ..Terms::default() };
        self.report(&mut terms, batch, &losses[..n]);
        if n_kl > 0 {
            let mut examples = batch.kl_owners.clone();
            examples.dedup();
            let shares = losses[n..].iter().zip(&batch.kl_shares);
            let loss = shares.map(|(&loss, &share)| f64::from(loss) * f64::from(share)).sum();
            terms.add("kl", loss, examples.len() as f64);
        }
        Ok((total, terms))
    }

    fn report(&self, terms: &mut Terms, batch: &MicroBatch, losses: &[f32]) {
        for kind in ExampleKind::ALL {
            let (mut loss, mut n_rows, mut last) = (0.0, 0_usize, usize::MAX);
            let mut n_examples = 0_usize;
            for (i, &row_loss) in losses.iter().enumerate() {
                let owner = batch.owners[i];
                if batch.kinds[owner] == kind {
                    loss += f64::from(row_loss) * f64::from(batch.shares[i]);
                    n_rows += 1;
                    n_examples += usize::from(owner != last);
                    last = owner;
                }
            }
            if n_rows > 0 {
                let count = if self.per_token { n_rows } else { n_examples };
                terms.add(kind.name(), loss, count as f64);
            }
        }
    }
}

/// Hidden states at some of the flattened positions of a batch: `[rows, hidden]`.
pub(crate) fn hidden_at(
    model: &Model,
    ids: &Tensor,
    rows: Vec<u32>,
    options: &ForwardOptions,
) -> Result<Tensor> {
    rows_of(&model.hidden(ids, options)?, rows)
}

/// Some rows of `[batch, seq, hidden]`, which are counted through.
fn rows_of(hidden: &Tensor, rows: Vec<u32>) -> Result<Tensor> {
    Ok(hidden.flatten(0, 1)?.index_select(&Tensor::new(rows, hidden.device())?, 0)?)
}

/// The weighted sum of the rows' losses, a scalar that can be differentiated, and every row's loss in nats. See
/// [`Model::head_loss`]; models without fused operations compute all logits at once.
pub(crate) fn charged(
    model: &Model,
    hidden: &Tensor,
    options: &ForwardOptions,
    charges: &Charges,
    reference: Option<&(&Model, Tensor, &ForwardOptions)>,
) -> Result<(Tensor, Vec<f32>)> {
    if model.is_fused() {
        let reference = reference.map(|(model, hidden, options)| (*model, hidden, *options));
        return Ok(model.head_loss(hidden, options, charges, reference)?);
    }
    let (n, n_kl) = (charges.targets.len(), charges.kl_weights.len());
    let logits = model.head(hidden, options)?; // [n + n_kl, vocab]
    let mut losses = Vec::new();
    if n > 0 {
        losses.push(token_loss(&logits.narrow(0, 0, n)?, charges.targets, charges.terms)?);
    }
    if let Some((model, hidden, options)) = reference {
        let reference = model.head(hidden, options)?;
        losses.push(kl_divergence(&logits.narrow(0, n, n_kl)?, &reference, charges.direction)?);
    }
    let losses = Tensor::cat(&losses, 0)?;
    let weights = [charges.weights, charges.kl_weights].concat();
    let weights = Tensor::from_vec(weights, n + n_kl, model.device())?;
    Ok(((&losses * weights)?.sum_all()?, losses.to_vec1()?))
}
