//! All models of a language under the last component of what they match, so that a call asks only for its own.

use std::{collections::HashMap, sync::Arc};

use hardn_types::{Cwe, Language};

use super::{
    load::Rule,
    path::{PathPattern, last},
    schema::{
        AttributeModel, CallModel, ContainsModel, Guard, Handler, Kind, LiteralModel, MemoryCheck,
        Pattern, Propagator, Sanitizer, Setting, Sink, Source,
    },
};
use crate::{OracleError, Result};

/// Flow rules of one language; each has a bit in what a value is clean of.
const MAX_FLOW_RULES: usize = 128;

/// What a call turned out to be.
#[derive(Debug)]
pub(crate) enum Hit {
    /// `clean`: the rules it does not count for.
    Source {
        source: Source,
        clean: u128,
        mark: u32,
    },
    Sink {
        rule: usize,
        sink: Box<Sink>,
        except: Vec<PathPattern>,
        mark: u32,
    },
    Sanitizer {
        bits: u128,
        sanitizer: Sanitizer,
    },
    Guard {
        bits: u128,
        guard: Guard,
        mark: u32,
    },
    Handler(Handler),
    Propagator {
        propagator: Propagator,
        mark: u32,
    },
    Call {
        rule: usize,
        model: CallModel,
    },
}

#[derive(Debug)]
struct Model {
    pattern: PathPattern,
    hit: usize,
}

/// A name or attribute that is a source.
#[derive(Clone, Debug)]
pub(crate) struct ValueSource {
    within: Option<Pattern>,
    pub(crate) local: bool,
    /// The rules that it does not concern.
    pub(crate) clean: u128,
}

/// An assignment to an attribute that changes its object.
#[derive(Debug)]
pub(crate) struct SettingModel {
    pub(crate) pattern: PathPattern,
    pub(crate) setting: Setting,
    pub(crate) bits: u128,
    /// It taints; else it cleans.
    pub(crate) taints: bool,
}

/// The rules of one language, ready to use.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) rules: Vec<Arc<Rule>>,
    /// The classes covered, in ascending order.
    pub(crate) covers: Vec<Cwe>,
    pub(crate) literals: Vec<(usize, LiteralModel)>,
    pub(crate) attributes: Vec<(usize, Vec<PathPattern>, AttributeModel)>,
    /// Sinks for returned values.
    pub(crate) returned: Vec<(usize, Sink)>,
    /// Sinks for values that are assigned to a name or attribute.
    pub(crate) assigned: Vec<(usize, Vec<PathPattern>, Sink)>,
    /// Texts whose absence makes a value clean of these rules.
    pub(crate) contains: Vec<(u128, Vec<String>)>,
    /// Tests for parts of a text.
    pub(crate) tests: Vec<(usize, ContainsModel)>,
    /// Memory checks and the rules that stand for them.
    pub(crate) checks: Vec<(MemoryCheck, usize)>,
    /// Assignments that taint or clean their object.
    pub(crate) settings: Vec<SettingModel>,
    values: Vec<(PathPattern, ValueSource)>,
    decorators: Vec<PathPattern>,
    hits: Vec<Hit>,
    by_name: HashMap<String, Vec<Model>>,
    globs: Vec<Model>,
}

impl Index {
    /// Compiles the rules that apply to a language.
    ///
    /// # Errors
    /// Too many flow rules.
    pub(crate) fn new(rules: &[Arc<Rule>], language: Language) -> Result<Self> {
        let rules: Vec<Arc<Rule>> =
            rules.iter().filter(|rule| rule.applies_to(language)).cloned().collect();
        let mut index = Self {
            rules: Vec::new(),
            covers: Vec::new(),
            literals: Vec::new(),
            attributes: Vec::new(),
            returned: Vec::new(),
            assigned: Vec::new(),
            contains: Vec::new(),
            tests: Vec::new(),
            checks: Vec::new(),
            settings: Vec::new(),
            values: Vec::new(),
            decorators: Vec::new(),
            hits: Vec::new(),
            by_name: HashMap::new(),
            globs: Vec::new(),
        };
        let mut n_flow = 0;
        let mut marks: Vec<String> = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            if rule.file.kind != Kind::Shared {
                index.covers.extend(&rule.file.cwe);
            }
            let bits = match rule.file.kind {
                Kind::Shared => u128::MAX,
                Kind::Flow => {
                    if n_flow == MAX_FLOW_RULES || number >= MAX_FLOW_RULES {
                        return Err(OracleError::Rule {
                            file: rule.id.clone(),
                            message: format!("a language can have at most {MAX_FLOW_RULES} rules"),
                        });
                    }
                    n_flow += 1;
                    1 << number
                }
                _ => 0,
            };
            index.add(number, rule, bits, &mut marks);
        }
        index.covers.sort_unstable();
        index.covers.dedup();
        index.rules = rules;
        Ok(index)
    }

    fn add(&mut self, number: usize, rule: &Rule, bits: u128, marks: &mut Vec<String>) {
        let file = &rule.file;
        for source in &file.sources {
            let clean = if source.only { !bits } else { 0 };
            let value = ValueSource { within: source.within.clone(), local: source.local, clean };
            let models = source.value.iter().map(|text| (PathPattern::new(text), value.clone()));
            self.values.extend(models);
            self.add_settings(&source.set, bits, true);
            self.decorators.extend(source.decorated.iter().map(|text| PathPattern::new(text)));
            let mark = source.mark.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(&source.call, Hit::Source { source: source.clone(), clean, mark });
        }
        for sink in &file.sinks {
            if sink.returned {
                self.returned.push((number, sink.clone()));
            }
            if !sink.assigned.is_empty() {
                let patterns = sink.assigned.iter().map(|text| PathPattern::new(text)).collect();
                self.assigned.push((number, patterns, sink.clone()));
            }
            let except = sink.except.iter().map(|text| PathPattern::new(text)).collect();
            let mark = sink.requires.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(
                &sink.call,
                Hit::Sink { rule: number, sink: Box::new(sink.clone()), except, mark },
            );
        }
        for handler in &file.handlers {
            self.add_hit(&handler.call, Hit::Handler(handler.clone()));
        }
        for sanitizer in &file.sanitizers {
            self.add_hit(&sanitizer.call, Hit::Sanitizer { bits, sanitizer: sanitizer.clone() });
        }
        for guard in &file.guards {
            if !guard.contains.is_empty() {
                self.contains.push((bits, guard.contains.clone()));
            }
            self.add_settings(&guard.set, bits, false);
            let mark = guard.requires.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(&guard.call, Hit::Guard { bits, guard: guard.clone(), mark });
        }
        for propagator in &file.propagators {
            let mark = propagator.mark.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(
                &propagator.call,
                Hit::Propagator { propagator: propagator.clone(), mark },
            );
        }
        for model in &file.calls {
            self.add_hit(&model.call, Hit::Call { rule: number, model: model.clone() });
        }
        self.literals.extend(file.literals.iter().map(|model| (number, model.clone())));
        self.tests.extend(file.contains.iter().map(|model| (number, model.clone())));
        for model in &file.attributes {
            let patterns = model.attribute.iter().map(|text| PathPattern::new(text)).collect();
            self.attributes.push((number, patterns, model.clone()));
        }
        if let Some(check) = file.check {
            self.checks.push((check, number));
        }
    }

    fn add_settings(&mut self, settings: &[Setting], bits: u128, taints: bool) {
        self.settings.extend(settings.iter().map(|setting| SettingModel {
            pattern: PathPattern::new(&setting.attribute),
            setting: setting.clone(),
            bits,
            taints,
        }));
    }

    fn add_hit(&mut self, patterns: &[String], hit: Hit) {
        let at = self.hits.len();
        self.hits.push(hit);
        for text in patterns {
            let pattern = PathPattern::new(text);
            match pattern.key().map(str::to_owned) {
                Some(key) => self.by_name.entry(key).or_default().push(Model { pattern, hit: at }),
                None => self.globs.push(Model { pattern, hit: at }),
            }
        }
    }

    /// Everything that is known of a call with one of these paths, in the order of the rules.
    pub(crate) fn hits(&self, paths: &[&str]) -> Vec<&Hit> {
        let mut found: Vec<usize> = Vec::new();
        for path in paths {
            let named = self.by_name.get(last(path)).map(Vec::as_slice).unwrap_or_default();
            found.extend(
                named
                    .iter()
                    .chain(&self.globs)
                    .filter(|model| model.pattern.matches(path))
                    .map(|model| model.hit),
            );
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| &self.hits[at]).collect()
    }

    /// The rules a call of this path makes its result clean of, whatever its arguments.
    pub(crate) fn cleaned_by(&self, path: &str) -> u128 {
        self.hits(&[path])
            .into_iter()
            .filter_map(|hit| match hit {
                Hit::Sanitizer { bits, sanitizer } if sanitizer.when.is_empty() => Some(*bits),
                _ => None,
            })
            .fold(0, |all, bits| all | bits)
    }

    /// Whether a decorator makes its function's parameters remote.
    pub(crate) fn is_entry_point(&self, path: &str) -> bool {
        self.decorators.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether a name or attribute is a source in a function of this name.
    pub(crate) fn value_source(&self, path: &str, function: &str) -> Option<&ValueSource> {
        let fits = |source: &ValueSource| {
            source.within.as_ref().is_none_or(|within| within.0.is_match(function))
        };
        self.values
            .iter()
            .find(|(pattern, source)| pattern.matches(path) && fits(source))
            .map(|(_, value)| value)
    }
}

fn mark_bit(name: &str, marks: &mut Vec<String>) -> u32 {
    let at = marks.iter().position(|known| known == name).unwrap_or_else(|| {
        marks.push(name.to_owned());
        marks.len() - 1
    });
    1 << at.min(31)
}
