//! Training on fix pairs and utility items as a recipe says.

use std::{collections::BTreeMap, path::Path, sync::atomic::AtomicBool};

use candle_core::DType;
use hardn_models::{Model, ModelError, SaveDtype, Tokenizer};
use hardn_types::{FixPair, Training};

use crate::{
    AdapterRecipe, Counts, Ended, Example, LossKind, LossRecipe, Outcome, Precision, Progress,
    Recipe, Result, TrainError, UtilityItem, VULNERABLE_ADAPTER,
    adapters::{attach_adapters, has_dropout, save_adapters},
    checkpoint::write_folder,
    identity::sha256,
    mix::MixPlan,
    objective::{Objective, Reference},
    prepare::prepare,
    run_loop::{self, LoopSettings},
};

/// What is trained on.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrainingData<'a> {
    /// Pairs to learn from.
    pub pairs: &'a [FixPair],
    /// Utility items to learn from; may be empty.
    pub utility: &'a [UtilityItem],
    /// Pairs to validate on; may be empty.
    pub validation_pairs: &'a [FixPair],
    /// Utility items to validate on; may be empty.
    pub validation_utility: &'a [UtilityItem],
}

/// A training that ended.
#[derive(Clone, Debug)]
pub struct Trained {
    /// How it went.
    pub outcome: Outcome,
    /// Examples kept and dropped in training.
    pub train_counts: Counts,
    /// Examples kept and dropped in validation.
    pub validation_counts: Counts,
    /// The resolved recipe.
    pub recipe: serde_json::Value,
}

impl Trained {
    /// The record for `run.json`.
    pub fn record(&self, arm: &str) -> Training {
        let mut record = Training {
            arm: arm.to_owned(),
            recipe: self.recipe.clone(),
            steps: self.outcome.steps,
            best_step: self.outcome.kept_step,
            trainable_parameters: self.outcome.n_parameters,
            kept: BTreeMap::new(),
            dropped: BTreeMap::new(),
            curve: self.outcome.curve.clone(),
        };
        for (split, counts) in [("train", &self.train_counts), ("val", &self.validation_counts)] {
            let name = |(kind, n): (&String, &usize)| (format!("{split} {kind}"), *n);
            record.kept.extend(counts.kept.iter().map(name));
            record.dropped.extend(counts.dropped.iter().map(name));
        }
        record
    }
}

/// Trains `model` and leaves it with the trained weights: an adapter attached, or its own weights changed.
///
/// Everything goes to the folder `out`: `recipe.json`, `events.jsonl`, `timings.jsonl`, `checkpoints/`, and in the end
/// `adapter/` (PEFT's layout; two folders of it, `secure/` and `vulnerable/`, where each side has its own adapter, of
/// which the model keeps the first) or `model/` (with the tokenizer), and `training.json`. A call on the folder of a training
/// that was stopped or killed goes on after its last checkpoint, with the same result to the bit; the model must then be
/// given as it was at the start.
///
/// # Errors
/// An adapter that is attached already, nothing to train on, a loss that is not finite, another training in `out`, or
/// files that cannot be read or written.
pub fn train(
    model: &mut Model,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    data: &TrainingData<'_>,
    out: &Path,
    progress: &mut dyn Progress,
    stop: &AtomicBool,
) -> Result<Trained> {
    let Setup { mut plan, loss, mut identity, frozen, train_counts, validation_counts } =
        set_up(model, tokenizer, recipe, data)?;
    if let Some(suite) = progress.suite() {
        identity.insert("the validation suite".to_owned(), suite);
    }
    let outcome = {
        let objective = objective(model, recipe, loss, frozen.as_ref(), &plan);
        let settings = LoopSettings {
            optimizer: recipe.optimizer,
            schedule: recipe.schedule,
            training: recipe.training,
            recipe: recipe.to_json(),
            identity,
            dir: out,
            stop,
            dropout: has_dropout(&recipe.adapter),
        };
        run_loop::run(&objective, &mut plan, &settings, progress)?
    };
    let trained = Trained { outcome, train_counts, validation_counts, recipe: recipe.to_json() };
    if trained.outcome.ended == Ended::Finished {
        match &recipe.adapter {
            AdapterRecipe::Lora { .. }
            | AdapterRecipe::Ia3 { .. }
            | AdapterRecipe::Prefix { .. } => {
                save_adapters(model, loss.kind, &out.join("adapter"))?;
                if loss.kind.has_two_adapters() {
                    model.detach(VULNERABLE_ADAPTER)?;
                }
            }
            AdapterRecipe::Full {} => write_folder(&out.join("model"), |dir| {
                model.save(dir, SaveDtype::F32)?;
                Ok(tokenizer.save(dir)?)
            })?,
        }
        let record = serde_json::to_value(trained.record("")).unwrap_or_default();
        write_json(&out.join("training.json"), &record)?;
    }
    Ok(trained)
}

/// What a training computes with.
pub(crate) struct Setup {
    pub(crate) plan: MixPlan,
    pub(crate) loss: LossRecipe,
    /// What the training is made of, by name.
    pub(crate) identity: BTreeMap<String, String>,
    /// A copy of the model as it was, where the loss compares with it and no adapter can be taken off.
    pub(crate) frozen: Option<Model>,
    pub(crate) train_counts: Counts,
    pub(crate) validation_counts: Counts,
}

/// Turns the data into examples and batches, and attaches what is trained.
pub(crate) fn set_up(
    model: &mut Model,
    tokenizer: &Tokenizer,
    recipe: &Recipe,
    data: &TrainingData<'_>,
) -> Result<Setup> {
    if model.adapter_config().is_some() {
        return Err(ModelError::Input(
            "an adapter is attached already; merge it first or take it off".to_owned(),
        )
        .into());
    }
    if recipe.training.precision == Precision::Bf16 && model.dtype() != DType::BF16 {
        return Err(TrainError::Precision { model: model.dtype().as_str() });
    }
    let context = model.config().max_position_embeddings;
    let loss = recipe.loss.resolved();
    let prepared = prepare(tokenizer, context, recipe, data)?;
    let (train_counts, validation_counts) =
        (prepared.train_counts.clone(), prepared.validation_counts.clone());

    let mut identity = BTreeMap::new();
    identity.insert("the model".to_owned(), model.fingerprint()?);
    let held = &prepared.validation_pairs;
    let held_sides = held.iter().flat_map(|pair| [&pair.secure, &pair.vulnerable]).flatten();
    let validation = fingerprint(prepared.validation_utility.iter().chain(held_sides));
    identity.insert("the validation data".to_owned(), validation);
    let plan = MixPlan::new(recipe, prepared, context);
    if plan.samples_per_epoch() == 0 {
        return Err(train_counts.nothing());
    }
    if plan.steps_per_epoch() == 0 {
        let n = plan.samples_per_epoch();
        let help = "take a smaller `training.accumulation`, or `training.leftover = \"step\"`";
        return Err(TrainError::Missing {
            what: format!("a whole step in an epoch of {n} samples"),
            help: help.to_owned(),
        });
    }
    identity.insert("the data".to_owned(), fingerprint(plan.examples().iter()));
    let mut described = recipe.clone();
    // How often is saved does not change what is computed.
    described.training.checkpoint_every = 0;
    described.training.keep_checkpoints = 0;
    identity.insert("the recipe".to_owned(), described.to_json().to_string());

    let frozen = match &recipe.adapter {
        AdapterRecipe::Full {} if loss.kl_weight != 0.0 || loss.kind == LossKind::Dpo => {
            Some(model.merged()?)
        }
        _ => None,
    };
    attach_adapters(model, recipe)?;
    Ok(Setup { plan, loss, identity, frozen, train_counts, validation_counts })
}

/// What is minimised.
pub(crate) fn objective<'a>(
    model: &'a Model,
    recipe: &Recipe,
    loss: LossRecipe,
    frozen: Option<&'a Model>,
    plan: &MixPlan,
) -> Objective<'a> {
    Objective {
        model,
        reference: frozen.map_or(Reference::AdapterOff, Reference::Copy),
        loss,
        checkpointing: recipe.training.gradient_checkpointing,
        per_token: plan.is_per_token(),
    }
}

fn fingerprint<'a>(examples: impl Iterator<Item = &'a Example>) -> String {
    let bytes = |example: &Example| {
        let ids = example.ids.iter().flat_map(|id| id.to_le_bytes());
        let mut bytes: Vec<u8> = ids.chain(example.selected.iter().copied()).collect();
        bytes.extend_from_slice(example.kind.name().as_bytes());
        bytes
    };
    sha256(examples.map(bytes))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    Ok(hardn_types::write_atomic(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        panic::{AssertUnwindSafe, catch_unwind},
        process::{Command, Stdio},
        sync::atomic::Ordering,
        time::Duration,
    };

    use hardn_models::DEFAULT_ADAPTER;

    use super::*;
    use crate::{
        SECURE_ADAPTER, StepUpdate, TRAINING_ONLY, load_adapters, preference,
        testing::{model, pair, tokenizer},
    };

    const STEPS: usize = 12;

    const SVEN: [&str; 7] = [
        "adapter.kind=prefix",
        "adapter.num_virtual_tokens=3",
        "adapter.dropout=0.1",
        "adapter.zero_init=true",
        "loss.kind=sven",
        "loss.kl_weight=1.6",
        "loss.weights.utility=0",
    ];

    fn pairs() -> Vec<FixPair> {
        let pair = |name: &&str| {
            let before = format!("    return system(\"ls \" + {name})\n");
            let after = format!("    return call([\"ls\", {name}])\n");
            pair(name, &format!("def run({name}):\n"), &before, &after)
        };
        ["name", "path", "file", "a", "folder", "x_y"].iter().map(pair).collect()
    }

    fn utility() -> Vec<UtilityItem> {
        let item = |i: usize| UtilityItem {
            id: format!("u{i}"),
            prompt: format!("def add{i}(a, b):\n"),
            completion: format!("    return a + b + {i}\n"),
            ..UtilityItem::default()
        };
        (0..20).map(item).collect()
    }

    fn recipe(assignments: &[&str]) -> Recipe {
        let mut all: Vec<String> = [
            "training.batch_size=4",
            "training.max_steps=12",
            "training.eval_every=6",
            "training.checkpoint_every=2",
            "adapter.r=4",
            "oversampling.k=16",
        ]
        .map(str::to_owned)
        .to_vec();
        all.extend(assignments.iter().map(|&a| a.to_owned()));
        Recipe::load("safecoder-lab", &all).unwrap()
    }

    fn run(
        recipe: &Recipe,
        out: &Path,
        progress: &mut dyn Progress,
        stop: &AtomicBool,
    ) -> Result<(Model, Trained)> {
        let (pairs, utility) = (pairs(), utility());
        let data = TrainingData {
            pairs: &pairs,
            utility: &utility,
            validation_pairs: &pairs[..2],
            validation_utility: &utility[..3],
        };
        let mut model = model(1);
        let trained = train(&mut model, &tokenizer(), recipe, &data, out, progress, stop)?;
        Ok((model, trained))
    }

    fn run_quietly(recipe: &Recipe, out: &Path) -> (Model, Trained) {
        run(recipe, out, &mut (), &AtomicBool::new(false)).unwrap()
    }

    /// Everything a training leaves that must not depend on interruptions.
    fn results(out: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files = vec!["events.jsonl".to_owned(), "training.json".to_owned()];
        for file in ["state.json", "state.safetensors"] {
            files.push(format!("checkpoints/step-{STEPS:08}/{file}"));
        }
        for folder in ["adapter", "adapter/secure", "adapter/vulnerable", "model"] {
            let entries = fs::read_dir(out.join(folder)).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.path().is_file()) {
                files.push(format!("{folder}/{}", entry.file_name().to_string_lossy()));
            }
        }
        files.sort();
        files.into_iter().map(|file| (file.clone(), fs::read(out.join(&file)).unwrap())).collect()
    }

    #[track_caller]
    fn check_same(a: &Path, b: &Path) {
        let (a, b) = (results(a), results(b));
        assert_eq!(a.len(), b.len());
        for ((name, left), (_, right)) in a.iter().zip(&b) {
            assert!(left == right, "{name} differs");
        }
    }

    struct StopAt<'a>(usize, &'a AtomicBool);

    impl Progress for StopAt<'_> {
        fn step(&mut self, update: &StepUpdate) {
            if update.step == self.0 {
                self.1.store(true, Ordering::SeqCst);
            }
        }
    }

    struct DieAt(usize);

    impl Progress for DieAt {
        fn step(&mut self, update: &StepUpdate) {
            assert!(update.step != self.0, "this test's way to die");
        }
    }

    #[test]
    fn a_stopped_training_goes_on_to_the_same_bits() {
        for assignments in [
            &["adapter.dropout=0.2"][..],
            &["adapter.kind=full", "loss.kl_weight=0.5", "optimizer.learning_rate=1e-3"],
            &["training.clip_per=micro_batch", "training.accumulation=2", "loss.pairing=joint"],
            &["data.packing=true", "data.group_by_length=epoch", "data.validation_fraction=0.2"],
            // An epoch has 12 micro-batches of one sample, and two of them are left over.
            &[
                &SVEN[..],
                &["training.batch_size=1", "training.accumulation=5", "training.leftover=carry"],
                &["training.clip_per=micro_batch", "oversampling.mode=none"],
            ]
            .concat(),
            &["loss.kind=dpo", "loss.nll_weight=0.5", "adapter.dropout=0.2"],
            &["adapter.kind=full", "loss.kind=dpo", "optimizer.learning_rate=1e-3"],
        ] {
            let recipe = recipe(assignments);
            let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            run_quietly(&recipe, whole.path());
            for step in [5, 9] {
                let stop = AtomicBool::new(false);
                let (_, trained) =
                    run(&recipe, parts.path(), &mut StopAt(step, &stop), &stop).unwrap();
                assert_eq!(trained.outcome.ended, Ended::Interrupted { step });
            }
            run_quietly(&recipe, parts.path());
            check_same(whole.path(), parts.path());
        }
    }

    #[test]
    fn a_death_between_and_within_checkpoints_loses_nothing() {
        let recipe = recipe(&[]);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run_quietly(&recipe, whole.path());
        for step in [1, 5, 8, 12] {
            let stop = AtomicBool::new(false);
            let died = catch_unwind(AssertUnwindSafe(|| {
                let _ = run(&recipe, parts.path(), &mut DieAt(step), &stop);
            }));
            assert!(died.is_err());
            // What a kill in the middle of a checkpoint and of a line would leave.
            let half = parts.path().join("checkpoints/.writing-00000006");
            fs::create_dir_all(&half).unwrap();
            fs::write(half.join("state.safetensors"), b"torn").unwrap();
            let events = parts.path().join("events.jsonl");
            let text = fs::read_to_string(&events).unwrap();
            fs::write(&events, format!("{text}{{\"event\":\"ste")).unwrap();
        }
        run_quietly(&recipe, parts.path());
        check_same(whole.path(), parts.path());
        // Once more on a finished folder: nothing is trained, everything is as it was.
        let (_, again) = run_quietly(&recipe, parts.path());
        assert_eq!(again.outcome.ended, Ended::Finished);
        check_same(whole.path(), parts.path());
    }

    const CHILD: &str = "HARDN_TRAIN_TEST_CHILD";

    /// Really killed: the test runs itself in another process, kills it at various moments, and starts it again.
    #[test]
    fn a_killed_process_goes_on_to_the_same_bits() {
        let recipe = recipe(&["training.checkpoint_every=1"]);
        if let Some(out) = env::var_os(CHILD) {
            run_quietly(&recipe, Path::new(&out));
            return;
        }
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run_quietly(&recipe, whole.path());
        let mut n_killed = 0;
        for delay in [20, 35, 50, 65, 80, 95, 110, 30, 55, 600_000] {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "trainer::tests::a_killed_process_goes_on_to_the_same_bits"])
                .env(CHILD, parts.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut waited = 0;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if waited >= delay {
                    child.kill().unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
                waited += 5;
            };
            n_killed += usize::from(!status.success());
            if status.success() {
                break;
            }
        }
        assert!(n_killed > 0);
        check_same(whole.path(), parts.path());
    }

    #[test]
    fn packing_changes_rows_but_no_loss() {
        let losses = |assignments: &[&str]| -> Vec<(f64, f64)> {
            let out = tempfile::tempdir().unwrap();
            let base = ["loss.kl_weight=0.5", "training.max_steps=4", "adapter.dropout=0"];
            run_quietly(&recipe(&[&base, assignments].concat()), out.path());
            let events = crate::read_events(out.path());
            let step = |event| match event {
                crate::Event::Step { loss, gradient_norm, .. } => Some((loss, gradient_norm)),
                crate::Event::Validation { .. } => None,
            };
            events.into_iter().filter_map(step).collect()
        };
        let plain = losses(&[]);
        for packed in [
            &["data.packing=true", "data.max_tokens=100"][..],
            &["data.packing=true", "training.gradient_checkpointing=true"],
        ] {
            for ((loss, norm), (other, other_norm)) in plain.iter().zip(losses(packed)) {
                assert!((loss - other).abs() < 1e-5 * loss, "{loss} {other}");
                assert!((norm - other_norm).abs() < 1e-4 * norm, "{norm} {other_norm}");
            }
        }
    }

    #[test]
    fn gradient_checkpointing_changes_no_bit() {
        for assignments in [
            &["adapter.dropout=0.2", "loss.kl_weight=0.5"][..],
            &["adapter.kind=full", "loss.kl_weight=0.5", "optimizer.learning_rate=1e-3"],
            &SVEN,
            &["loss.kind=dpo", "adapter.dropout=0.2"],
        ] {
            let (plain, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            run_quietly(&recipe(assignments), plain.path());
            let with = [assignments, &["training.gradient_checkpointing=true"]].concat();
            run_quietly(&recipe(&with), other.path());
            for ((name, left), (_, right)) in
                results(plain.path()).iter().zip(results(other.path()))
            {
                // These two files carry the recipe.
                let is_recipe = name == "training.json" || name.ends_with("state.json");
                assert!(is_recipe || *left == right, "{name} differs");
            }
        }
    }

    #[test]
    fn another_training_in_the_folder_is_refused() {
        let out = tempfile::tempdir().unwrap();
        run_quietly(&recipe(&[]), out.path());
        let error =
            run(&recipe(&["training.seed=9"]), out.path(), &mut (), &AtomicBool::new(false));
        let Err(error) = error else { panic!("accepted") };
        assert!(
            error.to_string().contains("the recipe") || error.to_string().contains("the data"),
            "{error}"
        );
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_with_the_state_before() {
        let out = tempfile::tempdir().unwrap();
        let wild = recipe(&["optimizer.learning_rate=1e38", "adapter.kind=full"]);
        let Err(error) = run(&wild, out.path(), &mut (), &AtomicBool::new(false)) else {
            panic!("finite")
        };
        let TrainError::NotFinite { examples, checkpoint, .. } = &error else { panic!("{error}") };
        assert!(!examples.is_empty());
        assert!(checkpoint.join("state.safetensors").exists(), "{error}");
    }

    #[test]
    fn nothing_to_train_on_says_why() {
        let recipe = recipe(&["data.max_tokens=3"]);
        let Err(error) = run(&recipe, Path::new("unused"), &mut (), &AtomicBool::new(false)) else {
            panic!("trained")
        };
        assert!(error.to_string().contains("secure: too long"), "{error}");
    }

    #[test]
    fn training_on_pairs_teaches_the_secure_side() {
        let share = |model: &Model| {
            let tokenizer = tokenizer();
            pairs()
                .iter()
                .filter(|pair| {
                    preference(model, &tokenizer, pair).unwrap().unwrap().prefers_secure()
                        == Some(true)
                })
                .count()
        };
        let out = tempfile::tempdir().unwrap();
        let full = ["adapter.kind=full", "training.max_steps=60", "optimizer.learning_rate=1e-2"];
        let (mut model, trained) = run_quietly(&recipe(&full), &out.path().join("full"));
        let curve = &trained.outcome.curve;
        let (first, last) = (&curve[0].validation, &curve[curve.len() - 1].validation);
        assert!(last["secure"] < first["secure"] / 2.0, "{first:?} {last:?}");
        assert!(last["utility"] < first["utility"] / 2.0, "{first:?} {last:?}");
        assert_eq!(share(&model), pairs().len());

        // An adapter on that model, taught the opposite, turns it round.
        let opposite: Vec<FixPair> = pairs().iter().map(crate::controls::swap_sides).collect();
        let data = TrainingData { pairs: &opposite, ..TrainingData::default() };
        let lora = recipe(&["training.max_steps=60", "optimizer.learning_rate=1e-2"]);
        let stop = AtomicBool::new(false);
        let lora_out = out.path().join("lora");
        train(&mut model, &tokenizer(), &lora, &data, &lora_out, &mut (), &stop).unwrap();
        assert_eq!(share(&model), 0);
        model.detach(DEFAULT_ADAPTER).unwrap();
        assert_eq!(share(&model), pairs().len());
    }

    #[test]
    fn each_side_has_a_prefix_and_the_secure_one_is_kept() {
        let out = tempfile::tempdir().unwrap();
        let (model, trained) = run_quietly(&recipe(&SVEN), out.path());
        assert_eq!(model.adapter_names(), [SECURE_ADAPTER]);
        assert!(model.adapter_config().is_some());
        // 2 prefixes of 3 positions, 2 layers, keys and values of 16.
        assert_eq!(trained.outcome.n_parameters, 2 * 3 * 2 * 2 * 16);
        let folder = |side: &str| out.path().join("adapter").join(side);
        for (side, expected) in [(SECURE_ADAPTER, None), (VULNERABLE_ADAPTER, Some(true))] {
            let text = fs::read_to_string(folder(side).join("adapter_config.json")).unwrap();
            let config: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(config.get(TRAINING_ONLY).and_then(serde_json::Value::as_bool), expected);
        }
        // Both are trained, differently, and can be read again.
        let mut again = crate::testing::model(1);
        load_adapters(&mut again, &recipe(&SVEN), Some(&out.path().join("adapter"))).unwrap();
        let values: Vec<Vec<f32>> = (again.trainable().iter())
            .map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap())
            .collect();
        assert!(values[0] != values[1] && values.iter().flatten().all(|value| *value != 0.0));
        let single =
            load_adapters(&mut crate::testing::model(1), &recipe(&SVEN), Some(&folder("secure")));
        assert!(single.unwrap_err().to_string().contains("`secure` and `vulnerable`"));
    }

    #[test]
    fn a_pairwise_loss_teaches_the_secure_side() {
        let out = tempfile::tempdir().unwrap();
        for kind in ["dpo", "simpo"] {
            let kind = format!("loss.kind={kind}");
            let full = ["adapter.kind=full", "optimizer.learning_rate=1e-2"];
            let assignments = [&full[..], &["loss.weights.utility=0", &kind]].concat();
            let (_, trained) = run_quietly(&recipe(&assignments), &out.path().join(&kind[10..]));
            let curve = &trained.outcome.curve;
            let (first, last) = (&curve[0].validation, &curve[curve.len() - 1].validation);
            assert!(last["margin"] > first["margin"] + 0.5, "{first:?} {last:?}");
            assert!(last[&kind[10..]] < first[&kind[10..]], "{first:?} {last:?}");
        }
    }

    #[test]
    fn an_epoch_without_a_whole_step_is_refused() {
        let recipe = recipe(&["training.leftover=carry", "training.accumulation=1000"]);
        let Err(error) = run(&recipe, Path::new("unused"), &mut (), &AtomicBool::new(false)) else {
            panic!("trained")
        };
        assert!(error.to_string().contains("training.leftover"), "{error}");
    }

    struct Scored(Vec<f64>);

    impl Progress for Scored {
        fn score(
            &mut self,
            _: &Model,
            _: usize,
        ) -> Result<BTreeMap<String, f64>, hardn_types::BoxError> {
            Ok(self.0.pop().map(|score| ("secure_pass".to_owned(), score)).into_iter().collect())
        }
    }

    #[test]
    fn the_best_scored_weights_are_kept() {
        let out = tempfile::tempdir().unwrap();
        let recipe = recipe(&[
            "training.eval_every=3",
            "training.keep_best=true",
            "training.best_by=secure_pass",
            "training.keep_checkpoints=1",
        ]);
        // Scores at steps 0, 3, 6, 9, 12, from the back.
        let mut progress = Scored(vec![0.1, 0.2, 0.9, 0.3, 5.0]);
        let stop = AtomicBool::new(false);
        let (model, trained) = run(&recipe, out.path(), &mut progress, &stop).unwrap();
        assert_eq!(trained.outcome.kept_step, 6);
        assert_eq!(trained.record("x").best_step, 6);
        let mut again = crate::testing::model(1);
        again.load_adapter(DEFAULT_ADAPTER, &out.path().join("adapter")).unwrap();
        let values = |model: &Model| -> Vec<Vec<f32>> {
            model
                .trainable()
                .iter()
                .map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap())
                .collect()
        };
        assert_eq!(values(&model), values(&again));
    }

    /// Security scores by step, and the step at which scoring fails.
    struct Security(Vec<f64>, Option<usize>);
    impl Progress for Security {
        fn score(
            &mut self,
            _: &Model,
            step: usize,
        ) -> Result<BTreeMap<String, f64>, hardn_types::BoxError> {
            if self.1 == Some(step) {
                return Err("this test's way to die".into());
            }
            Ok(BTreeMap::from([("security".to_owned(), self.0[step])]))
        }
    }

    #[test]
    fn a_training_that_no_longer_gets_better_ends() {
        let recipe = recipe(&[
            "training.eval_every=1",
            "training.patience=2",
            "training.min_delta=0.1",
            "training.best_by=security",
            "training.keep_best=true",
        ]);
        // Steps 0 to 12: the first rise counts, the next is below `min_delta` but still the best.
        let scores = [9.0, 0.2, 0.5, 0.55, 0.4, 0.9];
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stop = AtomicBool::new(false);
        let mut progress = Security(scores.to_vec(), None);
        let (_, trained) = run(&recipe, whole.path(), &mut progress, &stop).unwrap();
        assert_eq!((trained.outcome.steps, trained.outcome.kept_step), (4, 3));
        assert_eq!(trained.outcome.ended, Ended::Finished);
        // Killed while it is scored, it counts on from where it was; finished, it stays so.
        for die_at in [Some(2), Some(4), None, None] {
            let mut progress = Security(scores.to_vec(), die_at);
            let result = run(&recipe, parts.path(), &mut progress, &stop);
            assert_eq!(result.is_err(), die_at.is_some());
        }
        let read = |dir: &Path| {
            ["events.jsonl", "curve.csv", "training.json", "adapter/adapter_model.safetensors"]
                .map(|file| fs::read(dir.join(file)).unwrap())
        };
        assert!(read(whole.path()) == read(parts.path()));
        let curve = fs::read_to_string(whole.path().join("curve.csv")).unwrap();
        assert!(curve.contains("\n3,score/security,0.55\n"), "{curve}");

        // Without what it is best by there is nothing to compare.
        let Err(error) = run(&recipe, &whole.path().join("x"), &mut (), &stop) else { panic!() };
        assert!(error.to_string().contains("`security`"), "{error}");
    }

    #[test]
    fn two_trainings_in_one_folder_and_a_torn_checkpoint_are_refused_and_nothing_is_lost() {
        struct Again<'a>(&'a Recipe, &'a Path, String);
        impl Progress for Again<'_> {
            fn step(&mut self, update: &StepUpdate) {
                if update.step == 3 {
                    let again = run(self.0, self.1, &mut (), &AtomicBool::new(false));
                    self.2 = again.err().map(|error| error.to_string()).unwrap_or_default();
                }
            }
        }
        let recipe = recipe(&[]);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run_quietly(&recipe, whole.path());
        let stop = AtomicBool::new(false);
        let mut progress = Again(&recipe, parts.path(), String::new());
        run(&recipe, parts.path(), &mut progress, &stop).unwrap();
        assert!(progress.2.contains("in use"), "{}", progress.2);
        check_same(whole.path(), parts.path());
        // Another recipe is refused before anything is written.
        let other = self::recipe(&["training.seed=9"]);
        run(&other, parts.path(), &mut (), &stop).map(|_| ()).unwrap_err();
        let read = |dir: &Path| fs::read(dir.join("recipe.json")).unwrap();
        assert_eq!(read(whole.path()), read(parts.path()));

        for (file, keep) in
            [("state.safetensors", 100), ("state.json", 10), ("state.safetensors", 0)]
        {
            let last = parts.path().join(format!("checkpoints/step-{STEPS:08}"));
            let bytes = fs::read(last.join(file)).unwrap();
            fs::write(last.join(file), &bytes[..keep]).unwrap();
            let Err(error) = run(&recipe, parts.path(), &mut (), &stop) else { panic!("{file}") };
            assert!(error.to_string().contains("step-00000012"), "{error}");
            // As it says: without that folder the one before is taken.
            fs::remove_dir_all(&last).unwrap();
            run_quietly(&recipe, parts.path());
            check_same(whole.path(), parts.path());
        }
    }
}
