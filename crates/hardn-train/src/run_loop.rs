//! The loop all training shares: steps, validation, checkpoints, resuming, stopping.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use candle_core::Var;
use hardn_types::{BoxError, LossPoint, write_atomic};

use crate::{
    ClipPer, LoopRecipe, OptimizerRecipe, Result, Schedule, TrainError,
    batch::MicroBatch,
    checkpoint::{Checkpoints, State},
    events::{Event, EventLog, curve, read_events, write_csv},
    objective::Objective,
    optimizer::Optimizer,
    rng::derive_seed,
    terms::Terms,
};

/// Where a training stands after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepUpdate {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// The weighted sum that was minimised, in nats.
    pub loss: f64,
    /// Mean loss per example, by term, in nats.
    pub terms: BTreeMap<String, f64>,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Tokens of this step, without padding.
    pub tokens: usize,
    /// Tokens per second of this step.
    pub tokens_per_second: f64,
}

/// Is told how a training goes. Every method has a default that does nothing.
pub trait Progress {
    /// Training begins, or goes on after `step`.
    fn start(&mut self, step: usize, total: usize) {
        let _ = (step, total);
    }

    /// A step is done.
    fn step(&mut self, update: &StepUpdate) {
        let _ = update;
    }

    /// A validation is done: mean loss per example by kind, and `all`.
    fn validation(&mut self, step: usize, losses: &BTreeMap<String, f64>) {
        let _ = (step, losses);
    }

    /// Scores the model as it is after `step`, by name (see [`crate::BestBy`]): shares of 1, higher is better.
    /// `training.best_by` says which of them decides, if any; all are recorded.
    ///
    /// # Errors
    /// Whatever made it impossible; the training stops, and its last checkpoint stays good.
    fn score(
        &mut self,
        model: &hardn_models::Model,
        step: usize,
    ) -> std::result::Result<BTreeMap<String, f64>, BoxError> {
        let _ = (model, step);
        Ok(BTreeMap::new())
    }

    /// What [`Self::score`] scores on, as a hash; a training goes on only with the same.
    fn suite(&self) -> Option<String> {
        None
    }

    /// A validation's scores, as [`Self::score`] gave them.
    fn scored(&mut self, step: usize, scores: &BTreeMap<String, f64>) {
        let _ = (step, scores);
    }
}

/// Tells nobody.
impl Progress for () {}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// All steps are done, or as many as it took to see that validation no longer gets better.
    Finished,
    /// The stop flag was set; the state after this step is saved and another call goes on from there.
    Interrupted {
        /// Steps done.
        step: usize,
    },
}

/// What came out of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Steps done.
    pub steps: usize,
    /// The step whose weights the model now has.
    pub kept_step: usize,
    /// Tokens seen, without padding.
    pub tokens: u64,
    /// Values that were trained.
    pub n_parameters: usize,
    /// The loss curve.
    pub curve: Vec<LossPoint>,
}

/// The work of one optimiser step.
pub(crate) struct StepPlan {
    pub(crate) batches: Vec<MicroBatch>,
}

/// Says what each step computes: a function of the step alone, so that a resumed training sees the same.
pub(crate) trait Plan {
    fn total_steps(&self) -> usize;
    fn step(&mut self, step: usize) -> StepPlan;
    /// Batches whose losses add up to the validation loss; may be empty.
    fn validation(&self) -> &[MicroBatch];
}

/// Everything the loop needs besides the model and the plan.
pub(crate) struct LoopSettings<'a> {
    pub(crate) optimizer: OptimizerRecipe,
    pub(crate) schedule: Schedule,
    pub(crate) training: LoopRecipe,
    /// The resolved recipe, for `recipe.json`.
    pub(crate) recipe: serde_json::Value,
    /// What the training is made of, by name.
    pub(crate) identity: BTreeMap<String, String>,
    pub(crate) dir: &'a Path,
    pub(crate) stop: &'a AtomicBool,
    /// The adapter has dropout.
    pub(crate) dropout: bool,
}

/// Trains the objective's model, going on from the last checkpoint in `settings.dir` if there is one.
pub(crate) fn run(
    objective: &Objective<'_>,
    plan: &mut dyn Plan,
    settings: &LoopSettings<'_>,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    let checkpoints =
        Checkpoints::new(settings.dir.join("checkpoints"), settings.training.keep_checkpoints);
    fs::create_dir_all(settings.dir).map_err(TrainError::file("create", settings.dir))?;
    let _lock = lock(settings.dir)?;
    checkpoints.clean()?;
    keep_freed_memory();
    let mut optimizer = Optimizer::new(settings.optimizer, objective.model.trainable())?;
    let mut state = State {
        identity: settings.identity.clone(),
        step: 0,
        updates: 0,
        tokens: 0,
        best: None,
        stale: 0,
    };
    if let Some(&last) = checkpoints.steps().last() {
        state = restore(&checkpoints, last, &mut optimizer, settings)?;
    }
    let mut recipe = serde_json::to_vec_pretty(&settings.recipe).unwrap_or_default();
    recipe.push(b'\n');
    write_atomic(&settings.dir.join("recipe.json"), &recipe)?;
    let mut log = EventLog::open(settings.dir, state.step)?;
    let variables = objective.model.trainable().into_iter().map(|(_, var)| var).collect();
    let total = plan.total_steps();
    let mut run = Run { objective, settings, checkpoints, optimizer, variables, state, total };
    progress.start(run.state.step, run.total);
    if run.state.step == 0 {
        run.validate(plan, &mut log, progress)?;
    }
    while run.state.step < run.total && !run.is_stale() {
        run.step(plan, &mut log, progress)?;
        let step = run.state.step;
        let every = |n: usize| n > 0 && step.is_multiple_of(n);
        let validated = step == run.total || every(settings.training.eval_every);
        if validated {
            run.validate(plan, &mut log, progress)?;
        }
        let stopping = settings.stop.load(Ordering::SeqCst);
        if validated || stopping || every(settings.training.checkpoint_every) {
            log.flush()?;
            run.save()?;
        }
        if stopping && step < run.total && !run.is_stale() {
            return run.outcome(Ended::Interrupted { step }, step);
        }
    }
    let mut kept = run.state.step;
    if let Some((best, _)) = run.state.best.filter(|_| settings.training.keep_best)
        && best != run.state.step
    {
        restore(&run.checkpoints, best, &mut run.optimizer, settings)?;
        kept = best;
    }
    run.outcome(Ended::Finished, kept)
}

/// Keeps other processes out of a training's folder for as long as the file is open; the system lets go when a process
/// dies.
fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join(".lock");
    let open = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(TrainError::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(TrainError::InUse { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(TrainError::file("lock", path)(source)),
    }
}

/// Tells the allocator of glibc to keep what is freed. Each step allocates the same large blocks again, and getting
/// them from the system anew, page by page, costs about 7 % of a step. Process-wide; other systems are left alone.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only changes settings of the allocator and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

fn restore(
    checkpoints: &Checkpoints,
    step: usize,
    optimizer: &mut Optimizer,
    settings: &LoopSettings<'_>,
) -> Result<State> {
    let (state, tensors) = checkpoints.load(step)?;
    let names = settings.identity.keys().chain(state.identity.keys());
    let differs = |name: &&String| settings.identity.get(*name) != state.identity.get(*name);
    if let Some(name) = names.clone().find(differs) {
        return Err(TrainError::OtherRun { path: settings.dir.to_owned(), what: name.clone() });
    }
    optimizer
        .restore(&tensors, state.updates)
        .map_err(|message| TrainError::Checkpoint { path: checkpoints.path(step), message })?;
    Ok(state)
}

struct Run<'a> {
    objective: &'a Objective<'a>,
    settings: &'a LoopSettings<'a>,
    checkpoints: Checkpoints,
    optimizer: Optimizer,
    variables: Vec<Var>,
    state: State,
    total: usize,
}

impl Run<'_> {
    fn step(
        &mut self,
        plan: &mut dyn Plan,
        log: &mut EventLog,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let started = Instant::now();
        let training = &self.settings.training;
        let index = self.state.step;
        let work = plan.step(index);
        let mut terms = Terms::default();
        let mut tokens = 0;
        let mut gradient_norm = 0.0;
        for (i, batch) in work.batches.iter().enumerate() {
            let seed = self.dropout_seed(index, i);
            let (parts, gradients) = self.objective.gradients(batch, seed, &self.variables)?;
            if !parts.loss.is_finite() {
                return Err(self.not_finite(format!("it is {}", parts.loss), batch));
            }
            self.optimizer.accumulate(gradients)?;
            if training.clip_per == ClipPer::MicroBatch {
                gradient_norm = self.optimizer.clip(training.clip_norm)?;
                if !gradient_norm.is_finite() {
                    return Err(self.not_finite("its gradient overflows".to_owned(), batch));
                }
            }
            terms.merge(&parts);
            tokens += batch.n_tokens;
        }
        if training.clip_per == ClipPer::Step {
            gradient_norm = self.optimizer.clip(training.clip_norm)?;
            if !gradient_norm.is_finite() {
                return Err(self.overflow(work.batches, index)?);
            }
        }
        let rate = self.settings.optimizer.learning_rate();
        let learning_rate = rate * self.settings.schedule.factor(index, self.total);
        self.optimizer.update(learning_rate)?;
        self.state.step += 1;
        self.state.tokens += tokens as u64;
        let seconds = started.elapsed().as_secs_f64();
        let (step, loss, terms) = (self.state.step, terms.loss, terms.means());
        log.write(&Event::Step {
            step,
            loss,
            terms: terms.clone(),
            learning_rate,
            gradient_norm,
            tokens: self.state.tokens,
        })?;
        log.timing(step, seconds, tokens)?;
        progress.step(&StepUpdate {
            step,
            total: self.total,
            loss,
            terms,
            learning_rate,
            tokens,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
        });
        Ok(())
    }

    fn validate(
        &mut self,
        plan: &dyn Plan,
        log: &mut EventLog,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let mut terms = Terms::default();
        for batch in plan.validation() {
            let parts = self.objective.evaluate(batch)?;
            if !parts.loss.is_finite() {
                return Err(self.not_finite("in validation".to_owned(), batch));
            }
            terms.merge(&parts);
        }
        let step = self.state.step;
        let mut losses = terms.means();
        if !plan.validation().is_empty() {
            losses.insert("all".to_owned(), terms.loss);
        }
        let failed = |error: BoxError| TrainError::Score { step, message: error.to_string() };
        let scores = progress.score(self.objective.model, step).map_err(failed)?;
        let LoopRecipe { best_by, min_delta, keep_best, patience, .. } = self.settings.training;
        let criterion = match best_by.score() {
            None => losses.get("all").copied(),
            Some(name) => scores.get(name).map(|score| -score),
        };
        if criterion.is_none() && (keep_best || patience > 0) {
            return Err(TrainError::NothingToCompare {
                best_by: best_by.score().unwrap_or("loss"),
            });
        }
        // The untrained model is never kept as the best.
        if let Some(criterion) = criterion.filter(|_| step > 0) {
            let best = self.state.best.map_or(f64::INFINITY, |(_, best)| best);
            let is_better = criterion < best - min_delta;
            self.state.stale = if is_better { 0 } else { self.state.stale + 1 };
            if criterion < best {
                self.state.best = Some((step, criterion));
            }
        }
        if losses.is_empty() && scores.is_empty() {
            return Ok(());
        }
        log.write(&Event::Validation { step, losses: losses.clone(), scores: scores.clone() })?;
        progress.validation(step, &losses);
        progress.scored(step, &scores);
        Ok(())
    }

    /// Validation has not got better for as long as the recipe waits.
    fn is_stale(&self) -> bool {
        let patience = self.settings.training.patience;
        patience > 0 && self.state.stale >= patience
    }

    fn save(&mut self) -> Result<()> {
        let (tensors, updates) = self.optimizer.state()?;
        self.state.updates = updates;
        self.checkpoints.save(&self.state, tensors)?;
        Ok(())
    }

    fn dropout_seed(&self, step: usize, batch: usize) -> Option<u64> {
        let seed = self.settings.training.seed;
        self.settings.dropout.then(|| derive_seed(seed, &[0xd0, step as u64, batch as u64]))
    }

    /// Computes the gradients of a step again, one micro-batch after the other, to say which of them overflows.
    fn overflow(&mut self, batches: Vec<MicroBatch>, step: usize) -> Result<TrainError> {
        for (i, batch) in batches.iter().enumerate() {
            self.optimizer.clear_gradients();
            let seed = self.dropout_seed(step, i);
            let (_, gradients) = self.objective.gradients(batch, seed, &self.variables)?;
            self.optimizer.accumulate(gradients)?;
            if !self.optimizer.clip(0.0)?.is_finite() {
                return Ok(self.not_finite("its gradient overflows".to_owned(), batch));
            }
        }
        let examples = batches.into_iter().flat_map(|batch| batch.examples).collect();
        let all = MicroBatch { examples, ..MicroBatch::default() };
        Ok(self.not_finite("the sum of its gradients overflows".to_owned(), &all))
    }

    /// Saves the state before the step that failed, and says which examples it was.
    fn not_finite(&mut self, what: String, batch: &MicroBatch) -> TrainError {
        self.optimizer.clear_gradients();
        if let Err(error) = self.save() {
            return error;
        }
        TrainError::NotFinite {
            step: self.state.step + 1,
            what,
            examples: batch.examples.clone(),
            checkpoint: self.checkpoints.path(self.state.step),
        }
    }

    fn outcome(&self, ended: Ended, kept_step: usize) -> Result<Outcome> {
        let events = read_events(self.settings.dir);
        write_csv(self.settings.dir, &events)?;
        Ok(Outcome {
            ended,
            steps: self.state.step,
            kept_step,
            tokens: self.state.tokens,
            n_parameters: self.optimizer.n_parameters(),
            curve: curve(&events),
        })
    }
}
