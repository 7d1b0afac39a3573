//! `hardn demo`: the main job on the embedded lab.

use crate::{
    args::DemoArgs,
    failure::Outcome,
    harden::{
        self, Options,
        config::{Controls, EvalConfig, RunConfig, TrainConfig, WorldConfig},
    },
};

/// The model the demonstration hardens.
const MODEL: &str = "lab-1m";

pub(crate) fn run(args: DemoArgs, quiet: bool) -> Outcome {
    let model = args.model.unwrap_or_else(|| MODEL.to_owned());
    let config = RunConfig {
        title: Some(format!("{model} before and after hardening with SafeCoder")),
        model,
        seed: args.seed,
        out: None,
        world: Some(WorldConfig {
            path: args.world,
            seed: Some(args.world_seed),
            idioms: args.idioms,
        }),
        train: Some(TrainConfig::new("safecoder-lab")),
        improve: None,
        eval: EvalConfig { samples: args.samples.unwrap_or(10), ..EvalConfig::default() },
        decoding: Vec::new(),
        controls: Controls::default(),
    };
    harden::run(
        &config,
        &Options { out: args.out, fresh: args.fresh, reuse: None, json: args.json, quiet },
    )
}
