//! Writes an adapter of every kind for every fixture, with the logits it gives, for `check_round_trip.py` to load in PEFT.
//!
//! `cargo run -p hardn-models --example write_adapters -- OUT`

use std::{error::Error, fs, path::Path};

use candle_core::{Device, Tensor};
use hardn_models::{
    AdapterConfig, DEFAULT_ADAPTER, ForwardOptions, Ia3Config, LoraConfig, Model, OneOrMany,
    PrefixTuningConfig, TargetModules,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("give a folder to write to")?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for entry in fs::read_dir(fixtures)? {
        let fixture = entry?.path();
        let Some(name) = fixture.file_name().filter(|_| fixture.join("config.json").is_file())
        else {
            continue;
        };
        let mut model = Model::load(&fixture, &Device::Cpu)?;
        for (kind, config) in kinds(&model) {
            let dir = Path::new(&out).join(name).join(kind);
            model.attach(DEFAULT_ADAPTER, config, 1)?;
            shake(&model)?;
            model.save_adapter(DEFAULT_ADAPTER, &dir)?;
            let ids: Vec<u32> =
                (0..23).map(|i| (i * i + 3) % model.config().vocab_size as u32).collect();
            let input = Tensor::new(ids.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
            let logits = model.logits(&input, &ForwardOptions::evaluate())?;
            let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
            fs::write(dir.join("ours.json"), json!({"ids": ids, "logits": logits}).to_string())?;
            model.detach(DEFAULT_ADAPTER)?;
        }
    }
    Ok(())
}

fn kinds(model: &Model) -> Vec<(&'static str, AdapterConfig)> {
    let mut plain = LoraConfig::new(3, 6.0);
    plain.lora_dropout = 0.1;
    let mut default = LoraConfig::new(2, 5.0);
    default.target_modules = TargetModules::Default;
    default.use_rslora = true;
    // Every linear layer of some layers, and the output.
    let mut varied = LoraConfig::new(3, 6.0);
    let names = [
        "q_proj",
        "qkv_proj",
        "c_attn",
        "q_attn",
        "fc1",
        "fc_in",
        "c_fc",
        "kv_b_proj",
        "o_proj",
        "lm_head",
    ];
    varied.target_modules = TargetModules::List(names.map(str::to_owned).to_vec());
    varied.exclude_modules = TargetModules::List(vec!["fc1".to_owned()]);
    varied.rank_pattern.insert("lm_head".to_owned(), json!(5));
    varied.alpha_pattern.insert("layers.0.self_attn.q_proj".to_owned(), json!(9));
    let mut layer = default.clone();
    layer.target_modules = TargetModules::List(names[..8].iter().map(|&n| n.to_owned()).collect());
    layer.layers_to_transform = Some(OneOrMany::Many(vec![1]));
    let mut kinds: Vec<(&str, AdapterConfig)> = vec![
        ("lora", plain.into()),
        ("lora-default", default.into()),
        ("lora-varied", varied.into()),
        ("lora-layer", layer.into()),
        ("ia3", Ia3Config::default().into()),
    ];
    if model.config().model_type == "deepseek_v2" {
        // PEFT takes the names of an MLP's layers, which `all-linear` includes, for the experts'.
        kinds.retain(|(kind, _)| *kind != "lora");
        let mut experts = LoraConfig::new(2, 3.0);
        experts.target_modules = TargetModules::List(Vec::new());
        experts.target_parameters = Some(vec!["gate_up_proj".to_owned(), "down_proj".to_owned()]);
        kinds.push(("lora-experts", experts.into()));
    } else {
        kinds.push(("prefix", PrefixTuningConfig::new(4).into()));
    }
    kinds
}

/// Moves an adapter's tensors away from where they start.
fn shake(model: &Model) -> candle_core::Result<()> {
    for (i, (_, var)) in model.trainable().into_iter().enumerate() {
        let noise: Vec<f32> =
            (0..var.elem_count()).map(|j| ((i * 31 + j * 17) % 23) as f32 / 46.0 - 0.23).collect();
        let noise = Tensor::from_vec(noise, var.dims(), &Device::Cpu)?;
        var.set(&(var.as_detached_tensor() + noise)?)?;
    }
    Ok(())
}
