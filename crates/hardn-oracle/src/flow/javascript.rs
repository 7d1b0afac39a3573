//! What only JavaScript and TypeScript have: objects for keyword arguments, bound functions, handlers that hand on requests.

use hardn_types::Language;

use super::{Flow, call::Call, sink::Demand, state::State, summary::Progress, value::Value};
use crate::ir::{Arg, Expr, ExprKind};

impl<'p> Flow<'p, '_> {
    /// Objects with keys take the place of keyword arguments.
    pub(super) fn has_objects(&self) -> bool {
        matches!(self.language, Language::JavaScript | Language::TypeScript)
    }

    /// An object with what was put into its fields.
    pub(super) fn with_parts(expr: &Expr<'p>, value: Value<'p>, state: &State<'p>) -> Value<'p> {
        let Some(place) = expr.peeled().place() else { return value };
        let prefix = format!("{place}.");
        let mut value = value;
        for (part, held) in state.iter() {
            if held.is_tainted() && part.starts_with(&prefix) {
                value.absorb(held);
                value.sequence = true;
            }
        }
        value
    }

    /// The entries of an object that is an argument, one more level deep as `outer.inner`.
    pub(super) fn options(
        &mut self,
        arg: &'p Arg<'p>,
        state: &mut State<'p>,
    ) -> Vec<(String, &'p Expr<'p>, Value<'p>)> {
        let expr = arg.value.peeled();
        let mut out = Vec::new();
        if let Some(place) = expr.place() {
            let prefix = format!("{place}.");
            let known = state.iter().chain(self.module.iter());
            out.extend(known.filter_map(|(part, value)| {
                let key = part.strip_prefix(&prefix)?;
                Some((key.to_owned(), expr, value.clone()))
            }));
        }
        entries(expr, "", &mut |key, value| out.push((key, value, Value::default())));
        for (_, expr, value) in &mut out {
            // Functions and objects are not run twice.
            if !matches!(
                expr.kind,
                ExprKind::Closure { .. } | ExprKind::Dict(_) | ExprKind::Call { .. }
            ) && value.text.is_none()
                && value.constant.is_none()
                && !value.is_tainted()
                && value.path.is_none()
            {
                *value = self.eval_value(expr, state);
            } else if let ExprKind::Call { callee, .. } = &expr.kind {
                value.path =
                    callee.dotted(&self.program.imports).map(|path| format!("{path}()").into());
            }
        }
        out
    }

    /// `f.bind(this, value)` and `_.partial(f, value)`: the function is called with the value sooner or later.
    pub(super) fn bound(&mut self, call: &Call<'p>, state: &mut State<'p>) {
        let function = match (call.name, &call.receiver, call.args.first()) {
            ("bind", Some((function, _)), _) | ("partial", _, Some((_, function, _))) => *function,
            _ => return,
        };
        let given: Vec<Value<'p>> =
            call.args.iter().skip(1).map(|(_, _, value)| value.derived()).collect();
        if !given.iter().any(Value::is_tainted) {
            return;
        }
        let held = match &function.peeled().kind {
            ExprKind::Name(held) => state.get(held).and_then(|value| value.function),
            _ => Some(function.peeled()),
        };
        if let Some(ExprKind::Closure { params, body }) = held.map(|expr| &expr.kind) {
            self.closure(params, body, &given, state);
        } else if let Some(number) = self.named_function(function)
            && let Some(summary) = self.summary(number)
        {
            for sink in &summary.sinks {
                if let Some(value) = given.get(usize::from(sink.param))
                    && value.is_tainted()
                {
                    self.taint_reaches(Demand::inside(sink), sink.range, value);
                }
            }
        }
    }

    /// A function of the file that is handed what a framework gives, such as a request, is run with it.
    pub(super) fn note_requests(&mut self, number: usize, call: &Call<'p>) {
        let params = &self.program.functions[number].params;
        let framework = |path: &str| {
            ["http.", "dom.", "vue.", "sio.", "ws.", "next."]
                .iter()
                .any(|root| path.starts_with(root))
                && !path.contains('(')
                && path.matches('.').count() == 1
        };
        let values: Vec<Option<Value<'p>>> = call
            .args
            .iter()
            .zip(params)
            .map(|((_, _, value), param)| {
                let known = param.ty.name.is_empty()
                    && !value.is_tainted()
                    && value.path.as_deref().is_some_and(framework);
                known.then(|| Value::default().with_path(value.path.as_deref().unwrap_or("")))
            })
            .collect();
        let fresh = matches!(self.summaries[number], Progress::New | Progress::Done(_));
        if fresh && values.iter().any(Option::is_some) && self.specialised.insert(number) {
            self.summaries[number] = Progress::Running;
            self.function_with(number, Some(&values));
        }
    }
}

/// Names that stand for the page, the process or a library, not for data.
pub(super) fn is_global(name: &str) -> bool {
    matches!(
        name,
        "$" | "jQuery"
            | "document"
            | "window"
            | "console"
            | "process"
            | "require"
            | "module"
            | "exports"
            | "navigator"
            | "global"
            | "globalThis"
            | "arguments"
            | "angular"
            | "super"
            | "import"
            | "jsx"
            | "fs"
            | "path"
            | "http"
            | "https"
            | "util"
            | "os"
            | "url"
            | "crypto"
            | "child_process"
            | "localStorage"
            | "sessionStorage"
            | "history"
            | "undefined"
            | "event"
            | "test"
            | "describe"
            | "it"
            | "expect"
            | "assert"
    )
}

/// The entries of an object literal.
pub(super) fn entries<'p>(
    expr: &'p Expr<'p>,
    prefix: &str,
    add: &mut impl FnMut(String, &'p Expr<'p>),
) {
    let ExprKind::Dict(items) = &expr.kind else { return };
    for (key, value) in items {
        let Some(ExprKind::Str(key)) = key.as_ref().map(|key| &key.kind) else { continue };
        let key = format!("{prefix}{key}");
        add(key.clone(), value);
        if prefix.is_empty() {
            entries(value, &format!("{key}."), add);
        }
    }
}
