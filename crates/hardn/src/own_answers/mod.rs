//! A utility set of a model's own answers: what it can do already, kept where tests say that it is right.

mod tasks;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use hardn_code::cut;
use hardn_decode::{DecoderConfig, LocalGenerator, StopRule};
use hardn_eval::{Record, RecordKey, SandboxTrials, Store, TrialKind, TrialRunner};
use hardn_models::{DecodeModel, GenerationConfig};
use hardn_train::UtilityItem;
use hardn_types::{CutRule, Prompt, Sample, TestVerdict, write_jsonl};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::tasks::{Task, read_tasks};
use crate::{
    args::DataUtilityArgs,
    assets::{load_model_as, load_tokenizer, model_folder},
    failure::{Failure, Outcome},
    limits::limits,
    output::{Progress, put, put_json, say},
    stop,
};

/// Tasks whose answers are drawn, then tested, together: what a kill can lose.
const TOGETHER: usize = 16;

/// An answer and what its tests said.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    task: String,
    sample: u32,
    /// Hash of what determined it.
    key: String,
    /// Cut.
    text: String,
    /// None where program and tests do not compile together.
    verdict: Option<TestVerdict>,
}

impl Record for Answer {
    fn record_key(&self) -> RecordKey {
        RecordKey { arm: String::new(), task: self.task.clone(), index: self.sample }
    }

    fn determined_by(&self) -> &str {
        &self.key
    }
}

/// Draws, tests, and writes what is kept. Answers stand in a record beside the output, so that a run that was stopped goes
/// on where it was, and the output is there whole or not at all.
pub(crate) fn run(args: &DataUtilityArgs, quiet: bool) -> Outcome {
    let mut tasks: Vec<Task> = Vec::new();
    for path in &args.tasks {
        for task in read_tasks(path)? {
            if tasks.iter().any(|other| other.id == task.id) {
                return Err(Failure::new(format!("two tasks have the id `{}`", task.id)));
            }
            tasks.push(task);
        }
    }
    let trials = SandboxTrials::new(limits())?;
    let tokenizer = Arc::new(load_tokenizer(&args.model)?);
    let model = load_model_as(&args.model, None, args.base_weights)?;
    let fingerprint = model.fingerprint()?;
    let ends = GenerationConfig::load(&model_folder(&args.model)?)?.end_tokens(None, &tokenizer);
    let packed = Arc::new(DecodeModel::with_weights(&model, args.dtype)?);
    drop(model);
    let decoder = DecoderConfig::load(&args.decoder, &args.set)?;
    let described = decoder.canonical();
    let rules: std::collections::BTreeMap<String, StopRule> =
        tasks.iter().map(|task| (task.id.clone(), stop_rule(task))).collect();
    let generator =
        LocalGenerator::new(packed, tokenizer, fingerprint.clone(), decoder, args.seed)?
            .with_stop_rules(move |prompt| rules.get(&prompt.task).copied().unwrap_or_default())
            .with_end_tokens(ends)
            .with_stop(stop::flag());

    let mut store: Store<Answer> = Store::open(&record_path(&args.out))?;
    let prompt_of = |task: &Task, indices: Vec<u32>| Prompt {
        task: task.id.clone(),
        text: task.prompt.clone(),
        indices,
    };
    let key_of = |task: &Task, sample| {
        // The tests decide, too.
        let drawn = generator.key(&prompt_of(task, Vec::new()), sample);
        let judged = (&drawn, &task.tests, &task.stop, task.cut, task.language);
        hash(&serde_json::to_vec(&judged).unwrap_or_default())
    };
    let keys: BTreeSet<String> = tasks
        .iter()
        .flat_map(|task| (0..args.n).map(move |i| (task, i)))
        .map(|(t, i)| key_of(t, i))
        .collect();
    store.retain(|answer| keys.contains(&answer.key));
    let total = tasks.len() * args.n as usize;
    let mut progress = Progress::new("own answers", "samples", total as u64, quiet);
    let mut done = store.rows().len();
    progress.start_at(done as u64);
    for tasks in tasks.chunks(TOGETHER) {
        let missing = |task: &Task| -> Vec<u32> {
            let is_there = |i: &u32| {
                let at = RecordKey { arm: String::new(), task: task.id.clone(), index: *i };
                store.rows().contains_key(&at)
            };
            (0..args.n).filter(|i| !is_there(i)).collect()
        };
        let prompts: Vec<Prompt> = tasks
            .iter()
            .map(|task| prompt_of(task, missing(task)))
            .filter(|prompt| !prompt.indices.is_empty())
            .collect();
        let mut samples: Vec<Sample> = Vec::new();
        let drawn = generator.draw_samples("", &prompts, &mut |sample| {
            samples.push(sample);
            Ok(())
        });
        if stop::requested() {
            return Err(Failure::interrupted(format!(
                "{done} of {total} answers are judged; run the same command to go on"
            )));
        }
        drawn?;
        let judge = |sample: &Sample| -> Outcome<Option<Answer>> {
            let Some(task) = tasks.iter().find(|task| task.id == sample.task) else {
                return Ok(None);
            };
            let text = cut_answer(task, &sample.text);
            let program = format!("{}{text}", task.prompt);
            let verdict = trials.run(&program, &task.tests, task.language, TrialKind::Function)?;
            let key = key_of(task, sample.index);
            Ok(Some(Answer { task: task.id.clone(), sample: sample.index, key, text, verdict }))
        };
        for answer in
            samples.par_iter().map(judge).collect::<Outcome<Vec<_>>>()?.into_iter().flatten()
        {
            store.append(answer)?;
            done += 1;
        }
        progress.set(done as u64, "");
    }
    progress.finish(&format!("{done} answers"));
    let answers = store.canonicalise()?;

    let provenance = |answer: &Answer, task: &Task| {
        json!({
            "model": fingerprint, "decoder": described, "seed": args.seed, "sample": answer.sample,
            "prompt_sha256": hash(task.prompt.as_bytes()), "key": answer.key,
        })
    };
    let (rows, counts) = kept(&tasks, &answers, args.keep, provenance)?;
    write_jsonl(&args.out, &rows)?;
    if rows.is_empty() {
        say("note: no answer passed its tests, so that the file has no row");
    }
    if args.json {
        return put_json(&counts);
    }
    let object = counts.as_object().into_iter().flatten();
    for (name, n) in object {
        put(&format!("{n:>8}  {}\n", name.replace('_', " ")))?;
    }
    put(&format!("{}\n", args.out.display()))
}

/// Rows of the answers that passed, each text of a task once and at most `keep` of a task (0: all), and the counts.
fn kept(
    tasks: &[Task],
    answers: &[Answer],
    keep: usize,
    provenance: impl Fn(&Answer, &Task) -> Value,
) -> Outcome<(Vec<Value>, Value)> {
    let mut rows = Vec::new();
    let (mut passed, mut duplicates, mut beyond, mut tasks_with) = (0, 0, 0, 0);
    for task in tasks {
        let mut texts = BTreeSet::new();
        let own = answers.iter().filter(|answer| answer.task == task.id);
        for answer in own.filter(|answer| answer.verdict == Some(TestVerdict::Passed)) {
            passed += 1;
            if texts.contains(&answer.text) {
                duplicates += 1;
                continue;
            }
            if keep > 0 && texts.len() == keep {
                beyond += 1;
                continue;
            }
            texts.insert(&answer.text);
            let item = UtilityItem {
                id: format!("{}#{}", task.id, answer.sample),
                prompt: task.prompt.clone(),
                completion: answer.text.clone(),
                instruction: task.instruction.clone(),
                language: Some(task.language),
                ..UtilityItem::default()
            };
            let mut row = serde_json::to_value(item)?;
            row["provenance"] = provenance(answer, task);
            rows.push(row);
        }
        tasks_with += usize::from(!texts.is_empty());
    }
    let count = |verdict| answers.iter().filter(|answer| answer.verdict == verdict).count();
    let counts = json!({
        "tasks": tasks.len(),
        "answers": answers.len(),
        "passed": passed,
        "failed": count(Some(TestVerdict::Failed)),
        "timed_out": count(Some(TestVerdict::Timeout)),
        "did_not_compile": count(None),
        "duplicates": duplicates,
        "beyond_keep": beyond,
        "kept": rows.len(),
        "tasks_with_an_answer": tasks_with,
    });
    Ok((rows, counts))
}

/// Cut before the first stop text, then by the task's rule.
fn cut_answer(task: &Task, text: &str) -> String {
    let end = task.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
    cut(&task.prompt, &text[..end.unwrap_or(text.len())], task.language, task.cut)
}

/// Where generation may end early: only where cutting would cut there too.
fn stop_rule(task: &Task) -> StopRule {
    match task.cut {
        CutRule::Function => StopRule::of(task.language),
        CutRule::Sven | CutRule::None => StopRule::None,
    }
}

/// The record of all answers: `FILE.answers.jsonl` beside `FILE.jsonl`.
fn record_path(out: &std::path::Path) -> PathBuf {
    out.with_extension("answers.jsonl")
}

fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_kept_once() {
        let task = |id: &str| Task {
            id: id.to_owned(),
            prompt: "def f():\n".to_owned(),
            instruction: String::new(),
            tests: String::new(),
            language: hardn_types::Language::Python,
            stop: vec!["\nassert".to_owned()],
            cut: CutRule::Function,
        };
        let answer = |task: &str, sample, text: &str, verdict| Answer {
            task: task.to_owned(),
            sample,
            key: String::new(),
            text: text.to_owned(),
            verdict,
        };
        let passed = Some(TestVerdict::Passed);
        let answers = [
            answer("a", 0, "x", passed),
            answer("a", 1, "x", passed),
            answer("a", 2, "y", passed),
            answer("a", 3, "z", Some(TestVerdict::Failed)),
            answer("b", 0, "x", None),
        ];
        let tasks = [task("a"), task("b")];
        let check = |keep, ids: &[&str], beyond: u64| {
            let (rows, counts) = kept(&tasks, &answers, keep, |_, _| Value::Null).unwrap();
            let found: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
            assert_eq!(found, ids);
            let shown = ["duplicates", "beyond_keep", "did_not_compile", "tasks_with_an_answer"];
            assert_eq!(shown.map(|name| counts[name].as_u64().unwrap()), [1, beyond, 1, 1]);
        };
        check(0, &["a#0", "a#2"], 0);
        check(1, &["a#0"], 1);
        let text = "    return 1\nassert f()\ndef g():\n    pass\n";
        assert_eq!(cut_answer(&task("a"), text), "    return 1\n");
    }
}
