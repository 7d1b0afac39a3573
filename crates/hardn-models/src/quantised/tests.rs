use std::sync::Arc;

use candle_core::{
    Device, Tensor, Var,
    quantized::{GgmlDType, QTensor},
};

use super::*;
use crate::{ops, rng::Stream};

fn random(shape: (usize, usize), name: &str) -> Tensor {
    let mut stream = Stream::new(3, name);
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| stream.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, allowed: f32) {
    assert_eq!(a.dims(), b.dims());
    let error = values(a).iter().zip(values(b)).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(error <= allowed, "{error}");
}

/// Values and gradients against elementary operations on the dequantised weight.
#[track_caller]
fn check(weight: QuantisedWeight) {
    let (out, input) = weight.dims2().unwrap();
    let weight = Arc::new(weight);
    let dense = weight.dequantise().unwrap();
    let x = Var::from_tensor(&random((6, input), "x").reshape((2, 3, input)).unwrap()).unwrap();
    let factors = random((6, out), "factors").reshape((2, 3, out)).unwrap();
    let y = quantised_linear(&x, &weight, None).unwrap();
    let expected = x.reshape((6, input)).unwrap().matmul(&dense.t().unwrap()).unwrap();
    let expected = expected.reshape((2, 3, out)).unwrap();
    let allowed = 1e-5 * input as f32;
    close(&y, &expected, allowed.max(1e-4));
    assert_eq!(values(&y), values(&ops::frozen_linear(&x, &dense, None).unwrap()));
    let gradient = |y: &Tensor| {
        let loss = (y * &factors).unwrap().sqr().unwrap().mean_all().unwrap();
        loss.backward().unwrap().get(&x).unwrap().clone()
    };
    close(&gradient(&y), &gradient(&expected), allowed.max(1e-4));
}

#[test]
fn rows_of_eight_bits() {
    check(QuantisedWeight::int8(&random((7, 5), "w")).unwrap());
    // Several chunks, the last one short.
    check(QuantisedWeight::int8(&random((1100, 3001), "w")).unwrap());
    let weight = Arc::new(QuantisedWeight::int8(&random((7, 5), "w")).unwrap());
    assert!(quantised_linear(&random((2, 4), "x"), &weight, None).is_err());
    let bias = random((1, 7), "bias").squeeze(0).unwrap();
    let x = random((2, 5), "x");
    let with = quantised_linear(&x, &weight, Some(&bias)).unwrap();
    let without = quantised_linear(&x, &weight, None).unwrap();
    close(&with, &without.broadcast_add(&bias).unwrap(), 0.0);
}

#[test]
fn blocks_of_ggml() {
    for dtype in [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::F16]
    {
        let weight = QTensor::quantize(&random((9, 512), "w"), dtype).unwrap();
        let dense = weight.dequantize(&Device::Cpu).unwrap();
        let weight = QuantisedWeight::Ggml(weight);
        assert_eq!(values(&weight.dequantise().unwrap()), values(&dense));
        check(weight);
    }
}

#[test]
fn the_error_is_at_most_half_a_step() {
    let weight = random((20, 33), "w");
    let rounded = QuantisedWeight::int8(&weight).unwrap();
    assert_eq!(rounded.n_bytes(), 20 * 33 + 4 * 20);
    let rows = weight.to_vec2::<f32>().unwrap();
    for (row, back) in rows.iter().zip(rounded.dequantise().unwrap().to_vec2::<f32>().unwrap()) {
        let largest = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        for (value, back) in row.iter().zip(back) {
            assert!((value - back).abs() <= largest / 127.0 / 2.0 * 1.0001);
        }
    }
    let zeros = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&QuantisedWeight::int8(&zeros).unwrap().dequantise().unwrap()), [0.0; 6]);
    let bad = Tensor::new(&[[1.0, f32::NAN]], &Device::Cpu).unwrap();
    assert!(QuantisedWeight::int8(&bad).is_err());
}

#[test]
fn single_rows() {
    let weight = QuantisedWeight::int8(&random((9, 5), "w")).unwrap();
    let dense = weight.dequantise().unwrap();
    let ids = Tensor::new(&[3_u32, 0, 8, 3], &Device::Cpu).unwrap();
    let expected = dense.index_select(&ids, 0).unwrap();
    assert_eq!(values(&weight.select(&[3, 0, 8, 3]).unwrap()), values(&expected));
    assert!(weight.select(&[9]).is_err());
}
