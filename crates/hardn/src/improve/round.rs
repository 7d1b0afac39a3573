//! The rounds: sample the model, judge, keep, train.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use hardn_code::MaskKind;
use hardn_decode::DecoderConfig;
use hardn_eval::Store;
use hardn_models::{DecodeModel, Model, SaveDtype};
use hardn_train::{AdapterRecipe, LossKind, Recipe, Trained};
use hardn_types::{FixPair, Sample};
use serde::Serialize;
use serde_json::Value;

use super::{
    config::{ImproveConfig, Keep, StartFrom},
    keep::{Kept, Known, Origin, RoundCounts, SecureRow, keep, one_sided},
};
use crate::{
    failure::{Context, Failure, Outcome},
    harden::{
        Improved, Job,
        arms::IMPROVED,
        config::{Dedup, plain},
        decoder_sets,
        folder::RunFolder,
        generate::{Drawing, draw_missing, trained_prompt},
        judge, seed_of_run,
        training::{Data, Request, train_arm},
    },
    output::say,
};

/// What the rounds did; `improve.json`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Improvement {
    pub(super) rounds: Vec<RoundCounts>,
    /// Rounds whose data were trained on.
    pub(super) trained: u32,
    /// Why there are fewer than were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<String>,
    /// Where the improved model is, in the run's folder.
    pub(super) model: PathBuf,
}

/// What there is to train on.
#[derive(Default)]
struct Pool {
    pairs: Vec<FixPair>,
    secure: Vec<SecureRow>,
}

/// Runs the rounds and gives the job the improved model, with what its controls are trained on.
pub(super) fn run(job: &mut Job<'_>) -> Outcome<Improvement> {
    let config = job.config;
    let improve = config.improve.as_ref();
    let improve = improve.ok_or_else(|| Failure::new("the run has no [improve]"))?;
    let recipe = round_recipe(job, improve)?;
    job.folder.write_rows("training-suite.jsonl", &job.inputs.training_suite)?;
    let mut seeded = recipe.clone();
    seed_of_run(&mut seeded, job.config);
    let fix_pairs = std::mem::take(&mut job.inputs.pairs);
    let fix_pairs = if improve.fix_pairs { fix_pairs } else { Vec::new() };
    let (mut pool, mut known) = (Pool::default(), Known::default());
    let mut done = Improvement::default();
    let mut start = job.base.sharing_weights();
    let mut model = start.clone();
    let mut training = None;
    for n in 1..=improve.rounds {
        if improve.from == StartFrom::Previous {
            (pool, known) = (Pool::default(), Known::default());
        }
        let kept = sample(job, improve, &recipe, &model, n, &mut known)?;
        let line = format!("round {n}: {}", kept.counts.line());
        if !job.quiet {
            say(&line);
        }
        job.inputs.notes.push(format!("{line}."));
        done.rounds.push(kept.counts.clone());
        let is_new = kept.adds(improve.keep);
        pool.pairs.extend(kept.pairs);
        pool.secure.extend(kept.secure);
        if !is_new || !pool.can_train(improve.keep) {
            let what = match improve.keep {
                Keep::Secure => "a new sample that is secure and correct",
                _ => "a new pair of a secure and correct sample and a vulnerable one",
            };
            let why = format!("round {n} did not give {what}");
            if training.is_none() {
                job.folder.write_json("improve.json", &done)?;
                return Err(Failure::new(format!("{why}: {}", kept.counts.line())).help(
                    "draw more samples (`improve.samples`), give other training scenarios, or begin with a better model",
                ));
            }
            job.inputs.notes.push(format!(
                "{why}, and the model of round {} is the improved one.",
                done.trained
            ));
            done.stopped = Some(why);
            break;
        }
        pool.put_into(job, improve.keep, &fix_pairs);
        if improve.from == StartFrom::Previous {
            start = model.merged().context("beginning from the round before")?;
        }
        let folder = job.folder.training(&format!("round-{n}"));
        let trained: Trained;
        (model, trained) = train_arm(&Request {
            base: &start,
            tokenizer: &job.tokenizer,
            recipe: &seeded,
            inputs: &job.inputs,
            validation: job.validation.as_ref(),
            data: Data::AsGiven,
            seed: job.config.seed,
            folder: &folder,
            name: &format!("training, round {n}"),
            quiet: job.quiet,
        })?;
        done.trained = n;
        training = Some(trained.record(IMPROVED));
    }
    let training = training.ok_or_else(|| Failure::new("no round was trained"))?;
    done.model = place_of(&recipe, done.trained);
    let is_whole = matches!(recipe.adapter, AdapterRecipe::Full {});
    if improve.from == StartFrom::Previous && done.trained > 1 && !is_whole {
        // The last adapter alone is not the model: it stands on those before.
        done.model = PathBuf::from("model");
        write_model(job, &model)?;
    }
    job.inputs.notes.push(match improve.judge {
        super::JudgeKind::Oracle => {
            "What is trained on was chosen by the oracle and by function tests: numbers of the oracle are marked, and the result is what attacks say."
        }
        super::JudgeKind::Attack => {
            "What is trained on was chosen by attack tests and function tests: numbers by attack are marked, and the result is what the oracle says."
        }
    }
    .to_owned());
    job.recipe = Some(recipe);
    job.improved = Some(Improved { model, training, judge: improve.judge });
    Ok(done)
}

/// The recipe of a round's training, before the run's seed.
fn round_recipe(job: &Job<'_>, improve: &ImproveConfig) -> Outcome<Recipe> {
    let mut recipe = job.recipe.clone().ok_or_else(|| Failure::new("the run has no recipe"))?;
    if improve.keep == Keep::Secure {
        // Samples without another side have nothing to be compared with, and are learnt whole.
        recipe.loss.kind = LossKind::Nll;
        recipe.data.mask = MaskKind::Whole;
        recipe.data.mask_prompt = true;
        recipe.data.drop_all_set = false;
    }
    if improve.from == StartFrom::Previous && matches!(recipe.adapter, AdapterRecipe::Prefix { .. })
    {
        return Err(Failure::new("a prefix cannot be worked into weights, so that no round can begin from the one before")
            .help("set `improve.from = \"base\"`, or take another adapter"));
    }
    Ok(recipe)
}

/// Draws and judges what a round lacks, and writes what is kept of it into the folder `round-N`.
fn sample(
    job: &Job<'_>,
    improve: &ImproveConfig,
    recipe: &Recipe,
    model: &Model,
    n: u32,
    known: &mut Known,
) -> Outcome<Kept> {
    let name = format!("round-{n}");
    let folder = job.folder.inner(&name);
    let suite = &job.inputs.training_suite;
    let fingerprint = model.fingerprint()?;
    let decoder = decoder(job, improve)?;
    let canonical: Value = serde_json::from_str(&decoder.canonical())?;
    let mut samples: Store<Sample> = Store::open(&folder.file("samples.jsonl"))?;
    let drawing = Drawing {
        suite,
        prompt: &|scenario| trained_prompt(&job.tokenizer, Some(&recipe.data), scenario),
        arm: &name,
        title: &name,
        n: improve.samples,
        decoder,
        model: Arc::new(DecodeModel::new(model)?),
        fingerprint: &fingerprint,
        security: None,
    };
    draw_missing(job, drawing, &mut samples)?;
    let tasks: BTreeSet<&str> = suite.iter().map(|scenario| scenario.id.as_str()).collect();
    samples.retain(|sample| {
        sample.arm == name && sample.index < improve.samples && tasks.contains(sample.task.as_str())
    });
    let rows = samples.to_vec();
    let judged = judge::judge(suite, &rows, Dedup::None, &folder, job.quiet)?;
    samples.canonicalise()?;
    let origin = Origin {
        round: n,
        seed: job.config.seed,
        fingerprint: &fingerprint,
        decoder: &canonical,
        judge: improve.judge,
        per_prompt: improve.per_prompt,
    };
    let kept = keep(suite, &judged.verdicts, &origin, known);
    folder.write_rows("pairs.jsonl", &kept.pairs)?;
    folder.write_rows("secure.jsonl", &kept.secure)?;
    folder.write_json("counts.json", &kept.counts)?;
    Ok(kept)
}

/// How samples to train on are drawn.
fn decoder(job: &Job<'_>, improve: &ImproveConfig) -> Outcome<DecoderConfig> {
    let mut sets = decoder_sets(job.config);
    sets.extend(improve.set.iter().map(|(key, value)| format!("{key}={}", plain(value))));
    Ok(DecoderConfig::load(&job.config.eval.decoder, &sets)?)
}

impl Kept {
    /// Whether there is anything to train on that was not there before.
    fn adds(&self, keep: Keep) -> bool {
        match keep {
            Keep::Pairs => !self.pairs.is_empty(),
            Keep::Secure => !self.secure.is_empty(),
            Keep::Both => !self.pairs.is_empty() || !self.secure.is_empty(),
        }
    }
}

impl Pool {
    /// Whether there is what a round's loss needs.
    fn can_train(&self, keep: Keep) -> bool {
        match keep {
            Keep::Pairs | Keep::Both => !self.pairs.is_empty(),
            Keep::Secure => !self.secure.is_empty(),
        }
    }

    /// Makes the pool what the job trains on.
    fn put_into(&self, job: &mut Job<'_>, keep: Keep, fix_pairs: &[FixPair]) {
        let inputs = &mut job.inputs;
        inputs.pairs = fix_pairs.to_vec();
        inputs.own_secure.clear();
        if keep == Keep::Secure {
            let suite = &inputs.training_suite;
            let own = self.secure.iter().filter_map(|row| one_sided(row, suite));
            inputs.pairs.extend(own);
        } else {
            inputs.pairs.extend_from_slice(&self.pairs);
        }
        if keep == Keep::Both {
            inputs.own_secure = self.secure.iter().map(|row| row.item.clone()).collect();
        }
    }
}

/// Where a round's training leaves what it trained.
fn place_of(recipe: &Recipe, round: u32) -> PathBuf {
    let what = match recipe.adapter {
        AdapterRecipe::Full {} => "model",
        _ => "adapter",
    };
    Path::new("training").join(format!("round-{round}")).join(what)
}

/// Writes the improved model with its adapter worked in: the folder is there whole or not at all.
fn write_model(job: &Job<'_>, model: &Model) -> Outcome {
    let RunFolder { path } = &job.folder;
    let (place, temporary) = (path.join("model"), path.join(".writing-model"));
    if place.exists() {
        return Ok(());
    }
    if temporary.exists() {
        std::fs::remove_dir_all(&temporary)
            .context(format!("cannot remove {}", temporary.display()))?;
    }
    model.merged()?.save(&temporary, SaveDtype::F32)?;
    job.tokenizer.save(&temporary)?;
    std::fs::rename(&temporary, &place).context(format!("cannot write {}", place.display()))
}
