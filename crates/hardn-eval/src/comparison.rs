//! Tests of two arms against each other: Fisher's exact test in each scenario, Cochran-Mantel-Haenszel over all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    bootstrap::Tally,
    stats::{Table, cmh, fisher_exact, holm},
};

/// The metrics that are tested.
const TESTED: [&str; 5] =
    ["secure_all", "secure_pass_at_1_attack", "pass_at_1", "utility_pass_at_1", "valid_all"];

/// One metric of two arms, tested.
///
/// Samples count as independent here, though those of one prompt are not quite; the intervals of differences do not
/// assume it, and are the ones to go by where the two disagree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first arm.
    pub arm: String,
    /// The second arm.
    pub other: String,
    /// The metric.
    pub metric: String,
    /// The p-value of the Cochran-Mantel-Haenszel test across scenarios, without continuity correction.
    pub p: Option<f64>,
    /// The pooled odds ratio (Mantel-Haenszel), first arm over second.
    pub odds_ratio: Option<f64>,
    /// Each scenario by itself.
    pub scenarios: Vec<ScenarioTest>,
}

/// Fisher's exact test in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioTest {
    /// The scenario's id.
    pub id: String,
    /// Counted and not counted of the first arm, then of the second.
    pub table: [[u64; 2]; 2],
    /// The two-sided p-value.
    pub p: f64,
    /// The same, adjusted for the number of scenarios by Holm's method.
    pub p_holm: f64,
}

/// Every ordered pair of arms and every tested metric that both have. Scenarios one arm lacks are left out.
pub(crate) fn compare_arms(
    tallies: &BTreeMap<&str, BTreeMap<&str, BTreeMap<String, Tally>>>,
) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (arm, tasks) in tallies {
        for (other, other_tasks) in tallies.iter().filter(|(other, _)| *other != arm) {
            for metric in TESTED {
                let tables: Vec<(&str, Table)> = tasks
                    .iter()
                    .filter_map(|(&task, counted)| {
                        let first = counted.get(metric)?;
                        let second = other_tasks.get(task)?.get(metric)?;
                        let row =
                            |t: &Tally| [t.numerator as u64, (t.denominator - t.numerator) as u64];
                        let there = first.denominator > 0.0 && second.denominator > 0.0;
                        there.then(|| (task, [row(first), row(second)]))
                    })
                    .collect();
                if !tables.is_empty() {
                    comparisons.push(compare(arm, other, metric, &tables));
                }
            }
        }
    }
    comparisons
}

fn compare(arm: &str, other: &str, metric: &str, tables: &[(&str, Table)]) -> Comparison {
    let p: Vec<f64> = tables.iter().map(|(_, table)| fisher_exact(*table).p).collect();
    let adjusted = holm(&p);
    let pooled = cmh(&tables.iter().map(|(_, table)| *table).collect::<Vec<_>>(), false);
    let scenarios = tables.iter().zip(p.iter().zip(adjusted));
    Comparison {
        arm: arm.to_owned(),
        other: other.to_owned(),
        metric: metric.to_owned(),
        p: pooled.p,
        odds_ratio: pooled.odds_ratio.filter(|ratio| ratio.is_finite()),
        scenarios: scenarios
            .map(|((id, table), (&p, p_holm))| ScenarioTest {
                id: (*id).to_owned(),
                table: *table,
                p,
                p_holm,
            })
            .collect(),
    }
}
