//! The card as a page.

use std::{collections::BTreeMap, fmt::Write as _};

use hardn_types::Cwe;

use super::{
    Agreement, OracleCard, Score,
    score::{FAMILY, PairScore, UNIT_LANGUAGES},
};

/// A cell with lower recall is called blind.
const LOW_RECALL: f64 = 0.5;

impl OracleCard {
    /// The card as Markdown; `command` is what was run.
    pub fn markdown(&self, command: &str) -> String {
        let mut text = String::new();
        self.head(&mut text, command);
        self.units(&mut text);
        self.pairs(&mut text);
        self.sets(&mut text);
        self.cells(&mut text);
        self.blind(&mut text);
        text
    }

    fn head(&self, text: &mut String, command: &str) {
        let rules: Vec<String> =
            self.rules.iter().map(|(folder, n)| format!("{folder} {n}")).collect();
        let n_rules: usize = self.rules.values().sum();
        let _ = write!(
            text,
            "# Oracle card\n\n\
Agreement of the embedded oracle with a labelled corpus. Every number on this page comes from one run of\n\n\
```sh\n{command}\n```\n\n\
| | |\n| --- | --- |\n\
| engine | {} |\n| rules | {n_rules}: {} |\n| corpus | {} files, {} records, SHA-256 {} |\n\n\
How it is counted:\n\n\
- *Faithful* mode takes data from outside for an attacker's; *snippet* mode takes parameters and unknown values, too.\n\
- A finding counts for a class when one of its CWEs is the class or a close relative.\n\
- A *unit* is a function: positive where an alert is expected in it, found where a finding overlaps it. Alerts and\n  \
  findings outside all functions make one more unit of their file.\n\
- A *line* is found where a finding lies within one line of it; at most 40 expected lines of a file count.\n\
- A *cell* is the files of a language with the same set of classes; *macro F1* is the mean over cells with 3 positives or more.\n\
- A *pair* is code before and after a security fix; it is told apart where only the first is flagged.\n\
- What is not analysed counts as without findings. C++ is counted as C, TypeScript as JavaScript.\n",
            self.engine,
            rules.join(", "),
            self.corpus.files,
            self.corpus.records,
            &self.corpus.sha256[..16.min(self.corpus.sha256.len())],
        );
    }

    fn units(&self, text: &mut String) {
        for (name, agreement) in [("faithful", &self.faithful), ("snippet", &self.snippet)] {
            let _ = write!(
                text,
                "\n## Functions, {name} mode\n\n\
| language | positives | negatives | precision | recall | F1 | macro F1 | line precision | line recall | line F1 |\n\
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n"
            );
            for language in UNIT_LANGUAGES {
                let Some(score) = agreement.languages.get(language) else { continue };
                let _ = writeln!(
                    text,
                    "| {language} | {} | {} | {} |",
                    rates(&score.units),
                    rate(score.macro_f1),
                    [score.lines.precision, score.lines.recall, score.lines.f1]
                        .map(rate)
                        .join(" | ")
                );
            }
            let _ = writeln!(text, "\nMacro F1 over all cells: {}.", rate(agreement.macro_f1));
        }
    }

    fn pairs(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Pairs, snippet mode\n\n\
| set | language | class | pairs | flagged before | flagged after | told apart |\n\
| --- | --- | --- | --: | --: | --: | --: |\n"
        );
        for (source, languages) in &self.snippet.pairs {
            for (language, classes) in languages {
                for (class, score) in in_order(classes) {
                    let PairScore { pairs, flagged_before, flagged_after, told_apart } = score;
                    let shares = [flagged_before, flagged_after, told_apart]
                        .map(|share| format!("{:.1} %", 100.0 * share));
                    let _ = writeln!(
                        text,
                        "| {source} | {language} | {class} | {pairs} | {} |",
                        shares.join(" | ")
                    );
                }
            }
        }
    }

    fn sets(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Other labelled sets\n\n\
| set | mode | labelled | positives | negatives | precision | recall | F1 |\n\
| --- | --- | --- | --: | --: | --: | --: | --: |\n"
        );
        for (mode, agreement) in [("faithful", &self.faithful), ("snippet", &self.snippet)] {
            for (what, sets) in [("files", &agreement.files), ("functions", &agreement.functions)] {
                for (source, score) in sets {
                    let _ = writeln!(text, "| {source} | {mode} | {what} | {} |", rates(score));
                }
            }
        }
        let counted: Vec<String> = self
            .faithful
            .not_analysed
            .iter()
            .filter(|(_, (_, missed))| *missed > 0)
            .map(|(language, (records, missed))| format!("{language} {missed} of {records}"))
            .collect();
        if !counted.is_empty() {
            let _ = writeln!(text, "\nRecords not analysed: {}.", counted.join(", "));
        }
    }

    fn cells(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Functions by class, faithful mode\n\n\
| language | classes | positives | negatives | precision | recall | F1 |\n\
| --- | --- | --: | --: | --: | --: | --: |\n"
        );
        for (language, name, score) in cells(&self.faithful) {
            let _ = writeln!(text, "| {language} | {} | {} |", class_names(name), rates(score));
        }
    }

    fn blind(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Where it is blind\n\n\
Cells of which fewer than half the functions are found in faithful mode, and the rules there are for them. What none of\n\
these tables names has not been measured.\n\n\
| language | classes | found | rules |\n| --- | --- | --: | --- |\n"
        );
        let none = BTreeMap::new();
        for (language, name, score) in cells(&self.faithful) {
            if score.recall.is_none_or(|recall| recall >= LOW_RECALL) {
                continue;
            }
            let rules = self.rules_of.get(language).unwrap_or(&none);
            let mut ids: Vec<&str> = name
                .split('+')
                .filter_map(|class| rules.get(&class.parse::<Cwe>().ok()?))
                .flatten()
                .map(|id| id.split_once('/').map_or(id.as_str(), |(_, name)| name))
                .collect();
            ids.sort_unstable();
            ids.dedup();
            let ids = if ids.is_empty() { "**none**".to_owned() } else { ids.join(", ") };
            let _ = writeln!(
                text,
                "| {language} | {} | {} of {} | {ids} |",
                class_names(name),
                score.tp,
                score.positives
            );
        }
        let _ = write!(
            text,
            "\nClasses of the corpus that no rule is for:\n\n| language | classes |\n| --- | --- |\n"
        );
        for language in UNIT_LANGUAGES {
            let rules = self.rules_of.get(language).unwrap_or(&none);
            let missing: Vec<String> = FAMILY
                .iter()
                .filter(|(class, _)| !has_rule(rules, *class))
                .map(|(class, _)| Cwe(*class).to_string())
                .collect();
            let missing = if missing.is_empty() { "–".to_owned() } else { missing.join(" ") };
            let _ = writeln!(text, "| {language} | {missing} |");
        }
    }
}

/// Whether a rule names a class or one that counts for it.
fn has_rule(rules: &BTreeMap<Cwe, Vec<String>>, class: u16) -> bool {
    let family = FAMILY.iter().filter(|(known, _)| *known == class);
    family.flat_map(|(_, family)| *family).any(|cwe| rules.contains_key(&Cwe(*cwe)))
}

fn cells(agreement: &Agreement) -> Vec<(&str, &str, &Score)> {
    let mut found = Vec::new();
    for language in UNIT_LANGUAGES {
        let Some(score) = agreement.languages.get(language) else { continue };
        let mut cells: Vec<_> = score.cells.iter().collect();
        cells.sort_by_key(|(name, _)| {
            name.split('+').map(|class| class.parse::<u16>().unwrap_or(0)).collect::<Vec<_>>()
        });
        found.extend(cells.into_iter().map(|(name, score)| (language, name.as_str(), score)));
    }
    found
}

/// Classes by number, all of them first.
fn in_order(classes: &BTreeMap<String, PairScore>) -> Vec<(&str, PairScore)> {
    let mut rows: Vec<(&str, PairScore)> =
        classes.iter().map(|(class, score)| (class.as_str(), *score)).collect();
    rows.sort_by_key(|(class, _)| class.parse::<Cwe>().map_or(0, |cwe| cwe.0));
    rows
}

fn class_names(cell: &str) -> String {
    let names: Vec<String> = cell
        .split('+')
        .map(|class| class.parse::<Cwe>().map_or(class.to_owned(), |cwe| cwe.to_string()))
        .collect();
    names.join(" ")
}

fn rates(score: &Score) -> String {
    let Score { positives, negatives, precision, recall, f1, .. } = score;
    format!("{positives} | {negatives} | {}", [*precision, *recall, *f1].map(rate).join(" | "))
}

fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}
