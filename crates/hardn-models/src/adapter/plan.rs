//! From a configuration to the tensors an adapter has and the places they go to.

use std::collections::BTreeMap;

use candle_core::Var;
use serde_json::json;

use super::{
    AdapterConfig, Ia3Config, LoraConfig, PrefixTuningConfig, TargetModules,
    ia3::Side,
    lora::{LoraSelection, Rank},
    prefix::PrefixLayout,
    targets::is_or_ends_in,
    term::{Cut, Ia3, Lora, Piece, Prefix, Term},
};
use crate::{
    ModelConfig, ModelError, Result,
    config::spec::{DenseSpec, ExpertsSpec, LayerSpec, LinearSpec, MlpSpec},
};

/// What PEFT puts before a module's name.
pub(super) const PREFIX: &str = "base_model.model.";

/// The one tensor of a prefix.
pub(super) const PROMPT: &str = "prompt_embeddings";

/// How a new tensor is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    Zeros,
    Ones,
    /// Uniform between minus and plus this.
    Uniform(f64),
    /// Normal with standard deviation 1.
    Normal,
}

/// A tensor of an adapter.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) start: Start,
    /// What its random numbers are drawn for.
    pub(super) stream: String,
}

/// What a linear layer gets, with the names of its tensors.
#[derive(Debug)]
pub(super) enum Place {
    Lora { a: (String, Cut), b: (String, Cut), scale: f64 },
    Ia3 { vector: String, side: Side },
}

/// Everything an adapter adds to a model.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By their names in files.
    pub(super) tensors: BTreeMap<String, Stored>,
    /// By module.
    pub(super) places: BTreeMap<String, Place>,
    pub(super) prefix: Option<PrefixLayout>,
}

impl Plan {
    /// What `config` adds to a model. Sizes that the configuration leaves open are filled in.
    ///
    /// `in_file`: the names of the tensors of a stored adapter. Routed experts are adapted one by one only where a file
    /// does it; transformers 5 keeps the experts of a layer in common tensors, which `target_parameters` names.
    ///
    /// # Errors
    /// Keys that are not supported, that select nothing, or do not go with the model.
    pub(super) fn new(
        config: &mut AdapterConfig,
        model: &ModelConfig,
        in_file: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        super::defaults::resolve(config, model);
        let mut plan = Self::default();
        match config {
            AdapterConfig::Lora(config) => plan.lora(config, model, in_file)?,
            AdapterConfig::Ia3(config) => plan.ia3(config, model, in_file)?,
            AdapterConfig::PrefixTuning(config) => plan.prefix(config, model)?,
        }
        Ok(plan)
    }

    /// What a linear layer gets; `stream` tells its dropout from others'.
    pub(crate) fn term(
        &self,
        module: &str,
        variables: &BTreeMap<String, Var>,
        dropout: f32,
        stream: u64,
    ) -> Option<Term> {
        let piece = |(name, cut): &(String, Cut)| Piece { var: variables[name].clone(), cut: *cut };
        Some(match self.places.get(module)? {
            Place::Lora { a, b, scale } => {
                Term::Lora(Lora { a: piece(a), b: piece(b), scale: *scale, dropout, stream })
            }
            Place::Ia3 { vector, side } => {
                Term::Ia3(Ia3 { vector: variables[vector].clone(), side: *side })
            }
        })
    }

    /// The prefix of a layer, if this is one.
    pub(crate) fn prefix_of(
        &self,
        layer: usize,
        variables: &BTreeMap<String, Var>,
        dropout: f32,
        stream: u64,
    ) -> Option<Prefix> {
        let PrefixLayout { token_dim, width, .. } = self.prefix?;
        let starts = [2 * layer, 2 * layer + 1].map(|part| part * token_dim);
        Some(Prefix { embeddings: variables[PROMPT].clone(), starts, width, dropout, stream })
    }

    fn lora(
        &mut self,
        config: &mut LoraConfig,
        model: &ModelConfig,
        in_file: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let selection = config.selection()?;
        let mut is_transposed = false;
        for (linear, is_routed) in linears(model) {
            let is_output = linear.name == model.spec.head.name;
            let Some(rank) = selection.of(&linear.name, is_output)? else { continue };
            let [a, b] = ["A", "B"].map(|ab| format!("{PREFIX}{}.lora_{ab}.weight", linear.name));
            if is_routed && !in_file(&a) && !in_file(&b) {
                continue;
            }
            is_transposed |= linear.transposed;
            self.add_a(&a, rank.r, linear.input, &linear.name);
            self.add(&b, vec![linear.out, rank.r], Start::Zeros, &linear.name);
            let place = Place::Lora { a: (a, Cut::Whole), b: (b, Cut::Whole), scale: rank.scale };
            self.places.insert(linear.name.clone(), place);
        }
        self.experts(config, &selection, model)?;
        self.check_selected(&config.target_modules, model)?;
        if is_transposed {
            config.extra.entry("fan_in_fan_out").or_insert_with(|| json!(true));
        }
        Ok(())
    }

    /// The common tensors of a layer's experts, as transformers 5 names them.
    fn experts(
        &mut self,
        config: &LoraConfig,
        selection: &LoraSelection,
        model: &ModelConfig,
    ) -> Result<()> {
        let targets = config.target_parameters.as_deref().unwrap_or_default();
        if targets.is_empty() {
            return Ok(());
        }
        let error = |message: String| ModelError::adapter("target_parameters", message);
        if config.lora_dropout > 0.0 {
            let message = "must be 0 with `target_parameters`".to_owned();
            return Err(ModelError::adapter("lora_dropout", message));
        }
        let mut unused: Vec<&String> = targets.iter().collect();
        for layer in &model.spec.layers {
            let MlpSpec::Experts(moe) = &layer.mlp else { continue };
            let Some(module) = expert_module(moe) else { continue };
            let mut targeted = Vec::new();
            for parameter in ["gate_up_proj", "down_proj"] {
                let name = format!("{module}.{parameter}");
                let matching = |target: &&String| is_or_ends_in(&name, target);
                if targets.iter().any(|target| matching(&target)) {
                    unused.retain(|target| !matching(target));
                    targeted.push((parameter, selection.rank(&name)?));
                }
            }
            // PEFT wraps one around the other, the later one outside.
            for (depth, (parameter, rank)) in targeted.iter().rev().enumerate() {
                let inner = ".base_layer".repeat(depth);
                self.expert_parameter(&format!("{module}{inner}"), parameter, *rank, moe)
                    .map_err(|message| error(format!("`{module}.{parameter}`: {message}")))?;
            }
        }
        match unused.first() {
            Some(name) => Err(error(format!("`{name}` names no experts of this model"))),
            None => Ok(()),
        }
    }

    /// One common tensor: rank `r` for each expert, all in two matrices.
    fn expert_parameter(
        &mut self,
        stored: &str,
        parameter: &str,
        rank: Rank,
        moe: &ExpertsSpec,
    ) -> Result<(), String> {
        let n = moe.experts.len();
        let parts = |expert: &DenseSpec| -> Option<Vec<LinearSpec>> {
            Some(match parameter {
                "gate_up_proj" => vec![expert.gate.clone()?, expert.up.clone()],
                _ => vec![expert.down.clone()],
            })
        };
        let first = moe.experts.first().and_then(parts).ok_or("the experts have no gate")?;
        let (input, out) = (first[0].input, first.iter().map(|part| part.out).sum());
        let [a, b] = ["A", "B"].map(|ab| format!("{PREFIX}{stored}.lora_{ab}.weight"));
        self.add_a(&a, rank.r * n, input, stored);
        self.add(&b, vec![out, rank.r * n], Start::Zeros, stored);
        for (index, expert) in moe.experts.iter().enumerate() {
            let mut start = 0;
            for part in parts(expert).into_iter().flatten() {
                let place = Place::Lora {
                    a: (a.clone(), Cut::Rows { start: index * rank.r, len: rank.r }),
                    b: (b.clone(), Cut::Columns { first: index, step: n, start, len: part.out }),
                    scale: rank.scale,
                };
                start += part.out;
                if self.places.insert(part.name.clone(), place).is_some() {
                    return Err(format!("`{}` is also in `target_modules`", part.name));
                }
            }
        }
        Ok(())
    }

    fn ia3(
        &mut self,
        config: &mut Ia3Config,
        model: &ModelConfig,
        in_file: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let selection = config.selection()?;
        let mut is_transposed = false;
        for (linear, is_routed) in linears(model) {
            let is_output = linear.name == model.spec.head.name;
            let Some(side) = selection.of(&linear.name, is_output)? else { continue };
            let vector = format!("{PREFIX}{}.ia3_l", linear.name);
            if is_routed && !in_file(&vector) {
                continue;
            }
            is_transposed |= linear.transposed;
            let shape = match side {
                Side::Output => vec![linear.out, 1],
                Side::Input => vec![1, linear.input],
            };
            self.add(&vector, shape, Start::Ones, &linear.name);
            self.places.insert(linear.name.clone(), Place::Ia3 { vector, side });
        }
        self.check_selected(&config.target_modules, model)?;
        if is_transposed {
            config.extra.entry("fan_in_fan_out").or_insert_with(|| json!(true));
        }
        Ok(())
    }

    fn prefix(&mut self, config: &mut PrefixTuningConfig, model: &ModelConfig) -> Result<()> {
        let layout = config.resolve(model)?;
        let start = if config.zero_init { Start::Zeros } else { Start::Normal };
        let shape = vec![config.num_virtual_tokens, 2 * layout.layers * layout.token_dim];
        self.add(PROMPT, shape, start, PROMPT);
        self.prefix = Some(layout);
        Ok(())
    }

    /// A low-rank term's first matrix, which starts as PEFT's does.
    fn add_a(&mut self, name: &str, rows: usize, input: usize, stream: &str) {
        let bound = 1.0 / (input as f64).sqrt();
        self.add(name, vec![rows, input], Start::Uniform(bound), stream);
    }

    fn add(&mut self, name: &str, shape: Vec<usize>, start: Start, stream: &str) {
        let stored = Stored { shape, start, stream: stream.to_owned() };
        self.tensors.insert(name.to_owned(), stored);
    }

    fn check_selected(&self, targets: &TargetModules, model: &ModelConfig) -> Result<()> {
        let error = |message| Err(ModelError::adapter("target_modules", message));
        if let TargetModules::List(names) = targets
            && let Some(name) = names.iter().find(|name| is_or_ends_in(&model.spec.embed, name))
        {
            return error(format!("`{name}` is the embedding; only linear layers are adapted"));
        }
        if self.places.is_empty() {
            return error(format!("{} selects no module of this model", json!(targets)));
        }
        Ok(())
    }
}

/// Every linear layer, and whether it is a routed expert's.
fn linears(model: &ModelConfig) -> impl Iterator<Item = (&LinearSpec, bool)> {
    let of_layer = |layer: &'_ LayerSpec| match &layer.mlp {
        MlpSpec::Experts(moe) => expert_module(moe).map(|module| format!("{module}.")),
        MlpSpec::Dense(_) => None,
    };
    let blocks = model.spec.layers.iter().flat_map(move |layer| {
        let routed = of_layer(layer);
        layer.linears().into_iter().map(move |linear| {
            let is_routed = routed.as_ref().is_some_and(|module| linear.name.starts_with(module));
            (linear, is_routed)
        })
    });
    blocks.chain([(&model.spec.head, false)])
}

/// The module that holds a layer's routed experts.
fn expert_module(moe: &ExpertsSpec) -> Option<String> {
    let name = &moe.experts.first()?.up.name; // ..mlp.experts.0.up_proj
    let (expert, _) = name.rsplit_once('.')?;
    let (module, _) = expert.rsplit_once('.')?;
    Some(module.to_owned())
}
