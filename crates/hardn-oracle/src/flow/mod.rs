//! Taint, constants and call patterns: one abstract interpretation per function, with summaries inside a file.

mod assign;
mod assumed;
mod call;
mod closure;
mod compared;
mod condition;
mod constants;
mod effect;
mod eval;
mod given;
mod go;
mod guard;
mod javascript;
mod operator;
mod param;
mod pollution;
mod ruby;
mod sink;
mod state;
mod summary;
mod text;
mod types;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use hardn_types::Language;

use self::{
    operator::{compare, is_test},
    param::is_plain_type,
    state::State,
    summary::{Progress, Summary},
    text::Converted,
    value::{Atom, Origin, Trace, Value},
};
use crate::{
    engine::Mode,
    ir::{BinaryOp, Expr, ExprKind, Program, Range, Stmt, Type},
    report::Report,
    rules::{Handler, Index, MemoryCheck},
    walk::{self, Domain},
};

/// Functions within functions within functions: how deep summaries are asked for.
const MAX_CALL_DEPTH: usize = 12;

/// Runs the analysis over every function of a program.
pub(crate) fn analyse<'p>(
    program: &'p Program<'p>,
    language: Language,
    index: &'p Index,
    mode: Mode,
    report: &mut Report,
) {
    let mut flow = Flow {
        program,
        language,
        index,
        mode,
        report,
        by_name: BTreeMap::new(),
        called: BTreeSet::new(),
        summaries: program.functions.iter().map(|_| Progress::New).collect(),
        module: State::default(),
        fields: BTreeMap::new(),
        frame: Frame::default(),
        depth: 0,
        closures: 0,
        closure_runs: 0,
        object_handlers: Vec::new(),
        answering: None,
        resolved: Value::default(),
        closure_end: None,
        handled: BTreeMap::new(),
        specialised: BTreeSet::new(),
        given: BTreeMap::new(),
        converted: Converted {
            repr: index.cleaned_by("repr"),
            number: if language == Language::Python { !index.numbers } else { u128::MAX },
        },
    };
    flow.collect();
    flow.check_compared();
    flow.function(0);
    for class in program.classes.keys() {
        flow.class_fields(class);
    }
    for number in 1..program.functions.len() {
        flow.summary(number);
    }
    let check = index.checks.iter().find(|(check, _)| *check == MemoryCheck::PrototypePollution);
    if let Some((_, rule)) = check {
        for range in pollution::places(program) {
            flow.alert_here(*rule, range);
        }
    }
    flow.check_methods();
    flow.with_constants();
}

/// What belongs to the function under analysis.
#[derive(Default)]
struct Frame<'p> {
    number: usize,
    name: &'p str,
    class: Option<&'p str>,
    params: Vec<&'p str>,
    /// A framework calls it, by its decorators.
    entry: bool,
    /// In snippet mode its parameters are sources.
    open: bool,
    /// Other programs may call it: rules for libraries count its parameters in both modes.
    exported: bool,
    /// The variable an assignment is for, while its value is evaluated.
    target: Option<String>,
    summary: Summary<'p>,
}

/// A function that was registered as a handler.
struct Handled {
    /// The paths of its parameters.
    given: Vec<Option<String>>,
    /// What it returns is an answer.
    answers: bool,
}

struct Flow<'p, 'r> {
    program: &'p Program<'p>,
    language: Language,
    index: &'p Index,
    mode: Mode,
    report: &'r mut Report,
    by_name: BTreeMap<&'p str, Vec<usize>>,
    /// Functions that other functions of the file call.
    called: BTreeSet<usize>,
    summaries: Vec<Progress<'p>>,
    /// The state at the end of the code outside functions.
    module: State<'p>,
    /// Per class, what constructors and class bodies leave in `self.*`.
    fields: BTreeMap<&'p str, State<'p>>,
    frame: Frame<'p>,
    depth: usize,
    /// Closures around the current statement.
    closures: usize,
    closure_runs: usize,
    /// What the call around an object does with functions in it.
    object_handlers: Vec<&'p Handler>,
    /// The closures around code whose results are answers.
    answering: Option<usize>,
    /// What the promise being made is resolved with.
    resolved: Value<'p>,
    /// What the closure being run leaves behind where it returns.
    closure_end: Option<State<'p>>,
    /// Functions that were registered as handlers.
    handled: BTreeMap<usize, Handled>,
    /// Functions that were run with what a framework gives.
    specialised: BTreeSet<usize>,
    /// Constants that functions of the file are called with.
    given: BTreeMap<usize, Vec<Vec<Option<Value<'p>>>>>,
    /// Rules that a value put into a text can no longer hurt.
    converted: Converted,
}

impl<'p> Flow<'p, '_> {
    /// Finds out which functions there are and which are called by others.
    fn collect(&mut self) {
        for (number, function) in self.program.functions.iter().enumerate().skip(1) {
            self.by_name.entry(function.name).or_default().push(number);
        }
        for (number, function) in self.program.functions.iter().enumerate().skip(1) {
            let mut names = BTreeSet::new();
            called_names(&function.body, &mut names);
            for name in names {
                for callee in self.by_name.get(name).into_iter().flatten() {
                    if *callee != number {
                        self.called.insert(*callee);
                    }
                }
            }
        }
    }

    fn snippet(&self) -> bool {
        self.mode == Mode::Snippet
    }

    /// Analyses a function and leaves its summary.
    fn function(&mut self, number: usize) {
        self.function_with(number, None);
    }

    /// The same with constants for some of its parameters.
    fn function_with(&mut self, number: usize, constants: Option<&[Option<Value<'p>>]>) {
        let function = &self.program.functions[number];
        let mut state = State::default();
        for (at, param) in function.params.iter().enumerate() {
            let entry = self.is_entry(function, Some(param));
            let mut value = self.param_value(function, at, entry);
            if let Some(Some(path)) =
                self.handled.get(&number).and_then(|handled| handled.given.get(at))
            {
                value = self
                    .remote_param(path, function.name, param.range)
                    .unwrap_or_else(|| Value::of_path(path));
            }
            if let Some(Some(given)) = constants.and_then(|given| given.get(at)) {
                value = value.without_atoms();
                value.text.clone_from(&given.text);
                value.constant = given.constant;
                if given.path.is_some() {
                    value.path.clone_from(&given.path);
                }
            }
            if !param.name.is_empty() {
                state.set(param.name, value);
            }
        }
        let params: Vec<&'p str> = function.params.iter().map(|param| param.name).collect();
        let frame = Frame {
            number,
            name: function.name,
            class: function.class,
            entry: self.is_entry(function, None),
            open: self.snippet() && !self.called.contains(&number),
            exported: function
                .decorators
                .iter()
                .any(|decorator| matches!(decorator.kind, ExprKind::Name("export"))),
            target: None,
            summary: Summary::new(params.clone()),
            params,
        };
        let outer = std::mem::replace(&mut self.frame, frame);
        let closures = self.closures;
        if self.has_objects() {
            self.closures = 0;
        }
        let answers = self.handled.get(&number).is_some_and(|handler| handler.answers);
        let answering = std::mem::replace(&mut self.answering, answers.then_some(0));
        for param in &function.params {
            if let Some(default) = &param.default {
                self.eval_value(default, &mut State::default());
                self.check_literal(param.name, default);
            }
        }
        let end = walk::run(self, &function.body, state);
        if let Some(end) = end {
            if function.top_level {
                self.module = end;
            } else {
                self.leave(&end);
            }
        }
        self.closures = closures;
        self.answering = answering;
        let frame = std::mem::replace(&mut self.frame, outer);
        self.summaries[number] = Progress::Done(frame.summary.finished());
    }

    /// What a class leaves in its fields: its body, then its constructor.
    fn class_fields(&mut self, class: &'p str) {
        if self.fields.contains_key(class) {
            return;
        }
        self.fields.insert(class, State::default());
        let mut fields = State::default();
        if let Some(body) = self.program.classes.get(class) {
            let frame = Frame { class: Some(class), ..Frame::default() };
            let outer = std::mem::replace(&mut self.frame, frame);
            if let Some(end) = walk::run(self, body, State::default()) {
                for (place, value) in end.iter() {
                    let place = place.strip_prefix("self.").unwrap_or(place);
                    fields.set(&format!("self.{place}"), value.clone());
                }
            }
            self.frame = outer;
        }
        self.fields.insert(class, fields.clone());
        // In Ruby, methods that run before all others count, too.
        let most = if self.language == Language::Ruby { usize::MAX } else { 1 };
        let functions = &self.program.functions;
        let constructors: Vec<usize> = (0..functions.len())
            .filter(|number| {
                functions[*number].class == Some(class) && functions[*number].constructor
            })
            .take(most)
            .collect();
        for (at, number) in constructors.iter().enumerate() {
            self.summary(*number);
            if let Progress::Done(summary) = &self.summaries[*number] {
                for (place, value) in summary.fields.iter() {
                    let mut value = value.clone();
                    value.change(|atom| {
                        if matches!(atom.origin, Origin::Parameter(_)) {
                            atom.origin = Origin::Field;
                        }
                    });
                    if at > 0
                        && let Some(known) = fields.get(place)
                    {
                        value.join(known);
                    }
                    fields.set(place, value);
                }
            }
            self.fields.insert(class, fields.clone());
        }
    }

    /// Values of this type carry nothing to inject.
    fn is_number(&self, ty: &Type<'p>) -> bool {
        if self.is_typed() {
            return is_plain_type(&ty.name);
        }
        !ty.is_pointer() && ty.is_integer() && ty.name != "char"
    }

    /// A value the code at hand does not explain.
    fn unknown(&self, range: Range, what: &str) -> Value<'p> {
        if self.snippet() {
            Value::of_atom(Atom::new(
                Origin::Unknown,
                Trace::start(range, format!("{what} is of unknown origin")),
            ))
        } else {
            Value::default()
        }
    }
}

impl<'p> Domain<'p> for Flow<'p, '_> {
    type State = State<'p>;

    const LOOP_RUNS_ONCE: bool = true;

    fn join(&mut self, into: &mut State<'p>, other: State<'p>) {
        into.join(other);
    }

    fn eval(&mut self, expr: &'p Expr<'p>, state: &mut State<'p>) {
        self.eval_value(expr, state);
    }

    fn assume(&mut self, test: &'p Expr<'p>, truth: bool, state: State<'p>) -> Option<State<'p>> {
        self.refine(test, truth, state)
    }

    fn declare(
        &mut self,
        name: &'p str,
        ty: &'p Type<'p>,
        init: Option<&'p Expr<'p>>,
        _range: Range,
        state: &mut State<'p>,
    ) {
        let Some(init) = init else {
            let value = match self.language {
                Language::Go if !ty.name.is_empty() => Value::default().with_path(&ty.name),
                _ if self.is_typed() => Self::typed(Value::default(), ty),
                _ => Value::default(),
            };
            state.set(name, value);
            return;
        };
        let mut value = self.eval_for(name, init, state);
        self.check_literal(name, init);
        if self.is_typed() {
            self.check_widened(init, &value, &ty.name);
        }
        if self.is_number(ty) {
            value = self.as_number(value);
        }
        if self.is_typed() {
            value = Self::typed(value, ty);
        }
        value.test = is_test(init).then_some(init);
        value.alias = types::origin(init).place().filter(|_| value.is_tainted()).map(Into::into);
        if value.path.is_none() && self.language != Language::Python {
            value.path = Some(ty.name.as_ref().into());
        }
        state.set(name, value);
    }

    fn bind(&mut self, target: &'p Expr<'p>, iterable: &'p Expr<'p>, state: &mut State<'p>) {
        let whole = self.eval_value(iterable, state);
        self.bind_element(target, iterable, &whole, state);
    }

    fn enter(&mut self, item: &'p Expr<'p>, target: Option<&'p Expr<'p>>, state: &mut State<'p>) {
        let value = self.eval_value(item, state);
        if let Some(target) = target {
            self.assign(target, value, state);
        }
    }

    fn returns(&mut self, value: Option<&'p Expr<'p>>, _range: Range, state: &mut State<'p>) {
        let result = match value {
            Some(expr) => self.eval_value(expr, state),
            None => Value::of_constant(value::Constant::Null),
        };
        if let Some(expr) = value {
            self.check_returned(expr, &result);
            self.leave_with(expr, &result, state);
        }
        self.frame.summary.add_return(&result);
        self.leave(state);
        if self.closures > 0 {
            match &mut self.closure_end {
                Some(end) => end.join(state.clone()),
                none => *none = Some(state.clone()),
            }
        }
    }

    fn raises(&mut self, value: Option<&'p Expr<'p>>, state: &mut State<'p>) {
        if let Some(expr) = value {
            self.eval_value(expr, state);
        }
    }

    fn delete(&mut self, target: &'p Expr<'p>, state: &mut State<'p>) {
        if let Some(place) = target.place() {
            state.remove(&place);
        }
    }

    fn selects(
        &mut self,
        value: &'p Expr<'p>,
        values: &'p [Expr<'p>],
        mut state: State<'p>,
    ) -> Option<State<'p>> {
        // One of some constants: the value is known.
        if !values.is_empty()
            && values.iter().all(|case| matches!(case.kind, ExprKind::Str(_) | ExprKind::Int(_)))
            && let Some(place) = value.peeled().place()
        {
            let current = self.eval_value(value, &mut state);
            state.clean(&place, u128::MAX, current);
        }
        Some(state)
    }

    fn takes(
        &mut self,
        value: &'p Expr<'p>,
        values: &'p [Expr<'p>],
        state: &State<'p>,
    ) -> Option<bool> {
        // What Java's propagators hand on, such as `text.charAt(2)`, need not have the text it came from.
        if self.is_typed() {
            return None;
        }
        let mut state = state.clone();
        let known = self.eval_value(value, &mut state);
        let mut certain = Some(false);
        for case in values {
            let case = self.eval_value(case, &mut state);
            match compare(BinaryOp::Eq, &known, &case) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => certain = None,
            }
        }
        certain
    }

    fn ends(&mut self, expr: &'p Expr<'p>) -> bool {
        match self.language {
            Language::Ruby => ruby::never_returns(expr),
            // A logger's `fatal` of Java writes and returns.
            Language::Java => called_name(expr) == Some("exit"),
            _ => never_returns(expr),
        }
    }
}

/// The name of the function or method that is called.
fn called_name<'p>(expr: &Expr<'p>) -> Option<&'p str> {
    let ExprKind::Call { callee, .. } = &expr.peeled().kind else { return None };
    match &callee.kind {
        ExprKind::Name(name) | ExprKind::Attribute { name, .. } => Some(name),
        _ => None,
    }
}

/// Calls that do not come back.
pub(crate) fn never_returns(expr: &Expr<'_>) -> bool {
    let Some(name) = called_name(expr) else { return false };
    matches!(
        name,
        "exit"
            | "_exit"
            | "_Exit"
            | "abort"
            | "quick_exit"
            | "longjmp"
            | "err"
            | "errx"
            | "verr"
            | "verrx"
            | "panic"
            | "BUG"
            | "__builtin_unreachable"
            | "__builtin_trap"
            | "perror_exit"
            | "die"
            | "fatal"
            | "usage"
    ) || name.ends_with("_and_die")
        || name.ends_with("_or_die")
        || name.starts_with("RETURN_")
        || name.starts_with("Throw")
        || name.starts_with("THROW")
        || name.contains("fatal")
}

/// Names of everything that is called, methods by their last component.
pub(crate) fn called_names<'p>(body: &'p [Stmt<'p>], out: &mut BTreeSet<&'p str>) {
    for stmt in body {
        for expr in stmt.exprs() {
            names_in(expr, out);
        }
        for block in stmt.blocks() {
            called_names(block, out);
        }
    }
}

fn names_in<'p>(expr: &'p Expr<'p>, out: &mut BTreeSet<&'p str>) {
    if let ExprKind::Closure { body, .. } = &expr.kind {
        called_names(body, out);
    }
    if let ExprKind::Call { callee, .. } = &expr.kind
        && let ExprKind::Name(name) | ExprKind::Attribute { name, .. } = &callee.kind
    {
        out.insert(name);
    }
    for child in expr.children() {
        names_in(child, out);
    }
}
