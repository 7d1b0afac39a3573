//! Adapters: LoRA, (IA)³ and prefixes on any model, several at once, in PEFT's files.

mod config;
mod defaults;
mod files;
mod ia3;
mod lora;
mod merge;
mod plan;
mod prefix;
mod targets;
mod term;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};

use self::plan::{PREFIX, PROMPT, Start, Stored};
use crate::{
    Model, ModelError, Result,
    rng::{Stream, mix},
};
pub use config::AdapterConfig;
pub(crate) use files::{own_name, read_folder};
pub use ia3::Ia3Config;
pub(crate) use ia3::Side;
pub use lora::LoraConfig;
pub(crate) use plan::Plan;
pub use prefix::PrefixTuningConfig;
pub use targets::{OneOrMany, TargetModules};
pub(crate) use term::{ByAdapter, Lora, Prefix, Term};

/// The name of an adapter that needs none.
pub const DEFAULT_ADAPTER: &str = "default";

/// An adapter of one model, for as long as it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterId(u32);

/// Which adapter counts in a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseAdapter {
    /// None: the base model.
    Base,
    /// The active one, if there is one.
    #[default]
    Active,
    /// This one.
    Id(AdapterId),
}

/// An attached adapter.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) id: AdapterId,
    name: String,
    pub(crate) config: AdapterConfig,
    pub(crate) trained: bool,
    /// By their names in files.
    variables: BTreeMap<String, Var>,
}

impl Slot {
    /// Positions its prefix takes.
    pub(crate) fn prefix_len(&self) -> usize {
        match &self.config {
            AdapterConfig::PrefixTuning(config) => config.num_virtual_tokens,
            _ => 0,
        }
    }

    /// Its tensors, under names that tell them from those of other adapters.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, &Var)> {
        let label = label(&self.name);
        self.variables.iter().map(move |(name, var)| (format!("{label}{name}"), var))
    }
}

/// What stands before names of a named adapter's tensors.
fn label(name: &str) -> String {
    if name == DEFAULT_ADAPTER { String::new() } else { format!("{name}/") }
}

/// The adapters of a model.
#[derive(Clone, Default)]
pub(crate) struct Adapters {
    slots: Vec<Slot>,
    active: Option<AdapterId>,
    n_made: u32,
}

impl Adapters {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// # Errors
    /// An adapter that is not attached any more.
    pub(crate) fn chosen(&self, which: UseAdapter) -> Result<Option<&Slot>> {
        let id = match which {
            UseAdapter::Base => None,
            UseAdapter::Active => self.active,
            UseAdapter::Id(id) => Some(id),
        };
        let Some(id) = id else { return Ok(None) };
        match self.slots.iter().find(|slot| slot.id == id) {
            Some(slot) => Ok(Some(slot)),
            None => Err(ModelError::Input(format!("adapter {} is not attached", id.0))),
        }
    }

    fn named(&self, name: &str) -> Result<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.name == name)
            .ok_or_else(|| ModelError::Input(format!("no adapter `{name}` is attached")))
    }
}

impl Model {
    /// Attaches a new adapter, and makes it the active one. It changes nothing yet, but for a prefix, which starts as
    /// PEFT's does. From now on the weights are frozen, and the tensors of all attached adapters are what is trained.
    ///
    /// # Errors
    /// A configuration that is not supported, does not go with the model or selects nothing, a name that is in use, or
    /// a projected prefix, which cannot be trained.
    pub fn attach(
        &mut self,
        name: &str,
        config: impl Into<AdapterConfig>,
        seed: u64,
    ) -> Result<AdapterId> {
        let mut config = config.into();
        if let AdapterConfig::PrefixTuning(prefix) = &config
            && prefix.prefix_projection
        {
            let message = "a prefix is trained without projection; set it to false";
            return Err(ModelError::adapter("prefix_projection", message));
        }
        let plan = Plan::new(&mut config, self.config(), &|_| false)?;
        let device = self.device().clone();
        let label = label(name);
        let variables = plan
            .tensors
            .iter()
            .map(|(key, stored)| {
                let mut stream = Stream::new(seed, &format!("{label}{}", stored.stream));
                Ok((key.clone(), stored.new_variable(&mut stream, &device)?))
            })
            .collect::<Result<_>>()?;
        self.install(name, config, &plan, variables)
    }

    /// [`Self::attach`] of a LoRA adapter under the default name.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<AdapterId> {
        self.attach(DEFAULT_ADAPTER, config.clone(), seed)
    }

    /// Takes an adapter off again. Weights and other adapters are as they were before it came.
    ///
    /// # Errors
    /// No adapter of that name.
    pub fn detach(&mut self, name: &str) -> Result<()> {
        let id = self.adapters.named(name)?.id;
        for linear in self.linears_mut() {
            linear.terms.remove(id);
        }
        for prefixes in self.prefixes_mut() {
            prefixes.remove(id);
        }
        self.adapters.slots.retain(|slot| slot.id != id);
        if self.adapters.active == Some(id) {
            self.adapters.active = None;
        }
        Ok(())
    }

    /// Makes an adapter the active one, or none.
    ///
    /// # Errors
    /// No adapter of that name.
    pub fn activate(&mut self, name: Option<&str>) -> Result<()> {
        self.adapters.active = match name {
            Some(name) => Some(self.adapters.named(name)?.id),
            None => None,
        };
        Ok(())
    }

    /// Whether an adapter is trained; all are unless said otherwise.
    ///
    /// # Errors
    /// No adapter of that name, or training a projected prefix, of which the network is not stored.
    pub fn set_trained(&mut self, name: &str, trained: bool) -> Result<()> {
        let id = self.adapters.named(name)?.id;
        for slot in self.adapters.slots.iter_mut().filter(|slot| slot.id == id) {
            if trained && !can_be_trained(&slot.config) {
                let message = "a projected prefix cannot be trained: its network is not stored";
                return Err(ModelError::adapter("prefix_projection", message));
            }
            slot.trained = trained;
        }
        Ok(())
    }

    /// The adapter of that name.
    pub fn adapter(&self, name: &str) -> Option<AdapterId> {
        self.adapters.named(name).ok().map(|slot| slot.id)
    }

    /// The names of all attached adapters, in the order in which they came.
    pub fn adapter_names(&self) -> Vec<&str> {
        self.adapters.iter().map(|slot| slot.name.as_str()).collect()
    }

    /// The active adapter's configuration.
    pub fn adapter_config(&self) -> Option<&AdapterConfig> {
        self.adapters.chosen(UseAdapter::Active).ok().flatten().map(|slot| &slot.config)
    }

    /// Puts an adapter's tensors in their places.
    fn install(
        &mut self,
        name: &str,
        config: AdapterConfig,
        plan: &Plan,
        variables: BTreeMap<String, Var>,
    ) -> Result<AdapterId> {
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(ModelError::Input(format!("`{name}` cannot be the name of an adapter")));
        }
        if self.adapters.named(name).is_ok() {
            return Err(ModelError::Input(format!(
                "an adapter `{name}` is attached already; detach it first"
            )));
        }
        let id = AdapterId(self.adapters.n_made);
        self.adapters.n_made += 1;
        let label = label(name);
        let stream = |module: &str| {
            label.bytes().chain(module.bytes()).fold(0, |key, byte| mix(key ^ u64::from(byte)))
        };
        let dropout = match &config {
            AdapterConfig::Lora(config) => config.lora_dropout,
            AdapterConfig::Ia3(_) => 0.0,
            AdapterConfig::PrefixTuning(config) => config.dropout,
        } as f32;
        for linear in self.linears_mut() {
            let stream = stream(&linear.name);
            let Some(term) = plan.term(&linear.name, &variables, dropout, stream) else { continue };
            linear.terms.put(id, term);
        }
        for (layer, prefixes) in self.prefixes_mut().enumerate() {
            let stream = stream(&format!("{PROMPT}.{layer}"));
            if let Some(prefix) = plan.prefix_of(layer, &variables, dropout, stream) {
                prefixes.put(id, prefix);
            }
        }
        let trained = can_be_trained(&config);
        self.adapters.slots.push(Slot { id, name: name.to_owned(), config, trained, variables });
        self.adapters.active = Some(id);
        Ok(id)
    }
}

fn can_be_trained(config: &AdapterConfig) -> bool {
    !matches!(config, AdapterConfig::PrefixTuning(prefix) if prefix.prefix_projection)
}

impl Stored {
    fn new_variable(&self, stream: &mut Stream, device: &Device) -> Result<Var> {
        let n: usize = self.shape.iter().product();
        let mut random = |of: &mut dyn FnMut(&mut Stream) -> f64| -> Result<Var> {
            let values: Vec<f32> = (0..n).map(|_| of(stream) as f32).collect();
            Ok(Var::from_vec(values, self.shape.as_slice(), device)?)
        };
        match self.start {
            Start::Zeros => Ok(Var::zeros(self.shape.as_slice(), DType::F32, device)?),
            Start::Ones => Ok(Var::ones(self.shape.as_slice(), DType::F32, device)?),
            Start::Uniform(bound) => random(&mut |stream| (2.0 * stream.uniform() - 1.0) * bound),
            Start::Normal => random(&mut Stream::normal),
        }
    }
}
