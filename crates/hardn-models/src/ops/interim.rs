//! Operations of every family, until their fused forms are in place.

use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor};

use super::Activation;
use crate::rope::Rope;

#[derive(Clone, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) scale: f32,
    pub(crate) rope: Option<Arc<Rope>>,
    pub(crate) window: Option<usize>,
    pub(crate) prefix: usize,
}

pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

pub(crate) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::QuickGelu => x / ((x * -1.702)?.exp()? + 1.0)?,
    }
}

pub(crate) fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    activate(activation, gate)? * up
}

pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(D::Minus1)?.detach();
    let weights = x.broadcast_sub(&max)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
) -> Result<Tensor> {
    let (batch, seq, _) = q.dims3()?;
    let AttentionShape { heads, kv_heads, key_dim, value_dim, scale, rope, window, prefix } = shape;
    let total = prefix + seq;
    let split = |x: &Tensor, rows: usize, n: usize, dim: usize| {
        x.reshape((batch, rows, n, dim))?.transpose(1, 2)?.contiguous()
    };
    let rotate = |x: Tensor| -> Result<Tensor> {
        let Some(rope) = rope else { return Ok(x) };
        let from = prefix * rope.half..(prefix + seq) * rope.half;
        let table = |values: &[f32]| {
            Tensor::from_slice(&values[from.clone()], (seq, rope.half), x.device())?
                .to_dtype(x.dtype())
        };
        let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
        let turned = x.narrow(D::Minus1, rope.first, 2 * rope.half)?;
        let (a, b) = if rope.interleaved {
            let pairs = turned.reshape((batch, x.dim(1)?, seq, rope.half, 2))?;
            (
                pairs.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?,
                pairs.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?,
            )
        } else {
            (
                turned.narrow(D::Minus1, 0, rope.half)?,
                turned.narrow(D::Minus1, rope.half, rope.half)?,
            )
        };
        let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let high = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let turned = if rope.interleaved {
            Tensor::stack(&[low, high], 4)?.reshape((batch, x.dim(1)?, seq, 2 * rope.half))?
        } else {
            Tensor::cat(&[low, high], D::Minus1)?
        };
        let width = x.dim(D::Minus1)?;
        let end = rope.first + 2 * rope.half;
        let before = x.narrow(D::Minus1, 0, rope.first)?;
        let after = x.narrow(D::Minus1, end, width - end)?;
        let parts: Vec<Tensor> =
            [before, turned, after].into_iter().filter(|part| part.elem_count() > 0).collect();
        Tensor::cat(&parts, D::Minus1)
    };
    let repeat = |x: Tensor| -> Result<Tensor> {
        let dim = x.dim(D::Minus1)?;
        x.unsqueeze(2)?
            .broadcast_as((batch, *kv_heads, heads / kv_heads, total, dim))?
            .contiguous()?
            .reshape((batch, *heads, total, dim))
    };
    let q = rotate(split(q, seq, *heads, *key_dim)?)?.contiguous()?;
    let k = split(k, total, *kv_heads, *key_dim)?;
    let k = if *prefix == 0 {
        rotate(k)?
    } else {
        Tensor::cat(&[k.narrow(2, 0, *prefix)?, rotate(k.narrow(2, *prefix, seq)?)?], 2)?
    };
    let k = repeat(k)?;
    let v = repeat(split(v, total, *kv_heads, *value_dim)?)?;
    let scores =
        (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * f64::from(*scale))?.to_dtype(DType::F32)?;
    let window = window.unwrap_or(usize::MAX);
    let mask: Vec<f32> = (0..seq * total)
        .map(|i| {
            let (row, column) = (i / total + prefix, i % total);
            if column > row || row - column >= window { f32::NEG_INFINITY } else { 0.0 }
        })
        .collect();
    let mask = Tensor::from_vec(mask, (seq, total), scores.device())?;
    let probs = softmax(&scores.broadcast_add(&mask)?)?.to_dtype(v.dtype())?;
    probs.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, seq, heads * value_dim))
}
