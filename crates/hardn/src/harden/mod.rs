//! The main job: a base model in, a hardened model and its proof out.
//!
//! Every stage only does what is missing, so a run that was killed goes on when the same command is given again.

pub(crate) mod arms;
pub(crate) mod config;
mod constant;
pub(crate) mod folder;
pub(crate) mod generate;
pub(crate) mod inputs;
pub(crate) mod judge;
mod preference;
mod reuse;
pub(crate) mod scoring;
pub(crate) mod training;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use hardn_eval::{Metrics, Store};
use hardn_models::{DecodeModel, GenerationConfig, Model, Tokenizer};
use hardn_report::{ReportOptions, write_report};
use hardn_train::{LossKind, Recipe};
use hardn_types::{Arm, Role, RunInfo, Sample, Training};
use serde_json::json;

use self::{
    arms::{ArmKind, ArmPlan, HARDENED, IMPROVED},
    config::{RunConfig, plain},
    folder::RunFolder,
    inputs::Inputs,
    scoring::ValidationSuite,
};
use crate::{
    args::RunArgs,
    assets,
    failure::{Context, Failure, Outcome},
    improve::{self, JudgeKind},
    output::{put, put_json, say},
    stop,
};

/// What a run is told beside its configuration.
pub(crate) struct Options {
    pub(crate) out: PathBuf,
    pub(crate) fresh: bool,
    /// The folder of a finished run whose samples and verdicts are taken where they would come out the same.
    pub(crate) reuse: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// `hardn harden`.
pub(crate) fn command(args: RunArgs, quiet: bool) -> Outcome {
    let config = RunConfig::read(&args.config, &args.set)?;
    if config.train.is_none() {
        return Err(Failure::new(format!("{} has no [train]", args.config.display()))
            .help("say how to harden, or use `hardn eval` to evaluate only"));
    }
    if config.improve.is_some() {
        return Err(Failure::new(format!("{} has [improve]", args.config.display()))
            .help("use `hardn improve`, or take [improve] out"));
    }
    run(&config, &options(args, &config, quiet))
}

/// How a run is made, as the command line and the configuration say. Begins to watch for the end of standard input
/// where that is asked for.
pub(crate) fn options(args: RunArgs, config: &RunConfig, quiet: bool) -> Options {
    let RunArgs { config: file, out, set: _, fresh, reuse, json, stop_at_eof } = args;
    if stop_at_eof {
        stop::at_end_of_input();
    }
    let name = file.file_stem().unwrap_or_default();
    let out =
        out.or_else(|| config.out.clone()).unwrap_or_else(|| PathBuf::from("runs").join(name));
    Options { out, fresh, reuse, json, quiet }
}

/// Everything the stages of a run share.
pub(crate) struct Job<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) inputs: Inputs,
    pub(crate) base: Model,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Tokens that end a text.
    pub(crate) end_tokens: Vec<u32>,
    pub(crate) recipe: Option<Recipe>,
    /// What models are scored on while they are trained.
    pub(crate) validation: Option<ValidationSuite>,
    /// The model that was trained on its own samples, where the run does that.
    pub(crate) improved: Option<Improved>,
    pub(crate) folder: RunFolder,
    pub(crate) quiet: bool,
}

/// A model that was trained on its own samples, and what its report says of that.
pub(crate) struct Improved {
    pub(crate) model: Model,
    pub(crate) training: Training,
    pub(crate) judge: JudgeKind,
}

/// Runs the main job, or what is missing of it.
pub(crate) fn run(config: &RunConfig, options: &Options) -> Outcome {
    stop::flag();
    let job = prepare(config, options)?;
    let metrics = evaluate(&job, options)?;
    finish(&job.folder, options, &metrics)
}

/// Trains the arms of a run that are not there, draws their samples, judges and counts.
pub(crate) fn evaluate(job: &Job<'_>, options: &Options) -> Outcome<Metrics> {
    let config = job.config;
    let arms = arms::plan(config, !job.inputs.utility.is_empty());
    let mut samples: Store<Sample> = Store::open(&job.folder.file("samples.jsonl"))?;
    if let Some(other) = &options.reuse {
        let suite = &job.inputs.suite;
        reuse::take_over(other, &job.folder, suite, &arms, config.eval.dedup, &mut samples)?;
    }
    let mut records = Vec::new();
    let mut trainings = Vec::new();
    let mut preferences = BTreeMap::new();
    let mut hardened = None;
    for arm in &arms {
        let made = make_arm(job, arm, hardened.as_ref(), &mut samples, &mut trainings)?;
        if let Some(model) = made.model {
            preferences.insert(arm.id.clone(), preference::measure(job, arm, &model)?);
            if arm.role == Role::Hardened && !config.decoding.is_empty() {
                hardened = Some(model);
            }
        }
        records.push(Arm {
            id: arm.id.clone(),
            title: arm.title.clone(),
            description: arm.description.clone(),
            role: arm.role,
            fingerprint: made.fingerprint,
        });
    }
    let ids: Vec<&str> = arms.iter().map(|arm| arm.id.as_str()).collect();
    samples.retain(|sample| ids.contains(&sample.arm.as_str()));
    let rows = samples.to_vec();
    let judged =
        judge::judge(&job.inputs.suite, &rows, config.eval.dedup, &job.folder, options.quiet)?;
    samples.canonicalise()?;
    let metrics = judge::count(&job.inputs.suite, &judged.verdicts, config, &preferences);
    let info = run_info(job, records, trainings, judged.tools, &metrics)?;
    job.folder.write_json("run.json", &info)?;
    job.folder.write_json("metrics.json", &metrics)?;
    Ok(metrics)
}

/// Writes the report and says where it is.
pub(crate) fn finish(folder: &RunFolder, options: &Options, metrics: &Metrics) -> Outcome {
    let run = write_report(&folder.path, ReportOptions::default())?;
    if options.json {
        return put_json(metrics);
    }
    put(&hardn_report::render_text(&run))?;
    put(&format!("\n{}\n", folder.file("report.html").display()))
}

pub(crate) fn prepare<'a>(config: &'a RunConfig, options: &Options) -> Outcome<Job<'a>> {
    let model_folder = assets::model_folder(&config.model)?;
    let tokenizer = Arc::new(Tokenizer::load(&model_folder)?);
    let base = Model::load(&model_folder, crate::device::chosen())?;
    let end_tokens = GenerationConfig::load(&model_folder)?.end_tokens(None, &tokenizer);
    if tokenizer.vocab_size() > base.config().vocab_size {
        return Err(Failure::new(format!(
            "the tokenizer in {} has {} tokens, but the model only {}",
            model_folder.display(),
            tokenizer.vocab_size(),
            base.config().vocab_size
        ))
        .help("put the model's own tokenizer.json beside its weights"));
    }
    let recipe =
        config.train.as_ref().map(|train| Recipe::load(&train.recipe, &train.assignments()));
    let recipe = recipe.transpose()?;
    hardn_decode::DecoderConfig::load(&config.eval.decoder, &decoder_sets(config))?;
    check_decoding(config)?;
    let columns = recipe.as_ref().map(|recipe| recipe.data.columns.clone()).unwrap_or_default();
    let mut inputs = inputs::read(config, &columns)?;
    judge::leave_out_unchecked(&mut inputs);
    if inputs.suite.is_empty() {
        inputs.notes.push(
            "No scenario or task was given: only losses and likelihood preference were measured."
                .to_owned(),
        );
    }
    let identity = json!({
        "config": serde_json::to_value(config)?,
        "model": base.fingerprint()?,
        "recipe": recipe.as_ref().map(Recipe::to_json),
        "data": inputs.sources,
    });
    let folder = RunFolder::open(&options.out, &identity, options.fresh)?;
    folder.write_rows("suite.jsonl", &inputs.suite)?;
    let validation = match &recipe {
        Some(recipe) => ValidationSuite::new(config, &inputs, recipe, &tokenizer, &end_tokens)?,
        None => None,
    };
    let quiet = options.quiet;
    let improved = None;
    Ok(Job {
        config,
        inputs,
        base,
        tokenizer,
        end_tokens,
        recipe,
        validation,
        improved,
        folder,
        quiet,
    })
}

/// Refuses sections `[[decoding]]` that cannot be arms.
fn check_decoding(config: &RunConfig) -> Outcome {
    for section in &config.decoding {
        if config.train.is_none() && section.needs_hardened()? {
            return Err(Failure::new(format!(
                "[[decoding]] `{}` needs a hardened model, and there is no [train]",
                section.name
            ))
            .help("name its `security_model`, its `security_adapter` or both"));
        }
    }
    let planned = arms::plan(config, true);
    for (i, arm) in planned.iter().enumerate() {
        let shape = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if arm.id.is_empty() || !arm.id.chars().all(shape) {
            return Err(Failure::new(format!("`{}` cannot name an arm", arm.id))
                .help("letters, digits, points, lines and underlines"));
        }
        if planned[..i].iter().any(|other| other.id == arm.id) {
            return Err(Failure::new(format!("two arms are called `{}`", arm.id))
                .help("give each [[decoding]] a name of its own"));
        }
    }
    Ok(())
}

/// The overrides of the decoder, as `--set` takes them.
pub(crate) fn decoder_sets(config: &RunConfig) -> Vec<String> {
    config.eval.set.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect()
}

struct Made {
    /// The arm's model; `None` where no model takes part.
    model: Option<Model>,
    fingerprint: String,
}

/// Trains an arm where it is trained, and draws its samples.
fn make_arm(
    job: &Job<'_>,
    arm: &ArmPlan,
    hardened: Option<&Model>,
    samples: &mut Store<Sample>,
    trainings: &mut Vec<Training>,
) -> Outcome<Made> {
    let model = match arm.kind {
        ArmKind::Constant => {
            generate::constant(job, arm, samples)?;
            return Ok(Made { model: None, fingerprint: "no model takes part".to_owned() });
        }
        ArmKind::Base | ArmKind::SecurePrompt => job.base.sharing_weights(),
        ArmKind::Improved => {
            let improved = job.improved.as_ref();
            let improved = improved.ok_or_else(|| Failure::new("no model was improved"))?;
            trainings.push(improved.training.clone());
            improved.model.clone()
        }
        ArmKind::Decoded { number, .. } => {
            let section = &job.config.decoding[number];
            let fingerprint = generate::draw_decoded(job, arm, section, hardened, samples)?;
            return Ok(Made { model: None, fingerprint });
        }
        ArmKind::Trained { shuffled, utility_only } => {
            let (model, training) = train_arm(job, arm, shuffled, utility_only, trainings)?;
            trainings.push(training);
            model
        }
    };
    let fingerprint = model.fingerprint()?;
    let decode = Arc::new(DecodeModel::new(&model)?);
    generate::draw(job, arm, decode, &fingerprint, samples)?;
    Ok(Made { model: Some(model), fingerprint })
}

fn train_arm(
    job: &Job<'_>,
    arm: &ArmPlan,
    shuffled: bool,
    utility_only: bool,
    earlier: &[Training],
) -> Outcome<(Model, Training)> {
    let mut recipe = job.recipe.clone().ok_or_else(|| Failure::new("the run has no recipe"))?;
    recipe.loss.kind = arms::loss_kind(recipe.loss.kind, utility_only);
    if utility_only
        && let Some(main) =
            earlier.iter().find(|training| [HARDENED, IMPROVED].contains(&training.arm.as_str()))
    {
        recipe.training.max_steps = main.steps;
    }
    if recipe.loss.kind == LossKind::UtilityOnly && job.inputs.utility.is_empty() {
        return Err(Failure::new("there are no utility rows to train on")
            .help("name them under `train.utility`"));
    }
    seed_of_run(&mut recipe, job.config);
    let data = if shuffled { training::Data::ShuffledLabels } else { training::Data::AsGiven };
    let folder = job.folder.training(&arm.id);
    let (model, trained) = training::train_arm(&training::Request {
        base: &job.base,
        tokenizer: &job.tokenizer,
        recipe: &recipe,
        inputs: &job.inputs,
        validation: job.validation.as_ref(),
        data,
        seed: job.config.seed,
        folder: &folder,
        name: &arm.id,
        quiet: job.quiet,
    })?;
    Ok((model, trained.record(&arm.id)))
}

/// Makes a training depend on the run's seed.
pub(crate) fn seed_of_run(recipe: &mut Recipe, config: &RunConfig) {
    recipe.training.seed = recipe.training.seed.wrapping_add(config.seed.wrapping_sub(1));
}

fn run_info(
    job: &Job<'_>,
    arms: Vec<Arm>,
    training: Vec<Training>,
    tools: BTreeMap<String, String>,
    metrics: &Metrics,
) -> Outcome<RunInfo> {
    let config = job.base.config();
    let origin = crate::hub::origin(&job.config.model);
    let name = match &origin {
        Some(origin) => origin.name.to_string(),
        None if assets::is_shipped(&job.config.model) => job.config.model.clone(),
        None => inputs::set_name(std::path::Path::new(&job.config.model)),
    };
    let mut facts = vec![
        ("name", json!(name)),
        ("fingerprint", json!(job.base.fingerprint()?)),
        ("parameters", json!(config.parameters())),
        ("layers", json!(config.num_hidden_layers)),
        ("hidden size", json!(config.hidden_size)),
        ("vocabulary", json!(config.vocab_size)),
        ("context", json!(config.max_position_embeddings)),
    ];
    if let Some(origin) = origin {
        facts.push(("from the hub", json!(origin.pinned().to_string())));
    }
    let mut resolved = serde_json::to_value(job.config)?;
    strip_folders(&mut resolved);
    Ok(RunInfo {
        title: job.config.title.clone().unwrap_or_else(|| match &job.improved {
            None => format!("{name} before and after hardening"),
            Some(_) => format!("{name} before and after training on its own samples"),
        }),
        lab: job.inputs.lab,
        hardn: env!("CARGO_PKG_VERSION").to_owned(),
        seed: job.config.seed,
        model: facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        config: resolved,
        arms,
        data: job.inputs.sources.clone(),
        training,
        tools,
        notes: job.inputs.notes.clone(),
        same_judge: match (&job.improved, repaired(job.config)?) {
            (Some(improved), _) => improve::same_judge(improved.judge, metrics, &job.inputs.suite),
            (None, true) => improve::same_judge(JudgeKind::Oracle, metrics, &job.inputs.suite),
            (None, false) => Vec::new(),
        },
    })
}

/// Whether the oracle read along where an arm was decoded.
fn repaired(config: &RunConfig) -> Outcome<bool> {
    let decoders = config.decoding.iter().map(config::DecodingConfig::decoder);
    Ok(decoders.collect::<Outcome<Vec<_>>>()?.iter().any(|decoder| decoder.repair.is_some()))
}

/// Absolute paths become their last two parts: a run folder may be shown to others.
fn strip_folders(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.contains('/') => {
            *text = inputs::set_name(std::path::Path::new(text.as_str()));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_folders),
        serde_json::Value::Object(map) => map.values_mut().for_each(strip_folders),
        _ => {}
    }
}

/// Says what a stage found already done.
pub(crate) fn say_resumed(stage: &str, done: usize, total: usize, quiet: bool) {
    if done > 0 && !quiet {
        say(&format!("{stage}: {done} of {total} are there already"));
    }
}

/// Turns an error of a stage into a clean stop where Ctrl-C was the cause.
pub(crate) fn stopped_or<T, E: Into<Failure>>(result: Result<T, E>, doing: &str) -> Outcome<T> {
    match result {
        Ok(value) => Ok(value),
        Err(_) if stop::requested() => Err(Failure::interrupted(
            "everything made so far is saved; run the same command to go on",
        )),
        Err(error) => Err(error).context(doing),
    }
}
