//! Every fused operation against elementary ones, values and gradients.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::{
    Activation, AttentionShape, Dropout, LoraTerm, activation, attention, elementary,
    frozen_linear, gated, layer_norm, linear, lora_linear, rms_norm, scale_columns,
};
use crate::{Segments, rng::Stream, rope::Rope};

fn variable(name: &str, shape: &[usize]) -> Var {
    let mut stream = Stream::new(3, name);
    let n = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|_| stream.normal() as f32).collect();
    Var::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// Compares values and the gradients of a weighted sum of the outputs for every variable.
#[track_caller]
fn check(
    variables: &[Var],
    fused: impl Fn(&[Tensor]) -> Result<Tensor>,
    plain: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let run = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| {
        let y = f(&tensors).unwrap();
        let weights = variable("loss", y.dims()).as_detached_tensor();
        let grads = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |v: &Var| grads.get(v).map(|g| g.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let gradients: Vec<_> = variables.iter().map(of).collect();
        (y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), gradients)
    };
    let (fused_y, fused_grads) = run(&fused);
    let (plain_y, plain_grads) = run(&plain);
    close(&fused_y, &plain_y, "value");
    for (i, (fused, plain)) in fused_grads.iter().zip(&plain_grads).enumerate() {
        match (fused, plain) {
            (Some(fused), Some(plain)) => close(fused, plain, &format!("gradient {i}")),
            _ => panic!("gradient {i} is missing"),
        }
    }
}

#[track_caller]
fn close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let size = b.iter().fold(0.0_f32, |max, b| max.max(b.abs()));
    let error = a.iter().zip(b).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(error <= 2e-5 * size.max(1e-2), "{what}: error {error} at size {size}");
}

#[test]
fn linear_and_its_frozen_form() {
    for (rows, input, out) in [(5, 12, 7), (67, 33, 130)] {
        let (x, w) = (variable("x", &[2, rows, input]), variable("w", &[out, input]));
        let bias = variable("bias", &[out]);
        check(
            &[x.clone(), w.clone()],
            |t| linear(&t[0], &t[1], None),
            |t| elementary::linear(&t[0], &t[1], None),
        );
        check(
            &[x.clone(), w.clone(), bias.clone()],
            |t| linear(&t[0], &t[1], Some(&t[2])),
            |t| elementary::linear(&t[0], &t[1], Some(&t[2])),
        );
        let (w, bias) = (w.as_detached_tensor(), bias.as_detached_tensor());
        for bias in [None, Some(&bias)] {
            check(
                std::slice::from_ref(&x),
                |t| frozen_linear(&t[0], &w, bias),
                |t| elementary::linear(&t[0], &w, bias),
            );
        }
    }
}

#[test]
fn low_rank_terms_with_and_without_dropout() {
    let w = variable("w", &[7, 12]).as_detached_tensor();
    let bias = variable("bias", &[7]).as_detached_tensor();
    let variables = [variable("x", &[2, 5, 12]), variable("a", &[3, 12]), variable("b", &[7, 3])];
    for (dropout, bias) in [(None, Some(&bias)), (Some(Dropout { key: 99, share: 0.25 }), None)] {
        let term = LoraTerm { scale: 1.5, dropout };
        check(
            &variables,
            |t| lora_linear(&t[0], &w, bias, &t[1], &t[2], term),
            |t| elementary::lora_linear(&t[0], &w, bias, &t[1], &t[2], term),
        );
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let ones = vec![1.0; 100_000];
    let mask = Dropout { key: 12345, share: 0.1 }.of(&ones);
    let mean = mask.iter().sum::<f32>() / 1e5;
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    assert_ne!(mask, Dropout { key: 12346, share: 0.1 }.of(&ones));
}

#[test]
fn norms_and_factors() {
    for n in [12, 37] {
        let (x, w, bias) = (variable("x", &[3, 50, n]), variable("w", &[n]), variable("b", &[n]));
        check(
            &[x.clone(), w.clone()],
            |t| rms_norm(&t[0], &t[1], 1e-5),
            |t| elementary::rms_norm(&t[0], &t[1], 1e-5),
        );
        check(
            &[x.clone(), w.clone()],
            |t| layer_norm(&t[0], &t[1], None, 1e-5),
            |t| elementary::layer_norm(&t[0], &t[1], None, 1e-5),
        );
        check(
            &[x.clone(), w.clone(), bias],
            |t| layer_norm(&t[0], &t[1], Some(&t[2]), 1e-2),
            |t| elementary::layer_norm(&t[0], &t[1], Some(&t[2]), 1e-2),
        );
        check(
            &[x, w],
            |t| scale_columns(&t[0], &t[1]),
            |t| elementary::scale_columns(&t[0], &t[1]),
        );
    }
}

#[test]
fn activations_with_and_without_gates() {
    use Activation::{Gelu, GeluTanh, QuickGelu, Relu, Relu2, Silu};
    for act in [Silu, Gelu, GeluTanh, QuickGelu, Relu, Relu2] {
        let variables = [variable("g", &[3, 5, 23]), variable("u", &[3, 5, 23])];
        check(&variables, |t| gated(act, &t[0], &t[1]), |t| elementary::gated(act, &t[0], &t[1]));
        check(&variables[..1], |t| activation(act, &t[0]), |t| elementary::activation(act, &t[0]));
    }
}

/// Rotary tables of any angles: `half` pairs from dimension `first` on.
fn rope(first: usize, half: usize, interleaved: bool) -> Arc<Rope> {
    let angles = (0..160 * half).map(|i| (i / half) as f32 * 0.7_f32.powi((i % half) as i32));
    let (sin, cos) = angles.map(f32::sin_cos).unzip();
    Arc::new(Rope { first, half, interleaved, cos, sin })
}

#[track_caller]
fn check_attention(batch: usize, seq: usize, shape: &AttentionShape) {
    let AttentionShape { heads, kv_heads, key_dim, value_dim, prefix, .. } = shape;
    check(
        &[
            variable("q", &[batch, seq, heads * key_dim]),
            variable("k", &[batch, prefix + seq, kv_heads * key_dim]),
            variable("v", &[batch, prefix + seq, kv_heads * value_dim]),
        ],
        |t| attention(&t[0], &t[1], &t[2], shape),
        |t| elementary::attention(&t[0], &t[1], &t[2], shape),
    );
}

/// What a text gives in a row is, bit for bit, what it gives alone.
#[track_caller]
fn check_alone(batch: usize, seq: usize, shape: &AttentionShape) {
    let AttentionShape { heads, kv_heads, key_dim, value_dim, .. } = shape;
    let q = variable("q", &[1, batch * seq, heads * key_dim]);
    let k = variable("k", &[1, batch * seq, kv_heads * key_dim]);
    let v = variable("v", &[1, batch * seq, kv_heads * value_dim]);
    let rows = |x: &Tensor| x.reshape((batch, seq, ())).unwrap();
    let packed = attention(&rows(&q), &rows(&k), &rows(&v), shape).unwrap();
    let packed = packed.reshape((1, batch * seq, heads * value_dim)).unwrap();
    let plain = AttentionShape { segments: None, ..shape.clone() };
    for span in shape.segments.as_ref().unwrap().spans() {
        let part = |x: &Tensor| x.narrow(1, span.start, span.len()).unwrap();
        let alone = attention(&part(&q), &part(&k), &part(&v), &plain).unwrap();
        let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(part(&packed)), values(alone), "{span:?}");
    }
}

#[test]
fn attention_of_every_grouping() {
    for (batch, seq, heads, kv_heads, key_dim, value_dim) in [
        (2, 7, 2, 2, 8, 8),
        (1, 33, 4, 2, 4, 4),
        (2, 70, 3, 1, 12, 12),
        (1, 1, 2, 1, 2, 2),
        (2, 45, 4, 4, 10, 7),
        (1, 37, 6, 3, 24, 16),
        (3, 16, 5, 5, 6, 21),
    ] {
        let plain = AttentionShape {
            heads,
            kv_heads,
            key_dim,
            value_dim,
            scale: 1.0 / (key_dim as f32).sqrt(),
            rope: None,
            window: None,
            prefix: 0,
            segments: None,
        };
        let half = key_dim / 2;
        for (rope, window, prefix) in [
            (Some(rope(0, half, false)), None, 0),
            (Some(rope(0, half, true)), None, 3),
            (Some(rope(1, half / 2, false)), Some(2), 0),
            (Some(rope(0, half.div_ceil(2), true)), Some(9), 5),
            (None, Some(17), 18),
            (None, Some(1000), 1),
        ] {
            check_attention(
                batch,
                seq,
                &AttentionShape { rope: rope.clone(), window, prefix, scale: 0.3, ..plain.clone() },
            );
            if batch * seq > 14 {
                // Each row otherwise: several texts, one, and padding.
                let cuts = [vec![seq / 3, seq - seq / 3], vec![seq], vec![1, seq / 2]];
                let segments = Segments::new(cuts[..batch].to_vec(), seq).unwrap();
                let segments = Some(Arc::new(segments));
                let packed = AttentionShape { rope, window, segments, ..plain.clone() };
                check_attention(batch, seq, &packed);
                check_alone(batch, seq, &packed);
            }
        }
        check_attention(batch, seq, &plain);
    }
}

#[test]
fn attention_by_hand() {
    // Equal scores average what is seen: with a window of 2, the second of two prefix values and the first own one.
    let shape = AttentionShape {
        heads: 1,
        kv_heads: 1,
        key_dim: 1,
        value_dim: 1,
        scale: 1.0,
        rope: None,
        window: Some(2),
        prefix: 2,
        segments: None,
    };
    let row =
        |values: &[f32]| Tensor::from_slice(values, (1, values.len(), 1), &Device::Cpu).unwrap();
    let (q, k, v) = (row(&[0.0; 2]), row(&[1.0; 4]), row(&[8.0, 4.0, 2.0, 1.0]));
    let y = attention(&q, &k, &v, &shape).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(y, [3.0, 1.5]);
    let whole = AttentionShape { window: None, ..shape.clone() };
    let y = attention(&q, &k, &v, &whole).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!((y[0] - 14.0 / 3.0).abs() < 1e-6 && (y[1] - 3.75).abs() < 1e-6, "{y:?}");
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let (x, w) = (variable("x", &[2, 5]), variable("w", &[7, 12]));
    assert!(linear(&x, &w, None).is_err());
    let w = variable("w", &[7, 5]);
    assert!(linear(&x, &w, Some(&variable("b", &[5]))).is_err());
    assert!(rms_norm(&x, &variable("w", &[4]), 1e-5).is_err());
    assert!(layer_norm(&x, &variable("w", &[4]), None, 1e-5).is_err());
    assert!(layer_norm(&x, &variable("w", &[5]), Some(&variable("b", &[4])), 1e-5).is_err());
    assert!(scale_columns(&x, &variable("w", &[2])).is_err());
    assert!(gated(Activation::Silu, &x, &variable("u", &[2, 4])).is_err());
}
