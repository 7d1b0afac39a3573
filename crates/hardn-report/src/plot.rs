//! Figures as inline SVG.

use std::fmt::Write as _;

use hardn_types::LossPoint;

/// One row of a dot plot: a name and a value with an interval per series (fractions of 1).
pub(crate) struct DotRow {
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) dots: Vec<Dot>,
}

/// One dot.
pub(crate) struct Dot {
    pub(crate) class: &'static str,
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

const LEFT: f64 = 190.0;
const WIDTH: f64 = 860.0;
const ROW: f64 = 30.0;

/// A dot plot with one row per name, on an axis from 0 to 100 %.
/// The first and the last dot of a row are joined, so that the change is what one sees.
pub(crate) fn dot_plot(rows: &[DotRow]) -> String {
    let right = WIDTH - 24.0;
    let x = |value: f64| LEFT + value.clamp(0.0, 1.0) * (right - LEFT);
    let height = ROW * rows.len() as f64 + 44.0;
    let mut svg = format!(
        r#"<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="dot plot">"#
    );
    for tick in 0..=4 {
        let value = f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{0:.1}" x2="{0:.1}" y1="8" y2="{1:.1}"/><text class="tick" x="{0:.1}" y="{2:.1}" text-anchor="middle">{3:.0} %</text>"#,
            x(value),
            height - 30.0,
            height - 12.0,
            100.0 * value
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let y = 8.0 + ROW * (i as f64 + 0.5);
        let _ = write!(
            svg,
            r#"<text class="name" x="{:.1}" y="{:.1}" text-anchor="end">{} <tspan class="note">{}</tspan></text>"#,
            LEFT - 12.0,
            y + 4.0,
            escape(&row.name),
            escape(&row.note)
        );
        if let (Some(first), Some(last)) = (row.dots.first(), row.dots.last()) {
            let _ = write!(
                svg,
                r#"<line class="join" x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                x(first.value),
                x(last.value)
            );
        }
        for dot in &row.dots {
            if let Some((low, high)) = dot.interval {
                let _ = write!(
                    svg,
                    r#"<line class="whisker {}" x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                    dot.class,
                    x(low),
                    x(high)
                );
            }
            let _ = write!(
                svg,
                r#"<circle class="dot {}" cx="{:.1}" cy="{y:.1}" r="5.5"><title>{}</title></circle>"#,
                dot.class,
                x(dot.value),
                escape(&dot.label)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// A loss curve: training loss as a thin line, each validation loss as a line with points.
/// Empty where fewer than two points were recorded.
pub(crate) fn loss_curve(curve: &[LossPoint]) -> String {
    const HEIGHT: f64 = 240.0;
    let mut series: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let mut add = |name: &str, step: usize, loss: f64| {
        let point = (step as f64, loss);
        match series.iter_mut().find(|(known, _)| known == name) {
            Some((_, points)) => points.push(point),
            None => series.push((name.to_owned(), vec![point])),
        }
    };
    for point in curve {
        if let Some(loss) = point.train.filter(|loss| loss.is_finite()) {
            add("training", point.step, loss);
        }
        for (kind, loss) in &point.validation {
            add(&format!("validation: {kind}"), point.step, *loss);
        }
    }
    let points = || series.iter().flat_map(|(_, points)| points);
    if points().count() < 2 {
        return String::new();
    }
    let last_step = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.05 + 1e-9;
    let x = |step: f64| 46.0 + step / last_step * (WIDTH - 240.0);
    let y = |loss: f64| 10.0 + (1.0 - loss / top) * (HEIGHT - 44.0);
    let mut svg = format!(
        r#"<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss curve">"#
    );
    for tick in 0..=4 {
        let loss = top * f64::from(tick) / 4.0;
        let _ = write!(
            svg,
            r#"<line class="grid" x1="46" x2="{:.1}" y1="{1:.1}" y2="{1:.1}"/><text class="tick" x="40" y="{2:.1}" text-anchor="end">{loss:.2}</text>"#,
            x(last_step),
            y(loss),
            y(loss) + 4.0
        );
    }
    let _ = write!(
        svg,
        r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">step {last_step:.0}</text>"#,
        x(last_step),
        HEIGHT - 12.0
    );
    for (i, (name, points)) in series.iter().enumerate() {
        let path: Vec<String> =
            points.iter().map(|(step, loss)| format!("{:.1},{:.1}", x(*step), y(*loss))).collect();
        let _ = write!(svg, r#"<polyline class="series s{i}" points="{}"/>"#, path.join(" "));
        let _ = write!(
            svg,
            r#"<text class="legend s{i}" x="{:.1}" y="{:.1}">{}</text>"#,
            x(last_step) + 14.0,
            22.0 + 18.0 * i as f64,
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Escapes text for SVG and HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_does_not_get_through() {
        let row = DotRow { name: "<script>".to_owned(), note: String::new(), dots: Vec::new() };
        assert!(!dot_plot(&[row]).contains("<script>"));
    }

    #[test]
    fn one_point_is_no_curve() {
        let point = LossPoint { step: 1, train: Some(2.0), ..LossPoint::default() };
        assert_eq!(loss_curve(std::slice::from_ref(&point)), "");
        assert!(loss_curve(&[point.clone(), LossPoint { step: 2, ..point }]).contains("polyline"));
    }
}
