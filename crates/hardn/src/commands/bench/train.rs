//! Training steps of synthetic sizes beside PyTorch, and our side of all training steps.

use std::{
    fs,
    io::{BufRead, stdin},
    time::Instant,
};

use hardn_models::{LoraConfig, Model, ModelConfig, TargetModules};
use hardn_train::{AdamWConfig, Recipe, Stepper};
use serde_json::{Value, json};

use super::{
    Row, methods,
    peer::TRAIN_STEP,
    sides::{Sides, WARM},
};
use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
    output::put_json,
};

/// Rows of a batch, and tokens of each.
const BATCH: (usize, usize) = (8, 256);
const RATE: f64 = 3e-4;
/// Every matrix of a block.
pub(super) const TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Name, vocabulary, hidden size, layers, heads, inner size.
const SIZES: [(&str, [usize; 5]); 2] =
    [("17M", [8192, 384, 8, 6, 1024]), ("100M", [16_384, 768, 12, 12, 2048])];

/// Full and LoRA steps of both sizes.
pub(super) fn train_steps(args: &BenchArgs) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, size) in SIZES {
        for with_lora in [false, true] {
            rows.extend(measure(args, name, size, with_lora)?);
        }
    }
    Ok(rows)
}

fn measure(args: &BenchArgs, name: &str, size: [usize; 5], with_lora: bool) -> Outcome<Vec<Row>> {
    let [vocab, hidden, layers, heads, inner] = size;
    let lora = json!({"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": TARGETS});
    let setup = json!({
        "config": {
            "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": inner,
            "max_position_embeddings": 1024, "tie_word_embeddings": true,
        },
        "lora": if with_lora { lora } else { Value::Null },
        "threads": rayon::current_num_threads(),
        "learning_rate": RATE,
    });
    let mut sides = Sides::start(args, TRAIN_STEP, &setup)?;
    for step in 0..args.steps + WARM {
        let ids: Vec<Vec<usize>> = (0..BATCH.0)
            .map(|row| (0..BATCH.1).map(|i| (step * 31 + row * 17 + i * 7919) % vocab).collect())
            .collect();
        sides.step(&json!({ "ids": ids }))?;
    }
    let kind = if with_lora { "LoRA step (r 8, all projections)" } else { "full step" };
    Ok(sides.rows(&format!("{kind}, Llama {name}, batch {} x {}", BATCH.0, BATCH.1)))
}

/// Our side: answers the lines of [`Sides`].
pub(super) fn worker() -> Outcome {
    let mut lines = stdin().lock().lines();
    let mut question = || -> Outcome<Option<Value>> {
        let Some(line) = lines.next() else { return Ok(None) };
        let line = line.map_err(|error| Failure::new(format!("standard input: {error}")))?;
        let value = serde_json::from_str(&line);
        value.map(Some).map_err(|error| Failure::new(format!("standard input: {error}")))
    };
    let Some(setup) = question()? else { return Ok(()) };
    let recipe = match setup["recipe"].as_str() {
        Some(name) => Some(Recipe::load(name, &strings(&setup["set"]))?),
        None => None,
    };
    let model = match &recipe {
        Some(recipe) => methods::model(&setup, recipe)?,
        None => random(&setup)?,
    };
    let mut stepper = if let Some(recipe) = &recipe {
        Stepper::of_recipe(&model, recipe)?
    } else {
        let rate =
            AdamWConfig { learning_rate: RATE, weight_decay: 0.01, ..AdamWConfig::default() };
        Stepper::new(&model, rate, 1.0, setup["checkpointing"].as_bool().unwrap_or(false))?
    };
    put_json(&json!({"trainable": stepper.n_parameters(), "start_kib": peak_kib()}))?;
    while let Some(question) = question()? {
        let start = Instant::now();
        let loss = if recipe.is_some() {
            methods::step(&mut stepper, &question)?
        } else {
            let ids: Vec<Vec<u32>> = serde_json::from_value(question["ids"].clone())
                .map_err(|error| Failure::new(format!("standard input: {error}")))?;
            stepper.step(&ids)?
        };
        let seconds = start.elapsed().as_secs_f64();
        put_json(&json!({"loss": loss, "seconds": seconds, "peak_kib": peak_kib()}))?;
    }
    Ok(())
}

/// A model of random weights.
fn random(setup: &Value) -> Outcome<Model> {
    let number = |key: &str| setup["config"][key].as_u64().unwrap_or_default() as usize;
    let config = ModelConfig::llama(
        number("vocab_size"),
        number("hidden_size"),
        number("num_hidden_layers"),
        number("num_attention_heads"),
        number("intermediate_size"),
        number("max_position_embeddings"),
    )?;
    let mut model = Model::random(&config, 1)?;
    if let Some(r) = setup["lora"]["r"].as_u64() {
        let mut lora = LoraConfig::new(r as usize, setup["lora"]["alpha"].as_f64().unwrap_or(1.0));
        lora.target_modules = TargetModules::List(TARGETS.map(str::to_owned).to_vec());
        model.attach_lora(&lora, 1)?;
    }
    Ok(model)
}

fn strings(values: &Value) -> Vec<String> {
    let values = values.as_array().into_iter().flatten();
    values.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Most memory this process has held, in KiB; none where the system does not say.
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
