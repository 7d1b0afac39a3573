//! Scenarios to completions to verdicts to statistics.
//!
//! [`Store`] keeps samples and verdicts, [`Scorer`] makes verdicts of samples, [`metrics`] counts them, and
//! [`stat_test`] holds the statistics. Generating is somebody else's work: samples come in.

mod bootstrap;
mod comparison;
mod counts;
mod error;
mod evaluator;
mod groups;
mod metrics;
mod samples_file;
mod scorer;
mod stat_test;
mod stats;
mod store;
mod trial;

pub use bootstrap::{Resamples, Tally, can_spread, percentile_interval};
pub use comparison::{Comparison, ScenarioTest};
pub use counts::{Truth, is_security};
pub use error::{EvalError, Result};
pub use evaluator::SuiteEvaluator;
pub use groups::{ALL, groups_of};
pub use hardn_types::is_related;
pub use metrics::{Difference, Metric, MetricOptions, MetricSet, Metrics, ScenarioRow, metrics};
pub use samples_file::{SamplesFile, read_samples};
pub use scorer::{Deduplication, ScoreProgress, Scorer};
pub use stat_test::stat_test;
pub use stats::{
    Cmh, Fisher, Kappa, Table, benjamini_hochberg, cmh, cohen_kappa, fisher_exact, holm, pass_at_k,
    wilson,
};
pub use store::{Record, RecordKey, Store};
pub use trial::{SandboxTrials, TrialKind, TrialRunner};
