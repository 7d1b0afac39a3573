//! Training an arm, with its progress shown.

use std::{collections::BTreeMap, path::Path};

use hardn_models::{Model, Tokenizer};
use hardn_train::{
    AdapterRecipe, Ended, Progress as TrainProgress, Recipe, StepUpdate, Trained, TrainingData,
    UtilityItem, train,
};
use hardn_types::FixPair;

use super::inputs::Inputs;
use crate::{
    failure::{Context, Failure, Outcome},
    output::Progress,
    stop,
};

/// Shows a training's progress: loss, rate, tokens a second, time left.
pub(crate) struct Bar {
    name: &'static str,
    quiet: bool,
    progress: Option<Progress>,
    validation: String,
    tokens: f64,
    seconds: f64,
}

impl Bar {
    pub(crate) fn new(name: &'static str, quiet: bool) -> Self {
        Self { name, quiet, progress: None, validation: String::new(), tokens: 0.0, seconds: 0.0 }
    }

    pub(crate) fn finish(self, message: &str) {
        if let Some(progress) = self.progress {
            progress.finish(message);
        }
    }
}

impl TrainProgress for Bar {
    fn start(&mut self, step: usize, total: usize) {
        let mut progress = Progress::new(self.name, "steps", total as u64, self.quiet);
        progress.start_at(step as u64);
        self.progress = Some(progress);
    }

    fn step(&mut self, update: &StepUpdate) {
        self.tokens += update.tokens as f64;
        self.seconds += update.tokens as f64 / update.tokens_per_second.max(1e-9);
        let rate = self.tokens / self.seconds.max(1e-9);
        if let Some(progress) = &mut self.progress {
            let message = format!("loss {:.3}{} {rate:.0} tokens/s", update.loss, self.validation);
            progress.set(update.step as u64, &message);
        }
    }

    fn validation(&mut self, _step: usize, losses: &BTreeMap<String, f64>) {
        if let Some(loss) = losses.get("all") {
            self.validation = format!(", validation {loss:.3},");
        }
    }
}

/// Which data an arm is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// The pairs as they are.
    AsGiven,
    /// The two sides of a seeded half of the pairs swapped.
    ShuffledLabels,
}

/// What an arm's training needs.
pub(crate) struct Request<'a> {
    pub(crate) base: &'a Model,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) recipe: &'a Recipe,
    pub(crate) inputs: &'a Inputs,
    pub(crate) data: Data,
    pub(crate) seed: u64,
    pub(crate) folder: &'a Path,
    pub(crate) name: &'static str,
    pub(crate) quiet: bool,
}

/// Trains an arm from the base model, or takes up what is in its folder.
pub(crate) fn train_arm(request: &Request<'_>) -> Outcome<(Model, Trained)> {
    let Request { base, tokenizer, recipe, inputs, data, seed, folder, name, quiet } = *request;
    let (pairs, validation): (Vec<FixPair>, Vec<FixPair>) = match data {
        Data::AsGiven => (inputs.pairs.clone(), inputs.validation_pairs.clone()),
        Data::ShuffledLabels => (
            hardn_train::shuffle_labels(&inputs.pairs, seed).0,
            hardn_train::shuffle_labels(&inputs.validation_pairs, seed).0,
        ),
    };
    let (utility, validation_utility) = split_utility(&inputs.utility);
    let data = TrainingData {
        pairs: &pairs,
        utility: &utility,
        validation_pairs: &validation,
        validation_utility: &validation_utility,
    };
    // An adapter leaves the base as it is; training all weights needs weights of its own.
    let mut model = match recipe.adapter {
        AdapterRecipe::Full {} => base.merged()?,
        _ => base.sharing_weights(),
    };
    let mut bar = Bar::new(name, quiet);
    let trained = train(&mut model, tokenizer, recipe, &data, folder, &mut bar, &stop::flag())
        .map_err(Failure::from)
        .context(format!("training `{name}`"))?;
    if let Ended::Interrupted { step } = trained.outcome.ended {
        return Err(Failure::interrupted(format!(
            "saved after step {step}; run the same command to go on"
        )));
    }
    bar.finish(&format!("{} steps", trained.outcome.steps));
    Ok((model, trained))
}

/// One utility item in twenty is held out for validation.
fn split_utility(items: &[UtilityItem]) -> (Vec<UtilityItem>, Vec<UtilityItem>) {
    let held = |i: usize| i % 20 == 19;
    let part = |wanted: bool| {
        let items = items.iter().enumerate().filter(|(i, _)| held(*i) == wanted);
        items.map(|(_, item)| item.clone()).collect()
    };
    (part(false), part(true))
}
