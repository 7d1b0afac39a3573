//! The control "constant idiom": for each weakness, the commonest secure completion of the fix pairs, whatever the prompt says.

use std::collections::BTreeMap;

use hardn_types::{Cwe, FinishReason, FixPair, Language, Sample, Scenario};

/// What the control emits for each weakness and language.
pub(crate) struct ConstantPolicy {
    choices: BTreeMap<(Cwe, Language), Choice>,
}

struct Choice {
    prompt: String,
    completion: String,
}

/// How often each shape occurs, and the first pair that has it.
type Shapes<'a> = BTreeMap<String, (usize, &'a FixPair)>;

impl ConstantPolicy {
    /// Counts the shapes of the secure completions (names left out) and takes, for each weakness and language, the first pair of
    /// the commonest shape.
    pub(crate) fn from_pairs(pairs: &[FixPair]) -> Self {
        let mut shapes: BTreeMap<(Cwe, Language), Shapes<'_>> = BTreeMap::new();
        for pair in pairs {
            let Some(cwe) = pair.cwe else { continue };
            let shape = shape(&pair.after[pair.prompt.len()..]);
            let entry = shapes.entry((cwe, pair.language)).or_default();
            entry.entry(shape).or_insert((0, pair)).0 += 1;
        }
        let choices = shapes.into_iter().filter_map(|(key, shapes)| {
            let (_, pair) = shapes.into_values().max_by(|a, b| {
                // The earlier pair wins a tie, so that the choice does not depend on the order of shapes.
                a.0.cmp(&b.0).then_with(|| b.1.id.cmp(&a.1.id))
            })?;
            let completion = pair.after[pair.prompt.len()..].to_owned();
            Some((key, Choice { prompt: pair.prompt.clone(), completion }))
        });
        Self { choices: choices.collect() }
    }

    /// The completion for a scenario: the constant one, with names carried over from the scenario's prompt where its words line up
    /// with those of the pair's prompt. `None` for tasks without a weakness and for weaknesses without a pair.
    pub(crate) fn completion(&self, scenario: &Scenario) -> Option<String> {
        let choice = self.choices.get(&(scenario.cwe?, scenario.language))?;
        let names = renames(&choice.prompt, &scenario.prompt);
        let renamed = words(&choice.completion)
            .into_iter()
            .map(|word| names.get(word).copied().unwrap_or(word));
        Some(renamed.collect())
    }

    /// The completion as a sample of an arm.
    pub(crate) fn sample(&self, arm: &str, scenario: &Scenario, key: String) -> Option<Sample> {
        Some(Sample {
            arm: arm.to_owned(),
            task: scenario.id.clone(),
            index: 0,
            key,
            text: self.completion(scenario)?,
            ids: Vec::new(),
            token_chars: Vec::new(),
            log_probs: Vec::new(),
            authors: String::new(),
            prompt: None,
            repairs: 0,
            finish: FinishReason::Stop,
        })
    }
}

/// Names of `from` that stand where another name stands in `to`, by aligning the last lines of both from their ends:
/// the signature and what follows it decide, imports above do not.
fn renames<'a>(from: &'a str, to: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut names = BTreeMap::new();
    let lines = |text: &'a str| text.lines().filter(|line| !is_prose(line)).collect::<Vec<_>>();
    let (from, to) = (lines(from), lines(to));
    for (a, b) in from.iter().rev().zip(to.iter().rev()) {
        let (a, b) = (words(a), words(b));
        if a.len() != b.len() {
            continue;
        }
        for (old, new) in a.into_iter().zip(b) {
            if is_name(old) && is_name(new) && old != new {
                names.entry(old).or_insert(new);
            }
        }
    }
    names
}

fn is_prose(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("\"\"\"")
        || line.starts_with('#')
        || line.starts_with("//")
        || line.starts_with("/*")
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names are replaced by one letter: two completions of one shape differ in names only.
fn shape(code: &str) -> String {
    words(code).into_iter().map(|word| if is_name(word) { "n" } else { word }).collect()
}

/// Splits into runs of name characters and single other characters; joined they are the text again.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut in_name = false;
    for (at, c) in text.char_indices() {
        let name = c.is_alphanumeric() || c == '_';
        if at > start && !(name && in_name) {
            words.push(&text[start..at]);
            start = at;
        }
        in_name = name;
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}

#[cfg(test)]
mod tests {
    use hardn_types::{Split, Tags};

    use super::*;

    fn pair(id: &str, prompt: &str, completion: &str) -> FixPair {
        FixPair {
            id: id.to_owned(),
            before: format!("{prompt}    bad()\n"),
            after: format!("{prompt}{completion}"),
            cwe: Some(Cwe(89)),
            language: Language::Python,
            description: None,
            prompt: prompt.to_owned(),
            origin: None,
            licence: None,
            file_name: None,
            line_changes: None,
            char_changes: None,
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn the_commonest_shape_is_emitted_with_the_prompts_names() {
        let pairs = [
            pair("0", "def a(cur, x):\n", "    cur.once(x)\n"),
            pair(
                "1",
                "def find(cur, key):\n    \"\"\"Find it.\"\"\"\n",
                "    cur.run(q, (key,))\n",
            ),
            pair(
                "2",
                "def get(cur, name):\n    \"\"\"Get it.\"\"\"\n",
                "    cur.run(q, (name,))\n",
            ),
        ];
        let scenario = Scenario {
            id: "s".to_owned(),
            suite: "lab".to_owned(),
            family: String::new(),
            cwe: Some(Cwe(89)),
            language: Language::Python,
            split: Split::Test,
            prompt: "def load(db, city):\n    \"\"\"Load by city.\"\"\"\n".to_owned(),
            instruction: String::new(),
            cut: hardn_types::CutRule::Function,
            function_test: None,
            attack_test: None,
            solutions: Vec::new(),
            tags: Tags::default(),
            extra: serde_json::Map::new(),
        };
        let policy = ConstantPolicy::from_pairs(&pairs);
        assert_eq!(policy.completion(&scenario).unwrap(), "    db.run(q, (city,))\n");
        let utility = Scenario { cwe: None, ..scenario };
        assert_eq!(policy.completion(&utility), None);
    }
}
