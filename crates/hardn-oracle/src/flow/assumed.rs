//! What is assumed of calls that neither a rule nor the file explains.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    text,
    value::{HOLE_TEXT, Value},
};
use crate::{ir::ExprKind, rules::Hit};

impl<'p> Flow<'p, '_> {
    /// The result of a call nobody explains.
    pub(super) fn assumed_result(&mut self, call: &Call<'p>) -> Value<'p> {
        if self.language == Language::Ruby {
            return self.ruby_result(call, !call.hits.is_empty());
        }
        if self.has_objects() && self.snippet() && call.hits.is_empty() {
            // Nothing says what comes back.
            let mut value = self.unknown(call.range, &format!("the result of `{}`", call.name));
            if let Some((_, receiver)) = &call.receiver {
                value.absorb(receiver);
            }
            return value;
        }
        if self.language != Language::Python {
            return Value::default();
        }
        // A sink that takes calls of any name says nothing of this one.
        let unnamed = call.hits.iter().all(
            |hit| matches!(hit, Hit::Sink { sink, .. } if sink.call.iter().any(|name| name == "**")),
        );
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
            if self.snippet() || unnamed {
                for (_, _, part) in &call.args {
                    value.absorb(part);
                }
            }
            if value.is_tainted() {
                return value;
            }
        } else if self.snippet() || unnamed {
            let value = Self::all_parts(call);
            if value.is_tainted() {
                return value;
            }
        }
        let explained = !call.hits.is_empty()
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
                Some(text::braces(receiver, &items, &named, self.converted, call.range))
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
}
