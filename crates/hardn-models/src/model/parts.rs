//! Making a model's modules of named tensors.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{Tensor, Var};

use crate::{
    ModelError, Result,
    adapter::ByAdapter,
    checkpoint::Stock,
    config::spec::{LinearSpec, NormKind, NormSpec},
    linear::{Linear, Pass, Weight},
    ops::{self, elementary},
    quantised::QuantisedWeight,
};

/// Tensors by their published names, each taken once.
pub(crate) enum Parts {
    Memory(BTreeMap<String, Tensor>),
    /// Read when they are taken, so that a model is never in memory twice.
    Files(Stock),
}

impl Parts {
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Var> {
        Ok(Var::from_tensor(&self.tensor(name, shape)?)?)
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let error = |message: String| ModelError::Tensor {
            path: "weights".into(),
            name: name.to_owned(),
            message,
        };
        let tensor = match self {
            Self::Memory(weights) => weights.remove(name),
            Self::Files(stock) => stock.tensor(name)?,
        };
        let tensor = tensor.ok_or_else(|| error("is missing".to_owned()))?;
        if tensor.dims() != shape {
            return Err(error(format!("has shape {:?}, expected {shape:?}", tensor.dims())));
        }
        Ok(tensor)
    }

    pub(crate) fn linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let name = format!("{}.weight", spec.name);
        if let Self::Files(stock) = self
            && let Some(weight) = stock.quantised(&name)?
        {
            return self.linear_of(spec, Weight::Quantised(Arc::new(weight)));
        }
        let weight = self.tensor(&name, &spec.published_shape())?;
        let weight = if spec.transposed { weight.t()?.contiguous()? } else { weight };
        let weight = match self {
            Self::Files(stock) if stock.rounds_to_int8() => {
                Weight::Quantised(Arc::new(QuantisedWeight::int8(&weight)?))
            }
            _ => Weight::Dense(Var::from_tensor(&weight)?),
        };
        self.linear_of(spec, weight)
    }

    /// A linear layer whose weight is never quantised.
    pub(crate) fn dense_linear(&mut self, spec: &LinearSpec) -> Result<Linear> {
        let weight = self.take(&format!("{}.weight", spec.name), &spec.published_shape())?;
        self.linear_of(spec, Weight::Dense(weight))
    }

    /// A linear layer of a weight that another module has as well.
    pub(crate) fn linear_of(&mut self, spec: &LinearSpec, weight: Weight) -> Result<Linear> {
        let bias = if spec.bias {
            Some(self.take(&format!("{}.bias", spec.name), &[spec.out])?)
        } else {
            None
        };
        let name = spec.name.clone();
        Ok(Linear { name, weight, bias, transposed: spec.transposed, terms: ByAdapter::default() })
    }

    pub(crate) fn norm(&mut self, spec: &NormSpec) -> Result<Norm> {
        let weight = self.take(&format!("{}.weight", spec.name), &[spec.size])?;
        let bias = match spec.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.take(&format!("{}.bias", spec.name), &[spec.size])?),
        };
        Ok(Norm { name: spec.name.clone(), weight, bias, eps: spec.eps })
    }
}

/// A normalisation over the last dimension: by mean and variance where there is a bias, else by root mean square.
#[derive(Clone)]
pub(crate) struct Norm {
    pub(crate) name: String,
    pub(crate) weight: Var,
    pub(crate) bias: Option<Var>,
    eps: f64,
}

impl Norm {
    pub(crate) fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        let weight = pass.weight(&self.weight);
        Ok(match &self.bias {
            Some(bias) => {
                let bias = pass.weight(bias);
                if pass.fused {
                    ops::layer_norm(x, &weight, Some(&bias), self.eps)?
                } else {
                    elementary::layer_norm(x, &weight, Some(&bias), self.eps)?
                }
            }
            None if pass.fused => ops::rms_norm(x, &weight, self.eps)?,
            None => elementary::rms_norm(x, &weight, self.eps)?,
        })
    }

    /// Each of `heads` parts of the last dimension for itself.
    pub(crate) fn forward_heads(&self, x: &Tensor, heads: usize, pass: Pass) -> Result<Tensor> {
        let (batch, seq, width) = x.dims3()?;
        let split = x.reshape((batch, seq, heads, width / heads))?;
        Ok(self.forward(&split, pass)?.reshape((batch, seq, width))?)
    }
}
