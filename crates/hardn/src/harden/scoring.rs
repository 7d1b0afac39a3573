//! Scores of a model while it is trained: a few samples on a small suite of validation scenarios and tasks.

use std::{collections::BTreeMap, sync::Arc};

use hardn_decode::{DecoderConfig, LocalGenerator, StopRule, arm_seed};
use hardn_eval::{Deduplication, MetricOptions, SandboxTrials, Scorer, TrialRunner, metrics};
use hardn_models::{DecodeModel, Model, Tokenizer};
use hardn_oracle::Oracle;
use hardn_train::Recipe;
use hardn_types::{BoxError, Generator, Prompt, Scenario, Split};

use super::{config::RunConfig, decoder_sets, generate, inputs, inputs::Inputs};
use crate::{
    failure::{Failure, Outcome},
    limits::limits,
    stop,
};

/// The name under which samples are drawn and counted.
const ARM: &str = "validation";

/// Each score and the metric it is.
const SCORES: [(&str, &str); 3] = [
    ("security", "secure_all"),
    ("secure_pass", "secure_pass_at_1_attack"),
    ("utility", "utility_pass_at_1"),
];

/// A small suite of the split `val`, and how it is sampled.
pub(crate) struct ValidationSuite {
    suite: Vec<Scenario>,
    prompts: Vec<Prompt>,
    decoder: DecoderConfig,
    seed: u64,
    tokenizer: Arc<Tokenizer>,
    end_tokens: Vec<u32>,
    oracle: Oracle,
    trials: SandboxTrials,
    digest: String,
}

impl ValidationSuite {
    /// The suites that the run names, or the world's validation scenarios where the recipe wants scores and none is
    /// named; `None` where there is nothing to score on.
    pub(crate) fn new(
        config: &RunConfig,
        inputs: &Inputs,
        recipe: &Recipe,
        tokenizer: &Arc<Tokenizer>,
        end_tokens: &[u32],
    ) -> Outcome<Option<Self>> {
        let Some(train) = &config.train else { return Ok(None) };
        let wants_scores = recipe.training.best_by.score().is_some();
        let all = if !train.validation_suites.is_empty() {
            &inputs.validation_suite
        } else if wants_scores {
            &inputs.world_validation
        } else {
            return Ok(None);
        };
        let usable = |scenario: &&Scenario| {
            scenario.split == Split::Val && hardn_code::is_checked(scenario.language)
        };
        let (security, utility): (Vec<&Scenario>, Vec<&Scenario>) =
            all.iter().filter(usable).partition(|scenario| scenario.cwe.is_some());
        let suite: Vec<Scenario> = [security, utility]
            .iter()
            .flat_map(|part| spread(part, train.validation_scenarios))
            .cloned()
            .collect();
        if suite.is_empty() && (wants_scores || !train.validation_suites.is_empty()) {
            return Err(Failure::new("there is no validation scenario to score the model on")
                .help("name a suite with rows of the split `val` under `train.validation_suites` (--validation-suite)"));
        }
        let n = train.validation_samples;
        let prompts = suite
            .iter()
            .map(|scenario| {
                let text = generate::trained_prompt(tokenizer, Some(&recipe.data), scenario)?;
                Ok(Prompt { task: scenario.id.clone(), text, indices: (0..n).collect() })
            })
            .collect::<Outcome<Vec<Prompt>>>()?;
        let decoder = DecoderConfig::load(&config.eval.decoder, &decoder_sets(config))?;
        let how = serde_json::to_string(&(n, decoder.canonical(), &suite))?;
        Ok(Some(Self {
            digest: inputs::digest(&[how])?,
            suite,
            prompts,
            decoder,
            seed: arm_seed(config.seed, ARM),
            tokenizer: Arc::clone(tokenizer),
            end_tokens: end_tokens.to_vec(),
            oracle: Oracle::embedded(),
            trials: SandboxTrials::new(limits())?,
        }))
    }

    /// A hash of the scenarios and of how they are sampled.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Scores by name, see [`hardn_train::BestBy`]; those the suite has no scenarios for are left out.
    pub(crate) fn score(&self, model: &Model) -> Result<BTreeMap<String, f64>, BoxError> {
        let rules: BTreeMap<String, StopRule> = self
            .suite
            .iter()
            .map(|scenario| (scenario.id.clone(), generate::stop_rule(scenario)))
            .collect();
        let generator = LocalGenerator::new(
            Arc::new(DecodeModel::new(model)?),
            Arc::clone(&self.tokenizer),
            ARM.to_owned(),
            self.decoder.clone(),
            self.seed,
        )?
        .with_stop_rules(move |prompt| rules.get(&prompt.task).copied().unwrap_or_default())
        .with_end_tokens(self.end_tokens.iter().copied())
        .with_stop(stop::flag());
        let mut samples = Vec::new();
        generator.generate(ARM, &self.prompts, &mut |sample| {
            samples.push(sample);
            Ok(())
        })?;
        let runner: &dyn TrialRunner = &self.trials;
        let scorer = Scorer::new(&self.suite, &self.oracle, Some(runner), Deduplication::None)?;
        let stopped = &mut |_: &_| if stop::requested() { Err("stopped".into()) } else { Ok(()) };
        let verdicts = scorer.score(&samples, &[], stopped, &|_| {})?;
        let options = MetricOptions { tests: true, seed: self.seed, protocol: String::new() };
        let found = metrics(&verdicts, &self.suite, &options);
        let value = |metric: &str| found.arms.get(ARM)?.get(metric)?.value;
        let scores = SCORES.iter();
        Ok(scores.filter_map(|(name, metric)| Some(((*name).to_owned(), value(metric)?))).collect())
    }
}

/// At most `n` items, evenly from first to last.
fn spread<'a>(items: &[&'a Scenario], n: usize) -> Vec<&'a Scenario> {
    let n = n.min(items.len());
    (0..n).map(|i| items[i * items.len() / n]).collect()
}
