//! Which modules an adapter is put on: PEFT's rules for names and patterns.

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{ModelError, Result};

/// The modules an adapter is put on, or left off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Modules whose name is one of these, or ends in a dot and one of these.
    List(Vec<String>),
    /// A regular expression that must match a whole name, or `all-linear`: every linear layer but the output.
    Pattern(String),
    /// What PEFT takes for the model's `model_type`, or `all-linear` where it has nothing for it.
    #[default]
    Default,
}

impl TargetModules {
    /// Every linear layer but the output.
    pub fn all_linear() -> Self {
        Self::Pattern("all-linear".to_owned())
    }

    /// Nothing is named.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::List(names) => names.is_empty(),
            Self::Pattern(pattern) => pattern.is_empty(),
            Self::Default => true,
        }
    }
}

/// One value, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// Any of these.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values as a slice.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// A regular expression of a configuration, which must match whole names.
#[derive(Debug)]
pub(crate) struct Pattern {
    key: &'static str,
    text: String,
    regex: Regex,
}

impl Pattern {
    /// # Errors
    /// A text that is no regular expression here.
    pub(crate) fn new(key: &'static str, text: &str) -> Result<Self> {
        let regex = Regex::new(&format!("^(?:{text})$")).map_err(|error| {
            ModelError::adapter(key, format!("`{text}` is not a supported pattern: {error}"))
        })?;
        Ok(Self { key, text: text.to_owned(), regex })
    }

    /// # Errors
    /// A match that takes too long to find.
    pub(crate) fn matches(&self, name: &str) -> Result<bool> {
        self.regex.is_match(name).map_err(|error| {
            ModelError::adapter(self.key, format!("`{}` on `{name}`: {error}", self.text))
        })
    }

    /// The number in the first group of a match at the start of `name`.
    fn number(&self, name: &str) -> Result<Option<usize>> {
        let captures = self.regex.captures(name).map_err(|error| {
            ModelError::adapter(self.key, format!("`{}` on `{name}`: {error}", self.text))
        })?;
        Ok(captures.and_then(|captures| captures.name("index")?.as_str().parse().ok()))
    }
}

#[derive(Debug)]
enum Matcher {
    Names(Vec<String>),
    Pattern(Pattern),
    AllLinear,
}

impl Matcher {
    fn new(key: &'static str, modules: &TargetModules) -> Result<Self> {
        Ok(match modules {
            TargetModules::List(names) => Self::Names(names.clone()),
            TargetModules::Pattern(text) if text.eq_ignore_ascii_case("all-linear") => {
                Self::AllLinear
            }
            TargetModules::Pattern(text) => Self::Pattern(Pattern::new(key, text)?),
            TargetModules::Default => Self::Names(Vec::new()),
        })
    }

    fn matches(&self, module: &str, is_output: bool) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_or_ends_in(module, name))),
            Self::Pattern(pattern) => pattern.matches(module),
            Self::AllLinear => Ok(!is_output),
        }
    }
}

/// `module` is `name`, or its last components are.
pub(crate) fn is_or_ends_in(module: &str, name: &str) -> bool {
    module == name || module.strip_suffix(name).is_some_and(|head| head.ends_with('.'))
}

/// Layers an adapter is limited to.
#[derive(Debug)]
struct Layers {
    indices: Vec<usize>,
    patterns: Vec<Pattern>,
}

/// The selecting keys of a configuration.
pub(crate) struct Selection<'a> {
    /// Not [`TargetModules::Default`].
    pub(crate) target_modules: &'a TargetModules,
    pub(crate) exclude_modules: Option<&'a TargetModules>,
    pub(crate) layers_to_transform: &'a [usize],
    pub(crate) layers_pattern: &'a [String],
}

/// The selecting keys, ready to be asked.
#[derive(Debug)]
pub(crate) struct ModuleFilter {
    target: Matcher,
    exclude: Option<Matcher>,
    layers: Option<Layers>,
}

impl ModuleFilter {
    /// # Errors
    /// A pattern that is not a regular expression here, or layers beside a pattern of modules.
    pub(crate) fn new(selection: &Selection) -> Result<Self> {
        let target = Matcher::new("target_modules", selection.target_modules)?;
        let exclude = selection.exclude_modules.filter(|modules| !modules.is_empty());
        let exclude =
            exclude.map(|modules| Matcher::new("exclude_modules", modules)).transpose()?;
        let layers = if selection.layers_to_transform.is_empty() {
            if !selection.layers_pattern.is_empty() {
                let message = "needs `layers_to_transform` beside it";
                return Err(ModelError::adapter("layers_pattern", message));
            }
            None
        } else {
            if !matches!(target, Matcher::Names(_)) {
                let message = "does not go with a pattern in `target_modules`; list the names";
                return Err(ModelError::adapter("layers_to_transform", message));
            }
            // The first numbered component counts: a later one is an expert's.
            let pattern = |name: &str| {
                Pattern::new("layers_pattern", &format!(r"(?:.*?\.)?{name}\.(?<index>\d+)\..*"))
            };
            let patterns = match selection.layers_pattern {
                [] => vec![Pattern::new("layers_pattern", r".*?\.[^.]*\.(?<index>\d+)\..*")?],
                names => names.iter().map(|name| pattern(name)).collect::<Result<_>>()?,
            };
            Some(Layers { indices: selection.layers_to_transform.to_vec(), patterns })
        };
        Ok(Self { target, exclude, layers })
    }

    /// `is_output`: the module is the model's output layer.
    pub(crate) fn selects(&self, module: &str, is_output: bool) -> Result<bool> {
        if let Some(exclude) = &self.exclude
            && exclude.matches(module, false)?
        {
            return Ok(false);
        }
        if !self.target.matches(module, is_output)? {
            return Ok(false);
        }
        let Some(Layers { indices, patterns }) = &self.layers else { return Ok(true) };
        // A module that is named in full counts whatever its layer.
        if let Matcher::Names(names) = &self.target
            && names.iter().any(|name| name == module)
        {
            return Ok(true);
        }
        for pattern in patterns {
            if let Some(index) = pattern.number(module)? {
                return Ok(indices.contains(&index));
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MODULES: &[&str] = &[
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.experts.1.up_proj",
        "model.layers.1.self_attn.q_proj",
        "lm_head",
    ];

    #[track_caller]
    fn check(
        target: Value,
        exclude: Value,
        layers: &[usize],
        pattern: &[&str],
        expected: &[usize],
    ) {
        let of = |value: Value| serde_json::from_value::<TargetModules>(value).unwrap();
        let pattern: Vec<String> = pattern.iter().map(|&name| name.to_owned()).collect();
        let filter = ModuleFilter::new(&Selection {
            target_modules: &of(target),
            exclude_modules: Some(&of(exclude)),
            layers_to_transform: layers,
            layers_pattern: &pattern,
        });
        let filter = filter.unwrap();
        let selected: Vec<usize> = (0..MODULES.len())
            .filter(|i| filter.selects(MODULES[*i], MODULES[*i] == "lm_head").unwrap())
            .collect();
        assert_eq!(selected, expected);
    }

    #[test]
    fn modules_are_selected_as_peft_does() {
        let none = Value::Null;
        check(json!(["q_proj"]), none.clone(), &[], &[], &[0, 2]);
        check(json!(["lm_head", "proj"]), none.clone(), &[], &[], &[3]);
        check(json!("ALL-linear"), none.clone(), &[], &[], &[0, 1, 2]);
        check(json!(r".*\.0\..*_proj|lm_head"), none.clone(), &[], &[], &[0, 1, 3]);
        check(json!(r"(?!.*experts).*_proj"), none.clone(), &[], &[], &[0, 2]);
        check(json!("all-linear"), json!(["up_proj", "0.self_attn.q_proj"]), &[], &[], &[2]);
        check(json!("all-linear"), json!(".*self_attn.*"), &[], &[], &[1]);
        check(json!(["q_proj", "up_proj"]), none.clone(), &[0], &[], &[0, 1]);
        check(json!(["q_proj", "up_proj"]), none.clone(), &[1], &["layers"], &[2]);
        check(json!(["q_proj", "up_proj"]), none.clone(), &[1], &["experts"], &[1]);
        check(json!(["q_proj", "lm_head"]), none, &[1], &[], &[2, 3]);
    }
}
