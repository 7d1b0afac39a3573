//! `hardn export`: merged models and adapters, verified, or nothing at all.

use std::{fs, path::Path};

use candle_core::{Device, Tensor};
use hardn_models::{
    AdapterConfig, ForwardOptions, Ia3Config, LAB_SPECIALS, LoraConfig, Model, ModelConfig,
    PrefixTuningConfig, SaveDtype, train_bpe,
};

use crate::{fails, succeeds};

/// A folder with a model `base` and an adapter of each kind on it.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let tokenizer =
        train_bpe(["def f(a):\n    return a\n"].into_iter(), 280, LAB_SPECIALS).unwrap();
    tokenizer.save(&at("base")).unwrap();
    let config = ModelConfig::llama(tokenizer.vocab_size(), 32, 2, 2, 64, 256).unwrap();
    let mut model = Model::random(&config, 1).unwrap();
    model.save(&at("base"), SaveDtype::F32).unwrap();
    fs::write(at("base").join("chat_template.jinja"), "{{ messages }}").unwrap();
    let kinds: [(&str, AdapterConfig); 3] = [
        ("lora", LoraConfig::new(4, 8.0).into()),
        ("ia3", Ia3Config::default().into()),
        ("prefix", PrefixTuningConfig::new(3).into()),
    ];
    for (name, config) in kinds {
        model.attach("default", config, 1).unwrap();
        for (_, var) in model.trainable() {
            var.set(&(var.as_detached_tensor() + 0.3).unwrap()).unwrap();
        }
        model.save_adapter("default", &at(name)).unwrap();
        model.detach("default").unwrap();
    }
    place
}

fn logits(folder: &Path, model: &str, adapter: Option<&str>) -> Vec<f32> {
    let mut model = Model::load(&folder.join(model), &Device::Cpu).unwrap();
    if let Some(adapter) = adapter {
        model.load_adapter("default", &folder.join(adapter)).unwrap();
    }
    let ids = Tensor::new(&[[1_u32, 20, 3, 44]], &Device::Cpu).unwrap();
    let logits = model.logits(&ids, &ForwardOptions::evaluate()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(a: &[f32], b: &[f32], allowed: f32) {
    let error = a.iter().zip(b).fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
    assert!(error <= allowed, "{error}");
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_exported_says_what_the_model_and_its_adapter_say() {
    let place = place();
    let folder = place.path();
    for (adapter, format, dtype, allowed) in [
        ("lora", "safetensors", "f32", 1e-4),
        ("ia3", "safetensors", "bf16", 0.2),
        ("lora", "gguf", "f32", 1e-4),
        ("ia3", "gguf", "q8_0", 0.2),
    ] {
        let out = format!("{adapter}-{format}-{dtype}");
        let args = ["export", "base", "--adapter", adapter, "--out", &out, "--verify"];
        let mut args = [&args[..], &["--format", format, "--dtype", dtype]].concat();
        if format == "gguf" {
            // llama.cpp knows no name for how this tokenizer cuts text.
            fails(folder, &args, 2, "--tokenizer-beside");
            args.push("--tokenizer-beside");
        }
        let said = succeeds(folder, &args);
        assert!(said.contains("verified"), "{said}");
        close(&logits(folder, &out, None), &logits(folder, "base", Some(adapter)), allowed);
        let weights = if format == "gguf" { "model.gguf" } else { "model.safetensors" };
        for name in [weights, "tokenizer.json", "chat_template.jinja", "generation_config.json"] {
            assert!(folder.join(&out).join(name).is_file(), "{name}");
        }
    }
    for adapter in ["lora", "ia3", "prefix"] {
        let out = format!("{adapter}-alone");
        let args = ["export", "base", "--adapter", adapter, "--adapter-only", "--out", &out];
        succeeds(folder, &[&args[..], &["--verify"]].concat());
        assert_eq!(logits(folder, "base", Some(&out)), logits(folder, "base", Some(adapter)));
    }
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let place = place();
    let folder = place.path();
    let before = names(folder);
    let export = |rest: &[&str]| -> Vec<String> {
        ["export", "base"].iter().chain(rest).map(|&arg| arg.to_owned()).collect()
    };
    let check = |rest: &[&str], said: &str| {
        let args = export(rest);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(folder, &args, 2, said);
        let after: Vec<String> = names(folder).into_iter().filter(|n| n != ".cache").collect();
        assert_eq!(after, before, "{rest:?}");
    };
    check(&["--adapter", "prefix", "--out", "new"], "--adapter-only");
    check(&["--adapter", "none", "--out", "new"], "there is no adapter");
    check(&["--out", "new", "--dtype", "f64"], "f64");
    check(&["--out", "new", "--dtype", "q8_0"], "--format gguf");
    check(&["--out", "lora"], "--force");
    check(&["--out", "base", "--force"], "is what the export is made of");
    fs::remove_file(folder.join("ia3/adapter_model.safetensors")).unwrap();
    check(&["--adapter", "ia3", "--out", "new"], "adapter_model.safetensors");
    fs::create_dir(folder.join("mine")).unwrap();
    fs::write(folder.join("mine/notes.txt"), "keep").unwrap();
    fails(folder, &["export", "base", "--out", "mine", "--force"], 2, "is not replaced");
    assert_eq!(fs::read(folder.join("mine/notes.txt")).unwrap(), b"keep");

    succeeds(folder, &["export", "base", "--out", "lora", "--force"]);
    assert!(folder.join("lora/model.safetensors").is_file());
    assert!(!folder.join("lora/adapter_config.json").exists());
}
