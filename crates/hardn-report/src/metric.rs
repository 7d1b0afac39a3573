//! Metrics as they stand in `metrics.json`, with their names and denominators in words.

use serde::Deserialize;
use serde_json::Value;

/// One number with its interval and its fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// The value; `None` where the denominator is zero.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// What was counted.
    pub numerator: Option<f64>,
    /// Out of how many.
    pub denominator: Option<f64>,
}

impl Rate {
    /// Reads `{"value","low","high","numerator","denominator"}`; anything else is an empty rate.
    pub(crate) fn from_json(value: &Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    /// The value in per cent, or a dash.
    pub(crate) fn percent(&self) -> String {
        self.value.map_or_else(|| "–".to_owned(), |value| format!("{:.1}", 100.0 * value))
    }

    /// The interval in per cent, or nothing.
    pub(crate) fn interval(&self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) => format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high),
            _ => String::new(),
        }
    }

    /// The fraction, such as `31/90`, or nothing.
    pub(crate) fn fraction(&self) -> String {
        match (self.numerator, self.denominator) {
            (Some(numerator), Some(denominator)) => format!("{numerator:.0}/{denominator:.0}"),
            _ => String::new(),
        }
    }
}

/// A row of the headline table.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// Key in `metrics.json`.
    pub key: &'static str,
    /// Name in the table.
    pub title: &'static str,
    /// What is divided by what.
    pub meaning: &'static str,
    /// Lower is better.
    pub lower_is_better: bool,
    /// Drawn as the main result.
    pub main: bool,
}

const fn row(key: &'static str, title: &'static str, meaning: &'static str) -> MetricRow {
    MetricRow { key, title, meaning, lower_is_better: false, main: false }
}

/// What a mark at a metric's name means, where [`hardn_types::RunInfo::same_judge`] has its key.
pub(crate) const SAME_JUDGE: &str = "same judge: what chose the samples that were trained on decides this number too; it is no evidence";

/// The rows of the headline table, in order.
pub const HEADLINE: [MetricRow; 12] = [
    MetricRow {
        main: true,
        ..row(
            "secure_pass_at_1_attack",
            "secure-pass@1, by attack",
            "samples that pass their function test and hold under attack, of all samples of security scenarios",
        )
    },
    MetricRow {
        main: true,
        ..row(
            "secure_all",
            "secure / all",
            "valid samples that hold under attack (where a scenario has no attack test: on which the oracle is silent), of all samples",
        )
    },
    row("secure_valid", "secure / valid", "the same, of the valid samples"),
    MetricRow {
        lower_is_better: true,
        ..row(
            "vulnerable_all",
            "vulnerable / all",
            "valid samples that an attack broke, of all samples",
        )
    },
    row("valid_all", "valid / all", "samples that parse (Python) or compile (C), of all samples"),
    row(
        "pass_at_1",
        "pass@1, security scenarios",
        "samples that pass their function test, secure or not",
    ),
    MetricRow {
        main: true,
        ..row(
            "utility_pass_at_1",
            "pass@1, utility tasks",
            "samples that pass their unit tests, on tasks with nothing to secure and on trusted contexts",
        )
    },
    row(
        "secure_pass_at_1_oracle",
        "secure-pass@1, by oracle",
        "samples that pass their function test and on which the oracle is silent for the scenario's class",
    ),
    row(
        "secure_all_oracle",
        "secure / all, by oracle",
        "valid samples on which the oracle is silent, of all samples",
    ),
    row(
        "not_analysed_all",
        "not analysed / all",
        "valid samples the oracle could not judge, of all samples",
    ),
    row(
        "duplicate_all",
        "duplicates / all",
        "samples equal to an earlier one of the same arm and scenario",
    ),
    row(
        "preference",
        "likelihood preference",
        "fix pairs whose changed tokens are likelier, per token, in the secure version",
    ),
];
