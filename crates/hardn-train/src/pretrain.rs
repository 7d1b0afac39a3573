//! Training a model from scratch on documents.

use std::{collections::BTreeMap, fs, path::Path, sync::atomic::AtomicBool};

use candle_core::{Device, Tensor};
use hardn_models::{Model, ModelConfig, SaveDtype, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Ended, Example, ExampleKind, LoopRecipe, LossRecipe, OptimizerRecipe, Outcome, Precision,
    Progress, Result, Schedule, TrainError,
    batch::{MicroBatch, Weighing},
    checkpoint::write_folder,
    identity::sha256,
    objective::{Objective, Reference},
    recipe::{check_optimizer, file},
    rng::Rng,
    run_loop::{self, LoopSettings, Plan, StepPlan},
};

/// Sequences sorted by length at a time: enough for little padding, few enough that batches stay mixed.
const WINDOW: usize = 2048;

/// Shape of the model to be made; every other key of `config.json` has [`ModelConfig::llama`]'s value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "published names")]
pub struct ModelShape {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// Vocabulary of the tokenizer to be trained.
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
}

/// How a model is trained from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRecipe {
    /// One line for tables.
    #[serde(default)]
    pub title: String,
    /// The model to be made.
    pub model: ModelShape,
    /// Longer documents are cut into pieces of this many tokens.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// Share of the tokens that is trained as several documents joined up to `max_tokens`.
    #[serde(default)]
    pub joined_share: f64,
    /// Padded tokens per step, at most (a longer single sequence is a step of its own).
    #[serde(default = "default_tokens_per_batch")]
    pub tokens_per_batch: usize,
    /// Documents held out for validation where no file of them is given.
    #[serde(default = "default_validation")]
    pub validation_documents: usize,
    /// The rule that moves the weights.
    pub optimizer: OptimizerRecipe,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long is trained; `batch_size`, `accumulation` and `clip_per` do not count here.
    #[serde(default)]
    pub training: LoopRecipe,
}

fn default_max_tokens() -> usize {
    1024
}

fn default_tokens_per_batch() -> usize {
    8192
}

fn default_validation() -> usize {
    200
}

impl PretrainRecipe {
    /// Loads a recipe by id or from a file, then applies `--set` assignments in order.
    ///
    /// # Errors
    /// As [`crate::Recipe::load`].
    pub fn load(name: &str, assignments: &[String]) -> Result<Self> {
        let recipe: Self = file::load(name, assignments)?;
        let error = |message: String| TrainError::Recipe { name: name.to_owned(), message };
        check_optimizer(&recipe.optimizer, recipe.training.clip_norm).map_err(error)?;
        recipe.training.check().and_then(|()| recipe.schedule.check()).map_err(error)?;
        if recipe.training.precision != Precision::F32 {
            return Err(error(
                "`training.precision` must be `f32`: all weights are trained".to_owned(),
            ));
        }
        let context = recipe.model.max_position_embeddings;
        if recipe.max_tokens < 2 || recipe.max_tokens > context {
            return Err(error(format!(
                "`max_tokens` is {}, but must be from 2 to `model.max_position_embeddings` ({context})",
                recipe.max_tokens
            )));
        }
        if !(0.0..=1.0).contains(&recipe.joined_share) {
            return Err(error("`joined_share` must be in 0..=1".to_owned()));
        }
        Ok(recipe)
    }

    /// The configuration of the model to be made, for a tokenizer.
    ///
    /// # Errors
    /// Sizes that contradict each other.
    pub fn model_config(&self, tokenizer: &Tokenizer) -> Result<ModelConfig> {
        let shape = &self.model;
        let mut config = ModelConfig::llama(
            tokenizer.vocab_size(),
            shape.hidden_size,
            shape.num_hidden_layers,
            shape.num_attention_heads,
            shape.intermediate_size,
            shape.max_position_embeddings,
        )?;
        config.bos_token_id = tokenizer.eos();
        config.eos_token_id = tokenizer.eos().map(hardn_models::TokenIds::One);
        config.pad_token_id = tokenizer.special("<|pad|>");
        Ok(config)
    }
}

/// Documents as tokens, each followed by the end-of-text token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizedDocuments {
    documents: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
}

/// The texts of a JSON Lines file whose rows have a `text`; other fields are ignored.
///
/// # Errors
/// An unreadable file or the first malformed row.
pub fn read_documents(path: &Path) -> Result<Vec<String>> {
    let rows: Vec<Row> = hardn_types::read_jsonl(path)?;
    Ok(rows.into_iter().map(|row| row.text).collect())
}

impl TokenizedDocuments {
    /// Tokenizes texts, on all cores. With `cache` a folder, the result is kept there under a hash of texts and
    /// tokenizer, and read again the next time.
    ///
    /// # Errors
    /// A tokenizer without end-of-text token, or files that cannot be written.
    pub fn new(texts: &[String], tokenizer: &Tokenizer, cache: Option<&Path>) -> Result<Self> {
        let Some(eos) = tokenizer.eos() else {
            return Err(TrainError::Missing {
                what: "the tokenizer's end-of-text token".to_owned(),
                help: "train a tokenizer with one, or name it in tokenizer_config.json".to_owned(),
            });
        };
        let path = cache.map(|dir| {
            let tokens = (0..tokenizer.vocab_size()).map(|id| tokenizer.token_bytes(id as u32));
            let hash = sha256(tokens.chain(texts.iter().map(String::as_bytes)));
            dir.join(format!("tokens-{}.safetensors", &hash[..16]))
        });
        if let Some(documents) = path.as_deref().and_then(read_cache) {
            return Ok(Self { documents });
        }
        let documents: Vec<Vec<u32>> = texts
            .par_iter()
            .map(|text| {
                let mut ids = tokenizer.encode(text)?.ids;
                ids.push(eos);
                Ok(ids)
            })
            .collect::<Result<_>>()?;
        if let Some(path) = path {
            write_cache(&path, &documents)?;
        }
        Ok(Self { documents })
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Tokens of all documents, end-of-text tokens included.
    pub fn n_tokens(&self) -> usize {
        self.documents.iter().map(Vec::len).sum()
    }

    fn fingerprint(&self) -> String {
        let bytes =
            |ids: &Vec<u32>| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
        sha256(self.documents.iter().map(bytes))
    }

    /// Takes `n` documents, drawn with the seed, out into another set.
    fn split_off(&mut self, n: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        Rng::new(seed, &[0x0a11]).shuffle(&mut order);
        let mut held: Vec<usize> = order.into_iter().take(n.min(self.len() / 10)).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        Self { documents: held.into_iter().map(|i| self.documents.swap_remove(i)).collect() }
    }
}

fn read_cache(path: &Path) -> Option<Vec<Vec<u32>>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).ok()?;
    let ids = tensors.get("ids")?.to_vec1::<u32>().ok()?;
    let lengths = tensors.get("lengths")?.to_vec1::<u32>().ok()?;
    let mut documents = Vec::with_capacity(lengths.len());
    let mut rest = ids.as_slice();
    for length in lengths {
        let (document, tail) = rest.split_at_checked(length as usize)?;
        documents.push(document.to_vec());
        rest = tail;
    }
    rest.is_empty().then_some(documents)
}

fn write_cache(path: &Path, documents: &[Vec<u32>]) -> Result<()> {
    let lengths: Vec<u32> = documents.iter().map(|ids| ids.len() as u32).collect();
    let tensors = std::collections::HashMap::from([
        ("ids".to_owned(), Tensor::new(documents.concat(), &Device::Cpu)?),
        ("lengths".to_owned(), Tensor::new(lengths, &Device::Cpu)?),
    ]);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(TrainError::file("create", parent))?;
    }
    let temporary = path.with_extension("writing");
    candle_core::safetensors::save(&tensors, &temporary)?;
    fs::rename(&temporary, path).map_err(TrainError::file("rename to", path))
}

/// Trains a model from scratch; writes it with its tokenizer to `out/model` in f16, loadable by `transformers`.
///
/// Without `validation` documents the recipe's number of them is held out of `documents`. The record is in
/// `out/events.jsonl`; a call on the same folder goes on where the last one was stopped or killed.
///
/// # Errors
/// No documents, a loss that is not finite, another training in `out`, or files that cannot be written.
pub fn pretrain(
    recipe: &PretrainRecipe,
    tokenizer: &Tokenizer,
    documents: &TokenizedDocuments,
    validation: Option<&TokenizedDocuments>,
    out: &Path,
    progress: &mut dyn Progress,
    stop: &AtomicBool,
) -> Result<(Model, Outcome)> {
    let seed = recipe.training.seed;
    let model = Model::random(&recipe.model_config(tokenizer)?, seed)?;
    let mut training = documents.clone();
    let held = match validation {
        Some(validation) => validation.clone(),
        None => training.split_off(recipe.validation_documents, seed),
    };
    if training.is_empty() {
        return Err(TrainError::NothingToTrain { reasons: "there are no documents".to_owned() });
    }
    let mut identity = BTreeMap::new();
    let mut described = recipe.clone();
    // How often is looked does not change what is computed.
    described.training.checkpoint_every = 0;
    described.training.keep_checkpoints = 0;
    identity.insert("the recipe".to_owned(), serde_json::to_string(&described).unwrap_or_default());
    identity.insert("the documents".to_owned(), training.fingerprint());
    identity.insert("the validation documents".to_owned(), held.fingerprint());
    let mut plan = DocumentPlan::new(recipe, training, &held);
    let objective = Objective {
        model: &model,
        reference: Reference::AdapterOff,
        loss: LossRecipe::default().resolved(),
        checkpointing: recipe.training.gradient_checkpointing,
        per_token: true,
    };
    let settings = LoopSettings {
        optimizer: recipe.optimizer,
        schedule: recipe.schedule,
        training: recipe.training,
        recipe: serde_json::to_value(recipe).unwrap_or_default(),
        identity,
        dir: out,
        stop,
        dropout: false,
    };
    let outcome = run_loop::run(&objective, &mut plan, &settings, progress)?;
    if outcome.ended == Ended::Finished {
        write_folder(&out.join("model"), |dir| {
            model.save(dir, SaveDtype::F16)?;
            Ok(tokenizer.save(dir)?)
        })?;
    }
    Ok((model, outcome))
}

/// Which sequences each step trains on.
struct DocumentPlan {
    documents: Vec<Vec<u32>>,
    max_tokens: usize,
    joined_share: f64,
    tokens_per_batch: usize,
    seed: u64,
    total: usize,
    /// The epoch that is laid out, the step it starts at, and its batches of sequences of pieces of documents.
    epoch: usize,
    epoch_start: usize,
    batches: Vec<Vec<Sequence>>,
    validation: Vec<MicroBatch>,
}

/// Stretches of documents joined to one sequence: (document, start, end) each.
type Sequence = Vec<(usize, usize, usize)>;

impl DocumentPlan {
    fn new(
        recipe: &PretrainRecipe,
        training: TokenizedDocuments,
        held: &TokenizedDocuments,
    ) -> Self {
        let mut plan = Self {
            documents: training.documents,
            max_tokens: recipe.max_tokens,
            joined_share: recipe.joined_share,
            tokens_per_batch: recipe.tokens_per_batch,
            seed: recipe.training.seed,
            total: 0,
            epoch: 0,
            epoch_start: 0,
            batches: Vec::new(),
            validation: Vec::new(),
        };
        plan.batches = plan.lay_out(0);
        plan.total = match recipe.training.max_steps {
            0 => plan.steps_of(recipe.training.epochs),
            steps => steps,
        };
        let pieces = |(i, ids): (usize, &Vec<u32>)| {
            let end = ids.len().min(recipe.max_tokens);
            (end > 1).then(|| example(format!("validation {i}"), ids[..end].to_vec()))
        };
        let examples: Vec<Example> = held.documents.iter().enumerate().filter_map(pieces).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        let weighing = Weighing::mean_of_tokens(&examples, &LossRecipe::default().resolved(), 1);
        plan.validation = crate::batch::group_by_length(examples, plan.tokens_per_batch)
            .into_iter()
            .map(|group| MicroBatch::new(&group, &LossRecipe::default().resolved(), weighing))
            .collect();
        plan
    }

    /// Steps of `epochs` passes; the layout of every pass is computed once to count them.
    fn steps_of(&self, epochs: f64) -> usize {
        let whole = epochs.floor() as usize;
        let steps: usize = (0..whole).map(|epoch| self.lay_out(epoch).len()).sum();
        let rest = epochs - whole as f64;
        if rest <= 0.0 {
            return steps.max(1);
        }
        steps + (rest * self.lay_out(whole).len() as f64).ceil() as usize
    }

    /// The batches of one pass, in order: a function of the seed and the epoch.
    fn lay_out(&self, epoch: usize) -> Vec<Vec<Sequence>> {
        let mut rng = Rng::new(self.seed, &[0xd0c5, epoch as u64]);
        let mut order: Vec<usize> = (0..self.documents.len()).collect();
        rng.shuffle(&mut order);
        let mut joined_left =
            self.joined_share * self.documents.iter().map(Vec::len).sum::<usize>() as f64;
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut open: Sequence = Vec::new();
        let mut open_length = 0;
        for document in order {
            let length = self.documents[document].len();
            for start in (0..length).step_by(self.max_tokens) {
                let piece = (document, start, length.min(start + self.max_tokens));
                let n = piece.2 - piece.1;
                if joined_left <= 0.0 {
                    sequences.push(vec![piece]);
                    continue;
                }
                joined_left -= n as f64;
                if open_length + n > self.max_tokens {
                    sequences.push(std::mem::take(&mut open));
                    open_length = 0;
                }
                open.push(piece);
                open_length += n;
            }
        }
        if !open.is_empty() {
            sequences.push(open);
        }
        // One token predicts nothing.
        sequences.retain(|sequence| length_of(sequence) > 1);
        rng.shuffle(&mut sequences);
        let mut batches = Vec::new();
        for window in sequences.chunks_mut(WINDOW) {
            window.sort_by_key(length_of);
            let mut batch: Vec<Sequence> = Vec::new();
            for sequence in window {
                let padded = (batch.len() + 1) * length_of(sequence);
                if !batch.is_empty() && padded > self.tokens_per_batch {
                    batches.push(std::mem::take(&mut batch));
                }
                batch.push(std::mem::take(sequence));
            }
            batches.push(batch);
        }
        rng.shuffle(&mut batches);
        batches
    }

    fn examples(&self, sequences: &[Sequence]) -> Vec<Example> {
        let join = |sequence: &Sequence| {
            let pieces = sequence
                .iter()
                .map(|&(document, start, end)| &self.documents[document][start..end]);
            let ids = pieces.collect::<Vec<_>>().concat();
            let name = sequence.iter().map(|(document, ..)| document.to_string());
            example(format!("document {}", name.collect::<Vec<_>>().join("+")), ids)
        };
        sequences.iter().map(join).collect()
    }
}

fn length_of(sequence: &Sequence) -> usize {
    sequence.iter().map(|(_, start, end)| end - start).sum()
}

fn example(id: String, ids: Vec<u32>) -> Example {
    Example { id, kind: ExampleKind::Utility, selected: vec![1; ids.len()], ids }
}

impl Plan for DocumentPlan {
    fn total_steps(&self) -> usize {
        self.total
    }

    fn step(&mut self, step: usize) -> StepPlan {
        if step < self.epoch_start {
            (self.epoch, self.epoch_start) = (0, 0);
            self.batches = self.lay_out(0);
        }
        while step - self.epoch_start >= self.batches.len() {
            self.epoch_start += self.batches.len();
            self.epoch += 1;
            self.batches = self.lay_out(self.epoch);
        }
        let examples = self.examples(&self.batches[step - self.epoch_start]);
        let examples: Vec<&Example> = examples.iter().collect();
        let weighing = Weighing::mean_of_tokens(&examples, &LossRecipe::default().resolved(), 1);
        StepPlan {
            batches: vec![MicroBatch::new(&examples, &LossRecipe::default().resolved(), weighing)],
        }
    }

    fn validation(&self) -> &[MicroBatch] {
        &self.validation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(joined_share: f64) -> DocumentPlan {
        let documents = (0..500).map(|i| vec![i; 5 + (i as usize * 7) % 60]).collect();
        let assignments = [
            format!("joined_share={joined_share}"),
            "tokens_per_batch=512".to_owned(),
            "max_tokens=48".to_owned(),
            "training.epochs=2".to_owned(),
        ];
        let recipe = PretrainRecipe::load("pretrain-lab-1m", &assignments).unwrap();
        DocumentPlan::new(&recipe, TokenizedDocuments { documents }, &TokenizedDocuments::default())
    }

    #[test]
    fn every_token_is_seen_once_per_epoch_within_the_budget() {
        for share in [0.0, 0.3, 1.0] {
            let mut plan = plan(share);
            let total = plan.total_steps();
            let mut seen = BTreeMap::<u32, usize>::new();
            let mut n_joined = 0;
            for step in 0..total {
                let work = plan.step(step);
                let batch = &work.batches[0];
                assert!(batch.shape.0 * batch.shape.1 <= 512 && batch.shape.1 <= 48);
                n_joined += batch.examples.iter().filter(|id| id.contains('+')).count();
                // Padding is 0 here, which is document 0's token too: count it by the sequences instead.
                for sequence in &plan.batches[step - plan.epoch_start] {
                    for &(document, start, end) in sequence {
                        *seen.entry(document as u32).or_default() += end - start;
                    }
                }
            }
            for (document, n) in seen {
                // A last piece of one token is left out where it stands alone.
                let length = 5 + (document as usize * 7) % 60;
                assert!(n == 2 * length || length % 48 == 1, "document {document}: {n}");
            }
            assert_eq!(n_joined > 0, share > 0.0);
        }
    }

    #[test]
    fn a_step_does_not_depend_on_those_before_it() {
        let mut whole = plan(0.3);
        let steps: Vec<_> =
            (0..whole.total_steps()).map(|i| whole.step(i).batches[0].ids.clone()).collect();
        for i in [steps.len() - 1, 0, steps.len() / 2 + 1, 3] {
            assert_eq!(plan(0.3).step(i).batches[0].ids, steps[i], "step {i}");
        }
    }

    struct StopAt<'a>(usize, &'a AtomicBool);

    impl Progress for StopAt<'_> {
        fn step(&mut self, update: &crate::StepUpdate) {
            self.1.store(update.step == self.0, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn a_stopped_pretraining_goes_on_to_the_same_model() {
        let texts: Vec<String> =
            (0..80).map(|i| format!("def f{i}(a, b):\n    return a * {i} + b\n")).collect();
        let tokenizer = crate::testing::tokenizer();
        let documents = TokenizedDocuments::new(&texts, &tokenizer, None).unwrap();
        let assignments = [
            "model.hidden_size=16",
            "model.num_hidden_layers=2",
            "model.num_attention_heads=2",
            "model.intermediate_size=32",
            "tokens_per_batch=512",
            "max_tokens=64",
            "training.max_steps=20",
        ]
        .map(str::to_owned);
        let recipe = PretrainRecipe::load("pretrain-lab-1m", &assignments).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str, stop_at: usize| {
            let stop = AtomicBool::new(false);
            let mut progress = StopAt(stop_at, &stop);
            let out = dir.path().join(name);
            pretrain(&recipe, &tokenizer, &documents, None, &out, &mut progress, &stop).unwrap()
        };
        let (whole, outcome) = run("whole", usize::MAX);
        let (first, last) = (&outcome.curve[0], &outcome.curve[outcome.curve.len() - 1]);
        assert!(last.validation["all"] < first.validation["all"], "{first:?} {last:?}");
        assert_eq!(run("parts", 7).1.ended, Ended::Interrupted { step: 7 });
        let (parts, _) = run("parts", usize::MAX);
        assert_eq!(whole.fingerprint().unwrap(), parts.fingerprint().unwrap());
        let read = |name: &str, file: &str| fs::read(dir.path().join(name).join(file)).unwrap();
        for file in ["events.jsonl", "model/model.safetensors"] {
            assert!(read("whole", file) == read("parts", file), "{file} differs");
        }
        Model::load(&dir.path().join("parts/model"), &Device::Cpu).unwrap();
        Tokenizer::load(&dir.path().join("parts/model")).unwrap();
    }

    #[test]
    fn tokens_come_back_from_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let documents = vec![vec![1, 2, 3], vec![], vec![4]];
        let path = dir.path().join("a/tokens.safetensors");
        write_cache(&path, &documents).unwrap();
        assert_eq!(read_cache(&path), Some(documents));
        assert_eq!(read_cache(&dir.path().join("none")), None);
    }
}
