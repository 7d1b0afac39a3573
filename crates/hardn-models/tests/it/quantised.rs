//! Bases whose linear layers are kept quantised.

use std::path::Path;

use candle_core::{Device, Tensor};
use hardn_models::{
    BaseWeights, ForwardOptions, GgufDtype, LoraConfig, Model, ModelConfig, SaveDtype,
};

use crate::lively;

fn config() -> ModelConfig {
    // Blocks of GGUF have 32 inputs.
    ModelConfig::llama(67, 64, 2, 4, 96, 96).unwrap()
}

fn ids() -> Tensor {
    Tensor::new(&[[1_u32, 20, 3, 44, 60, 2]], &Device::Cpu).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    let logits = model.logits(&ids(), &ForwardOptions::evaluate()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}

/// Logits, and gradients of a low-rank adapter, equal those of the same weights expanded.
#[track_caller]
fn check(path: &Path, base: BaseWeights, original: &Model, allowed: f32) {
    let mut quantised = Model::load_as(path, base, &Device::Cpu).unwrap();
    assert!(quantised.is_quantised());
    let mut expanded = quantised.merged().unwrap();
    assert!(!expanded.is_quantised());
    assert_eq!(quantised.fingerprint().unwrap().len(), 64);
    assert!(distance(&logits(&quantised), &logits(&expanded)) < 1e-4);
    let error = distance(&logits(&quantised), &logits(original));
    assert!(error > 0.0 && error < allowed, "{error}");

    let gradients = |model: &mut Model| -> Vec<(String, Vec<f32>)> {
        model.attach_lora(&LoraConfig::new(4, 8.0), 3).unwrap();
        for (name, var) in model.trainable() {
            if name.contains("lora_B") {
                var.set(&(var.ones_like().unwrap() * 0.02).unwrap()).unwrap();
            }
        }
        let y = model.logits(&ids(), &ForwardOptions::default()).unwrap();
        let gradients = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        let read = |(name, var): (String, candle_core::Var)| {
            let gradient = gradients.get(&var).unwrap();
            (name, gradient.flatten_all().unwrap().to_vec1().unwrap())
        };
        model.trainable().into_iter().map(read).collect()
    };
    let pairs = gradients(&mut quantised).into_iter().zip(gradients(&mut expanded));
    for ((name, a), (_, b)) in pairs {
        assert!(a.iter().any(|x| *x != 0.0), "{name}");
        assert!(distance(&a, &b) < 1e-4, "{name}: {}", distance(&a, &b));
    }
}

#[test]
fn eight_bits_per_row() {
    let model = lively(&config(), 1);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path(), SaveDtype::F32).unwrap();
    check(dir.path(), BaseWeights::Int8, &model, 1.0);
}

#[test]
fn blocks_of_gguf_as_they_are() {
    let model = lively(&config(), 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    model.save_gguf(&path, None, GgufDtype::Q8_0).unwrap();
    check(&path, BaseWeights::Stored, &model, 1.0);
}

#[test]
fn sixteen_bits_are_close() {
    let model = lively(&config(), 1);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path(), SaveDtype::F32).unwrap();
    for (name, allowed) in [("bf16", 0.5), ("f16", 0.1)] {
        let half = Model::load_as(dir.path(), name.parse().unwrap(), &Device::Cpu).unwrap();
        let error = distance(&logits(&half), &logits(&model));
        assert!(error > 0.0 && error < allowed, "{name}: {error}");
    }
}
