//! What adapters do inside a model: to a linear layer, and before a text.

use candle_core::{DType, Tensor, Var};

use super::{AdapterId, ia3::Side};
use crate::{
    Result,
    linear::Pass,
    ops::{self, Dropout, LoraTerm, elementary},
    rng::mix,
};

/// What one adapter does to a linear layer.
#[derive(Clone)]
pub(crate) enum Term {
    Lora(Lora),
    Ia3(Ia3),
}

/// A low-rank term on a weight.
#[derive(Clone)]
pub(crate) struct Lora {
    /// `[r, in]`
    pub(crate) a: Piece,
    /// `[out, r]`
    pub(crate) b: Piece,
    pub(crate) scale: f64,
    pub(crate) dropout: f32,
    /// Tells this module's dropout from others'.
    pub(crate) stream: u64,
}

/// Factors on a layer's outputs or inputs.
#[derive(Clone)]
pub(crate) struct Ia3 {
    /// `[out, 1]` or `[1, in]`
    pub(crate) vector: Var,
    pub(crate) side: Side,
}

/// A stored tensor, or the part of it that one module uses.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) var: Var,
    pub(crate) cut: Cut,
}

/// Which part of a stored matrix a module uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    Rows {
        start: usize,
        len: usize,
    },
    /// Every `step`-th column from `first` on, of some rows.
    Columns {
        first: usize,
        step: usize,
        start: usize,
        len: usize,
    },
}

/// A variable as a pass sees it.
fn see(var: &Var, grad: bool) -> Tensor {
    if grad { var.as_tensor().clone() } else { var.as_detached_tensor() }
}

impl Piece {
    pub(crate) fn see(&self, grad: bool) -> Result<Tensor> {
        let whole = see(&self.var, grad);
        Ok(match self.cut {
            Cut::Whole => whole,
            Cut::Rows { start, len } => whole.narrow(0, start, len)?,
            Cut::Columns { first, step, start, len } => {
                let (_, columns) = whole.dims2()?;
                let rows = whole.narrow(0, start, len)?.contiguous()?;
                rows.reshape((len, columns / step, step))?
                    .narrow(2, first, 1)?
                    .squeeze(2)?
                    .contiguous()?
            }
        })
    }
}

impl Lora {
    pub(crate) fn term(&self, pass: Pass) -> LoraTerm {
        let key = pass.dropout_seed.filter(|_| self.dropout > 0.0);
        let dropout = key
            .map(|seed| Dropout { key: mix(seed.wrapping_add(self.stream)), share: self.dropout });
        LoraTerm { scale: self.scale as f32, dropout }
    }

    /// `a` and `b` as a pass sees them.
    pub(crate) fn matrices(&self, pass: Pass) -> Result<[Tensor; 2]> {
        Ok([self.a.see(pass.adapter_grad)?, self.b.see(pass.adapter_grad)?])
    }

    /// What is added to the weight, `[out, in]`.
    pub(crate) fn delta(&self) -> Result<Tensor> {
        Ok((self.b.see(false)?.matmul(&self.a.see(false)?)? * self.scale)?)
    }
}

impl Ia3 {
    /// `[.., n]` times the factors.
    pub(crate) fn scale(&self, x: &Tensor, pass: Pass) -> Result<Tensor> {
        let vector = see(&self.vector, pass.adapter_grad);
        if pass.fused {
            return Ok(ops::scale_columns(x, &vector)?);
        }
        // As in PEFT, the product is in the factors' type, f32.
        let wide = x.to_dtype(vector.dtype())?;
        Ok(elementary::scale_columns(&wide, &vector)?.to_dtype(x.dtype())?)
    }

    /// The rows of a weight `[out, in]` times the factors of its outputs.
    pub(crate) fn scale_rows(&self, weight: &Tensor, pass: Pass) -> Result<Tensor> {
        let column = see(&self.vector, pass.adapter_grad).to_dtype(weight.dtype())?;
        Ok(weight.broadcast_mul(&column)?)
    }

    /// The factors, `[n]`.
    pub(crate) fn factors(&self) -> Result<Tensor> {
        Ok(self.vector.as_detached_tensor().flatten_all()?)
    }
}

/// Keys and values of one layer before a text's own.
#[derive(Clone)]
pub(crate) struct Prefix {
    /// `[n, layers * 2 * token_dim]`
    pub(crate) embeddings: Var,
    /// Columns at which this layer's keys and values begin.
    pub(crate) starts: [usize; 2],
    pub(crate) width: usize,
    pub(crate) dropout: f32,
    /// Tells this layer's dropout from others'.
    pub(crate) stream: u64,
}

impl Prefix {
    pub(crate) fn len(&self) -> Result<usize> {
        Ok(self.embeddings.dim(0)?)
    }

    /// Keys and values with the prefix before them.
    ///
    /// # Shapes
    /// `own`: `[b, s, width]` each; returns `[b, n + s, width]` each.
    pub(crate) fn before(&self, own: [&Tensor; 2], pass: Pass) -> Result<[Tensor; 2]> {
        let embeddings = see(&self.embeddings, pass.adapter_grad);
        let with = |part: usize| -> Result<Tensor> {
            let own = own[part];
            let (batch, _, width) = own.dims3()?;
            let rows = embeddings.narrow(1, self.starts[part], width)?;
            let shape = (batch, rows.dim(0)?, width);
            let mut rows = rows.unsqueeze(0)?.broadcast_as(shape)?;
            if let Some(seed) = pass.dropout_seed.filter(|_| self.dropout > 0.0) {
                let key = mix(seed.wrapping_add(self.stream).wrapping_add(part as u64));
                let mask = Dropout { key, share: self.dropout }.of(&vec![1.0; rows.elem_count()]);
                let mask = Tensor::from_vec(mask, shape, own.device())?.to_dtype(DType::F32)?;
                rows = (rows * mask)?;
            }
            let rows = rows.to_dtype(own.dtype())?;
            Ok(Tensor::cat(&[&rows.contiguous()?, own], 1)?)
        };
        Ok([with(0)?, with(1)?])
    }

    /// Keys and values of the prefix, `[n, width]` each.
    pub(crate) fn keys_values(&self) -> Result<[Tensor; 2]> {
        let all = self.embeddings.as_detached_tensor();
        Ok([
            all.narrow(1, self.starts[0], self.width)?.contiguous()?,
            all.narrow(1, self.starts[1], self.width)?.contiguous()?,
        ])
    }
}

/// What several adapters have put in one place, at most one thing each.
#[derive(Clone)]
pub(crate) struct ByAdapter<T>(Vec<(AdapterId, T)>);

impl<T> Default for ByAdapter<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByAdapter<T> {
    pub(crate) fn get(&self, id: Option<AdapterId>) -> Option<&T> {
        let id = id?;
        self.0.iter().find(|(owner, _)| *owner == id).map(|(_, item)| item)
    }

    pub(crate) fn put(&mut self, id: AdapterId, item: T) {
        self.0.push((id, item));
    }

    pub(crate) fn remove(&mut self, id: AdapterId) {
        self.0.retain(|(owner, _)| *owner != id);
    }
}
