//! Assignments: variables, fields, elements, patterns.

use hardn_types::Language;

use super::{
    Flow,
    go::element_path,
    state::State,
    value::{Atom, Origin, Trace, Value},
};
use crate::ir::{Expr, ExprKind};

impl<'p> Flow<'p, '_> {
    /// Assigns to a variable, field, element, or to several of them.
    pub(super) fn assign(&mut self, target: &'p Expr<'p>, value: Value<'p>, state: &mut State<'p>) {
        self.assign_from(target, None, value, state);
    }

    pub(super) fn assign_from(
        &mut self,
        target: &'p Expr<'p>,
        source: Option<&'p Expr<'p>>,
        value: Value<'p>,
        state: &mut State<'p>,
    ) {
        match &target.kind {
            ExprKind::Tuple(parts) | ExprKind::List(parts) => {
                if let Some(ExprKind::Tuple(items) | ExprKind::List(items)) =
                    source.map(|source| &source.kind)
                    && items.len() == parts.len()
                {
                    let values: Vec<Value<'p>> =
                        items.iter().map(|item| self.eval_value(item, state)).collect();
                    for ((part, item), value) in parts.iter().zip(items).zip(values) {
                        self.assign_from(part, Some(item), value, state);
                    }
                    return;
                }
                if self.language == Language::Go && source.is_some() {
                    return self.assign_results(parts, source, &value, state);
                }
                for part in parts {
                    self.assign_from(part, None, value.derived(), state);
                }
            }
            ExprKind::Star(inner) | ExprKind::Through(inner) => {
                self.assign_from(inner, None, Value { sequence: true, ..value.derived() }, state);
            }
            _ => {
                let place = target.place();
                if let ExprKind::Subscript { base, .. } | ExprKind::Deref(base) = &target.kind {
                    // The container holds it too.
                    if let Some(place) = base.place().filter(|_| value.is_tainted()) {
                        state.add(&place, &value);
                    }
                }
                let Some(place) = place else { return };
                let mut value = value;
                self.keep_class(target, &mut value, state);
                if self.language == Language::Python && source.is_some() {
                    self.mind_name(target, &mut value);
                }
                state.set(&place, value);
                if self.language == Language::Go
                    && let Some(ExprKind::Construct { callee, args }) =
                        source.map(|source| &source.kind)
                {
                    self.assign_fields(&place, callee, args, state);
                }
                if let Some(ExprKind::Dict(entries)) = source.map(|source| &source.kind) {
                    for (key, item) in entries {
                        if let Some(ExprKind::Str(key)) = key.as_ref().map(|key| &key.kind) {
                            let part = self.eval_value(item, state);
                            let field = match self.language {
                                Language::JavaScript | Language::TypeScript => {
                                    format!("{place}.{key}")
                                }
                                _ => format!("{place}[{key}]"),
                            };
                            state.set(&field, part);
                        }
                    }
                }
            }
        }
    }

    /// A name that one rule minds, such as that of a secret, says so of what it is given.
    pub(super) fn mind_name(&self, target: &Expr<'p>, value: &mut Value<'p>) {
        let ExprKind::Name(name) = target.kind else { return };
        if value.text.is_some() || value.constant.is_some() {
            return;
        }
        if let Some(source) = self.index.value_source(name, self.frame.name)
            && source.clean != 0
            && source.clean != u128::MAX
            && !value.atoms().iter().any(|atom| atom.own)
        {
            let trace = Trace::start(target.range, format!("`{name}` is a secret by its name"));
            value.absorb(&Value::of_atom(Atom::only_for(Origin::Remote, source.clean, trace)));
        }
    }

    /// Binds a loop's target to an element.
    pub(super) fn bind_element(
        &mut self,
        target: &'p Expr<'p>,
        iterable: &'p Expr<'p>,
        whole: &Value<'p>,
        state: &mut State<'p>,
    ) {
        let mut element = whole.derived();
        if self.language == Language::Go {
            element.path = whole.path.as_ref().map(|path| element_path(path));
        }
        element.alias = iterable.peeled().place().filter(|_| element.is_tainted()).map(Into::into);
        match &target.kind {
            ExprKind::Tuple(parts) | ExprKind::List(parts) => {
                let callee = if let ExprKind::Call { callee, .. } = &iterable.kind {
                    callee.dotted(&self.program.imports)
                } else {
                    None
                };
                let counts = callee.as_deref() == Some("enumerate");
                for (number, part) in parts.iter().enumerate() {
                    let value =
                        if counts && number == 0 { Value::default() } else { element.clone() };
                    self.assign(part, value, state);
                }
            }
            _ => self.assign(target, element, state),
        }
    }
}
