//! `hardn eval`: samples to verdicts to metrics, without training.

use std::{collections::BTreeMap, path::Path};

use hardn_eval::read_samples;
use hardn_types::{Arm, DataSource, Role, RunInfo, Scenario, Split};
use serde_json::json;

use crate::{
    args::EvalArgs,
    failure::{Failure, Outcome},
    harden::{
        self, Options,
        config::{Controls, EvalConfig, RunConfig, WorldConfig},
        folder::RunFolder,
        inputs::{self, Inputs},
        judge,
    },
    output::say,
};

pub(crate) fn run(args: EvalArgs, quiet: bool) -> Outcome {
    let options =
        Options { out: args.out.clone(), fresh: args.fresh, reuse: None, json: args.json, quiet };
    if let Some(path) = &args.config {
        let mut config = RunConfig::read(path, &args.set)?;
        (config.train, config.improve) = (None, None);
        return harden::run(&config, &options);
    }
    match (&args.samples, &args.suite) {
        (Some(samples), Some(suite)) => foreign(samples, suite, args.split.as_deref(), &options),
        _ => {
            Err(Failure::new("say what to evaluate")
                .help("give RUN.toml, or --samples and --suite"))
        }
    }
}

/// Judges samples made elsewhere.
fn foreign(path: &Path, suite_name: &str, split: Option<&str>, options: &Options) -> Outcome {
    let mut inputs = Inputs { suite: suite(suite_name, split)?, ..Inputs::default() };
    judge::leave_out_unchecked(&mut inputs);
    let read = read_samples(path, "samples", &inputs.suite)?;
    for (line, why) in read.bad_rows.iter().take(5) {
        say(&format!("{} line {line} is left out: {why}", path.display()));
    }
    if !read.bad_rows.is_empty() {
        inputs.notes.push(format!(
            "{} rows of the samples could not be used; the first: {}",
            read.bad_rows.len(),
            read.bad_rows[0].1
        ));
    }
    if !read.without_samples.is_empty() {
        inputs
            .notes
            .push(format!("{} scenarios of the suite have no sample", read.without_samples.len()));
    }
    if read.samples.is_empty() {
        return Err(Failure::new(format!("{} holds no usable sample", path.display()))
            .help("rows are {\"task_id\", \"completion\" or \"solution\", \"sample\"?}, and task_id must be an id of the suite"));
    }
    let sources = vec![
        DataSource {
            purpose: "samples".to_owned(),
            name: inputs::set_name(path),
            rows: read.samples.len(),
            sha256: inputs::digest(&read.samples)?,
            notes: Vec::new(),
        },
        DataSource {
            purpose: "suite".to_owned(),
            name: inputs::set_name(Path::new(suite_name)),
            rows: inputs.suite.len(),
            sha256: inputs::digest(&inputs.suite)?,
            notes: Vec::new(),
        },
    ];
    let folder = RunFolder::open(&options.out, &json!({"data": sources}), options.fresh)?;
    folder.write_rows("suite.jsonl", &inputs.suite)?;
    folder.write_rows("samples.jsonl", &read.samples)?;
    let config = RunConfig {
        title: None,
        model: "samples".to_owned(),
        seed: 1,
        out: None,
        world: None,
        train: None,
        improve: None,
        eval: EvalConfig::default(),
        decoding: Vec::new(),
        controls: Controls::NONE,
    };
    let dedup = config.eval.dedup;
    let judged = judge::judge_with(
        &inputs.suite,
        &read.samples,
        dedup,
        &folder,
        options.quiet,
        read.whole_programs,
    )?;
    let metrics = judge::count(&inputs.suite, &judged.verdicts, &config, &BTreeMap::new());
    let info = RunInfo {
        title: format!("{} on {}", inputs::set_name(path), inputs::set_name(Path::new(suite_name))),
        lab: suite_name == "lab",
        hardn: env!("CARGO_PKG_VERSION").to_owned(),
        seed: 1,
        model: BTreeMap::new(),
        config: json!({"samples": inputs::set_name(path), "suite": inputs::set_name(Path::new(suite_name))}),
        arms: vec![Arm {
            id: "samples".to_owned(),
            title: "samples".to_owned(),
            description: "samples made elsewhere".to_owned(),
            role: Role::Base,
            fingerprint: sources[0].sha256.clone(),
        }],
        data: sources,
        training: Vec::new(),
        tools: judged.tools,
        notes: inputs.notes,
        same_judge: Vec::new(),
    };
    folder.write_json("run.json", &info)?;
    folder.write_json("metrics.json", &metrics)?;
    harden::finish(&folder, options, &metrics)
}

/// A suite by name: the lab's, a file, or a published folder.
fn suite(name: &str, split: Option<&str>) -> Outcome<Vec<Scenario>> {
    let split: Option<Split> = split
        .map(|text| serde_json::from_value(json!(text)))
        .transpose()
        .map_err(|_| Failure::new("--split is train, val or test"))?;
    let all = if name == "lab" {
        let world = inputs::world(&WorldConfig::default())?;
        world.scenarios.into_iter().chain(world.tasks).collect()
    } else {
        hardn_code::read_scenarios(Path::new(name))?
    };
    let kept: Vec<Scenario> =
        all.into_iter().filter(|s| split.is_none_or(|split| s.split == split)).collect();
    if kept.is_empty() {
        return Err(Failure::new(format!("the suite `{name}` has no scenario of that split")));
    }
    Ok(kept)
}
