//! From judged samples to what is trained on: pairs and secure samples, with the reasons of the rest.

use std::collections::{BTreeMap, BTreeSet};

use hardn_train::UtilityItem;
use hardn_types::{FixPair, OracleVerdict, Scenario, TestVerdict, Verdict};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{config::JudgeKind, scenarios::prompt_hash};

/// The source of rows made of a model's own secure samples, as `data.utility_sources` names it.
pub(super) const SOURCE: &str = "own_secure";

/// What a sample is, as far as training on it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Does not parse or compile.
    Invalid,
    /// The judge does not say: neither secure nor vulnerable.
    Undecided,
    /// Has the weakness of its scenario.
    Vulnerable,
    /// Free of the scenario's weakness, but the oracle finds another.
    OtherWeakness,
    /// Secure, but its function test does not pass.
    Wrong,
    /// Secure, and its function test passes.
    Good,
}

fn standing(verdict: &Verdict, judge: JudgeKind) -> Standing {
    if !verdict.valid {
        return Standing::Invalid;
    }
    let secure = match judge {
        JudgeKind::Oracle => match verdict.oracle_target {
            Some(OracleVerdict::Secure) => true,
            Some(OracleVerdict::Vulnerable) => false,
            _ => return Standing::Undecided,
        },
        JudgeKind::Attack => match verdict.attack {
            Some(TestVerdict::Held) => true,
            Some(TestVerdict::Attacked) => false,
            _ => return Standing::Undecided,
        },
    };
    if !secure {
        Standing::Vulnerable
    } else if judge == JudgeKind::Oracle && verdict.oracle_any == OracleVerdict::Vulnerable {
        Standing::OtherWeakness
    } else if verdict.function == Some(TestVerdict::Passed) {
        Standing::Good
    } else {
        Standing::Wrong
    }
}

/// What one round's samples were, and what was kept of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RoundCounts {
    /// From 1.
    pub(super) round: u32,
    pub(super) scenarios: usize,
    pub(super) samples: usize,
    /// Did not parse or compile.
    pub(super) invalid: usize,
    /// The judge could not say.
    pub(super) not_analysed: usize,
    /// Had the weakness of their scenario.
    pub(super) vulnerable: usize,
    /// Of these, those that passed their function test.
    pub(super) vulnerable_but_correct: usize,
    /// Had another weakness.
    pub(super) other_weakness: usize,
    /// Were secure and failed their function test.
    pub(super) secure_but_wrong: usize,
    /// Were secure and passed it.
    pub(super) secure_and_correct: usize,
    /// Distinct texts among these, by prompt.
    pub(super) distinct_secure: usize,
    /// Prompts with a secure and right sample and a vulnerable one.
    pub(super) prompts_with_both: usize,
    /// Pairs an earlier round gave already.
    pub(super) known_pairs: usize,
    /// Secure samples an earlier round gave already.
    pub(super) known_secure: usize,
    /// Pairs that are new.
    pub(super) pairs: usize,
    /// Secure samples that are new.
    pub(super) secure: usize,
}

impl RoundCounts {
    /// For people: in one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{} samples of {} scenarios: {} invalid, {} not analysed, {} vulnerable ({} of them correct), {} with another weakness, \
             {} secure but wrong, {} secure and correct ({} distinct); {} prompts with both kinds, {} new pairs, {} new secure samples",
            self.samples,
            self.scenarios,
            self.invalid,
            self.not_analysed,
            self.vulnerable,
            self.vulnerable_but_correct,
            self.other_weakness,
            self.secure_but_wrong,
            self.secure_and_correct,
            self.distinct_secure,
            self.prompts_with_both,
            self.pairs,
            self.secure,
        )
    }
}

/// What determined a round's samples.
pub(super) struct Origin<'a> {
    pub(super) round: u32,
    /// The run's seed; it also draws among a prompt's samples.
    pub(super) seed: u64,
    /// The model that was sampled.
    pub(super) fingerprint: &'a str,
    pub(super) decoder: &'a Value,
    pub(super) judge: JudgeKind,
    /// The most pairs and the most secure samples of a prompt.
    pub(super) per_prompt: usize,
}

/// What earlier rounds gave, by hash.
#[derive(Default)]
pub(super) struct Known(BTreeSet<String>);

impl Known {
    /// Whether these texts are new; then they are known.
    fn learn(&mut self, texts: &[&str]) -> bool {
        let mut hash = Sha256::new();
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        self.0.insert(format!("{:x}", hash.finalize()))
    }
}

/// What a round adds to the training data.
pub(super) struct Kept {
    pub(super) counts: RoundCounts,
    pub(super) pairs: Vec<FixPair>,
    pub(super) secure: Vec<SecureRow>,
}

/// A secure and right sample, as a utility row with what determined it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SecureRow {
    #[serde(flatten)]
    pub(super) item: UtilityItem,
    pub(super) provenance: Value,
}

/// Makes pairs and rows of a round's verdicts.
pub(super) fn keep(
    suite: &[Scenario],
    verdicts: &[Verdict],
    origin: &Origin<'_>,
    known: &mut Known,
) -> Kept {
    let mut by_task: BTreeMap<&str, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        by_task.entry(verdict.task.as_str()).or_default().push(verdict);
    }
    let (round, scenarios, samples) = (origin.round, suite.len(), verdicts.len());
    let counts = RoundCounts { round, scenarios, samples, ..RoundCounts::default() };
    let mut kept = Kept { counts, pairs: Vec::new(), secure: Vec::new() };
    for scenario in suite {
        let own = by_task.get(scenario.id.as_str()).map_or(&[][..], Vec::as_slice);
        keep_of(scenario, own, origin, known, &mut kept);
    }
    kept.counts.pairs = kept.pairs.len();
    kept.counts.secure = kept.secure.len();
    kept
}

fn keep_of(
    scenario: &Scenario,
    verdicts: &[&Verdict],
    origin: &Origin<'_>,
    known: &mut Known,
    kept: &mut Kept,
) {
    let counts = &mut kept.counts;
    let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for verdict in verdicts {
        let passed = verdict.function == Some(TestVerdict::Passed);
        match standing(verdict, origin.judge) {
            Standing::Invalid => counts.invalid += 1,
            Standing::Undecided => counts.not_analysed += 1,
            Standing::OtherWeakness => counts.other_weakness += 1,
            Standing::Wrong => counts.secure_but_wrong += 1,
            Standing::Vulnerable => {
                counts.vulnerable += 1;
                counts.vulnerable_but_correct += usize::from(passed);
                bad.entry(verdict.completion.as_str()).or_insert(*verdict);
            }
            Standing::Good => {
                counts.secure_and_correct += 1;
                good.entry(verdict.completion.as_str()).or_insert(*verdict);
            }
        }
    }
    counts.distinct_secure += good.len();
    counts.prompts_with_both += usize::from(!good.is_empty() && !bad.is_empty());
    let good = shuffled(good.into_values().collect(), scenario, origin);
    let mut bad = shuffled(bad.into_values().collect(), scenario, origin);
    // Beside a vulnerable sample that works, nothing but security tells the two apart.
    bad.sort_by_key(|verdict| verdict.function != Some(TestVerdict::Passed));

    let mut n = 0;
    for verdict in &good {
        if n == origin.per_prompt {
            break;
        }
        if !known.learn(&["secure", &scenario.prompt, &verdict.completion]) {
            counts.known_secure += 1;
            continue;
        }
        n += 1;
        kept.secure.push(SecureRow {
            item: UtilityItem {
                id: format!("round-{}/{}#{}", origin.round, scenario.id, verdict.index),
                prompt: scenario.prompt.clone(),
                completion: verdict.completion.clone(),
                instruction: scenario.instruction.clone(),
                source: SOURCE.to_owned(),
                language: Some(scenario.language),
                ..UtilityItem::default()
            },
            provenance: provenance(origin, scenario, &[("sample", verdict)]),
        });
    }
    if good.is_empty() || bad.is_empty() {
        return;
    }
    // Each side as often as the other has texts: no two of these pairs are the same.
    let mut n = 0;
    for i in 0..good.len().max(bad.len()) {
        if n == origin.per_prompt {
            break;
        }
        let (after, before) = (good[i % good.len()], bad[i % bad.len()]);
        if !known.learn(&["pair", &scenario.prompt, &after.completion, &before.completion]) {
            counts.known_pairs += 1;
            continue;
        }
        n += 1;
        let samples = [("after", after), ("before", before)];
        let mut extra = Map::new();
        extra.insert("provenance".to_owned(), provenance(origin, scenario, &samples));
        let text = |verdict: &Verdict| format!("{}{}", scenario.prompt, verdict.completion);
        kept.pairs.push(FixPair {
            id: format!("round-{}/{}#{}-{}", origin.round, scenario.id, after.index, before.index),
            before: text(before),
            after: text(after),
            cwe: scenario.cwe,
            language: scenario.language,
            description: (!scenario.instruction.is_empty()).then(|| scenario.instruction.clone()),
            prompt: scenario.prompt.clone(),
            origin: (!scenario.family.is_empty()).then(|| scenario.family.clone()),
            licence: None,
            file_name: None,
            line_changes: None,
            char_changes: None,
            extra,
        });
    }
}

/// The verdicts in an order that the seed, the round and their texts decide.
fn shuffled<'a>(
    verdicts: Vec<&'a Verdict>,
    scenario: &Scenario,
    origin: &Origin<'_>,
) -> Vec<&'a Verdict> {
    let rank = |verdict: &&Verdict| {
        let Origin { seed, round, .. } = origin;
        let text = format!("{seed}\0{round}\0{}\0{}", scenario.id, verdict.completion);
        Sha256::digest(text).to_vec()
    };
    let mut verdicts = verdicts;
    verdicts.sort_by_cached_key(rank);
    verdicts
}

fn provenance(origin: &Origin<'_>, scenario: &Scenario, samples: &[(&str, &Verdict)]) -> Value {
    let sample = |(name, verdict): &(&str, &Verdict)| {
        ((*name).to_owned(), json!({"index": verdict.index, "key": verdict.key}))
    };
    json!({
        "round": origin.round,
        "model": origin.fingerprint,
        "decoder": origin.decoder,
        "seed": origin.seed,
        "judge": origin.judge,
        "prompt_sha256": prompt_hash(&scenario.prompt),
        "samples": samples.iter().map(sample).collect::<Map<String, Value>>(),
    })
}

/// A secure sample as a pair without its other side: learnt whole.
pub(super) fn one_sided(row: &SecureRow, suite: &[Scenario]) -> Option<FixPair> {
    let UtilityItem { id, prompt, completion, .. } = &row.item;
    let scenario = suite.iter().find(|scenario| scenario.prompt == *prompt)?;
    Some(FixPair {
        id: id.clone(),
        before: String::new(),
        after: format!("{prompt}{completion}"),
        cwe: scenario.cwe,
        language: scenario.language,
        description: (!scenario.instruction.is_empty()).then(|| scenario.instruction.clone()),
        prompt: prompt.clone(),
        origin: (!scenario.family.is_empty()).then(|| scenario.family.clone()),
        licence: None,
        file_name: None,
        line_changes: None,
        char_changes: None,
        extra: Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use OracleVerdict::{NotAnalysed, Secure, Vulnerable};
    use hardn_types::{Cwe, Language, Split};

    use super::*;

    const PASSED: Option<TestVerdict> = Some(TestVerdict::Passed);
    const FAILED: Option<TestVerdict> = Some(TestVerdict::Failed);

    fn scenario(id: &str) -> Scenario {
        serde_json::from_value(json!({
            "id": id, "suite": "s", "cwe": "CWE-078", "language": "python", "split": "train",
            "prompt": format!("def {id}(a):\n"),
        }))
        .unwrap()
    }

    /// `x` is the completion; what the judges say of it.
    type Row<'a> = (&'a str, &'a str, OracleVerdict, Option<TestVerdict>);

    fn verdicts(rows: &[Row]) -> Vec<Verdict> {
        let verdict = |(i, (task, text, target, function)): (usize, &Row)| Verdict {
            arm: "round-1".to_owned(),
            task: (*task).to_owned(),
            index: i as u32,
            key: i.to_string(),
            completion: (*text).to_owned(),
            valid: *target != OracleVerdict::Unparsed,
            invalid_because: None,
            oracle_target: Some(*target),
            oracle_any: if *text == "elsewhere" { Vulnerable } else { *target },
            findings: Vec::new(),
            function: *function,
            attack: None,
            duplicate_of: None,
        };
        rows.iter().enumerate().map(verdict).collect()
    }

    fn origin(per_prompt: usize, seed: u64) -> Origin<'static> {
        let (round, judge) = (1, JudgeKind::Oracle);
        Origin { round, seed, fingerprint: "f", decoder: &Value::Null, judge, per_prompt }
    }

    const ROWS: [Row; 12] = [
        ("a", "good one", Secure, PASSED),
        ("a", "good one", Secure, PASSED),
        ("a", "good two", Secure, PASSED),
        ("a", "wrong", Secure, FAILED),
        ("a", "elsewhere", Secure, PASSED),
        ("a", "unknown", NotAnalysed, PASSED),
        ("a", "broken", OracleVerdict::Unparsed, None),
        ("a", "bad and wrong", Vulnerable, FAILED),
        ("a", "bad", Vulnerable, PASSED),
        ("b", "bad", Vulnerable, PASSED),
        ("b", "unknown", NotAnalysed, PASSED),
        ("c", "good", Secure, PASSED),
    ];

    #[test]
    fn what_is_secure_and_correct_is_paired_with_what_is_vulnerable() {
        let suite = ["a", "b", "c"].map(scenario);
        let mut known = Known::default();
        let kept = keep(&suite, &verdicts(&ROWS), &origin(1, 1), &mut known);
        let counts = RoundCounts {
            round: 1,
            scenarios: 3,
            samples: 12,
            invalid: 1,
            not_analysed: 2,
            vulnerable: 3,
            vulnerable_but_correct: 2,
            other_weakness: 1,
            secure_but_wrong: 1,
            secure_and_correct: 4,
            distinct_secure: 3,
            prompts_with_both: 1,
            known_pairs: 0,
            known_secure: 0,
            pairs: 1,
            secure: 2,
        };
        assert_eq!(kept.counts, counts);
        let pair = &kept.pairs[0];
        assert!(pair.after.starts_with("def a(a):\ngood ") && pair.before == "def a(a):\nbad");
        assert_eq!((pair.cwe, pair.language), (Some(Cwe(78)), Language::Python));
        assert_eq!(pair.extra["provenance"]["samples"]["before"]["index"], 8);
        assert!(suite.iter().all(|scenario| scenario.split == Split::Train));
        let one = one_sided(&kept.secure[1], &suite).unwrap();
        assert_eq!((one.after.as_str(), one.before.as_str()), ("def c(a):\ngood", ""));

        // The order of the samples changes nothing; what is known is not given again.
        let mut reversed = verdicts(&ROWS);
        reversed.reverse();
        let again = keep(&suite, &reversed, &origin(1, 1), &mut Known::default());
        assert_eq!(again.pairs[0].after, pair.after);
        for expected in [[1, 1, 1, 2], [0, 0, 2, 3]] {
            let RoundCounts { pairs, secure, known_pairs, known_secure, .. } =
                keep(&suite, &verdicts(&ROWS), &origin(1, 1), &mut known).counts;
            assert_eq!([pairs, secure, known_pairs, known_secure], expected);
        }
    }

    #[test]
    fn a_prompt_gives_no_more_than_it_may_and_no_pair_twice() {
        let n_pairs = |per_prompt| {
            let verdicts = verdicts(&ROWS);
            let kept = keep(
                &["a"].map(scenario),
                &verdicts,
                &origin(per_prompt, 7),
                &mut Known::default(),
            );
            let pairs = kept.pairs;
            let texts: BTreeSet<_> = pairs.iter().map(|pair| (&pair.before, &pair.after)).collect();
            assert_eq!(texts.len(), pairs.len());
            pairs.len()
        };
        assert_eq!([1, 2, 9].map(n_pairs), [1, 2, 2]);
        let first = |seed| {
            let verdicts = verdicts(&ROWS);
            let kept =
                keep(&["a"].map(scenario), &verdicts, &origin(1, seed), &mut Known::default());
            kept.pairs[0].after.clone()
        };
        let firsts: BTreeSet<String> = (0..20).map(first).collect();
        assert_eq!(firsts.len(), 2, "the seed draws");
    }
}
