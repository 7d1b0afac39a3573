//! Findings against labels.
//!
//! - A finding counts for a class when one of its CWEs is in the class's family.
//! - *Units* are functions: positive where an alert is expected in them, found where a finding overlaps them. Alerts and
//!   findings outside all functions make one more unit of their file.
//! - *Lines*: an expected line is found where a finding lies within one line of it, the first 40 of a file; findings
//!   near no expected line are false positives, each first line once.
//! - *Pairs*: one side before a fix and one after it; told apart where only the first is flagged.
//! - *Cells* are the files of a language with the same classes; macro F1 is the mean over those with 3 positives or more.

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::Analysis;
use serde::Serialize;

use super::{
    corpus::{Record, Shape, UnitLabel},
    tally::{Score, Tally},
};

/// CWEs that count for a class.
#[rustfmt::skip]
pub(super) const FAMILY: &[(u16, &[u16])] = &[
    (20, &[20, 1173]), (22, &[22, 23, 35, 36, 73, 99]), (78, &[77, 78, 88]), (79, &[79, 80, 83, 116]),
    (89, &[89, 564, 943]), (94, &[94, 95, 96, 97]), (116, &[20, 80, 116, 184]), (117, &[93, 117]),
    (119, &[118, 119, 120, 121, 122, 124, 125, 126, 127, 129, 131, 787, 788, 805, 806]),
    (125, &[119, 125, 126, 127, 129, 788]), (190, &[128, 190, 191, 192, 197, 680]),
    (200, &[200, 201, 209, 215, 359, 497, 532, 548, 1022]), (295, &[295, 296, 297, 298, 299, 322]), (326, &[326]),
    (327, &[326, 327, 328, 329, 780, 916, 1240]), (338, &[330, 331, 335, 336, 337, 338]), (352, &[352, 1275]),
    (377, &[377, 378, 379]), (416, &[415, 416, 672, 825]), (476, &[476, 690]), (502, &[502]),
    (611, &[611, 776, 827]), (676, &[119, 120, 242, 252, 477, 676]), (681, &[190, 192, 194, 195, 197, 681, 704]),
    (732, &[275, 276, 277, 279, 281, 732]), (787, &[119, 120, 121, 122, 787, 788, 805]),
    (798, &[259, 321, 522, 547, 798]), (915, &[471, 915, 1321]), (916, &[327, 328, 759, 760, 916]),
];

/// Languages with units, in the order of the tables.
pub(super) const UNIT_LANGUAGES: [&str; 6] = ["python", "javascript", "go", "java", "ruby", "c"];

/// Expected lines of a file that count.
const LINE_CAP: usize = 40;

/// A cell with fewer has no part in the mean.
const MIN_POSITIVES: u32 = 3;

/// How far findings agree with labels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Agreement {
    /// Functions and lines per language.
    pub languages: BTreeMap<String, LanguageScore>,
    /// Mean over the cells of all languages.
    pub macro_f1: Option<f64>,
    /// By source, language and class; `all` is every class.
    pub pairs: BTreeMap<String, BTreeMap<String, BTreeMap<String, PairScore>>>,
    /// Labelled files by source.
    pub files: BTreeMap<String, Score>,
    /// Functions labelled by a word, by source.
    pub functions: BTreeMap<String, Score>,
    /// Records in scope, and those not analysed, by language.
    pub not_analysed: BTreeMap<String, (usize, usize)>,
}

/// One language.
#[derive(Clone, Debug, Serialize)]
pub struct LanguageScore {
    /// Functions.
    pub units: Score,
    /// Lines.
    pub lines: Score,
    /// Mean over cells with enough positives.
    pub macro_f1: Option<f64>,
    /// By classes, such as `89` or `79+116`; all of them.
    pub cells: BTreeMap<String, Score>,
}

/// Pairs of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PairScore {
    pub pairs: u32,
    pub flagged_before: f64,
    pub flagged_after: f64,
    pub told_apart: f64,
}

/// C++ is counted as C, TypeScript as JavaScript.
pub(super) fn group(language: &str) -> &str {
    match language {
        "cpp" => "c",
        "typescript" => "javascript",
        other => other,
    }
}

/// First and last lines of findings.
type Spans = Vec<(u32, u32)>;

/// Both sides of pairs, by source and pair.
type Pairs<'a> = BTreeMap<(&'a str, String), Sides<'a>>;

/// By label.
type Sides<'a> = BTreeMap<&'a str, (&'a Record, &'a Analysis)>;

#[derive(Default)]
struct Counts<'a> {
    units: BTreeMap<&'a str, Tally>,
    lines: BTreeMap<&'a str, Tally>,
    cells: BTreeMap<(&'a str, &'a [u16]), Tally>,
    files: BTreeMap<&'a str, Tally>,
    functions: BTreeMap<&'a str, Tally>,
    pairs: Pairs<'a>,
    not_analysed: BTreeMap<&'a str, (usize, usize)>,
}

pub(super) fn score<'a>(records: impl Iterator<Item = (&'a Record, &'a Analysis)>) -> Agreement {
    let mut counts = Counts::default();
    for (record, analysis) in records {
        counts.add(record, analysis);
    }
    counts.result()
}

fn spans(record: &Record, analysis: &Analysis, classes: &[u16]) -> Spans {
    let counts = |cwe: u16| {
        classes.iter().any(|class| {
            FAMILY.iter().any(|(known, family)| known == class && family.contains(&cwe))
        })
    };
    if analysis.not_analysed.is_some() || !record.in_scope {
        return Vec::new();
    }
    let counted =
        analysis.findings.iter().filter(|found| found.cwe.iter().any(|cwe| counts(cwe.0)));
    counted.map(|found| (found.span.line, found.span.end_line)).collect()
}

fn overlap(spans: &Spans, first: u32, last: u32) -> bool {
    spans.iter().any(|span| span.0 <= last && span.1 >= first)
}

impl<'a> Counts<'a> {
    fn add(&mut self, record: &'a Record, analysis: &'a Analysis) {
        if record.in_scope {
            let counted = self.not_analysed.entry(&record.language).or_default();
            counted.0 += 1;
            counted.1 += usize::from(analysis.not_analysed.is_some());
        }
        match record.shape() {
            Shape::NotCounted => {}
            Shape::Alerts(units) => self.alerts(record, analysis, units),
            Shape::Functions(units) => {
                let spans = spans(record, analysis, &record.classes);
                let tally = self.functions.entry(&record.source).or_default();
                for (first, last, label) in units {
                    let expected = matches!(label, UnitLabel::Word(word) if word == "vul");
                    tally.add(expected, overlap(&spans, *first, *last));
                }
            }
            Shape::Pair(pair) => {
                let sides = self.pairs.entry((&record.source, pair)).or_default();
                sides.insert(&record.label, (record, analysis));
            }
            Shape::File => {
                let found = !spans(record, analysis, &record.classes).is_empty();
                self.files.entry(&record.source).or_default().add(record.label == "vul", found);
            }
        }
    }

    fn alerts(&mut self, record: &'a Record, analysis: &Analysis, units: &[(u32, u32, UnitLabel)]) {
        let language = group(&record.language);
        if !UNIT_LANGUAGES.contains(&language) {
            return;
        }
        let spans = spans(record, analysis, &record.classes);
        let expected = &record.expected_lines;
        let inside =
            |line: u32| units.iter().any(|(first, last, _)| (*first..=*last).contains(&line));
        let alert_outside = expected.iter().any(|line| !inside(*line));
        let found_outside = spans
            .iter()
            .any(|span| !units.iter().any(|(first, last, _)| span.0 <= *last && span.1 >= *first));
        let all = self.units.entry(language).or_default();
        let cell = self.cells.entry((language, &record.classes)).or_default();
        for tally in [all, cell] {
            for (first, last, label) in units {
                let alerts = matches!(label, UnitLabel::Queries(queries) if !queries.is_empty());
                tally.add(alerts, overlap(&spans, *first, *last));
            }
            if alert_outside || found_outside {
                tally.add(alert_outside, found_outside);
                tally.outside += u32::from(!alert_outside);
            }
        }
        let lines = self.lines.entry(language).or_default();
        let near = |span: &(u32, u32), line: u32| span.0 <= line + 1 && line <= span.1 + 1;
        for line in expected.iter().take(LINE_CAP) {
            lines.add(true, spans.iter().any(|span| near(span, *line)));
        }
        let far = |span: &&(u32, u32)| !expected.iter().any(|line| near(span, *line));
        let wrong: BTreeSet<u32> = spans.iter().filter(far).map(|span| span.0).collect();
        lines.fp += wrong.len() as u32;
    }

    fn result(self) -> Agreement {
        let mut languages = BTreeMap::new();
        let mut every = Vec::new();
        for (language, units) in &self.units {
            let cells = self.cells.iter().filter(|((of, _), _)| of == language);
            let f1: Vec<f64> = cells
                .clone()
                .filter(|(_, tally)| tally.positives() >= MIN_POSITIVES)
                .map(|(_, tally)| tally.f1())
                .collect();
            every.extend(&f1);
            let named = cells.map(|((_, classes), tally)| {
                let name: Vec<String> = classes.iter().map(ToString::to_string).collect();
                (name.join("+"), Score::from(*tally))
            });
            let score = LanguageScore {
                units: (*units).into(),
                lines: self.lines.get(language).copied().unwrap_or_default().into(),
                macro_f1: mean(&f1),
                cells: named.collect(),
            };
            languages.insert((*language).to_owned(), score);
        }
        let scores = |tallies: BTreeMap<&str, Tally>| {
            tallies.into_iter().map(|(source, tally)| (source.to_owned(), tally.into())).collect()
        };
        Agreement {
            languages,
            macro_f1: mean(&every),
            pairs: pairs(&self.pairs),
            files: scores(self.files),
            functions: scores(self.functions),
            not_analysed: self
                .not_analysed
                .into_iter()
                .map(|(language, counts)| (language.to_owned(), counts))
                .collect(),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// By source, language and class.
type PairTable = BTreeMap<String, BTreeMap<String, BTreeMap<String, PairScore>>>;

fn pairs(pairs: &Pairs<'_>) -> PairTable {
    let mut rows: BTreeMap<(String, String, String), [u32; 4]> = BTreeMap::new();
    for ((source, _), sides) in pairs {
        let (Some((before, found)), Some((after, left))) = (sides.get("vul"), sides.get("sec"))
        else {
            continue;
        };
        let language = group(&before.language);
        let seen = found.not_analysed.is_none() && left.not_analysed.is_none();
        for class in &before.classes {
            let flagged = !spans(before, found, &[*class]).is_empty();
            let still = !spans(after, left, &[*class]).is_empty();
            let hits = [true, flagged, still, seen && flagged && !still];
            for name in [format!("CWE-{class:03}"), "all".to_owned()] {
                let key = ((*source).to_owned(), language.to_owned(), name);
                let row = rows.entry(key).or_default();
                for (count, hit) in row.iter_mut().zip(hits) {
                    *count += u32::from(hit);
                }
            }
        }
    }
    let mut table = PairTable::new();
    for ((source, language, class), [n, before, after, apart]) in rows {
        let rate = |count: u32| f64::from(count) / f64::from(n);
        let score = PairScore {
            pairs: n,
            flagged_before: rate(before),
            flagged_after: rate(after),
            told_apart: rate(apart),
        };
        table.entry(source).or_default().entry(language).or_default().insert(class, score);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Oracle};

    fn record(json: serde_json::Value) -> Record {
        serde_json::from_value(json).unwrap()
    }

    fn run(rows: &[Record]) -> Agreement {
        let analyse = |row: &Record| super::super::analyse(Oracle::shared(), row, Mode::Snippet);
        let analyses: Vec<Analysis> = rows.iter().map(analyse).collect();
        score(rows.iter().zip(&analyses))
    }

    #[test]
    fn units_lines_and_what_lies_outside() {
        // Line 2 is expected and found, line 6 expected and missed, line 9 found outside all units.
        let text =
            "def f(x):\n    return eval(x)\n\n\ndef g(x):\n    return x\n\n\neval(input())\n";
        let row = record(serde_json::json!({
            "source": "s", "language": "python", "classes": [94], "in_scope": true, "label": "vul",
            "expected_lines": [2, 6], "text": text, "units": [[1, 2, ["q"]], [5, 6, ["q"]]],
        }));
        let python = &run(&[row]).languages["python"];
        let units = &python.units;
        assert_eq!((units.tp, units.fp, units.fn_, units.negatives), (1, 1, 1, 0));
        assert_eq!((units.precision, units.recall, units.f1), (Some(0.5), Some(0.5), Some(0.5)));
        assert_eq!((python.lines.tp, python.lines.fp, python.lines.fn_), (1, 1, 1));
        assert_eq!((python.macro_f1, python.cells["94"].f1), (None, Some(0.5)));
    }

    #[test]
    fn pairs_files_and_functions() {
        let bad = "def f(x):\n    return eval(x)\n";
        let row = |label: &str, text: &str, more: serde_json::Value| {
            let mut row = serde_json::json!({
                "source": "s", "language": "python", "classes": [94], "in_scope": true, "label": label, "text": text,
            });
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            record(row)
        };
        let pair = |n: u32| serde_json::json!({"pair": n});
        let rows = [
            row("vul", bad, pair(1)),
            row("sec", "def f(x):\n    return int(x)\n", pair(1)),
            row("vul", bad, pair(2)),
            row("sec", bad, pair(2)),
            row("vul", bad, serde_json::json!({})),
            row("vul", bad, serde_json::json!({"units": [[1, 1, "clean"], [2, 2, "vul"]]})),
            row("vul", bad, serde_json::json!({"rules": {}})),
        ];
        let agreement = run(&rows);
        let pairs = agreement.pairs["s"]["python"]["CWE-094"];
        assert_eq!((pairs.pairs, pairs.flagged_before, pairs.flagged_after), (2, 1.0, 0.5));
        assert_eq!(pairs.told_apart, 0.5);
        assert_eq!((agreement.files["s"].tp, agreement.functions["s"].f1), (1, Some(1.0)));
    }
}
