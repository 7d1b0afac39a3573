//! Decoding models of random weights beside llama.cpp and transformers: tokens a second of one and of many streams.

use std::{fs, path::Path, process::Command, time::Instant};

use hardn_models::{DecodeModel, DecodeRow, KvCache, ModelConfig, WeightFormat};
use serde_json::{Value, json};

use super::{Row, median, peer::Peer};
use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
};

const STREAMS: [usize; 2] = [1, 25];
/// Tokens of each prompt.
const PROMPT: usize = 32;
const FORMATS: [(&str, WeightFormat); 3] =
    [("f32", WeightFormat::F32), ("bf16", WeightFormat::Bf16), ("int8", WeightFormat::Int8)];

const GGUF_SCRIPT: &str = include_str!("../../../../../bench/peer_gguf.py");
const DECODE_SCRIPT: &str = include_str!("../../../../../bench/peer_decode.py");

/// A model's sizes, and how many tokens are decoded of it.
struct Shape {
    name: &'static str,
    what: &'static str,
    new_tokens: usize,
    config: fn() -> hardn_models::Result<ModelConfig>,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "17m",
        what: "Llama of 17M",
        new_tokens: 200,
        config: || ModelConfig::llama(8192, 384, 8, 6, 1024, 1024),
    },
    Shape {
        name: "0.5b",
        what: "sizes of Qwen2.5-0.5B",
        new_tokens: 64,
        config: || {
            let keys = json!({
                "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936,
                "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 1024,
                "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
                "tie_word_embeddings": true,
            });
            ModelConfig::from_json(&keys, Path::new("config.json"))
        },
    },
];

/// Tokens a second, for each number of streams.
type Rates = [Vec<f64>; STREAMS.len()];

/// Every shape in every format.
pub(super) fn decode(args: &BenchArgs) -> Outcome<Vec<Row>> {
    if let Some(name) = args.shape.iter().find(|name| SHAPES.iter().all(|s| s.name != **name)) {
        return Err(Failure::new(format!("there is no shape `{name}`")).help("17m or 0.5b"));
    }
    let mut rows = Vec::new();
    for shape in &SHAPES {
        if args.shape.is_empty() || args.shape.iter().any(|name| name == shape.name) {
            for (name, format) in FORMATS {
                rows.extend(measure(args, shape, name, format)?);
            }
        }
    }
    Ok(rows)
}

fn measure(
    args: &BenchArgs,
    shape: &Shape,
    format_name: &str,
    format: WeightFormat,
) -> Outcome<Vec<Row>> {
    let config = (shape.config)()?;
    let keys = config.to_json("float32");
    let mut llama = Llama::new(args, &keys, format_name, shape.new_tokens)?;
    // Only in f32: what it does in other formats is not what ours does.
    let python = args.peer_python.as_deref().filter(|_| format == WeightFormat::F32);
    let mut torch = python
        .map(|python| {
            let mut command = Command::new(python);
            command.args(["-c", DECODE_SCRIPT]);
            let setup = json!({"config": keys, "threads": rayon::current_num_threads()});
            Peer::start(command, &setup)
        })
        .transpose()?;
    let model = DecodeModel::random(config, 1, format)?;
    let (mut ours, mut llamas, mut torches) =
        (Rates::default(), Rates::default(), Rates::default());
    for _ in 0..args.turns.max(1) {
        for (rates, streams) in ours.iter_mut().zip(STREAMS) {
            rates.push(run(&model, streams, shape.new_tokens)?);
        }
        if let Some(llama) = &mut llama {
            for (rates, rate) in llamas.iter_mut().zip(llama.run()?) {
                rates.push(rate);
            }
        }
        if let Some(torch) = &mut torch {
            for (rates, streams) in torches.iter_mut().zip(STREAMS) {
                let question =
                    json!({"streams": streams, "prompt": PROMPT, "new": shape.new_tokens});
                let seconds = torch.ask(&question)?["seconds"].as_f64().unwrap_or(f64::NAN);
                rates.push((streams * shape.new_tokens) as f64 / seconds);
            }
        }
    }
    let mut peers = Vec::new();
    if let Some(llama) = llama {
        peers.push((llama.name, llamas));
    }
    if let Some(torch) = torch {
        let version = torch.facts["torch"].as_str().unwrap_or("?");
        peers.push((format!("transformers on PyTorch {version}"), torches));
    }
    Ok(rows(shape, format_name, ours, peers))
}

fn rows(shape: &Shape, format: &str, ours: Rates, peers: Vec<(String, Rates)>) -> Vec<Row> {
    let ours = ours.map(median);
    let mut rows = Vec::new();
    for (i, streams) in STREAMS.into_iter().enumerate() {
        let what = format!(
            "decode, {}, {format} weights, {streams} stream{}, prompts of {PROMPT}, {} new tokens",
            shape.what,
            if streams == 1 { "" } else { "s" },
            shape.new_tokens
        );
        let rate = format!("{:.0} tokens/s", ours[i]);
        for (name, rates) in &peers {
            let theirs = median(rates[i].clone());
            rows.push(Row {
                what: what.clone(),
                ours: rate.clone(),
                peer: format!("{theirs:.0} tokens/s, {name}"),
                ratio: format!("{:.2}", theirs / ours[i]),
            });
        }
        if peers.is_empty() {
            let peer = "not measured: give --peer-llama and --peer-python".to_owned();
            rows.push(Row { what, ours: rate, peer, ratio: "–".to_owned() });
        }
    }
    rows
}

/// Greedy tokens a second, prompts not counted.
fn run(model: &DecodeModel, streams: usize, new_tokens: usize) -> Outcome<f64> {
    let vocab = model.config().vocab_size;
    let prompts: Vec<Vec<u32>> = (0..streams)
        .map(|s| (0..PROMPT).map(|i| ((s * 7919 + i * 104_729) % vocab) as u32).collect())
        .collect();
    let mut caches: Vec<KvCache> =
        prompts.iter().map(|_| model.cache(PROMPT + new_tokens)).collect();
    let mut rows: Vec<DecodeRow> = caches
        .iter_mut()
        .zip(&prompts)
        .map(|(cache, ids)| DecodeRow { cache, ids, all_logits: false })
        .collect();
    let mut logits = model.forward(&mut rows)?;
    let start = Instant::now();
    for _ in 0..new_tokens {
        let next: Vec<[u32; 1]> = logits.iter().map(|logits| [largest(logits)]).collect();
        let mut rows: Vec<DecodeRow> = caches
            .iter_mut()
            .zip(&next)
            .map(|(cache, ids)| DecodeRow { cache, ids, all_logits: false })
            .collect();
        logits = model.forward(&mut rows)?;
    }
    Ok((streams * new_tokens) as f64 / start.elapsed().as_secs_f64())
}

/// The id of the largest logit, the first of equal ones.
fn largest(logits: &[f32]) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == max).unwrap_or_default() as u32
}

/// `llama-batched-bench` with a model of the same sizes.
struct Llama {
    name: String,
    command: Command,
    /// Holds the model's file.
    _folder: tempfile::TempDir,
}

impl Llama {
    /// Writes the model; none where the peer is not asked for.
    fn new(args: &BenchArgs, config: &Value, format: &str, new: usize) -> Outcome<Option<Self>> {
        let Some(dir) = &args.peer_llama else { return Ok(None) };
        let python = args.peer_python.as_deref().ok_or_else(|| {
            Failure::new("--peer-llama needs --peer-python, which writes the peer's model")
                .help("scripts/peers.sh makes both")
        })?;
        let program = dir.join("llama-batched-bench");
        if !program.is_file() {
            return Err(Failure::new(format!("there is no {}", program.display()))
                .help("scripts/peers.sh --llama-cpp builds it"));
        }
        let io = |error: std::io::Error| Failure::new(format!("a temporary folder: {error}"));
        let folder = tempfile::tempdir().map_err(io)?;
        let (keys, gguf) = (folder.path().join("config.json"), folder.path().join("model.gguf"));
        fs::write(&keys, config.to_string()).map_err(io)?;
        let written = Command::new(python)
            .args(["-c", GGUF_SCRIPT])
            .arg(&keys)
            .arg(format)
            .arg(&gguf)
            .output()
            .map_err(|error| Failure::new(format!("cannot start {}: {error}", python.display())))?;
        if !written.status.success() {
            let said = String::from_utf8_lossy(&written.stderr);
            let last = said.lines().last().unwrap_or_default().to_owned();
            return Err(Failure::new(format!("the peer's model cannot be written: {last}"))
                .help("its Python needs the package gguf: scripts/peers.sh --llama-cpp"));
        }
        let threads = rayon::current_num_threads().to_string();
        let streams = STREAMS.map(|n| n.to_string()).join(",");
        // Each stream gets an equal share of the context.
        let context = STREAMS[STREAMS.len() - 1] * (PROMPT + new).next_multiple_of(256);
        let mut command = Command::new(&program);
        command.arg("-m").arg(&gguf);
        command.args(["-t", &threads, "-tb", &threads, "-c", &context.to_string()]);
        command.args(["-b", "2048", "-ub", "512", "-npp", &PROMPT.to_string()]);
        command.args(["-ntg", &new.to_string(), "-npl", &streams, "--output-format", "jsonl"]);
        let version = fs::read_to_string(dir.join("VERSION")).unwrap_or_default();
        let name = format!("llama.cpp {}", version.trim());
        // Ours keeps f32.
        let name = format!("{}, which keeps keys and values in f16", name.trim_end());
        Ok(Some(Self { name, command, _folder: folder }))
    }

    /// Tokens a second, for each number of streams.
    fn run(&mut self) -> Outcome<Vec<f64>> {
        let done = self
            .command
            .output()
            .map_err(|error| Failure::new(format!("cannot start llama-batched-bench: {error}")))?;
        let text = String::from_utf8_lossy(&done.stdout);
        let answers = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let rates: Vec<f64> = answers.filter_map(|answer| answer["speed_tg"].as_f64()).collect();
        if rates.len() != STREAMS.len() {
            let said = String::from_utf8_lossy(&done.stderr);
            let last = said.lines().last().unwrap_or_default().to_owned();
            return Err(Failure::new(format!("llama-batched-bench gave no rates: {last}")));
        }
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_sizes_they_are_named_for() {
        let parameters = SHAPES.map(|shape| (shape.config)().unwrap().parameters());
        assert!((17_000_000..17_500_000).contains(&parameters[0]), "{parameters:?}");
        assert!((490_000_000..500_000_000).contains(&parameters[1]), "{parameters:?}");
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(largest(&[0.5, 2.0, 2.0, -1.0]), 1);
    }
}
