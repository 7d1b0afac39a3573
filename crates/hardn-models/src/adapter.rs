//! Attaching, loading, saving and merging LoRA adapters.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{Device, Tensor, Var};

use crate::{
    LoraConfig, Model, ModelError, Result, SaveDtype,
    checkpoint::{read_file, write_file},
    linear::Lora,
    rng::{Stream, mix},
    tokenizer::write_json,
};

/// What PEFT puts before a module's name.
const PREFIX: &str = "base_model.model.";

impl Model {
    /// Attaches a new adapter that changes nothing yet: `A` uniform in ±1/sqrt(in), `B` zero, as PEFT does.
    /// From now on the weights are frozen and the adapter's tensors are what is trained.
    ///
    /// # Errors
    /// A configuration that is not supported or selects nothing, or an adapter that is attached already.
    pub fn attach_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        self.attach(config, |name, a_shape, b_shape, device| {
            let mut stream = Stream::new(seed, name);
            let bound = 1.0 / (a_shape.1 as f64).sqrt();
            let n = a_shape.0 * a_shape.1;
            let a: Vec<f32> =
                (0..n).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect();
            Ok((
                Var::from_vec(a, a_shape, device)?,
                Var::zeros(b_shape, candle_core::DType::F32, device)?,
            ))
        })
    }

    /// Attaches the adapter in `dir` (`adapter_config.json`, `adapter_model.safetensors`).
    ///
    /// # Errors
    /// Files that cannot be read, a configuration that is not supported, or tensors that do not fit the model.
    pub fn load_adapter(&mut self, dir: &Path) -> Result<()> {
        let config_path = dir.join("adapter_config.json");
        let bytes =
            fs::read(&config_path).map_err(|error| ModelError::read(&config_path, error))?;
        let config: LoraConfig = serde_json::from_slice(&bytes)
            .map_err(|error| ModelError::read(&config_path, error))?;
        let path = dir.join("adapter_model.safetensors");
        let mut tensors = read_file(&path, self.device())?;
        let error = |name: String, message: String| ModelError::Tensor {
            path: path.clone(),
            name,
            message,
        };
        let mut take = |name: String, shape: (usize, usize)| {
            let Some(tensor) = tensors.remove(&name) else {
                return Err(error(name, "is missing".to_owned()));
            };
            if tensor.dims() != [shape.0, shape.1] {
                let message = format!("has shape {:?}, expected {shape:?}", tensor.dims());
                return Err(error(name, message));
            }
            Ok(Var::from_tensor(&tensor)?)
        };
        // Checked as a whole before anything is attached.
        let mut loaded = BTreeMap::new();
        for (module, r, _) in config.select(&self.module_names())? {
            let (out, input) = self.module_shape(module)?;
            let a = take(format!("{PREFIX}{module}.lora_A.weight"), (r, input))?;
            let b = take(format!("{PREFIX}{module}.lora_B.weight"), (out, r))?;
            loaded.insert(module.to_owned(), (a, b));
        }
        if let Some(name) = tensors.into_keys().next() {
            return Err(error(name, "is not targeted by adapter_config.json".to_owned()));
        }
        self.attach(&config, |name, _, _, _| {
            loaded.remove(name).ok_or_else(|| ModelError::adapter("target_modules", name))
        })
    }

    /// Writes the adapter as PEFT does: `adapter_config.json` and `adapter_model.safetensors`, in f32.
    ///
    /// # Errors
    /// No adapter is attached, or a file cannot be written.
    pub fn save_adapter(&self, dir: &Path) -> Result<()> {
        let Some(config) = self.adapter_config() else {
            return Err(ModelError::Input("no adapter is attached".to_owned()));
        };
        fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))?;
        let tensors: BTreeMap<String, Tensor> = self
            .trainable()
            .into_iter()
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect();
        write_file(&dir.join("adapter_model.safetensors"), &tensors, SaveDtype::F32)?;
        write_json(&dir.join("adapter_config.json"), &config.to_json())
    }

    /// Takes the adapter off again.
    pub fn detach_adapter(&mut self) {
        self.set_adapter(None);
        for linear in self.linears_mut() {
            linear.lora = None;
        }
    }

    fn attach(
        &mut self,
        config: &LoraConfig,
        mut tensors: impl FnMut(&str, (usize, usize), (usize, usize), &Device) -> Result<(Var, Var)>,
    ) -> Result<()> {
        if self.adapter_config().is_some() {
            return Err(ModelError::Input("an adapter is attached already".to_owned()));
        }
        let names = self.module_names().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let selected = config.select(&names)?;
        let device = self.device().clone();
        for linear in self.linears_mut() {
            let Some((name, r, scale)) = selected.iter().find(|(name, ..)| *name == linear.name)
            else {
                continue;
            };
            let (out, input) = linear.weight.dims2()?;
            let (a, b) = tensors(name, (*r, input), (out, *r), &device)?;
            let stream = name.bytes().fold(0, |key, byte| mix(key ^ u64::from(byte)));
            let dropout = config.lora_dropout as f32;
            linear.lora = Some(Lora { a, b, scale: *scale, dropout, stream });
        }
        self.set_adapter(Some(config.clone()));
        Ok(())
    }

    fn module_names(&self) -> Vec<&str> {
        self.linears().map(|linear| linear.name.as_str()).collect()
    }

    fn module_shape(&self, name: &str) -> Result<(usize, usize)> {
        let linear = self.linears().find(|linear| linear.name == name);
        Ok(linear.map_or(Ok((0, 0)), |linear| linear.weight.dims2())?)
    }

    /// Names and tensors of the attached adapter, sorted.
    pub(crate) fn adapter_variables(&self) -> BTreeMap<String, Var> {
        let mut variables = BTreeMap::new();
        for linear in self.linears() {
            if let Some(lora) = &linear.lora {
                let name = format!("{PREFIX}{}", linear.name);
                variables.insert(format!("{name}.lora_A.weight"), lora.a.clone());
                variables.insert(format!("{name}.lora_B.weight"), lora.b.clone());
            }
        }
        variables
    }
}
