//! From a batch to a loss: forward pass, heads only where a loss is, losses, their weighted sum.

use std::collections::BTreeMap;

use candle_core::Tensor;
use hardn_models::{ForwardOptions, Model};

use crate::{
    ExampleKind, KlDirection, Result, TrainError, batch::MicroBatch, kl_divergence, token_loss,
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
    /// Report token losses as means over all tokens of a kind, not over examples.
    pub(crate) per_token: bool,
}

impl Objective<'_> {
    /// The loss to minimise (a scalar) and its parts. `dropout_seed` switches dropout on.
    pub(crate) fn compute(
        &self,
        batch: &MicroBatch,
        dropout_seed: Option<u64>,
    ) -> Result<(Tensor, Terms)> {
        self.forward(batch, &ForwardOptions { dropout_seed, ..ForwardOptions::default() })
    }

    /// The same without dropout and without anything kept for a gradient.
    pub(crate) fn evaluate(&self, batch: &MicroBatch) -> Result<(Tensor, Terms)> {
        self.forward(batch, &ForwardOptions::evaluate())
    }

    fn forward(&self, batch: &MicroBatch, options: &ForwardOptions) -> Result<(Tensor, Terms)> {
        if batch.rows.is_empty() && batch.kl_rows.is_empty() {
            return Err(TrainError::EmptySelection);
        }
        let device = self.model.device();
        let ids = Tensor::from_slice(&batch.ids, batch.shape, device)?;
        let (n, n_kl) = (batch.rows.len(), batch.kl_rows.len());
        let rows: Vec<u32> = batch.rows.iter().chain(&batch.kl_rows).copied().collect();
        let rows = Tensor::from_vec(rows, n + n_kl, device)?;
        let logits = logits_at(self.model, &ids, &rows, options)?; // [n + n_kl, vocab]
        let token_logits = if n_kl == 0 { logits.clone() } else { logits.narrow(0, 0, n)? };

        let mut terms = Terms::default();
        let mut total: Option<Tensor> = None;
        if n > 0 {
            let losses = token_loss(&token_logits, &batch.targets, &batch.terms)?;
            let weights = Tensor::from_slice(&batch.weights, n, device)?;
            total = Some((&losses * &weights)?.sum_all()?);
            self.report(&mut terms, batch, &losses.to_vec1::<f32>()?);
        }
        if n_kl > 0 {
            let reference_rows = Tensor::from_slice(&batch.kl_rows, n_kl, device)?;
            let off = ForwardOptions::base();
            let reference = match &self.reference {
                Reference::AdapterOff => logits_at(self.model, &ids, &reference_rows, &off)?,
                Reference::Copy(model) => logits_at(model, &ids, &reference_rows, &off)?,
            };
            let losses = kl_divergence(&logits.narrow(0, n, n_kl)?, &reference, self.kl_direction)?;
            let weights = Tensor::from_slice(&batch.kl_weights, n_kl, device)?;
            let sum = (&losses * &weights)?.sum_all()?;
            total = Some(match total {
                Some(total) => (total + sum)?,
                None => sum,
            });
            let mut examples = batch.kl_owners.clone();
            examples.dedup();
            let shares = losses.to_vec1::<f32>()?.into_iter().zip(&batch.kl_shares);
            let loss = shares.map(|(loss, &share)| f64::from(loss) * f64::from(share)).sum();
            terms.add("kl", loss, examples.len() as f64);
        }
        let total = total.ok_or(TrainError::EmptySelection)?;
        terms.loss = f64::from(total.to_scalar::<f32>()?);
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

/// Logits at some of the flattened positions of a batch: `[rows, vocab]`.
pub(crate) fn logits_at(
    model: &Model,
    ids: &Tensor,
    rows: &Tensor,
    options: &ForwardOptions,
) -> Result<Tensor> {
    let hidden = model.hidden(ids, options)?; // [batch, seq, hidden]
    let (batch, seq, width) = hidden.dims3()?;
    let hidden = hidden.reshape((batch * seq, width))?.index_select(rows, 0)?;
    Ok(model.head(&hidden, options)?)
}
