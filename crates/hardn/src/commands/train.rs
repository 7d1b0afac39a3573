//! `hardn train`: one training by a recipe.

use std::{fmt::Write as _, fs, path::Path, sync::Arc};

use hardn_models::{BaseWeights, GenerationConfig, Tokenizer};
use hardn_train::{Counts, Estimate, Precision, Recipe, TrainingData, estimate};
use hardn_types::Training;
use indicatif::{HumanBytes, HumanDuration};
use serde_json::json;

use crate::{
    args::TrainArgs,
    assets::{load_model_as, model_folder},
    failure::{Context, Failure, Outcome},
    harden::{
        config::{Controls, EvalConfig, RunConfig, TrainConfig, WorldConfig},
        inputs::{self, Inputs},
        scoring::ValidationSuite,
        training::{Data, Request, split_utility, train_arm},
    },
    output::{put, put_json, say},
};

/// What a training leaves in its folder.
const FILES: [&str; 12] = [
    "recipe.json",
    "events.jsonl",
    "timings.jsonl",
    "curve.csv",
    "training.json",
    "tensorboard",
    "checkpoints",
    "adapter",
    "model",
    ".writing-adapter",
    ".writing-model",
    ".lock",
];

pub(crate) fn run(args: TrainArgs, quiet: bool) -> Outcome {
    let mut recipe = Recipe::load(&args.recipe, &args.set)?;
    let weights = base_weights(&args, &mut recipe)?;
    let out = args.out.clone().unwrap_or_default();
    let is_finished = !args.dry_run && look_at_folder(&out, args.resume)?;
    let config = config(&args);
    let inputs = inputs::read(&config, &recipe.data.columns)?;
    for note in &inputs.notes {
        say(&format!("note: {note}"));
    }
    let folder = model_folder(&args.model)?;
    let tokenizer = Arc::new(Tokenizer::load(&folder)?);
    let base = load_model_as(&args.model, None, weights)?;
    let ends = GenerationConfig::load(&folder)?.end_tokens(None, &tokenizer);
    let suite = ValidationSuite::new(&config, &inputs, &recipe, &tokenizer, &ends)?;
    if args.dry_run {
        return dry_run(base, &tokenizer, &recipe, &inputs, args.json);
    }
    if args.fresh {
        throw_away(&out)?;
    }
    let (_, trained) = train_arm(&Request {
        base: &base,
        tokenizer: &tokenizer,
        recipe: &recipe,
        inputs: &inputs,
        validation: suite.as_ref(),
        data: Data::AsGiven,
        seed: 1,
        folder: &out,
        name: "training",
        quiet,
    })?;
    if is_finished && !args.fresh {
        say(&format!(
            "note: the training in {} was finished already, nothing was done; --fresh begins it anew",
            out.display()
        ));
    }
    let record = trained.record("training");
    if args.json {
        return put_json(&record);
    }
    put(&render(&record))?;
    put(&format!("{}\n", out.display()))
}

/// In which form the base is loaded: as the command line says, or as the recipe's precision asks.
fn base_weights(args: &TrainArgs, recipe: &mut Recipe) -> Outcome<BaseWeights> {
    const BF16: BaseWeights = BaseWeights::Float(candle_core::DType::BF16);
    match args.base_weights {
        None if recipe.training.precision == Precision::Bf16 => Ok(BF16),
        None => Ok(BaseWeights::Float(candle_core::DType::F32)),
        Some(weights) => {
            if weights == BF16 {
                recipe.set("training.precision=bf16")?;
            }
            Ok(weights)
        }
    }
}

/// Whether the folder holds a finished training; an error where what it holds does not fit what is asked.
fn look_at_folder(out: &Path, resume: bool) -> Outcome<bool> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let has_checkpoint =
        entries(&out.join("checkpoints")).any(|entry| name(entry).starts_with("step-"));
    if resume && !has_checkpoint {
        return Err(Failure::new(format!("{} holds no checkpoint to go on from", out.display()))
            .help("leave --resume out to begin a training there"));
    }
    let foreign = entries(out).map(name).find(|name| !FILES.contains(&name.as_str()));
    if let Some(foreign) = foreign.filter(|_| !out.join("recipe.json").exists()) {
        return Err(Failure::new(format!(
            "{} is not empty and holds no training: it has `{foreign}`",
            out.display()
        ))
        .help("choose another folder with --out"));
    }
    Ok(out.join("training.json").exists())
}

/// Removes the training in a folder, and nothing else there.
fn throw_away(out: &Path) -> Outcome {
    // The lock of a training that runs there.
    let lock = fs::File::open(out.join(".lock"));
    if lock.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))) {
        return Err(Failure::new(format!("{} is in use by another process", out.display()))
            .help("wait for it, or choose another folder with --out"));
    }
    let steps = hardn_train::read_events(out).last().map_or(0, hardn_train::Event::step);
    if out.join("recipe.json").exists() {
        say(&format!("throwing away the training of {steps} steps in {}", out.display()));
    }
    for name in FILES {
        let path = out.join(name);
        let removed = match fs::symlink_metadata(&path) {
            Err(_) => continue,
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
        };
        removed.context(format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn config(args: &TrainArgs) -> RunConfig {
    let defaults = TrainConfig::new(&args.recipe);
    RunConfig {
        title: None,
        model: args.model.clone(),
        seed: 1,
        out: None,
        world: args.world.as_ref().map(|path| WorldConfig {
            path: path.clone(),
            seed: Some(args.world_seed),
            idioms: args.idioms.clone(),
        }),
        train: Some(TrainConfig {
            pairs: args.pairs.clone(),
            validation_pairs: args.validation_pairs.clone(),
            utility: args.utility.clone(),
            validation_suites: args.validation_suite.clone(),
            validation_scenarios: args
                .validation_scenarios
                .unwrap_or(defaults.validation_scenarios),
            validation_samples: args.validation_samples.unwrap_or(defaults.validation_samples),
            ..defaults
        }),
        improve: None,
        eval: EvalConfig::default(),
        decoding: Vec::new(),
        controls: Controls::default(),
    }
}

/// What the training would take.
fn dry_run(
    mut base: hardn_models::Model,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    inputs: &Inputs,
    json: bool,
) -> Outcome {
    let (utility, validation_utility) = split_utility(&inputs.utility);
    let data = TrainingData {
        pairs: &inputs.pairs,
        utility: &utility,
        validation_pairs: &inputs.validation_pairs,
        validation_utility: &validation_utility,
    };
    let found = estimate(&mut base, tokenizer, recipe, &data)?;
    if json {
        return put_json(&json!({"recipe": recipe.to_json(), "estimate": found}));
    }
    put(&render_estimate(&found))
}

fn render_estimate(found: &Estimate) -> String {
    let mut text = String::new();
    for (split, counts) in [("train", &found.train), ("val", &found.validation)] {
        let Counts { kept, dropped } = counts;
        for (title, counts) in [("kept", kept), ("dropped", dropped)] {
            for (name, n) in counts {
                let _ = writeln!(text, "{title:>8} {n:>6}  {split} {name}");
            }
        }
    }
    let duration = HumanDuration(std::time::Duration::from_secs_f64(found.seconds));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<22} {value}");
    };
    line("trained values", found.n_parameters.to_string());
    line("steps", found.n_steps.to_string());
    line("tokens", found.n_tokens.to_string());
    line("validations", found.n_validations.to_string());
    line("time of a step", format!("{:.3} s, measured", found.seconds_per_step));
    line("time", format!("about {duration}, without sampling on suites"));
    if found.memory_bytes > 0 {
        line(
            "memory",
            format!("about {}, measured on the largest step", HumanBytes(found.memory_bytes)),
        );
    }
    text
}

fn render(record: &Training) -> String {
    let mut text = String::new();
    for (title, counts) in [("kept", &record.kept), ("dropped", &record.dropped)] {
        for (name, n) in counts {
            let _ = writeln!(text, "{title:>8} {n:>6}  {name}");
        }
    }
    text
}
