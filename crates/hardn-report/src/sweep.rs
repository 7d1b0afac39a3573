//! A sweep's page: one figure per metric, arms below one another, mean and deviation over seeds.

use maud::{PreEscaped, html};

use crate::{
    metric::HEADLINE,
    page::document,
    plot::{Dot, DotRow, dot_plot},
};

/// An arm's metric over seeds.
#[derive(Clone, Debug)]
pub struct SweepRow {
    /// The arm.
    pub name: String,
    /// How it is drawn: `base`, `hardened` or `control`.
    pub class: &'static str,
    /// The metric's key in `metrics.json`.
    pub metric: String,
    /// Mean over seeds, as a share of 1.
    pub mean: f64,
    /// Standard deviation of the seeds' values, where there are two.
    pub deviation: Option<f64>,
    /// Seeds.
    pub n: usize,
}

/// The whole page, which opens offline. Metrics that no row has are left out.
pub fn render_sweep(title: &str, rows: &[SweepRow]) -> String {
    let dot = |row: &SweepRow| {
        let shown = |value: f64| format!("{:.1}", 100.0 * value);
        let spread = row.deviation.map(|d| format!(" ± {}", shown(d))).unwrap_or_default();
        DotRow {
            name: row.name.clone(),
            note: String::new(),
            dots: vec![Dot {
                class: row.class,
                label: format!("{}{spread} % over {} seeds", shown(row.mean), row.n),
                value: row.mean,
                interval: row.deviation.map(|d| (row.mean - d, row.mean + d)),
            }],
        }
    };
    let figures = HEADLINE.iter().filter_map(|metric| {
        let dots: Vec<DotRow> =
            rows.iter().filter(|row| row.metric == metric.key).map(dot).collect();
        (!dots.is_empty()).then_some((metric, dots))
    });
    let body = html! {
        header { h1 { (title) } p { "Dots are means over seeds, lines one standard deviation to either side." } }
        main {
            @for (metric, dots) in figures {
                section {
                    h2 { (metric.title) }
                    p.fine { (metric.meaning) @if metric.lower_is_better { "; lower is better" } }
                    (PreEscaped(dot_plot(&dots)))
                }
            }
        }
    };
    document(title, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_figure_per_metric_and_no_markup_of_names() {
        let row = |name: &str, metric: &str| SweepRow {
            name: name.to_owned(),
            class: "hardened",
            metric: metric.to_owned(),
            mean: 0.25,
            deviation: Some(0.05),
            n: 5,
        };
        let rows = [row("<b>", "valid_all"), row("a", "valid_all"), row("a", "no_metric")];
        let page = render_sweep("t", &rows);
        assert_eq!((page.matches("<svg").count(), page.matches("<circle").count()), (1, 2));
        assert!(page.contains("25.0 ± 5.0 % over 5 seeds") && !page.contains("<b>"));
    }
}
