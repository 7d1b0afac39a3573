//! Training steps of synthetic sizes beside PyTorch: time and memory, each side in a process of its own.

use std::{
    fs,
    io::{BufRead, stdin},
    process::Command,
    time::Instant,
};

use hardn_models::{LoraConfig, Model, ModelConfig, TargetModules};
use hardn_train::{AdamWConfig, Stepper};
use serde_json::{Value, json};

use super::{
    Row, median,
    peer::{Peer, TRAIN_STEP},
};
use crate::{
    args::BenchArgs,
    failure::{Failure, Outcome},
    output::put_json,
};

/// Rows of a batch, and tokens of each.
const BATCH: (usize, usize) = (8, 256);
/// Steps that warm caches and pools on both sides.
const WARM: usize = 2;
const RATE: f64 = 3e-4;
const TARGETS: [&str; 7] =
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
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(own);
    command.args(["bench", "--worker"]);
    let mut ours = Peer::start(command, &setup)?;
    let theirs = args.peer_python.as_deref().map(|python| {
        let mut command = Command::new(python);
        command.args(["-c", TRAIN_STEP]);
        Peer::start(command, &setup)
    });
    let mut theirs = theirs.transpose()?;
    let mut taken = [Vec::new(), Vec::new()];
    let mut peaks = [f64::NAN; 2];
    for step in 0..args.steps + WARM {
        let ids: Vec<Vec<usize>> = (0..BATCH.0)
            .map(|row| (0..BATCH.1).map(|i| (step * 31 + row * 17 + i * 7919) % vocab).collect())
            .collect();
        let question = json!({ "ids": ids });
        for (i, side) in [Some(&mut ours), theirs.as_mut()].into_iter().enumerate() {
            let Some(side) = side else { continue };
            let answer = side.ask(&question)?;
            peaks[i] = answer["peak_kib"].as_f64().unwrap_or(f64::NAN) / 1024.0;
            if step >= WARM {
                taken[i].push(answer["seconds"].as_f64().unwrap_or(f64::NAN));
            }
        }
    }
    let torch = theirs.as_ref().and_then(|peer| peer.facts["torch"].as_str()).unwrap_or("?");
    let kind = if with_lora { "LoRA step (r 8, all projections)" } else { "full step" };
    let what = format!("{kind}, Llama {name}, batch {} x {}", BATCH.0, BATCH.1);
    let row = |what: String, [ours, peer]: [f64; 2], unit: &str| Row {
        what,
        ours: format!("{ours:.0} {unit}"),
        peer: if peer.is_nan() {
            "not measured: give --peer-python".to_owned()
        } else {
            format!("{peer:.0} {unit}, PyTorch {torch}")
        },
        ratio: if peer.is_nan() { "–".to_owned() } else { format!("{:.2}", ours / peer) },
    };
    let times = taken.map(|seconds| 1e3 * median(seconds));
    Ok(vec![row(what.clone(), times, "ms"), row(format!("{what}: peak memory"), peaks, "MiB")])
}

/// Our side: answers the lines of [`Peer`].
pub(super) fn worker() -> Outcome {
    let mut lines = stdin().lock().lines();
    let mut question = || -> Outcome<Option<Value>> {
        let Some(line) = lines.next() else { return Ok(None) };
        let line = line.map_err(|error| Failure::new(format!("standard input: {error}")))?;
        let value = serde_json::from_str(&line);
        value.map(Some).map_err(|error| Failure::new(format!("standard input: {error}")))
    };
    let Some(setup) = question()? else { return Ok(()) };
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
    let rate = AdamWConfig { learning_rate: RATE, weight_decay: 0.01, ..AdamWConfig::default() };
    let checkpointing = setup["checkpointing"].as_bool().unwrap_or(false);
    let mut stepper = Stepper::new(&model, rate, 1.0, checkpointing)?;
    put_json(&json!({"trainable": stepper.n_parameters(), "start_kib": peak_kib()}))?;
    while let Some(question) = question()? {
        let ids: Vec<Vec<u32>> = serde_json::from_value(question["ids"].clone())
            .map_err(|error| Failure::new(format!("standard input: {error}")))?;
        let start = Instant::now();
        let loss = stepper.step(&ids)?;
        let seconds = start.elapsed().as_secs_f64();
        put_json(&json!({"loss": loss, "seconds": seconds, "peak_kib": peak_kib()}))?;
    }
    Ok(())
}

/// Most memory this process has held, in KiB; none where the system does not say.
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
