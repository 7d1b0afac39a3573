//! What a step is computed from, token by token, to look at.

use hardn_models::Tokenizer;
use serde::Serialize;

use crate::{
    Counts, ExampleKind, Recipe, Result, Term, TrainError, TrainingData, batch::MicroBatch,
    mix::MixPlan, prepare::prepare, run_loop::Plan,
};

/// What a token is to the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Seen, not learnt.
    Context,
    /// Made likelier, of a utility sample.
    Utility,
    /// Made likelier, of secure code.
    Secure,
    /// Of vulnerable code: made less likely, or learnt by what is to be told apart from the secure side.
    Vulnerable,
    /// Its whole distribution is held to the untrained model's.
    Kl,
}

/// A sample in a micro-batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BatchSample {
    /// Which micro-batch, from 0.
    pub micro_batch: usize,
    /// Which row of it, from 0.
    pub row: usize,
    /// Position of its first token in the row: above 0 where samples are packed.
    pub start: usize,
    /// The pair's or item's id.
    pub id: String,
    /// What it is for.
    pub kind: ExampleKind,
    /// How its marked tokens enter: `nll` or `unlikelihood`; none where nothing of it is charged.
    pub term: Option<&'static str>,
    /// Tokens.
    pub n_tokens: usize,
    /// Tokens that carry a likelihood or unlikelihood.
    pub n_selected: usize,
    /// Tokens that carry a divergence.
    pub n_kl: usize,
    /// What its token losses are multiplied by in the update, added up.
    pub weight: f64,
    /// Token ids.
    pub ids: Vec<u32>,
    /// One per token.
    pub marks: Vec<Mark>,
}

/// A step's samples.
#[derive(Clone, Debug, PartialEq)]
pub struct StepBatches {
    /// In the order they are computed in.
    pub samples: Vec<BatchSample>,
    /// Rows and positions of each micro-batch, padding included.
    pub shapes: Vec<(usize, usize)>,
    /// Steps of the training.
    pub total_steps: usize,
    /// Examples kept and dropped in training.
    pub counts: Counts,
}

/// What step `step` (from 1) of a training would be computed from. `context` is the model's, in tokens.
///
/// # Errors
/// As [`crate::train`] for what it makes of its data; a step the training does not have.
pub fn step_batches(
    tokenizer: &Tokenizer,
    context: usize,
    recipe: &Recipe,
    data: &TrainingData<'_>,
    step: usize,
) -> Result<StepBatches> {
    let prepared = prepare(tokenizer, context, recipe, data)?;
    let counts = prepared.train_counts.clone();
    let mut plan = MixPlan::new(recipe, prepared, context);
    if plan.samples_per_epoch() == 0 || plan.steps_per_epoch() == 0 {
        return Err(counts.nothing());
    }
    let total_steps = plan.total_steps();
    if step == 0 || step > total_steps {
        return Err(TrainError::Missing {
            what: format!("step {step}"),
            help: format!("the training has the steps 1 to {total_steps}"),
        });
    }
    let batches = plan.step(step - 1).batches;
    let samples = batches.iter().enumerate().flat_map(|(i, batch)| samples(i, batch)).collect();
    let shapes = batches.iter().map(|batch| batch.shape).collect();
    Ok(StepBatches { samples, shapes, total_steps, counts })
}

fn samples(micro_batch: usize, batch: &MicroBatch) -> Vec<BatchSample> {
    let seq = batch.shape.1;
    let mut samples: Vec<BatchSample> = Vec::new();
    for (row, owners) in batch.row_starts.windows(2).enumerate() {
        let mut start = 0;
        for owner in owners[0]..owners[1] {
            let n_tokens = batch.lengths[owner];
            let first = row * seq + start;
            samples.push(BatchSample {
                micro_batch,
                row,
                start,
                id: batch.examples[owner].clone(),
                kind: batch.kinds[owner],
                term: None,
                n_tokens,
                n_selected: 0,
                n_kl: 0,
                weight: 0.0,
                ids: batch.ids[first..first + n_tokens].to_vec(),
                marks: vec![Mark::Context; n_tokens],
            });
            start += n_tokens;
        }
    }
    let place =
        |sample: &BatchSample, charged: u32| charged as usize + 1 - sample.row * seq - sample.start;
    for (i, &owner) in batch.owners.iter().enumerate() {
        let sample = &mut samples[owner];
        let t = place(sample, batch.rows[i]);
        sample.marks[t] = match sample.kind {
            ExampleKind::Utility => Mark::Utility,
            ExampleKind::Secure => Mark::Secure,
            ExampleKind::Vulnerable => Mark::Vulnerable,
        };
        sample.term = Some(match batch.terms[i] {
            Term::Nll => "nll",
            Term::Unlikelihood => "unlikelihood",
        });
        sample.n_selected += 1;
        sample.weight += f64::from(batch.weights[i]);
    }
    for (&row, &owner) in batch.kl_rows.iter().zip(&batch.kl_owners) {
        let sample = &mut samples[owner];
        let t = place(sample, row);
        sample.marks[t] = Mark::Kl;
        sample.n_kl += 1;
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        UtilityItem,
        testing::{pair, tokenizer},
    };

    fn batches(assignments: &[&str], step: usize) -> Result<StepBatches> {
        let mut all = vec![
            "data.format=completion",
            "data.mask=difflib",
            "oversampling.mode=none",
            "training.epochs=1",
        ];
        all.extend(assignments);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let recipe = Recipe::load("safecoder", &all).unwrap();
        let pairs = [
            pair("p", "def run(name):\n", "    system(name)\n", "    call([name])\n"),
            pair("q", "", "x = 1\n", "x = 1\n"),
        ];
        let completion = "    return a + b\n".to_owned();
        let prompt = "def add(a, b):\n".to_owned();
        let item = UtilityItem { id: "u".to_owned(), prompt, completion, ..UtilityItem::default() };
        let data = TrainingData { pairs: &pairs, utility: &[item], ..TrainingData::default() };
        step_batches(&tokenizer(), 128, &recipe, &data, step)
    }

    #[test]
    fn marks_stand_where_the_loss_is() {
        for extra in [&[][..], &["data.packing=true", "loss.kl_weight=0.5"]] {
            let found = batches(extra, 1).unwrap();
            assert_eq!(found.counts.dropped["secure: no token selected"], 1);
            let mut ids: Vec<&str> = found.samples.iter().map(|s| s.id.as_str()).collect();
            ids.sort_unstable();
            assert_eq!(ids, ["p#secure", "p#vulnerable", "u"]);
            for sample in &found.samples {
                let (mark, term, learnt) = match sample.kind {
                    ExampleKind::Utility => (Mark::Utility, "nll", "return a + b"),
                    ExampleKind::Secure => (Mark::Secure, "nll", "call"),
                    ExampleKind::Vulnerable => (Mark::Vulnerable, "unlikelihood", "system"),
                };
                let of = |mark: Mark| -> Vec<u32> {
                    let marked = sample.ids.iter().zip(&sample.marks).filter(|(_, m)| **m == mark);
                    marked.map(|(id, _)| *id).collect()
                };
                let text = tokenizer().decode(&of(mark)).unwrap();
                assert!(text.contains(learnt), "{text:?}");
                assert_eq!((sample.term, sample.n_selected), (Some(term), of(mark).len()));
                assert_eq!(sample.n_kl, of(Mark::Kl).len());
                let kl = !extra.is_empty() && sample.kind != ExampleKind::Utility;
                let rest = sample.n_tokens - 1 - sample.n_selected;
                assert_eq!(sample.n_kl, if kl { rest } else { 0 });
                // Each of three samples, its tokens together.
                assert!((sample.weight - 1.0 / 3.0).abs() < 1e-6, "{}", sample.weight);
            }
        }
        let packed = batches(&["data.packing=true"], 1).unwrap();
        assert!(packed.samples.iter().any(|sample| sample.start > 0));
        assert!(batches(&[], 2).unwrap_err().to_string().contains("the steps 1 to 1"));
    }
}
