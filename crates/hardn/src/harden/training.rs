//! Training an arm, with its progress shown.

use std::{collections::BTreeMap, path::Path};

use hardn_models::{Model, Tokenizer};
use hardn_train::{
    AdapterRecipe, Ended, LossKind, Progress as TrainProgress, Recipe, StepUpdate, Trained,
    TrainingData, UtilityItem, memory_used, train,
};
use hardn_types::{BoxError, FixPair};

use super::{inputs::Inputs, scoring::ValidationSuite, stopped_or};
use crate::{
    failure::{Failure, Outcome},
    output::Progress,
    stop,
};

/// Shows a training's progress (loss, rate, tokens a second, time left, memory), and scores the model where it can.
pub(crate) struct Bar<'a> {
    name: &'a str,
    suite: Option<&'a ValidationSuite>,
    quiet: bool,
    progress: Option<Progress>,
    validation: String,
    tokens: f64,
    seconds: f64,
}

impl<'a> Bar<'a> {
    pub(crate) fn new(name: &'a str, quiet: bool, suite: Option<&'a ValidationSuite>) -> Self {
        let validation = String::new();
        Self { name, suite, quiet, progress: None, validation, tokens: 0.0, seconds: 0.0 }
    }

    pub(crate) fn finish(self, message: &str) {
        if let Some(progress) = self.progress {
            progress.finish(message);
        }
    }
}

impl TrainProgress for Bar<'_> {
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
            let memory = memory_used()
                .map_or_else(String::new, |(now, _)| format!(", {:.0} MB", now as f64 / 1e6));
            let (loss, validation) = (update.loss, &self.validation);
            let message = format!(
                "loss {loss:.3}{validation}, rate {:.2e}, {rate:.0} tokens/s{memory}",
                update.learning_rate
            );
            progress.set(update.step as u64, &message);
        }
    }

    fn validation(&mut self, _step: usize, losses: &BTreeMap<String, f64>) {
        if let Some(loss) = losses.get("all") {
            self.validation = format!(", validation {loss:.3}");
        }
    }

    fn score(&mut self, model: &Model, _step: usize) -> Result<BTreeMap<String, f64>, BoxError> {
        self.suite.map_or_else(|| Ok(BTreeMap::new()), |suite| suite.score(model))
    }

    fn scored(&mut self, step: usize, scores: &BTreeMap<String, f64>) {
        if let Some(progress) = self.progress.as_ref().filter(|_| !self.quiet && !scores.is_empty())
        {
            let shares =
                scores.iter().map(|(name, share)| format!("{name} {:.1} %", 100.0 * share));
            let shares = shares.collect::<Vec<_>>().join(", ");
            progress.note(&format!("{}, step {step}: {shares}", self.name));
        }
    }

    fn suite(&self) -> Option<String> {
        self.suite.map(|suite| suite.digest().to_owned())
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
    /// What the model is scored on at every validation.
    pub(crate) validation: Option<&'a ValidationSuite>,
    pub(crate) data: Data,
    pub(crate) seed: u64,
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) quiet: bool,
}

/// Trains an arm from the base model, or takes up what is in its folder.
pub(crate) fn train_arm(request: &Request<'_>) -> Outcome<(Model, Trained)> {
    let Request { base, tokenizer, recipe, inputs, data, seed, folder, name, quiet, .. } = *request;
    let (pairs, validation_pairs): (Vec<FixPair>, Vec<FixPair>) = match data {
        Data::AsGiven => (inputs.pairs.clone(), inputs.validation_pairs.clone()),
        Data::ShuffledLabels => (
            hardn_train::shuffle_labels(&inputs.pairs, seed).0,
            hardn_train::shuffle_labels(&inputs.validation_pairs, seed).0,
        ),
    };
    let (mut utility, validation_utility) = split_utility(&inputs.utility);
    if recipe.loss.kind != LossKind::UtilityOnly {
        utility.extend_from_slice(&inputs.own_secure);
    }
    let data = TrainingData {
        pairs: &pairs,
        utility: &utility,
        validation_pairs: &validation_pairs,
        validation_utility: &validation_utility,
    };
    // An adapter leaves the base as it is; training all weights needs weights of its own.
    let mut model = match recipe.adapter {
        AdapterRecipe::Full {} => base.merged()?,
        _ => base.sharing_weights(),
    };
    let mut bar = Bar::new(name, quiet, request.validation);
    let trained = train(&mut model, tokenizer, recipe, &data, folder, &mut bar, &stop::flag());
    let trained = stopped_or(trained, &format!("training `{name}`"))?;
    if let Ended::Interrupted { step } = trained.outcome.ended {
        return Err(Failure::interrupted(format!(
            "saved after step {step}; run the same command to go on"
        )));
    }
    bar.finish(&format!("{} steps", trained.outcome.steps));
    Ok((model, trained))
}

/// One utility item in twenty is held out for validation.
pub(crate) fn split_utility(items: &[UtilityItem]) -> (Vec<UtilityItem>, Vec<UtilityItem>) {
    let held = |i: usize| i % 20 == 19;
    let part = |wanted: bool| {
        let items = items.iter().enumerate().filter(|(i, _)| held(*i) == wanted);
        items.map(|(_, item)| item.clone()).collect()
    };
    (part(false), part(true))
}
