//! Matrix products with weights in their published layout, `[out, in]`.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};
use rayon::prelude::*;

use super::{
    storage::{argument, elements, tensor},
    sums::{ROWS, add, column_sums},
};
use crate::kernels::{Matrix, product};

/// `x w^T + bias` with gradients for all.
///
/// # Shapes
/// `x`: `[.., in]` f32, `weight`: `[out, in]` f32, `bias`: `[out]` f32; returns `[.., out]`.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Linear),
        None => x.apply_op2(&weight, Linear),
    }
}

/// The same with a gradient for `x` alone; those of weight and bias are never computed.
///
/// # Shapes
/// As [`linear`].
///
/// # Errors
/// As [`linear`].
pub fn frozen_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    x.contiguous()?.apply_op1(FrozenLinear(Frozen::new(weight, bias)?))
}

struct Linear;

struct FrozenLinear(Frozen);

/// A weight that is not trained.
pub(super) struct Frozen {
    pub(super) weight: Tensor,
    bias: Option<Tensor>,
}

impl Frozen {
    pub(super) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let bias = bias.map(Tensor::contiguous).transpose()?.map(|bias| bias.detach());
        Ok(Self { weight: weight.contiguous()?.detach(), bias })
    }

    /// `x w^T + bias` of dense rows.
    pub(super) fn apply(&self, x: &[f32], sizes: [usize; 3]) -> Result<Vec<f32>> {
        let weight = elements(&self.weight)?;
        match &self.bias {
            Some(bias) => forward(x, &weight, Some(&elements(bias)?), sizes),
            None => forward(x, &weight, None, sizes),
        }
    }
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

fn forward(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    [rows, out, input]: [usize; 3],
) -> Result<Vec<f32>> {
    let mut y = product(Matrix::new(x, rows, input), Matrix::new(weight, out, input).t());
    if let Some(bias) = bias {
        if bias.len() != out {
            bail!("a bias of {} values cannot be added to {out} columns", bias.len())
        }
        y.par_chunks_mut(out * ROWS).for_each(|y| {
            y.chunks_exact_mut(out).for_each(|row| add(row, bias));
        });
    }
    Ok(y)
}

fn input_gradient(grad: &[f32], weight: &[f32], [rows, out, input]: [usize; 3]) -> Vec<f32> {
    product(Matrix::new(grad, rows, out), Matrix::new(weight, out, input))
}

/// Gradients of input and weight, where they are wanted.
fn gradients(x: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
    let (_, sizes) = product_shape(x.shape(), weight.shape())?;
    let [rows, out, input] = sizes;
    let grad = elements(grad)?;
    let dx = if x.track_op() {
        Some(tensor(input_gradient(&grad, &elements(weight)?, sizes), x.shape())?)
    } else {
        None
    };
    let dw = if weight.track_op() {
        let x = elements(x)?;
        let dw = product(Matrix::new(&grad, rows, out).t(), Matrix::new(&x, rows, input));
        Some(tensor(dw, weight.shape())?)
    } else {
        None
    };
    Ok([dx, dw])
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
        let y = forward(argument(x, x_layout)?, argument(weight, weight_layout)?, None, sizes)?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw] = gradients(x, weight, &grad.contiguous()?)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        let (shape, sizes) = product_shape(x_layout.shape(), weight_layout.shape())?;
        let bias = argument(bias, bias_layout)?;
        let (x, weight) = (argument(x, x_layout)?, argument(weight, weight_layout)?);
        Ok((CpuStorage::F32(forward(x, weight, Some(bias), sizes)?), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [dx, dw] = gradients(x, weight, &grad)?;
        let db = if bias.track_op() {
            Some(tensor(column_sums(&elements(&grad)?, bias.elem_count()), bias.shape())?)
        } else {
            None
        };
        Ok((dx, dw, db))
    }
}

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen_linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (shape, sizes) = product_shape(layout.shape(), self.0.weight.shape())?;
        Ok((CpuStorage::F32(self.0.apply(argument(x, layout)?, sizes)?), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, sizes) = product_shape(x.shape(), self.0.weight.shape())?;
        let grad = grad.contiguous()?;
        let dx = input_gradient(&elements(&grad)?, &elements(&self.0.weight)?, sizes);
        tensor(dx, x.shape()).map(Some)
    }
}
