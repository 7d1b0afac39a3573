//! A weight with what may be attached to it.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use crate::{
    Result,
    adapter::{AdapterId, ByAdapter, Lora, Side, Term},
    ops::{self, elementary},
    quantised::{QuantisedWeight, quantised_linear},
};

/// How one forward pass is computed.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// Fused kernels (CPU) rather than elementary operations.
    pub(crate) fused: bool,
    /// The adapter that counts.
    pub(crate) adapter: Option<AdapterId>,
    /// The weights themselves are trained.
    pub(crate) weights_grad: bool,
    /// The adapter is trained.
    pub(crate) adapter_grad: bool,
    pub(crate) dropout_seed: Option<u64>,
}

impl Pass {
    /// A weight as this pass sees it.
    pub(crate) fn weight(self, var: &Var) -> Tensor {
        if self.weights_grad { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }
}

/// The weight of a linear layer, `[out, in]`, whatever the published layout.
#[derive(Clone)]
pub(crate) enum Weight {
    Dense(Var),
    /// Never trained; f32 on the CPU.
    Quantised(Arc<QuantisedWeight>),
}

impl Weight {
    /// All of it, without history: f32 where it is quantised.
    pub(crate) fn dense(&self) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(var) => var.as_detached_tensor(),
            Self::Quantised(weight) => weight.dequantise()?,
        })
    }
}

/// A linear layer.
#[derive(Clone)]
pub(crate) struct Linear {
    /// The module's published name, without `.weight`.
    pub(crate) name: String,
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Var>,
    /// The published weight is `[in, out]`.
    pub(crate) transposed: bool,
    pub(crate) terms: ByAdapter<Term>,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        match self.terms.get(pass.adapter) {
            None => self.base(x, None, pass),
            Some(Term::Lora(lora)) => self.base(x, Some(lora), pass),
            Some(Term::Ia3(ia3)) if ia3.side == Side::Input => {
                self.base(&ia3.scale(x, pass)?, None, pass)
            }
            Some(Term::Ia3(ia3)) => ia3.scale(&self.base(x, None, pass)?, pass),
        }
    }

    fn base(&self, x: &Tensor, lora: Option<&Lora>, pass: Pass) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| pass.weight(bias));
        let bias = bias.as_ref();
        let weight = match &self.weight {
            Weight::Dense(weight) => pass.weight(weight),
            Weight::Quantised(weight) => {
                let y = quantised_linear(x, weight, bias)?;
                let Some(lora) = lora else { return Ok(y) };
                let [a, b] = lora.matrices(pass)?;
                let low = ops::low_rank_input(x, &a, lora.term(pass))?;
                return Ok((y + ops::linear(&low, &b, None)?)?);
            }
        };
        Ok(match lora {
            Some(lora) => {
                let ([a, b], term) = (lora.matrices(pass)?, lora.term(pass));
                if pass.fused {
                    ops::lora_linear(x, &weight, bias, &a, &b, term)?
                } else {
                    elementary::lora_linear(x, &weight, bias, &a, &b, term)?
                }
            }
            None if !pass.fused => elementary::linear(x, &weight, bias)?,
            None if pass.weights_grad => ops::linear(x, &weight, bias)?,
            None => ops::frozen_linear(x, &weight, bias)?,
        })
    }

    /// What the output is made of, for losses that never hold all of it.
    pub(crate) fn parts(&self, x: &Tensor, pass: Pass) -> Result<ops::Head> {
        let weight = match &self.weight {
            Weight::Dense(weight) => pass.weight(weight),
            Weight::Quantised(weight) => weight.dequantise()?,
        };
        let bias = self.bias.as_ref().map(|bias| pass.weight(bias));
        let x = x.clone();
        Ok(match self.terms.get(pass.adapter) {
            None => ops::Head { x, weight, bias, low_rank: None },
            Some(Term::Lora(lora)) => {
                let [a, b] = lora.matrices(pass)?;
                let low = ops::low_rank_input(&x, &a, lora.term(pass))?;
                ops::Head { x, weight, bias, low_rank: Some((low, b)) }
            }
            Some(Term::Ia3(ia3)) if ia3.side == Side::Input => {
                ops::Head { x: ia3.scale(&x, pass)?, weight, bias, low_rank: None }
            }
            Some(Term::Ia3(ia3)) => {
                let weight = ia3.scale_rows(&weight, pass)?;
                let bias = bias.map(|bias| ia3.scale(&bias, pass)).transpose()?;
                ops::Head { x, weight, bias, low_rank: None }
            }
        })
    }
}
