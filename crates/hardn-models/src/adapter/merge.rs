//! Weights with an adapter worked in.

use candle_core::{DType, Tensor, Var};

use super::{AdapterConfig, AdapterId, Side, Term, UseAdapter};
use crate::{Model, ModelError, Result, linear::Linear, model::Parts};

impl Model {
    /// A model without adapters whose weights include the active one. A copy: training one does not change the other.
    ///
    /// # Errors
    /// As [`Self::merged_with`].
    pub fn merged(&self) -> Result<Self> {
        self.merged_with(UseAdapter::Active)
    }

    /// The same with an adapter of choice.
    ///
    /// # Errors
    /// A prefix, which cannot be part of weights, or an adapter that is not attached.
    pub fn merged_with(&self, which: UseAdapter) -> Result<Self> {
        let mut config = self.config().clone();
        let mut weights = self.published_weights()?;
        if let Some(slot) = self.adapters.chosen(which)? {
            if matches!(slot.config, AdapterConfig::PrefixTuning(_)) {
                return Err(ModelError::Input(
                    "a prefix cannot be merged into weights; keep it as an adapter".to_owned(),
                ));
            }
            for linear in self.linears() {
                let Some((weight, bias)) = linear.merged(slot.id)? else { continue };
                // What is put on a tied output must not change the embedding.
                if linear.name == config.spec.head.name {
                    config.tie_word_embeddings = false;
                }
                weights.insert(format!("{}.weight", linear.name), linear.published(&weight)?);
                if let Some(bias) = bias {
                    weights.insert(format!("{}.bias", linear.name), bias);
                }
            }
        }
        Self::assemble(config, Parts::Memory(weights), self.dtype(), self.device())
    }
}

impl Linear {
    /// Weight, `[out, in]`, and bias with an adapter's term worked in; `None` if it has none here.
    fn merged(&self, id: AdapterId) -> Result<Option<(Tensor, Option<Tensor>)>> {
        let weight = self.weight.dense()?;
        let bias = self.bias.as_ref().map(Var::as_detached_tensor);
        Ok(match self.terms.get(Some(id)) {
            None => None,
            Some(Term::Lora(lora)) => {
                let sum = (weight.to_dtype(DType::F32)? + lora.delta()?)?;
                Some((sum.to_dtype(weight.dtype())?, bias))
            }
            Some(Term::Ia3(ia3)) => {
                let factors = ia3.factors()?.to_dtype(weight.dtype())?;
                Some(match ia3.side {
                    Side::Input => (weight.broadcast_mul(&factors)?, bias),
                    Side::Output => {
                        let weight = weight.broadcast_mul(&factors.unsqueeze(1)?)?;
                        (weight, bias.map(|bias| bias * factors).transpose()?)
                    }
                })
            }
        })
    }
}
