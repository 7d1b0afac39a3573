//! Checkpoints and adapters on disk.

use std::fs;

use candle_core::{Device, Tensor};
use hardn_models::{ForwardOptions, LoraConfig, Model, SaveDtype};

use crate::{grouped, lively, untied};

fn logits(model: &Model) -> Vec<f32> {
    let ids = Tensor::new(&[[1_u32, 20, 3, 44]], &Device::Cpu).unwrap();
    let logits = model.logits(&ids, &ForwardOptions::evaluate()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_saved_model_is_the_same_model() {
    for config in [grouped(), untied()] {
        let model = lively(&config, 1);
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), SaveDtype::F32).unwrap();
        let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
        let again = Model::load(dir.path(), &Device::Cpu).unwrap();
        assert_eq!(logits(&again), logits(&model));
        assert_eq!(again.fingerprint().unwrap(), model.fingerprint().unwrap());
        again.save(dir.path(), SaveDtype::F32).unwrap();
        assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), bytes);
        for (dtype, allowed) in [(SaveDtype::F16, 2e-3), (SaveDtype::BF16, 2e-2)] {
            model.save(dir.path(), dtype).unwrap();
            let half = Model::load(dir.path(), &Device::Cpu).unwrap();
            assert_ne!(half.fingerprint().unwrap(), model.fingerprint().unwrap());
            for ((_, a), (_, b)) in model.trainable().iter().zip(half.trainable()) {
                let error = (a.as_tensor() - b.as_tensor()).unwrap().abs().unwrap();
                let error = error.max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(error < allowed, "{dtype:?}: {error}");
            }
        }
    }
}

#[test]
fn a_saved_adapter_is_the_same_adapter() {
    let mut model = lively(&grouped(), 1);
    let base = model.fingerprint().unwrap();
    let mut config = LoraConfig::new(3, 16.0);
    config.use_rslora = true;
    config.base_model_name_or_path = Some("base".to_owned());
    model.attach_lora(&config, 5).unwrap();
    for (_, var) in model.trainable() {
        var.set(&(var.ones_like().unwrap() * 0.1).unwrap()).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    model.save_adapter("default", dir.path()).unwrap();
    let mut again = lively(&grouped(), 1);
    again.load_adapter("default", dir.path()).unwrap();
    assert_eq!(logits(&again), logits(&model));
    let config = |model: &Model| model.adapter_config().unwrap().to_json();
    assert_eq!(config(&again), config(&model));
    assert_ne!(model.fingerprint().unwrap(), base);
    assert!(again.load_adapter("default", dir.path()).is_err());
    again.detach("default").unwrap();
    assert_eq!(again.fingerprint().unwrap(), base);
    let error = lively(&untied(), 1);
    assert!(error.save_adapter("default", dir.path()).is_err());
}

#[test]
fn shards_are_joined() {
    let model = lively(&grouped(), 1);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path(), SaveDtype::F32).unwrap();
    let whole = dir.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&whole, &Device::Cpu).unwrap();
    let mut map = serde_json::Map::new();
    let (mut one, mut two) = (std::collections::HashMap::new(), std::collections::HashMap::new());
    for (name, tensor) in tensors {
        let first = name.contains("layers.0");
        map.insert(name.clone(), if first { "one.safetensors" } else { "two.safetensors" }.into());
        if first { &mut one } else { &mut two }.insert(name, tensor);
    }
    candle_core::safetensors::save(&one, dir.path().join("one.safetensors")).unwrap();
    candle_core::safetensors::save(&two, dir.path().join("two.safetensors")).unwrap();
    fs::remove_file(&whole).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
    assert_eq!(logits(&Model::load(dir.path(), &Device::Cpu).unwrap()), logits(&model));
    fs::write(&index, r#"{"weight_map": {"a": "../one.safetensors"}}"#).unwrap();
    assert!(Model::load(dir.path(), &Device::Cpu).is_err());
}

#[test]
fn damaged_checkpoints_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.safetensors");
    let save = |config| {
        Model::random(config, 1).unwrap().save(dir.path(), SaveDtype::F32).unwrap();
    };
    let check = |parts: &[&str]| {
        let error = Model::load(dir.path(), &Device::Cpu).err().unwrap().to_string();
        for part in parts {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    };
    check(&["config.json"]);
    save(&grouped());
    let bytes = fs::read(&file).unwrap();
    for n in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..n]).unwrap();
        check(&["model.safetensors"]);
    }
    fs::remove_file(&file).unwrap();
    check(&["model.safetensors"]);

    let replace = |name: &str, tensor: Option<Tensor>| {
        fs::write(&file, &bytes).unwrap();
        let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
        tensors.remove(name);
        if let Some(tensor) = tensor {
            tensors.insert(name.to_owned(), tensor);
        }
        candle_core::safetensors::save(&tensors, &file).unwrap();
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    replace(name, None);
    check(&["model.safetensors", name, "missing"]);
    replace(name, Some(Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap()));
    check(&[name, "[3, 2]", "[40, 24]"]);
    replace("model.extra", Some(Tensor::new(&[1.0_f32], &Device::Cpu).unwrap()));
    check(&["model.extra", "does not belong"]);
    replace(name, Some(Tensor::zeros((40, 24), candle_core::DType::U32, &Device::Cpu).unwrap()));
    check(&[name, "U32"]);
}
