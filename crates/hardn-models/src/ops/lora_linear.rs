//! A frozen weight with a low-rank term, in one operation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{
    linear::product_shape,
    storage::{argument, elements, tensor},
};
use crate::kernels::{Matrix, matmul};

/// Dropout on the input of a low-rank term: a fixed function of the key and an element's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    pub(crate) key: u64,
    /// The share of elements set to zero, in [0, 1).
    pub(crate) share: f32,
}

impl Dropout {
    /// Zero for dropped elements, `1 / (1 - share)` for the others.
    pub(crate) fn mask(self, n: usize) -> Vec<f32> {
        let keep = 1.0 / (1.0 - self.share);
        let threshold = (f64::from(self.share) * 4_294_967_296.0) as u32;
        let (low, high) = (self.key as u32, (self.key >> 32) as u32);
        // A 32-bit mixing function, so that compilers can use vectors.
        let mix = |word: u32| {
            let word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
            let word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
            word ^ (word >> 16)
        };
        (0..n as u32)
            .map(|i| if mix(mix(i ^ low).wrapping_add(high)) < threshold { 0.0 } else { keep })
            .collect()
    }
}

/// What a low-rank term does besides its two matrices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoraTerm {
    pub(crate) scale: f32,
    pub(crate) dropout: Option<Dropout>,
}

/// `x w^T + scale * dropout(x) a^T b^T` with gradients for `x`, `a` and `b`.
///
/// # Shapes
/// `x`: `[.., in]`, `weight`: `[out, in]`, `a`: `[r, in]`, `b`: `[out, r]`, all f32; returns `[.., out]`.
///
/// # Source
/// Hu et al. 2021 (arXiv:2106.09685), section 4.1.
pub(crate) fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    term: LoraTerm,
) -> Result<Tensor> {
    let op = LoraLinear { weight: weight.contiguous()?.detach(), term };
    x.contiguous()?.apply_op3(&a.contiguous()?, &b.contiguous()?, op)
}

struct LoraLinear {
    weight: Tensor,
    term: LoraTerm,
}

impl LoraLinear {
    fn mask(&self, n: usize) -> Option<Vec<f32>> {
        self.term.dropout.map(|dropout| dropout.mask(n))
    }
}

fn scale_by(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

fn times(x: &[f32], mask: &[f32]) -> Vec<f32> {
    x.iter().zip(mask).map(|(x, mask)| x * mask).collect()
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
        let (shape, [rows, out, input]) = product_shape(x_layout.shape(), self.weight.shape())?;
        let (_, [_, r, _]) = product_shape(x_layout.shape(), a_layout.shape())?;
        let x = argument(x, x_layout)?;
        let weight = elements(&self.weight)?;
        let mut y = vec![0.0; rows * out];
        matmul(&mut y, Matrix::new(x, rows, input), Matrix::new(&weight, out, input).t(), false);
        let dropped = self.mask(x.len()).map(|mask| times(x, &mask));
        let x = dropped.as_deref().unwrap_or(x);
        let (a, b) = (argument(a, a_layout)?, argument(b, b_layout)?);
        let mut h = vec![0.0; rows * r];
        matmul(&mut h, Matrix::new(x, rows, input), Matrix::new(a, r, input).t(), false);
        scale_by(&mut h, self.term.scale);
        matmul(&mut y, Matrix::new(&h, rows, r), Matrix::new(b, out, r).t(), true);
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
        let (_, [rows, out, input]) = product_shape(x.shape(), self.weight.shape())?;
        let r = a.dim(0)?;
        let scale = self.term.scale;
        let grad = grad.contiguous()?;
        let (dy, x_data, a_data, b_data) =
            (elements(&grad)?, elements(x)?, elements(a)?, elements(b)?);
        let mask = self.mask(x_data.len());
        let dropped = mask.as_deref().map(|mask| times(&x_data, mask));
        let seen = dropped.as_deref().unwrap_or(&x_data);

        let dy = Matrix::new(&dy, rows, out);
        let seen = Matrix::new(seen, rows, input);
        let a_matrix = Matrix::new(&a_data, r, input);
        let mut h = vec![0.0; rows * r];
        matmul(&mut h, seen, a_matrix.t(), false);
        let mut db = vec![0.0; out * r];
        scale_by(&mut h, scale);
        matmul(&mut db, dy.t(), Matrix::new(&h, rows, r), false);
        let mut dh = h;
        matmul(&mut dh, dy, Matrix::new(&b_data, out, r), false);
        scale_by(&mut dh, scale);
        let dh = Matrix::new(&dh, rows, r);
        let mut da = vec![0.0; r * input];
        matmul(&mut da, dh.t(), seen, false);

        let dx = if x.track_op() {
            let mut dx = vec![0.0; rows * input];
            let through_term = mask.is_some();
            if let Some(mask) = &mask {
                matmul(&mut dx, dh, a_matrix, false);
                dx = times(&dx, mask);
            }
            let weight = elements(&self.weight)?;
            matmul(&mut dx, dy, Matrix::new(&weight, out, input), through_term);
            if !through_term {
                matmul(&mut dx, dh, a_matrix, true);
            }
            Some(tensor(dx, x.shape())?)
        } else {
            None
        };
        Ok((dx, Some(tensor(da, a.shape())?), Some(tensor(db, b.shape())?)))
    }
}
