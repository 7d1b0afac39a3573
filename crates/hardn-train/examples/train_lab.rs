//! Trains on a generated world: `train_lab RECIPE MODEL WORLD OUT [key=value ...]`.
//!
//! `hardn train` does the same with progress bars; this is the library's own, shortest way.

use std::{env, error::Error, path::Path, sync::atomic::AtomicBool};

use candle_core::Device;
use hardn_code::read_pairs_strict;
use hardn_models::{Model, Tokenizer};
use hardn_train::{Progress, Recipe, StepUpdate, TrainingData, preference, read_utility, train};
use hardn_types::FixPair;

struct Lines;

#[expect(clippy::print_stderr, reason = "an example may print")]
impl Progress for Lines {
    fn step(&mut self, update: &StepUpdate) {
        if update.step.is_multiple_of(10) {
            eprintln!(
                "{}/{} loss {:.4} {:.0} tokens/s",
                update.step, update.total, update.loss, update.tokens_per_second
            );
        }
    }

    fn validation(&mut self, step: usize, losses: &std::collections::BTreeMap<String, f64>) {
        eprintln!("{step} validation {losses:?}");
    }
}

/// Share of pairs whose changed tokens are likelier in the secure version.
fn preferred(
    model: &Model,
    tokenizer: &Tokenizer,
    pairs: &[FixPair],
) -> Result<f64, Box<dyn Error>> {
    let (mut n, mut n_secure) = (0, 0);
    for pair in pairs {
        if let Some(secure) = preference(model, tokenizer, pair)?
            .ok()
            .and_then(|preference| preference.prefers_secure())
        {
            n += 1;
            n_secure += usize::from(secure);
        }
    }
    Ok(f64::from(n_secure as u32) / f64::from(n.max(1)))
}

#[expect(clippy::print_stderr, reason = "an example may print")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [recipe, model, world, out, assignments @ ..] = arguments.as_slice() else {
        return Err("usage: train_lab RECIPE MODEL WORLD OUT [key=value ...]".into());
    };
    let recipe = Recipe::load(recipe, assignments)?;
    let (model_dir, world) = (Path::new(model), Path::new(world));
    let mut model = Model::load(model_dir, &Device::Cpu)?;
    let tokenizer = Tokenizer::load(model_dir)?;
    let pairs = read_pairs_strict(&world.join("pairs.train.jsonl"))?;
    let validation_pairs = read_pairs_strict(&world.join("pairs.val.jsonl"))?;
    let utility = read_utility(&world.join("utility.train.jsonl"))?;
    let (validation_utility, utility) = utility.split_at(utility.len() / 20);
    let data = TrainingData {
        pairs: &pairs,
        utility,
        validation_pairs: &validation_pairs,
        validation_utility,
    };
    eprintln!("preference before {:.3}", preferred(&model, &tokenizer, &validation_pairs)?);
    let stop = AtomicBool::new(false);
    let trained = train(&mut model, &tokenizer, &recipe, &data, Path::new(out), &mut Lines, &stop)?;
    eprintln!("{:?} {:?}", trained.train_counts, trained.outcome.ended);
    eprintln!("preference after {:.3}", preferred(&model, &tokenizer, &validation_pairs)?);
    Ok(())
}
