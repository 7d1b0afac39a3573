//! One training step beside PyTorch + PEFT.

use std::{process::Command, sync::atomic::AtomicBool, time::Instant};

use hardn_models::Tokenizer;
use hardn_train::{Progress, Recipe, StepUpdate, TrainingData, UtilityItem, train};
use hardn_types::Language;
use serde_json::{Value, json};

use super::{
    Row, median,
    peer::{Peer, TRAIN_STEP},
};
use crate::{
    args::BenchArgs,
    assets,
    failure::{Failure, Outcome},
    harden::{config::WorldConfig, inputs},
};

/// Rows of the benchmark's batch, and tokens of each.
const BATCH: (usize, usize) = (16, 128);

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
pub(super) fn lora_step(args: &BenchArgs) -> Outcome<Row> {
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
        _ => {
            return Err(Failure::new("the recipe trains no LoRA adapter"));
        }
    };
    let setup = json!({
        "model": folder, "threads": rayon::current_num_threads(), "learning_rate": recipe.optimizer.learning_rate(),
        "lora": {"r": r, "alpha": alpha, "dropout": dropout, "target_modules": targets},
    });
    let peer = args.peer_python.as_deref().map(|python| {
        let mut command = Command::new(python);
        command.args(["-c", TRAIN_STEP]);
        Peer::start(command, &setup)
    });
    let mut peer = peer.transpose()?;
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
            completion: cut,
            language: Some(Language::Python),
            ..UtilityItem::default()
        });
        if items.len() == n {
            return Ok(items);
        }
    }
    Err(Failure::new("the lab has too little text for this tokenizer"))
}
