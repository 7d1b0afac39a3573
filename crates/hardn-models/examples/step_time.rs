//! Times one training step and decoding on random weights, for the sizes of lab models.
//!
//! Where `HARDN_CPU_TIME` is set it counts the processor time of all threads instead of the time on the clock;
//! with `RAYON_NUM_THREADS=1` that is a fair measure on a machine shared with others (Linux).
//!
//! `cargo run --release -p hardn-models --example step_time [-- 1m|4m|17m|100m [full|lora|decode]]`

#![expect(clippy::print_stdout, reason = "a measurement prints its result")]

use std::{fs, time::Instant};

use candle_core::{Device, Tensor, Var};
use hardn_models::{
    DecodeModel, DecodeRow, ForwardOptions, KvCache, LoraConfig, Model, ModelConfig, ModelError,
    ops::{AdamW, Charges, KlDirection, Moments, Term, adamw_step},
};

/// Steps or calls that are timed; the median counts.
const REPEATS: usize = 9;

fn main() -> Result<(), ModelError> {
    let config = match std::env::args().nth(1).as_deref() {
        Some("1m") => ModelConfig::llama(2048, 128, 5, 4, 336, 1024)?,
        Some("17m") => ModelConfig::llama(8192, 384, 8, 6, 1024, 1024)?,
        Some("100m") => ModelConfig::llama(16_384, 768, 12, 12, 2048, 1024)?,
        _ => ModelConfig::llama(2048, 192, 8, 6, 512, 1024)?,
    };
    println!("{} parameters, {} threads", config.parameters(), rayon::current_num_threads());
    let mut model = Model::random(&config, 1)?;
    match std::env::args().nth(2).as_deref() {
        Some("decode") => return decode(&model),
        Some("full") => return train("full", &model),
        Some("lora") => {}
        _ => {
            train("full", &model)?;
            decode(&model)?;
        }
    }
    model.attach_lora(&LoraConfig::new(8, 16.0), 1)?;
    train("lora r=8", &model)
}

/// Median of (forward, backward, optimiser) milliseconds at 8 x 256 tokens.
fn train(name: &str, model: &Model) -> Result<(), ModelError> {
    let (batch, seq) = (8, 256);
    let vocab = model.config().vocab_size as u32;
    let ids: Vec<u32> = (0..batch * seq).map(|i: u32| (i.wrapping_mul(7919)) % vocab).collect();
    let ids = Tensor::from_vec(ids, (batch as usize, seq as usize), &Device::Cpu)?;
    let targets = ids.flatten_all()?.to_vec1::<u32>()?;
    let n = targets.len();
    let charges = Charges {
        targets: &targets,
        terms: &vec![Term::Nll; n],
        weights: &vec![1.0 / n as f32; n],
        kl_weights: &[],
        direction: KlDirection::default(),
    };
    let mut trained: Vec<(Var, Moments)> = model
        .trainable()
        .into_iter()
        .map(|(_, var)| {
            let moments = Moments::zeros(var.elem_count());
            (var, moments)
        })
        .collect();
    let settings = AdamW {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        gradient_scale: 1.0,
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for step in 1..=REPEATS {
        let options = ForwardOptions::default();
        let start = Clock::start();
        let hidden = model.hidden(&ids, &options)?.flatten(0, 1)?;
        let body = start.elapsed();
        let (loss, _) = model.head_loss(&hidden, &options, &charges, None)?;
        drop(hidden);
        let forward = start.elapsed();
        let grads = loss.backward()?;
        let backward = start.elapsed();
        for (var, moments) in &mut trained {
            if let Some(grad) = grads.get(var) {
                adamw_step(var, grad, moments, &settings, step)?;
            }
        }
        let all = start.elapsed();
        let parts = [body, forward - body, backward - forward, all - backward];
        for (times, part) in times.iter_mut().zip(parts) {
            times.push(part * 1e3);
        }
    }
    let [body, head, backward, optimiser] = times.map(median);
    println!(
        "{name}: body {body:.1} ms, head and loss {head:.1} ms, backward {backward:.1} ms, adamw {optimiser:.1} ms"
    );
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}

/// Tokens per second of batches that all hold the same number of tokens.
fn decode(model: &Model) -> Result<(), ModelError> {
    let model = DecodeModel::new(model)?;
    for (batch, context) in [(1, 100), (8, 100), (25, 100), (32, 100), (32, 300)] {
        let prompt: Vec<u32> = (0..context).map(|i| (i * 7919) % 2000).collect();
        let mut caches: Vec<KvCache> = (0..batch).map(|_| model.cache(1024)).collect();
        let start = Clock::start();
        let mut rows: Vec<DecodeRow> = caches
            .iter_mut()
            .map(|cache| DecodeRow { cache, ids: &prompt, all_logits: false })
            .collect();
        model.forward(&mut rows)?;
        let prefill = start.elapsed();
        let steps = 60;
        let start = Clock::start();
        for step in 0..steps {
            let ids = [step];
            let mut rows: Vec<DecodeRow> = caches
                .iter_mut()
                .map(|cache| DecodeRow { cache, ids: &ids, all_logits: false })
                .collect();
            model.forward(&mut rows)?;
        }
        let decode = start.elapsed();
        println!(
            "decode batch {batch}, {context} tokens held: {:.0} tokens/s (prefill {:.0} tokens/s)",
            f64::from(batch * steps) / decode,
            f64::from(batch) * f64::from(context) / prefill,
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds since a start, on the clock or of processor time.
struct Clock {
    start: Instant,
    used: Option<f64>,
}

impl Clock {
    fn start() -> Self {
        let used = std::env::var_os("HARDN_CPU_TIME").map(|_| processor_seconds());
        Self { start: Instant::now(), used }
    }

    fn elapsed(&self) -> f64 {
        self.used
            .map_or_else(|| self.start.elapsed().as_secs_f64(), |used| processor_seconds() - used)
    }
}

/// The first number of a thread's `schedstat` is its nanoseconds on a processor.
fn processor_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}
