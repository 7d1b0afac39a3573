//! What rules say a call does: its result, and the arguments it fills.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    state::State,
    text, types,
    value::{Atom, HOLE_TEXT, Origin, Trace, Value, concat},
};
use crate::{
    ir::{Expr, ExprKind},
    rules::{Argument, Hit},
};

impl<'p> Flow<'p, '_> {
    pub(super) fn propagate(
        &mut self,
        call: &Call<'p>,
        hit: &Hit,
        own: bool,
        result: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        let Hit::Propagator { propagator, mark, clean, except } = hit else { return };
        if (propagator.assumed && own)
            || !propagator.when.iter().all(|condition| self.holds(condition, call))
        {
            return;
        }
        let clean = *clean;
        if call.paths.iter().any(|path| except.is_match(path)) {
            return;
        }
        let everything = Argument { receiver: true, from: Some(0), ..Argument::default() };
        let parts: Vec<Value<'p>> = if let Some(format) = &propagator.format {
            let pattern =
                call.select(format).first().map(|(_, value)| (*value).clone()).unwrap_or_default();
            let from = propagator.from.clone().unwrap_or_default();
            let items: Vec<Value<'p>> =
                call.select(&from).into_iter().map(|(_, value)| value.clone()).collect();
            vec![text::percent(&pattern, &items, &[], false, self.converted, call.range)]
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
            // A path that holds nothing from outside is a text.
            if self.has_objects() && value.atoms().iter().all(|atom| atom.own) {
                let texts: Vec<&str> =
                    parts.iter().map(|part| part.text.as_deref().unwrap_or(HOLE_TEXT)).collect();
                value.text = Some(texts.join("/").into());
            }
        }
        // What is filled stays of its type.
        let keeps_type =
            matches!(self.language, Language::Go | Language::Ruby) || self.has_objects();
        let range = call.range;
        let mark = *mark;
        let name = call.name;
        value.change(|atom| {
            atom.marks |= mark;
            atom.clean |= clean;
            atom.trace = atom.trace.step(range, format!("passes through `{name}`"));
        });
        if propagator.same {
            value.path = parts.first().and_then(|part| part.path.clone());
        }
        match &propagator.into {
            None if clean != 0 => result.absorb(&value),
            // `Object.entries(x)` is no `x.entries()`, though it looks like one.
            None if self.has_objects() && result.is_tainted() && !value.is_tainted() => {}
            None => *result = value,
            Some(into) => {
                for (target, before) in call.select(into) {
                    let Some(place) =
                        filled_place(target).or_else(|| self.chained_place(target, before, state))
                    else {
                        continue;
                    };
                    // A writer made here, or what a chain gives, stands for a variable that holds more.
                    let before = match &target.peeled().kind {
                        ExprKind::Construct { .. } | ExprKind::Call { .. } => {
                            state.get(&place).unwrap_or(before)
                        }
                        _ => before,
                    };
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
                    if keeps_type || (self.is_typed() && new.path.is_none()) {
                        new.path.clone_from(&before.path);
                    }
                    state.set(&place, new);
                }
            }
        }
    }

    /// The variable that `text.append(a).append(b)` goes back to: calls that give an object of its class give that object.
    fn chained_place(
        &self,
        expr: &Expr<'p>,
        value: &Value<'p>,
        state: &State<'p>,
    ) -> Option<String> {
        let class = types::without_flags(value.path.as_deref().filter(|_| self.is_typed())?);
        let mut base = expr.peeled();
        while let ExprKind::Call { callee, .. } = &base.kind
            && let ExprKind::Attribute { base: inner, .. } = &callee.kind
        {
            base = inner.peeled();
        }
        let place = base.place()?;
        let known = state.get(&place)?.path.as_deref()?;
        (types::without_flags(known) == class).then_some(place)
    }

    pub(super) fn apply_source(
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
                for (target, before) in call.select(fills) {
                    if let Some(place) = filled_place(target) {
                        let mut value = value.clone();
                        value.path.clone_from(&before.path);
                        // Several rules may mind the same call, each for itself.
                        if let Some(known) = state.get(&place)
                            && known.atoms().iter().any(|atom| atom.trace.root() == call.range)
                        {
                            value.absorb(known);
                        }
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
}

/// The variable behind `buf`, `&buf`, `buf + n`, `&buf[n]`.
pub(super) fn filled_place(expr: &Expr<'_>) -> Option<String> {
    match &expr.peeled().kind {
        ExprKind::AddressOf(inner) => match &inner.kind {
            ExprKind::Subscript { base, .. } => filled_place(base),
            _ => filled_place(inner),
        },
        ExprKind::Binary { left, .. } => filled_place(left),
        // `new PrintWriter(text)` writes to `text`.
        ExprKind::Construct { args, .. } => filled_place(&args.first()?.value),
        _ => expr.peeled().place(),
    }
}
