//! Files written here against those llama.cpp's converter wrote (`tests/fixtures/make_gguf_fixtures.py`), and read again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device};
use serde_json::{Value, json};

use super::{header::Header, *};
use crate::{
    Model, RopeScaling,
    checkpoint::Weights,
    config::spec::{Positions, Rotary},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A fixture's configuration; where it has an option llama.cpp does not compute, without that.
fn usual(name: &str) -> ModelConfig {
    let config = ModelConfig::load(&fixtures().join(name)).unwrap();
    let changes = match name {
        "llama-llama3" => json!({"hidden_act": "silu"}),
        "gpt2" => json!({"scale_attn_by_inverse_layer_idx": false}),
        "gpt_bigcode-multihead" => json!({"activation_function": "gelu_pytorch_tanh"}),
        _ => json!({}),
    };
    config.with(&changes).unwrap()
}

fn read(path: &Path) -> (Vec<u8>, Header) {
    let file = fs::read(path).unwrap();
    let header = Header::read(&file).unwrap();
    (file, header)
}

/// Tensors bit for bit, and metadata, as llama.cpp's converter has them.
#[test]
fn files_are_those_of_the_converter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for name in [
        "llama-grouped",
        "llama-linear",
        "llama-llama3",
        "qwen2",
        "qwen3",
        "starcoder2",
        "phi",
        "gpt_bigcode",
        "gpt2",
    ] {
        let model = Model::load(&fixtures().join(name), &Device::Cpu).unwrap();
        let weights = model.published_weights().unwrap();
        let model = Model::from_weights(usual(name), weights, &Device::Cpu).unwrap();
        model.save_gguf(&path, None, GgufDtype::F32).unwrap();
        let (ours, our_header) = read(&path);
        let (theirs, their_header) = read(&fixtures().join(format!("gguf/{name}-f32.gguf")));
        assert!(our_header.tensors.keys().eq(their_header.tensors.keys()), "{name}");
        for (tensor, a) in &our_header.tensors {
            let b = &their_header.tensors[tensor];
            assert_eq!((&a.shape, a.kind), (&b.shape, b.kind), "{name} {tensor}");
            let n = 4 * a.shape.iter().product::<usize>();
            let (a, b) = (&ours[a.start..a.start + n], &theirs[b.start..b.start + n]);
            if tensor != "rope_freqs.weight" {
                assert_eq!(a, b, "{name} {tensor}");
            }
        }
        for (key, value) in &their_header.metadata {
            // Names and sizes of the model as text; four times the width whatever the MLP has; windows ignored.
            let differs = ["general.", "tokenizer.", "feed_forward_length", "context_length"];
            if !differs.iter().any(|part| key.contains(part)) {
                assert_eq!(our_header.metadata.get(key), Some(value), "{name} {key}");
            }
        }
    }
}

/// What the metadata says computes what the published configuration says.
#[test]
fn configurations_compute_the_same() {
    for entry in fs::read_dir(fixtures().join("gguf")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let (name, _) = stem.rsplit_once('-').unwrap();
        let mut published = usual(name);
        let mut read = super::config(&path).unwrap();
        // llama.cpp's converter drops windows.
        for layer in &mut published.spec.layers {
            layer.attention.window = None;
        }
        let [a, b] = [&mut published, &mut read].map(|config| match &mut config.spec.positions {
            Positions::Rotary(rotary) => rotary_factors(rotary),
            _ => Vec::new(),
        });
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(&b).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{name}: {a:?} {b:?}");
        assert_eq!(read.spec, published.spec, "{name}");
        assert_eq!(read.max_position_embeddings, published.max_position_embeddings, "{name}");
        assert_eq!(read.tie_word_embeddings, published.tie_word_embeddings, "{name}");
    }
}

/// Takes out the numbers of a scaling that files have in another form.
fn rotary_factors(rotary: &mut Rotary) -> Vec<f64> {
    let dims = rotary.dims;
    match &mut rotary.scaling {
        Some(RopeScaling::Yarn { attention_factor, .. }) => {
            vec![std::mem::replace(attention_factor, 1.0)]
        }
        Some(scaling @ RopeScaling::Llama3 { .. }) => {
            let factors = rope::llama3_factors(scaling, rotary.theta, dims).unwrap();
            rotary.scaling = None;
            factors
        }
        _ => Vec::new(),
    }
}

/// Writes a model with random weights and reads it again; every value may differ by `allowed`.
#[track_caller]
fn check_round_trip(config: &ModelConfig, dtype: GgufDtype, allowed: f32) {
    let model = Model::random(config, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    model.save_gguf(&path, None, dtype).unwrap();
    let read = super::config(&path).unwrap();
    assert_eq!(read.spec, config.spec);
    let weights = Weights::open(dir.path()).unwrap();
    for (name, tensor) in model.published_weights().unwrap() {
        let loaded = weights.load(&name, DType::F32, &Device::Cpu).unwrap();
        let error = (loaded - tensor.to_dtype(DType::F32).unwrap()).unwrap().abs().unwrap();
        let error = error.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(error <= allowed, "{name}: {error}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let config = ModelConfig::llama(96, 64, 2, 4, 96, 32).unwrap();
    check_round_trip(&config, GgufDtype::F32, 0.0);
    check_round_trip(&config, GgufDtype::F16, 1e-4);
    check_round_trip(&config, GgufDtype::BF16, 1e-3);
    check_round_trip(&config, GgufDtype::Q8_0, 1e-3);
    check_round_trip(&config, GgufDtype::Q4_0, 3e-2);
    // Blocks of 256 do not fit, so these are kept in 8 bits.
    check_round_trip(&config, GgufDtype::Q4K, 1e-3);
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5,
        "original_max_position_embeddings": 8, "beta_fast": 16.0});
    for changes in [
        json!({"rope_parameters": yarn, "rope_scaling": null}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "tie_word_embeddings": false}),
        json!({"attention_bias": true, "num_key_value_heads": 2, "head_dim": 6}),
        json!({"model_type": "qwen3", "architectures": null, "head_dim": 10, "num_key_value_heads": 1,
            "pretraining_tp": null, "mlp_bias": null}),
    ] {
        check_round_trip(&config.with(&changes).unwrap(), GgufDtype::F32, 0.0);
    }
    check_round_trip(&usual("gpt_bigcode-multihead"), GgufDtype::F32, 0.0);
}

#[test]
fn latent_attention_and_experts() {
    let config = ModelConfig::load(&fixtures().join("deepseek_v2-lite")).unwrap();
    let error = Model::random(&config, 1).unwrap();
    let error = error.save_gguf(Path::new("unused.gguf"), None, GgufDtype::F32).unwrap_err();
    assert!(error.to_string().contains("rms_norm_eps"), "{error}");
    // As many experts as the order of their names is not that of their numbers.
    let whole = json!({"rms_norm_eps": 1e-6, "num_hidden_layers": 26, "n_routed_experts": 11});
    check_round_trip(&config.with(&whole).unwrap(), GgufDtype::F32, 0.0);
    let low_rank = json!({"rms_norm_eps": 1e-6, "q_lora_rank": 7});
    check_round_trip(&config.with(&low_rank).unwrap(), GgufDtype::F32, 0.0);
}

#[test]
fn what_llama_cpp_does_not_compute_is_an_error() {
    let path = Path::new("unused.gguf");
    for (name, part) in [
        ("codegen", "llama.cpp has no graph for \"codegen\""),
        ("gptj", "no graph"),
        ("xglm", "no graph"),
        ("santacoder", "kv_attn"),
        ("deepseek_v2-grouped", "topk_method"),
        ("llama-llama3", "hidden_act"),
        ("phi-normed", "layernorm"),
    ] {
        let model = Model::load(&fixtures().join(name), &Device::Cpu).unwrap();
        let error = model.save_gguf(path, None, GgufDtype::F32).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
        assert!(!path.exists());
    }
}

#[test]
fn quantised_weights_keep_their_rows() {
    let config = ModelConfig::llama(96, 64, 1, 4, 96, 32).unwrap();
    let model = Model::random(&config, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save_gguf(&dir.path().join("m.gguf"), None, GgufDtype::Q8_0).unwrap();
    let weights = Weights::open(dir.path()).unwrap();
    for name in weights.names() {
        let quantised = weights.quantised(name).unwrap();
        assert_eq!(quantised.is_some(), weights.shape(name).unwrap().len() == 2, "{name}");
        if let Some(quantised) = quantised {
            let loaded = weights.load(name, DType::F32, &Device::Cpu).unwrap();
            let back = quantised.dequantize(&Device::Cpu).unwrap();
            assert_eq!(back.to_vec2::<f32>().unwrap(), loaded.to_vec2::<f32>().unwrap());
        }
    }
}

#[test]
fn scaling_of_llama_3_is_told_from_its_factors() {
    let scaling = |factor: f64, low: f64, high: f64, original: usize| crate::RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_position_embeddings: original,
    };
    for (factor, low, high, original, theta, dims) in [
        (8.0, 1.0, 4.0, 8192, 5e5, 128),
        (32.0, 1.0, 4.0, 8192, 5e5, 64),
        (4.0, 1.0, 3.0, 2048, 1e4, 64),
        (16.0, 2.0, 5.0, 4096, 1e5, 96),
        // One frequency between the bounds, or none, or none on one side.
        (3.0, 1.0, 3.0, 20, 300.0, 8),
        (5.0, 1.0, 1.1, 100, 1e4, 6),
        (8.0, 1.0, 4.0, 1, 1e4, 16),
        (8.0, 1.0, 4.0, 1 << 40, 1e4, 16),
    ] {
        let factors = rope::llama3_factors(&scaling(factor, low, high, original), theta, dims);
        let factors: Vec<f64> =
            factors.unwrap().iter().map(|factor| f64::from(*factor as f32)).collect();
        let told = rope::llama3(&factors, theta).unwrap();
        let number = |key: &str| told[key].as_f64().unwrap();
        let again = scaling(
            number("factor"),
            number("low_freq_factor"),
            number("high_freq_factor"),
            number("original_max_position_embeddings") as usize,
        );
        let again = rope::llama3_factors(&again, theta, dims).unwrap();
        assert!(again.iter().zip(&factors).all(|(a, b)| (a / b - 1.0).abs() < 1e-4));
    }
    assert!(rope::llama3(&[1.0, 3.0, 2.0, 8.0], 1e4).is_err());
}

/// Text in several scripts and layouts.
const TEXT: &str = "def total(xs, start=0):\n    \"\"\"Sum 12345 of them; don't stop, THEY'LL wait.\"\"\"\n\tfor x in xs:\n\n\
    \t\tstart += x ** 2  # grüße, 世界 and かな, 한국어 😀\r\n    return {'a b': start}[\"a b\"] <|end|>   \n";

/// A tokenizer trained on that text: `tokenizer.json`.
fn trained(pre_tokenizer: &Value, is_spm: bool) -> Value {
    let special = |content: &str| tokenizers::AddedToken::from(content, true);
    let mut trainer = tokenizers::models::bpe::BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(if is_spm { 200 } else { 330 })
        .special_tokens(["<unk>", "<s>", "</s>", "<|end|>"].map(special).to_vec());
    if !is_spm {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        trainer = trainer.initial_alphabet(alphabet.into_iter().collect());
    }
    let mut json = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": null, "model": {"type": "BPE", "vocab": {}, "merges": []},
    });
    if is_spm {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]});
    }
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let mut trainer = tokenizers::models::TrainerWrapper::from(trainer.build());
    tokenizer.train(&mut trainer, std::iter::once(TEXT.to_owned())).unwrap();
    let mut json: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    if is_spm {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let n = vocab.len();
        vocab.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), json!(n + byte))));
        json["model"]["byte_fallback"] = json!(true);
        json["model"]["fuse_unk"] = json!(true);
        json["model"]["unk_token"] = json!("<unk>");
    }
    json
}

fn ids_of(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

#[test]
fn tokenizers_come_back() {
    let names = ["gpt-2", "starcoder", "llama-bpe", "qwen2", "deepseek-coder", "deepseek-llm"];
    for name in names.into_iter().chain(["llama"]) {
        let is_spm = name == "llama";
        let json = trained(&cut::to_json(name).unwrap_or_default(), is_spm);
        let expected = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let settings = json!({"chat_template": "{{ messages }}"}).to_string();
        fs::write(dir.path().join("tokenizer_config.json"), settings).unwrap();
        let config = ModelConfig::llama(500, 32, 1, 4, 32, 32).unwrap();
        let config = config.with(&json!({"bos_token_id": 1, "eos_token_id": 2})).unwrap();
        let path = dir.path().join("model.gguf");
        let model = Model::random(&config, 1).unwrap();
        model.save_gguf(&path, Some(dir.path()), GgufDtype::Q8_0).unwrap();
        let (read, settings) = tokenizer(&path).unwrap();
        let expected_settings =
            json!({"chat_template": "{{ messages }}", "bos_token": "<s>", "eos_token": "</s>"});
        assert_eq!(settings, expected_settings);
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let loaded = crate::Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.encode(TEXT).unwrap().ids, ids_of(&expected, TEXT));
        assert_eq!(loaded.eos(), Some(2));
        for text in
            TEXT.split_inclusive(['\n', ',', '#']).chain([TEXT, "", " ", "a<|end|>b", "\u{7f}Ω"])
        {
            assert_eq!(ids_of(&read, text), ids_of(&expected, text), "{name}: {text:?}");
            // The published tokenizer of this kind puts a space behind special tokens.
            if !(is_spm && text.contains("<|end|>")) {
                assert_eq!(read.decode(&ids_of(&read, text), false).unwrap(), text, "{name}");
            }
        }
        assert_eq!(super::config(&path).unwrap().eos_token_id, config.eos_token_id);
    }
}

#[test]
fn a_text_begins_as_it_did() {
    let mut json = trained(&cut::to_json("qwen2").unwrap(), false);
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let config = ModelConfig::llama(500, 32, 1, 4, 32, 32).unwrap();
    let config = config.with(&json!({"bos_token_id": 2})).unwrap();
    let path = dir.path().join("model.gguf");
    let model = Model::random(&config, 1).unwrap();
    model.save_gguf(&path, Some(dir.path()), GgufDtype::F16).unwrap();
    let (read, _) = tokenizer(&path).unwrap();
    assert_eq!(read.encode("for", true).unwrap().get_ids()[0], 1);

    json["pre_tokenizer"] = json!({"type": "Whitespace"});
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let error = model.save_gguf(&path, Some(dir.path()), GgufDtype::F16).unwrap_err().to_string();
    assert!(error.contains("pre_tokenizer") && error.contains("llama-bpe"), "{error}");
}

/// The fixtures as llama.cpp can load them. `tests/compare_llama_cpp.py` compares its logits with the expected ones.
#[test]
#[ignore = "writes files to compare with llama.cpp; HARDN_GGUF_OUT=DIR cargo test -p hardn-models --lib files_for_llama_cpp -- --ignored"]
fn files_for_llama_cpp() {
    let out = PathBuf::from(std::env::var("HARDN_GGUF_OUT").unwrap());
    for entry in fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        if !dir.join("config.json").exists() {
            continue;
        }
        let model = Model::load(&dir, &Device::Cpu).unwrap();
        if let Err(error) = model.save_gguf(&out.join(format!("{name}.gguf")), None, GgufDtype::F32)
        {
            fs::write(out.join(format!("{name}.error")), error.to_string()).unwrap();
        }
    }
}
