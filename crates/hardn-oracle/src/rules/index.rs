//! All models of a language under the last component of what they match, so that a call asks only for its own.

use std::{collections::HashMap, sync::Arc};

use hardn_types::{Cwe, Language};

use super::{
    load::Rule,
    path::{PathMap, PathPattern, glob},
    pattern::Pattern,
    schema::{
        AttributeModel, CallModel, ComparedModel, ContainsModel, Guard, Handler, Kind,
        LiteralModel, MemoryCheck, MethodModel, Propagator, ResultModel, Sanitizer, Setting, Sink,
        Source,
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
    Result(ResultModel),
    Sink {
        rule: usize,
        sink: Box<Sink>,
        except: PathMap<()>,
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
        gives: u32,
    },
    Handler(Handler),
    Propagator {
        propagator: Propagator,
        mark: u32,
        clean: u128,
        except: PathMap<()>,
    },
    Call {
        rule: usize,
        model: CallModel,
    },
}

/// A name or attribute that is a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueSource {
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
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) rules: Vec<Arc<Rule>>,
    /// The classes covered, in ascending order.
    pub(crate) covers: Vec<Cwe>,
    pub(crate) literals: Vec<(usize, LiteralModel)>,
    pub(crate) attributes: Vec<(usize, Vec<PathPattern>, AttributeModel)>,
    /// Sinks for returned values.
    pub(crate) returned: Vec<(usize, Sink)>,
    /// Sinks for values that are assigned to a name or attribute.
    pub(crate) assigned: Vec<(usize, Vec<PathPattern>, u32, Sink)>,
    /// Sinks that are operators.
    pub(crate) operations: Vec<(usize, Sink)>,
    /// Texts whose absence makes a value clean of these rules.
    pub(crate) contains: Vec<(u128, Vec<String>)>,
    /// Tests for parts of a text.
    pub(crate) tests: Vec<(usize, ContainsModel)>,
    /// Memory checks and the rules that stand for them.
    pub(crate) checks: Vec<(MemoryCheck, usize)>,
    /// Assignments that taint or clean their object.
    pub(crate) settings: Vec<SettingModel>,
    /// Rules that mind a number without a bound.
    pub(crate) bounded: u128,
    /// Rules that mind which element was picked.
    pub(crate) chooses: u128,
    /// Per rule, the mark that is enough behind known text, and those that are enough together.
    pub(crate) harmless_marks: HashMap<usize, (u32, u32)>,
    /// The mark of such an element.
    pub(crate) picked: u32,
    /// Names that say what is kept under them, and the rules that do not mind.
    pub(crate) named: Vec<(Pattern, Vec<String>, u128)>,
    /// Sinks for objects that are written to, and the mark they ask for.
    pub(crate) written: Vec<(usize, u32, Sink)>,
    pub(crate) compared: Vec<(usize, ComparedModel)>,
    /// Calls whose result tells nothing of what they are given.
    pub(crate) conceals: Vec<Pattern>,
    clean_values: PathMap<u128>,
    typed_values: PathMap<String>,
    /// With the functions they are sources in.
    values: PathMap<(Option<Pattern>, ValueSource)>,
    /// What makes objects of a class carry a flag.
    pub(crate) methods: Vec<(usize, MethodModel)>,
    /// The rules for which numbers carry taint.
    pub(crate) numbers: u128,
    /// Sources that are parameters of overriding methods.
    pub(crate) overridden: Vec<Source>,
    decorators: PathMap<Vec<String>>,
    hits: Vec<Hit>,
    /// Positions in `hits`.
    by_path: PathMap<usize>,
    /// Calls whose outcome says something of their arguments.
    tests_by_path: PathMap<()>,
}

impl Index {
    /// Compiles the rules that apply to a language.
    ///
    /// # Errors
    /// Too many flow rules.
    pub(crate) fn new(rules: &[Arc<Rule>], language: Language) -> Result<Self> {
        let rules: Vec<Arc<Rule>> =
            rules.iter().filter(|rule| rule.applies_to(language)).cloned().collect();
        let mut index = Self::default();
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
        self.conceals.extend(file.conceals.clone());
        if file.numbers {
            self.numbers |= bits;
        }
        if let Some((first, rest)) = file.harmless_marks.split_first() {
            let first = mark_bit(first, marks);
            let all = rest.iter().fold(first, |all, name| all | mark_bit(name, marks));
            self.harmless_marks.insert(number, (first, all));
        }
        for source in &file.sources {
            if source.chooses {
                self.chooses |= bits;
                if let Some(name) = &source.mark {
                    self.picked |= mark_bit(name, marks);
                }
            }
            let clean = match source {
                Source { harmless: true, .. } => u128::MAX,
                Source { only: true, .. } => !bits,
                _ => 0,
            };
            if let Some(pattern) = &source.named {
                self.named.push((pattern.clone(), source.except.clone(), clean));
            }
            let value = ValueSource { local: source.local, clean };
            for text in &source.value {
                self.values.insert(text, (source.within.clone(), value));
            }
            self.add_settings(&source.set, bits, true);
            for text in &source.decorated {
                self.decorators.insert(text, source.except.clone());
            }
            if !source.methods.is_empty() {
                self.overridden.push(source.clone());
            }
            let mark = source.mark.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(&source.call, Hit::Source { source: source.clone(), clean, mark });
        }
        for sink in &file.sinks {
            if sink.returned {
                self.returned.push((number, sink.clone()));
            }
            if sink.operation.is_some() {
                self.operations.push((number, sink.clone()));
            }
            let except = PathMap::of(&sink.except);
            let mark = sink.requires.as_ref().map_or(0, |name| mark_bit(name, marks));
            if !sink.assigned.is_empty() {
                let patterns = sink.assigned.iter().map(|text| PathPattern::new(text)).collect();
                self.assigned.push((number, patterns, mark, sink.clone()));
            }
            if sink.written {
                self.written.push((number, mark, sink.clone()));
            }
            self.add_hit(
                &sink.call,
                Hit::Sink { rule: number, sink: Box::new(sink.clone()), except, mark },
            );
        }
        for handler in &file.handlers {
            self.add_hit(&handler.call, Hit::Handler(handler.clone()));
        }
        for result in &file.results {
            if let Some(path) = &result.path {
                for text in &result.value {
                    self.typed_values.insert(text, path.clone());
                }
            }
            self.add_hit(&result.call, Hit::Result(result.clone()));
        }
        self.methods.extend(file.methods.iter().map(|model| (number, model.clone())));
        for sanitizer in &file.sanitizers {
            for text in &sanitizer.value {
                self.clean_values.insert(text, bits);
            }
            self.add_hit(&sanitizer.call, Hit::Sanitizer { bits, sanitizer: sanitizer.clone() });
        }
        for guard in &file.guards {
            if guard.bounded {
                self.bounded |= bits;
            }
            if !guard.contains.is_empty() {
                self.contains.push((bits, guard.contains.clone()));
            }
            self.add_settings(&guard.set, bits, false);
            for text in &guard.call {
                self.tests_by_path.insert(text, ());
            }
            let mark = guard.requires.as_ref().map_or(0, |name| mark_bit(name, marks));
            let gives = guard.gives.as_ref().map_or(0, |name| mark_bit(name, marks));
            self.add_hit(&guard.call, Hit::Guard { bits, guard: guard.clone(), mark, gives });
        }
        for propagator in &file.propagators {
            let mark = propagator.mark.as_ref().map_or(0, |name| mark_bit(name, marks));
            let clean = if propagator.only { !bits } else { 0 };
            let except = PathMap::of(&propagator.except);
            self.add_hit(
                &propagator.call,
                Hit::Propagator { propagator: propagator.clone(), mark, clean, except },
            );
        }
        for model in &file.calls {
            self.add_hit(&model.call, Hit::Call { rule: number, model: model.clone() });
        }
        self.literals.extend(file.literals.iter().map(|model| (number, model.clone())));
        self.tests.extend(file.contains.iter().map(|model| (number, model.clone())));
        self.compared.extend(file.compared.iter().map(|model| (number, model.clone())));
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
            self.by_path.insert(text, at);
        }
    }

    /// Everything that is known of a call with one of these paths, in the order of the rules.
    pub(crate) fn hits<T: AsRef<str>>(&self, paths: &[T]) -> Vec<&Hit> {
        let mut found: Vec<usize> =
            paths.iter().flat_map(|path| self.by_path.matching(path.as_ref())).copied().collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| &self.hits[at]).collect()
    }

    /// Whether the outcome of calling something of this name can say anything of its arguments.
    pub(crate) fn is_guard(&self, name: &str) -> bool {
        self.tests_by_path.knows(name)
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

    /// Whether a decorator makes its function's parameters of this type remote.
    pub(crate) fn is_entry_point(&self, path: &str, ty: &str) -> bool {
        let mut known = self.decorators.matching(path);
        known.any(|except| !except.iter().any(|known| glob(known, ty)))
    }

    /// Whether a name or attribute is a source in a function of this name; with several, the harm of all.
    pub(crate) fn value_source(&self, path: &str, function: &str) -> Option<ValueSource> {
        let fits = |within: &Option<Pattern>| {
            within.as_ref().is_none_or(|within| within.is_match(function))
        };
        let sources = self.values.matching(path).filter(|(within, _)| fits(within));
        sources
            .map(|(_, source)| *source)
            .reduce(|first, other| ValueSource { clean: first.clean & other.clean, ..first })
    }

    /// The rules that do not mind what is kept under a name; `None` where no rule minds it.
    pub(crate) fn named(&self, name: &str) -> Option<u128> {
        let fits = self.named.iter().filter(|(pattern, except, _)| {
            pattern.is_match(name) && !except.iter().any(|known| glob(known, name))
        });
        fits.map(|(_, _, clean)| *clean).reduce(|a, b| a & b)
    }

    /// The type of an attribute of this path.
    pub(crate) fn type_of_value(&self, path: &str) -> Option<&str> {
        self.typed_values.matching(path).next().map(String::as_str)
    }

    /// The rules an attribute of this path is clean of.
    pub(crate) fn clean_of_value(&self, path: &str) -> u128 {
        self.clean_values.matching(path).fold(0, |bits, more| bits | more)
    }
}

fn mark_bit(name: &str, marks: &mut Vec<String>) -> u32 {
    let at = marks.iter().position(|known| known == name).unwrap_or_else(|| {
        marks.push(name.to_owned());
        marks.len() - 1
    });
    1 << at.min(31)
}
