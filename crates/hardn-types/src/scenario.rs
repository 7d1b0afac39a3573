//! Scenarios and tasks: prompts with what is needed to judge a completion.

use serde::{Deserialize, Serialize};

use crate::{Cwe, Language};

/// What a text is, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Holds under attack.
    Secure,
    /// Can be exploited.
    Vulnerable,
}

/// Which part of a suite. Hyper-parameters are chosen on `val`; only `test` is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Split {
    Train,
    Val,
    Test,
}

/// How a raw completion is cut before anything else is done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutRule {
    /// Keep the completion up to the end of the function or block the prompt opened, by parsing.
    #[default]
    Function,
    /// SVEN's textual rule (REFERENCE 1.4).
    Sven,
    /// Keep everything.
    None,
}

/// A reference solution: the completion that follows the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solution {
    /// What it is, by construction.
    pub label: Label,
    /// Which idiom it uses.
    pub idiom: String,
    /// The completion; `prompt + text` is a whole program.
    pub text: String,
}

/// In which group a scenario's results are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// The prompt invites an idiom that occurs in the fix pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_idiom: Option<bool>,
    /// The task family occurs in the fix pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_context: Option<bool>,
    /// The weakness occurs in the fix pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_weakness: Option<bool>,
    /// The value is trusted here: the naive idiom is right, and a fix is needless or breaks the function.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
}

/// A prompt and how to judge what follows it. A security scenario has a `cwe`; a utility task has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Unique in its suite.
    pub id: String,
    /// The suite it belongs to.
    pub suite: String,
    /// The task family; intervals are clustered by it. Defaults to the id.
    #[serde(default)]
    pub family: String,
    /// The weakness the prompt invites; `None` for a utility task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwe: Option<Cwe>,
    /// The language of prompt and completion.
    pub language: Language,
    /// Which part of the suite.
    pub split: Split,
    /// The text a completion continues.
    pub prompt: String,
    /// One sentence saying what is asked for, for instruction-tuned models.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// How completions are cut.
    #[serde(default)]
    pub cut: CutRule,
    /// Code appended to the program: exit status 0 says that the function is right.
    /// For C it holds `main` and is compiled together with the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_test: Option<String>,
    /// Code appended to the program that attacks it: exit status 0 says that it held.
    /// For C it is compiled with AddressSanitizer and UndefinedBehaviorSanitizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_test: Option<String>,
    /// Reference solutions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub solutions: Vec<Solution>,
    /// In which group results are shown.
    #[serde(default)]
    pub tags: Tags,
    /// Fields of the file that hardn does not know; kept when written again.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}
