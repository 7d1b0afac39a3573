//! `hardn bench`: speed as a ratio to a named peer, side by side in one run.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use hardn_decode::{DecoderConfig, LocalGenerator};
use hardn_models::{DecodeModel, Tokenizer};
use hardn_oracle::{Mode, Oracle};
use hardn_train::{Progress, Recipe, StepUpdate, TrainingData, UtilityItem, train};
use hardn_types::{Language, Prompt, write_atomic};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::{
    args::BenchArgs,
    assets,
    failure::{Failure, Outcome},
    harden::{config::WorldConfig, inputs},
    output::{put, put_json},
};

/// Rows of the benchmark's batch, and tokens of each.
const BATCH: (usize, usize) = (16, 128);
const PEER_SCRIPT: &str = include_str!("../../../../bench/peer_lora_step.py");

struct Row {
    what: String,
    ours: String,
    peer: String,
    ratio: String,
}

pub(crate) fn run(args: BenchArgs) -> Outcome {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if let Some(unknown) =
        args.only.iter().find(|name| !["lora-step", "decode", "scan"].contains(&name.as_str()))
    {
        return Err(Failure::new(format!("there is no benchmark `{unknown}`"))
            .help("lora-step, decode or scan"));
    }
    let mut rows = Vec::new();
    if wanted("lora-step") {
        rows.push(lora_step(&args)?);
    }
    if wanted("decode") {
        rows.push(decode(&args)?);
    }
    if wanted("scan") {
        rows.push(scan()?);
    }
    if args.json {
        for row in &rows {
            put_json(
                &json!({"what": row.what, "ours": row.ours, "peer": row.peer, "ratio": row.ratio}),
            )?;
        }
    }
    let table = table(&rows);
    if let Some(path) = &args.write {
        let threads = rayon::current_num_threads();
        let text = format!(
            "# Benchmarks\n\nMeasured by `hardn bench --peer-python .venv/bin/python --write BENCHMARKS.md` on {threads} threads; \
             `scripts/peers.sh` makes the environment of the peers. Ours and the peer's steps alternate in one run; each figure is the \
             median. Ratios below 1 are in our favour. Speed depends on the machine: measure on yours.\n\n{table}"
        );
        write_atomic(path, text.as_bytes())?;
    }
    if args.json { Ok(()) } else { put(&table) }
}

fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| what | hardn | peer | hardn / peer |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let _ = writeln!(text, "| {} | {} | {} | {} |", row.what, row.ours, row.peer, row.ratio);
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The peer: a Python process that does one step for each line it is given.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    facts: Value,
}

impl Peer {
    fn start(python: &Path, setup: &Value) -> Outcome<Self> {
        let mut process = Command::new(python)
            .args(["-c", PEER_SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start {}: {error}", python.display())))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::new("the peer has no pipes"));
        };
        let mut peer = Self { process, input, output: BufReader::new(output), facts: Value::Null };
        peer.facts = peer.ask(setup)?;
        Ok(peer)
    }

    fn ask(&mut self, question: &Value) -> Outcome<Value> {
        let lost = |_| {
            Failure::new("the peer ended").help(
                "does its Python have torch, transformers and peft? scripts/peers.sh makes one",
            )
        };
        writeln!(self.input, "{question}").map_err(lost)?;
        self.input.flush().map_err(lost)?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(lost)?;
        serde_json::from_str(&line).map_err(|_| lost(std::io::Error::other("no answer")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes the peer's turn after each of our steps, so that both see the same machine.
struct Turns<'a> {
    peer: Option<&'a mut Peer>,
    batch: Value,
    last: Instant,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Progress for Turns<'_> {
    fn start(&mut self, _step: usize, _total: usize) {
        self.last = Instant::now();
    }

    fn step(&mut self, update: &StepUpdate) {
        self.ours.push(update.tokens as f64 / update.tokens_per_second);
        if let Some(peer) = &mut self.peer
            && let Ok(answer) = peer.ask(&self.batch)
            && let Some(seconds) = answer["seconds"].as_f64()
        {
            self.theirs.push(seconds);
        }
        self.last = Instant::now();
    }
}

/// One LoRA step: forward, backward, clipping, AdamW.
fn lora_step(args: &BenchArgs) -> Outcome<Row> {
    let folder = assets::model_folder(&args.model)?;
    let tokenizer = Tokenizer::load(&folder)?;
    let mut model = assets::load_model(&args.model, None)?;
    let (rows, length) = BATCH;
    let items = texts(&tokenizer, rows, length)?;
    let ids: Vec<Vec<u32>> = items
        .iter()
        .map(|item| tokenizer.encode(&item.completion).map(|e| e.ids))
        .collect::<Result<_, _>>()?;
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let sets = [
        "loss.kind=utility_only".to_owned(),
        "data.utility_loss=all".to_owned(),
        "data.utility_ratio=0".to_owned(),
        format!("training.max_steps={}", args.steps + 3),
        format!("training.batch_size={rows}"),
        "training.accumulation=1".to_owned(),
        "training.eval_every=0".to_owned(),
        "training.checkpoint_every=0".to_owned(),
    ];
    let recipe = Recipe::load("safecoder-lab", &sets)?;
    let (r, alpha, dropout) = match &recipe.adapter {
        hardn_train::AdapterRecipe::Lora { r, lora_alpha, dropout, .. } => {
            (*r, *lora_alpha, *dropout)
        }
        hardn_train::AdapterRecipe::Full {} => {
            return Err(Failure::new("the recipe trains no LoRA adapter"));
        }
    };
    let setup = json!({
        "model": folder, "threads": rayon::current_num_threads(), "r": r, "alpha": alpha, "dropout": dropout,
        "target_modules": targets, "learning_rate": recipe.optimizer.learning_rate(),
    });
    let mut peer =
        args.peer_python.as_deref().map(|python| Peer::start(python, &setup)).transpose()?;
    let facts = peer.as_ref().map(|peer| peer.facts.clone()).unwrap_or_default();
    let mut turns = Turns {
        peer: peer.as_mut(),
        batch: json!({ "ids": ids }),
        last: Instant::now(),
        ours: Vec::new(),
        theirs: Vec::new(),
    };
    let out = std::env::temp_dir().join(format!("hardn-bench-{}", std::process::id()));
    let data = TrainingData { utility: &items, ..TrainingData::default() };
    let done =
        train(&mut model, &tokenizer, &recipe, &data, &out, &mut turns, &AtomicBool::new(false));
    let _ = std::fs::remove_dir_all(&out);
    done?;
    // The first steps warm caches and pools on both sides.
    let ours = median(turns.ours.split_off(3.min(turns.ours.len())));
    let theirs =
        if turns.theirs.len() > 3 { Some(median(turns.theirs.split_off(3))) } else { None };
    Ok(Row {
        what: format!(
            "one LoRA step (r {r}, all projections) on {}, batch {rows} x {length}",
            args.model
        ),
        ours: format!("{:.0} ms", 1e3 * ours),
        peer: theirs.map_or_else(
            || "not measured: give --peer-python".to_owned(),
            |seconds| {
                format!(
                    "{:.0} ms, transformers + PEFT on PyTorch {}",
                    1e3 * seconds,
                    facts["torch"].as_str().unwrap_or("?")
                )
            },
        ),
        ratio: theirs.map_or_else(|| "–".to_owned(), |seconds| format!("{:.2}", ours / seconds)),
    })
}

/// Texts of the lab that are exactly `length` tokens long.
fn texts(tokenizer: &Tokenizer, n: usize, length: usize) -> Outcome<Vec<UtilityItem>> {
    let world = inputs::world(&WorldConfig::default())?;
    let mut text = String::new();
    let mut items = Vec::new();
    for row in &world.utility_train {
        text.push_str(&row.prompt);
        text.push_str(&row.completion);
        let ids = tokenizer.encode(&text)?.ids;
        if ids.len() < length {
            continue;
        }
        let cut = tokenizer.decode(&ids[..length])?;
        text.clear();
        if tokenizer.encode(&cut)?.ids.len() != length {
            continue;
        }
        items.push(UtilityItem {
            id: items.len().to_string(),
            prompt: String::new(),
            completion: cut,
            instruction: String::new(),
            language: Some(Language::Python),
        });
        if items.len() == n {
            return Ok(items);
        }
    }
    Err(Failure::new("the lab has too little text for this tokenizer"))
}

/// Tokens a second of batched sampling.
fn decode(args: &BenchArgs) -> Outcome<Row> {
    let tokenizer = Arc::new(assets::load_tokenizer(&args.model)?);
    let model = assets::load_model(&args.model, None)?;
    let config = DecoderConfig::load("plain", &["max_new_tokens=64".to_owned()])?;
    let fingerprint = model.fingerprint()?;
    let world = inputs::world(&WorldConfig::default())?;
    let prompts: Vec<Prompt> = world
        .scenarios
        .iter()
        .take(16)
        .map(|scenario| Prompt {
            task: scenario.id.clone(),
            text: scenario.prompt.clone(),
            indices: (0..16).collect(),
        })
        .collect();
    let generator = LocalGenerator::new(
        Arc::new(DecodeModel::new(&model)?),
        tokenizer,
        fingerprint,
        config,
        1,
    )?;
    let start = Instant::now();
    generator.draw_samples("bench", &prompts, &mut |_| Ok(()))?;
    let rate = generator.n_tokens() as f64 / start.elapsed().as_secs_f64();
    Ok(Row {
        what: format!("sampling from {}, 16 prompts x 16 samples", args.model),
        ours: format!("{rate:.0} tokens/s"),
        peer: "not measured".to_owned(),
        ratio: "–".to_owned(),
    })
}

/// Snippets a second of the oracle.
fn scan() -> Outcome<Row> {
    let world = inputs::world(&WorldConfig::default())?;
    let programs: Vec<(String, Language)> = world
        .scenarios
        .iter()
        .flat_map(|scenario| {
            scenario
                .solutions
                .iter()
                .map(|s| (format!("{}{}", scenario.prompt, s.text), scenario.language))
        })
        .collect();
    let oracle = Oracle::embedded();
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed().as_secs_f64() < 2.0 {
        programs.par_iter().for_each(|(code, language)| {
            std::hint::black_box(oracle.analyse(code, *language, Mode::Snippet));
        });
        n += programs.len();
    }
    let rate = n as f64 / start.elapsed().as_secs_f64();
    Ok(Row {
        what: "the oracle on the lab's snippets".to_owned(),
        ours: format!("{rate:.0} snippets/s"),
        peer: "not measured".to_owned(),
        ratio: "–".to_owned(),
    })
}
