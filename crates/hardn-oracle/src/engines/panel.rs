//! Several engines as one, and what it takes for a finding to count.

use std::{fmt, str::FromStr};

use hardn_types::{Analysis, Cwe, Finding, Judge, Language, Piece, is_related};
use serde::{Deserialize, Serialize};

use super::engine::Engine;

/// How many engines have to report a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// One.
    #[default]
    Any,
    /// Every engine that reads the language.
    All,
    /// More than half of them.
    Majority,
}

impl Combine {
    /// The votes needed among `n` engines.
    fn needed(self, n: usize) -> usize {
        match self {
            Self::Any => 1,
            Self::All => n.max(1),
            Self::Majority => n / 2 + 1,
        }
    }
}

impl fmt::Display for Combine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::All => "all",
            Self::Majority => "majority",
        })
    }
}

impl FromStr for Combine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            "all" => Ok(Self::All),
            "majority" => Ok(Self::Majority),
            other => Err(format!("`{other}` is not a combination (any, all, majority)")),
        }
    }
}

/// Whether two findings are of the same thing: a class in common or of one family, in lines that overlap or touch.
pub fn confirms(a: &Finding, b: &Finding) -> bool {
    let near = a.span.line <= b.span.end_line.saturating_add(1)
        && b.span.line <= a.span.end_line.saturating_add(1);
    near && a.cwe.iter().any(|one| b.cwe.iter().any(|other| is_related(*one, *other)))
}

/// One answer from those of several engines that read the language.
///
/// A finding counts where the engines that report it ([`confirms`]) are as many as `combine` asks for, and each of them
/// keeps its own wording of it. Engines that did not look are neither for nor against: where their votes could still
/// make a finding count and nothing counts already, the answer is `not_analysed`. What is covered are the classes that enough engines
/// cover, without those that are left open.
pub fn combine(analyses: &[&Analysis], combine: Combine) -> Analysis {
    let language = analyses.iter().find_map(|analysis| analysis.language);
    let needed = combine.needed(analyses.len());
    let ran: Vec<&Analysis> =
        analyses.iter().copied().filter(|analysis| analysis.not_analysed.is_none()).collect();
    let n_failed = analyses.len() - ran.len();
    let (mut findings, mut open): (Vec<Finding>, Vec<Cwe>) = (Vec::new(), Vec::new());
    for (own, analysis) in ran.iter().enumerate() {
        for finding in &analysis.findings {
            let others = ran.iter().enumerate().filter(|(other, analysis)| {
                *other != own && analysis.findings.iter().any(|other| confirms(finding, other))
            });
            let votes = 1 + others.count();
            if votes >= needed {
                findings.push(finding.clone());
            } else if votes + n_failed >= needed {
                open.extend(&finding.cwe);
            }
        }
    }
    let undecided = n_failed >= needed || !open.is_empty();
    if analyses.is_empty() || (findings.is_empty() && n_failed > 0 && undecided) {
        let reasons: Vec<&str> =
            analyses.iter().filter_map(|analysis| analysis.not_analysed.as_deref()).collect();
        let why =
            if reasons.is_empty() { "no engine reads it".to_owned() } else { reasons.join("; ") };
        return Analysis::not_analysed(language, why);
    }
    findings.sort_by(|a, b| (a.span, &a.engine, &a.rule).cmp(&(b.span, &b.engine, &b.rule)));
    let mut covers: Vec<Cwe> = ran.iter().flat_map(|analysis| &analysis.covers).copied().collect();
    covers.sort();
    covers.dedup();
    covers.retain(|class| {
        let n = ran
            .iter()
            .filter(|analysis| analysis.covers.iter().any(|covered| is_related(*class, *covered)))
            .count();
        let found = findings.iter().any(|f| f.cwe.iter().any(|cwe| is_related(*class, *cwe)));
        let is_open = n_failed >= needed || open.iter().any(|cwe| is_related(*class, *cwe));
        n >= needed && (found || !is_open)
    });
    Analysis { language, findings, covers, not_analysed: None }
}

/// Several engines as one [`Judge`].
pub struct Panel<'a> {
    engines: Vec<Box<dyn Engine + Send + 'a>>,
    combine: Combine,
}

impl<'a> Panel<'a> {
    /// A panel of engines.
    pub fn new(engines: Vec<Box<dyn Engine + Send + 'a>>, combine: Combine) -> Self {
        Self { engines, combine }
    }

    /// The engines.
    pub fn engines(&self) -> impl Iterator<Item = &dyn Engine> {
        self.engines.iter().map(|engine| &**engine as &dyn Engine)
    }

    /// What each engine says of each piece, in the order of [`Panel::engines`]; `None` where it does not read the
    /// language. `known` gives the answers of the engines that were asked before, by id.
    pub fn ask(
        &self,
        pieces: &[Piece],
        known: &dyn Fn(&str) -> Option<Vec<Analysis>>,
    ) -> Vec<Vec<Option<Analysis>>> {
        self.engines()
            .map(|engine| {
                if let Some(known) = known(engine.id()) {
                    return known.into_iter().map(Some).collect();
                }
                let reads = |piece: &&Piece| engine.reads(piece.language);
                let asked: Vec<Piece> = pieces.iter().filter(reads).copied().collect();
                let answers = if asked.is_empty() { Vec::new() } else { engine.judge_all(&asked) };
                let mut answers = answers.into_iter();
                pieces.iter().map(|piece| reads(&piece).then(|| answers.next())?).collect()
            })
            .collect()
    }

    /// One answer for each of `n` pieces from what [`Panel::ask`] gave.
    pub fn combined(&self, answers: &[Vec<Option<Analysis>>], n: usize) -> Vec<Analysis> {
        (0..n)
            .map(|piece| {
                let given: Vec<&Analysis> =
                    answers.iter().filter_map(|answers| answers[piece].as_ref()).collect();
                combine(&given, self.combine)
            })
            .collect()
    }
}

impl Judge for Panel<'_> {
    fn name(&self) -> String {
        let names: Vec<String> = self.engines().map(Judge::name).collect();
        match names.len() {
            1 => names.concat(),
            _ => format!("{} of {}", self.combine, names.join(", ")),
        }
    }

    fn judge(&self, code: &str, language: Language) -> Analysis {
        self.judge_all(&[Piece::new(code, language)]).remove(0)
    }

    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        let answers = self.ask(pieces, &|_| None);
        self.combined(&answers, pieces.len())
    }
}

#[cfg(test)]
mod tests {
    use hardn_types::Span;

    use super::*;

    fn finding(engine: &str, cwe: u16, line: u32) -> Finding {
        Finding {
            engine: engine.to_owned(),
            rule: "r".to_owned(),
            cwe: vec![Cwe(cwe)],
            span: Span { line, column: 1, end_line: line, end_column: 2 },
            message: String::new(),
            trace: Vec::new(),
        }
    }

    fn found(engine: &str, findings: &[(u16, u32)]) -> Analysis {
        Analysis {
            language: Some(Language::C),
            findings: findings.iter().map(|(cwe, line)| finding(engine, *cwe, *line)).collect(),
            covers: vec![Cwe(89), Cwe(78)],
            not_analysed: None,
        }
    }

    fn failed() -> Analysis {
        Analysis::not_analysed(Some(Language::C), "broken")
    }

    /// Engine and line of the findings that count, or `None` for "not analysed".
    fn counted(analyses: &[Analysis], how: Combine) -> Option<Vec<(String, u32)>> {
        let answer = combine(&analyses.iter().collect::<Vec<_>>(), how);
        answer.not_analysed.is_none().then(|| {
            answer.findings.into_iter().map(|finding| (finding.engine, finding.span.line)).collect()
        })
    }

    #[track_caller]
    fn check(analyses: &[Analysis], how: Combine, expected: Option<&[(&str, u32)]>) {
        let expected = expected
            .map(|rows| rows.iter().map(|(e, l)| ((*e).to_owned(), *l)).collect::<Vec<_>>());
        assert_eq!(counted(analyses, how), expected, "{how}");
    }

    #[test]
    fn findings_confirm_each_other_by_class_and_place() {
        let a = finding("a", 89, 10);
        for (cwe, line, expected) in [
            (89, 10, true),
            (89, 11, true),
            (89, 9, true),
            (89, 12, false),
            (943, 10, true),
            (78, 10, false),
        ] {
            let b = finding("b", cwe, line);
            assert_eq!(confirms(&a, &b), expected, "{cwe} {line}");
            assert_eq!(confirms(&b, &a), expected, "{cwe} {line}");
        }
    }

    #[test]
    fn votes_are_counted() {
        let three = [found("a", &[(89, 1), (78, 9)]), found("b", &[(89, 2)]), found("c", &[])];
        check(&three, Combine::Any, Some(&[("a", 1), ("b", 2), ("a", 9)]));
        check(&three, Combine::Majority, Some(&[("a", 1), ("b", 2)]));
        check(&three, Combine::All, Some(&[]));
        check(&three[..2], Combine::All, Some(&[("a", 1), ("b", 2)]));
    }

    #[test]
    fn an_engine_that_did_not_run_is_no_silence() {
        let clean = found("a", &[]);
        check(&[clean.clone(), failed()], Combine::Any, None);
        // It could not make all of them agree.
        check(&[clean.clone(), failed()], Combine::All, Some(&[]));
        check(&[clean.clone(), clean.clone(), failed()], Combine::Majority, Some(&[]));
        check(&[clean.clone(), failed(), failed()], Combine::Majority, None);
        let one = found("b", &[(89, 1)]);
        check(&[one.clone(), failed()], Combine::Any, Some(&[("b", 1)]));
        check(&[one.clone(), failed()], Combine::All, None);
        check(&[one.clone(), one, failed()], Combine::All, None);
        check(&[failed()], Combine::Any, None);
        check(&[], Combine::Any, None);
    }

    #[test]
    fn what_is_left_open_is_not_covered() {
        // `a` and `b` agree on one class; on the other, `c` could have confirmed `a`.
        let analyses = [found("a", &[(89, 1), (78, 9)]), found("b", &[(89, 1)]), failed()];
        let answer = combine(&analyses.iter().collect::<Vec<_>>(), Combine::Majority);
        assert_eq!((answer.findings.len(), answer.covers), (2, vec![Cwe(89)]));
    }
}
