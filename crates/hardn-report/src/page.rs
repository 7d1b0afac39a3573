//! `report.html`: one file that opens offline.

use std::{collections::BTreeMap, path::Path};

use hardn_types::{Arm, Role, Training, write_atomic};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    ReportError, RunFolder,
    browser::browser_data,
    metric::{HEADLINE, MetricRow, Rate, SAME_JUDGE},
    plot::{Dot, DotRow, dot_plot, loss_curve},
};

pub(crate) const STYLE: &str = include_str!("../assets/report.css");
const SCRIPT: &str = include_str!("../assets/report.js");

/// The groups results are shown apart for, with what they mean.
const GROUPS: [(&str, &str, &str); 5] = [
    (
        "unseen_context",
        "all, contexts unseen",
        "every scenario whose task family is absent from the fix pairs",
    ),
    (
        "seen_idiom",
        "seen idiom",
        "unseen context, and the prompt invites an idiom that the fix pairs repair",
    ),
    ("unseen_idiom", "unseen idiom", "the prompt invites an idiom that no fix pair contains"),
    ("unseen_weakness", "unseen weakness", "no fix pair repairs this weakness"),
    (
        "seen_context",
        "seen context",
        "task families of the fix pairs, with other names and wordings",
    ),
];

/// How a report is made.
#[derive(Clone, Copy, Debug)]
pub struct ReportOptions {
    /// Samples of each scenario and arm kept in the browser.
    pub samples_per_scenario: usize,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { samples_per_scenario: 4 }
    }
}

/// Reads a run folder and writes `report.html` and `report.txt` into it.
///
/// # Errors
/// A run that is not finished, or a file that cannot be read or written.
pub fn write_report(folder: &Path, options: ReportOptions) -> Result<RunFolder, ReportError> {
    let run = RunFolder::read(folder)?;
    write_atomic(&folder.join("report.html"), render_html(&run, options).as_bytes())?;
    write_atomic(&folder.join("report.txt"), crate::render_text(&run).as_bytes())?;
    Ok(run)
}

/// The whole page.
pub fn render_html(run: &RunFolder, options: ReportOptions) -> String {
    let body = html! {
        header {
            p.brand { "hardn " span { (run.info.hardn) } }
            h1 { (run.info.title) }
            (lead(run))
            nav {
                a href="#results" { "Results" }
                a href="#weaknesses" { "By weakness" }
                a href="#training" { "Training" }
                a href="#scenarios" { "Scenarios" }
                a href="#samples" { "Samples" }
                a href="#provenance" { "Provenance" }
            }
        }
        main {
            (results(run))
            (weaknesses(run))
            (training(run))
            (scenarios(run))
            (samples())
            (provenance(run))
        }
        script type="application/json" id="data" {
            (PreEscaped(browser_data(run, options.samples_per_scenario)))
        }
        script { (PreEscaped(SCRIPT)) }
    };
    document(&run.info.title, &body)
}

/// A whole HTML file around what a page shows.
pub(crate) fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · hardn" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

fn arm_of(run: &RunFolder, role: Role) -> Option<&Arm> {
    run.info.arms.iter().find(|arm| arm.role == role)
}

/// The result in one sentence, before any table.
fn lead(run: &RunFolder) -> Markup {
    let base = arm_of(run, Role::Base);
    let hardened = arm_of(run, Role::Hardened);
    let metric = ["secure_pass_at_1_attack", "secure_all", "secure_all_oracle", "preference"]
        .into_iter()
        .filter(|key| !run.is_same_judge(key))
        .filter_map(|key| HEADLINE.iter().find(|row| row.key == key))
        .find(|row| base.is_some_and(|arm| run.rate(&arm.id, row.key).value.is_some()));
    html! {
        @if let (Some(base), Some(hardened), Some(metric)) = (base, hardened, metric) {
            @let before = run.rate(&base.id, metric.key);
            @let after = run.rate(&hardened.id, metric.key);
            div.cards {
                (card("before", &base.title, metric, before))
                (card("after", &hardened.title, metric, after))
                @if let Some(change) = run.difference(&hardened.id, &base.id, metric.key) {
                    div.card.change {
                        p.label { "change, in points" }
                        p.big { (signed(change.value)) }
                        p.fine { "95 % interval " (signed(change.low)) " to " (signed(change.high)) }
                    }
                }
            }
        }
        @if run.info.lab {
            p.lab {
                strong { "Lab numbers. " }
                "A small model in a small world whose programs carry their labels from construction. "
                "They say whether a method works here, and are never to be set beside published results."
            }
        }
        @for note in &run.info.notes { p.notice { (note) } }
    }
}

fn card(class: &str, title: &str, metric: &MetricRow, rate: Rate) -> Markup {
    html! {
        div class=(format!("card {class}")) {
            p.label { (title) ": " (metric.title) }
            p.big { (rate.percent()) " %" }
            p.fine { "95 % interval " (rate.interval()) " · " (rate.fraction()) " samples" }
        }
    }
}

fn signed(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:+.1}", 100.0 * value))
}

fn results(run: &RunFolder) -> Markup {
    let arms = &run.info.arms;
    html! {
        section #results {
            h2 { "Results" }
            p { "Per cent, with 95 % intervals from a bootstrap over task families. Hover a row's name for what is divided by what." }
            div.wide { table.headline {
                thead { tr {
                    th { "" }
                    @for arm in arms { th class=(role_class(arm.role)) title=(arm.description) { (arm.title) } }
                } }
                tbody {
                    @for row in HEADLINE {
                        @let rates: Vec<Rate> = arms.iter().map(|arm| run.rate(&arm.id, row.key)).collect();
                        @if rates.iter().any(|rate| rate.value.is_some()) {
                            tr.main[row.main && !run.is_same_judge(row.key)] {
                                th title=(row.meaning) { (row.title) @if row.lower_is_better { span.note { " ↓" } } (same_judge(run, row.key)) }
                                @for (arm, rate) in arms.iter().zip(rates) { (cell(arm, rate)) }
                            }
                        }
                    }
                }
            } }
            ul.legend {
                @for arm in arms { li { strong class=(role_class(arm.role)) { (arm.title) } ": " (arm.description) } }
            }
            (differences(run))
            (groups(run))
        }
    }
}

/// The mark of a metric whose judge also chose what was trained on.
fn same_judge(run: &RunFolder, metric: &str) -> Markup {
    html! { @if run.is_same_judge(metric) { " " span.note title=(SAME_JUDGE) { "same judge" } } }
}

fn role_class(role: Role) -> &'static str {
    match role {
        Role::Base => "base",
        Role::Hardened => "hardened",
        Role::Decoded => "decoded",
        Role::Control => "control",
    }
}

fn cell(arm: &Arm, rate: Rate) -> Markup {
    html! {
        td class=(role_class(arm.role)) title=(rate.fraction()) {
            span.value { (rate.percent()) }
            span.interval { (rate.interval()) }
        }
    }
}

fn differences(run: &RunFolder) -> Markup {
    let Some(hardened) = arm_of(run, Role::Hardened) else { return html! {} };
    let others: Vec<&Arm> = run.info.arms.iter().filter(|arm| arm.id != hardened.id).collect();
    let rows: Vec<&MetricRow> = HEADLINE
        .iter()
        .filter(|row| {
            others.iter().any(|other| run.difference(&hardened.id, &other.id, row.key).is_some())
        })
        .collect();
    html! {
        @if !rows.is_empty() {
            h3 { (hardened.title) " minus each other arm, in points" }
            p { "Bold where the 95 % interval of the paired difference is clear of zero." }
            div.wide { table.headline {
                thead { tr { th { "" } @for other in &others { th class=(role_class(other.role)) { (other.title) } } } }
                tbody { @for row in rows { tr {
                    th title=(row.meaning) { (row.title) (same_judge(run, row.key)) }
                    @for other in &others {
                        @let change = run.difference(&hardened.id, &other.id, row.key).unwrap_or_default();
                        @let clear = matches!((change.low, change.high), (Some(low), Some(high)) if low > 0.0 || high < 0.0);
                        td.clear[clear] {
                            span.value { (signed(change.value)) }
                            span.interval { (signed(change.low)) " to " (signed(change.high)) }
                        }
                    }
                } } }
            } }
        }
    }
}

fn groups(run: &RunFolder) -> Markup {
    let metric = "secure_pass_at_1_attack";
    let shown: Vec<_> = GROUPS
        .iter()
        .filter(|(group, ..)| {
            run.info.arms.iter().any(|arm| run.group_rate(group, &arm.id, metric).value.is_some())
        })
        .collect();
    html! {
        @if !shown.is_empty() {
            h3 { "secure-pass@1 by attack, by what training had seen" (same_judge(run, metric)) }
            div.wide { table.headline {
                thead { tr { th { "" } @for arm in &run.info.arms { th class=(role_class(arm.role)) { (arm.title) } } } }
                tbody { @for (group, title, meaning) in shown { tr {
                    th title=(meaning) { (title) }
                    @for arm in &run.info.arms { (cell(arm, run.group_rate(group, &arm.id, metric))) }
                } } }
            } }
            ul.legend { @for (_, title, meaning) in GROUPS { li { strong { (title) } ": " (meaning) } } }
        }
    }
}

fn weaknesses(run: &RunFolder) -> Markup {
    let metric = ["secure_pass_at_1_attack", "secure_valid", "secure_valid_oracle"]
        .into_iter()
        .find(|metric| {
            run.groups("cwe:").iter().any(|group| {
                run.info
                    .arms
                    .iter()
                    .any(|arm| run.group_rate(group, &arm.id, metric).value.is_some())
            })
        })
        .unwrap_or("secure_valid");
    let title = HEADLINE.iter().find(|row| row.key == metric).map_or(metric, |row| row.title);
    let mut order: Vec<&Arm> = Vec::new();
    order.extend(arm_of(run, Role::Base));
    order.extend(run.info.arms.iter().filter(|arm| arm.role == Role::Control));
    order.extend(arm_of(run, Role::Hardened));
    order.extend(run.info.arms.iter().filter(|arm| arm.role == Role::Decoded));
    let rows: Vec<DotRow> = run
        .groups("cwe:")
        .into_iter()
        .map(|group| {
            let dots = order.iter().filter_map(|arm| {
                let rate = run.group_rate(group, &arm.id, metric);
                Some(Dot {
                    class: role_class(arm.role),
                    label: format!(
                        "{}: {} % [{}], {}",
                        arm.title,
                        rate.percent(),
                        rate.interval(),
                        rate.fraction()
                    ),
                    value: rate.value?,
                    interval: (arm.role != Role::Control)
                        .then_some(rate.low.zip(rate.high))
                        .flatten(),
                })
            });
            let dots: Vec<Dot> = dots.collect();
            let size = order.first().map(|arm| run.group_rate(group, &arm.id, metric).fraction());
            let note =
                size.and_then(|fraction| fraction.split('/').nth(1).map(|n| format!("n = {n}")));
            DotRow {
                name: group.trim_start_matches("cwe:").to_owned(),
                note: note.unwrap_or_default(),
                dots,
            }
        })
        .filter(|row| !row.dots.is_empty())
        .collect();
    html! {
        section #weaknesses {
            h2 { "By weakness" }
            @if rows.is_empty() {
                p { "No weakness class has a judged sample." }
            } @else {
                p { (title) (same_judge(run, metric)) " per class. " span.key.base { "●" } " before, " span.key.hardened { "●" } " after, " span.key.control { "●" } " controls; whiskers are 95 % intervals." }
                (PreEscaped(dot_plot(&rows)))
            }
        }
    }
}

fn training(run: &RunFolder) -> Markup {
    html! {
        section #training {
            h2 { "Training" }
            @if run.info.training.is_empty() { p { "Nothing was trained in this run." } }
            @for (i, training) in run.info.training.iter().enumerate() {
                details open[i == 0] {
                    summary { (arm_title(run, &training.arm)) ": " (training.steps) " steps, " (training.trainable_parameters) " trained parameters, weights of step " (training.best_step) " kept" }
                    (one_training(training))
                }
            }
        }
    }
}

fn arm_title<'a>(run: &'a RunFolder, id: &'a str) -> &'a str {
    run.info.arms.iter().find(|arm| arm.id == id).map_or(id, |arm| arm.title.as_str())
}

fn one_training(training: &Training) -> Markup {
    let count_table = |title: &str, counts: &BTreeMap<String, usize>| {
        html! {
            @if !counts.is_empty() {
                table.counts {
                    caption { (title) }
                    @for (name, count) in counts { tr { th { (name) } td { (count) } } }
                }
            }
        }
    };
    html! {
        (PreEscaped(loss_curve(&training.curve)))
        div.columns {
            (count_table("examples kept", &training.kept))
            (count_table("examples dropped", &training.dropped))
        }
        details { summary { "recipe, resolved" } pre { (pretty(&training.recipe)) } }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn scenarios(run: &RunFolder) -> Markup {
    let shown: Vec<&Arm> = run.info.arms.iter().filter(|arm| arm.role != Role::Control).collect();
    let counts = outcomes(run);
    html! {
        section #scenarios {
            h2 { "Scenarios and tasks" }
            p { "Click a column's head to sort, a row to see its samples." }
            div.wide { table.sortable #scenario-table {
                thead { tr {
                    th { "scenario" } th { "class" } th { "language" } th { "group" }
                    @for arm in &shown {
                        th { (arm.title) ": works" } th { (arm.title) ": works and secure" } th { (arm.title) ": attacked or flagged" }
                    }
                } }
                tbody {
                    @for scenario in &run.suite {
                        tr data-task=(scenario.id) {
                            td { (scenario.id) }
                            td { @if let Some(cwe) = scenario.cwe { (cwe) } @else { "utility" } }
                            td { (scenario.language) }
                            td { (group_of(scenario)) }
                            @for arm in &shown {
                                @let count = counts.get(&(arm.id.as_str(), scenario.id.as_str())).copied().unwrap_or_default();
                                td.number { (count.works) "/" (count.all) }
                                td.number { @if scenario.cwe.is_some() { (count.secure_works) "/" (count.all) } }
                                td.number { @if scenario.cwe.is_some() { (count.broken) "/" (count.all) } }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn group_of(scenario: &hardn_types::Scenario) -> &'static str {
    let tags = &scenario.tags;
    match (scenario.cwe, tags.seen_weakness, tags.seen_idiom, tags.seen_context) {
        (None, ..) if tags.trusted => "trusted context",
        (None, ..) => "",
        (_, Some(false), ..) => "unseen weakness",
        (_, _, Some(false), _) => "unseen idiom",
        (_, _, _, Some(true)) => "seen context",
        (_, _, Some(true), _) => "seen idiom",
        _ => "",
    }
}

#[derive(Clone, Copy, Default)]
struct Outcomes {
    all: usize,
    works: usize,
    secure_works: usize,
    broken: usize,
}

fn outcomes(run: &RunFolder) -> BTreeMap<(&str, &str), Outcomes> {
    use hardn_types::{OracleVerdict, TestVerdict};
    let mut counts: BTreeMap<(&str, &str), Outcomes> = BTreeMap::new();
    for verdict in &run.verdicts {
        let count = counts.entry((verdict.arm.as_str(), verdict.task.as_str())).or_default();
        let works = verdict.valid
            && verdict.function.is_none_or(|function| function == TestVerdict::Passed);
        let secure = match verdict.attack {
            Some(attack) => attack == TestVerdict::Held,
            None => verdict.oracle_target == Some(OracleVerdict::Secure),
        };
        let broken = match verdict.attack {
            Some(attack) => attack != TestVerdict::Held,
            None => verdict.oracle_target == Some(OracleVerdict::Vulnerable),
        };
        count.all += 1;
        count.works += usize::from(works);
        count.secure_works += usize::from(works && secure);
        count.broken += usize::from(verdict.valid && broken);
    }
    counts
}

fn samples() -> Markup {
    html! {
        section #samples {
            h2 { "Samples" }
            p { "Prompts in grey, completions coloured by the probability of each token (hover for the number), findings underlined." }
            div.controls {
                label { "scenario " select #pick-task {} }
                label { "arm " select #pick-arm {} }
                label { "outcome " select #pick-outcome {} }
                button #previous type="button" { "‹" }
                span #position {}
                button #next type="button" { "›" }
            }
            div #sample {}
            noscript { p { "The browser of samples needs JavaScript; the same data is in samples.jsonl and verdicts.jsonl." } }
        }
    }
}

fn provenance(run: &RunFolder) -> Markup {
    html! {
        section #provenance {
            h2 { "Configuration and provenance" }
            div.columns {
                table.counts {
                    caption { "model" }
                    @for (key, value) in &run.info.model {
                        tr { th { (key) } td { @match value { serde_json::Value::String(text) => { (text) }, other => { (other) } } } }
                    }
                    tr { th { "seed" } td { (run.info.seed) } }
                }
                table.counts {
                    caption { "programs" }
                    @for (key, value) in &run.info.tools { tr { th { (key) } td { (value) } } }
                }
            }
            table.counts {
                caption { "data" }
                thead { tr { th { "purpose" } th { "name" } th { "rows" } th { "SHA-256" } th { "notes" } } }
                @for data in &run.info.data {
                    tr { td { (data.purpose) } td { (data.name) } td.number { (data.rows) } td.hash title=(data.sha256) { (data.sha256.chars().take(12).collect::<String>()) } td { (data.notes.join("; ")) } }
                }
            }
            table.counts {
                caption { "arms" }
                @for arm in &run.info.arms { tr { th { (arm.title) } td.hash title=(arm.fingerprint) { (arm.fingerprint.chars().take(12).collect::<String>()) } td { (arm.description) } } }
            }
            details { summary { "configuration, resolved" } pre { (pretty(&run.info.config)) } }
            details { summary { "what each metric divides by what" }
                dl { @for row in HEADLINE { dt { (row.title) } dd { (row.meaning) } } }
            }
        }
    }
}
