//! Training methods as data: what a recipe says.

mod adapter;
mod columns;
mod data;
#[cfg(test)]
mod document;
pub(crate) mod file;
mod loss;
mod optimizer;
mod oversampling;
mod training;

use serde::{Deserialize, Serialize};

use self::file::Assignment;
pub(crate) use self::optimizer::check_optimizer;
pub use self::{
    adapter::AdapterRecipe,
    columns::Columns,
    data::{DataRecipe, Format, Granularity, GroupByLength, Overlong, UtilityLoss},
    loss::{LogProbs, LossKind, LossRecipe, LossWeights, OneSided, Pairing, Reduction},
    optimizer::OptimizerRecipe,
    oversampling::{OversamplingBy, OversamplingMode, OversamplingRecipe, OversamplingUnit},
    training::{BestBy, ClipPer, Leftover, LoopRecipe, Precision},
};
use crate::{Result, Schedule, TrainError};

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
    /// The model of the paper that the values belong to, by its name on the hub; says nothing to the trainer.
    #[serde(default)]
    pub model: String,
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
        let recipe: Self = file::load(name, assignments)?;
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
        file::ids().into_iter().filter(|id| !id.starts_with("base/")).filter_map(named).collect()
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
        training.check()?;
        if training.precision == Precision::Bf16 && matches!(self.adapter, AdapterRecipe::Full {}) {
            return Err("`training.precision = \"bf16\"` holds the base in bf16, which cannot be trained itself: \
                        choose an adapter or `f32`"
                .to_owned());
        }
        self.schedule.check()?;
        self.loss.check()?;
        if self.loss.kind.has_two_adapters() && self.adapter == (AdapterRecipe::Full {}) {
            return Err("loss kind `sven` trains an adapter for each side: choose another \
                         `adapter.kind` than `full`, or loss kind `sven_adapted`"
                .to_owned());
        }
        data::check_data(self)?;
        self.oversampling.check()?;
        check_optimizer(&self.optimizer, training.clip_norm)
    }
}

#[cfg(test)]
mod tests {
    use hardn_code::MaskKind;

    use super::*;

    #[test]
    fn every_shipped_recipe_loads() {
        for id in file::ids() {
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
        check_set(&["loss.kind=sven", "adapter.kind=full"], Err("sven_adapted"));
        check_set(&["loss.kind=dpo", "loss.beta=-1"], Err("`loss.beta` is -1"));
        check_set(&["loss.kind=simpo", "loss.log_probs=sum"], Ok("\"log_probs\":\"sum\""));
        check_set(&["training.leftover=carry"], Ok("\"leftover\":\"carry\""));
        check_set(&["training.seed"], Err("key=value"));
        check_set(&["data.granularity=block"], Err("data.mask"));
        check_set(&["data.validation_fraction=1"], Err("0..1"));
        check_set(&["data.pair_fraction=0"], Err("at most 1"));
        check_set(&["data.utility_sources.chat=0.5"], Ok("{\"chat\":0.5}"));
        check_set(&["data.utility_sources.chat=-1"], Err("utility_sources.chat"));
        check_set(&["data.packing=true", "adapter.kind=prefix"], Err("prefix"));
        check_set(&["oversampling.mode=uniform"], Err("oversampling.percent"));
        check_set(&["training.best_by=secure_pass"], Ok("\"best_by\":\"secure_pass\""));
        check_set(&["training.eval_every=5", "training.patience=2"], Ok("\"patience\":2"));
        check_set(&["training.eval_every=0", "training.patience=2"], Err("training.eval_every"));
        check_set(&["training.min_delta=-1"], Err("training.min_delta"));
        check_set(&["training.precision=bf16"], Ok("\"precision\":\"bf16\""));
        check_set(&["training.precision=bf16", "adapter.kind=full"], Err("cannot be trained"));
        check_set(&["optimizer.decays=all"], Ok("\"decays\":\"all\""));
        check_set(&["schedule.warmup_ratio=2"], Err("schedule.warmup_ratio"));
    }
}
