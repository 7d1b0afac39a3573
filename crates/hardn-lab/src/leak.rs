//! How much of the scenarios also stands in the texts that models are trained on.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hardn_types::Scenario;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    lex::{lex, shape},
    rng::text_hash,
};

/// Lexemes per piece.
const N_GRAM: usize = 10;

/// Overlap of scenarios and tasks with the texts that models are trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// One row for each group of scenarios.
    pub rows: Vec<LeakRow>,
}

/// Overlap of one group of scenarios. Shares lie between 0 and 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeakRow {
    /// `seen idiom`, `unseen idiom`, `seen context`, `unseen weakness`, `trusted` or `utility`.
    pub group: String,
    /// Scenarios in the group.
    pub scenarios: usize,
    /// Share of the 10-grams of prompts that occur in pretraining text.
    pub prompt_in_pretraining: f64,
    /// Share of the 10-grams of prompts that occur in fix pairs.
    pub prompt_in_pairs: f64,
    /// Share of the 10-grams of whole programs, from the first that reaches into the solution, that occur in
    /// pretraining text.
    pub solution_in_pretraining: f64,
    /// The same for fix pairs.
    pub solution_in_pairs: f64,
    /// Share of whole programs (prompt and a solution) whose shape is that of a pretraining document.
    pub shape_in_pretraining: f64,
    /// Share of whole programs whose shape is that of a side of a fix pair.
    pub shape_in_pairs: f64,
    /// Share of prompts that stand in pretraining text or fix pairs as they are. Anything but 0 is a bug.
    pub prompt_verbatim: f64,
}

/// The name of a scenario's group.
pub(crate) fn group(scenario: &Scenario) -> &'static str {
    let tags = &scenario.tags;
    match scenario.cwe {
        None if tags.trusted => "trusted",
        None => "utility",
        Some(_) if tags.seen_weakness == Some(false) => "unseen weakness",
        Some(_) if tags.seen_context == Some(true) => "seen context",
        Some(_) if tags.seen_idiom == Some(false) => "unseen idiom",
        Some(_) => "seen idiom",
    }
}

/// Compares scenarios with pretraining documents and with the sides of fix pairs.
pub(crate) fn measure(scenarios: &[&Scenario], documents: &[&str], sides: &[&str]) -> Leak {
    let programs: Vec<Program> =
        scenarios.par_iter().map(|scenario| Program::new(scenario)).collect();
    let wanted = Wanted {
        grams: programs.iter().flat_map(|p| p.prompt.iter().chain(&p.solutions).copied()).collect(),
        shapes: programs.iter().flat_map(|p| p.shapes.iter().copied()).collect(),
    };
    let pretraining = wanted.found_in(documents);
    let pairs = wanted.found_in(sides);
    let mut groups: BTreeMap<&str, Vec<(&Program, bool)>> = BTreeMap::new();
    for (scenario, program) in scenarios.iter().zip(&programs) {
        // A prompt that stands somewhere as it is has all its pieces there; only then is it worth searching.
        let verbatim = [(&pretraining, documents), (&pairs, sides)].iter().any(|(found, texts)| {
            program.prompt.iter().all(|gram| found.grams.contains(gram))
                && texts.iter().any(|text| text.contains(&scenario.prompt))
        });
        groups.entry(group(scenario)).or_default().push((program, verbatim));
    }
    let rows = groups.into_iter().map(|(group, programs)| {
        let over = |pieces: fn(&Program) -> &Vec<u64>, found: &HashSet<u64>| {
            let all: Vec<u64> =
                programs.iter().flat_map(|(p, _)| pieces(p).iter().copied()).collect();
            share(all.iter().filter(|piece| found.contains(piece)).count(), all.len())
        };
        LeakRow {
            group: group.to_owned(),
            scenarios: programs.len(),
            prompt_in_pretraining: over(|p| &p.prompt, &pretraining.grams),
            prompt_in_pairs: over(|p| &p.prompt, &pairs.grams),
            solution_in_pretraining: over(|p| &p.solutions, &pretraining.grams),
            solution_in_pairs: over(|p| &p.solutions, &pairs.grams),
            shape_in_pretraining: over(|p| &p.shapes, &pretraining.shapes),
            shape_in_pairs: over(|p| &p.shapes, &pairs.shapes),
            prompt_verbatim: share(
                programs.iter().filter(|(_, verbatim)| *verbatim).count(),
                programs.len(),
            ),
        }
    });
    Leak { rows: rows.collect() }
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// The pieces of one scenario, each once.
struct Program {
    prompt: Vec<u64>,
    solutions: Vec<u64>,
    shapes: Vec<u64>,
}

impl Program {
    fn new(scenario: &Scenario) -> Self {
        let prompt: BTreeSet<u64> = grams(&scenario.prompt).into_iter().collect();
        let mut solutions = BTreeSet::new();
        let mut shapes = BTreeSet::new();
        for solution in &scenario.solutions {
            let program = format!("{}{}", scenario.prompt, solution.text);
            solutions.extend(grams(&program).into_iter().filter(|gram| !prompt.contains(gram)));
            shapes.insert(text_hash(&shape(&program)));
        }
        let list = |set: BTreeSet<u64>| set.into_iter().collect();
        Self { prompt: list(prompt), solutions: list(solutions), shapes: list(shapes) }
    }
}

struct Wanted {
    grams: HashSet<u64>,
    shapes: HashSet<u64>,
}

impl Wanted {
    fn found_in(&self, texts: &[&str]) -> Self {
        let empty = || Self { grams: HashSet::new(), shapes: HashSet::new() };
        texts
            .par_iter()
            .fold(empty, |mut found, text| {
                found
                    .grams
                    .extend(grams(text).into_iter().filter(|gram| self.grams.contains(gram)));
                let shape = text_hash(&shape(text));
                if self.shapes.contains(&shape) {
                    found.shapes.insert(shape);
                }
                found
            })
            .reduce(empty, |mut a, b| {
                a.grams.extend(b.grams);
                a.shapes.extend(b.shapes);
                a
            })
    }
}

/// Hashes of all runs of ten lexemes.
fn grams(text: &str) -> Vec<u64> {
    let words: Vec<u64> = lex(text).into_iter().map(|(_, lexeme)| fnv(lexeme.as_bytes())).collect();
    words
        .windows(N_GRAM)
        .map(|window| {
            window
                .iter()
                .fold(0, |hash: u64, &word| (hash.rotate_left(5) ^ word).wrapping_mul(FNV_PRIME))
        })
        .collect()
}

const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit FNV-1a hash.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use hardn_types::{CutRule, Label, Language, Solution, Split, Tags};

    use super::*;

    fn scenario(prompt: &str, solution: &str) -> Scenario {
        Scenario {
            id: "s".into(),
            suite: "lab".into(),
            family: "f".into(),
            cwe: None,
            language: Language::Python,
            split: Split::Test,
            prompt: prompt.into(),
            instruction: String::new(),
            cut: CutRule::Function,
            function_test: None,
            attack_test: None,
            solutions: vec![Solution {
                label: Label::Secure,
                idiom: "i".into(),
                text: solution.into(),
            }],
            tags: Tags::default(),
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn counts_what_is_shared() {
        let prompt = "def f(a, b, c, d, e):\n";
        let body = "    return a + b + c + d + e\n";
        let whole = format!("{prompt}{body}");
        let renamed = whole.replace("def f", "def g").replace(" + e", " + z");
        let one = scenario(prompt, body);
        let leak = measure(&[&one], &[&whole], &[&renamed]);
        let row = &leak.rows[0];
        assert_eq!(
            (row.prompt_in_pretraining, row.solution_in_pretraining, row.prompt_verbatim),
            (1.0, 1.0, 1.0)
        );
        assert!(row.solution_in_pairs > 0.5 && row.solution_in_pairs < 1.0, "{row:?}");
        assert_eq!((row.shape_in_pretraining, row.shape_in_pairs), (1.0, 1.0));
        let nothing = measure(&[&one], &["x = 1\n"], &[]);
        assert_eq!(nothing.rows[0].solution_in_pretraining, 0.0);
    }
}
