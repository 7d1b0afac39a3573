//! The fused operations' functions, of candle's elementary differentiable operations; for any device.

use candle_core::{D, DType, Result, Tensor};

use super::{Activation, AttentionShape, LoraTerm};
use crate::rope::Rope;

/// See [`super::linear`].
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let y = x.reshape(((), input))?.matmul(&weight.t()?)?;
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    let y = y.reshape(dims)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// See [`super::lora_linear`].
pub(crate) fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    term: LoraTerm,
) -> Result<Tensor> {
    // The low-rank term keeps its own type, f32, beside weights of 16 bits, as in PEFT.
    let wide = x.to_dtype(a.dtype())?;
    let seen = match term.dropout {
        Some(dropout) => {
            let mask = dropout.of(&vec![1.0; x.elem_count()]);
            (wide * Tensor::from_vec(mask, x.shape(), x.device())?)?
        }
        None => wide,
    };
    let h = (linear(&seen, a, None)? * f64::from(term.scale))?;
    linear(x, weight, bias)? + linear(&h, b, None)?.to_dtype(x.dtype())?
}

/// See [`super::rms_norm`].
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let y = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    y.to_dtype(x.dtype())?.broadcast_mul(weight)
}

/// See [`super::layer_norm`].
pub(crate) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let y = y.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(DType::F32)?)?,
        None => y,
    };
    y.to_dtype(x.dtype())
}

/// See [`super::activation`].
pub(crate) fn activation(act: Activation, x: &Tensor) -> Result<Tensor> {
    match act {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x / ((x * -1.702)?.exp()? + 1.0)?,
        Activation::Relu => x.relu(),
        Activation::Relu2 => x.relu()?.sqr(),
    }
}

/// See [`super::gated`].
pub(crate) fn gated(act: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    activation(act, gate)? * up
}

/// Exponentials of the last dimension, divided by their sum.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(D::Minus1)?.detach();
    let weights = x.broadcast_sub(&max)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// See [`super::scale_columns`].
pub(crate) fn scale_columns(x: &Tensor, vector: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&vector.flatten_all()?)
}

/// See [`super::attention`].
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: &AttentionShape,
) -> Result<Tensor> {
    let sizes = shape.sizes(q.shape(), k.shape(), v.shape())?;
    let (batch, seq, keys) = (sizes.batch, sizes.seq, sizes.keys());
    let AttentionShape { heads, kv_heads, key_dim, value_dim, prefix, .. } = shape;
    let split = |x: &Tensor, rows: usize, n: usize, dim: usize| {
        x.reshape((batch, rows, n, dim))?.transpose(1, 2)
    };
    let mut q = split(q, seq, *heads, *key_dim)?;
    let texts = shape.segments.as_deref();
    let mut k = split(k, keys, *kv_heads, *key_dim)?;
    if let Some(rope) = &shape.rope {
        let positions = match texts {
            Some(texts) => texts.positions(),
            None => (*prefix as u32..(prefix + seq) as u32).collect(),
        };
        q = rotate(&q, rope, &positions)?;
        let own = rotate(&k.narrow(2, *prefix, seq)?, rope, &positions)?;
        k = if *prefix == 0 { own } else { Tensor::cat(&[&k.narrow(2, 0, *prefix)?, &own], 2)? };
    }
    // [b, kv_heads, keys, dim] to [b, heads, keys, dim]
    let repeat = |x: Tensor, dim: usize| {
        x.unsqueeze(2)?
            .broadcast_as((batch, *kv_heads, heads / kv_heads, keys, dim))?
            .contiguous()?
            .reshape((batch, *heads, keys, dim))
    };
    let k = repeat(k, *key_dim)?;
    let v = repeat(split(v, keys, *kv_heads, *value_dim)?, *value_dim)?;
    let scores =
        (q.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)? * f64::from(shape.scale))?;
    // The softmax is computed in f32 whatever the model's type, as transformers does.
    let scores = scores.to_dtype(DType::F32)?;
    let hide = |is_seen: bool| if is_seen { 0.0 } else { f32::NEG_INFINITY };
    let hidden: Vec<f32> = match texts {
        None => (0..seq * keys).map(|i| hide(sizes.seen(i / keys).contains(&(i % keys)))).collect(),
        Some(texts) => {
            let spans = texts.spans();
            let row = |query: usize| {
                // Texts and positions are counted through all rows, keys from the row's start.
                let span = &spans[spans.partition_point(|span| span.end <= query)];
                let (first, row) = (span.start - query / seq * seq, query % seq);
                let seen = sizes.seen(row);
                (0..keys).map(move |key| hide(seen.contains(&key) && key >= first))
            };
            (0..batch * seq).flat_map(row).collect()
        }
    };
    let rows = hidden.len() / (seq * keys);
    let hidden = Tensor::from_vec(hidden, (rows, 1, seq, keys), scores.device())?;
    let scores = scores.broadcast_add(&hidden)?;
    let probs = softmax(&scores)?.to_dtype(v.dtype())?;
    probs.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, seq, heads * value_dim))
}

/// Rotates `[b, heads, s, dim]` whose rows are at these positions: `s`, or `b * s` where entries differ.
fn rotate(x: &Tensor, rope: &Rope, positions: &[u32]) -> Result<Tensor> {
    let Rope { first: start, half, interleaved, .. } = *rope;
    let (batch, heads, seq, dim) = x.dims4()?;
    let table = |values: &[f32]| {
        let row = |position: &u32| &values[*position as usize * half..][..half];
        let rows: Vec<f32> = positions.iter().flat_map(row).copied().collect();
        let shape = (positions.len() / seq, 1, seq, half);
        Tensor::from_vec(rows, shape, x.device())?.to_dtype(x.dtype())
    };
    let (cos, sin) = (table(&rope.cos)?, table(&rope.sin)?);
    let turned = x.narrow(D::Minus1, start, 2 * half)?;
    let (a, b) = if interleaved {
        let pairs = turned.contiguous()?.reshape((batch, heads, seq, half, 2))?;
        (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
    } else {
        (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?)
    };
    let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let high = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let turned = if interleaved {
        Tensor::stack(&[low, high], 4)?.reshape((batch, heads, seq, 2 * half))?
    } else {
        Tensor::cat(&[low, high], 3)?
    };
    let end = start + 2 * half;
    let mut parts = vec![turned];
    if start > 0 {
        parts.insert(0, x.narrow(3, 0, start)?);
    }
    if end < dim {
        parts.push(x.narrow(3, end, dim - end)?);
    }
    Tensor::cat(&parts, 3)
}
