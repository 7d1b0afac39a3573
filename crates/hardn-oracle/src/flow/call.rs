//! Calls: what rules say of them, what functions of the file do, and what is assumed of the rest.

use std::rc::Rc;

use hardn_types::Language;

use super::{
    Flow,
    sink::Demand,
    state::State,
    summary::Summary,
    text,
    value::{Atom, Constant, HOLE_TEXT, Origin, Trace, Value, concat},
};
use crate::{
    ir::{Arg, Expr, ExprKind, Range},
    rules::{Argument, Condition, Handler, Hit, Holds, Index},
};

/// A call with its parts evaluated.
pub(super) struct Call<'p> {
    pub(super) range: Range,
    pub(super) receiver: Option<(&'p Expr<'p>, Value<'p>)>,
    pub(super) args: Vec<(Option<&'p str>, &'p Expr<'p>, Value<'p>)>,
    /// The dotted path as written, and the one the receiver came from.
    pub(super) paths: Vec<String>,
    /// The last component.
    pub(super) name: &'p str,
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
                let shadowed = state.get(callee_name).is_some_and(|value| value.path.is_some());
                match self.program.imports.get(callee_name) {
                    Some(path) => paths.push(path.clone()),
                    None => paths.push((*callee_name).to_owned()),
                }
                if shadowed
                    && let Some(path) = state.get(callee_name).and_then(|value| value.path.clone())
                    && *path != **callee_name
                {
                    paths.push(path.to_string());
                }
            }
            ExprKind::Attribute { base, name: method, .. } => {
                name = method;
                let value = self.eval_value(base, state);
                paths.extend(callee.dotted(&self.program.imports));
                if let Some(path) = &value.path {
                    let resolved = format!("{path}.{method}");
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
        let handlers: Vec<&'p Handler> = self
            .index
            .hits(&paths.iter().map(String::as_str).collect::<Vec<_>>())
            .into_iter()
            .filter_map(|hit| if let Hit::Handler(handler) = hit { Some(handler) } else { None })
            .collect();
        let mut inputs = Value::default();
        if let Some((_, value)) = &receiver {
            inputs.absorb(value);
        }
        let mut position = 0;
        let args = args
            .iter()
            .map(|arg| {
                let handler =
                    handlers.iter().find(|handler| handler.argument.covers(position, arg.name));
                if arg.name.is_none() {
                    position += 1;
                }
                if let Some(handler) = handler
                    && let Some(number) = self.named_function(&arg.value)
                {
                    self.handled.insert(number, &handler.params);
                }
                if let ExprKind::Closure { params, body } = &arg.value.peeled().kind {
                    let value = match handler {
                        Some(handler) => {
                            let given: Vec<Value<'p>> =
                                handler.params.iter().map(|path| Value::of_path(path)).collect();
                            self.closure(params, body, &given, state)
                        }
                        // Elements, results and the like of what it is called on.
                        None if inputs.is_tainted() => {
                            let given = vec![inputs.derived(); params.len()];
                            self.closure(params, body, &given, state)
                        }
                        None => self.closure(params, body, &[], state),
                    };
                    return (arg.name, &arg.value, value);
                }
                let value = match arg.name {
                    Some(name) => {
                        let value = self.eval_value(&arg.value, state);
                        self.check_literal(name, &arg.value);
                        value
                    }
                    None => self.eval_value(&arg.value, state),
                };
                inputs.absorb(&value);
                (arg.name, &arg.value, value)
            })
            .collect();
        Call { range: expr.range, receiver, args, paths, name }
    }

    /// The function of this file that an expression names.
    fn named_function(&self, expr: &Expr<'p>) -> Option<usize> {
        let name = match &expr.peeled().kind {
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => *name,
            _ => return None,
        };
        match self.by_name.get(name)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    pub(super) fn hits(&self, call: &Call<'p>) -> Vec<&'p Hit> {
        let index: &'p Index = self.index;
        let paths: Vec<&str> = call.paths.iter().map(String::as_str).collect();
        index.hits(&paths)
    }

    pub(super) fn call(
        &mut self,
        expr: &'p Expr<'p>,
        callee: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        state: &mut State<'p>,
    ) -> Value<'p> {
        let call = self.prepare(expr, callee, args, state);
        let hits = self.hits(&call);
        let own = self.callee(callee, args.len());
        let summary =
            own.and_then(|(number, method)| self.summary(number).map(|summary| (summary, method)));

        let mut result = match &summary {
            Some((summary, method)) => self.apply_summary(&call, summary, *method),
            None if own.is_some() => Self::all_parts(&call),
            None => self.assumed_result(&call, &hits),
        };
        for hit in &hits {
            self.propagate(&call, hit, &mut result, state);
        }
        for hit in &hits {
            match hit {
                Hit::Source { source, clean, mark }
                    if source.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    self.apply_source(&call, source, (*clean, *mark), &mut result, state);
                }
                Hit::Sanitizer { bits, sanitizer }
                    if sanitizer.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    result.clean(*bits);
                }
                Hit::Guard { bits, guard, mark }
                    if guard.holds == Some(Holds::Always)
                        && guard.mode.is_none_or(|mode| mode == self.mode)
                        && guard.when.iter().all(|condition| self.holds(condition, &call)) =>
                {
                    self.clean_subjects(&call, guard, *bits, *mark, state);
                }
                Hit::Sink { rule, sink, except, mark } => {
                    let excepted = call
                        .paths
                        .iter()
                        .any(|path| except.iter().any(|pattern| pattern.matches(path)));
                    if !excepted && sink.when.iter().all(|condition| self.holds(condition, &call)) {
                        let demand = self.demand(*rule, sink);
                        if let Some(format) = &sink.format {
                            self.check_formatted(demand, sink, format, &call);
                            continue;
                        }
                        for argument in &sink.argument {
                            for (expr, value) in call.select(argument) {
                                if *mark != 0 {
                                    let mut marked = value.clone();
                                    marked.retain(|atom| atom.marks & mark != 0);
                                    self.check_sink(demand, sink, expr, &marked);
                                    continue;
                                }
                                self.check_sink(demand, sink, expr, value);
                            }
                        }
                    }
                }
                Hit::Call { rule, model } => {
                    let context =
                        model.context.as_ref().is_none_or(|context| self.in_context(context));
                    if context && model.when.iter().all(|condition| self.holds(condition, &call)) {
                        self.alert_here(*rule, call.range);
                    }
                }
                _ => {}
            }
        }
        if let (Some((summary, method)), Some((number, _))) = (&summary, own) {
            self.enter_sinks(&call, summary, *method);
            Self::after_checks(&call, summary, *method, state);
            let _ = number;
        }
        if result.path.is_none()
            && let Some(path) = call.paths.first()
        {
            result.path = Some(format!("{path}()").into());
        }
        result
    }

    pub(super) fn all_parts(call: &Call<'p>) -> Value<'p> {
        let mut value = Value::default();
        for (_, _, part) in &call.args {
            value.absorb(part);
        }
        value
    }

    /// The result of a call nobody explains.
    fn assumed_result(&mut self, call: &Call<'p>, hits: &[&Hit]) -> Value<'p> {
        if self.language == Language::Ruby {
            return self.ruby_result(call, !hits.is_empty());
        }
        if self.language != Language::Python {
            return Value::default();
        }
        if let Some((_, receiver)) = &call.receiver {
            if let Some(value) = self.text_method(call, receiver) {
                return value;
            }
            // What a known container gives for an untrusted key is the container's.
            if matches!(call.name, "get" | "pop" | "setdefault") {
                let mut value = receiver.derived();
                for (_, _, part) in call.args.iter().skip(1) {
                    value.absorb(part);
                }
                let known = receiver.sequence || value.is_tainted();
                return if known { value } else { Value::default() };
            }
            if matches!(
                call.name,
                "count"
                    | "index"
                    | "find"
                    | "rfind"
                    | "startswith"
                    | "endswith"
                    | "__len__"
                    | "fileno"
                    | "close"
                    | "exists"
            ) {
                return Value::default();
            }
            let mut value = receiver.derived();
            if matches!(call.name, "split" | "splitlines" | "rsplit" | "items" | "values" | "keys")
            {
                value.sequence = true;
                return value;
            }
            // A method nobody explains may hand on what it is given.
            if self.snippet() || hits.is_empty() {
                for (_, _, part) in &call.args {
                    value.absorb(part);
                }
            }
            if value.is_tainted() {
                return value;
            }
        } else if self.snippet() || hits.is_empty() {
            let value = Self::all_parts(call);
            if value.is_tainted() {
                return value;
            }
        }
        let explained = !hits.is_empty()
            || call.paths.first().is_some_and(|path| {
                let root = path.split(['.', '(', '[']).next().unwrap_or("");
                self.program.imports.values().any(|import| import.split('.').next() == Some(root))
                    || self.program.classes.contains_key(root)
            });
        if explained {
            Value::default()
        } else {
            self.unknown(call.range, &format!("the result of `{}`", call.name))
        }
    }

    /// Methods of text whose result is known.
    fn text_method(&mut self, call: &Call<'p>, receiver: &Value<'p>) -> Option<Value<'p>> {
        match call.name {
            "format" => {
                let items: Vec<Value<'p>> = call
                    .args
                    .iter()
                    .filter(|(name, ..)| name.is_none())
                    .map(|(_, _, value)| value.clone())
                    .collect();
                let named: Vec<(&str, Value<'p>)> = call
                    .args
                    .iter()
                    .filter_map(|(name, expr, value)| match (name, &expr.kind) {
                        (Some(name), _) => Some((*name, value.clone())),
                        (None, ExprKind::Star(_)) => Some(("", value.clone())),
                        _ => None,
                    })
                    .collect();
                Some(text::braces(receiver, &items, &named, self.repr_bits, call.range))
            }
            "join" if receiver.text.is_some() || !receiver.is_tainted() => {
                let (_, _, items) = call.args.first()?;
                if call.paths.iter().any(|path| path.ends_with("path.join")) {
                    return None;
                }
                let mut value = items.derived();
                value.change(|atom| atom.built = true);
                let range = call.range;
                value.change(|atom| {
                    atom.trace = atom.trace.step(range, "is joined to a text".to_owned());
                });
                value.text = Some(
                    items
                        .text
                        .clone()
                        .filter(|_| items.sequence)
                        .unwrap_or_else(|| HOLE_TEXT.into()),
                );
                Some(value)
            }
            "strip" | "rstrip" | "lstrip" | "lower" | "upper" | "title" | "encode" | "decode"
            | "expandtabs" | "casefold" | "capitalize" => {
                let mut value = receiver.clone();
                value.alias = None;
                value.test = None;
                value.path = None;
                Some(value)
            }
            _ => None,
        }
    }

    fn propagate(
        &mut self,
        call: &Call<'p>,
        hit: &Hit,
        result: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        let Hit::Propagator { propagator, mark } = hit else { return };
        let everything = Argument { receiver: true, from: Some(0), ..Argument::default() };
        let parts: Vec<Value<'p>> = if let Some(format) = &propagator.format {
            let pattern =
                call.select(format).first().map(|(_, value)| (*value).clone()).unwrap_or_default();
            let from = propagator.from.clone().unwrap_or_default();
            let items: Vec<Value<'p>> =
                call.select(&from).into_iter().map(|(_, value)| value.clone()).collect();
            vec![text::percent(&pattern, &items, false, self.repr_bits, call.range)]
        } else {
            let from = propagator.from.as_ref().unwrap_or(&everything);
            call.select(from).into_iter().map(|(_, value)| value.clone()).collect()
        };
        let mut value = match parts.as_slice() {
            [only] if !propagator.joins => {
                Value { path: None, alias: None, test: None, ..only.clone() }
            }
            _ if propagator.joins => concat(&parts),
            several => {
                let mut value = Value::default();
                for part in several {
                    value.absorb(part);
                }
                value
            }
        };
        if propagator.joins {
            // The folder a path starts with is not what an attacker chooses.
            value = Value::default();
            for (number, part) in parts.iter().enumerate() {
                let mut part = part.derived();
                part.change(|atom| {
                    atom.built |= parts.len() > 1;
                    atom.leading |= number == 0 && parts.len() > 1;
                });
                value.absorb(&part);
            }
        }
        let range = call.range;
        let mark = *mark;
        let name = call.name;
        value.change(|atom| {
            atom.marks |= mark;
            atom.trace = atom.trace.step(range, format!("passes through `{name}`"));
        });
        match &propagator.into {
            None => *result = value,
            Some(into) => {
                for (target, before) in call.select(into) {
                    let Some(place) = filled_place(target) else { continue };
                    let mut new = value.clone();
                    if propagator.adds && (before.sequence || propagator.items) {
                        new = before.derived();
                        new.absorb(&value);
                        new.sequence = true;
                        let words =
                            [before, &value].map(|part| part.text.as_deref().unwrap_or(HOLE_TEXT));
                        new.text = Some(words.join(" ").trim_start().into());
                    } else if propagator.adds {
                        new = concat(&[before.clone(), value.clone()]);
                    }
                    state.set(&place, new);
                }
            }
        }
    }

    fn apply_source(
        &self,
        call: &Call<'p>,
        source: &crate::rules::Source,
        (clean, marks): (u128, u32),
        result: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        let (origin, what) = if source.local {
            (Origin::Local, "this machine")
        } else {
            (Origin::Remote, "outside the program")
        };
        let trace = Trace::start(call.range, format!("`{}` reads from {what}", call.name));
        let atom = Atom { marks, ..Atom::only_for(origin, clean, trace) };
        let value = Value::of_atom(atom);
        match &source.fills {
            // Several rules may have a source of their own here.
            None if clean != 0 => result.absorb(&value),
            None => *result = value,
            Some(fills) => {
                for (target, _) in call.select(fills) {
                    if let Some(place) = filled_place(target) {
                        let mut value = value.clone();
                        // What one rule minds by its name it minds whatever is in it.
                        if let Some(named) = self.source_value(&place, target) {
                            value.absorb(&named);
                        }
                        state.set(&place, value);
                    }
                }
            }
        }
    }

    /// Whether a rule's condition holds of a call.
    pub(super) fn holds(&self, condition: &Condition, call: &Call<'p>) -> bool {
        let selected = call.select(&condition.argument);
        if selected.is_empty() {
            let spread =
                call.args.iter().any(|(_, expr, _)| matches!(expr.kind, ExprKind::Star(_)));
            return match condition.missing {
                Some(missing) => missing && !spread,
                None => condition.or_missing || (condition.not.is_some() && condition.is.is_none()),
            };
        }
        condition.missing != Some(true)
            && selected.iter().any(|(expr, value)| self.holds_of(condition, expr, value))
    }

    /// Whether a condition holds of an argument that is there.
    fn holds_of(&self, condition: &Condition, expr: &Expr<'p>, value: &Value<'p>) -> bool {
        let matches_text = |pattern: &crate::rules::Pattern| match (
            &value.text,
            expr.dotted(&self.program.imports),
        ) {
            (Some(text), _) => pattern.0.is_match(text),
            (None, Some(path)) => pattern.0.is_match(&path),
            (None, None) => value.path.as_ref().is_some_and(|path| pattern.0.is_match(path)),
        };
        let number = match value.constant {
            Some(Constant::Int(number)) => Some(number),
            _ => None,
        };
        let is_constant =
            !value.is_tainted() && (value.constant.is_some() || value.full_text().is_some());
        condition
            .is
            .as_ref()
            .is_none_or(|any| any.iter().any(|literal| self.equals(literal, expr, value)))
            && condition
                .not
                .as_ref()
                .is_none_or(|none| !none.iter().any(|literal| self.equals(literal, expr, value)))
            && condition.matches.as_ref().is_none_or(matches_text)
            && condition.bits.is_none_or(|bits| number.is_some_and(|number| number & bits != 0))
            && condition.below.is_none_or(|limit| number.is_some_and(|number| number < limit))
            && condition.constant.is_none_or(|wanted| wanted == is_constant)
            && condition.mentions.as_ref().is_none_or(|pattern| mentions(expr, pattern))
    }

    /// The argument that goes to each parameter of a function of the file.
    fn argument_for<'c>(
        call: &'c Call<'p>,
        number_of_param: usize,
        name: Option<&str>,
        method: bool,
    ) -> Option<&'c Value<'p>> {
        let position = if method { number_of_param.checked_sub(1)? } else { number_of_param };
        let mut seen = 0;
        for (keyword, _, value) in &call.args {
            match keyword {
                Some(keyword) if Some(*keyword) == name => return Some(value),
                Some(_) => {}
                None => {
                    if seen == position {
                        return Some(value);
                    }
                    seen += 1;
                }
            }
        }
        None
    }

    fn apply_summary(
        &mut self,
        call: &Call<'p>,
        summary: &Rc<Summary<'p>>,
        method: bool,
    ) -> Value<'p> {
        let Some(returned) = &summary.returned else { return Value::default() };
        let mut result = Value { path: None, alias: None, test: None, ..returned.clone() };
        result = result.without_atoms();
        for atom in returned.atoms() {
            let Origin::Parameter(param) = atom.origin else {
                if atom.origin != Origin::Unknown || self.snippet() {
                    result.absorb(&Value::of_atom(atom.clone()));
                }
                continue;
            };
            let Some(value) = Self::argument_for(call, usize::from(param), None, method) else {
                continue;
            };
            let mut value = value.derived();
            let range = call.range;
            let name = call.name;
            value.change(|known| {
                known.clean |= atom.clean;
                known.marks |= atom.marks;
                known.built |= atom.built;
                known.leading |= atom.leading;
                known.trace = known.trace.step(range, format!("passes through `{name}`"));
            });
            result.absorb(&value);
        }
        result
    }

    /// Arguments that reach sinks inside the called function.
    fn enter_sinks(&mut self, call: &Call<'p>, summary: &Rc<Summary<'p>>, method: bool) {
        for sink in &summary.sinks {
            let Some(value) = Self::argument_for(call, usize::from(sink.param), None, method)
            else {
                continue;
            };
            if !value.is_tainted() {
                continue;
            }
            let mut value = value.derived();
            let (range, name) = (call.range, call.name);
            let built = sink.built;
            value.change(|atom| {
                atom.built |= built;
                atom.trace = atom.trace.step(range, format!("is handed to `{name}`"));
            });
            let demand = Demand {
                rule: sink.rule,
                needs_built: sink.needs_built && !sink.built,
                unknown: sink.unknown,
                base: sink.base,
                parameters: None,
            };
            self.taint_reaches(demand, sink.range, &value);
        }
    }

    /// After a call of a function that raises on bad values, its arguments are good.
    fn after_checks(
        call: &Call<'p>,
        summary: &Rc<Summary<'p>>,
        method: bool,
        state: &mut State<'p>,
    ) {
        for (param, bits) in summary.checked.iter().enumerate() {
            let Some(bits) = bits.filter(|bits| *bits != 0) else { continue };
            Self::clean_argument(call, param, bits, method, state);
        }
    }

    pub(super) fn clean_argument(
        call: &Call<'p>,
        param: usize,
        bits: u128,
        method: bool,
        state: &mut State<'p>,
    ) {
        let position = if method { param.checked_sub(1) } else { Some(param) };
        let Some(position) = position else { return };
        if let Some((_, expr, value)) =
            call.args.iter().filter(|(name, ..)| name.is_none()).nth(position)
            && let Some(place) = expr.peeled().place()
        {
            state.clean(&place, bits, value.clone());
        }
    }
}

/// Whether a name like this stands anywhere in an expression, but for what a call only measures or conceals.
pub(super) fn mentions(expr: &Expr<'_>, pattern: &crate::rules::Pattern) -> bool {
    let here = match &expr.kind {
        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => pattern.0.is_match(name),
        ExprKind::Call { callee, .. } => {
            if let ExprKind::Name(name) | ExprKind::Attribute { name, .. } = &callee.kind {
                let name = name.to_lowercase();
                let conceals = ["hash", "encrypt", "mask", "redact", "digest", "censor"];
                if ["len", "bool", "type", "id", "isinstance"].contains(&name.as_str())
                    || conceals.iter().any(|part| name.contains(part))
                {
                    return false;
                }
            }
            false
        }
        _ => false,
    };
    here || expr.children().into_iter().any(|child| mentions(child, pattern))
}

/// The variable behind `buf`, `&buf`, `buf + n`, `&buf[n]`.
fn filled_place(expr: &Expr<'_>) -> Option<String> {
    match &expr.peeled().kind {
        ExprKind::AddressOf(inner) => match &inner.kind {
            ExprKind::Subscript { base, .. } => filled_place(base),
            _ => filled_place(inner),
        },
        ExprKind::Binary { left, .. } => filled_place(left),
        _ => expr.peeled().place(),
    }
}
