//! What is assumed of calls in Ruby that no rule and no method of the file explains.

use crate::ir::{Expr, ExprKind};

use super::{
    Flow,
    call::Call,
    value::{HOLE_TEXT, Value, concat},
};

/// Methods whose result says nothing of what it was made from.
const MEASURES: &[&str] = &[
    "size",
    "length",
    "count",
    "index",
    "rindex",
    "find_index",
    "bytesize",
    "hash",
    "object_id",
    "class",
    "ord",
    "close",
    "==",
    "!",
    "=~",
    "===",
    "<=>",
    "save",
    "save!",
    "destroy",
    "permit!",
];

/// Methods that give the same text back, maybe in another shape.
const SAME_TEXT: &[&str] = &[
    "strip",
    "lstrip",
    "rstrip",
    "chomp",
    "downcase",
    "upcase",
    "capitalize",
    "to_s",
    "to_str",
    "freeze",
    "dup",
    "clone",
    "b",
    "scrub",
    "encode",
    "force_encoding",
    "squish",
    "itself",
    "unicode_normalize",
    "strip_heredoc",
    "swapcase",
    "dump",
    "presence",
    "html_safe",
    "tap",
];

/// Methods that put their arguments into what they are called on, or make an object of them.
const FILLS: &[&str] =
    &["sub", "gsub", "sub!", "gsub!", "insert", "prepend", "replace", "center", "new"];

/// Methods whose result is what their block gives.
const MAPS: &[&str] =
    &["map", "collect", "flat_map", "filter_map", "map!", "collect!", "to_h", "sum"];

/// Calls that do not come back; `logger.fatal` does.
pub(super) fn never_returns(expr: &Expr<'_>) -> bool {
    let ExprKind::Call { callee, .. } = &expr.peeled().kind else { return false };
    matches!(callee.kind, ExprKind::Name("exit" | "exit!" | "abort" | "halt" | "throw"))
}

impl<'p> Flow<'p, '_> {
    pub(super) fn ruby_result(&mut self, call: &Call<'p>, explained: bool) -> Value<'p> {
        let block = call.args.iter().find(|(name, ..)| *name == Some("&block"));
        let Some((_, receiver)) = &call.receiver else {
            if self.snippet() {
                let value = Self::all_parts(call);
                if value.is_tainted() {
                    return value;
                }
            }
            return self.unexplained(call, explained);
        };
        if call.name.ends_with('?') || MEASURES.contains(&call.name) {
            return Value::default();
        }
        if SAME_TEXT.contains(&call.name) {
            return Value { alias: None, test: None, path: None, ..receiver.clone() };
        }
        if call.name == "join" && (receiver.sequence || receiver.is_tainted()) {
            let mut value = receiver.derived();
            let range = call.range;
            value.change(|atom| {
                atom.built = true;
                atom.trace = atom.trace.step(range, "is joined to a text".to_owned());
            });
            let text = receiver.text.clone().filter(|_| receiver.sequence);
            value.text = Some(text.unwrap_or_else(|| HOLE_TEXT.into()));
            return value;
        }
        if matches!(call.name, "<<" | "concat") && !receiver.sequence {
            let parts = std::iter::once(receiver).chain(call.args.iter().map(|(_, _, part)| part));
            return concat(&parts.cloned().collect::<Vec<_>>());
        }
        let mut value = receiver.derived();
        if FILLS.contains(&call.name) {
            // What is put in; a pattern that comes first is not.
            let first = usize::from(call.name.contains("sub"));
            for (_, _, part) in call.args.iter().filter(|(name, ..)| name.is_none()).skip(first) {
                value.absorb(&part.derived());
            }
            value.change(|atom| atom.built = true);
        }
        value.sequence = receiver.sequence && !matches!(call.name, "first" | "last" | "[]");
        if let Some((_, expr, result)) = block {
            if MAPS.contains(&call.name) && matches!(expr.kind, ExprKind::Closure { .. }) {
                value = Value { sequence: true, ..result.derived() };
            } else {
                value.absorb(result);
            }
        }
        if self.snippet() {
            for (_, _, part) in &call.args {
                value.absorb(part);
            }
        }
        if value.is_tainted() { value } else { self.unexplained(call, explained) }
    }

    fn unexplained(&self, call: &Call<'p>, explained: bool) -> Value<'p> {
        if explained {
            Value::default()
        } else {
            self.unknown(call.range, &format!("the result of `{}`", call.name))
        }
    }
}
