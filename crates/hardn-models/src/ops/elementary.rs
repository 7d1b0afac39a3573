//! The fused operations' functions, of candle's elementary differentiable operations; for any device.

use candle_core::{D, Result, Tensor};

use super::{AttentionShape, LoraTerm};

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), input))?.matmul(&weight.t()?)?;
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    y.reshape(dims)
}

/// See [`super::lora_linear`].
pub(crate) fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    a: &Tensor,
    b: &Tensor,
    term: LoraTerm,
) -> Result<Tensor> {
    let seen = match term.dropout {
        Some(dropout) => {
            let mask = dropout.of(&vec![1.0; x.elem_count()]);
            (x * Tensor::from_vec(mask, x.shape(), x.device())?)?
        }
        None => x.clone(),
    };
    let h = (linear(&seen, a)? * f64::from(term.scale))?;
    linear(x, weight)? + linear(&h, b)?
}

/// See [`super::rms_norm`].
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// See [`super::swiglu`].
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// See [`super::attention`].
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
) -> Result<Tensor> {
    let (batch, seq, _) = q.dims3()?;
    let AttentionShape { heads, kv_heads, head_dim, rope } = shape;
    let table = |values: &[f32]| {
        Tensor::from_slice(&values[..seq * rope.half], (seq, rope.half), q.device())
    };
    let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
    let split = |x: &Tensor, n: usize| x.reshape((batch, seq, n, *head_dim))?.transpose(1, 2);
    let rotate = |x: Tensor| {
        let first = x.narrow(D::Minus1, 0, rope.half)?;
        let second = x.narrow(D::Minus1, rope.half, rope.half)?;
        let low = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let high = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        Tensor::cat(&[low, high], D::Minus1)
    };
    // [b, kv_heads, s, dim] to [b, heads, s, dim]
    let repeat = |x: Tensor| {
        x.unsqueeze(2)?
            .broadcast_as((batch, *kv_heads, heads / kv_heads, seq, *head_dim))?
            .contiguous()?
            .reshape((batch, *heads, seq, *head_dim))
    };
    let q = rotate(split(q, *heads)?)?.contiguous()?;
    let k = repeat(rotate(split(k, *kv_heads)?)?)?;
    let v = repeat(split(v, *kv_heads)?)?;
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (*head_dim as f64).sqrt())?;
    let later: Vec<f32> =
        (0..seq * seq).map(|i| if i % seq > i / seq { f32::NEG_INFINITY } else { 0.0 }).collect();
    let later = Tensor::from_vec(later, (seq, seq), scores.device())?;
    let scores = scores.broadcast_add(&later)?;
    let max = scores.max_keepdim(D::Minus1)?.detach();
    let weights = scores.broadcast_sub(&max)?.exp()?;
    let probs = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    probs.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, seq, heads * head_dim))
}
