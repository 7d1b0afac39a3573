//! Normalisation by mean and variance.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    storage::{argument, elements, tensor},
    sums::{ROWS, added, dot, sum},
};
use crate::kernels::{filled, zeros};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension, with gradients for all three.
/// The variance is the mean of squares, not divided by `n - 1`.
///
/// # Shapes
/// `x`: `[.., n]` f32, `weight`, `bias`: `[n]` f32; returns the shape of `x`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
///
/// # Source
/// Ba et al. 2016 (arXiv:1607.06450), equation 4.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = LayerNorm { eps: eps as f32 };
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op),
        None => x.apply_op2(&weight, op),
    }
}

struct LayerNorm {
    eps: f32,
}

/// Gradients of input, weight and bias.
type Gradients = (Vec<f32>, Vec<f32>, Vec<f32>);

impl LayerNorm {
    /// The normalised row.
    fn normalise(&self, x: &[f32], out: &mut [f32]) -> f32 {
        let n = x.len() as f32;
        let mean = sum(x) / n;
        for (out, x) in out.iter_mut().zip(x) {
            *out = x - mean;
        }
        let inverse = 1.0 / (dot(out, out) / n + self.eps).sqrt();
        for out in out {
            *out *= inverse;
        }
        inverse
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let n = weight.len();
        filled(x.len(), n * ROWS, |i, y| {
            for (y, x) in y.chunks_exact_mut(n).zip(x[i * n * ROWS..].chunks_exact(n)) {
                self.normalise(x, y);
                for (y, weight) in y.iter_mut().zip(weight) {
                    *y *= weight;
                }
                if let Some(bias) = bias {
                    super::sums::add(y, bias);
                }
            }
        })
    }

    fn backward(&self, x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<Gradients> {
        let n = weight.elem_count();
        let grad = grad.contiguous()?;
        let (dy, x, weight) = (elements(&grad)?, elements(x)?, elements(weight)?);
        let (x, dy, weight): (&[f32], &[f32], &[f32]) = (&x, &dy, &weight);
        let mut dx = zeros(x.len());
        let parts: Vec<(Vec<f32>, Vec<f32>)> = dx
            .par_chunks_mut(n * ROWS)
            .zip(x.par_chunks(n * ROWS).zip(dy.par_chunks(n * ROWS)))
            .map(|(dx, (x, dy))| {
                let (mut dw, mut db, mut normal) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
                let rows = x.chunks_exact(n).zip(dy.chunks_exact(n));
                for (dx, (x, dy)) in dx.chunks_exact_mut(n).zip(rows) {
                    let inverse = self.normalise(x, &mut normal);
                    for ((dx, (dw, db)), ((dy, weight), normal)) in dx
                        .iter_mut()
                        .zip(dw.iter_mut().zip(&mut db))
                        .zip(dy.iter().zip(weight).zip(&normal))
                    {
                        *dw += dy * normal;
                        *db += dy;
                        *dx = dy * weight;
                    }
                    let (mean, pull) = (sum(dx) / n as f32, dot(dx, &normal) / n as f32);
                    for (dx, normal) in dx.iter_mut().zip(&normal) {
                        *dx = (*dx - mean - normal * pull) * inverse;
                    }
                }
                (dw, db)
            })
            .collect();
        let (dw, db): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok((dx, added(&dw, n), added(&db, n)))
    }
}

fn check(x: &Layout, weight: &Layout) -> Result<()> {
    let n = weight.shape().elem_count();
    if n == 0 || x.dims().last() != Some(&n) {
        bail!("a norm of {:?} cannot be applied to {:?}", weight.shape(), x.shape())
    }
    Ok(())
}

impl CustomOp2 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        check(x_layout, weight_layout)?;
        let y = self.forward(argument(x, x_layout)?, argument(weight, weight_layout)?, None);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, _) = self.backward(x, weight, grad)?;
        Ok((Some(tensor(dx, x.shape())?), wanted(weight, dw)?))
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        check(x_layout, weight_layout)?;
        check(x_layout, bias_layout)?;
        let bias = argument(bias, bias_layout)?;
        let y = self.forward(argument(x, x_layout)?, argument(weight, weight_layout)?, Some(bias));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw, db) = self.backward(x, weight, grad)?;
        Ok((Some(tensor(dx, x.shape())?), wanted(weight, dw)?, wanted(bias, db)?))
    }
}

/// A gradient as a tensor, where the variable is trained.
fn wanted(variable: &Tensor, gradient: Vec<f32>) -> Result<Option<Tensor>> {
    variable.track_op().then(|| tensor(gradient, variable.shape())).transpose()
}
