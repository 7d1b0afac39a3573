//! The rule that moves the weights.

use serde::{Deserialize, Serialize};

use crate::{AdamWConfig, MuonConfig};

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
            Self::Muon(MuonConfig { learning_rate, weight_decay, decays, betas, eps, .. }) => {
                AdamWConfig { learning_rate, weight_decay, decays, betas, eps }
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
