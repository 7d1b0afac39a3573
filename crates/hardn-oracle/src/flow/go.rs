//! What only Go has: several results, struct literals, types of fields, receivers.

use super::{Flow, operator::is_test, state::State, value::Value};
use crate::ir::{Arg, Expr, ExprKind};

/// The path of a function that returns `nil` whatever it is given.
pub(super) const NIL_FUNCTION: &str = "nil()";

impl<'p> Flow<'p, '_> {
    /// Several results of one call: the first is what it is about, the last says whether all went well.
    pub(super) fn assign_results(
        &mut self,
        parts: &'p [Expr<'p>],
        source: Option<&'p Expr<'p>>,
        value: &Value<'p>,
        state: &mut State<'p>,
    ) {
        for (at, part) in parts.iter().enumerate() {
            let mut result =
                if at > 0 && at + 1 == parts.len() { Value::default() } else { value.derived() };
            if at == 0 {
                result.path.clone_from(&value.path);
                result.sequence = value.sequence;
                result.test = source.filter(|source| is_test(source));
            } else if at + 1 < parts.len() {
                result.path = value.path.as_ref().map(|path| format!("{path}#{at}").into());
            }
            self.assign_from(part, None, result, state);
        }
    }

    /// The fields a struct literal fills.
    pub(super) fn assign_fields(
        &mut self,
        place: &str,
        callee: &'p Expr<'p>,
        args: &'p [Arg<'p>],
        state: &mut State<'p>,
    ) {
        if let ExprKind::Name(name) = &callee.kind
            && let Some(fields) = self.program.structs.get(name)
        {
            for (field, ty) in fields {
                let empty = Value::default().with_path(&ty.name);
                state.set(&format!("{place}.{field}"), empty);
            }
        }
        for arg in args {
            if let Some(name) = arg.name {
                let part = self.eval_for(place, &arg.value, state);
                state.set(&format!("{place}.{name}"), part);
            }
        }
    }

    /// The path of a member of something of this path: where the file says the type, the type's.
    pub(super) fn member_path(&self, path: &str, name: &str) -> String {
        let mut path = path;
        for _ in 0..4 {
            let Some(fields) = self.program.structs.get(path) else { break };
            if let Some(ty) = fields.get(name).filter(|ty| !ty.name.is_empty()) {
                return ty.name.to_string();
            }
            // What an embedded type has, the struct has too.
            let embedded = fields.iter().find(|(field, ty)| {
                ty.name.rsplit('.').next() == Some(**field) && ty.name.as_ref() != path
            });
            match embedded {
                Some((_, ty)) => path = &ty.name,
                None => break,
            }
        }
        format!("{path}.{name}")
    }
}

/// The path of an element: a list of a known type holds values of that type.
pub(super) fn element_path(path: &str) -> std::rc::Rc<str> {
    match path.strip_prefix("[]") {
        Some(element) => element.into(),
        None => format!("{path}[]").into(),
    }
}
