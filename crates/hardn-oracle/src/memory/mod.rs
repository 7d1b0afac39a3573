//! C and C++: sizes, ranges, null and freed states, unchecked arithmetic.

mod access;
mod bound;
mod buffer;
mod cells;
mod eval;
mod late;
mod number;
mod owner;
mod refine;
mod release;
mod scan;
mod shape;
mod state;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    number::{External, Number},
    state::{Cell, Null, Object, State},
    types::Scope,
};
use crate::{
    engine::Mode,
    flow::{called_names, never_returns},
    ir::{Expr, ExprKind, Function, Program, Range, Stmt, StmtKind, Type},
    report::{Alert, Report},
    rules::{Index, MemoryCheck, glob},
    walk::{self, Domain},
};

/// Calls that say whether a certificate is good.
const VERIFIERS: [&str; 1] = ["SSL_get_verify_result"];

/// Calls that give a text of any length from outside.
const TEXTS: [&str; 2] = ["getenv", "secure_getenv"];

/// Runs the analysis over every function of a program.
pub(crate) fn analyse<'p>(
    program: &'p Program<'p>,
    index: &'p Index,
    mode: Mode,
    report: &mut Report,
) {
    if index.checks.is_empty() {
        return;
    }
    let mut memory = Memory {
        program,
        index,
        mode,
        report,
        scope: Scope::default(),
        params: BTreeSet::new(),
        locals: BTreeSet::new(),
        frees: BTreeMap::new(),
        returns_null: BTreeSet::new(),
        called: BTreeSet::new(),
        fed_params: BTreeSet::new(),
        allocates: BTreeMap::new(),
        loop_tests: BTreeSet::new(),
        verified: BTreeSet::new(),
        class: None,
        fed_functions: BTreeSet::new(),
        verified_params: BTreeSet::new(),
        text_params: BTreeSet::new(),
        texts: BTreeSet::new(),
        returns: Type::default(),
        returns_integer: false,
        changes: BTreeMap::new(),
        next_object: 0,
        name: "",
        defined: BTreeSet::new(),
        listed: BTreeMap::new(),
    };
    memory.collect();
    for function in &program.functions {
        memory.function(function);
    }
}

struct Memory<'p, 'r> {
    program: &'p Program<'p>,
    index: &'p Index,
    mode: Mode,
    report: &'r mut Report,
    scope: Scope<'p>,
    params: BTreeSet<&'p str>,
    locals: BTreeSet<&'p str>,
    /// Functions of the file that free a parameter: which one.
    frees: BTreeMap<&'p str, usize>,
    /// Functions of the file that may return null.
    returns_null: BTreeSet<&'p str>,
    called: BTreeSet<&'p str>,
    /// Parameters of functions of the file that some call gives a number from outside.
    fed_params: BTreeSet<(&'p str, usize)>,
    /// Functions of the file that allocate as many bytes as a parameter says: which one.
    allocates: BTreeMap<&'p str, usize>,
    /// Comparisons that end a loop over the variable on their left.
    loop_tests: BTreeSet<Range>,
    /// Variables that hold the outcome of verifying a certificate.
    verified: BTreeSet<&'p str>,
    /// The class whose method is looked at.
    class: Option<&'p str>,
    /// Functions of the file that return a number from outside as it is.
    fed_functions: BTreeSet<&'p str>,
    /// Parameters of functions of the file that are given the outcome of verifying a certificate.
    verified_params: BTreeSet<(&'p str, usize)>,
    /// Parameters of functions of the file that are given a text from outside.
    text_params: BTreeSet<(&'p str, usize)>,
    /// Variables of the function at hand that hold a text from outside.
    texts: BTreeSet<&'p str>,
    returns: Type<'p>,
    returns_integer: bool,
    /// How often each place of the function at hand is given a value.
    changes: BTreeMap<String, usize>,
    next_object: u32,
    /// The function that is looked at.
    name: &'p str,
    /// Functions of the file.
    defined: BTreeSet<&'p str>,
    /// What the rules' lists said of functions so far.
    listed: BTreeMap<(MemoryCheck, &'p str), bool>,
}

impl<'p> Memory<'p, '_> {
    fn collect(&mut self) {
        for function in &self.program.functions {
            if function.top_level {
                for stmt in &function.body {
                    if let StmtKind::Declare { name, ty, .. } = &stmt.kind {
                        self.scope.add_global(name, ty.clone());
                    }
                }
                continue;
            }
            self.defined.insert(function.name);
            self.scope.add_function(function.name, &function.returns);
            if function.returns.pointers > 0 && returns_nothing(&function.body) {
                self.returns_null.insert(function.name);
            }
            for (at, param) in function.params.iter().enumerate() {
                if param.ty.is_pointer() && frees_name(&function.body, param.name) {
                    self.frees.insert(function.name, at);
                }
            }
            for (at, param) in function.params.iter().enumerate() {
                if returns_allocation(&function.body, param.name) {
                    self.allocates.insert(function.name, at);
                }
            }
            called_names(&function.body, &mut self.called);
            let fed = shape::fed_names(&function.body, &[], &eval::EXTERNAL_NUMBERS);
            let checked = shape::fed_names(&function.body, &[], &VERIFIERS);
            let texts = shape::fed_names(&function.body, &["argv"], &TEXTS);
            any_stmt(&function.body, &mut |stmt| {
                for expr in stmt.exprs() {
                    fed_arguments(expr, &fed, &eval::EXTERNAL_NUMBERS, &mut self.fed_params);
                    fed_arguments(expr, &checked, &VERIFIERS, &mut self.verified_params);
                    fed_arguments(expr, &texts, &TEXTS, &mut self.text_params);
                }
                if let StmtKind::Return(Some(value)) = &stmt.kind
                    && shape::is_fed(value, &BTreeSet::new(), &eval::EXTERNAL_NUMBERS)
                {
                    self.fed_functions.insert(function.name);
                }
                false
            });
        }
    }

    fn function(&mut self, function: &'p Function<'p>) {
        self.scope.leave();
        self.params.clear();
        self.locals.clear();
        self.returns_integer = function.returns.is_integer() && function.returns.pointers == 0;
        self.next_object = 0;
        self.name = function.name;
        let mut state = State::default();
        self.class = function.class;
        if let Some(fields) = function.class.and_then(|class| self.program.structs.get(class)) {
            for (name, ty) in fields {
                self.scope.add(name, ty.clone());
            }
        }
        self.returns = function.returns.clone();
        self.survey(function);
        self.changes = bound::count_changes(function);
        let params = function.params.iter().enumerate();
        let mut seeds: Vec<&'p str> = params
            .filter(|(at, _)| self.text_params.contains(&(function.name, *at)))
            .map(|(_, param)| param.name)
            .collect();
        seeds.push("argv");
        self.texts = shape::fed_names(&function.body, &seeds, &TEXTS);
        for (at, param) in function.params.iter().enumerate() {
            let from_outside = self.mode == Mode::Snippet
                || self.called.contains(function.name)
                    && self.fed_params.contains(&(function.name, at));
            self.scope.add(param.name, param.ty.clone());
            self.params.insert(param.name);
            if !param.ty.is_pointer() && from_outside && function.name != "main" {
                let mut number = Number::external();
                if param.ty.is_unsigned() {
                    number.low = 0;
                }
                number.wide = param.ty.scalar_size() == Some(8);
                if let Some(high) = highest(&param.ty) {
                    number.high = high;
                }
                if param.ty.is_integer() {
                    state.set(param.name, Cell { number, ..Cell::default() });
                }
            }
        }
        self.check_length_sums(function);
        walk::run(self, &function.body, state);
    }

    fn ty(&self, expr: &Expr<'p>) -> Option<Type<'p>> {
        types::type_of(expr, &self.scope, self.program)
    }

    fn alert(
        &mut self,
        check: MemoryCheck,
        range: Range,
        detail: String,
        trace: Vec<(Range, String)>,
    ) {
        for (known, rule) in &self.index.checks {
            if *known == check {
                let mut trace = trace.clone();
                if !trace.is_empty() {
                    trace.push((range, "is used here".to_owned()));
                }
                self.report.alerts.push(Alert {
                    rule: *rule,
                    range,
                    detail: Some(detail.clone()),
                    trace,
                });
            }
        }
    }

    /// Whether a rule's list of functions names this one.
    fn is_listed(&mut self, check: MemoryCheck, name: &'p str) -> bool {
        let index = self.index;
        *self.listed.entry((check, name)).or_insert_with(|| {
            index.checks.iter().filter(|(known, _)| *known == check).any(|(_, rule)| {
                index.rules[*rule].file.functions.iter().any(|pattern| glob(pattern, name))
            })
        })
    }

    fn new_object(&mut self, state: &mut State, object: Object) -> u32 {
        self.next_object += 1;
        state.put_object(self.next_object, object);
        self.next_object
    }
}

impl<'p> Domain<'p> for Memory<'p, '_> {
    type State = State;

    const LOOP_RUNS_ONCE: bool = false;

    fn join(&mut self, into: &mut State, other: State) {
        into.join(other);
    }

    fn widen(&mut self, entry: &State, into: &mut State) {
        into.widen(entry);
    }

    fn eval(&mut self, expr: &'p Expr<'p>, state: &mut State) {
        self.value(expr, state);
    }

    fn assume(&mut self, test: &'p Expr<'p>, truth: bool, state: State) -> Option<State> {
        self.refine(test, truth, state)
    }

    fn declare(
        &mut self,
        name: &'p str,
        ty: &'p Type<'p>,
        init: Option<&'p Expr<'p>>,
        _range: Range,
        state: &mut State,
    ) {
        self.scope.add(name, ty.clone());
        self.locals.insert(name);
        if let Some(init) = init {
            let mut cell = self.value(init, state);
            self.note_same(init, ty, &mut cell, state);
            self.check_conversion(init, &cell.number, ty, state);
            Self::fit(&mut cell, ty);
            cell.stack = ty.pointers > 0 && self.is_stack_address(init);
            cell.used_at = None;
            if ty.pointers > 0 || ty.name == "auto" {
                self.check_temporary(init);
            }
            state.set(name, cell);
            if let Some(from) = init.peeled().place().filter(|_| ty.is_integer()) {
                state.order(name, &from);
                state.order(&from, name);
            }
        } else {
            state.forget(name);
            if ty.is_integer() && !ty.is_pointer() {
                let number = Number { wide: ty.scalar_size() == Some(8), ..Number::default() };
                state.set(name, Cell { number, ..Cell::default() });
            }
        }
    }

    fn bind(&mut self, target: &'p Expr<'p>, iterable: &'p Expr<'p>, state: &mut State) {
        self.value(iterable, state);
        if let Some(place) = target.place() {
            state.set(&place, Cell::default());
        }
    }

    fn enter(&mut self, item: &'p Expr<'p>, _target: Option<&'p Expr<'p>>, state: &mut State) {
        self.value(item, state);
    }

    fn returns(&mut self, value: Option<&'p Expr<'p>>, range: Range, state: &mut State) {
        let Some(expr) = value else { return };
        let cell = self.value(expr, state);
        // In a whole program, handing a freed pointer back is wrong only where the caller follows it.
        if self.mode == Mode::Snippet {
            self.use_pointer(expr, &cell, false, state);
            self.check_left_behind(expr, range, state);
        }
        if self.returns.pointers > 0 && (cell.stack || self.is_stack_address(expr)) {
            self.alert(
                MemoryCheck::StackAddress,
                expr.range,
                "it points into the function that ends here".to_owned(),
                Vec::new(),
            );
        }
        let returns = self.returns.clone();
        if returns.pointers > 0 {
            self.check_temporary(expr);
        }
        if returns.pointers == 0 && !returns.name.is_empty() {
            self.check_conversion(expr, &cell.number, &returns, state);
        }
        if self.returns_integer
            && !returns.is_unsigned()
            && cell.number.external >= External::Field
            && let Some(at) = cell.number.wraps
        {
            self.alert(
                MemoryCheck::IntegerOverflow,
                at,
                "the result is returned unchecked".to_owned(),
                Vec::new(),
            );
        }
    }

    fn raises(&mut self, value: Option<&'p Expr<'p>>, state: &mut State) {
        if let Some(expr) = value {
            self.value(expr, state);
        }
    }

    fn delete(&mut self, target: &'p Expr<'p>, state: &mut State) {
        self.value(target, state);
    }

    fn selects(
        &mut self,
        value: &'p Expr<'p>,
        values: &'p [Expr<'p>],
        mut state: State,
    ) -> Option<State> {
        if let (Some(place), [only]) = (value.peeled().place(), values)
            && let ExprKind::Int(number) = only.kind
        {
            state.cell(&place).number = Number::exactly(number);
        }
        Some(state)
    }

    fn ends(&mut self, expr: &'p Expr<'p>) -> bool {
        never_returns(expr) || release::ends_function(expr)
    }
}

impl<'p> Memory<'p, '_> {
    /// What a value becomes in a variable of a type.
    fn fit(cell: &mut Cell, ty: &Type<'p>) {
        if ty.is_pointer() || !ty.is_integer() {
            return;
        }
        if ty.is_unsigned() && cell.number.low < 0 {
            cell.number.low = 0;
        }
        if let Some(high) = highest(ty) {
            cell.number.high = cell.number.high.min(high);
        }
        cell.number.wide = ty.scalar_size() == Some(8);
        cell.null = Null::Unknown;
        cell.object = None;
        if cell.number.external == External::Yes && ty.scalar_size() == Some(1) {
            // One byte cannot be far out.
            cell.number.high = cell.number.high.min(255);
        }
    }
}

/// The largest value of a small integer type.
fn highest(ty: &Type<'_>) -> Option<i64> {
    match ty.scalar_size() {
        Some(1) => Some(if ty.is_unsigned() { 255 } else { 127 }),
        Some(2) => Some(if ty.is_unsigned() { 65535 } else { 32767 }),
        _ => None,
    }
}

/// The function returns an allocation of as many bytes as this parameter says.
fn returns_allocation(body: &[Stmt<'_>], name: &str) -> bool {
    !name.is_empty()
        && any_stmt(body, &mut |stmt| match &stmt.kind {
            StmtKind::Return(Some(value)) => match &value.peeled().kind {
                ExprKind::Call { callee, args } => matches!(
                    callee.kind,
                    ExprKind::Name("malloc" | "xmalloc" | "alloca")
                ) && args.first().is_some_and(
                    |arg| matches!(arg.value.peeled().kind, ExprKind::Name(known) if known == name),
                ),
                _ => false,
            },
            _ => false,
        })
}

/// Which parameters of which functions a call in this expression gives a number from outside.
fn fed_arguments<'p>(
    expr: &Expr<'p>,
    fed: &BTreeSet<&'p str>,
    external: &[&str],
    out: &mut BTreeSet<(&'p str, usize)>,
) {
    if let ExprKind::Call { callee, args } = &expr.kind
        && let ExprKind::Name(name) = callee.kind
    {
        for (at, arg) in args.iter().enumerate() {
            if shape::is_fed(&arg.value, fed, external) {
                out.insert((name, at));
            }
        }
    }
    for child in expr.children() {
        fed_arguments(child, fed, external, out);
    }
}

/// Some `return` gives nothing: `NULL` or 0.
fn returns_nothing(body: &[Stmt<'_>]) -> bool {
    any_stmt(body, &mut |stmt| match &stmt.kind {
        StmtKind::Return(Some(value)) => {
            matches!(value.peeled().kind, ExprKind::Null | ExprKind::Int(0))
        }
        _ => false,
    })
}

/// The function frees this parameter on the way through.
fn frees_name(body: &[Stmt<'_>], name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    body.iter().any(|stmt| match &stmt.kind {
        StmtKind::Expr(Expr { kind: ExprKind::Call { callee, args }, .. }) => {
            matches!(callee.kind, ExprKind::Name("free" | "kfree" | "g_free"))
                && args.first().is_some_and(
                    |arg| matches!(arg.value.peeled().kind, ExprKind::Name(known) if known == name),
                )
        }
        StmtKind::If { test, then, otherwise } if otherwise.is_empty() => {
            matches!(test.kind, ExprKind::Name(known) if known == name) && frees_name(then, name)
        }
        _ => false,
    })
}

fn any_stmt<'e, 'p>(body: &'e [Stmt<'p>], found: &mut dyn FnMut(&'e Stmt<'p>) -> bool) -> bool {
    body.iter()
        .any(|stmt| found(stmt) || stmt.blocks().into_iter().any(|block| any_stmt(block, found)))
}
