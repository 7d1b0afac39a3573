//! Agreement with transformers and PEFT on fixtures that `tests/fixtures/make_llama_fixtures.py` wrote.

use std::{fs, path::PathBuf};

use candle_core::{Device, Tensor};
use hardn_models::{DecodeModel, DecodeRow, ForwardOptions, Model};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[track_caller]
fn close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let error = actual.iter().zip(expected).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(error < 2e-5, "{what}: error {error}");
}

#[track_caller]
fn check(name: &str, adapter: Option<&str>) {
    let dir = fixture(name);
    let mut model = Model::load(&dir, &Device::Cpu).unwrap();
    let mut file = dir.join("expected.json");
    if let Some(adapter) = adapter {
        model.load_adapter(&dir.join(adapter)).unwrap();
        file = dir.join(adapter).join("expected.json");
    }
    let expected: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let ids: Vec<u32> = numbers(&expected["ids"]).iter().map(|id| *id as u32).collect();
    let logits = numbers(&expected["logits"]);
    let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    for fused in [true, false] {
        model.set_fused(fused);
        let y = model.logits(&input, &ForwardOptions::evaluate()).unwrap();
        close(&y.flatten_all().unwrap().to_vec1().unwrap(), &logits, "logits");
    }
    let decode = DecodeModel::new(&model).unwrap();
    let mut cache = decode.cache(ids.len());
    let row = DecodeRow { cache: &mut cache, ids: &ids, all_logits: true };
    close(&decode.forward(&mut [row]).unwrap()[0], &logits, "decoded logits");

    // The loss of the fixture is the mean square of the logits.
    model.set_fused(true);
    let y = model.logits(&input, &ForwardOptions::default()).unwrap();
    let grads = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    let trainable = model.trainable();
    for (name, gradient) in expected["gradients"].as_object().unwrap() {
        let (_, var) = trainable.iter().find(|(n, _)| n == name).unwrap();
        let actual = grads.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        close(&actual, &numbers(gradient), name);
    }
}

#[test]
fn full_attention_tied() {
    check("llama-tied", None);
}

#[test]
fn grouped_queries_with_own_head_size() {
    check("llama-grouped", None);
}

#[test]
fn linear_scaling_and_biases() {
    check("llama-linear", None);
}

#[test]
fn llama3_scaling() {
    check("llama-llama3", None);
}

#[test]
fn lora_and_rank_stabilised_lora() {
    check("llama-grouped", Some("lora"));
    check("llama-grouped", Some("rslora"));
}
