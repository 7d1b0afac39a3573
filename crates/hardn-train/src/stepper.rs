//! Single steps of language modelling, for measurements.

use std::iter::zip;

use candle_core::Var;
use hardn_models::Model;

use crate::{
    AdamWConfig, Example, ExampleKind, LossRecipe, OptimizerRecipe, Result,
    batch::{MicroBatch, Weighing},
    objective::{Objective, Reference},
    optimizer::Optimizer,
};

/// A model with its optimiser: the same step as in training, without data, schedule and files.
pub struct Stepper<'a> {
    objective: Objective<'a>,
    optimizer: Optimizer,
    variables: Vec<Var>,
    config: AdamWConfig,
    clip_norm: f64,
}

impl<'a> Stepper<'a> {
    /// Trains what the model says is trainable. `checkpointing` keeps only the states between layers.
    ///
    /// # Errors
    /// Variables that are not f32.
    pub fn new(
        model: &'a Model,
        config: AdamWConfig,
        clip_norm: f64,
        checkpointing: bool,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(OptimizerRecipe::Adamw(config), model.trainable())?;
        let variables = model.trainable().into_iter().map(|(_, var)| var).collect();
        let objective = Objective {
            model,
            reference: Reference::AdapterOff,
            loss: LossRecipe::default().resolved(),
            checkpointing,
            per_token: true,
        };
        crate::run_loop::keep_freed_memory();
        Ok(Self { objective, optimizer, variables, config, clip_norm })
    }

    /// Values being trained.
    pub fn n_parameters(&self) -> usize {
        self.optimizer.n_parameters()
    }

    /// One step on some texts: the mean loss of their tokens before it, in nats.
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
        let weighing = Weighing::mean_of_tokens(&examples, &LossRecipe::default().resolved(), 1);
        let batch = MicroBatch::new(&examples, &LossRecipe::default().resolved(), weighing);
        let (terms, gradients) = self.objective.gradients(&batch, None, &self.variables)?;
        self.optimizer.accumulate(gradients)?;
        self.optimizer.clip(self.clip_norm)?;
        self.optimizer.update(self.config.learning_rate)?;
        Ok(terms.loss)
    }
}
