//! The part of a block that looks at one position at a time.

use candle_core::{D, DType, Tensor};

use super::parts::Parts;
use crate::{
    Result,
    config::spec::{DenseSpec, ExpertsSpec, MlpSpec},
    kernels::route,
    linear::{Linear, Pass},
    ops::{self, Activation, elementary},
};

#[derive(Clone)]
pub(super) enum Mlp {
    Dense(Box<Dense>),
    Experts(Box<Experts>),
}

#[derive(Clone)]
pub(super) struct Dense {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

#[derive(Clone)]
pub(super) struct Experts {
    router: Linear,
    routed: Vec<Dense>,
    shared: Option<Dense>,
    spec: ExpertsSpec,
}

impl Mlp {
    pub(super) fn new(spec: &MlpSpec, parts: &mut Parts) -> Result<Self> {
        Ok(match spec {
            MlpSpec::Dense(dense) => Self::Dense(Box::new(Dense::new(dense, parts)?)),
            MlpSpec::Experts(spec) => Self::Experts(Box::new(Experts {
                router: parts.dense_linear(&spec.router)?,
                routed: spec
                    .experts
                    .iter()
                    .map(|expert| Dense::new(expert, parts))
                    .collect::<Result<_>>()?,
                shared: spec.shared.as_ref().map(|shared| Dense::new(shared, parts)).transpose()?,
                spec: (**spec).clone(),
            })),
        })
    }

    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        match self {
            Self::Dense(dense) => dense.forward(x, pass),
            Self::Experts(experts) => experts.forward(x, pass),
        }
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(dense) => dense.linears().collect(),
            Self::Experts(moe) => {
                moe.routed.iter().chain(&moe.shared).flat_map(Dense::linears).collect()
            }
        }
    }

    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::Dense(dense) => dense.linears_mut().collect(),
            Self::Experts(moe) => {
                let Experts { routed, shared, .. } = &mut **moe;
                routed.iter_mut().chain(shared).flat_map(Dense::linears_mut).collect()
            }
        }
    }

    /// Adapters are not put on it.
    pub(super) fn router(&self) -> Option<&Linear> {
        match self {
            Self::Dense(_) => None,
            Self::Experts(moe) => Some(&moe.router),
        }
    }
}

impl Dense {
    fn new(spec: &DenseSpec, parts: &mut Parts) -> Result<Self> {
        Ok(Self {
            gate: spec.gate.as_ref().map(|gate| parts.linear(gate)).transpose()?,
            up: parts.linear(&spec.up)?,
            down: parts.linear(&spec.down)?,
            activation: spec.activation,
        })
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.gate.iter_mut().chain([&mut self.up, &mut self.down])
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        let up = self.up.forward(x, pass)?;
        let inner = match &self.gate {
            Some(gate) => {
                let gate = gate.forward(x, pass)?;
                if pass.fused {
                    ops::gated(self.activation, &gate, &up)?
                } else {
                    elementary::gated(self.activation, &gate, &up)?
                }
            }
            None if pass.fused => ops::activation(self.activation, &up)?,
            None => elementary::activation(self.activation, &up)?,
        };
        self.down.forward(&inner, pass)
    }
}

impl Experts {
    fn forward(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        let dims = x.dims().to_vec();
        let rows = x.reshape(((), dims[dims.len() - 1]))?; // [n, hidden]
        let n = rows.dim(0)?;
        // Scores are compared in f32, whatever the weights' type.
        let scores = self.router.forward(&rows, pass)?.to_dtype(DType::F32)?;
        let probs = elementary::softmax(&scores)?; // [n, experts]
        let n_experts = self.routed.len();
        let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); n_experts];
        for (row, probs) in probs.detach().to_vec2::<f32>()?.iter().enumerate() {
            for expert in route(probs, &self.spec) {
                chosen[expert].push(row as u32);
            }
        }
        let mut out = match &self.shared {
            Some(shared) => shared.forward(&rows, pass)?,
            None => rows.zeros_like()?,
        };
        for (index, (expert, tokens)) in self.routed.iter().zip(&chosen).enumerate() {
            if tokens.is_empty() {
                continue;
            }
            let places = Tensor::new(tokens.as_slice(), x.device())?;
            let weight =
                probs.narrow(D::Minus1, index, 1)?.contiguous()?.index_select(&places, 0)?;
            let weight = (weight * f64::from(self.spec.scale))?.to_dtype(x.dtype())?;
            let y = expert.forward(&rows.index_select(&places, 0)?, pass)?;
            out = out.index_add(&places, &y.broadcast_mul(&weight)?, 0)?;
        }
        debug_assert_eq!(out.dim(0)?, n);
        Ok(out.reshape(dims)?)
    }
}
