//! What a recipe trains on a model: its adapter, or one for each side of a pair, and their files.

use std::path::Path;

use hardn_models::{
    AdapterConfig, AdapterId, DEFAULT_ADAPTER, Ia3Config, LoraConfig, Model, ModelError,
    PrefixTuningConfig, TargetModules,
};

use crate::{
    AdapterRecipe, ExampleKind, LossKind, Recipe, Result, TrainError, checkpoint::write_folder,
};

/// The adapter that secure code is trained under, where each side has its own: the one that is used afterwards.
pub const SECURE_ADAPTER: &str = "secure";

/// The adapter that vulnerable code is trained under, where each side has its own. It exists for training alone.
pub const VULNERABLE_ADAPTER: &str = "vulnerable";

/// The key of `adapter_config.json` that says, with `true`, that an adapter is not for use.
pub const TRAINING_ONLY: &str = "training_only";

/// Attaches what the recipe trains: an adapter, or one for each side, of which the secure one is active; nothing
/// where the model's own weights are trained.
///
/// # Errors
/// A configuration that does not go with the model.
pub fn attach_adapters(model: &mut Model, recipe: &Recipe) -> Result<()> {
    let Some(config) = configuration(&recipe.adapter) else {
        if model.is_quantised() {
            let message = "a quantised base cannot be trained itself; choose an adapter, or load the base as f32";
            return Err(ModelError::Input(message.to_owned()).into());
        }
        return Ok(());
    };
    let seed = recipe.training.seed;
    if recipe.loss.kind.has_two_adapters() {
        let mut marked = config.clone();
        let extra = match &mut marked {
            AdapterConfig::Lora(config) => &mut config.extra,
            AdapterConfig::Ia3(config) => &mut config.extra,
            AdapterConfig::PrefixTuning(config) => &mut config.extra,
        };
        extra.insert(TRAINING_ONLY.to_owned(), true.into());
        model.attach(VULNERABLE_ADAPTER, marked, seed)?;
        model.attach(SECURE_ADAPTER, config, seed)?;
    } else {
        model.attach(DEFAULT_ADAPTER, config, seed)?;
    }
    Ok(())
}

/// An adapter that drops something while it is trained.
pub(crate) fn has_dropout(adapter: &AdapterRecipe) -> bool {
    match adapter {
        AdapterRecipe::Full {} | AdapterRecipe::Ia3 { .. } => false,
        AdapterRecipe::Lora { dropout, .. } | AdapterRecipe::Prefix { dropout, .. } => {
            *dropout > 0.0
        }
    }
}

fn configuration(adapter: &AdapterRecipe) -> Option<AdapterConfig> {
    let list = |names: &[String]| TargetModules::List(names.to_vec());
    Some(match adapter {
        AdapterRecipe::Full {} => return None,
        AdapterRecipe::Lora { r, lora_alpha, dropout, target_modules, use_rslora } => {
            let mut config = LoraConfig::new(*r, *lora_alpha);
            config.lora_dropout = *dropout;
            config.use_rslora = *use_rslora;
            if !target_modules.is_empty() {
                config.target_modules = list(target_modules);
            }
            config.into()
        }
        AdapterRecipe::Ia3 { target_modules, feedforward_modules } => {
            let mut config = Ia3Config::default();
            if !target_modules.is_empty() {
                config.target_modules = list(target_modules);
                config.feedforward_modules = list(feedforward_modules);
            }
            config.into()
        }
        AdapterRecipe::Prefix { num_virtual_tokens, dropout, zero_init } => {
            let mut config = PrefixTuningConfig::new(*num_virtual_tokens);
            (config.dropout, config.zero_init) = (*dropout, *zero_init);
            config.into()
        }
    })
}

/// The adapter that a kind of examples is trained under, where sides have their own; utility samples are secure code's.
///
/// # Errors
/// It is not attached.
pub(crate) fn adapter_of(model: &Model, kind: ExampleKind) -> Result<AdapterId> {
    let name = if kind == ExampleKind::Vulnerable { VULNERABLE_ADAPTER } else { SECURE_ADAPTER };
    model.adapter(name).ok_or_else(|| missing(format!("the adapter `{name}`")))
}

fn missing(what: String) -> TrainError {
    let help = "loss kind `sven` needs one for each side: give a folder that holds `secure` and `vulnerable`";
    TrainError::Missing { what, help: help.to_owned() }
}

/// Writes what was trained to `dir` in PEFT's layout: an adapter's files, or, where each side has its own, the folders
/// `secure` and `vulnerable`. The second says in its configuration, under [`TRAINING_ONLY`], that it is not for use.
///
/// # Errors
/// Files that cannot be written.
pub(crate) fn save_adapters(model: &Model, kind: LossKind, dir: &Path) -> Result<()> {
    write_folder(dir, |dir| {
        if !kind.has_two_adapters() {
            return Ok(model.save_adapter(DEFAULT_ADAPTER, dir)?);
        }
        for name in [SECURE_ADAPTER, VULNERABLE_ADAPTER] {
            write_folder(&dir.join(name), |dir| Ok(model.save_adapter(name, dir)?))?;
        }
        Ok(())
    })
}

/// Attaches what is needed to compute a recipe's loss: the adapter in `dir`, or both sides' from its folders `secure`
/// and `vulnerable`; without `dir`, where each side has its own, what a training would begin with.
///
/// # Errors
/// Files that cannot be read or do not fit the model.
pub fn load_adapters(model: &mut Model, recipe: &Recipe, dir: Option<&Path>) -> Result<()> {
    let is_double = recipe.loss.kind.has_two_adapters();
    match dir {
        None if is_double => attach_adapters(model, recipe)?,
        None => {}
        Some(dir) if is_double => {
            for name in [VULNERABLE_ADAPTER, SECURE_ADAPTER] {
                let folder = dir.join(name);
                if !folder.join("adapter_config.json").exists() {
                    return Err(missing(format!("the adapter {}", folder.display())));
                }
                model.load_adapter(name, &folder)?;
            }
        }
        Some(dir) => {
            model.load_adapter(DEFAULT_ADAPTER, dir)?;
        }
    }
    Ok(())
}
