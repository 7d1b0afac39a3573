//! The oracle: one piece of code in, findings out.

use std::{collections::BTreeSet, fmt, sync::OnceLock};

use hardn_types::{Analysis, Cwe, Finding, Judge, Language, Piece, TraceStep};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Result, RuleSet, flow, lower, memory, position::Positions, report::Report, rules::Index,
};

/// What counts as a source. The two are never mixed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only data from outside the program: requests, arguments, input. For whole programs.
    Faithful,
    /// Parameters and values of unknown origin too; imports may be missing. For bare functions.
    #[default]
    Snippet,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faithful => "faithful",
            Self::Snippet => "snippet",
        })
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "faithful" => Ok(Self::Faithful),
            "snippet" => Ok(Self::Snippet),
            other => Err(format!("`{other}` is not a mode (faithful, snippet)")),
        }
    }
}

/// The name of the built-in engine in findings.
pub const ENGINE: &str = "hardn";

/// The embedded analyser. Cheap to share; all methods take `&self`.
#[derive(Debug)]
pub struct Oracle {
    rules: RuleSet,
    mode: Mode,
}

impl Oracle {
    /// With the rules that are part of the binary, judging in snippet mode.
    pub fn embedded() -> Self {
        let rules = RuleSet::embedded().expect("a test reads every shipped rule");
        Self { rules, mode: Mode::Snippet }
    }

    /// The embedded oracle in snippet mode, made once per process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Oracle> = OnceLock::new();
        SHARED.get_or_init(Self::embedded)
    }

    /// With rules of one's own.
    pub fn new(rules: RuleSet) -> Self {
        Self { rules, mode: Mode::Snippet }
    }

    /// With the rules of a folder laid out like `rules/`.
    ///
    /// # Errors
    /// See [`RuleSet::from_folder`].
    pub fn from_folder(root: &std::path::Path) -> Result<Self> {
        Ok(Self::new(RuleSet::from_folder(root)?))
    }

    /// The same oracle with another mode for [`Judge::judge`].
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The mode [`Judge::judge`] uses.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Analyses one piece of code. Spans count lines and columns of `code` from 1, in code points. Where several rules
    /// say the same of one place, one of them speaks.
    pub fn analyse(&self, code: &str, language: Language, mode: Mode) -> Analysis {
        let mut analysis = self.analyse_by_rule(code, language, mode);
        if let Some(index) = self.rules.index(language) {
            keep_one_voice(&mut analysis.findings, index);
        }
        analysis
    }

    /// The same with what each single rule says.
    pub(crate) fn analyse_by_rule(&self, code: &str, language: Language, mode: Mode) -> Analysis {
        let not_analysed = |covers: &[Cwe], why: String| Analysis {
            language: Some(language),
            findings: Vec::new(),
            covers: covers.to_vec(),
            not_analysed: Some(why),
        };
        let Some(index) = self.rules.index(language) else {
            return not_analysed(&[], format!("no rules for {language} yet"));
        };
        let positions = Positions::new(code, language);
        let program = match lower::lower(positions.text(), language) {
            Ok(program) => program,
            Err(why) => return not_analysed(&index.covers, why),
        };
        let mut report = Report::new(code.len());
        flow::analyse(&program, language, index, mode, &mut report);
        if matches!(language, Language::C | Language::Cpp) {
            memory::analyse(&program, index, mode, &mut report);
        }
        if report.is_exhausted() {
            let why = "its tests and calls are nested too deeply to be followed to an end";
            return not_analysed(&index.covers, why.to_owned());
        }
        let mut seen = BTreeSet::new();
        let mut findings: Vec<Finding> = Vec::new();
        for alert in report.alerts {
            if !seen.insert((alert.range, alert.rule)) {
                continue;
            }
            let rule = &index.rules[alert.rule];
            let message = match alert.detail {
                Some(detail) => format!("{} ({detail})", rule.file.message),
                None => rule.file.message.clone(),
            };
            findings.push(Finding {
                engine: ENGINE.to_owned(),
                rule: rule.id.clone(),
                cwe: rule.file.cwe.clone(),
                span: positions.span(alert.range),
                message,
                trace: alert
                    .trace
                    .into_iter()
                    .map(|(range, message)| TraceStep { span: positions.span(range), message })
                    .collect(),
            });
        }
        findings.sort_by(|a, b| (a.span, &a.rule).cmp(&(b.span, &b.rule)));
        findings.dedup_by(|a, b| a.span == b.span && a.rule == b.rule);
        Analysis {
            language: Some(language),
            findings,
            covers: index.covers.clone(),
            not_analysed: None,
        }
    }
}

/// Of findings with the same place, drops those whose classes another one names as well. Rules for what callers of a
/// library give stand back: where parameters count anyway, the rule for requests says more.
fn keep_one_voice(findings: &mut Vec<Finding>, index: &Index) {
    let stands_back = |id: &str| {
        let rule = index.rules.iter().find(|rule| rule.id == id);
        rule.is_some_and(|rule| rule.file.parameters || rule.file.library)
    };
    let mut kept: Vec<Finding> = Vec::with_capacity(findings.len());
    for place in findings.chunk_by(|a, b| a.span == b.span) {
        let mut voices: Vec<&Finding> = place.iter().collect();
        if voices.len() > 1 {
            voices.sort_by_key(|finding| (stands_back(&finding.rule), &finding.rule));
        }
        let first = kept.len();
        for finding in voices {
            let said = kept[first..]
                .iter()
                .any(|other| finding.cwe.iter().all(|cwe| other.cwe.contains(cwe)));
            if !said {
                kept.push(finding.clone());
            }
        }
        kept[first..].sort_by(|a, b| a.rule.cmp(&b.rule));
    }
    *findings = kept;
}

impl Judge for Oracle {
    fn name(&self) -> String {
        format!("{ENGINE} {}", env!("CARGO_PKG_VERSION"))
    }

    fn judge(&self, code: &str, language: Language) -> Analysis {
        self.analyse(code, language, self.mode)
    }

    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        pieces.par_iter().map(|piece| self.judge(piece.code, piece.language)).collect()
    }
}
