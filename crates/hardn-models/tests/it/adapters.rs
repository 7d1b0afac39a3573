//! Adapters of every kind on every family.

use std::{fs, path::Path};

use candle_core::{Device, Tensor};
use hardn_models::{
    AdapterConfig, ForwardOptions, Ia3Config, LoraConfig, Model, ModelConfig, PrefixTuningConfig,
    TargetModules, UseAdapter,
};
use serde_json::{Value, json};

use crate::{grouped, lively};

/// Checkpoints of every family.
pub(crate) fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
}

/// Folders in `dir` that have such a file, sorted.
fn folders_with(dir: &Path, file: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries.filter(|path| path.join(file).is_file());
    let mut names: Vec<String> =
        folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A configuration of each family.
pub(crate) fn families() -> Vec<(String, ModelConfig)> {
    folders_with(fixtures(), "config.json")
        .into_iter()
        .map(|name| {
            let config = ModelConfig::load(&fixtures().join(&name)).unwrap();
            (name, config)
        })
        .collect()
}

fn all_linear_and_output() -> LoraConfig {
    let mut config = LoraConfig::new(3, 6.0);
    config.target_modules = TargetModules::Pattern(".*".to_owned());
    config
}

/// One of each kind that goes with a model.
pub(crate) fn kinds(model: &ModelConfig) -> Vec<AdapterConfig> {
    let mut kinds = vec![all_linear_and_output().into(), Ia3Config::default().into()];
    if model.model_type == "deepseek_v2" {
        let mut experts = LoraConfig::new(2, 3.0);
        experts.target_modules = TargetModules::List(Vec::new());
        experts.target_parameters = Some(vec!["gate_up_proj".to_owned(), "down_proj".to_owned()]);
        kinds.push(experts.into());
    } else {
        let mut prefix = PrefixTuningConfig::new(4);
        prefix.dropout = 0.1;
        kinds.push(prefix.into());
    }
    kinds
}

/// Moves an adapter's tensors away from where they start.
pub(crate) fn shake(model: &Model, label: &str) {
    for (i, (name, var)) in model.trainable().into_iter().enumerate() {
        if name.starts_with(label) {
            let n = var.elem_count();
            let noise: Vec<f32> =
                (0..n).map(|j| ((i * 31 + j * 17) % 23) as f32 / 46.0 - 0.23).collect();
            let noise = Tensor::from_vec(noise, var.dims(), &Device::Cpu).unwrap();
            var.set(&(var.as_detached_tensor() + noise).unwrap()).unwrap();
        }
    }
}

fn logits_with(model: &Model, adapter: UseAdapter) -> Vec<f32> {
    let ids = Tensor::new(&[[1_u32, 20, 3, 44, 5, 5, 31]], &Device::Cpu).unwrap();
    let options = ForwardOptions { adapter, ..ForwardOptions::evaluate() };
    model.logits(&ids, &options).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    logits_with(model, UseAdapter::Active)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |max, (a, b)| max.max((a - b).abs()))
}

#[test]
fn merged_weights_compute_the_same() {
    for (name, config) in families() {
        for kind in kinds(&config) {
            let what = format!("{name}, {}", kind.peft_type());
            let mut model = lively(&config, 3);
            model.attach("default", kind.clone(), 1).unwrap();
            shake(&model, "");
            let with = logits(&model);
            assert!(distance(&with, &logits_with(&model, UseAdapter::Base)) > 1e-2, "{what}");
            if matches!(kind, AdapterConfig::PrefixTuning(_)) {
                let error = model.merged().err().unwrap().to_string();
                assert!(error.contains("prefix"), "{error}");
                continue;
            }
            let merged = model.merged().unwrap();
            let size = with.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
            let error = distance(&with, &logits(&merged));
            assert!(error < 1e-4 * size, "{what}: {error} of {size}");
            // The model itself is as it was.
            assert_eq!(logits(&model), with, "{what}");
        }
    }
}

#[test]
fn adapters_come_go_and_take_turns_without_a_trace() {
    for (name, config) in families() {
        let mut model = lively(&config, 3);
        let (base, fingerprint) = (logits(&model), model.fingerprint().unwrap());
        let kinds = kinds(&config);
        let mut alone = Vec::new();
        for (i, kind) in kinds.iter().enumerate() {
            let label = format!("a{i}");
            let id = model.attach(&label, kind.clone(), 1).unwrap();
            shake(&model, &label);
            alone.push((label, id, logits(&model)));
        }
        for (label, id, expected) in &alone {
            assert_eq!(&logits_with(&model, UseAdapter::Id(*id)), expected, "{name}, {label}");
            assert_eq!(logits_with(&model, UseAdapter::Base), base, "{name}");
        }
        model.activate(Some("a0")).unwrap();
        assert_eq!(logits(&model), alone[0].2, "{name}");
        model.activate(None).unwrap();
        assert_eq!(logits(&model), base, "{name}");
        model.detach("a1").unwrap();
        let ids = Tensor::new(&[[1_u32]], &Device::Cpu).unwrap();
        let gone =
            ForwardOptions { adapter: UseAdapter::Id(alone[1].1), ..ForwardOptions::evaluate() };
        assert!(model.logits(&ids, &gone).unwrap_err().to_string().contains("not attached"));
        assert_eq!(logits_with(&model, UseAdapter::Id(alone[0].1)), alone[0].2, "{name}");
        for label in model.adapter_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            model.detach(&label).unwrap();
        }
        assert_eq!(model.fingerprint().unwrap(), fingerprint, "{name}");
    }
}

#[test]
fn a_written_adapter_is_the_same_adapter() {
    for (name, config) in families() {
        for kind in kinds(&config) {
            let mut model = lively(&config, 3);
            model.attach("default", kind.clone(), 1).unwrap();
            shake(&model, "");
            let dir = tempfile::tempdir().unwrap();
            model.save_adapter("default", dir.path()).unwrap();
            let mut again = lively(&config, 3);
            again.load_adapter("other", dir.path()).unwrap();
            assert_eq!(logits(&again), logits(&model), "{name}, {}", kind.peft_type());
            let written = fs::read(dir.path().join("adapter_config.json")).unwrap();
            again.save_adapter("other", dir.path()).unwrap();
            assert_eq!(fs::read(dir.path().join("adapter_config.json")).unwrap(), written);
        }
    }
}

#[test]
fn every_key_of_pefts_files_is_written_again() {
    for name in folders_with(fixtures(), "config.json") {
        let dir = fixtures().join(name);
        for adapter in folders_with(&dir, "adapter_config.json") {
            let dir = dir.join(adapter);
            let bytes = fs::read(dir.join("adapter_config.json")).unwrap();
            let published: Value = serde_json::from_slice(&bytes).unwrap();
            let written = AdapterConfig::load(&dir).unwrap().to_json();
            for (key, value) in published.as_object().unwrap() {
                assert_eq!(written.get(key), Some(value), "{}, `{key}`", dir.display());
            }
        }
    }
}

#[test]
fn two_prefixes_are_trained_in_one_step() {
    let mut model = lively(&grouped(), 3);
    let mut config = PrefixTuningConfig::new(5);
    config.zero_init = true;
    config.dropout = 0.1;
    let secure = model.attach("secure", config.clone(), 1).unwrap();
    let vulnerable = model.attach("vulnerable", config, 1).unwrap();
    let names: Vec<String> = model.trainable().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["secure/prompt_embeddings", "vulnerable/prompt_embeddings"]);
    let ids = Tensor::new(&[[1_u32, 20, 3, 44], [5, 6, 7, 8]], &Device::Cpu).unwrap();
    let step = |seed| {
        let loss = |id| {
            let options = ForwardOptions {
                adapter: UseAdapter::Id(id),
                dropout_seed: seed,
                ..ForwardOptions::default()
            };
            model.logits(&ids, &options).unwrap().sqr().unwrap().mean_all().unwrap()
        };
        let grads = (loss(secure) - loss(vulnerable)).unwrap().backward().unwrap();
        let of = |(_, var)| -> Vec<f32> {
            grads.get(&var as &candle_core::Var).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let gradients: Vec<Vec<f32>> = model.trainable().into_iter().map(of).collect();
        assert!(gradients.iter().flatten().any(|g| *g != 0.0));
        gradients
    };
    // Without dropout both start the same, and the difference pulls them apart.
    let plain = step(None);
    for (a, b) in plain[0].iter().zip(&plain[1]) {
        assert!((a + b).abs() < 1e-6 * a.abs().max(1e-3), "{a} {b}");
    }
    assert_ne!(step(Some(1)), step(Some(2)));
    model.set_trained("vulnerable", false).unwrap();
    assert_eq!(model.trainable().len(), 1);
}

#[test]
fn prefixes_take_their_part_of_the_context() {
    let mut model = lively(&grouped(), 3);
    let context = model.config().max_position_embeddings;
    model.attach("default", PrefixTuningConfig::new(6), 1).unwrap();
    let options = ForwardOptions::evaluate();
    assert_eq!(model.longest_text(&options).unwrap(), context - 6);
    assert_eq!(model.longest_text(&ForwardOptions::base()).unwrap(), context);
    let run = |n: usize| {
        let ids = Tensor::zeros((1, n), candle_core::DType::U32, &Device::Cpu).unwrap();
        model.logits(&ids, &options)
    };
    run(context - 6).unwrap();
    let error = run(context - 5).unwrap_err().to_string();
    assert!(error.contains("prefix of 6"), "{error}");
}

/// Writes an adapter of a grouped model, damages it, and checks what loading says.
#[track_caller]
fn check_damage(config: impl Into<AdapterConfig>, damage: impl Fn(&Path), parts: &[&str]) {
    let mut model = lively(&grouped(), 3);
    model.attach("default", config, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save_adapter("default", dir.path()).unwrap();
    model.detach("default").unwrap();
    let base = logits(&model);
    damage(dir.path());
    let error = model.load_adapter("default", dir.path()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert!(model.adapter_names().is_empty());
    assert_eq!(logits(&model), base);
}

fn edit(dir: &Path, change: impl Fn(&mut Value)) {
    let path = dir.join("adapter_config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn replace(dir: &Path, name: &str, tensor: Option<Tensor>) {
    let file = dir.join("adapter_model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    tensors.remove(name);
    if let Some(tensor) = tensor {
        tensors.insert(name.to_owned(), tensor);
    }
    candle_core::safetensors::save(&tensors, &file).unwrap();
}

#[test]
fn damaged_adapters_are_named() {
    let lora = || LoraConfig::new(3, 6.0);
    let zeros = |shape: (usize, usize)| {
        Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
    };
    let up = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight";
    let config = "adapter_config.json";
    let file = "adapter_model.safetensors";
    check_damage(lora(), |dir| fs::remove_file(dir.join(config)).unwrap(), &[config]);
    check_damage(lora(), |dir| fs::remove_file(dir.join(file)).unwrap(), &[file]);
    check_damage(lora(), |dir| fs::write(dir.join(config), "{\"r\": ").unwrap(), &[config]);
    check_damage(lora(), |dir| fs::write(dir.join(config), "[]").unwrap(), &[config]);
    check_damage(lora(), |dir| edit(dir, |json| json["r"] = Value::Null), &[config, "`r`"]);
    check_damage(lora(), |dir| edit(dir, |json| json["r"] = json!(4)), &[file, "[3, ", "[4, "]);
    check_damage(
        lora(),
        |dir| edit(dir, |json| json["peft_type"] = json!("LOHA")),
        &[config, "`peft_type`", "LOHA"],
    );
    check_damage(
        lora(),
        |dir| edit(dir, |json| json["use_dora"] = json!(true)),
        &[config, "`use_dora`"],
    );
    check_damage(
        lora(),
        |dir| edit(dir, |json| json["target_modules"] = json!(["c_attn"])),
        &[config, "`target_modules`", "selects no module"],
    );
    check_damage(
        lora(),
        |dir| edit(dir, |json| json["target_modules"] = json!(["q_proj"])),
        &[file, "is not what the keys"],
    );
    check_damage(lora(), |dir| replace(dir, up, None), &[file, up, "missing"]);
    check_damage(
        lora(),
        |dir| replace(dir, up, Some(zeros((3, 5)))),
        &[file, up, "[3, 5]", "[3, 24]"],
    );
    check_damage(
        lora(),
        |dir| replace(dir, "base_model.model.lm_head.base_layer.weight", Some(zeros((67, 24)))),
        &[file, "lm_head", "differs"],
    );
    for n in [0, 4, 100, 2000] {
        let cut = |dir: &Path| {
            let bytes = fs::read(dir.join(file)).unwrap();
            fs::write(dir.join(file), &bytes[..n]).unwrap();
        };
        check_damage(lora(), cut, &[file]);
    }
    let prompt = "prompt_embeddings";
    let prefix = || PrefixTuningConfig::new(4);
    check_damage(prefix(), |dir| replace(dir, prompt, None), &[file, prompt, "missing"]);
    check_damage(
        prefix(),
        |dir| replace(dir, prompt, Some(zeros((4, 8)))),
        &[file, prompt, "[4, 8]"],
    );
    check_damage(
        prefix(),
        |dir| edit(dir, |json| json["num_layers"] = json!(3)),
        &[config, "`num_layers`"],
    );
    check_damage(
        Ia3Config::default(),
        |dir| edit(dir, |json| json["feedforward_modules"] = json!([])),
        &[file, "down_proj.ia3_l", "[1, 40]", "[24, 1]"],
    );
}

#[test]
fn copies_of_the_models_own_weights_are_passed_over() {
    let mut model = lively(&grouped(), 3);
    model.attach("default", all_linear_and_output(), 1).unwrap();
    shake(&model, "");
    let dir = tempfile::tempdir().unwrap();
    model.save_adapter("default", dir.path()).unwrap();
    let with = logits(&model);
    model.detach("default").unwrap();
    let weights = model.trainable();
    let (_, embed) = weights.iter().find(|(name, _)| name.contains("embed_tokens")).unwrap();
    for name in ["lm_head.base_layer.weight", "model.embed_tokens.weight"] {
        replace(dir.path(), &format!("base_model.model.{name}"), Some(embed.as_detached_tensor()));
    }
    model.load_adapter("default", dir.path()).unwrap();
    assert_eq!(logits(&model), with);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let check = |config: &ModelConfig, adapter: AdapterConfig, part: &str| {
        let mut model = lively(config, 1);
        let error = model.attach("default", adapter, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    };
    let latent = ModelConfig::load(&fixtures().join("deepseek_v2-lite")).unwrap();
    check(&latent, PrefixTuningConfig::new(4).into(), "deepseek_v2");
    let mut projected = PrefixTuningConfig::new(4);
    projected.prefix_projection = true;
    check(&grouped(), projected.into(), "prefix_projection");
    check(&grouped(), PrefixTuningConfig::new(96).into(), "num_virtual_tokens");
    let mut lora = LoraConfig::new(3, 6.0);
    lora.target_modules = TargetModules::List(vec!["embed_tokens".to_owned(), "q_proj".to_owned()]);
    check(&grouped(), lora.clone().into(), "embed_tokens");
    lora.target_modules = TargetModules::List(vec!["q_proj".to_owned()]);
    lora.target_parameters = Some(vec!["gate_up_proj".to_owned()]);
    check(&grouped(), lora.into(), "target_parameters");

    let mut model = lively(&grouped(), 1);
    let dir = fixtures().join("llama-grouped/prefix-projected");
    let mut base = Model::load(&fixtures().join("llama-grouped"), &Device::Cpu).unwrap();
    base.load_adapter("default", &dir).unwrap();
    assert!(base.trainable().is_empty());
    assert!(base.set_trained("default", true).is_err());
    model.attach("a", LoraConfig::new(3, 6.0), 1).unwrap();
    assert!(model.attach("a", LoraConfig::new(3, 6.0), 1).is_err());
    assert!(model.attach("../a", LoraConfig::new(3, 6.0), 1).is_err());
}
