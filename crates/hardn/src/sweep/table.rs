//! Mean and deviation over seeds, as text, JSON and CSV.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use hardn_report::{HEADLINE, SweepRow};
use hardn_types::write_atomic;
use serde::Serialize;

use super::{
    config::Sweep,
    gather::{Found, Measured, RowName},
    runner::FailedCell,
};
use crate::failure::Outcome;

/// Columns of the text table, where they were measured: metric and heading.
const COLUMNS: [(&str, &str); 8] = [
    ("secure_pass_at_1_attack", "secure-pass@1"),
    ("secure_all", "secure/all"),
    ("secure_valid", "secure/valid"),
    ("valid_all", "valid/all"),
    ("pass_at_1", "pass@1"),
    ("utility_pass_at_1", "utility"),
    ("preference", "preference"),
    ("validation_loss_all", "val. loss"),
];

/// A metric over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    /// Standard deviation of the seeds' values (divided by n - 1); `None` with fewer than two.
    pub(crate) deviation: Option<f64>,
    pub(crate) n: usize,
    /// By seed.
    pub(crate) values: BTreeMap<u64, f64>,
}

impl Summary {
    pub(crate) fn of(values: BTreeMap<u64, f64>) -> Self {
        let n = values.len();
        let mean = values.values().sum::<f64>() / n as f64;
        let squares: f64 = values.values().map(|value| (value - mean).powi(2)).sum();
        let deviation = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Self { mean, deviation, n, values }
    }
}

/// An arm over seeds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ArmSummary {
    pub(crate) name: String,
    /// `base`, `arm` or `control`.
    pub(crate) role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set: BTreeMap<String, toml::Value>,
    pub(crate) metrics: BTreeMap<String, Summary>,
    /// What each metric exceeds the base's by, seed by seed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) minus_base: BTreeMap<String, Summary>,
}

/// What `sweep.json` says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SweepSummary {
    pub(crate) title: String,
    pub(crate) hardn: &'static str,
    pub(crate) seeds: Vec<u64>,
    pub(crate) arms: Vec<ArmSummary>,
    pub(crate) failed: Vec<FailedCell>,
}

type BySeed = BTreeMap<String, BTreeMap<u64, f64>>;

/// Means and deviations of everything that was found, `base` first and controls last.
pub(crate) fn summarise(sweep: &Sweep, found: &Found, failed: &[FailedCell]) -> SweepSummary {
    let mut rows: BTreeMap<&RowName, BySeed> = BTreeMap::new();
    for Measured { row, seed, metric, value } in &found.values {
        rows.entry(row).or_default().entry(metric.clone()).or_default().insert(*seed, *value);
    }
    let base = rows.iter().find(|(row, _)| row.rank == 0).map(|(_, metrics)| metrics.clone());
    let arms = rows.into_iter().map(|(row, metrics)| {
        let arm = sweep.arms.iter().find(|arm| row.rank == 1 && arm.name == row.name);
        let minus_base = base.iter().filter(|_| row.rank > 0).flat_map(|base| {
            metrics.iter().filter_map(|(metric, values)| {
                let base = base.get(metric)?;
                let pairs =
                    values.iter().filter_map(|(seed, v)| Some((*seed, v - base.get(seed)?)));
                let values: BTreeMap<u64, f64> = pairs.collect();
                (!values.is_empty()).then(|| (metric.clone(), Summary::of(values)))
            })
        });
        let minus_base = minus_base.collect();
        ArmSummary {
            name: row.name.clone(),
            role: ["base", "arm", "control"][usize::from(row.rank)],
            recipe: arm.map(|arm| arm.recipe.clone()),
            set: arm.map(|arm| arm.set.clone()).unwrap_or_default(),
            metrics: metrics.into_iter().map(|(key, values)| (key, Summary::of(values))).collect(),
            minus_base,
        }
    });
    SweepSummary {
        title: sweep.title.clone(),
        hardn: env!("CARGO_PKG_VERSION"),
        seeds: sweep.seeds.clone(),
        arms: arms.collect(),
        failed: failed.to_vec(),
    }
}

/// Writes `sweep.json`, `sweep.csv`, `curves.csv`, `sweep.txt` and `sweep.html`.
pub(crate) fn write(out: &Path, summary: &SweepSummary, found: &Found) -> Outcome {
    let mut json = serde_json::to_vec_pretty(summary)?;
    json.push(b'\n');
    write_atomic(&out.join("sweep.json"), &json)?;
    write_atomic(&out.join("sweep.txt"), render(summary).as_bytes())?;
    let page = hardn_report::render_sweep(&summary.title, &page_rows(summary));
    write_atomic(&out.join("sweep.html"), page.as_bytes())?;
    let mut rows = String::from("arm,role,seed,metric,value\n");
    for arm in &summary.arms {
        for (metric, summary) in &arm.metrics {
            for (seed, value) in &summary.values {
                let _ = writeln!(
                    rows,
                    "{},{},{seed},{},{value}",
                    field(&arm.name),
                    arm.role,
                    field(metric)
                );
            }
        }
    }
    write_atomic(&out.join("sweep.csv"), rows.as_bytes())?;
    let mut points = String::from("step,arm,seed,term,value\n");
    for point in &found.points {
        let (step, seed, value) = (point.step, point.seed, point.value);
        let _ =
            writeln!(points, "{step},{},{seed},{},{value}", field(&point.arm), field(&point.term));
    }
    Ok(write_atomic(&out.join("curves.csv"), points.as_bytes())?)
}

fn page_rows(summary: &SweepSummary) -> Vec<SweepRow> {
    let class = |role| if role == "arm" { "hardened" } else { role };
    let rows = summary.arms.iter().flat_map(|arm| {
        arm.metrics.iter().map(move |(metric, summary)| SweepRow {
            name: arm.name.clone(),
            class: class(arm.role),
            metric: metric.clone(),
            mean: summary.mean,
            deviation: summary.deviation,
            n: summary.n,
        })
    });
    rows.collect()
}

/// A field of a CSV file (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The table for a terminal: shares in per cent, losses in nats, `mean ± deviation` over seeds.
pub(crate) fn render(summary: &SweepSummary) -> String {
    let measured: BTreeSet<&str> =
        summary.arms.iter().flat_map(|arm| arm.metrics.keys().map(String::as_str)).collect();
    let columns: Vec<_> = COLUMNS.iter().filter(|(key, _)| measured.contains(key)).collect();
    let n = summary.seeds.len();
    let mut text = format!("{}\nmean ± standard deviation over {n} seeds\n\n", summary.title);
    let width = summary.arms.iter().map(|arm| arm.name.chars().count()).max().unwrap_or(0).max(8);
    let _ = write!(text, "{:width$}", "");
    for (_, heading) in &columns {
        let _ = write!(text, "{heading:>16}");
    }
    text.push('\n');
    for arm in &summary.arms {
        let _ = write!(text, "{:width$}", arm.name);
        for (key, _) in &columns {
            let cell = arm.metrics.get(*key).map_or_else(|| "–".to_owned(), |s| cell(key, s, n));
            let _ = write!(text, "{cell:>16}");
        }
        text.push('\n');
    }
    for row in HEADLINE.iter().filter(|row| columns.iter().any(|(key, _)| *key == row.key)) {
        let _ = write!(text, "\n{}: {}", row.title, row.meaning);
    }
    text.push('\n');
    text
}

/// `51.2 ± 1.4`, and how many seeds it is of where some are missing.
fn cell(key: &str, summary: &Summary, seeds: usize) -> String {
    let (factor, digits) = if key.starts_with("validation_loss") { (1.0, 3) } else { (100.0, 1) };
    let mut text = format!("{:.digits$}", factor * summary.mean);
    if let Some(deviation) = summary.deviation {
        let _ = write!(text, " ± {:.digits$}", factor * deviation);
    }
    if summary.n < seeds {
        let _ = write!(text, " ({})", summary.n);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_of_a_sample() {
        // Mean 4; squares 4 + 0 + 4 over n - 1 = 2 give 4, whose root is 2.
        let three = Summary::of(BTreeMap::from([(1, 2.0), (2, 4.0), (3, 6.0)]));
        assert_eq!((three.mean, three.deviation, three.n), (4.0, Some(2.0), 3));
        assert_eq!(cell("pass_at_1", &Summary::of(BTreeMap::from([(1, 0.5)])), 2), "50.0 (1)");
        assert_eq!(field("a,b"), "\"a,b\"");
    }
}
