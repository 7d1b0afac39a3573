//! `hardn train`: one training by a recipe.

use hardn_train::Recipe;

use crate::{
    args::TrainArgs,
    assets::{load_model_as, load_tokenizer},
    failure::Outcome,
    harden::{
        config::{Controls, EvalConfig, RunConfig, TrainConfig},
        inputs,
        training::{Data, Request, train_arm},
    },
    output::{put, put_json, say},
};

pub(crate) fn run(args: TrainArgs, quiet: bool) -> Outcome {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let config = RunConfig {
        title: None,
        model: args.model.clone(),
        seed: 1,
        out: None,
        world: None,
        train: Some(TrainConfig {
            recipe: args.recipe.clone(),
            set: std::collections::BTreeMap::new(),
            pairs: args.pairs.clone(),
            validation_pairs: args.validation_pairs.clone(),
            utility: args.utility.clone(),
        }),
        eval: EvalConfig::default(),
        controls: Controls::default(),
    };
    let inputs = inputs::read(&config, &recipe.data.columns)?;
    for note in &inputs.notes {
        say(&format!("note: {note}"));
    }
    let (_, trained) = train_arm(&Request {
        base: &load_model_as(&args.model, None, args.base_weights)?,
        tokenizer: &load_tokenizer(&args.model)?,
        recipe: &recipe,
        inputs: &inputs,
        data: Data::AsGiven,
        seed: 1,
        folder: &args.out,
        name: "training",
        quiet,
    })?;
    let record = trained.record("training");
    if args.json {
        return put_json(&record);
    }
    for (title, counts) in [("kept", &record.kept), ("dropped", &record.dropped)] {
        for (name, n) in counts {
            put(&format!("{title:>8} {n:>6}  {name}\n"))?;
        }
    }
    put(&format!("{}\n", args.out.display()))
}
