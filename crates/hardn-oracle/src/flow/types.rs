//! Declared types: what rules know an object by is its class, followed by flags such as `Cookie+secure`.

use hardn_types::Language;

use super::{Flow, call::Call, state::State, value::Value};
use crate::{
    ir::{Expr, ExprKind, Function, Stmt, StmtKind, Type},
    rules::{Body, Hit, ResultModel, glob},
};

/// How far up classes are followed.
const MAX_SUPERS: usize = 6;

/// A path that is the name of a class, perhaps with flags, rather than the way to a value.
pub(super) fn is_class(path: &str) -> bool {
    path.starts_with(|c: char| c.is_uppercase() || c == '-') && !path.contains(['.', '('])
}

/// A path without its flags.
pub(super) fn without_flags(path: &str) -> &str {
    path.split('+').next().unwrap_or(path)
}

/// A path with one more flag; flags stay in alphabetical order.
fn with_flag(path: &str, flag: &str) -> String {
    let mut parts = path.split('+');
    let class = parts.next().unwrap_or("").to_owned();
    let mut flags: Vec<&str> = parts.chain([flag]).collect();
    flags.sort_unstable();
    flags.dedup();
    flags.into_iter().fold(class, |path, flag| format!("{path}+{flag}"))
}

impl<'p> Flow<'p, '_> {
    /// Declared types are read in these languages.
    pub(super) fn is_typed(&self) -> bool {
        self.language == Language::Java
    }

    /// The value as a variable of a declared type holds it: the type says more than the way it came, but less than the
    /// class it was made of.
    pub(super) fn typed(&self, mut value: Value<'p>, ty: &Type<'p>) -> Value<'p> {
        if !ty.name.is_empty() && !value.path.as_deref().is_some_and(is_class) {
            value.path = Some(ty.name.as_ref().into());
        }
        value
    }

    /// The class a variable was known by stays known when it is assigned to.
    pub(super) fn keep_class(
        &mut self,
        target: &'p Expr<'p>,
        value: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        if !self.is_typed()
            || value.path.as_deref().is_some_and(is_class)
            || !matches!(target.kind, ExprKind::Name(_) | ExprKind::Attribute { .. })
        {
            return;
        }
        if let Some(path) = self.eval_value(target, state).path.filter(|path| is_class(path)) {
            value.path = Some(without_flags(&path).into());
        }
    }

    /// What rules say of the class and flags of a call's result, and of the arguments it changes.
    pub(super) fn apply_results(
        &mut self,
        call: &Call<'p>,
        hits: &[&Hit],
        result: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        for hit in hits {
            let Hit::Result(model) = hit else { continue };
            if !model.when.iter().all(|condition| self.holds(condition, call)) {
                continue;
            }
            match &model.into {
                None => Self::change_path(call, model, result),
                Some(into) => {
                    let targets: Vec<(String, Value<'p>)> = call
                        .select(into)
                        .into_iter()
                        .filter_map(|(expr, value)| Some((expr.peeled().place()?, value.clone())))
                        .collect();
                    for (place, mut value) in targets {
                        // Another of these rules may have changed it just now.
                        if let Some(known) = state.get(&place) {
                            value.path.clone_from(&known.path);
                        }
                        Self::change_path(call, model, &mut value);
                        state.set(&place, value);
                    }
                }
            }
        }
    }

    fn change_path(call: &Call<'p>, model: &ResultModel, value: &mut Value<'p>) {
        let receiver = call.receiver.as_ref().and_then(|(_, value)| value.path.clone());
        if let Some(path) = &model.path {
            let flags = receiver.as_deref().filter(|path| is_class(path)).unwrap_or("");
            let flags = flags.find('+').map_or("", |at| &flags[at..]);
            value.path = if path == "receiver" {
                receiver.clone()
            } else {
                Some(format!("{path}{flags}").into())
            };
        }
        if let Some(flag) = &model.flag {
            let path = value.path.as_deref().unwrap_or("");
            value.path = Some(with_flag(path, flag).into());
        }
    }

    /// The path of an object that was just made: its class, and flags for what the class's methods are like.
    pub(super) fn made(&self, expr: &Expr<'p>, class: &str) -> String {
        let mut path = class.to_owned();
        if self.index.methods.is_empty() {
            return path;
        }
        let anonymous = self.program.anonymous.get(&expr.range.start);
        let functions: Vec<&Function<'p>> = match anonymous {
            Some(numbers) => {
                numbers.iter().filter_map(|number| self.program.functions.get(*number)).collect()
            }
            None => self
                .program
                .functions
                .iter()
                .filter(|function| function.class == Some(class))
                .collect(),
        };
        for model in &self.index.methods {
            let fits = |function: &&&Function<'p>| {
                model.name.iter().any(|name| glob(name, function.name))
                    && match model.body {
                        Body::NeverRaises => !raises(&function.body),
                        Body::ReturnsTrue => always_true(&function.body),
                    }
            };
            if functions.iter().any(|function| fits(&function)) && self.extends(class, &model.of) {
                path = with_flag(&path, &model.flag);
            }
        }
        path
    }

    fn extends(&self, class: &str, wanted: &[String]) -> bool {
        let mut known = vec![class];
        let mut at = 0;
        while at < known.len() && known.len() < 64 {
            if wanted.iter().any(|name| name == known[at]) {
                return true;
            }
            if let Some(supers) = self.program.supers.get(known[at]) {
                let more: Vec<&str> =
                    supers.iter().copied().filter(|name| !known.contains(name)).collect();
                known.extend(more);
            }
            at += 1;
        }
        false
    }

    /// The function of this file that a call of a language with classes and overloads goes to.
    pub(super) fn typed_callee(
        &self,
        callee: &Expr<'p>,
        n_args: usize,
        receiver: Option<&str>,
    ) -> Option<usize> {
        let (name, class) = match &callee.kind {
            ExprKind::Name(name) => (*name, None),
            ExprKind::Attribute { base, name, .. } => {
                let class = match &base.kind {
                    ExprKind::Name("self" | "super") => self.frame.class,
                    ExprKind::Name(class) if self.program.classes.contains_key(class) => {
                        Some(*class)
                    }
                    _ => receiver
                        .and_then(|path| {
                            self.program.classes.get_key_value(without_flags(path))
                        })
                        .map(|(class, _)| *class),
                };
                (*name, Some(class?))
            }
            _ => return None,
        };
        let candidates: Vec<usize> = self
            .by_name
            .get(name)?
            .iter()
            .copied()
            .filter(|number| {
                let params = &self.program.functions[*number].params;
                let open = params.last().is_some_and(|last| last.ty.name.ends_with("[]"));
                params.len() == n_args || (open && n_args + 1 >= params.len())
            })
            .collect();
        let of = |class: &str| {
            candidates
                .iter()
                .copied()
                .find(|number| self.program.functions[*number].class == Some(class))
        };
        let Some(class) = class else {
            if let [only] = candidates.as_slice() {
                return Some(*only);
            }
            return of(name).or_else(|| self.frame.class.and_then(of)).or_else(|| {
                // A function of a class around, where all that could be meant are of one class.
                let classes: Vec<_> = candidates
                    .iter()
                    .map(|number| self.program.functions[*number].class)
                    .collect();
                classes.windows(2).all(|pair| pair[0] == pair[1]).then(|| candidates.first())?.copied()
            });
        };
        let mut class = class;
        for _ in 0..MAX_SUPERS {
            if let Some(number) = of(class) {
                return Some(number);
            }
            class = self.program.supers.get(class)?.first()?;
        }
        None
    }
}

/// Whether a body throws anything, or asks a function that may: `check*`, `verify*`, `validate*`.
fn raises(body: &[Stmt<'_>]) -> bool {
    body.iter().any(|stmt| {
        matches!(stmt.kind, StmtKind::Raise(_))
            || stmt.exprs().into_iter().any(asks)
            || stmt.blocks().into_iter().any(raises)
    })
}

fn asks(expr: &Expr<'_>) -> bool {
    let here = match &expr.kind {
        ExprKind::Call { callee, .. } => match &callee.kind {
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
                let name = name.to_lowercase();
                ["check", "verify", "valid"].iter().any(|part| name.contains(part))
            }
            _ => false,
        },
        _ => false,
    };
    here || expr.children().into_iter().any(asks)
}

/// Whether a body has results and each of them is the constant `true`.
pub(super) fn always_true(body: &[Stmt<'_>]) -> bool {
    let mut results = Vec::new();
    collect_results(body, &mut results);
    !results.is_empty() && results.into_iter().all(|result| result)
}

fn collect_results(body: &[Stmt<'_>], out: &mut Vec<bool>) {
    for stmt in body {
        if let StmtKind::Return(value) = &stmt.kind {
            let truth = value.as_ref().map(|value| &value.peeled().kind);
            out.push(matches!(truth, Some(ExprKind::Bool(true))));
        }
        for block in stmt.blocks() {
            collect_results(block, out);
        }
    }
}
