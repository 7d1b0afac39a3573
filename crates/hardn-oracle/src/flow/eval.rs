//! The value of an expression, and what evaluating it does to the state.

use hardn_types::Language;

use super::{
    Flow, MAX_CLOSURE_DEPTH, MAX_CLOSURE_RUNS, constants,
    state::State,
    summary::Summary,
    text, types,
    value::{Atom, Constant, HOLE_TEXT, Origin, Trace, Value, concat},
};
use crate::{
    ir::{Arg, BinaryOp, Expr, ExprKind, Param, Stmt},
    rules::Operation,
    walk,
};

/// What rules know a function by that says yes to everything.
const ALWAYS_TRUE: &str = "->true";

/// The path of a function that returns `nil` whatever it is given.
const NIL_FUNCTION: &str = "nil()";

/// The text of a hash in Ruby, by which rules know one.
const HASH_TEXT: &str = "{}";

impl<'p> Flow<'p, '_> {
    pub(super) fn eval_value(&mut self, expr: &'p Expr<'p>, state: &mut State<'p>) -> Value<'p> {
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

    fn binary(
        &mut self,
        expr: &'p Expr<'p>,
        op: BinaryOp,
        left: &'p Expr<'p>,
        right: &'p Expr<'p>,
        state: &mut State<'p>,
    ) -> Value<'p> {
        let first = self.eval_value(left, state);
        match op {
            BinaryOp::And | BinaryOp::Or => {
                let second = match self.refine(left, op == BinaryOp::And, state.clone()) {
                    Some(mut refined) => {
                        let second = self.eval_value(right, &mut refined);
                        state.join(refined);
                        Some(second)
                    }
                    None => None,
                };
                let constant = match (op, first.truth(), second.as_ref().and_then(Value::truth)) {
                    (BinaryOp::And, Some(false), _) | (BinaryOp::And, _, Some(false)) => {
                        Some(false)
                    }
                    (BinaryOp::Or, Some(true), _) | (BinaryOp::Or, _, Some(true)) => Some(true),
                    (_, Some(_), last) => last,
                    _ => None,
                };
                let mut result = first;
                if let Some(second) = second {
                    result.join(&second);
                }
                result.constant = constant.filter(|_| result.text.is_none()).map(Constant::Bool);
                result
            }
            BinaryOp::Eq
            | BinaryOp::Ne
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::In
            | BinaryOp::NotIn
            | BinaryOp::Is
            | BinaryOp::IsNot => {
                let second = self.eval_value(right, state);
                if matches!(op, BinaryOp::In | BinaryOp::NotIn) {
                    self.check_contains(expr.range, &first, &second);
                }
                if matches!(op, BinaryOp::Eq | BinaryOp::Ne) {
                    for (named, other) in [(left, right), (right, left)] {
                        if let Some(name) = last_name(named) {
                            self.check_literal(&name, other);
                        }
                    }
                }
                let constant = compare(op, &first, &second).map(Constant::Bool);
                Value { constant, ..Value::default() }
            }
            _ => {
                let second = self.eval_value(right, state);
                let formats = match self.language {
                    Language::Python => true,
                    Language::Ruby => first.text.is_some(),
                    _ => false,
                };
                if op == BinaryOp::Mod && formats {
                    let items: Vec<Value<'p>> = match &right.kind {
                        ExprKind::Tuple(items) => {
                            items.iter().map(|item| self.eval_value(item, state)).collect()
                        }
                        _ => vec![second.clone()],
                    };
                    if first.text.is_some() || first.is_tainted() || second.is_tainted() {
                        let names = first.text.clone().unwrap_or_default();
                        let named = self.mapping(right, &text::names(&names), state);
                        return text::percent(
                            &first,
                            &items,
                            &named,
                            second.sequence,
                            self.converted,
                            expr.range,
                        );
                    }
                }
                self.combine(op, &first, &second, expr)
            }
        }
    }

    /// What a mapping holds for these names, as far as it shows: `{"a": b}`, `locals()`.
    fn mapping<'n>(
        &mut self,
        expr: &'p Expr<'p>,
        names: &[&'n str],
        state: &mut State<'p>,
    ) -> Vec<(&'n str, Value<'p>)> {
        let mut out = Vec::new();
        for name in names {
            let value = match &expr.peeled().kind {
                ExprKind::Dict(entries) => {
                    let entry = entries.iter().find(|(key, _)| {
                        matches!(key.as_ref().map(|key| &key.kind),
                            Some(ExprKind::Str(key)) if key == name)
                    });
                    entry.map(|(_, value)| self.eval_value(value, state))
                }
                ExprKind::Call { callee, args }
                    if args.is_empty()
                        && matches!(callee.kind, ExprKind::Name("locals" | "vars")) =>
                {
                    Some(state.get(name).cloned().unwrap_or_default())
                }
                _ => None,
            };
            out.extend(value.map(|value| (*name, value)));
        }
        out
    }

    pub(super) fn combine(
        &mut self,
        op: BinaryOp,
        first: &Value<'p>,
        second: &Value<'p>,
        expr: &Expr<'p>,
    ) -> Value<'p> {
        if self.is_typed()
            && let Some(value) = self.arithmetic(op, first, second, expr)
        {
            return value;
        }
        if let (Some(Constant::Int(a)), Some(Constant::Int(b))) = (first.constant, second.constant)
        {
            let result = match op {
                BinaryOp::Add => a.checked_add(b),
                BinaryOp::Sub => a.checked_sub(b),
                BinaryOp::Mul => a.checked_mul(b),
                BinaryOp::BitOr => Some(a | b),
                BinaryOp::BitAnd => Some(a & b),
                BinaryOp::Mod => a.checked_rem(b),
                BinaryOp::Div => a.checked_div(b),
                BinaryOp::Shl if (0..62).contains(&b) => a.checked_mul(1 << b),
                _ => None,
            };
            return result
                .map(|number| Value::of_constant(Constant::Int(number)))
                .unwrap_or_default();
        }
        let range = expr.range;
        match op {
            BinaryOp::Add if self.language == Language::C => {
                let mut value = first.derived();
                value.absorb(second);
                value
            }
            BinaryOp::Add if first.sequence || second.sequence => {
                let mut value = first.derived();
                value.absorb(second);
                value.sequence = true;
                value
            }
            BinaryOp::Add => {
                let mut value = concat(&[first.clone(), second.clone()]);
                value.change(|atom| {
                    atom.trace = atom.trace.step(range, "is joined to a text".to_owned());
                });
                value
            }
            BinaryOp::Div if self.language == Language::Python => {
                // `base / name` joins paths; numbers carry no taint worth following.
                let mut value = first.derived();
                value.change(|atom| atom.leading = true);
                let mut tail = second.derived();
                tail.change(|atom| atom.built = true);
                value.absorb(&tail);
                value.change(|atom| atom.built = true);
                value.change(|atom| {
                    atom.trace = atom.trace.step(range, "is joined to a path".to_owned());
                });
                value.path.clone_from(&first.path);
                value
            }
            BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod if self.is_typed() => {
                let mut value = first.derived();
                value.absorb(second);
                self.as_number(value)
            }
            BinaryOp::Sub if self.language != Language::Python => first.derived(),
            BinaryOp::Mul if self.language == Language::Go => {
                let mut value = first.derived();
                value.absorb(second);
                value.change(|atom| atom.built = true);
                value
            }
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Shl | BinaryOp::BitAnd
                if self.has_objects() =>
            {
                let mut value = first.derived();
                value.absorb(second);
                self.as_number(value)
            }
            BinaryOp::Mul if first.text.is_some() || second.text.is_some() => Value::default(),
            BinaryOp::BitOr => {
                let mut value = first.derived();
                value.absorb(second);
                value
            }
            _ => Value::default(),
        }
    }

    /// Assigns to a variable, field, element, or to several of them.
    pub(super) fn assign(&mut self, target: &'p Expr<'p>, value: Value<'p>, state: &mut State<'p>) {
        self.assign_from(target, None, value, state);
    }

    fn assign_from(
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
    fn mind_name(&self, target: &Expr<'p>, value: &mut Value<'p>) {
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

    /// Several results of one call: the first is what it is about, the last says whether all went well.
    fn assign_results(
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
    fn assign_fields(
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

/// The path of an element: a list of a known type holds values of that type.
fn element_path(path: &str) -> std::rc::Rc<str> {
    match path.strip_prefix("[]") {
        Some(element) => element.into(),
        None => format!("{path}[]").into(),
    }
}

/// Names that stand for the page, the process or a library, not for data.
fn is_global(name: &str) -> bool {
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

/// An expression whose outcome says something of its parts.
pub(super) fn is_test(expr: &Expr<'_>) -> bool {
    matches!(
        expr.peeled().kind,
        ExprKind::Call { .. }
            | ExprKind::Not(_)
            | ExprKind::Binary {
                op: BinaryOp::Eq
                    | BinaryOp::Ne
                    | BinaryOp::In
                    | BinaryOp::NotIn
                    | BinaryOp::And
                    | BinaryOp::Or
                    | BinaryOp::Is
                    | BinaryOp::IsNot
                    | BinaryOp::Lt
                    | BinaryOp::Le
                    | BinaryOp::Gt
                    | BinaryOp::Ge,
                ..
            }
    )
}

pub(super) fn compare(op: BinaryOp, first: &Value<'_>, second: &Value<'_>) -> Option<bool> {
    if let (Some(Constant::Int(a)), Some(Constant::Int(b))) = (first.constant, second.constant) {
        return match op {
            BinaryOp::Eq | BinaryOp::Is => Some(a == b),
            BinaryOp::Ne | BinaryOp::IsNot => Some(a != b),
            BinaryOp::Lt => Some(a < b),
            BinaryOp::Le => Some(a <= b),
            BinaryOp::Gt => Some(a > b),
            BinaryOp::Ge => Some(a >= b),
            _ => None,
        };
    }
    if let (Some(a), Some(b)) = (first.full_text(), second.full_text()) {
        return match op {
            BinaryOp::Eq => Some(a == b),
            BinaryOp::Ne => Some(a != b),
            BinaryOp::In => Some(b.contains(a)),
            BinaryOp::NotIn => Some(!b.contains(a)),
            _ => None,
        };
    }
    None
}
