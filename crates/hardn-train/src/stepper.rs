//! Single steps, for measurements.

use std::iter::zip;

use candle_core::Var;
use hardn_models::Model;

use crate::{
    AdamWConfig, Example, ExampleKind, LossRecipe, OptimizerRecipe, Recipe, Reduction, Result,
    adapters::has_dropout,
    batch::{MicroBatch, Weighing},
    objective::{Objective, Reference},
    optimizer::Optimizer,
    rng::derive_seed,
};

/// A model with its optimiser: the same step as in training, without data, schedule and files.
pub struct Stepper<'a> {
    objective: Objective<'a>,
    optimizer: Optimizer,
    variables: Vec<Var>,
    learning_rate: f64,
    clip_norm: f64,
    dropout_seed: Option<u64>,
    n_steps: u64,
}

impl<'a> Stepper<'a> {
    /// Language modelling with what the model says is trainable. `checkpointing` keeps only the states between layers.
    ///
    /// # Errors
    /// Variables that are not f32.
    pub fn new(
        model: &'a Model,
        config: AdamWConfig,
        clip_norm: f64,
        checkpointing: bool,
    ) -> Result<Self> {
        let loss = LossRecipe::default().resolved();
        let optimizer = OptimizerRecipe::Adamw(config);
        Self::of(model, loss, optimizer, clip_norm, checkpointing)
    }

    /// What a recipe minimises, on a model with the recipe's adapters ([`crate::attach_adapters`]), at its full learning
    /// rate. What divergences are measured from is the model without its adapter.
    ///
    /// # Errors
    /// Variables that are not f32.
    pub fn of_recipe(model: &'a Model, recipe: &Recipe) -> Result<Self> {
        let training = &recipe.training;
        let mut stepper = Self::of(
            model,
            recipe.loss.resolved(),
            recipe.optimizer,
            training.clip_norm,
            training.gradient_checkpointing,
        )?;
        stepper.dropout_seed = has_dropout(&recipe.adapter).then_some(training.seed);
        Ok(stepper)
    }

    fn of(
        model: &'a Model,
        loss: LossRecipe,
        optimizer: OptimizerRecipe,
        clip_norm: f64,
        checkpointing: bool,
    ) -> Result<Self> {
        let learning_rate = optimizer.learning_rate();
        let optimizer = Optimizer::new(optimizer, model.trainable())?;
        let variables = model.trainable().into_iter().map(|(_, var)| var).collect();
        let reference = Reference::AdapterOff;
        let objective = Objective { model, reference, loss, checkpointing, per_token: true };
        crate::run_loop::keep_freed_memory();
        let (dropout_seed, n_steps) = (None, 0);
        Ok(Self {
            objective,
            optimizer,
            variables,
            learning_rate,
            clip_norm,
            dropout_seed,
            n_steps,
        })
    }

    /// Values being trained.
    pub fn n_parameters(&self) -> usize {
        self.optimizer.n_parameters()
    }

    /// One step on some texts, every token learnt: the mean loss of their tokens before it, in nats.
    ///
    /// # Errors
    /// Tokens outside the vocabulary, or texts longer than the context.
    pub fn step(&mut self, texts: &[Vec<u32>]) -> Result<f64> {
        let example = |(i, ids): (usize, &Vec<u32>)| Example {
            id: i.to_string(),
            kind: ExampleKind::Utility,
            ids: ids.clone(),
            selected: vec![1; ids.len()],
        };
        let examples: Vec<Example> = zip(0.., texts).map(example).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        let weighing = Weighing::mean_of_tokens(&examples, &self.objective.loss, 1);
        self.update(&MicroBatch::new(&examples, &self.objective.loss, weighing))
    }

    /// One step on samples that are computed together, in their order: the mean of their losses before it, in nats, as the
    /// recipe weighs and reduces them. In a pairwise loss every vulnerable side follows its secure one.
    ///
    /// # Errors
    /// As [`Self::step`], and samples without a loss.
    pub fn step_on(&mut self, samples: &[Example]) -> Result<f64> {
        let samples: Vec<&Example> = samples.iter().collect();
        let loss = &self.objective.loss;
        let weighing = match loss.reduction {
            Reduction::Tokens => Weighing::mean_of_tokens(&samples, loss, 1),
            reduction => Weighing::PerSample { reduction, n_samples: samples.len() },
        };
        self.update(&MicroBatch::new(&samples, loss, weighing))
    }

    fn update(&mut self, batch: &MicroBatch) -> Result<f64> {
        let seed = self.dropout_seed.map(|seed| derive_seed(seed, &[self.n_steps]));
        self.n_steps += 1;
        let (terms, gradients) = self.objective.gradients(batch, seed, &self.variables)?;
        self.optimizer.accumulate(gradients)?;
        self.optimizer.clip(self.clip_norm)?;
        self.optimizer.update(self.learning_rate)?;
        Ok(terms.loss)
    }
}
