//! Learned factors on the columns of activations.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    storage::{argument, elements, tensor},
    sums::{ROWS, added},
};
use crate::kernels::filled;

/// `x * vector`, a factor for each column, with gradients for both.
///
/// # Shapes
/// `x`: `[.., n]` f32, `vector`: `n` values f32; returns the shape of `x`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
///
/// # Source
/// Liu et al. 2022 (arXiv:2205.05638), section 3.3.
pub fn scale_columns(x: &Tensor, vector: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&vector.contiguous()?, ScaleColumns)
}

struct ScaleColumns;

fn scaled(x: &[f32], vector: &[f32]) -> Vec<f32> {
    let n = vector.len();
    filled(x.len(), n * ROWS, |i, y| {
        for (y, x) in y.chunks_exact_mut(n).zip(x[i * n * ROWS..].chunks_exact(n)) {
            for ((y, x), factor) in y.iter_mut().zip(x).zip(vector) {
                *y = x * factor;
            }
        }
    })
}

impl CustomOp2 for ScaleColumns {
    fn name(&self) -> &'static str {
        "scale_columns"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        vector: &CpuStorage,
        vector_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let n = vector_layout.shape().elem_count();
        if n == 0 || x_layout.dims().last() != Some(&n) {
            bail!("{n} factors cannot be applied to {:?}", x_layout.shape())
        }
        let y = scaled(argument(x, x_layout)?, argument(vector, vector_layout)?);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        vector: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let n = vector.elem_count();
        let grad = grad.contiguous()?;
        let (x_data, dy) = (elements(x)?, elements(&grad)?);
        let dx = if x.track_op() {
            Some(tensor(scaled(&dy, &elements(vector)?), x.shape())?)
        } else {
            None
        };
        let part = |(x, dy): (&[f32], &[f32])| {
            let mut sums = vec![0.0; n];
            for (x, dy) in x.chunks_exact(n).zip(dy.chunks_exact(n)) {
                for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                    *sum += x * dy;
                }
            }
            sums
        };
        let parts: Vec<Vec<f32>> =
            x_data.par_chunks(n * ROWS).zip(dy.par_chunks(n * ROWS)).map(part).collect();
        Ok((dx, Some(tensor(added(&parts, n), vector.shape())?)))
    }
}
