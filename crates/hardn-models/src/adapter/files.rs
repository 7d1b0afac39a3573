//! Adapters in PEFT's folders.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor, Var};

use super::{AdapterConfig, AdapterId, PREFIX, plan::Plan};
use crate::{
    Model, ModelConfig, ModelError, Result, SaveDtype,
    checkpoint::{read_file, write_file},
    tokenizer::write_json,
};

impl Model {
    /// Attaches the adapter in `dir` (`adapter_config.json`, `adapter_model.safetensors` or `.bin`) under a name, and
    /// makes it the active one. Copies of the model's own embedding and output, which PEFT may add, are passed over.
    ///
    /// # Errors
    /// Files that cannot be read, a configuration that is not supported, or tensors that do not fit the model; then
    /// nothing is attached.
    pub fn load_adapter(&mut self, name: &str, dir: &Path) -> Result<AdapterId> {
        let own_copy = |name: &str, tensor: &Tensor| self.own_copy(name, tensor);
        let (config, plan, variables) = read_folder(dir, self.config(), self.device(), &own_copy)?;
        self.install(name, config, &plan, variables)
    }

    /// Writes an adapter as PEFT does: `adapter_config.json` and `adapter_model.safetensors`, in f32.
    ///
    /// # Errors
    /// No adapter of that name, or a file that cannot be written.
    pub fn save_adapter(&self, name: &str, dir: &Path) -> Result<()> {
        let slot = self.adapters.named(name)?;
        fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))?;
        let tensors: BTreeMap<String, Tensor> = slot
            .variables
            .iter()
            .map(|(name, var)| (name.clone(), var.as_detached_tensor()))
            .collect();
        write_file(&dir.join("adapter_model.safetensors"), &tensors, SaveDtype::F32)?;
        write_json(&dir.join("adapter_config.json"), &slot.config.to_json())
    }

    /// Whether a tensor of a file is the model's own embedding or output; `None` if it is neither of them.
    fn own_copy(&self, name: &str, tensor: &Tensor) -> Result<Option<bool>> {
        let Some(name) = own_name(name) else { return Ok(None) };
        let spec = &self.config().spec;
        let weights = self.weights();
        let own = [&spec.embed, &spec.head.name]
            .into_iter()
            .flat_map(|module| [format!("{module}.weight"), format!("{module}.bias")])
            .find(|own| *own == name);
        let Some(own) = own else { return Ok(None) };
        // A tied output has the embedding's weight.
        let embed = format!("{}.weight", spec.embed);
        let Some(own) = weights.get(&own).or_else(|| weights.get(&embed)) else { return Ok(None) };
        if own.dims() != tensor.dims() {
            return Ok(Some(false));
        }
        let difference = (own.as_detached_tensor().to_dtype(tensor.dtype())? - tensor)?;
        Ok(Some(difference.abs()?.max_all()?.to_scalar::<f32>()? == 0.0))
    }
}

/// Reads the adapter in `dir` for a model: its configuration with all sizes, what it adds, and its tensors.
///
/// `own_copy` says whether a tensor that the configuration does not ask for is the model's own; `None` if the model has
/// no such tensor.
///
/// # Errors
/// As [`Model::load_adapter`].
pub(crate) fn read_folder(
    dir: &Path,
    model: &ModelConfig,
    device: &Device,
    own_copy: &dyn Fn(&str, &Tensor) -> Result<Option<bool>>,
) -> Result<(AdapterConfig, Plan, BTreeMap<String, Var>)> {
    let mut config = AdapterConfig::load(dir)?;
    let config_path = dir.join("adapter_config.json");
    let file = ["adapter_model.safetensors", "adapter_model.bin"]
        .map(|name| dir.join(name))
        .into_iter()
        .find(|path| path.exists());
    let path = file.unwrap_or_else(|| dir.join("adapter_model.safetensors"));
    let mut tensors = read_file(&path, device)?;
    let error = |name: &str, message: String| ModelError::Tensor {
        path: path.clone(),
        name: name.to_owned(),
        message,
    };
    let plan = Plan::new(&mut config, model, &|name| tensors.contains_key(name))
        .map_err(|error| error.in_file(&config_path))?;
    let mut variables = BTreeMap::new();
    for (name, stored) in &plan.tensors {
        let Some(tensor) = tensors.remove(name) else {
            return Err(error(name, "is missing".to_owned()));
        };
        if tensor.dims() != stored.shape {
            let message = format!("has shape {:?}, expected {:?}", tensor.dims(), stored.shape);
            return Err(error(name, message));
        }
        variables.insert(name.clone(), Var::from_tensor(&tensor)?);
    }
    for (name, tensor) in &tensors {
        match own_copy(name, tensor)? {
            Some(true) => {}
            Some(false) => {
                let message = "differs from the model's; changed embeddings are not supported";
                return Err(error(name, message.to_owned()));
            }
            None => {
                let message = format!(
                    "is not what the keys of {} select on this model",
                    config_path.display()
                );
                return Err(error(name, message));
            }
        }
    }
    Ok((config, plan, variables))
}

/// The model's tensor that a name in an adapter's file means.
pub(crate) fn own_name(name: &str) -> Option<String> {
    Some(name.strip_prefix(PREFIX)?.replace(".base_layer.", "."))
}
