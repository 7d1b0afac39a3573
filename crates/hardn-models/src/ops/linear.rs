//! Matrix products with weights in their published layout, `[out, in]`.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::storage::{argument, elements, tensor};
use crate::kernels::{Matrix, product};

/// `x w^T` with gradients for both.
///
/// # Shapes
/// `x`: `[.., in]` f32, `weight`: `[out, in]` f32; returns `[.., out]`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&weight.contiguous()?, Linear)
}

/// `x w^T` with a gradient for `x` alone; the weight's is never computed.
///
/// # Shapes
/// As [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn frozen_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(FrozenLinear { weight: weight.contiguous()?.detach() })
}

struct Linear;

struct FrozenLinear {
    weight: Tensor,
}

/// Shape of the product, and (rows, out, in).
pub(super) fn product_shape(x: &Shape, weight: &Shape) -> Result<(Shape, [usize; 3])> {
    let (out, input) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == input => *last = out,
        _ => bail!("a weight of shape {weight:?} cannot be applied to {x:?}"),
    }
    let rows = x.elem_count() / input;
    Ok((Shape::from(dims), [rows, out, input]))
}

fn forward(x: &[f32], weight: &[f32], [rows, out, input]: [usize; 3]) -> Vec<f32> {
    product(Matrix::new(x, rows, input), Matrix::new(weight, out, input).t())
}

fn input_gradient(grad: &[f32], weight: &[f32], [rows, out, input]: [usize; 3]) -> Vec<f32> {
    product(Matrix::new(grad, rows, out), Matrix::new(weight, out, input))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (shape, sizes) = product_shape(x_layout.shape(), weight_layout.shape())?;
        let y = forward(argument(x, x_layout)?, argument(weight, weight_layout)?, sizes);
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, sizes) = product_shape(x.shape(), weight.shape())?;
        let [rows, out, input] = sizes;
        let grad = grad.contiguous()?;
        let grad = elements(&grad)?;
        let dx = if x.track_op() {
            Some(tensor(input_gradient(&grad, &elements(weight)?, sizes), x.shape())?)
        } else {
            None
        };
        let x = elements(x)?;
        let dw = product(Matrix::new(&grad, rows, out).t(), Matrix::new(&x, rows, input));
        Ok((dx, Some(tensor(dw, weight.shape())?)))
    }
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen_linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (shape, sizes) = product_shape(layout.shape(), self.weight.shape())?;
        let y = forward(argument(x, layout)?, &elements(&self.weight)?, sizes);
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, sizes) = product_shape(x.shape(), self.weight.shape())?;
        let grad = grad.contiguous()?;
        let dx = input_gradient(&elements(&grad)?, &elements(&self.weight)?, sizes);
        tensor(dx, x.shape()).map(Some)
    }
}
