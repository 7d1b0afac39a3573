//! A weight with what may be attached to it.

use candle_core::{Tensor, Var};

use crate::{
    Result,
    ops::{self, Dropout, LoraTerm, elementary},
    rng::mix,
};

/// How one forward pass is computed.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// Fused kernels (CPU) rather than elementary operations.
    pub(crate) fused: bool,
    /// Low-rank terms count.
    pub(crate) adapter: bool,
    /// The weights themselves are trained.
    pub(crate) weights_grad: bool,
    /// Low-rank terms are trained.
    pub(crate) adapter_grad: bool,
    pub(crate) dropout_seed: Option<u64>,
}

impl Pass {
    /// A weight as this pass sees it.
    pub(crate) fn weight(self, var: &Var) -> Tensor {
        if self.weights_grad { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }
}

/// A low-rank term on a weight.
pub(crate) struct Lora {
    /// `[r, in]`
    pub(crate) a: Var,
    /// `[out, r]`
    pub(crate) b: Var,
    pub(crate) scale: f64,
    pub(crate) dropout: f32,
    /// Tells this module's dropout from others'.
    pub(crate) stream: u64,
}

impl Lora {
    fn term(&self, pass: Pass) -> LoraTerm {
        let key = pass.dropout_seed.filter(|_| self.dropout > 0.0);
        let dropout = key
            .map(|seed| Dropout { key: mix(seed.wrapping_add(self.stream)), share: self.dropout });
        LoraTerm { scale: self.scale as f32, dropout }
    }

    /// `a` and `b` as a pass sees them.
    fn matrices(&self, pass: Pass) -> [Tensor; 2] {
        [&self.a, &self.b].map(|var| {
            if pass.adapter_grad { var.as_tensor().clone() } else { var.as_detached_tensor() }
        })
    }
}

/// A linear layer.
pub(crate) struct Linear {
    /// The module's published name, without `.weight`.
    pub(crate) name: String,
    /// `[out, in]`, whatever the published layout.
    pub(crate) weight: Var,
    pub(crate) bias: Option<Var>,
    /// The published weight is `[in, out]`.
    pub(crate) transposed: bool,
    pub(crate) lora: Option<Lora>,
}

impl Linear {
    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        let weight = pass.weight(&self.weight);
        let bias = self.bias.as_ref().map(|bias| pass.weight(bias));
        let bias = bias.as_ref();
        Ok(match self.lora.as_ref().filter(|_| pass.adapter) {
            Some(lora) => {
                let ([a, b], term) = (lora.matrices(pass), lora.term(pass));
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
        let weight = pass.weight(&self.weight);
        let bias = self.bias.as_ref().map(|bias| pass.weight(bias));
        let low_rank = match self.lora.as_ref().filter(|_| pass.adapter) {
            Some(lora) => {
                let [a, b] = lora.matrices(pass);
                Some((ops::low_rank_input(x, &a, lora.term(pass))?, b))
            }
            None => None,
        };
        Ok(ops::Head { x: x.clone(), weight, bias, low_rank })
    }

    /// The weight with the low-rank term added, `[out, in]`.
    pub(crate) fn merged(&self) -> Result<Tensor> {
        let weight = self.weight.as_detached_tensor();
        let Some(lora) = &self.lora else { return Ok(weight) };
        let term = lora.b.as_detached_tensor().matmul(&lora.a.as_detached_tensor())?;
        Ok((weight + (term * lora.scale)?)?)
    }
}
