//! A frozen weight with a low-rank term, in one operation.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    linear::{Frozen, linear, product_shape},
    storage::{argument, elements, tensor},
};
use crate::kernels::{Matrix, filled, matmul, product};

/// Dropout on the input of a low-rank term: a fixed function of the key and an element's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    pub(crate) key: u64,
    /// The share of elements set to zero, in [0, 1).
    pub(crate) share: f32,
}

impl Dropout {
    /// Elements a task takes at once.
    const PART: usize = 1 << 14;

    /// `x` with the dropped elements zero and the others divided by the share that is kept.
    pub(crate) fn of(self, x: &[f32]) -> Vec<f32> {
        filled(x.len(), Self::PART, |i, out| {
            let first = i * Self::PART;
            out.copy_from_slice(&x[first..][..out.len()]);
            self.part(first as u32, out);
        })
    }

    /// The same in place.
    fn apply(self, x: &mut [f32]) {
        let parts = x.par_chunks_mut(Self::PART).enumerate();
        parts.for_each(|(i, x)| self.part((i * Self::PART) as u32, x));
    }

    /// Elements from place `first` on, eight at a time so that compilers use vectors.
    fn part(self, first: u32, x: &mut [f32]) {
        let threshold = (f64::from(self.share) * 4_294_967_296.0) as u32;
        let (low, high) = (self.key as u32, (self.key >> 32) as u32);
        let keep = 1.0 / (1.0 - self.share);
        let factor = |place: u32| {
            let is_dropped = mix(mix(place ^ low).wrapping_add(high)) < threshold;
            if is_dropped { 0.0 } else { keep }
        };
        let (lanes, rest) = x.as_chunks_mut::<8>();
        let mut place = first;
        for x in lanes {
            let mut factors = [0.0; 8];
            for (lane, to) in (0..8_u32).zip(&mut factors) {
                *to = factor(place.wrapping_add(lane));
            }
            for (x, factor) in x.iter_mut().zip(factors) {
                *x *= factor;
            }
            place = place.wrapping_add(8);
        }
        for x in rest {
            *x *= factor(place);
            place = place.wrapping_add(1);
        }
    }
}

/// A 32-bit mixing function.
#[inline]
fn mix(word: u32) -> u32 {
    let word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    let word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
    word ^ (word >> 16)
}

/// What a low-rank term does besides its two matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoraTerm {
    pub(crate) scale: f32,
    pub(crate) dropout: Option<Dropout>,
}

/// `x w^T + bias + scale * dropout(x) a^T b^T` with gradients for `x`, `a` and `b`.
///
/// # Shapes
/// `x`: `[.., in]`, `weight`: `[out, in]`, `bias`: `[out]`, `a`: `[r, in]`, `b`: `[out, r]`, all f32; returns
/// `[.., out]`.
///
/// # Source
/// Hu et al. 2021 (arXiv:2106.09685), section 4.1.
pub(crate) fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    term: LoraTerm,
) -> Result<Tensor> {
    let op = LoraLinear { base: Frozen::new(weight, bias)?, term, forward: Mutex::default() };
    x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, op)
}

/// What `b` of a low-rank term is applied to: `scale * dropout(x) a^T`, with gradients for both.
///
/// # Shapes
/// `x`: `[.., in]`, `a`: `[r, in]`, f32; returns `[.., r]`.
pub(crate) fn low_rank_input(x: &Tensor, a: &Tensor, term: LoraTerm) -> Result<Tensor> {
    let h = match term.dropout {
        Some(dropout) => {
            let mask = tensor(dropout.of(&vec![1.0; x.elem_count()]), x.shape())?;
            linear(&(x * mask)?, a, None)?
        }
        None => linear(x, a, None)?,
    };
    h * f64::from(term.scale)
}

struct LoraLinear {
    base: Frozen,
    term: LoraTerm,
    /// What the way forward leaves for the way back.
    forward: Mutex<Option<Forward>>,
}

struct Forward {
    /// The input after dropout, where there is any.
    dropped: Option<Vec<f32>>,
    /// The scaled product of input and `a`.
    h: Vec<f32>,
}

fn scale_by(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "lora_linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (shape, [rows, out, input]) =
            product_shape(x_layout.shape(), self.base.weight.shape())?;
        let (_, [_, r, _]) = product_shape(x_layout.shape(), a_layout.shape())?;
        let x = argument(x, x_layout)?;
        let mut y = self.base.apply(x, [rows, out, input])?;
        let dropped = self.term.dropout.map(|dropout| dropout.of(x));
        let seen = dropped.as_deref().unwrap_or(x);
        let (a, b) = (argument(a, a_layout)?, argument(b, b_layout)?);
        let mut h = product(Matrix::new(seen, rows, input), Matrix::new(a, r, input).t());
        scale_by(&mut h, self.term.scale);
        matmul(&mut y, Matrix::new(&h, rows, r), Matrix::new(b, out, r).t(), true);
        *self.forward.lock().unwrap_or_else(PoisonError::into_inner) = Some(Forward { dropped, h });
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, [rows, out, input]) = product_shape(x.shape(), self.base.weight.shape())?;
        let r = a.dim(0)?;
        let scale = self.term.scale;
        let grad = grad.contiguous()?;
        let (dy, x_data, a_data, b_data) =
            (elements(&grad)?, elements(x)?, elements(a)?, elements(b)?);
        let forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Forward { dropped, h }) = &*forward else {
            bail!("the gradient of a low-rank term was asked for before its value")
        };
        let seen = dropped.as_deref().unwrap_or(&x_data);

        let dy = Matrix::new(&dy, rows, out);
        let seen = Matrix::new(seen, rows, input);
        let a_matrix = Matrix::new(&a_data, r, input);
        let db = product(dy.t(), Matrix::new(h, rows, r));
        let mut dh = product(dy, Matrix::new(&b_data, out, r));
        scale_by(&mut dh, scale);
        let dh = Matrix::new(&dh, rows, r);
        let da = product(dh.t(), seen);

        let dx = if x.track_op() {
            let mut dx = product(dh, a_matrix);
            if let Some(dropout) = self.term.dropout {
                dropout.apply(&mut dx);
            }
            let weight = elements(&self.base.weight)?;
            matmul(&mut dx, dy, Matrix::new(&weight, out, input), true);
            Some(tensor(dx, x.shape())?)
        } else {
            None
        };
        Ok((dx, Some(tensor(da, a.shape())?), Some(tensor(db, b.shape())?)))
    }
}
