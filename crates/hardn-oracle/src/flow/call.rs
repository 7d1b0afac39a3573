//! Calls: what rules say of them, what functions of the file do, and what is assumed of the rest.

use std::rc::Rc;

use hardn_types::Language;

use super::{Flow, Handled, closure::called_closure, pollution, state::State, types, value::Value};
use crate::{
    ir::{Arg, Expr, ExprKind, Range},
    rules::{Argument, Handler, Hit, Holds, Index},
};

/// A call with its parts evaluated.
pub(super) struct Call<'p> {
    pub(super) range: Range,
    pub(super) receiver: Option<(&'p Expr<'p>, Value<'p>)>,
    pub(super) args: Vec<(Option<&'p str>, &'p Expr<'p>, Value<'p>)>,
    /// The dotted path as written, and the one the receiver came from.
    pub(super) paths: Vec<String>,
    /// What rules say of these paths.
    pub(super) hits: Vec<&'p Hit>,
    /// The last component.
    pub(super) name: &'p str,
    /// Entries of objects among the arguments, by their keys: `{secure: false}`, for languages without keywords; of a
    /// hash in a variable that is given last, for Ruby.
    pub(super) options: Vec<(String, &'p Expr<'p>, Value<'p>)>,
}

impl<'p> Call<'p> {
    /// The parts an argument pattern names.
    pub(super) fn select(&self, argument: &Argument) -> Vec<(&'p Expr<'p>, &Value<'p>)> {
        let mut out = Vec::new();
        if argument.receiver
            && let Some((expr, value)) = &self.receiver
        {
            out.push((*expr, value));
        }
        let mut position = 0;
        for (name, expr, value) in &self.args {
            if argument.covers(position, *name) {
                out.push((*expr, value));
            }
            if name.is_none() {
                position += 1;
            }
        }
        for (key, expr, value) in &self.options {
            if argument.names.iter().any(|known| known == key) {
                out.push((*expr, value));
            }
        }
        out
    }
}

impl<'p> Flow<'p, '_> {
    /// Evaluates receiver and arguments and finds out what is called.
    pub(super) fn prepare(
        &mut self,
        expr: &'p Expr<'p>,
        callee: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        state: &mut State<'p>,
    ) -> Call<'p> {
        let mut paths = Vec::new();
        let mut receiver = None;
        let mut name = "";
        match &callee.kind {
            ExprKind::Name(callee_name) => {
                name = callee_name;
                // In Python a name outside functions may stand for a function: `get = requests.get`.
                let outside = (self.language == Language::Python && self.frame.number != 0)
                    .then(|| self.module.get(callee_name))
                    .flatten();
                let known = state.get(callee_name).or(outside).and_then(|value| value.path.clone());
                match self.program.imports.get(callee_name) {
                    Some(path) => paths.push(path.clone()),
                    None => paths.push((*callee_name).to_owned()),
                }
                if let Some(path) = known.filter(|path| **path != **callee_name) {
                    paths.push(path.to_string());
                }
            }
            ExprKind::Attribute { base, name: method, .. } => {
                name = method;
                let value = self.eval_value(base, state);
                paths.extend(callee.dotted(&self.program.imports));
                if let Some(path) = &value.path {
                    let resolved = match self.language {
                        Language::Go => self.member_path(path, method),
                        _ => format!("{path}.{method}"),
                    };
                    if !paths.contains(&resolved) {
                        paths.push(resolved);
                    }
                }
                receiver = Some((&**base, value));
            }
            _ => {
                self.eval_value(callee, state);
                paths.extend(callee.dotted(&self.program.imports));
            }
        }
        let index: &'p Index = self.index;
        let hits = index.hits(&paths);
        let handlers: Vec<&'p Handler> = hits
            .iter()
            .filter_map(|hit| if let Hit::Handler(handler) = hit { Some(handler) } else { None })
            .filter(|handler| {
                handler.text.as_ref().is_none_or(|pattern| {
                    matches!(args.first().map(|arg| &arg.value.kind),
                        Some(ExprKind::Str(text)) if pattern.is_match(text))
                })
            })
            .collect();
        // `_.each(list, function (item) { .. })`, and what a promise is resolved with.
        let calls = hits
            .iter()
            .any(|hit| matches!(hit, Hit::Propagator { propagator, .. } if propagator.calls));
        let makes_promise = matches!(expr.kind, ExprKind::Construct { .. })
            && self.has_objects()
            && name == "Promise";
        let receiver_path: Option<Rc<str>> =
            receiver.as_ref().and_then(|(_, value)| value.path.clone());
        let receiver_path = receiver_path.as_deref();
        // In JavaScript the arguments beside a callback are mostly not what it is called with.
        let by_receiver = self.has_objects();
        let mut inputs = Value::default();
        if let Some((_, value)) = &receiver {
            inputs.absorb(value);
        }
        let mut position = 0;
        let given_args = args;
        let args: Vec<_> = args
            .iter()
            .map(|arg| {
                let handler = handlers
                    .iter()
                    .find(|handler| handler.argument.covers(position, arg.name))
                    .copied();
                if arg.name.is_none() {
                    position += 1;
                }
                if let Some(handler) = handler
                    && let Some(number) = self.named_function(&arg.value)
                {
                    let n_params = self.program.functions[number].params.len();
                    let given = self.given_paths(handler, n_params, receiver_path);
                    self.handled.insert(number, Handled { given, answers: handler.answers });
                }
                // A function is meant, too, by the variable that holds it.
                let function = match &arg.value.peeled().kind {
                    ExprKind::Name(held)
                        if by_receiver && (handler.is_some() || inputs.is_tainted()) =>
                    {
                        state.get(held).and_then(|value| value.function)
                    }
                    _ => Some(arg.value.peeled()),
                };
                if let Some(ExprKind::Closure { params, body }) = function.map(|expr| &expr.kind) {
                    let value = match handler {
                        Some(handler) => {
                            let given =
                                self.given_to(handler, params.len(), &arg.value, receiver_path);
                            let answers = handler.answers.then_some(self.closures + 1);
                            let outer = std::mem::replace(&mut self.answering, answers);
                            let value = self.closure(params, body, &given, state);
                            self.answering = outer;
                            value
                        }
                        None if makes_promise => {
                            let ends = ["promise.Resolve", "promise.Reject"];
                            let given: Vec<Value<'p>> =
                                ends.iter().map(|path| Value::of_path(path)).collect();
                            let outer = std::mem::take(&mut self.resolved);
                            let mut value = self.closure(params, body, &given, state);
                            value.absorb(&std::mem::replace(&mut self.resolved, outer));
                            value
                        }
                        None if calls && inputs.is_tainted() => {
                            let given = vec![inputs.derived(); params.len()];
                            self.closure(params, body, &given, state)
                        }
                        None if by_receiver
                            && receiver.as_ref().is_some_and(|(_, value)| value.is_tainted()) =>
                        {
                            let given = vec![receiver_value(receiver.as_ref()); params.len()];
                            self.closure(params, body, &given, state)
                        }
                        // Elements, results and the like of what it is called on.
                        None if inputs.is_tainted() && !by_receiver => {
                            let given = vec![inputs.derived(); params.len()];
                            self.closure(params, body, &given, state)
                        }
                        None => self.closure(params, body, &[], state),
                    };
                    return (arg.name, &arg.value, value);
                }
                let object = matches!(arg.value.kind, ExprKind::Dict(_));
                let outer = std::mem::take(&mut self.object_handlers);
                if object {
                    self.object_handlers.clone_from(&handlers);
                }
                let value = match arg.name {
                    Some(name) => {
                        let value = self.eval_value(&arg.value, state);
                        self.check_literal(name, &arg.value);
                        value
                    }
                    None => self.eval_value(&arg.value, state),
                };
                self.object_handlers = outer;
                let value =
                    if by_receiver { Self::with_parts(&arg.value, value, state) } else { value };
                inputs.absorb(&value);
                (arg.name, &arg.value, value)
            })
            .collect();
        let options = match self.language {
            Language::Ruby => Self::hash_entries(&args, state),
            _ if self.has_objects() => {
                given_args.iter().flat_map(|arg| self.options(arg, state)).collect()
            }
            _ => Vec::new(),
        };
        Call { range: expr.range, receiver, args, paths, hits, name, options }
    }

    /// Ruby: the entries of a hash in a variable that is the last argument.
    fn hash_entries(
        args: &[(Option<&'p str>, &'p Expr<'p>, Value<'p>)],
        state: &State<'p>,
    ) -> Vec<(String, &'p Expr<'p>, Value<'p>)> {
        let last = args.iter().rfind(|(name, ..)| name.is_none());
        let Some((_, expr @ Expr { kind: ExprKind::Name(name), .. }, _)) = last else {
            return Vec::new();
        };
        let entries = state.iter().filter_map(|(place, value)| {
            let key = place.strip_prefix(*name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((key.to_owned(), *expr, value.clone()))
        });
        entries.collect()
    }

    /// Whether a text like this stands in the function at hand, or is imported.
    fn stands_here(&self, pattern: &crate::rules::Pattern) -> bool {
        self.program.imports.values().any(|path| pattern.is_match(path))
            || self.program.functions.get(self.frame.number).is_some_and(|function| {
                pollution::texts(&function.body, &|text| pattern.is_match(text))
            })
    }

    pub(super) fn call(
        &mut self,
        expr: &'p Expr<'p>,
        callee: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        state: &mut State<'p>,
    ) -> Value<'p> {
        if self.language == Language::Go
            && let ExprKind::Closure { params, body } = &callee.peeled().kind
        {
            // A function that is called where it stands.
            let inputs: Vec<Value<'p>> =
                args.iter().map(|arg| self.eval_value(&arg.value, state)).collect();
            return self.closure(params, body, &inputs, state);
        }
        if self.has_objects()
            && let ExprKind::Closure { params, body } = &callee.peeled().kind
        {
            // What is not tainted is better known by its name.
            let inputs: Vec<Value<'p>> = args
                .iter()
                .map(|arg| self.eval_value(&arg.value, state))
                .zip(params)
                .map(|(value, param)| {
                    let known = value.is_tainted() || value.function.is_some();
                    if known { value } else { Value::of_path(param.path()) }
                })
                .collect();
            return self.closure(params, body, &inputs, state);
        }
        let call = self.prepare(expr, callee, args, state);
        if self.has_objects()
            && call.paths.iter().any(|path| path == "promise.Resolve")
            && let Some((_, _, value)) = call.args.first()
        {
            self.resolved.absorb(value);
        }
        if self.has_objects() {
            self.bound(&call, state);
        }
        let receiver = call.receiver.as_ref().and_then(|(_, value)| value.path.clone());
        let own = self
            .callee(callee, args.len(), receiver.as_deref())
            .filter(|(number, _)| self.fits_receiver(*number, &call));
        if let Some((number, _)) = own {
            self.note_constants(number, &call);
        }
        let summary =
            own.and_then(|(number, method)| self.summary(number).map(|summary| (summary, method)));

        let local = match &callee.kind {
            ExprKind::Name(name) => state.get(name).and_then(|value| value.function),
            _ => Some(callee.peeled()),
        };
        // A struct holds what its fields hold.
        let literal = self.language == Language::Go
            && own.is_none()
            && matches!(expr.kind, ExprKind::Construct { .. });
        let mut result = match &summary {
            _ if let Some(ExprKind::Closure { params, body }) = local.map(|expr| &expr.kind)
                && self.has_objects() =>
            {
                let given: Vec<Value<'p>> =
                    call.args.iter().map(|(_, _, value)| value.clone()).collect();
                self.closure(params, body, &given, state)
            }
            None if let Some(ExprKind::Closure { params, body }) = called_closure(&call)
                && self.language == Language::Ruby =>
            {
                let given: Vec<Value<'p>> =
                    call.args.iter().map(|(_, _, value)| value.clone()).collect();
                self.closure(params, body, &given, state)
            }
            None if literal => Self::all_parts(&call),
            Some((summary, method)) => self.apply_summary(&call, summary, *method),
            None if own.is_some() => Self::all_parts(&call),
            None => self.assumed_result(&call),
        };
        for hit in &call.hits {
            self.propagate(&call, hit, own.is_some(), &mut result, state);
        }
        // A class method of the file is not the one of the same name that rules know.
        let redefined =
            self.language == Language::Ruby && own.is_some() && constant(&call).is_some();
        for hit in &call.hits {
            match hit {
                Hit::Sink { .. } if redefined => {}
                Hit::Source { source, clean, mark }
                    if source.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    self.apply_source(&call, source, (*clean, *mark), &mut result, state);
                }
                Hit::Sanitizer { bits, sanitizer }
                    if sanitizer.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    if sanitizer.numbers {
                        result = self.as_number(result);
                    } else {
                        result.clean(*bits);
                    }
                }
                Hit::Guard { bits, guard, mark, gives }
                    if guard.holds == Some(Holds::Always)
                        && guard.mode.is_none_or(|mode| mode == self.mode)
                        && guard.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    self.clean_subjects(&call, guard, *bits, (*mark, *gives), state);
                }
                Hit::Sink { rule, sink, except, mark }
                    if !call.paths.iter().any(|path| except.is_match(path)) =>
                {
                    self.check_call(&call, *rule, sink, *mark);
                }
                Hit::Call { rule, model } => {
                    let context =
                        model.context.as_ref().is_none_or(|context| self.in_context(context));
                    let context = context
                        && self.decorators_fit(model)
                        && model.mode.is_none_or(|mode| mode == self.mode);
                    let excused = model.unless.as_ref().is_some_and(|text| self.stands_here(text));
                    if context
                        && !excused
                        && self.allowed_here(model.outside.as_ref(), &model.unless_calls)
                        && !self.is_tested(model.unless_test.as_ref(), call.range)
                        && model.when.iter().all(|condition| self.holds(condition, &call))
                    {
                        self.alert_here(*rule, call.range);
                    }
                }
                _ => {}
            }
        }
        if let Some((summary, method)) = &summary {
            self.enter_sinks(&call, summary, *method);
            Self::after_checks(&call, summary, *method, state);
            self.enter_applied(&call, summary, state);
        } else if self.is_typed() {
            self.note_applied(&call);
        }
        if self.is_typed() {
            match (&expr.kind, own) {
                (ExprKind::Construct { .. }, _) => {
                    let class = callee.dotted(&self.program.imports).unwrap_or_default();
                    result.path = Some(self.made(expr, &class).into());
                }
                (_, Some((number, _))) => {
                    let made = summary.as_ref().and_then(|(summary, _)| {
                        summary.returned.as_ref().and_then(|value| value.path.clone())
                    });
                    result.path = made.filter(|path| types::is_class(path));
                    let returns = &self.program.functions[number].returns;
                    result = Self::typed(result, returns);
                }
                _ => {}
            }
        }
        self.apply_results(&call, &mut result, state);
        // What the receiver is says more than what it is called here.
        let by_receiver = self.has_objects() || self.language == Language::Go;
        let known = if by_receiver { call.paths.last() } else { call.paths.first() };
        if result.path.is_none()
            && self.language == Language::Go
            && let Some((number, _)) = own
        {
            let returns = &self.program.functions[number].returns.name;
            result.path = Some(returns.as_ref().into()).filter(|_| !returns.is_empty());
        }
        if result.path.is_none()
            && let Some(path) = known
        {
            result.path = Some(format!("{path}()").into());
        }
        result
    }

    /// Methods of the file are only called on values of their type, as far as types are known.
    fn fits_receiver(&self, number: usize, call: &Call<'p>) -> bool {
        let Some(class) = self.program.functions[number].class else { return true };
        if self.language == Language::Ruby {
            return match constant(call) {
                Some(name) => last_part(class) == name || self.extends(name, &[class.to_owned()]),
                None => true,
            };
        }
        if self.language != Language::Go {
            return true;
        }
        let path = call.receiver.as_ref().and_then(|(_, value)| value.path.as_deref());
        match path {
            Some("self") => self.frame.class == Some(class),
            Some(path) if self.program.structs.contains_key(path) => path == class,
            _ => call.hits.is_empty(),
        }
    }

    pub(super) fn all_parts(call: &Call<'p>) -> Value<'p> {
        let mut value = Value::default();
        for (_, _, part) in &call.args {
            value.absorb(part);
        }
        value
    }
}

/// Ruby: the class a method is called on, by the last part of its name.
fn constant<'p>(call: &Call<'p>) -> Option<&'p str> {
    let (receiver, _) = call.receiver.as_ref()?;
    match &receiver.kind {
        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
            Some(*name).filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        }
        _ => None,
    }
}

/// The last part of `A::B`.
fn last_part(class: &str) -> &str {
    class.rsplit("::").next().unwrap_or(class)
}

fn receiver_value<'p>(receiver: Option<&(&'p Expr<'p>, Value<'p>)>) -> Value<'p> {
    receiver.map(|(_, value)| value.derived()).unwrap_or_default()
}
