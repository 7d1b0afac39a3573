//! Losses straight from hidden states, without the logits of all rows in memory.

use std::{array, sync::Arc};

use candle_core::{Tensor, Var};

use crate::{
    ForwardOptions, Model, ModelError, Result, Segments,
    ops::{Charges, Gradients, Head, Segment, backward_in_segments, vocabulary_losses},
};

impl Model {
    /// The weighted sum of the rows' losses (a scalar f32 that can be differentiated) and every row's loss in nats.
    ///
    /// `reference` is what divergences are measured from: a model, its hidden states and how it is run.
    ///
    /// # Shapes
    /// `hidden`: `[n, hidden_size]` f32, what [`Self::hidden`] gives at the charged positions; the reference's:
    /// `[n_kl, hidden_size]`.
    ///
    /// # Errors
    /// Sizes that do not fit, a target outside the vocabulary, or a model without fused operations.
    pub fn head_loss(
        &self,
        hidden: &Tensor,
        options: &ForwardOptions,
        charges: &Charges,
        reference: Option<(&Model, &Tensor, &ForwardOptions)>,
    ) -> Result<(Tensor, Vec<f32>)> {
        let [loss] = self.head_losses([(hidden, options, charges)], reference)?;
        Ok(loss)
    }

    /// As [`Self::head_loss`] for several passes over the same positions, as under several adapters: the reference's
    /// logits are computed once for all.
    ///
    /// # Errors
    /// As [`Self::head_loss`].
    pub fn head_losses<const N: usize>(
        &self,
        passes: [(&Tensor, &ForwardOptions, &Charges); N],
        reference: Option<(&Model, &Tensor, &ForwardOptions)>,
    ) -> Result<[(Tensor, Vec<f32>); N]> {
        let reference = reference
            .map(|(model, hidden, options)| model.head_parts(hidden, options))
            .transpose()?;
        let heads = passes.iter().map(|(hidden, options, _)| self.head_parts(hidden, options));
        let heads = heads.collect::<Result<Vec<Head>>>()?;
        let charges = passes.map(|(_, _, charges)| charges);
        Ok(vocabulary_losses(array::from_fn(|i| &heads[i]), charges, reference.as_ref())?)
    }

    /// Computes `loss` of the last hidden states and the gradients of `variables`, keeping only the states between
    /// layers and computing each layer once more on the way back; see [`backward_in_segments`].
    ///
    /// # Shapes
    /// `ids`: `[b, s]` u32; `loss` is given `[b, s, hidden_size]` f32 and returns a scalar and whatever else.
    ///
    /// # Errors
    /// As [`Self::hidden_packed`], and whatever the loss reports.
    pub fn checkpointed<T, E: From<candle_core::Error> + From<ModelError>>(
        &self,
        ids: &Tensor,
        segments: Option<&Arc<Segments>>,
        options: &ForwardOptions,
        loss: impl FnOnce(&Tensor) -> Result<(Tensor, T), E>,
        variables: &[Var],
    ) -> Result<(T, Gradients), E> {
        let mut parts: Vec<Segment<E>> =
            vec![Box::new(|ids| Ok(self.embed(ids, segments, options)?))];
        for layer in 0..self.config().num_hidden_layers {
            parts.push(Box::new(move |x| Ok(self.layer(layer, x, segments, options)?)));
        }
        backward_in_segments(ids, &parts, |x| loss(&self.normalise(x, options)?), variables)
    }

    fn head_parts(&self, hidden: &Tensor, options: &ForwardOptions) -> Result<Head> {
        if !self.is_fused() {
            return Err(ModelError::Input("this needs fused operations".to_owned()));
        }
        self.head_linear().parts(hidden, self.pass(options)?)
    }
}
