//! Root-mean-square normalisation.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    storage::{argument, elements, tensor},
    sums::{ROWS, added, dot},
};
use crate::kernels::{filled, zeros};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension, with gradients for both.
///
/// # Shapes
/// `x`: `[.., n]` f32, `weight`: `[n]` f32; returns the shape of `x`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
///
/// # Source
/// Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

/// `1 / sqrt(mean(x^2) + eps)`.
pub(crate) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (argument(x, x_layout)?, argument(weight, weight_layout)?);
        let n = weight.len();
        if x_layout.dims().last() != Some(&n) {
            bail!("a norm of {n} weights cannot be applied to {:?}", x_layout.shape())
        }
        let y = filled(x.len(), n * ROWS, |i, y| {
            let x = &x[i * n * ROWS..];
            for (y, x) in y.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                let inverse = inverse_rms(x, self.eps);
                for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * inverse * weight;
                }
            }
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let n = weight.elem_count();
        let grad = grad.contiguous()?;
        let (dy, x_data, w) = (elements(&grad)?, elements(x)?, elements(weight)?);
        let mut dx = zeros(x_data.len());
        // Partial sums are added in order, so that the number of threads changes nothing.
        let (x_rows, dy_rows, w): (&[f32], &[f32], &[f32]) = (&x_data, &dy, &w);
        let parts: Vec<Vec<f32>> = dx
            .par_chunks_mut(n * ROWS)
            .zip(x_rows.par_chunks(n * ROWS))
            .zip(dy_rows.par_chunks(n * ROWS))
            .map(|((dx, x), dy)| {
                let mut dw = vec![0.0; n];
                let rows = dx.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(dy.chunks_exact(n));
                for ((dx, x), dy) in rows {
                    let inverse = inverse_rms(x, self.eps);
                    for (((dx, dw), (x, dy)), w) in
                        dx.iter_mut().zip(&mut dw).zip(x.iter().zip(dy)).zip(w)
                    {
                        *dw += dy * x * inverse;
                        *dx = dy * w;
                    }
                    let pull = dot(dx, x) * inverse * inverse * inverse / n as f32;
                    for (dx, x) in dx.iter_mut().zip(x) {
                        *dx = *dx * inverse - x * pull;
                    }
                }
                dw
            })
            .collect();
        let dw =
            if weight.track_op() { Some(tensor(added(&parts, n), weight.shape())?) } else { None };
        Ok((Some(tensor(dx, x.shape())?), dw))
    }
}
