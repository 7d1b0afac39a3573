//! A linear layer over a quantised weight.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::QuantisedWeight;
use crate::{
    kernels::{Matrix, matmul, product},
    ops::{argument, elements},
};

/// Elements of the weight that are dequantised at once: 8 MB.
const CHUNK: usize = 1 << 21;

/// `x w^T + b` with a gradient for `x`, and for the bias if it is trained. The weight is dequantised in chunks of rows, so that it is never in memory as
/// a whole; sums are formed as [`frozen_linear`](crate::ops::frozen_linear) forms them.
///
/// # Shapes
/// `x`: `[.., in]` f32, `weight`: `[out, in]`, `bias`: `[out]` f32; returns `[.., out]`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
pub fn quantised_linear(
    x: &Tensor,
    weight: &Arc<QuantisedWeight>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let y = x.contiguous()?.apply_op1(QuantisedLinear { weight: weight.clone() })?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

struct QuantisedLinear {
    weight: Arc<QuantisedWeight>,
}

impl QuantisedLinear {
    /// Shape of the product, and (rows, out, in).
    fn sizes(&self, x: &Shape) -> Result<(Shape, [usize; 3])> {
        let (out, input) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == input => *last = out,
            _ => bail!("a weight of shape [{out}, {input}] cannot be applied to {x:?}"),
        }
        let rows = dims[..dims.len() - 1].iter().product();
        Ok((Shape::from(dims), [rows, out, input]))
    }

    /// Calls `each` with the first row of a chunk and the chunk's rows.
    fn chunks(
        &self,
        [_, out, input]: [usize; 3],
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<()> {
        let n = (CHUNK / input.max(1)).clamp(1, out.max(1));
        let mut buffer = vec![0.0; n * input];
        for first in (0..out).step_by(n) {
            let n = n.min(out - first);
            let chunk = &mut buffer[..n * input];
            self.weight.rows(first, chunk)?;
            each(first, n, chunk);
        }
        Ok(())
    }
}

impl CustomOp1 for QuantisedLinear {
    fn name(&self) -> &'static str {
        "quantised_linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (shape, sizes) = self.sizes(layout.shape())?;
        let [rows, out, input] = sizes;
        let x = argument(x, layout)?;
        let mut y = vec![0.0; rows * out];
        self.chunks(sizes, |first, n, weight| {
            let part = product(Matrix::new(x, rows, input), Matrix::new(weight, n, input).t());
            for (y, part) in y.chunks_mut(out).zip(part.chunks(n)) {
                y[first..first + n].copy_from_slice(part);
            }
        })?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, sizes) = self.sizes(x.shape())?;
        let [rows, out, input] = sizes;
        let grad = grad.contiguous()?;
        let grad = elements(&grad)?;
        let mut dx = vec![0.0; rows * input];
        let mut part = Vec::new();
        self.chunks(sizes, |first, n, weight| {
            part.clear();
            for row in grad.chunks(out) {
                part.extend_from_slice(&row[first..first + n]);
            }
            let (part, weight) = (Matrix::new(&part, rows, n), Matrix::new(weight, n, input));
            matmul(&mut dx, part, weight, true);
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}
