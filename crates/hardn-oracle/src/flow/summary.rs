//! What a function does with its parameters, for its callers in the same file.

use std::rc::Rc;

use super::{
    Flow, MAX_CALL_DEPTH,
    call::Call,
    sink::Demand,
    state::State,
    value::{Constant, Origin, Value},
};
use crate::ir::{Expr, ExprKind, Range};

/// Whether a function's summary is there yet.
pub(super) enum Progress<'p> {
    New,
    Running,
    Done(Rc<Summary<'p>>),
}

/// A parameter that reaches a sink.
#[derive(Clone, Debug)]
pub(super) struct ParamSink {
    pub(super) param: u8,
    pub(super) rule: usize,
    pub(super) range: Range,
    /// The parameter was already joined to other text inside.
    pub(super) built: bool,
    pub(super) needs_built: bool,
    pub(super) unknown: bool,
    pub(super) base: bool,
    pub(super) at_source: bool,
    pub(super) outside: bool,
}

/// The summary of one function.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary<'p> {
    /// Names of the parameters, for keyword arguments.
    pub(super) names: Vec<&'p str>,
    pub(super) sinks: Vec<ParamSink>,
    /// Parameters that are functions, and what they are called with.
    pub(super) applied: Vec<(u8, Vec<Value<'p>>)>,
    pub(super) returned: Option<Value<'p>>,
    /// Per parameter, the rules it is clean of on every normal way out.
    pub(super) checked: Vec<Option<u128>>,
    /// The same where the result is true, and where it is false.
    pub(super) when_true: Vec<Option<u128>>,
    pub(super) when_false: Vec<Option<u128>>,
    /// `self.*` on the ways out.
    pub(super) fields: State<'p>,
}

impl<'p> Summary<'p> {
    pub(super) fn new(names: Vec<&'p str>) -> Self {
        Self {
            checked: vec![None; names.len()],
            when_true: vec![None; names.len()],
            when_false: vec![None; names.len()],
            names,
            ..Self::default()
        }
    }

    pub(super) fn add_return(&mut self, value: &Value<'p>) {
        match &mut self.returned {
            Some(known) => known.join(value),
            none => *none = Some(value.clone()),
        }
    }

    pub(super) fn finished(self) -> Rc<Self> {
        Rc::new(self)
    }
}

impl<'p> Flow<'p, '_> {
    /// The summary of a function; `None` while it is being made, or too deep.
    pub(super) fn summary(&mut self, number: usize) -> Option<Rc<Summary<'p>>> {
        match &self.summaries[number] {
            Progress::Done(summary) => return Some(Rc::clone(summary)),
            Progress::Running => return None,
            Progress::New => {}
        }
        if self.depth >= MAX_CALL_DEPTH {
            return None;
        }
        self.depth += 1;
        self.summaries[number] = Progress::Running;
        let function = &self.program.functions[number];
        if let Some(class) = function.class
            && !function.constructor
        {
            self.class_fields(class);
        }
        self.function(number);
        self.depth -= 1;
        match &self.summaries[number] {
            Progress::Done(summary) => Some(Rc::clone(summary)),
            _ => None,
        }
    }

    /// The function of this file a call goes to, if there is just one that it can be.
    pub(super) fn callee(
        &self,
        callee: &Expr<'p>,
        n_args: usize,
        receiver: Option<&str>,
    ) -> Option<(usize, bool)> {
        if self.is_typed() {
            return self.typed_callee(callee, n_args, receiver).map(|number| (number, false));
        }
        let (name, method) = match &callee.kind {
            ExprKind::Name(name) => (*name, false),
            ExprKind::Attribute { name, base, .. } => {
                let on_self = matches!(base.root(), Some("self" | "cls" | "this"));
                let on_class =
                    base.root().is_some_and(|root| self.program.classes.contains_key(root));
                let imported =
                    base.root().is_some_and(|root| self.program.imports.contains_key(root));
                if imported {
                    return None;
                }
                (*name, on_self || !on_class)
            }
            _ => return None,
        };
        let candidates = self.by_name.get(name)?;
        let number = match candidates.as_slice() {
            [only] => *only,
            several => *several
                .iter()
                .find(|number| self.program.functions[**number].class == self.frame.class)?,
        };
        let function = &self.program.functions[number];
        let takes_self =
            function.params.first().is_some_and(|param| matches!(param.name, "self" | "cls"));
        let is_attribute = matches!(callee.kind, ExprKind::Attribute { .. });
        // `xs.append(v)` is no call of a plain function named `append`.
        if is_attribute && function.class.is_none() {
            return None;
        }
        Some((number, method && takes_self))
    }

    /// Notes what holds of parameters where control leaves normally.
    pub(super) fn leave(&mut self, state: &State<'p>) {
        let bits = self.param_bits(state);
        narrow(&mut self.frame.summary.checked, &bits);
        if self.frame.class.is_some() {
            let fields = &mut self.frame.summary.fields;
            for (place, value) in state.iter().filter(|(place, _)| place.starts_with("self.")) {
                let mut joined = value.clone();
                if let Some(known) = fields.get(place) {
                    joined.join(known);
                }
                fields.set(place, joined);
            }
        }
    }

    /// Notes what a result says of the parameters: validators.
    pub(super) fn leave_with(&mut self, expr: &'p Expr<'p>, result: &Value<'p>, state: &State<'p>) {
        if self.frame.params.is_empty() {
            return;
        }
        let truth = match result.constant {
            Some(Constant::Int(number)) => Some(number != 0),
            _ => result.truth(),
        };
        for outcome in [true, false] {
            let bits = match truth {
                Some(known) if known != outcome => continue,
                Some(_) => self.param_bits(state),
                None => match self.refine(expr, outcome, state.clone()) {
                    Some(refined) => self.param_bits(&refined),
                    None => continue,
                },
            };
            let slot = if outcome {
                &mut self.frame.summary.when_true
            } else {
                &mut self.frame.summary.when_false
            };
            narrow(slot, &bits);
        }
    }

    fn param_bits(&self, state: &State<'p>) -> Vec<u128> {
        self.frame
            .params
            .iter()
            .enumerate()
            .map(|(at, name)| match state.get(name) {
                Some(value) => value
                    .atoms()
                    .iter()
                    .filter(|atom| atom.origin == Origin::Parameter(at as u8))
                    .map(|atom| atom.clean)
                    .reduce(|a, b| a & b)
                    // No taint of its own left: clean of everything, or assigned anew, which the caller does not see.
                    .unwrap_or(u128::MAX),
                None => 0,
            })
            .collect()
    }

    /// The argument that goes to a parameter of a function of the file. Keywords that no parameter is named after are
    /// entries of a hash, which goes to the first parameter without an argument.
    fn argument_for(
        call: &Call<'p>,
        number: usize,
        summary: &Summary<'p>,
        method: bool,
    ) -> Option<Value<'p>> {
        let position = if method { number.checked_sub(1)? } else { number };
        let mut seen = 0;
        let mut rest: Option<Value<'p>> = None;
        for (keyword, _, value) in &call.args {
            match keyword {
                Some(keyword) if Some(keyword) == summary.names.get(number) => {
                    return Some(value.clone());
                }
                Some(keyword) if summary.names.contains(keyword) || keyword.starts_with('&') => {}
                Some(_) => rest.get_or_insert_default().absorb(value),
                None => {
                    if seen == position {
                        return Some(value.clone());
                    }
                    seen += 1;
                }
            }
        }
        rest.filter(|_| seen == position)
    }

    pub(super) fn apply_summary(
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
            let Some(value) = Self::argument_for(call, usize::from(param), summary, method) else {
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
    pub(super) fn enter_sinks(&mut self, call: &Call<'p>, summary: &Rc<Summary<'p>>, method: bool) {
        for sink in &summary.sinks {
            let Some(value) = Self::argument_for(call, usize::from(sink.param), summary, method)
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
            let file = &self.index.rules[sink.rule].file;
            let parameters = file.parameters.then_some(file.built);
            let demand = Demand { parameters, ..Demand::inside(sink) };
            self.taint_reaches(demand, sink.range, &value);
        }
    }

    /// After a call of a function that raises on bad values, its arguments are good.
    pub(super) fn after_checks(
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

fn narrow(slots: &mut [Option<u128>], bits: &[u128]) {
    for (slot, bits) in slots.iter_mut().zip(bits) {
        *slot = Some(slot.map_or(*bits, |known| known & bits));
    }
}
