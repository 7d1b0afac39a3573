//! What a training will take, before it is begun: steps, tokens, time and memory.

use std::time::Instant;

use candle_core::Var;
use hardn_models::{Model, Tokenizer};
use serde::Serialize;

use crate::{
    Counts, Recipe, Result, TrainingData,
    adapters::has_dropout,
    batch::MicroBatch,
    optimizer::Optimizer,
    run_loop::{Plan, StepPlan, keep_freed_memory},
    trainer::{Setup, objective, set_up},
};

/// Steps that are looked at, at most; of longer trainings these stand for all.
const MAX_STEPS: usize = 2000;

/// What a training will take.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Examples kept and dropped in training.
    pub train: Counts,
    /// Examples kept and dropped in validation.
    pub validation: Counts,
    /// Values that are trained.
    pub n_parameters: usize,
    /// Optimiser steps, at most: `training.patience` may end it earlier.
    pub n_steps: usize,
    /// Tokens of all steps, without padding.
    pub n_tokens: u64,
    /// Times the validation loss is computed.
    pub n_validations: usize,
    /// Mean seconds of a step, from three that were measured.
    pub seconds_per_step: f64,
    /// Seconds of all steps and validations; without sampling on suites.
    pub seconds: f64,
    /// Largest memory of the process after the largest step and validation batch, measured; 0 where the system does not
    /// say.
    pub memory_bytes: u64,
}

/// Lays the training out as [`crate::train`] would and computes four of its steps: the one with most padded tokens, for
/// the memory, and those at the quartiles of length, for the time. The model is changed by them: load it anew to train.
///
/// # Errors
/// As [`crate::train`], but that nothing is read or written.
pub fn estimate(
    model: &mut Model,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    data: &TrainingData<'_>,
) -> Result<Estimate> {
    keep_freed_memory();
    let Setup { mut plan, loss, frozen, train_counts, validation_counts, .. } =
        set_up(model, tokenizer, recipe, data)?;
    let objective = objective(model, recipe, loss, frozen.as_ref(), &plan);
    let mut optimizer = Optimizer::new(recipe.optimizer, model.trainable())?;
    let variables: Vec<Var> = model.trainable().into_iter().map(|(_, var)| var).collect();

    let n_steps = plan.total_steps();
    let n_seen = n_steps.clamp(1, MAX_STEPS);
    let sizes: Vec<Size> = (0..n_seen).map(|step| Size::of(&plan.step(step).batches)).collect();
    let largest = (0..n_seen).max_by_key(|&i| sizes[i].padded).unwrap_or(0);
    let mut by_tokens: Vec<usize> = (0..n_seen).collect();
    by_tokens.sort_by_key(|&i| sizes[i].tokens);
    let middle = [1, 2, 3].map(|quarter| by_tokens[n_seen * quarter / 4]);

    let mut run = |work: StepPlan| -> Result<f64> {
        let started = Instant::now();
        for batch in &work.batches {
            let seed = has_dropout(&recipe.adapter).then_some(recipe.training.seed);
            optimizer.accumulate(objective.gradients(batch, seed, &variables)?.1)?;
        }
        optimizer.clip(recipe.training.clip_norm)?;
        optimizer.update(recipe.optimizer.learning_rate())?;
        Ok(started.elapsed().as_secs_f64())
    };
    run(plan.step(largest))?;
    let (mut seconds, mut tokens) = (0.0, 0);
    for step in middle {
        seconds += run(plan.step(step))?;
        tokens += sizes[step].tokens;
    }
    let n_seen_tokens: usize = sizes.iter().map(|size| size.tokens).sum();
    let n_tokens = (n_seen_tokens as f64 * n_steps as f64 / n_seen as f64).round();
    let per_token = seconds / tokens.max(1) as f64;

    let batches = plan.validation();
    let size = |batch: &MicroBatch| batch.shape.0 * batch.shape.1;
    let mut validation_seconds = 0.0;
    if let Some(batch) = batches.iter().max_by_key(|batch| size(batch)) {
        let started = Instant::now();
        objective.evaluate(batch)?;
        let all: usize = batches.iter().map(size).sum();
        validation_seconds =
            started.elapsed().as_secs_f64() * all as f64 / size(batch).max(1) as f64;
    }
    // Before the first step, at the end, and in between.
    let between = n_steps.saturating_sub(1).checked_div(recipe.training.eval_every).unwrap_or(0);
    let n_validations = if batches.is_empty() { 0 } else { between + 2 };
    Ok(Estimate {
        train: train_counts,
        validation: validation_counts,
        n_parameters: optimizer.n_parameters(),
        n_steps,
        n_tokens: n_tokens as u64,
        n_validations,
        seconds_per_step: per_token * n_tokens / n_steps.max(1) as f64,
        seconds: per_token * n_tokens + validation_seconds * n_validations as f64,
        memory_bytes: memory_used().map_or(0, |(_, largest)| largest),
    })
}

struct Size {
    tokens: usize,
    /// With padding, of the largest micro-batch: what memory goes by.
    padded: usize,
}

impl Size {
    fn of(batches: &[MicroBatch]) -> Self {
        let padded = |batch: &MicroBatch| batch.shape.0 * batch.shape.1;
        Self {
            tokens: batches.iter().map(|batch| batch.n_tokens).sum(),
            padded: batches.iter().map(padded).max().unwrap_or(0),
        }
    }
}

/// Bytes of memory this process has, and the most it ever had; `None` where the system does not say (Linux does).
pub fn memory_used() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("VmRSS:")? * 1024, kib("VmHWM:")? * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        read_events,
        testing::{model, pair, tokenizer},
        train,
    };

    #[test]
    fn the_estimate_is_what_the_training_then_does() {
        let pairs: Vec<_> = (0..20)
            .map(|i| {
                let before = format!("    return system(\"ls \" + a{i})\n");
                pair(&i.to_string(), &format!("def run(a{i}):\n"), &before, "    return call()\n")
            })
            .collect();
        let sets = ["training.batch_size=3", "training.eval_every=4", "adapter.r=4"];
        let recipe = Recipe::load("safecoder-lab", &sets.map(str::to_owned)).unwrap();
        let data = TrainingData {
            pairs: &pairs,
            validation_pairs: &pairs[..4],
            ..TrainingData::default()
        };
        let out = tempfile::tempdir().unwrap();
        let found = estimate(&mut model(1), &tokenizer(), &recipe, &data).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let trained =
            train(&mut model(1), &tokenizer(), &recipe, &data, out.path(), &mut (), &stop).unwrap();
        assert_eq!(
            (found.n_steps, found.n_tokens),
            (trained.outcome.steps, trained.outcome.tokens)
        );
        assert_eq!(found.n_parameters, trained.outcome.n_parameters);
        assert_eq!(found.train, trained.train_counts);
        let validations = read_events(out.path())
            .iter()
            .filter(|event| matches!(event, crate::Event::Validation { .. }))
            .count();
        assert_eq!(found.n_validations, validations);
        assert!(found.seconds > 0.0 && found.seconds_per_step > 0.0);
    }
}
