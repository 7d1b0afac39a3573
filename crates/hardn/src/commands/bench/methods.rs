//! Steps of SafeCoder and of SVEN beside PyTorch: the same loss on the same model, with its recipe's adapter.

use std::path::{Path, PathBuf};

use hardn_models::{Model, ModelConfig, SaveDtype, Tokenizer};
use hardn_train::{AdapterRecipe, Example, ExampleKind, Recipe, Stepper, attach_adapters};
use serde_json::{Value, json};

use super::{
    Row,
    sides::{Sides, WARM},
    train::TARGETS,
};
use crate::{
    args::BenchArgs,
    assets,
    failure::{Failure, Outcome},
    harden::{config::WorldConfig, inputs},
};

const SCRIPT: &str = include_str!("../../../../../bench/peer_method_step.py");

/// What is trained, and on how much at a time.
struct Shape {
    name: &'static str,
    /// Vocabulary, hidden size, layers, heads and inner size of random weights; none: a lab model.
    sizes: Option<[usize; 5]>,
    rows: usize,
    length: usize,
    most_steps: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "lab-1m", sizes: None, rows: 16, length: 128, most_steps: 12 },
    Shape { name: "lab-4m", sizes: None, rows: 16, length: 128, most_steps: 8 },
    Shape {
        name: "Llama 100M",
        sizes: Some([16_384, 768, 12, 12, 2048]),
        rows: 4,
        length: 256,
        most_steps: 4,
    },
];

/// A method's name in recipes, and the kinds of a batch's rows, in turn.
struct Method {
    name: &'static str,
    title: &'static str,
    kinds: &'static [ExampleKind],
}

const SAFECODER: Method = Method {
    name: "safecoder",
    title: "SafeCoder step (LoRA r 16, all projections)",
    kinds: &[
        ExampleKind::Utility,
        ExampleKind::Secure,
        ExampleKind::Utility,
        ExampleKind::Vulnerable,
    ],
};

const SVEN: Method = Method {
    name: "sven",
    title: "SVEN step (two prefixes of 5)",
    kinds: &[ExampleKind::Secure, ExampleKind::Vulnerable],
};

/// SafeCoder's three kinds of samples: likelihood, masked likelihood and unlikelihood, on LoRA.
pub(super) fn safecoder_steps(args: &BenchArgs) -> Outcome<Vec<Row>> {
    steps(args, &SAFECODER)
}

/// SVEN's likelihood, contrast and divergences of two prefixes.
pub(super) fn sven_steps(args: &BenchArgs) -> Outcome<Vec<Row>> {
    steps(args, &SVEN)
}

fn steps(args: &BenchArgs, method: &Method) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for shape in &SHAPES {
        let made = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("cannot make a folder: {error}")))?;
        let folder = shape.folder(made.path())?;
        let tokens = shape.tokens(&folder)?;
        for checkpointing in [false, true] {
            rows.extend(measure(args, method, shape, &folder, &tokens, checkpointing)?);
        }
    }
    Ok(rows)
}

fn measure(
    args: &BenchArgs,
    method: &Method,
    shape: &Shape,
    folder: &Path,
    tokens: &[u32],
    checkpointing: bool,
) -> Outcome<Vec<Row>> {
    let name = format!("lab/{}", method.name);
    let set = [format!("training.gradient_checkpointing={checkpointing}")];
    let recipe = Recipe::load(&name, &set)?;
    let (weights, adamw) = (recipe.loss.weights, recipe.optimizer.adamw());
    let mut setup = json!({
        "recipe": name, "set": set, "model": folder, "method": method.name, "checkpointing": checkpointing,
        "threads": rayon::current_num_threads(), "learning_rate": adamw.learning_rate,
        "weight_decay": adamw.weight_decay,
        "loss": {
            "utility": weights.utility, "secure": weights.secure, "unlikelihood": weights.unlikelihood,
            "contrastive": recipe.loss.contrastive_weight, "kl": recipe.loss.kl_weight,
        },
    });
    match recipe.adapter {
        AdapterRecipe::Lora { r, lora_alpha, dropout, .. } => {
            setup["lora"] =
                json!({"r": r, "alpha": lora_alpha, "dropout": dropout, "target_modules": TARGETS});
        }
        AdapterRecipe::Prefix { num_virtual_tokens, dropout, .. } => {
            setup["prefix"] = json!({"tokens": num_virtual_tokens, "dropout": dropout});
        }
        _ => return Err(Failure::new(format!("the recipe `{name}` trains another adapter"))),
    }
    let checkpointed = if checkpointing { ", gradient checkpointing" } else { "" };
    let what = format!(
        "{}, {}, batch {} x {}{checkpointed}",
        method.title, shape.name, shape.rows, shape.length
    );
    let mut sides = Sides::start(args, SCRIPT, &setup)?;
    for step in 0..args.steps.min(shape.most_steps) + WARM {
        sides.step(&shape.batch(method, tokens, step))?;
        if step == 0 {
            // Adapters do nothing yet, or the same on both sides; later steps have dropout of their own.
            sides.agree(&what)?;
        }
    }
    Ok(sides.rows(&what))
}

impl Shape {
    /// A checkpoint that both sides load.
    fn folder(&self, made: &Path) -> Outcome<PathBuf> {
        let Some([vocab, hidden, layers, heads, inner]) = self.sizes else {
            return assets::model_folder(self.name);
        };
        let config = ModelConfig::llama(vocab, hidden, layers, heads, inner, 1024)?;
        Model::random(&config, 1)?.save(made, SaveDtype::F32)?;
        Ok(made.to_owned())
    }

    /// Text of the lab, or, for a model that has learnt nothing, any tokens.
    fn tokens(&self, folder: &Path) -> Outcome<Vec<u32>> {
        if let Some([vocab, ..]) = self.sizes {
            return Ok((0..1 << 16).map(|i| (i * 7919 % vocab) as u32).collect());
        }
        let tokenizer = Tokenizer::load(folder)?;
        let mut tokens = Vec::new();
        for row in inputs::world(&WorldConfig::default())?.utility_train.iter().take(400) {
            tokens.extend(tokenizer.encode(&format!("{}{}", row.prompt, row.completion))?.ids);
        }
        Ok(tokens)
    }

    /// Of utility rows all but the first quarter is learnt, of the others an eighth in two places.
    fn batch(&self, method: &Method, tokens: &[u32], step: usize) -> Value {
        let place =
            |row: usize| (step * self.rows + row) * self.length % (tokens.len() - self.length);
        let kinds: Vec<ExampleKind> =
            method.kinds.iter().copied().cycle().take(self.rows).collect();
        let ids: Vec<&[u32]> =
            (0..self.rows).map(|row| &tokens[place(row)..][..self.length]).collect();
        let is_learnt = |kind: &ExampleKind, t: usize| match kind {
            ExampleKind::Utility => t >= self.length / 4,
            _ => t % (self.length / 2) >= self.length * 7 / 16,
        };
        let of_row =
            |kind| -> Vec<u8> { (0..self.length).map(|t| u8::from(is_learnt(kind, t))).collect() };
        let selected: Vec<Vec<u8>> = kinds.iter().map(of_row).collect();
        json!({"ids": ids, "selected": selected, "kinds": kinds})
    }
}

/// Our side's model, for a `setup` that names a recipe.
pub(super) fn model(setup: &Value, recipe: &Recipe) -> Outcome<Model> {
    let folder = setup["model"].as_str().unwrap_or_default();
    let mut model = assets::load_model(folder, None)?;
    attach_adapters(&mut model, recipe)?;
    Ok(model)
}

/// One step of our side.
pub(super) fn step(stepper: &mut Stepper, question: &Value) -> Outcome<f64> {
    let part = |key: &str| question[key].clone();
    let malformed = |error| Failure::new(format!("standard input: {error}"));
    let ids: Vec<Vec<u32>> = serde_json::from_value(part("ids")).map_err(malformed)?;
    let selected: Vec<Vec<u8>> = serde_json::from_value(part("selected")).map_err(malformed)?;
    let kinds: Vec<ExampleKind> = serde_json::from_value(part("kinds")).map_err(malformed)?;
    let mut examples = Vec::with_capacity(ids.len());
    for (i, ((ids, selected), kind)) in ids.into_iter().zip(selected).zip(kinds).enumerate() {
        examples.push(Example { id: i.to_string(), kind, ids, selected });
    }
    Ok(stepper.step_on(&examples)?)
}
