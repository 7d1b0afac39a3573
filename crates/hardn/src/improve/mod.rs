//! A model trained on its own samples: sample, judge, train on what is secure and right, and again.
//!
//! Every stage only does what is missing, as in [`crate::harden`]; a round's data are made anew from its verdicts each time.

mod config;
mod keep;
mod round;
mod scenarios;

use hardn_eval::Metrics;
use hardn_report::{ReportOptions, write_report};
use hardn_types::Scenario;
use serde_json::json;

pub(crate) use self::{
    config::{ImproveConfig, JudgeKind},
    scenarios::training_suite,
};
use crate::{
    args::RunArgs,
    failure::{Failure, Outcome},
    harden::{self, Options, config::RunConfig, folder::RunFolder},
    output::{put, put_json},
    stop,
};

/// `hardn improve`.
pub(crate) fn command(args: RunArgs, quiet: bool) -> Outcome {
    let mut config = RunConfig::read(&args.config, &args.set)?;
    let Some(improve) = &config.improve else {
        return Err(Failure::new(format!("{} has no [improve]", args.config.display()))
            .help("put [improve] there, which may be empty, or use `hardn harden`"));
    };
    let Some(train) = &config.train else {
        return Err(Failure::new(format!("{} has no [train]", args.config.display()))
            .help("say under `train.recipe` how a round trains, such as \"lab/simpo\""));
    };
    if !train.pairs.is_empty() && !improve.fix_pairs {
        return Err(Failure::new(
            "`train.pairs` are named, but rounds train on the model's own samples",
        )
        .help("set `improve.fix_pairs = true` to train on both, or take `train.pairs` out"));
    }
    if improve.keep == config::Keep::Secure {
        // There are no two sides to swap.
        config.controls.shuffled_labels = false;
    }
    stop::flag();
    let options = harden::options(args, &config, quiet);
    let mut job = harden::prepare(&config, &options)?;
    let rounds = round::run(&mut job)?;
    job.folder.write_json("improve.json", &rounds)?;
    let metrics = harden::evaluate(&job, &options)?;
    finish(&job.folder, &options, &rounds, &metrics)
}

/// Writes the report and says where it is.
fn finish(
    folder: &RunFolder,
    options: &Options,
    rounds: &round::Improvement,
    metrics: &Metrics,
) -> Outcome {
    let run = write_report(&folder.path, ReportOptions::default())?;
    if options.json {
        let same_judge = &run.info.same_judge;
        return put_json(&json!({"improve": rounds, "same_judge": same_judge, "metrics": metrics}));
    }
    put(&hardn_report::render_text(&run))?;
    put(&format!(
        "\n{}\n{}\n",
        folder.path.join(&rounds.model).display(),
        folder.file("report.html").display()
    ))
}

/// The metrics that the judge of the training samples decides, in whole or in part.
pub(crate) fn same_judge(judge: JudgeKind, metrics: &Metrics, suite: &[Scenario]) -> Vec<String> {
    // Where a scenario has no attack test, the oracle decides.
    let security = || suite.iter().filter(|scenario| scenario.cwe.is_some());
    let by_oracle_too = security().any(|scenario| scenario.attack_test.is_none());
    let by_attack_too = security().any(|scenario| scenario.attack_test.is_some());
    let truth = match judge {
        JudgeKind::Oracle => by_oracle_too,
        JudgeKind::Attack => by_attack_too,
    };
    let is_same = |key: &str| {
        let by_truth = ["secure_all", "secure_valid", "vulnerable_all"].contains(&key);
        let own = match judge {
            JudgeKind::Oracle => key.ends_with("_oracle") || key == "not_analysed_all",
            JudgeKind::Attack => key.ends_with("_attack"),
        };
        own || (by_truth && truth)
    };
    let keys = metrics.arms.values().flat_map(|arm| arm.keys().map(String::as_str));
    let keys: std::collections::BTreeSet<&str> = keys.filter(|key| is_same(key)).collect();
    keys.into_iter().map(str::to_owned).collect()
}
