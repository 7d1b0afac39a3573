//! Functions as values: closures, handlers, what they are called with.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    go::NIL_FUNCTION,
    state::State,
    summary::Summary,
    types,
    value::{Atom, Constant, Origin, Trace, Value},
};
use crate::{
    ir::{Expr, ExprKind, Param, Stmt},
    rules::Handler,
    walk,
};

/// Closures within closures.
const MAX_CLOSURE_DEPTH: usize = 8;

/// Runs of closures in one file: those that are called run once for each call.
const MAX_CLOSURE_RUNS: usize = 4000;

/// What rules know a function by that says yes to everything.
const ALWAYS_TRUE: &str = "->true";

impl<'p> Flow<'p, '_> {
    /// Runs a function inside an expression where it stands, its parameters holding `inputs` as far as they are known.
    /// The result is what it returns; what it leaves in variables of the function around it stays.
    pub(super) fn closure(
        &mut self,
        params: &'p [Param<'p>],
        body: &'p [Stmt<'p>],
        inputs: &[Value<'p>],
        state: &mut State<'p>,
    ) -> Value<'p> {
        if self.closures >= MAX_CLOSURE_DEPTH || self.closure_runs >= MAX_CLOSURE_RUNS {
            return Value::default();
        }
        self.closure_runs += 1;
        let mut inner = state.clone();
        for (at, param) in params.iter().enumerate() {
            let value = match inputs.get(at) {
                Some(value) => value.clone(),
                None => self.unknown(param.range, &format!("`{}`", param.name)),
            };
            let mut value =
                if value.path.is_none() { value.with_path(param.path()) } else { value };
            if let Some(clean) = self.index.named(param.name) {
                let trace = Trace::start(param.range, format!("`{}` is its name", param.name));
                value.absorb(&Value::of_atom(Atom::only_for(Origin::Remote, clean, trace)));
            }
            inner.set(param.name, value);
        }
        // What it returns and checks says nothing of the function around it.
        let outer = std::mem::take(&mut self.frame.summary);
        self.frame.summary = Summary::new(self.frame.params.clone());
        let outer_end = self.closure_end.take();
        self.closures += 1;
        let mut end = walk::run(self, body, inner);
        self.closures -= 1;
        if let Some(returned) = std::mem::replace(&mut self.closure_end, outer_end) {
            match &mut end {
                Some(end) => end.join(returned),
                none => *none = Some(returned),
            }
        }
        let own = std::mem::replace(&mut self.frame.summary, outer);
        self.frame.summary.sinks.extend(own.sinks);
        if let Some(mut end) = end {
            for param in params {
                end.remove(param.name);
            }
            state.join(end);
        }
        let returned = own.returned.unwrap_or_default();
        let nothing = self.language == Language::Go && returned.constant == Some(Constant::Null);
        let value = returned.derived();
        if nothing {
            value.with_path(NIL_FUNCTION)
        } else if self.is_typed() && types::always_true(body) {
            value.with_path(ALWAYS_TRUE)
        } else {
            value
        }
    }

    /// The paths of what a handler's function is called with. One that ends in `+` takes over the flags of what the
    /// handler was given to. One parameter more than expected is an error that comes first, where types do not tell.
    pub(super) fn given_paths(
        &self,
        handler: &Handler,
        n_params: usize,
        receiver: Option<&str>,
    ) -> Vec<Option<String>> {
        let known = handler.params.iter().map(|path| match path.strip_suffix('+') {
            Some(class) => {
                let flags = receiver.and_then(|path| path.find('+').map(|at| &path[at..]));
                Some(format!("{class}{}", flags.unwrap_or("")))
            }
            None => Some(path.clone()),
        });
        let shifted = !self.is_typed() && n_params == handler.params.len() + 1;
        shifted.then_some(None).into_iter().chain(known).collect()
    }

    /// What a handler's function is called with.
    pub(super) fn given_to(
        &self,
        handler: &Handler,
        n_params: usize,
        at: &Expr<'p>,
        receiver: Option<&str>,
    ) -> Vec<Value<'p>> {
        let value =
            |path: String| self.source_value(&path, at).unwrap_or_else(|| Value::of_path(&path));
        let paths = self.given_paths(handler, n_params, receiver);
        paths.into_iter().map(|path| path.map_or_else(Value::default, value)).collect()
    }

    /// The handler for functions under this key of an object that is an argument.
    pub(super) fn object_handler(&self, key: &str) -> Option<&'p Handler> {
        let mut known = self.object_handlers.iter();
        known.find(|handler| handler.argument.names.iter().any(|name| name == key)).copied()
    }

    /// The function of this file that an expression names.
    pub(super) fn named_function(&self, expr: &Expr<'p>) -> Option<usize> {
        let name = match &expr.peeled().kind {
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => *name,
            _ => return None,
        };
        match self.by_name.get(name)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }
}

/// Ruby: the closure that `f.call(x)` runs.
pub(super) fn called_closure<'p>(call: &Call<'p>) -> Option<&'p ExprKind<'p>> {
    let (_, value) = call.receiver.as_ref().filter(|_| call.name == "call")?;
    value.function.map(|expr| &expr.kind)
}
