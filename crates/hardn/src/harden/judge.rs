//! From samples to verdicts, and from verdicts to metrics.

use std::collections::BTreeMap;

use hardn_eval::{
    Deduplication, MetricOptions, Metrics, SandboxTrials, ScoreProgress, Scorer, Store,
    TrialRunner, metrics,
};
use hardn_oracle::Oracle;
use hardn_types::{Judge, Sample, Scenario, Verdict};

use super::{
    config::{Dedup, RunConfig},
    folder::RunFolder,
    inputs::Inputs,
    preference::PreferenceRows,
    say_resumed, stopped_or,
};
use crate::{failure::Outcome, limits::limits, output::Progress, stop};

/// Verdicts, and what they were made with.
pub(crate) struct Judged {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) tools: BTreeMap<String, String>,
}

/// What verdicts are made with here.
pub(crate) fn tools() -> Outcome<BTreeMap<String, String>> {
    Ok(tools_of(&Oracle::embedded(), &SandboxTrials::new(limits())?))
}

fn tools_of(oracle: &Oracle, trials: &SandboxTrials) -> BTreeMap<String, String> {
    let mut tools = hardn_sandbox::tool_versions();
    tools.insert("oracle".to_owned(), oracle.name());
    tools.insert("sandbox".to_owned(), trials.sandbox().tier());
    tools
}

/// Judges what has not been judged.
pub(crate) fn judge(
    suite: &[Scenario],
    samples: &[Sample],
    dedup: Dedup,
    folder: &RunFolder,
    quiet: bool,
) -> Outcome<Judged> {
    judge_with(suite, samples, dedup, folder, quiet, std::collections::BTreeSet::new())
}

/// As [`judge`], with the samples (task, index) that are programs by themselves.
pub(crate) fn judge_with(
    suite: &[Scenario],
    samples: &[Sample],
    dedup: Dedup,
    folder: &RunFolder,
    quiet: bool,
    whole: std::collections::BTreeSet<(String, u32)>,
) -> Outcome<Judged> {
    let oracle = Oracle::embedded();
    let trials = SandboxTrials::new(limits())?;
    let tools = tools_of(&oracle, &trials);
    let mut store: Store<Verdict> = Store::open(&folder.file("verdicts.jsonl"))?;
    let known: BTreeMap<(&str, &str, u32), &str> = samples
        .iter()
        .map(|sample| {
            ((sample.arm.as_str(), sample.task.as_str(), sample.index), sample.key.as_str())
        })
        .collect();
    store.retain(|verdict| {
        let key = (verdict.arm.as_str(), verdict.task.as_str(), verdict.index);
        known.get(&key).is_some_and(|key| *key == verdict.key)
    });
    let already = store.to_vec();
    say_resumed("verdicts", already.len(), samples.len(), quiet);
    let dedup = match dedup {
        Dedup::None => Deduplication::None,
        Dedup::Sven => Deduplication::Sven,
    };
    let runner: &dyn TrialRunner = &trials;
    let scorer = Scorer::new(suite, &oracle, Some(runner), dedup)?.with_whole_programs(whole);
    let progress =
        std::sync::Mutex::new(Progress::new("judging", "samples", samples.len() as u64, quiet));
    let on_progress = |now: ScoreProgress| {
        if let Ok(mut bar) = progress.lock() {
            bar.set(now.done as u64, "");
        }
    };
    let result = scorer.score(
        samples,
        &already,
        &mut |verdict| {
            store.append(verdict.clone())?;
            if stop::requested() { Err("stopped".into()) } else { Ok(()) }
        },
        &on_progress,
    );
    let verdicts = stopped_or(result, "judging samples")?;
    for verdict in &verdicts {
        store.append(verdict.clone())?;
    }
    store.canonicalise()?;
    if let Ok(bar) = progress.into_inner() {
        bar.finish(&format!("{} samples", samples.len()));
    }
    Ok(Judged { verdicts, tools })
}

/// Counts verdicts. What is shown over everything leaves out scenarios whose task family the fix pairs contain: they are a group
/// of their own.
pub(crate) fn count(
    suite: &[Scenario],
    verdicts: &[Verdict],
    config: &RunConfig,
    preferences: &BTreeMap<String, PreferenceRows>,
) -> Metrics {
    let protocol = match config.eval.dedup {
        Dedup::None => {
            "pooled over samples; duplicates count; contexts of the fix pairs left out of the headline"
        }
        Dedup::Sven => {
            "pooled over samples; duplicates of valid samples left out (SVEN's order: cut, compare, parse)"
        }
    };
    let options = MetricOptions { tests: true, seed: config.seed, protocol: protocol.to_owned() };
    let unseen: Vec<Scenario> =
        suite.iter().filter(|scenario| scenario.tags.seen_context != Some(true)).cloned().collect();
    let mut headline = metrics(verdicts, &unseen, &options);
    let everything = metrics(verdicts, suite, &options);
    for (group, arms) in everything.groups {
        headline.groups.entry(group).or_insert(arms);
    }
    headline.scenarios = everything.scenarios;
    headline.n_ignored = everything.n_ignored;
    for (arm, sets) in preferences {
        let mut all = BTreeMap::new();
        for (set, rows) in sets {
            headline.insert(arm, &format!("preference_{}", metric_name(set)), rows, config.seed);
            all.extend(rows.iter().map(|(cluster, row)| (format!("{set}:{cluster}"), *row)));
        }
        if !all.is_empty() {
            headline.insert(arm, "preference", &all, config.seed);
        }
    }
    headline
}

/// Lower case, with underscores for everything that is no letter or digit.
fn metric_name(set: &str) -> String {
    let name: String = set
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    name.trim_matches('_').to_owned()
}

/// Takes scenarios out of the suite whose language has no validity check here, and says so.
pub(crate) fn leave_out_unchecked(inputs: &mut Inputs) {
    let before = inputs.suite.len();
    let mut languages = std::collections::BTreeSet::new();
    inputs.suite.retain(|scenario| {
        let checked = hardn_code::is_checked(scenario.language);
        if !checked {
            languages.insert(scenario.language.name());
        }
        checked
    });
    if inputs.suite.len() < before {
        let languages: Vec<_> = languages.into_iter().collect();
        inputs.notes.push(format!(
            "{} scenarios were left out: there is no validity check yet for {}.",
            before - inputs.suite.len(),
            languages.join(", ")
        ));
    }
}
