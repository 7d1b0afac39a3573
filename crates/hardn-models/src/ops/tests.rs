//! Every fused operation against elementary ones, values and gradients.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::{
    AttentionShape, Dropout, LoraTerm, attention, elementary, frozen_linear, linear, lora_linear,
    rms_norm, swiglu,
};
use crate::{config::spec::Rotary, rng::Stream, rope::Rope};

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
    let (x, w) = (variable("x", &[2, 5, 12]), variable("w", &[7, 12]));
    check(&[x.clone(), w.clone()], |t| linear(&t[0], &t[1]), |t| elementary::linear(&t[0], &t[1]));
    let w = w.as_detached_tensor();
    check(&[x], |t| frozen_linear(&t[0], &w), |t| elementary::linear(&t[0], &w));
}

#[test]
fn low_rank_terms_with_and_without_dropout() {
    let w = variable("w", &[7, 12]).as_detached_tensor();
    let variables = [variable("x", &[2, 5, 12]), variable("a", &[3, 12]), variable("b", &[7, 3])];
    for dropout in [None, Some(Dropout { key: 99, share: 0.25 })] {
        let term = LoraTerm { scale: 1.5, dropout };
        check(
            &variables,
            |t| lora_linear(&t[0], &w, &t[1], &t[2], term),
            |t| elementary::lora_linear(&t[0], &w, &t[1], &t[2], term),
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
fn norms_and_gates() {
    for n in [12, 40] {
        check(
            &[variable("x", &[3, 50, n]), variable("w", &[n])],
            |t| rms_norm(&t[0], &t[1], 1e-5),
            |t| elementary::rms_norm(&t[0], &t[1], 1e-5),
        );
        check(
            &[variable("g", &[3, 5, n]), variable("u", &[3, 5, n])],
            |t| swiglu(&t[0], &t[1]),
            |t| elementary::swiglu(&t[0], &t[1]),
        );
    }
}

#[test]
fn attention_of_every_grouping() {
    for (batch, seq, heads, kv_heads, head_dim) in
        [(2, 7, 2, 2, 8), (1, 33, 4, 2, 4), (2, 70, 3, 1, 12), (1, 1, 2, 1, 2)]
    {
        let rotary =
            Rotary { first: 0, dims: head_dim, interleaved: false, theta: 10_000.0, scaling: None };
        let rope = Arc::new(Rope::new(&rotary, 128));
        let shape = AttentionShape { heads, kv_heads, head_dim, rope };
        check(
            &[
                variable("q", &[batch, seq, heads * head_dim]),
                variable("k", &[batch, seq, kv_heads * head_dim]),
                variable("v", &[batch, seq, kv_heads * head_dim]),
            ],
            |t| attention(&t[0], &t[1], &t[2], &shape),
            |t| elementary::attention(&t[0], &t[1], &t[2], &shape),
        );
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let (x, w) = (variable("x", &[2, 5]), variable("w", &[7, 12]));
    assert!(linear(&x, &w).is_err());
    assert!(rms_norm(&x, &variable("w", &[4]), 1e-5).is_err());
    assert!(swiglu(&x, &variable("u", &[2, 4])).is_err());
}
