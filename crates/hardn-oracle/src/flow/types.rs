//! Declared types: what rules know an object by is its class, followed by flags such as `Cookie+secure`.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    effect::filled_place,
    given::MAX_GIVEN,
    sink::Demand,
    state::State,
    summary::Summary,
    value::{Constant, Origin, Value},
};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Function, Range, Stmt, StmtKind, Type},
    rules::{Body, CallModel, Hit, MemoryCheck, MethodModel, Operation, ResultModel, Sink, glob},
};

/// How far up classes are followed.
const MAX_SUPERS: usize = 6;

/// A path that is the name of a class, perhaps with flags, rather than the way to a value.
pub(super) fn is_class(path: &str) -> bool {
    path.starts_with(|c: char| c.is_uppercase() || c == '-') && !path.contains(['.', '('])
}

/// What an expression is another form of: `file` for `file.getCanonicalFile().toPath()`.
pub(super) fn origin<'e, 'p>(expr: &'e Expr<'p>) -> &'e Expr<'p> {
    let expr = expr.peeled();
    if let ExprKind::Call { callee, args } = &expr.kind
        && args.is_empty()
        && let ExprKind::Attribute { base, name, .. } = &callee.kind
        && matches!(
            *name,
            "getCanonicalFile"
                | "getCanonicalPath"
                | "getAbsoluteFile"
                | "getAbsolutePath"
                | "toAbsolutePath"
                | "toRealPath"
                | "normalize"
                | "toPath"
                | "toFile"
        )
    {
        return origin(base);
    }
    expr
}

/// What the product of two `int`s is known by.
pub(super) const PRODUCT: &str = "int*int";

fn is_int(value: &Value<'_>) -> bool {
    match value.path.as_deref() {
        Some(path) => matches!(path, "int" | "short" | "byte" | "char" | "Integer" | PRODUCT),
        None => matches!(value.constant, Some(Constant::Int(_))),
    }
}

fn is_wide(value: &Value<'_>) -> bool {
    matches!(value.path.as_deref(), Some("long" | "Long" | "double" | "Double" | "float"))
}

/// A path without its flags.
pub(super) fn without_flags(path: &str) -> &str {
    path.split('+').next().unwrap_or(path)
}

/// A path with one more flag; flags stay in alphabetical order.
fn with_flag(path: &str, flag: &str) -> String {
    let mut parts = path.split('+');
    let class = parts.next().unwrap_or("").to_owned();
    let mut flags: Vec<&str> = parts.chain([flag]).collect();
    flags.sort_unstable();
    flags.dedup();
    flags.into_iter().fold(class, |path, flag| format!("{path}+{flag}"))
}

impl<'p> Flow<'p, '_> {
    /// Declared types are read in these languages.
    pub(super) fn is_typed(&self) -> bool {
        self.language == Language::Java
    }

    /// The value as a variable of a declared type holds it: the type says more than the way it came, but less than the
    /// class it was made of.
    pub(super) fn typed(mut value: Value<'p>, ty: &Type<'p>) -> Value<'p> {
        if !ty.name.is_empty() && !value.path.as_deref().is_some_and(is_class) {
            value.path = Some(ty.name.as_ref().into());
        }
        value
    }

    /// The class a variable was known by stays known when it is assigned to.
    pub(super) fn keep_class(
        &mut self,
        target: &'p Expr<'p>,
        value: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        if !self.is_typed()
            || value.path.as_deref().is_some_and(is_class)
            || !matches!(target.kind, ExprKind::Name(_) | ExprKind::Attribute { .. })
        {
            return;
        }
        if let Some(path) = self.eval_value(target, state).path.filter(|path| is_class(path)) {
            value.path = Some(without_flags(&path).into());
        }
    }

    /// What rules say of the class and flags of a call's result, and of the arguments it changes.
    pub(super) fn apply_results(
        &mut self,
        call: &Call<'p>,
        result: &mut Value<'p>,
        state: &mut State<'p>,
    ) {
        for hit in &call.hits {
            let Hit::Result(model) = hit else { continue };
            if !model.when.iter().all(|condition| self.holds(condition, call)) {
                continue;
            }
            let Some(of) = &model.of else {
                Self::change_path(call, model, result);
                continue;
            };
            for (target, value) in call.select(of) {
                let place = match &target.kind {
                    _ if self.is_typed() => target.peeled().place(),
                    ExprKind::Call { callee, .. } => callee.root().map(str::to_owned),
                    _ => filled_place(target),
                };
                let Some(place) = place else { continue };
                // Another of these rules may have changed it just now.
                let mut value = state.get(&place).unwrap_or(value).clone();
                Self::change_path(call, model, &mut value);
                state.set(&place, value);
            }
        }
    }

    fn change_path(call: &Call<'p>, model: &ResultModel, value: &mut Value<'p>) {
        let receiver = call.receiver.as_ref().and_then(|(_, value)| value.path.clone());
        if let Some(path) = &model.path {
            let flags = receiver.as_deref().filter(|path| is_class(path)).unwrap_or("");
            let flags = flags.find('+').map_or("", |at| &flags[at..]);
            value.path = if path == "receiver" {
                receiver.clone()
            } else {
                Some(format!("{path}{flags}").into())
            };
        }
        if let Some(flag) = &model.flag {
            let path = value.path.as_deref().unwrap_or("");
            value.path = Some(with_flag(path, flag).into());
        }
    }

    /// The path of an object that was just made: its class, and flags for what the class's methods are like.
    pub(super) fn made(&self, expr: &Expr<'p>, class: &str) -> String {
        let mut path = class.to_owned();
        if self.index.methods.is_empty() {
            return path;
        }
        let anonymous = self.program.anonymous.get(&expr.range.start);
        let functions: Vec<&Function<'p>> = match anonymous {
            Some(numbers) => {
                numbers.iter().filter_map(|number| self.program.functions.get(*number)).collect()
            }
            None => self
                .program
                .functions
                .iter()
                .filter(|function| function.class == Some(class))
                .collect(),
        };
        for model in &self.index.methods {
            let (_, model) = model;
            if let Some(flag) = &model.flag
                && functions.iter().any(|function| fits(model, function))
                && self.extends(class, &model.of)
            {
                path = with_flag(&path, flag);
            }
        }
        path
    }

    pub(super) fn extends(&self, class: &str, wanted: &[String]) -> bool {
        let mut known = vec![class];
        let mut at = 0;
        while at < known.len() && known.len() < 64 {
            if wanted.iter().any(|name| name == known[at]) {
                return true;
            }
            if let Some(supers) = self.program.supers.get(known[at]) {
                let more: Vec<&str> =
                    supers.iter().copied().filter(|name| !known.contains(name)).collect();
                known.extend(more);
            }
            at += 1;
        }
        false
    }

    /// A cast says what a value is, unless more is known of the same class.
    pub(super) fn cast(&mut self, expr: &Expr<'p>, value: Value<'p>, ty: &Type<'p>) -> Value<'p> {
        if let ExprKind::Cast { value: inner, .. } = &expr.kind {
            self.check_widened(inner, &value, &ty.name);
            if matches!(ty.name.as_ref(), "int" | "short" | "byte") {
                self.check_operand(Operation::NarrowCast, inner, &value);
            }
        }
        let same = value.path.as_deref().is_some_and(|path| without_flags(path) == ty.name);
        if same || ty.name.is_empty() || ty.name == "Object" {
            return value;
        }
        Value { path: Some(ty.name.as_ref().into()), ..value }
    }

    /// The result of an operator on numbers; `None` where they may be texts.
    pub(super) fn arithmetic(
        &mut self,
        op: BinaryOp,
        first: &Value<'p>,
        second: &Value<'p>,
        expr: &Expr<'p>,
    ) -> Option<Value<'p>> {
        let narrow = is_int(first) && is_int(second);
        let wide = (is_wide(first) && (is_int(second) || is_wide(second)))
            || (is_int(first) && is_wide(second));
        if !narrow && !wide {
            return None;
        }
        let mut value = first.derived();
        value.absorb(second);
        if matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul) {
            self.check_operand(Operation::Arithmetic, expr, &value);
        }
        let mut value = self.as_number(value);
        if let (Some(Constant::Int(a)), Some(Constant::Int(b))) = (first.constant, second.constant)
        {
            value.constant = match op {
                BinaryOp::Add => a.checked_add(b),
                BinaryOp::Sub => a.checked_sub(b),
                BinaryOp::Mul => a.checked_mul(b),
                BinaryOp::Div => a.checked_div(b),
                BinaryOp::Mod => a.checked_rem(b),
                BinaryOp::BitOr => Some(a | b),
                BinaryOp::BitAnd => Some(a & b),
                BinaryOp::Shl if (0..62).contains(&b) => a.checked_mul(1 << b),
                _ => None,
            }
            .map(Constant::Int);
        }
        let fits = matches!(value.constant, Some(Constant::Int(n)) if i32::try_from(n).is_ok());
        let product = |value: &Value<'p>| value.path.as_deref() == Some(PRODUCT);
        let path = if wide {
            "long"
        } else if !fits && (op == BinaryOp::Mul || product(first) || product(second)) {
            PRODUCT
        } else {
            "int"
        };
        Some(value.with_path(path))
    }

    pub(super) fn check_operand(
        &mut self,
        operation: Operation,
        expr: &Expr<'p>,
        value: &Value<'p>,
    ) {
        let index = self.index;
        for (rule, sink) in &index.operations {
            if sink.operation == Some(operation) {
                let demand = self.demand(*rule, sink);
                self.check_sink(demand, sink, expr, value);
            }
        }
    }

    fn check(&mut self, check: MemoryCheck, range: Range) {
        let index = self.index;
        for (known, rule) in &index.checks {
            if *known == check {
                self.alert_here(*rule, range);
            }
        }
    }

    /// A product that has already overflowed when it becomes a `long`.
    pub(super) fn check_widened(&mut self, expr: &Expr<'p>, value: &Value<'p>, ty: &str) {
        if value.path.as_deref() == Some(PRODUCT) && matches!(ty, "long" | "Long") {
            self.check(MemoryCheck::WidenedProduct, expr.range);
        }
    }

    /// `small += large` casts without saying so.
    pub(super) fn check_narrowed(&mut self, expr: &Expr<'p>, before: &Value<'p>, by: &Value<'p>) {
        let narrow = |path: &str| matches!(path, "int" | "short" | "byte");
        if before.path.as_deref().is_some_and(narrow) && is_wide(by) {
            self.check(MemoryCheck::NarrowedAssignment, expr.range);
        }
    }

    /// A counter that may never reach the bound of its loop.
    pub(super) fn check_counter(
        &mut self,
        op: BinaryOp,
        left: &Expr<'p>,
        right: &Expr<'p>,
        first: &Value<'p>,
        second: &Value<'p>,
    ) {
        if !self.program.loop_tests.contains(&left.range.start) {
            return;
        }
        let (counter, bound, range) = match op {
            BinaryOp::Lt | BinaryOp::Le => (first, second, left.range),
            _ => (second, first, right.range),
        };
        let narrow = |path: &str| matches!(path, "int" | "short" | "byte");
        if counter.path.as_deref().is_some_and(narrow)
            && bound.path.as_deref() == Some("long")
            && bound.constant.is_none()
        {
            self.check(MemoryCheck::NarrowCounter, range);
        }
    }

    /// Whether a sink counts under the decorators of the function and its class.
    pub(super) fn decorators_allow(&self, sink: &Sink) -> bool {
        if sink.decorated.is_empty() && sink.except_decorated.is_none() {
            return true;
        }
        let own = self.program.functions[self.frame.number].decorators.as_slice();
        let around = self
            .frame
            .class
            .and_then(|class| self.program.decorators.get(class))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let named = |decorator: &Expr<'p>| match &decorator.kind {
            ExprKind::Call { callee, .. } => match callee.kind {
                ExprKind::Name(name) => sink.decorated.iter().any(|known| glob(known, name)),
                _ => false,
            },
            _ => false,
        };
        if !sink.decorated.is_empty() && !own.iter().chain(around).any(named) {
            return false;
        }
        let Some(pattern) = &sink.except_decorated else { return true };
        // What the function says of itself counts before what its class says.
        for decorators in [own, around] {
            let kinds: Vec<String> = decorators.iter().flat_map(decorated_kinds).collect();
            if !kinds.is_empty() {
                return !kinds.iter().all(|kind| pattern.is_match(kind));
            }
        }
        true
    }

    /// Whether a call counts in a function with these decorators.
    pub(super) fn decorators_fit(&self, model: &CallModel) -> bool {
        if model.decorated.is_empty() {
            return true;
        }
        let function = &self.program.functions[self.frame.number];
        let known = |name: &str| model.decorated.iter().any(|known| glob(known, name));
        let except =
            |name: &str| model.except_method.as_ref().is_some_and(|pattern| pattern.is_match(name));
        // Some frameworks know their handlers by the types they are given or give back.
        let mut fits = known(&function.returns.name)
            || function.params.iter().any(|param| known(&param.ty.name));
        for decorator in &function.decorators {
            let ExprKind::Call { callee, args } = &decorator.kind else { continue };
            let ExprKind::Name(name) = callee.kind else { continue };
            if except(name) {
                return false;
            }
            let excepted = args.iter().filter(|arg| arg.name == Some("method")).any(|arg| {
                let kinds = names_and_texts(&arg.value);
                !kinds.is_empty() && kinds.iter().all(|kind| except(kind))
            });
            fits |= !excepted && known(name);
        }
        fits
    }

    /// Methods that are wrong as they stand.
    pub(super) fn check_methods(&mut self) {
        let index = self.index;
        for (rule, model) in index.methods.iter().filter(|(_, model)| model.flag.is_none()) {
            for function in &self.program.functions {
                if let Some(class) = function.class
                    && fits(model, function)
                    && self.extends(class, &model.of)
                    && let Some(first) = function.body.first()
                {
                    self.alert_here(*rule, first.range);
                }
            }
        }
    }

    /// Notes a parameter that is called as a function.
    pub(super) fn note_applied(&mut self, call: &Call<'p>) {
        let Some((_, receiver)) = &call.receiver else { return };
        let values: Vec<Value<'p>> =
            call.args.iter().map(|(_, _, value)| value.derived()).collect();
        let outside = |value: &Value<'p>| {
            value.atoms().iter().any(|atom| !matches!(atom.origin, Origin::Parameter(_)))
        };
        if !values.iter().any(outside) {
            return;
        }
        for atom in receiver.atoms() {
            if let Origin::Parameter(param) = atom.origin
                && self.frame.summary.applied.len() < MAX_GIVEN
            {
                self.frame.summary.applied.push((param, values.clone()));
            }
        }
    }

    /// Functions that are handed to a function of the file and called there.
    pub(super) fn enter_applied(
        &mut self,
        call: &Call<'p>,
        summary: &Summary<'p>,
        state: &mut State<'p>,
    ) {
        for (param, values) in &summary.applied {
            let Some((_, expr, _)) = call.args.get(usize::from(*param)) else { continue };
            let given: Vec<Value<'p>> = values
                .iter()
                .map(|value| {
                    let mut value = value.clone();
                    value.retain(|atom| !matches!(atom.origin, Origin::Parameter(_)));
                    value
                })
                .collect();
            if let ExprKind::Closure { params, body } = &expr.peeled().kind {
                self.closure(params, body, &given, state);
            } else if let Some(number) = self.named_function(expr)
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
    }

    /// A number made of a value: only rules about numbers still count its taint.
    pub(super) fn as_number(&self, mut value: Value<'p>) -> Value<'p> {
        let numbers = self.index.numbers;
        if numbers == 0 {
            return value.without_atoms();
        }
        value.change(|atom| atom.clean |= !numbers);
        value.retain(|atom| atom.clean != u128::MAX);
        value
    }

    /// The function of this file that a call of a language with classes and overloads goes to.
    pub(super) fn typed_callee(
        &self,
        callee: &Expr<'p>,
        n_args: usize,
        receiver: Option<&str>,
    ) -> Option<usize> {
        let (name, class) = match &callee.kind {
            ExprKind::Name(name) => (*name, None),
            ExprKind::Attribute { base, name, .. } => {
                let class = match &base.kind {
                    ExprKind::Name("self" | "super") => self.frame.class,
                    ExprKind::Name(class) if self.program.classes.contains_key(class) => {
                        Some(*class)
                    }
                    _ => receiver
                        .and_then(|path| self.program.classes.get_key_value(without_flags(path)))
                        .map(|(class, _)| *class),
                };
                (*name, Some(class?))
            }
            _ => return None,
        };
        let candidates: Vec<usize> = self
            .by_name
            .get(name)?
            .iter()
            .copied()
            .filter(|number| {
                let params = &self.program.functions[*number].params;
                let open = params.last().is_some_and(|last| last.ty.name.ends_with("[]"));
                params.len() == n_args || (open && n_args + 1 >= params.len())
            })
            .collect();
        let of = |class: &str| {
            candidates
                .iter()
                .copied()
                .find(|number| self.program.functions[*number].class == Some(class))
        };
        let Some(class) = class else {
            if let [only] = candidates.as_slice() {
                return Some(*only);
            }
            return of(name).or_else(|| self.frame.class.and_then(of)).or_else(|| {
                // A function of a class around, where all that could be meant are of one class.
                let classes: Vec<_> =
                    candidates.iter().map(|number| self.program.functions[*number].class).collect();
                classes
                    .windows(2)
                    .all(|pair| pair[0] == pair[1])
                    .then(|| candidates.first())?
                    .copied()
            });
        };
        let mut class = class;
        for _ in 0..MAX_SUPERS {
            if let Some(number) = of(class) {
                return Some(number);
            }
            class = self.program.supers.get(class)?.first()?;
        }
        None
    }
}

/// The kinds of content a decorator promises: texts and names in `produces = ..` or the arguments of `@Produces`.
fn decorated_kinds(decorator: &Expr<'_>) -> Vec<String> {
    let ExprKind::Call { callee, args } = &decorator.kind else { return Vec::new() };
    let all = matches!(callee.kind, ExprKind::Name("@Produces"));
    let mut out = Vec::new();
    for arg in args {
        if all || arg.name == Some("produces") {
            out.extend(names_and_texts(&arg.value));
        }
    }
    out
}

/// The texts and the last components of the names in an expression.
fn names_and_texts(expr: &Expr<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let mut stack = vec![expr];
    while let Some(expr) = stack.pop() {
        match &expr.kind {
            ExprKind::Str(text) => out.push(text.to_string()),
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
                out.push((*name).to_owned());
            }
            _ => stack.extend(expr.children()),
        }
    }
    out
}

/// Whether a method is like a model says, its class aside.
fn fits(model: &MethodModel, function: &Function<'_>) -> bool {
    model.name.iter().any(|name| glob(name, function.name))
        && match model.body {
            Some(Body::NeverRaises) => !raises(&function.body),
            Some(Body::ReturnsTrue) => always_true(&function.body),
            None => true,
        }
        && (model.calls.is_empty()
            || function.body.iter().any(|stmt| match &stmt.kind {
                StmtKind::Expr(Expr { kind: ExprKind::Call { callee, .. }, .. }) => {
                    match &callee.kind {
                        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
                            model.calls.iter().any(|known| glob(known, name))
                        }
                        _ => false,
                    }
                }
                _ => false,
            }))
}

/// Whether a body throws anything, or asks a function that may: `check*`, `verify*`, `validate*`.
fn raises(body: &[Stmt<'_>]) -> bool {
    body.iter().any(|stmt| {
        matches!(stmt.kind, StmtKind::Raise(_))
            || stmt.exprs().into_iter().any(asks)
            || stmt.blocks().into_iter().any(raises)
    })
}

fn asks(expr: &Expr<'_>) -> bool {
    let here = match &expr.kind {
        ExprKind::Call { callee, .. } => match &callee.kind {
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => {
                let name = name.to_lowercase();
                ["check", "verify", "valid"].iter().any(|part| name.contains(part))
            }
            _ => false,
        },
        _ => false,
    };
    here || expr.children().into_iter().any(asks)
}

/// Whether a body has results and each of them is the constant `true`.
pub(super) fn always_true(body: &[Stmt<'_>]) -> bool {
    let mut results = Vec::new();
    collect_results(body, &mut results);
    !results.is_empty() && results.into_iter().all(|result| result)
}

fn collect_results(body: &[Stmt<'_>], out: &mut Vec<bool>) {
    for stmt in body {
        if let StmtKind::Return(value) = &stmt.kind {
            let truth = value.as_ref().map(|value| &value.peeled().kind);
            out.push(matches!(truth, Some(ExprKind::Bool(true))));
        }
        for block in stmt.blocks() {
            collect_results(block, out);
        }
    }
}
