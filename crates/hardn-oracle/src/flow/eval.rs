//! The value of an expression, and what evaluating it does to the state.

use hardn_types::Language;

use super::{
    Flow, constants,
    go::{NIL_FUNCTION, element_path},
    javascript::is_global,
    operator::is_test,
    state::State,
    types,
    value::{Atom, Constant, HOLE_TEXT, Origin, Trace, Value, concat},
};
use crate::{
    ir::{Expr, ExprKind},
    rules::Operation,
};

/// The text of a hash in Ruby, by which rules know one.
const HASH_TEXT: &str = "{}";

impl<'p> Flow<'p, '_> {
    pub(super) fn eval_value(&mut self, expr: &'p Expr<'p>, state: &mut State<'p>) -> Value<'p> {
        if !self.report.step() {
            return Value::default();
        }
        match &expr.kind {
            ExprKind::Name(name) => self.name(name, expr, state),
            ExprKind::Attribute { base, name, .. } => self.attribute(expr, base, name, state),
            ExprKind::Subscript { base, index } => self.subscript(expr, base, index, state),
            ExprKind::Int(number) => Value::of_constant(Constant::Int(*number)),
            ExprKind::Bool(value) => Value::of_constant(Constant::Bool(*value)),
            ExprKind::Null => Value::of_constant(Constant::Null),
            ExprKind::Str(text) => Value::of_text(text),
            ExprKind::Float | ExprKind::SizeofType(_) => Value::default(),

            ExprKind::Format(parts) => {
                let parts: Vec<Value<'p>> =
                    parts.iter().map(|part| self.eval_value(part, state)).collect();
                let mut value = concat(&parts);
                let range = expr.range;
                value.change(|atom| {
                    atom.trace = atom.trace.step(range, "is put into a text".to_owned());
                });
                if value.text.is_none() {
                    value.text = Some(HOLE_TEXT.into());
                }
                value
            }
            ExprKind::Call { callee, args } => self.call(expr, callee, args, state),
            ExprKind::Construct { callee, args } => {
                let mut value = self.call(expr, callee, args, state);
                // A rule may know the type better.
                let typed = self.is_typed()
                    || (self.language == Language::Go
                        && value.path.as_ref().is_some_and(|path| !path.ends_with("()")));
                if !typed && let Some(path) = callee.dotted(&self.program.imports) {
                    value.path = Some(path.into());
                }
                value
            }
            ExprKind::Closure { params, body } => {
                let mut value = self.closure(params, body, &[], state);
                value.function = Some(expr);
                value
            }
            ExprKind::New { args, .. } => {
                for arg in args {
                    self.eval_value(&arg.value, state);
                }
                Value::default()
            }
            ExprKind::List(items) | ExprKind::Tuple(items) | ExprKind::Set(items) => {
                let mut value = Value { sequence: true, ..Value::default() };
                let mut words = String::new();
                for (at, item) in items.iter().enumerate() {
                    let part = self.eval_value(item, state);
                    if at > 0 {
                        words.push(' ');
                    }
                    match part.constant {
                        Some(Constant::Int(number)) if self.is_typed() => {
                            words.push_str(&number.to_string());
                        }
                        _ => words.push_str(part.text.as_deref().unwrap_or(HOLE_TEXT)),
                    }
                    if self.is_typed() && value.path.is_none() {
                        value.path.clone_from(&part.path);
                    }
                    value.absorb(&part);
                }
                value.text = Some(words.into());
                value
            }
            ExprKind::Dict(entries) => {
                let mut value = Value { sequence: true, ..Value::default() };
                if self.language == Language::Ruby {
                    value.text = Some(HASH_TEXT.into());
                }
                for (key, item) in entries {
                    let mut name = None;
                    if let Some(key) = key {
                        let part = self.eval_value(key, state);
                        name = part.full_text().map(str::to_owned);
                        value.absorb(&part);
                    }
                    if let (Some(name), ExprKind::Closure { params, body }) = (&name, &item.kind)
                        && let Some(handler) = self.object_handler(name)
                    {
                        let given = self.given_to(handler, params.len(), item, None);
                        let answers = handler.answers.then_some(self.closures + 1);
                        let outer = std::mem::replace(&mut self.answering, answers);
                        self.closure(params, body, &given, state);
                        self.answering = outer;
                        continue;
                    }
                    let mut part = self.eval_value(item, state);
                    if let Some(name) = name {
                        self.check_literal(&name, item);
                        if self.has_objects() {
                            self.add_named(&name, item, &mut part);
                            self.check_entry(&name, item, &part);
                        }
                    }
                    value.absorb(&part);
                }
                value
            }
            ExprKind::Binary { op, left, right } => self.binary(expr, *op, left, right, state),
            ExprKind::Not(inner) => {
                let value = self.eval_value(inner, state);
                let constant = value.truth().map(|truth| Constant::Bool(!truth));
                if self.has_objects() {
                    return Value { constant, ..self.as_number(value.derived()) };
                }
                Value { constant, ..Value::default() }
            }
            ExprKind::Minus(inner) | ExprKind::SizeofValue(inner) | ExprKind::Free(inner) => {
                self.eval_value(inner, state);
                Value::default()
            }
            ExprKind::Through(inner)
            | ExprKind::Star(inner)
            | ExprKind::Deref(inner)
            | ExprKind::AddressOf(inner) => self.eval_value(inner, state),
            ExprKind::Cast { ty, value } => {
                let value = self.eval_value(value, state);
                let value = if self.is_typed() { self.cast(expr, value, ty) } else { value };
                if self.is_number(ty) { self.as_number(value) } else { value }
            }
            ExprKind::Conditional { test, then, otherwise } => {
                self.eval_value(test, state);
                let mut result: Option<Value<'p>> = None;
                for (truth, arm) in [(true, then), (false, otherwise)] {
                    if let Some(mut refined) = self.refine(test, truth, state.clone()) {
                        let value = self.eval_value(arm, &mut refined);
                        match &mut result {
                            Some(known) => known.join(&value),
                            none => *none = Some(value),
                        }
                    }
                }
                result.unwrap_or_default()
            }
            ExprKind::Assign { op, target, value } => {
                let name = last_name(target);
                let mut result = self.eval_for(name.as_deref().unwrap_or(""), value, state);
                self.add_named(name.as_deref().unwrap_or(""), target, &mut result);
                if let Some(op) = op {
                    let before = self.eval_value(target, state);
                    if self.is_typed() {
                        self.check_narrowed(expr, &before, &result);
                    }
                    result = self.combine(*op, &before, &result, expr);
                } else if let Some(name) = &name {
                    self.check_literal(name, value);
                    self.check_attribute(target, value, &result);
                }
                self.check_assigned(target, value, &result, state);
                self.check_key(target, state);
                self.check_written(target, state);
                self.apply_setting(*op, target, value, state);
                if self.is_typed() && result.path.as_deref() == Some(types::PRODUCT) {
                    let path = self.eval_value(target, state).path;
                    self.check_widened(value, &result, path.as_deref().unwrap_or(""));
                }
                if op.is_none() {
                    result.test = is_test(value).then_some(&**value);
                    result.alias =
                        value.peeled().place().filter(|_| result.is_tainted()).map(Into::into);
                }
                self.assign_from(target, Some(value), result.clone(), state);
                result
            }
            ExprKind::Update { target, .. } => {
                let value = self.eval_value(target, state);
                if let Some(place) = target.place() {
                    let mut value = value.clone();
                    value.constant = None;
                    state.set(&place, value);
                }
                value.derived()
            }
            ExprKind::Lambda { params, body } => {
                let mut inner = state.clone();
                for param in params {
                    inner.set(param, self.unknown(expr.range, "a lambda's parameter"));
                }
                self.eval_value(body, &mut inner);
                Value::default()
            }
            ExprKind::Comprehension { element, clauses, conditions } => {
                let mut inner = state.clone();
                for (target, iterable) in clauses {
                    let whole = self.eval_value(iterable, &mut inner);
                    self.bind_element(target, iterable, &whole, &mut inner);
                }
                for condition in conditions {
                    self.eval_value(condition, &mut inner);
                    if let Some(refined) = self.refine(condition, true, inner.clone()) {
                        inner = refined;
                    }
                }
                let mut value = Value { sequence: true, ..Value::default() };
                for part in element {
                    let part = self.eval_value(part, &mut inner);
                    value.absorb(&part);
                }
                value
            }

            ExprKind::Sequence(parts) => {
                let mut last = Value::default();
                for part in parts {
                    last = self.eval_value(part, state);
                }
                last
            }
            ExprKind::Slice(parts) | ExprKind::Unknown(parts) => {
                let mut value = Value::default();
                for part in parts {
                    let part = self.eval_value(part, state);
                    value.absorb(&part);
                }
                value
            }
        }
    }

    /// The value of an expression that is assigned to a variable of this name.
    pub(super) fn eval_for(
        &mut self,
        name: &str,
        expr: &'p Expr<'p>,
        state: &mut State<'p>,
    ) -> Value<'p> {
        let outer = self.frame.target.replace(name.to_owned());
        let value = self.eval_value(expr, state);
        self.frame.target = outer;
        value
    }

    fn name(&mut self, name: &'p str, expr: &'p Expr<'p>, state: &mut State<'p>) -> Value<'p> {
        if let Some(value) = state.get(name) {
            let mut value = value.clone();
            if value.path.is_none() && !value.sequence {
                value.path = Some(name.into());
            }
            return value;
        }
        if let Some(number) = self.program.constants.get(name) {
            return Value::of_constant(Constant::Int(*number));
        }
        if let Some(number) = constants::number(name) {
            return Value::of_constant(Constant::Int(number));
        }
        if let Some(path) = self.program.imports.get(name) {
            return self.source_value(path, expr).unwrap_or_else(|| Value::of_path(path));
        }
        if self.frame.number != 0
            && let Some(value) = self.module.get(name)
        {
            return value.clone();
        }
        if self.language == Language::Ruby
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some(fields) = self.frame.class.and_then(|class| self.fields.get(class))
            && let Some(value) = fields.get(&format!("self.{name}"))
        {
            // A constant of the class.
            return value.clone();
        }
        if let Some(value) = self.source_value(name, expr) {
            return value;
        }
        if self.language == Language::Go
            && let Some([number]) = self.by_name.get(name).map(Vec::as_slice)
            && let Some(summary) = self.summary(*number)
            && summary.returned.as_ref().is_some_and(|value| value.constant == Some(Constant::Null))
        {
            return Value::of_path(NIL_FUNCTION);
        }
        let known = self.by_name.contains_key(name)
            || self.program.classes.contains_key(name)
            || name == "this"
            || matches!(name, "self" | "cls")
            // A snippet of JavaScript is often the inside of a function.
            || (self.frame.number == 0 && !self.has_objects())
            || name.starts_with("__")
            // Constants and classes by convention.
            || name.chars().next().is_some_and(|c| c.is_uppercase() || c == '_')
            || (self.language != Language::Python && (!self.has_objects() || is_global(name)));
        let value =
            if known { Value::default() } else { self.unknown(expr.range, &format!("`{name}`")) };
        let mut value = value.with_path(name);
        self.add_named(name, expr, &mut value);
        value
    }

    /// What a name says of the value that is kept under it.
    fn add_named(&self, name: &str, at: &Expr<'p>, value: &mut Value<'p>) {
        if let Some(clean) = self.index.named(name) {
            let trace = Trace::start(at.range, format!("`{name}` is its name"));
            value.absorb(&Value::of_atom(Atom::only_for(Origin::Remote, clean, trace)));
        }
    }

    /// A name or attribute that is a source.
    pub(super) fn source_value(&self, path: &str, expr: &Expr<'p>) -> Option<Value<'p>> {
        let source = self.index.value_source(path, self.frame.name)?;
        let (origin, what) = if source.local {
            (Origin::Local, "this machine")
        } else {
            (Origin::Remote, "outside the program")
        };
        let trace = Trace::start(expr.range, format!("`{path}` comes from {what}"));
        let atom = Atom::only_for(origin, source.clean, trace);
        Some(Value::of_atom(atom).with_path(path))
    }

    fn attribute(
        &mut self,
        expr: &'p Expr<'p>,
        base: &'p Expr<'p>,
        name: &'p str,
        state: &mut State<'p>,
    ) -> Value<'p> {
        let place = expr.place();
        if let Some(value) = place.as_deref().and_then(|place| state.get(place)) {
            return value.clone();
        }
        if let Some(dotted) = expr.dotted(&self.program.imports) {
            if let Some(text) = constants::text(&dotted) {
                return Value::of_text(text);
            }
            if let Some(value) = self.source_value(&dotted, expr) {
                return value;
            }
        }
        let on_self = matches!(base.kind, ExprKind::Name("self" | "cls"));
        if on_self && let Some(class) = self.frame.class {
            if let Some(value) =
                self.fields.get(class).and_then(|fields| fields.get(&format!("self.{name}")))
            {
                return value.clone();
            }
            let path = match self.language {
                Language::Go => self.member_path(class, name),
                _ => format!("self.{name}"),
            };
            if self.language == Language::Go
                && let Some(source) = self.source_value(&path, expr)
            {
                return source;
            }
            return self.unknown(expr.range, &format!("`self.{name}`")).with_path(&path);
        }
        if let Some(value) = place.as_deref().and_then(|place| self.module.get(place)) {
            return value.clone();
        }
        if self.is_typed()
            && let ExprKind::Name(class) = base.kind
            && self.program.classes.contains_key(class)
            && state.get(class).is_none()
        {
            self.class_fields(class);
            let place = format!("self.{name}");
            if let Some(value) = self.fields.get(class).and_then(|fields| fields.get(&place)) {
                return value.clone();
            }
        }
        if let Some(number) = constants::number(name) {
            return Value::of_constant(Constant::Int(number));
        }
        let value = self.eval_value(base, state);
        if name == "length" && self.has_objects() {
            return Value::default();
        }
        let path = value.path.as_ref().map(|path| match self.language {
            Language::Go => self.member_path(path, name),
            _ => format!("{path}.{name}"),
        });
        let mut result = value.derived();
        if let Some(path) = path {
            // A parameter's own taint says less than what its type says of the field.
            let declared = !matches!(self.language, Language::Python | Language::C | Language::Cpp);
            if (result.atoms().is_empty()
                || declared && result.atoms().iter().all(|atom| atom.origin < Origin::Local))
                && let Some(source) = self.source_value(&path, expr)
            {
                return source;
            }
            result.clean(self.index.clean_of_value(&path));
            self.add_named(name, expr, &mut result);
            result.path =
                Some(self.index.type_of_value(&path).map_or(path.as_str(), |name| name).into());
        }
        result
    }

    fn subscript(
        &mut self,
        expr: &'p Expr<'p>,
        base: &'p Expr<'p>,
        index: &'p Expr<'p>,
        state: &mut State<'p>,
    ) -> Value<'p> {
        let position = self.eval_value(index, state);
        if self.is_typed() {
            self.check_operand(Operation::Index, index, &position);
        }
        if let Some(value) = expr.place().as_deref().and_then(|place| state.get(place)) {
            return value.clone();
        }
        if let Some(dotted) = expr.dotted(&self.program.imports)
            && let Some(value) = self.source_value(&dotted, expr)
        {
            return value;
        }
        let value = self.eval_value(base, state);
        if let (Some(text), Some(Constant::Int(at))) = (value.full_text(), position.constant) {
            let letter = usize::try_from(at).ok().and_then(|at| text.chars().nth(at));
            if let Some(letter) = letter.filter(|_| !value.is_tainted()) {
                return Value::of_text(letter.encode_utf8(&mut [0; 4]));
            }
        }
        let mut result = value.derived();
        if self.language == Language::Go {
            result.path = match index.kind {
                ExprKind::Slice(_) => value.path.clone(),
                _ => value.path.as_ref().map(|path| element_path(path)),
            };
        }
        if matches!(index.kind, ExprKind::Slice(_)) {
            // A slice keeps what kind of thing it was cut from.
            result.sequence = value.sequence;
        }
        let chooses = self.index.chooses;
        if chooses != 0 && position.is_tainted() {
            let mut position = position.derived();
            let picked = self.index.picked;
            position.retain(|atom| atom.clean & chooses != chooses && (picked == 0 || !atom.built));
            position.change(|atom| {
                atom.clean |= !chooses;
                atom.marks |= picked;
            });
            result.absorb(&position);
        }
        result
    }
}

/// The last component of what is named: a variable, a field, a key.
pub(super) fn last_name(expr: &Expr<'_>) -> Option<String> {
    match &expr.kind {
        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => Some((*name).to_owned()),
        ExprKind::Subscript { index, .. } => match &index.kind {
            ExprKind::Str(key) => Some(key.to_string()),
            _ => None,
        },
        ExprKind::Call { args, .. } => match args.first().map(|arg| &arg.value.kind) {
            Some(ExprKind::Str(key)) => Some(key.to_string()),
            _ => None,
        },
        _ => None,
    }
}
