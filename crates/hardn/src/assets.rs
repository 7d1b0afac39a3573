//! The lab models that are shipped inside the binary.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use candle_core::DType;
use hardn_models::{BaseWeights, DEFAULT_ADAPTER, Model, Tokenizer};
use hardn_types::write_atomic;
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use crate::{
    device,
    failure::{Failure, Outcome},
    hub,
};

static LAB: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../lab");

/// The names of the shipped models.
pub(crate) fn shipped() -> Vec<&'static str> {
    LAB.dirs().filter_map(|dir| dir.path().to_str()).collect()
}

/// Whether a name is a shipped model's.
pub(crate) fn is_shipped(name: &str) -> bool {
    shipped().contains(&name)
}

/// The folder of a model: a shipped one is unpacked into the cache first, one with a hub name is fetched.
pub(crate) fn model_folder(name: &str) -> Outcome<PathBuf> {
    if let Some(dir) = LAB.get_dir(name) {
        return unpack(name, dir);
    }
    hub::find(name)?.ok_or_else(|| {
        Failure::new(format!("there is no model `{name}`")).help(format!(
            "give a checkpoint folder (config.json, tokenizer.json, model.safetensors), a hub name (owner/name) or one of {}",
            shipped().join(", ")
        ))
    })
}

fn unpack(name: &str, dir: &Dir<'static>) -> Outcome<PathBuf> {
    let mut hash = Sha256::new();
    for file in dir.files() {
        hash.update(file.path().to_string_lossy().as_bytes());
        hash.update(file.contents());
    }
    let digest = format!("{:x}", hash.finalize());
    let target = cache_folder().join("lab").join(&digest[..16]).join(name);
    let done = target.join(".complete");
    if !done.exists() {
        fs::create_dir_all(&target).map_err(|error| {
            Failure::new(format!("cannot write {}: {error}", target.display()))
                .help("set XDG_CACHE_HOME to a folder that can be written")
        })?;
        for file in dir.files() {
            let file_name = file.path().file_name().unwrap_or_default();
            write_atomic(&target.join(file_name), file.contents())?;
        }
        write_atomic(&done, b"")?;
    }
    Ok(target)
}

pub(crate) fn cache_folder() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .unwrap_or_else(env::temp_dir)
        .join("hardn")
}

/// Loads a model in f32, and an adapter onto it.
pub(crate) fn load_model(name: &str, adapter: Option<&Path>) -> Outcome<Model> {
    load_model_as(name, adapter, BaseWeights::Float(DType::F32))
}

/// Loads a model with weights in some form, and an adapter onto it.
pub(crate) fn load_model_as(
    name: &str,
    adapter: Option<&Path>,
    weights: BaseWeights,
) -> Outcome<Model> {
    let folder = model_folder(name)?;
    let mut model = Model::load_as(&folder, weights, device::chosen())?;
    if let Some(adapter) = adapter {
        model.load_adapter(DEFAULT_ADAPTER, &hub::adapter_folder(adapter)?)?;
    }
    Ok(model)
}

/// Loads the tokenizer of a model.
pub(crate) fn load_tokenizer(name: &str) -> Outcome<Tokenizer> {
    Ok(Tokenizer::load(&model_folder(name)?)?)
}
