//! A suite as a score for training: which weights are best on validation scenarios.

use hardn_types::{BoxError, Evaluator, Generator, Prompt, Scenario};

use crate::{
    metrics::{MetricOptions, metrics},
    scorer::Scorer,
};

/// The numbers an evaluation gives, where the suite has them.
const SHOWN: [&str; 5] =
    ["secure_pass_at_1_attack", "secure_all", "pass_at_1", "utility_pass_at_1", "valid_all"];

/// Draws samples of a suite, scores them, and tells the main metrics.
pub struct SuiteEvaluator<'a> {
    /// The suite.
    pub scenarios: &'a [Scenario],
    /// Judges the samples.
    pub scorer: &'a Scorer<'a>,
    /// Tests are run.
    pub tests: bool,
    /// Samples of each scenario.
    pub n_samples: u32,
}

impl Evaluator for SuiteEvaluator<'_> {
    fn evaluate(&self, generator: &dyn Generator) -> Result<Vec<(String, f64)>, BoxError> {
        let prompts: Vec<Prompt> = self
            .scenarios
            .iter()
            .map(|scenario| Prompt {
                task: scenario.id.clone(),
                text: scenario.prompt.clone(),
                indices: (0..self.n_samples).collect(),
            })
            .collect();
        let mut samples = Vec::new();
        generator.generate("candidate", &prompts, &mut |sample| {
            samples.push(sample);
            Ok(())
        })?;
        let verdicts = self.scorer.score(&samples, &[], &mut |_| Ok(()), &|_| {})?;
        let options = MetricOptions { tests: self.tests, ..MetricOptions::default() };
        let counted = metrics(&verdicts, self.scenarios, &options);
        let arm = counted.arms.get("candidate");
        let value = |name: &str| Some((name.to_owned(), arm?.get(name)?.value?));
        Ok(SHOWN.into_iter().filter_map(value).collect())
    }
}
