//! From a batch to a loss: forward passes, heads only where a loss is, losses, their weighted sum.

use std::array;

use candle_core::{Tensor, Var};
use hardn_models::{
    ForwardOptions, Model, UseAdapter,
    ops::{Charges, Gradients},
};

use crate::{
    ExampleKind, KlDirection, LossKind, LossRecipe, Result, Term, TrainError,
    adapters::adapter_of,
    batch::MicroBatch,
    coupling::{Coupled, contrast, preference},
    kl_divergence,
    rng::derive_seed,
    terms::Terms,
    token_loss,
};

/// What divergences and pairwise losses are measured from.
pub(crate) enum Reference<'a> {
    /// The same weights with the adapter off.
    AdapterOff,
    /// A frozen copy.
    Copy(&'a Model),
}

pub(crate) struct Objective<'a> {
    pub(crate) model: &'a Model,
    pub(crate) reference: Reference<'a>,
    /// What is minimised, resolved.
    pub(crate) loss: LossRecipe,
    /// Keep only the states between layers for the backward pass, and compute the rest again.
    pub(crate) checkpointing: bool,
    /// Report token losses as means over all tokens of a kind, not over examples.
    pub(crate) per_token: bool,
}

/// A reference and its last hidden states, `[b, s, hidden]`.
struct Base<'a> {
    model: &'a Model,
    hidden: Tensor,
}

/// The hidden states of charged rows in one pass, and what their token losses are multiplied by.
struct Pass<'a> {
    rows: &'a Tensor,
    options: &'a ForwardOptions,
    weights: &'a [f32],
    /// Added to the weights.
    extra: Option<&'a [f64]>,
}

/// A model without adapter and dropout, whose results are only looked at.
const OFF: ForwardOptions =
    ForwardOptions { adapter: UseAdapter::Base, dropout_seed: None, grad: false };

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
        if self.is_contrasted(batch) {
            if self.checkpointing {
                return self.contrasted_in_segments(batch, &options, variables);
            }
            let (totals, terms) = self.contrasted(batch, &options)?;
            let [first, second] = [&totals[0], &totals[1]];
            let (first, second) = rayon::join(
                || Gradients::of(first, variables),
                || Gradients::of(second, variables),
            );
            return Ok((terms, first?.merged(second?)?));
        }
        let options = self.options(&options, ExampleKind::Secure)?;
        if !self.checkpointing {
            let (loss, terms) = self.forward(batch, &options)?;
            return Ok((terms, Gradients::of(&loss, variables)?));
        }
        let ids = self.ids(batch)?;
        let loss = |hidden: &Tensor| self.losses(batch, &ids, hidden, &options);
        self.model.checkpointed(&ids, batch.segments.as_ref(), &options, loss, variables)
    }

    /// The parts of the loss without dropout and without anything kept for a gradient.
    pub(crate) fn evaluate(&self, batch: &MicroBatch) -> Result<Terms> {
        let options = ForwardOptions::evaluate();
        if self.is_contrasted(batch) {
            return Ok(self.contrasted(batch, &options)?.1);
        }
        Ok(self.forward(batch, &self.options(&options, ExampleKind::Secure)?)?.1)
    }

    /// Some of the batch's examples take a pass under either of two adapters.
    fn is_contrasted(&self, batch: &MicroBatch) -> bool {
        self.loss.kind.has_two_adapters()
            && batch.kinds.iter().any(|kind| *kind != ExampleKind::Utility)
    }

    /// The options with the adapter that belongs to a kind of examples, where kinds have different ones.
    fn options(&self, options: &ForwardOptions, kind: ExampleKind) -> Result<ForwardOptions> {
        if !self.loss.kind.has_two_adapters() {
            return Ok(*options);
        }
        Ok(ForwardOptions { adapter: UseAdapter::Id(adapter_of(self.model, kind)?), ..*options })
    }

    fn ids(&self, batch: &MicroBatch) -> Result<Tensor> {
        if batch.rows.is_empty() && batch.kl_rows.is_empty() {
            return Err(TrainError::EmptySelection);
        }
        Ok(Tensor::from_slice(&batch.ids, batch.shape, self.model.device())?)
    }

    /// The reference, where the batch has something to be measured from it.
    fn base(&self, batch: &MicroBatch, ids: &Tensor) -> Result<Option<Base<'_>>> {
        let pairs = self.loss.kind == LossKind::Dpo && !batch.pairs.is_empty();
        if batch.kl_rows.is_empty() && !pairs {
            return Ok(None);
        }
        let model = match &self.reference {
            Reference::AdapterOff => self.model,
            Reference::Copy(model) => *model,
        };
        Ok(Some(Base { model, hidden: hidden(model, batch, ids, &OFF)? }))
    }

    fn forward(&self, batch: &MicroBatch, options: &ForwardOptions) -> Result<(Tensor, Terms)> {
        let ids = self.ids(batch)?;
        self.losses(batch, &ids, &hidden(self.model, batch, &ids, options)?, options)
    }

    /// A scalar with the gradient of the loss, and the loss and its parts, from the last hidden states `[b, s, hidden]`.
    fn losses(
        &self,
        batch: &MicroBatch,
        ids: &Tensor,
        hidden: &Tensor,
        options: &ForwardOptions,
    ) -> Result<(Tensor, Terms)> {
        let charged = charged_rows(batch, hidden)?;
        let base = self.base(batch, ids)?;
        let mut coupled = Coupled::default();
        if !batch.pairs.is_empty() {
            let nll = nll(self.model, &charged, options, &batch.targets)?;
            let of_base = match &base {
                Some(base) if self.loss.kind == LossKind::Dpo => {
                    let rows = rows_of(&base.hidden, batch.rows.clone())?;
                    Some(self::nll(base.model, &rows, &OFF, &batch.targets)?)
                }
                _ => None,
            };
            coupled = preference(&self.loss, batch, &nll, of_base.as_deref());
        }
        let extra = coupled.weights.first().map(Vec::as_slice);
        let pass = Pass { rows: &charged, options, weights: &batch.weights, extra };
        let [(total, losses)] = self.charge(batch, [pass], base.as_ref())?;
        let mut terms = Terms::default();
        self.report(&mut terms, batch, &losses, &batch.weights, None);
        add(&mut terms, coupled);
        Ok((total, terms))
    }

    /// Scalars with the gradients of the loss under either adapter, and the loss and its parts.
    fn contrasted(
        &self,
        batch: &MicroBatch,
        options: &ForwardOptions,
    ) -> Result<([Tensor; 2], Terms)> {
        let ids = self.ids(batch)?;
        let both = [
            self.options(options, ExampleKind::Secure)?,
            self.options(options, ExampleKind::Vulnerable)?,
        ];
        let rows = |options: &ForwardOptions| {
            charged_rows(batch, &hidden(self.model, batch, &ids, options)?)
        };
        let (secure, vulnerable) = rayon::join(|| rows(&both[0]), || rows(&both[1]));
        let base = self.base(batch, &ids)?;
        self.charge_sides(batch, [&secure?, &vulnerable?], &both, base.as_ref())
    }

    /// What [`Self::contrasted`] gives, and gradients, with only the states between layers kept of either pass.
    fn contrasted_in_segments(
        &self,
        batch: &MicroBatch,
        options: &ForwardOptions,
        variables: &[Var],
    ) -> Result<(Terms, Gradients)> {
        let ids = self.ids(batch)?;
        let both = [
            self.options(options, ExampleKind::Secure)?,
            self.options(options, ExampleKind::Vulnerable)?,
        ];
        let base = self.base(batch, &ids)?;
        let segments = batch.segments.as_ref();
        // The second pass and its way back lie within the first one's turning point, for the losses depend on both.
        let turn = |secure: &Tensor| -> Result<(Tensor, (Terms, Gradients))> {
            let secure = charged_rows(batch, secure)?;
            let turn = |vulnerable: &Tensor| -> Result<(Tensor, (Tensor, Terms))> {
                let rows = [&secure, &charged_rows(batch, vulnerable)?];
                let ([first, second], terms) =
                    self.charge_sides(batch, rows, &both, base.as_ref())?;
                Ok((second, (first, terms)))
            };
            let ((first, terms), gradients) =
                self.model.checkpointed(&ids, segments, &both[1], turn, variables)?;
            Ok((first, (terms, gradients)))
        };
        let ((terms, of_second), of_first) =
            self.model.checkpointed(&ids, segments, &both[0], turn, variables)?;
        Ok((terms, of_first.merged(of_second)?))
    }

    /// The scalars of both adapters' passes, from the hidden states of charged rows, and the loss and its parts. A token is
    /// likelihood's concern under its own side's adapter alone; utility samples are the secure one's.
    fn charge_sides(
        &self,
        batch: &MicroBatch,
        rows: [&Tensor; 2],
        both: &[ForwardOptions; 2],
        base: Option<&Base<'_>>,
    ) -> Result<([Tensor; 2], Terms)> {
        let nll = |side: usize| nll(self.model, rows[side], &both[side], &batch.targets);
        let (secure, vulnerable) = rayon::join(|| nll(0), || nll(1));
        let coupled = contrast(&self.loss, batch, [&secure?, &vulnerable?], self.per_token);
        let weights = [0, 1].map(|side| -> Vec<f32> {
            let own = |(&owner, &weight): (&usize, &f32)| {
                if batch.kinds[owner].adapter() == side { weight } else { 0.0 }
            };
            batch.owners.iter().zip(&batch.weights).map(own).collect()
        });
        let pass = |side: usize| Pass {
            rows: rows[side],
            options: &both[side],
            weights: &weights[side],
            extra: Some(&coupled.weights[side]),
        };
        let [(secure, of_secure), (vulnerable, of_vulnerable)] =
            self.charge(batch, [pass(0), pass(1)], base)?;
        let mut terms = Terms::default();
        for (side, losses) in [of_secure, of_vulnerable].iter().enumerate() {
            self.report(&mut terms, batch, losses, &weights[side], Some(side));
        }
        add(&mut terms, coupled);
        Ok(([secure, vulnerable], terms))
    }

    /// Of every pass over the same rows: the weighted sum of the rows' losses, a scalar that can be differentiated, and
    /// every row's loss in nats.
    fn charge<const N: usize>(
        &self,
        batch: &MicroBatch,
        passes: [Pass<'_>; N],
        base: Option<&Base<'_>>,
    ) -> Result<[(Tensor, Vec<f32>); N]> {
        let weights = passes.each_ref().map(|pass| match pass.extra {
            None => pass.weights.to_vec(),
            Some(extra) => {
                let sum = |(&weight, extra): (&f32, &f64)| (f64::from(weight) + extra) as f32;
                pass.weights.iter().zip(extra).map(sum).collect::<Vec<f32>>()
            }
        });
        let charges = weights.each_ref().map(|weights| Charges {
            targets: &batch.targets,
            terms: &batch.terms,
            weights,
            kl_weights: &batch.kl_weights,
            direction: self.loss.kl_direction,
        });
        let base = match base {
            Some(base) if !batch.kl_rows.is_empty() => {
                Some((base.model, rows_of(&base.hidden, batch.kl_rows.clone())?, &OFF))
            }
            _ => None,
        };
        let passes = array::from_fn(|i| (passes[i].rows, passes[i].options, &charges[i]));
        charged(self.model, passes, base.as_ref())
    }

    /// Adds the losses of rows, the first ones weighted as given, and divergences. Of a pass under one of two adapters,
    /// the token losses of that side's examples are told, and divergences are counted once for both.
    fn report(
        &self,
        terms: &mut Terms,
        batch: &MicroBatch,
        losses: &[f32],
        weights: &[f32],
        side: Option<usize>,
    ) {
        let (of_tokens, divergences) = losses.split_at(batch.rows.len());
        let weighted = |losses: &[f32], weights: &[f32]| -> f64 {
            let product = |(&loss, &weight)| f64::from(loss) * f64::from(weight);
            losses.iter().zip(weights).map(product).sum()
        };
        terms.loss += weighted(of_tokens, weights) + weighted(divergences, &batch.kl_weights);
        for kind in ExampleKind::ALL {
            let (mut loss, mut n_rows, mut last) = (0.0, 0_usize, usize::MAX);
            let mut n_examples = 0_usize;
            for (i, &row_loss) in of_tokens.iter().enumerate() {
                let owner = batch.owners[i];
                if batch.kinds[owner] == kind && side.is_none_or(|side| kind.adapter() == side) {
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
        if !divergences.is_empty() {
            let mut examples = batch.kl_owners.clone();
            examples.dedup();
            let count = match side {
                Some(1) => 0.0,
                _ if self.per_token => divergences.len() as f64,
                _ => examples.len() as f64,
            };
            terms.add("kl", weighted(divergences, &batch.kl_shares), count);
        }
    }
}

/// Adds what a coupled loss gives.
fn add(terms: &mut Terms, coupled: Coupled) {
    terms.loss += coupled.loss;
    for (name, sum, count) in coupled.terms {
        terms.add(name, sum, count);
    }
}

/// The last hidden states of a batch, `[b, s, hidden]`, in which samples of one row do not see each other.
fn hidden(
    model: &Model,
    batch: &MicroBatch,
    ids: &Tensor,
    options: &ForwardOptions,
) -> Result<Tensor> {
    Ok(model.hidden_packed(ids, batch.segments.as_ref(), options)?)
}

/// The hidden states that carry a loss: `[n + n_kl, hidden]`.
fn charged_rows(batch: &MicroBatch, hidden: &Tensor) -> Result<Tensor> {
    rows_of(hidden, batch.rows.iter().chain(&batch.kl_rows).copied().collect())
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

/// `-ln p(target)` of the first rows of `[.., hidden]`, one for each target, without gradient.
pub(crate) fn nll(
    model: &Model,
    rows: &Tensor,
    options: &ForwardOptions,
    targets: &[u32],
) -> Result<Vec<f32>> {
    let n = targets.len();
    if n == 0 {
        return Ok(Vec::new());
    }
    let charges = Charges {
        targets,
        terms: &vec![Term::Nll; n],
        weights: &vec![0.0; n],
        kl_weights: &[],
        direction: KlDirection::default(),
    };
    let options = ForwardOptions { grad: false, ..*options };
    let rows = rows.detach().narrow(0, 0, n)?;
    let [(_, losses)] = charged(model, [(&rows, &options, &charges)], None)?;
    Ok(losses)
}

/// Of every pass over the same rows, the weighted sum of the rows' losses, a scalar that can be differentiated, and every
/// row's loss in nats. See [`Model::head_losses`]; models without fused operations compute all logits at once.
fn charged<const N: usize>(
    model: &Model,
    passes: [(&Tensor, &ForwardOptions, &Charges); N],
    reference: Option<&(&Model, Tensor, &ForwardOptions)>,
) -> Result<[(Tensor, Vec<f32>); N]> {
    if model.is_fused() {
        let reference = reference.map(|(model, hidden, options)| (*model, hidden, *options));
        return Ok(model.head_losses(passes, reference)?);
    }
    let reference = match reference {
        Some((model, hidden, options)) => Some(model.head(hidden, options)?),
        None => None,
    };
    let one = |(hidden, options, charges): (&Tensor, &ForwardOptions, &Charges)| {
        let (n, n_kl) = (charges.targets.len(), charges.kl_weights.len());
        let logits = model.head(hidden, options)?; // [n + n_kl, vocab]
        let mut losses = Vec::new();
        if n > 0 {
            losses.push(token_loss(&logits.narrow(0, 0, n)?, charges.targets, charges.terms)?);
        }
        if let Some(reference) = &reference {
            losses.push(kl_divergence(&logits.narrow(0, n, n_kl)?, reference, charges.direction)?);
        }
        let losses = Tensor::cat(&losses, 0)?;
        let weights = [charges.weights, charges.kl_weights].concat();
        let weights = Tensor::from_vec(weights, n + n_kl, model.device())?;
        Ok(((&losses * weights)?.sum_all()?, losses.to_vec1()?))
    };
    let all = passes.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    all.try_into().map_err(|_| TrainError::EmptySelection)
}
