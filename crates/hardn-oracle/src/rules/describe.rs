//! A rule in words.

use serde::Serialize;

use super::{
    load::{Rule, RuleInfo},
    schema::Argument,
};
use crate::Mode;

/// Everything `hardn rules show` says of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleDetails {
    /// Id, classes, message, help.
    #[serde(flatten)]
    pub info: RuleInfo,
    /// Where data enters for this rule, beside what all rules of the language share.
    pub sources: Vec<String>,
    /// What it flags: sinks and patterns.
    pub flags: Vec<String>,
    /// What takes the harm.
    pub cleans: Vec<String>,
    /// Code that it must and must not flag.
    pub code: Vec<Sample>,
}

/// A sample of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// It must be flagged.
    pub invalid: bool,
    /// In which mode.
    pub mode: Mode,
    /// The code.
    pub code: String,
}

impl Rule {
    /// The rule in words.
    pub fn details(&self) -> RuleDetails {
        let file = &self.file;
        let mut sources = Vec::new();
        for source in &file.sources {
            let place =
                source.fills.as_ref().map_or(String::new(), |at| format!(", {}", argument(at)));
            sources.extend(line(&source.call, "the result of", &place));
            sources.extend(line(&source.value, "", ""));
            sources.extend(line(&source.decorated, "parameters of functions with", ""));
            let of = format!(" of {}", source.of.join(", "));
            sources.extend(line(&source.methods, "parameters of methods", &of));
        }
        let mut flags = Vec::new();
        for sink in &file.sinks {
            let at: Vec<String> = sink.argument.iter().map(argument).collect();
            let at = if at.is_empty() { String::new() } else { format!(": {}", at.join(", ")) };
            flags.extend(line(&sink.call, "", &at));
            flags.extend(line(&sink.assigned, "assigned to", ""));
            if sink.returned {
                flags.push("returned".to_owned());
            }
            if let Some(operation) = sink.operation {
                flags.push(format!("operands of {operation:?}"));
            }
        }
        for model in &file.calls {
            flags.extend(line(
                &model.call,
                "calls of",
                if model.when.is_empty() { "" } else { ", under conditions" },
            ));
        }
        for model in &file.literals {
            flags.push(format!("texts that go to {}", model.name));
        }
        for model in &file.attributes {
            flags.extend(line(&model.attribute, "settings of", ""));
        }
        for model in &file.contains {
            flags.push(format!("tests for a part like {}", model.text));
        }
        for model in &file.compared {
            flags.push(format!("functions that compare with {}, and not with another", model.has));
        }
        if let Some(check) = file.check {
            flags.push(format!("the built-in check {check:?}"));
        }
        let mut cleans = Vec::new();
        for sanitizer in &file.sanitizers {
            cleans.extend(line(&sanitizer.call, "the result of", ""));
            cleans.extend(line(&sanitizer.value, "", ""));
        }
        for guard in &file.guards {
            cleans.extend(line(&guard.call, "a check with", ""));
        }
        let groups = [
            (true, Mode::Snippet, &file.invalid),
            (false, Mode::Snippet, &file.valid),
            (true, Mode::Faithful, &file.faithful.invalid),
            (false, Mode::Faithful, &file.faithful.valid),
        ];
        let code = groups
            .into_iter()
            .flat_map(|(invalid, mode, samples)| {
                samples.iter().map(move |code| Sample { invalid, mode, code: code.clone() })
            })
            .collect();
        RuleDetails { info: self.info(), sources, flags, cleans, code }
    }
}

fn line(names: &[String], before: &str, after: &str) -> Option<String> {
    let space = if before.is_empty() { "" } else { " " };
    (!names.is_empty()).then(|| format!("{before}{space}{}{after}", names.join(", ")))
}

fn argument(argument: &Argument) -> String {
    let mut names = Vec::new();
    if argument.receiver {
        names.push("the receiver".to_owned());
    }
    match argument.from {
        Some(0) => names.push("every argument".to_owned()),
        Some(from) => names.push(format!("arguments from {from} on")),
        None => {}
    }
    names.extend(argument.index.map(|index| format!("argument {index}")));
    names.extend(argument.names.iter().map(|name| format!("`{name}`")));
    names.join(" or ")
}
