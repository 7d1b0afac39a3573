//! Tokens a second of decoding for models of random weights: `decode_rate 17m|0.5b f32|bf16|f16|int8 STREAMS NEW`.

use std::time::Instant;

use hardn_models::{DecodeModel, DecodeRow, KvCache, ModelConfig, WeightFormat};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let config = if args[1] == "17m" {
        ModelConfig::llama(8192, 384, 8, 6, 1024, 1024)
    } else {
        ModelConfig::llama(151_936, 896, 24, 14, 4864, 1024)
            .and_then(|config| config.with(&serde_json::json!({ "num_key_value_heads": 2 })))
    }
    .unwrap();
    let format = match args[2].as_str() {
        "f32" => WeightFormat::F32,
        "bf16" => WeightFormat::Bf16,
        "f16" => WeightFormat::F16,
        _ => WeightFormat::Int8,
    };
    let new: usize = args[4].parse().unwrap();
    let model = DecodeModel::random(config.clone(), 1, format).unwrap();
    let prompt: Vec<u32> = (0..32).map(|i| (i * 97) % config.vocab_size as u32).collect();
    let repeats = args.get(5).map_or(3, |n| n.parse().unwrap());
    for _ in 0..repeats {
        for streams in args[3].split(',') {
            let streams: usize = streams.parse().unwrap();
            let mut caches: Vec<KvCache> = (0..streams).map(|_| model.cache(512)).collect();
            let mut rows: Vec<DecodeRow> = caches
                .iter_mut()
                .map(|cache| DecodeRow { cache, ids: &prompt, all_logits: false })
                .collect();
            let start = Instant::now();
            let mut logits = model.forward(&mut rows).unwrap();
            let prefill = start.elapsed().as_secs_f64();
            let cpu = on_cpu();
            let start = Instant::now();
            for _ in 0..new {
                let next: Vec<[u32; 1]> = logits.iter().map(|l| [best(l)]).collect();
                let mut rows: Vec<DecodeRow> = caches
                    .iter_mut()
                    .zip(&next)
                    .map(|(cache, ids)| DecodeRow { cache, ids, all_logits: false })
                    .collect();
                logits = model.forward(&mut rows).unwrap();
            }
            println!(
                "{streams} streams: {:.0} tokens/s, {:.0} tokens/s of cpu, prompt {:.0} tokens/s",
                (new * streams) as f64 / start.elapsed().as_secs_f64(),
                (new * streams) as f64 / (on_cpu() - cpu),
                (prompt.len() * streams) as f64 / prefill
            );
        }
    }
}

fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = i;
        }
    }
    best as u32
}

fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e-9
}
