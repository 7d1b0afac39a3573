//! Training methods as data: what a recipe says.

use std::path::Path;

use hardn_code::MaskKind;
use serde::{Deserialize, Serialize};

use crate::{
    AdamWConfig, KlDirection, MuonConfig, Result, Schedule, TrainError,
    recipe_file::{self, Assignment},
};

/// Which weights are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterRecipe {
    /// All of the model's own weights.
    Full {},
    /// A low-rank update of some matrices (Hu et al. 2021, arXiv:2106.09685).
    Lora {
        /// Rank of the update.
        #[serde(default = "default_rank")]
        r: usize,
        /// The update is scaled by `lora_alpha / r`.
        #[serde(default = "default_alpha")]
        lora_alpha: f64,
        /// Share of the update's inputs set to zero while training.
        #[serde(default)]
        dropout: f64,
        /// Names of the matrices, such as `q_proj`; empty: every matrix of the blocks.
        #[serde(default)]
        target_modules: Vec<String>,
        /// Scaled by `lora_alpha / sqrt(r)` instead (Kalajdzievski 2023, arXiv:2312.03732).
        #[serde(default)]
        use_rslora: bool,
    },
    /// Factors on the outputs or inputs of some matrices (Liu et al. 2022, arXiv:2205.05638).
    Ia3 {
        /// Names of the matrices; empty: those PEFT takes for the model's family.
        #[serde(default)]
        target_modules: Vec<String>,
        /// Those of them whose input is scaled rather than the output.
        #[serde(default)]
        feedforward_modules: Vec<String>,
    },
    /// Keys and values before the text's own in every layer (Li and Liang 2021, arXiv:2101.00190).
    Prefix {
        /// Positions of the prefix.
        num_virtual_tokens: usize,
        /// Share of the prefix's numbers set to zero while training; 0.1 in SVEN.
        #[serde(default)]
        dropout: f64,
        /// Begins at zero, as in SVEN, rather than at random, as in PEFT.
        #[serde(default)]
        zero_init: bool,
    },
}

fn default_rank() -> usize {
    16
}

fn default_alpha() -> f64 {
    32.0
}

/// Factors on the losses of one sample, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossWeights {
    /// Likelihood of utility samples.
    pub utility: f64,
    /// Likelihood of the selected tokens of secure samples.
    pub secure: f64,
    /// Unlikelihood of the selected tokens of vulnerable samples.
    pub unlikelihood: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { utility: 1.0, secure: 1.0, unlikelihood: 1.0 }
    }
}

/// What the losses add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Likelihood of secure samples, unlikelihood of vulnerable ones, likelihood of utility samples (paper 002).
    #[default]
    Safecoder,
    /// Likelihood of secure and utility samples; vulnerable ones are not used. With mask `whole` this is
    /// plain fine-tuning on fixed code, with another mask HexaCoder's masked one (paper 003).
    Nll,
    /// As `nll`, and a divergence from the untrained model at unselected tokens (CoSec's security model, paper 004).
    MaskedKl,
    /// Utility samples alone: what a method must beat.
    UtilityOnly,
}

/// How the selected tokens of a sample are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean (released code).
    #[default]
    Mean,
    /// Their sum (papers 002 to 004).
    Sum,
}

/// Whether the two sides of a pair meet in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Each side is a sample of its own (released code).
    #[default]
    Independent,
    /// Both sides make one sample, whose losses are added (paper 002, Algorithm 1).
    Joint,
}

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// What the losses add up to.
    pub kind: LossKind,
    /// Factors on them.
    pub weights: LossWeights,
    /// Factor on the divergence from the untrained model at unselected tokens; 0 switches it off.
    pub kl_weight: f64,
    /// Which way that divergence points.
    pub kl_direction: KlDirection,
    /// How a sample's tokens are added up.
    pub reduction: Reduction,
    /// Whether the two sides of a pair meet in one step.
    pub pairing: Pairing,
}

/// How a fix pair becomes text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The code alone.
    #[default]
    Completion,
    /// The template with the description, then the code.
    Instruction,
}

/// Which tokens of a utility sample are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UtilityLoss {
    /// The completion.
    #[default]
    Completion,
    /// Prompt and completion.
    All,
}

/// Which samples take part and how they look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecipe {
    /// Which tokens of a pair are selected.
    pub mask: MaskKind,
    /// How a pair becomes text.
    pub format: Format,
    /// File of the template for `format = "instruction"`; empty: the built-in one.
    pub template: String,
    /// Longer samples are dropped.
    pub max_tokens: usize,
    /// Drop samples without any selected token.
    pub drop_none_set: bool,
    /// Drop samples whose every token is selected.
    pub drop_all_set: bool,
    /// Cut the code behind its last selected token (SafeCoder).
    pub trim: bool,
    /// Never select a token of the part both versions share as prompt.
    pub mask_prompt: bool,
    /// Put the end-of-text token behind secure code that is not trimmed, and learn it.
    pub end_of_text: bool,
    /// Utility samples per security sample, drawn without replacement in each epoch; 0: all there are.
    pub utility_ratio: f64,
    /// Which tokens of a utility sample are learnt.
    pub utility_loss: UtilityLoss,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            mask: MaskKind::Ndiff,
            format: Format::Completion,
            template: String::new(),
            max_tokens: 1024,
            drop_none_set: true,
            drop_all_set: true,
            trim: false,
            mask_prompt: true,
            end_of_text: false,
            utility_ratio: 0.0,
            utility_loss: UtilityLoss::Completion,
        }
    }
}

/// Which classes are oversampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingMode {
    /// None.
    #[default]
    None,
    /// Classes with fewer than `k` items are filled up to `k`.
    Minority,
    /// Every class is filled up to the largest class, or to `k` where that is more.
    All,
}

/// What `k` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingUnit {
    /// Secure and vulnerable samples together (released code).
    #[default]
    Sides,
    /// Pairs (paper 002).
    Pairs,
}

/// What a class's language is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversamplingBy {
    /// The file's extension (released code); the language's own where the pair has no file name.
    #[default]
    Extension,
    /// The language.
    Language,
}

/// Duplicates of the members of small (language, CWE) classes, drawn with replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OversamplingRecipe {
    /// Which classes are filled up.
    pub mode: OversamplingMode,
    /// To how many items.
    pub k: usize,
    /// What `k` counts.
    pub unit: OversamplingUnit,
    /// What a class's language is.
    pub by: OversamplingBy,
}

impl Default for OversamplingRecipe {
    fn default() -> Self {
        Self {
            mode: OversamplingMode::None,
            k: 20,
            unit: OversamplingUnit::Sides,
            by: OversamplingBy::Extension,
        }
    }
}

/// The rule that moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimizerRecipe {
    /// AdamW.
    Adamw(AdamWConfig),
    /// Muon for matrices, AdamW for the rest.
    Muon(MuonConfig),
}

impl OptimizerRecipe {
    /// AdamW's settings, of those variables that it moves.
    pub fn adamw(&self) -> AdamWConfig {
        match *self {
            Self::Adamw(config) => config,
            Self::Muon(MuonConfig { learning_rate, weight_decay, betas, eps, .. }) => {
                AdamWConfig { learning_rate, weight_decay, betas, eps }
            }
        }
    }

    /// Muon's momentum; 0 with AdamW.
    pub fn momentum(&self) -> f64 {
        match self {
            Self::Adamw(_) => 0.0,
            Self::Muon(config) => config.momentum,
        }
    }

    /// Peak learning rate.
    pub fn learning_rate(&self) -> f64 {
        self.adamw().learning_rate
    }
}

/// When gradients are clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipPer {
    /// Once, before each update.
    #[default]
    Step,
    /// After every micro-batch, on the running sum (released code of SVEN, SafeCoder and CoSec).
    MicroBatch,
}

/// How long and in what portions is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoopRecipe {
    /// Passes over the data; counts where `max_steps` is 0.
    pub epochs: f64,
    /// Optimiser steps; 0: as many as `epochs` takes.
    pub max_steps: usize,
    /// Samples per micro-batch. With `clip_per = "step"` only `batch_size * accumulation` matters, and
    /// samples of similar length are computed together.
    pub batch_size: usize,
    /// Micro-batches per step.
    pub accumulation: usize,
    /// Largest Euclidean norm of the gradient; 0: no clipping.
    pub clip_norm: f64,
    /// When gradients are clipped.
    pub clip_per: ClipPer,
    /// Everything random derives from it.
    pub seed: u64,
    /// Steps between validations; 0: at the end only.
    pub eval_every: usize,
    /// Steps between checkpoints, besides those at validations; 0: none besides.
    pub checkpoint_every: usize,
    /// Checkpoints kept, besides the best.
    pub keep_checkpoints: usize,
    /// End with the weights of the lowest validation loss, not with the last ones.
    pub keep_best: bool,
    /// Keep only the states between layers for the backward pass and compute the rest again: the same gradients with
    /// less memory, for about a third more time.
    pub gradient_checkpointing: bool,
}

impl Default for LoopRecipe {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            max_steps: 0,
            batch_size: 1,
            accumulation: 16,
            clip_norm: 1.0,
            clip_per: ClipPer::Step,
            seed: 1,
            eval_every: 0,
            checkpoint_every: 100,
            keep_checkpoints: 2,
            keep_best: false,
            gradient_checkpointing: false,
        }
    }
}

/// A training method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// One line for tables.
    #[serde(default)]
    pub title: String,
    /// Where the method is described, such as `arXiv:2402.09497`.
    #[serde(default)]
    pub paper: String,
    /// Which weights are trained.
    pub adapter: AdapterRecipe,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossRecipe,
    /// Which samples take part and how they look.
    #[serde(default)]
    pub data: DataRecipe,
    /// Duplicates of the members of small classes.
    #[serde(default)]
    pub oversampling: OversamplingRecipe,
    /// The rule that moves the weights.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long and in what portions is trained.
    #[serde(default)]
    pub training: LoopRecipe,
}

impl Recipe {
    /// Loads a recipe by its id (its path under `recipes/` without `.toml`) or from a file, then applies `--set`
    /// assignments such as `training.epochs=2` in order.
    ///
    /// # Errors
    /// An unknown name, an unknown key or a value of the wrong type, each with a suggestion; values that contradict each other.
    pub fn load(name: &str, assignments: &[String]) -> Result<Self> {
        let recipe: Self = recipe_file::load(name, assignments)?;
        recipe.check().map_err(|message| TrainError::Recipe { name: name.to_owned(), message })?;
        Ok(recipe)
    }

    /// Applies one more assignment.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        *self = Assignment::parse(assignment)?.apply(self)?;
        self.check()
            .map_err(|message| TrainError::Override { assignment: assignment.to_owned(), message })
    }

    /// The ids of the recipes that ship with hardn and train on pairs, with their titles.
    pub fn list() -> Vec<(String, String)> {
        let named = |id: String| Some((id.clone(), Self::load(&id, &[]).ok()?.title));
        recipe_file::ids().into_iter().filter_map(named).collect()
    }

    /// The whole recipe, every default filled in.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), String> {
        let (size, dropout) = match &self.adapter {
            AdapterRecipe::Full {} | AdapterRecipe::Ia3 { .. } => (("", 1), 0.0),
            AdapterRecipe::Lora { r, dropout, .. } => (("r", *r), *dropout),
            AdapterRecipe::Prefix { num_virtual_tokens, dropout, .. } => {
                (("num_virtual_tokens", *num_virtual_tokens), *dropout)
            }
        };
        if let (name, 0) = size {
            return Err(format!("`adapter.{name}` must be at least 1"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!("`adapter.dropout` is {dropout}, but must be in 0..1"));
        }
        let training = &self.training;
        if training.batch_size == 0 || training.accumulation == 0 {
            return Err(
                "`training.batch_size` and `training.accumulation` must be at least 1".to_owned()
            );
        }
        if training.max_steps == 0 && (training.epochs.is_nan() || training.epochs <= 0.0) {
            return Err(
                "`training.epochs` must be above 0 where `training.max_steps` is 0".to_owned()
            );
        }
        if self.loss.kind == LossKind::MaskedKl && self.loss.kl_weight == 0.0 {
            return Err("loss kind `masked_kl` needs a `loss.kl_weight` above 0".to_owned());
        }
        if self.data.mask == MaskKind::Whole && self.data.drop_all_set {
            return Err(
                "mask `whole` selects every token: set `data.drop_all_set = false`".to_owned()
            );
        }
        if !self.data.template.is_empty() && !Path::new(&self.data.template).exists() {
            return Err(format!("`data.template`: there is no file {}", self.data.template));
        }
        check_optimizer(&self.optimizer, training.clip_norm)
    }
}

pub(crate) fn check_optimizer(recipe: &OptimizerRecipe, clip_norm: f64) -> Result<(), String> {
    let config = recipe.adamw();
    if !(config.learning_rate > 0.0 && config.learning_rate.is_finite()) {
        return Err(format!(
            "`optimizer.learning_rate` is {}, but must be above 0",
            config.learning_rate
        ));
    }
    if !config.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return Err(format!("`optimizer.betas` are {:?}, but must be in 0..1", config.betas));
    }
    if !(0.0..1.0).contains(&recipe.momentum()) {
        return Err(format!("`optimizer.momentum` is {}, but must be in 0..1", recipe.momentum()));
    }
    if clip_norm.is_nan() || clip_norm < 0.0 {
        return Err(format!("`training.clip_norm` is {clip_norm}, but must not be negative"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_recipe_loads() {
        for id in recipe_file::ids() {
            if id.starts_with("pretrain") {
                crate::PretrainRecipe::load(&id, &[]).unwrap();
            } else if !id.starts_with("base/") {
                let recipe = Recipe::load(&id, &[]).unwrap();
                assert!(!recipe.title.is_empty(), "{id}");
            }
        }
    }

    #[test]
    fn safecoder_has_the_papers_values() {
        let recipe = Recipe::load("safecoder", &[]).unwrap();
        let AdapterRecipe::Lora { r, lora_alpha, dropout, .. } = recipe.adapter else { panic!() };
        assert_eq!((r, lora_alpha, dropout), (16, 32.0, 0.1));
        assert_eq!(recipe.optimizer.learning_rate(), 1e-3);
        assert_eq!(recipe.data.mask, MaskKind::Ndiff);
        assert!(recipe.data.trim);
        assert_eq!(recipe.oversampling.k, 20);
        assert_eq!(recipe.training.seed, 2);
    }

    #[track_caller]
    fn check_set(assignments: &[&str], expected: Result<&str, &str>) {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        match (Recipe::load("safecoder", &assignments), expected) {
            (Ok(recipe), Ok(part)) => {
                let json = recipe.to_json().to_string();
                assert!(json.contains(part), "{part} is not in {json}");
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{part} is not in {error}");
            }
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn assignments() {
        check_set(&["training.epochs=3"], Ok("\"epochs\":3.0"));
        check_set(&["loss.kl_direction=reference_to_model"], Ok("reference_to_model"));
        check_set(&["adapter.kind=full"], Ok("{\"kind\":\"full\"}"));
        check_set(&["adapter.kind=lora", "adapter.r=8"], Ok("\"r\":8"));
        check_set(&["adapter.target_modules=[\"q_proj\"]"], Ok("[\"q_proj\"]"));
        check_set(&["data.mask=char"], Ok("\"mask\":\"char\""));
        check_set(&["title=Two words"], Ok("Two words"));
        check_set(&["training.epoch=3"], Err("did you mean `training.epochs`?"));
        check_set(&["epochs=3"], Err("did you mean `training.epochs`?"));
        check_set(&["training.seed=x"], Err("whole number"));
        check_set(&["training.batch_size=0"], Err("at least 1"));
        check_set(&["training=3"], Err("is a table"));
        check_set(&["loss.kind=safecode"], Err("safecoder"));
        check_set(&["training.seed"], Err("key=value"));
    }
}
