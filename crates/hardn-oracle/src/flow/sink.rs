//! Where alerts are made: sinks, returned values, literals.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    state::State,
    summary::ParamSink,
    text,
    value::{Atom, Constant, HOLE, HOLE_TEXT, Origin, Trace, Value},
};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Range},
    report::Alert,
    rules::{Argument, AttributeModel, Literal, SettingOperator, Shape, Sink},
};
use std::rc::Rc;

/// What a sink asks of the taint that reaches it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) rule: usize,
    pub(super) needs_built: bool,
    pub(super) unknown: bool,
    pub(super) base: bool,
    /// In faithful mode, parameters count: `Some(true)` once they were joined to other text.
    pub(super) parameters: Option<bool>,
    /// The alert stands where the data comes from.
    pub(super) at_source: bool,
    /// Only what comes from outside the program counts.
    pub(super) outside: bool,
}

impl Demand {
    /// What a sink inside a called function asks of its argument.
    pub(super) fn inside(sink: &ParamSink) -> Self {
        Self {
            rule: sink.rule,
            needs_built: sink.needs_built && !sink.built,
            unknown: sink.unknown,
            base: sink.base,
            parameters: None,
            at_source: sink.at_source,
            outside: sink.outside,
        }
    }
}

impl<'p> Flow<'p, '_> {
    pub(super) fn demand(&self, rule: usize, sink: &Sink) -> Demand {
        let file = &self.index.rules[rule].file;
        Demand {
            rule,
            needs_built: sink.built.unwrap_or(file.built),
            unknown: sink.unknown.unwrap_or(file.unknown),
            base: sink.base,
            parameters: file.parameters.then_some(file.built),
            at_source: sink.at_source,
            outside: sink.outside,
        }
    }

    /// Checks one value that reaches a sink.
    pub(super) fn check_sink(
        &mut self,
        demand: Demand,
        sink: &Sink,
        expr: &Expr<'p>,
        value: &Value<'p>,
    ) {
        if !value.is_tainted() || (sink.shape == Shape::Text && value.sequence) {
            return;
        }
        // A value alone is a text of which nothing is known.
        let alone = self.has_objects().then_some(HOLE_TEXT);
        if let Some(pattern) = &sink.text
            && !value.text.as_deref().or(alone).is_some_and(|text| pattern.is_match(text))
        {
            return;
        }
        if let Some(context) = &sink.context
            && !self.in_context(context)
        {
            return;
        }
        if !self.decorators_allow(sink) {
            return;
        }
        self.taint_reaches(demand, expr.range, value);
    }

    /// A printf-like call: what the conversions let through reaches the sink as one text.
    pub(super) fn check_formatted(
        &mut self,
        demand: Demand,
        sink: &Sink,
        format: &Argument,
        call: &Call<'p>,
    ) {
        let Some((pattern_expr, pattern)) =
            call.select(format).first().map(|(expr, value)| (*expr, (*value).clone()))
        else {
            return;
        };
        let mut first = pattern_expr;
        let mut items = Vec::new();
        for argument in &sink.argument {
            for (expr, value) in call.select(argument) {
                if value.is_tainted() && std::ptr::eq(first, pattern_expr) && !pattern.is_tainted()
                {
                    first = expr;
                }
                items.push(value.clone());
            }
        }
        let value = if items.is_empty() {
            pattern
        } else {
            text::percent(&pattern, &items, &[], false, self.converted, call.range)
        };
        self.check_sink(demand, sink, first, &value);
    }

    /// The names of everything the file calls.
    pub(super) fn all_called(&self) -> std::collections::BTreeSet<&'p str> {
        let mut names = std::collections::BTreeSet::new();
        for function in &self.program.functions {
            super::called_names(&function.body, &mut names);
        }
        names
    }

    /// Whether neither the name of the function or variable nor what the function calls speaks against an alert.
    pub(super) fn allowed_here(
        &self,
        outside: Option<&crate::rules::Pattern>,
        unless_calls: &[String],
    ) -> bool {
        if outside.is_some_and(|outside| self.in_context(outside)) {
            return false;
        }
        if unless_calls.is_empty() {
            return true;
        }
        let mut names = std::collections::BTreeSet::new();
        super::called_names(&self.program.functions[self.frame.number].body, &mut names);
        !unless_calls.iter().any(|name| names.contains(name.as_str()))
    }

    pub(super) fn in_context(&self, context: &crate::rules::Pattern) -> bool {
        context.is_match(self.frame.name)
            || self.frame.target.as_ref().is_some_and(|target| context.is_match(target))
    }

    /// Alerts and summary entries for tainted data at a place that must not have it.
    pub(super) fn taint_reaches(&mut self, demand: Demand, range: Range, value: &Value<'p>) {
        let bit = 1u128.checked_shl(demand.rule as u32).unwrap_or(0);
        let mut worst: Option<&Atom> = None;
        let harmless = self.index.harmless_marks.get(&demand.rule).copied();
        let starts_unknown = value.text.as_deref().is_some_and(|text| text.starts_with(HOLE));
        for atom in value.atoms() {
            if atom.clean & bit != 0 {
                continue;
            }
            if let Some((behind, all)) = harmless {
                let first = starts_unknown && atom.leading;
                let behind_text = atom.marks & behind != 0 && atom.built && !first;
                if behind_text || atom.marks & all == all {
                    continue;
                }
            }
            if let Origin::Parameter(param) = atom.origin {
                self.frame.summary.sinks.push(ParamSink {
                    param,
                    rule: demand.rule,
                    range,
                    built: atom.built,
                    needs_built: demand.needs_built,
                    unknown: demand.unknown,
                    base: demand.base || !atom.leading,
                    at_source: demand.at_source,
                    outside: demand.outside,
                });
            }
            if self.counts(atom, demand) && worst.is_none_or(|known| atom.origin > known.origin) {
                worst = Some(atom);
            }
        }
        if let Some(atom) = worst {
            let trace = atom.trace.step(range, "reaches this place".to_owned());
            let range = if demand.at_source { trace.root() } else { range };
            self.alert(demand.rule, range, None, &trace);
        }
    }

    fn counts(&self, atom: &Atom, demand: Demand) -> bool {
        let file = &self.index.rules[demand.rule].file;
        let parameter = file.parameters && matches!(atom.origin, Origin::Parameter(_));
        if !file.remote && !atom.own && !parameter {
            return false;
        }
        match atom.origin {
            Origin::Remote => true,
            _ if demand.outside => false,
            Origin::Parameter(_)
                if self.frame.exported && self.index.rules[demand.rule].file.library =>
            {
                !self.index.rules[demand.rule].file.built || atom.built
            }
            Origin::Parameter(_) if !self.snippet() => {
                demand.parameters.is_some_and(|built| !built || atom.built)
            }
            _ if !self.snippet() => false,
            Origin::Parameter(_) if !self.frame.open => false,
            Origin::Unknown if !demand.unknown => false,
            _ => (!demand.needs_built || atom.built) && (demand.base || !atom.leading),
        }
    }

    pub(super) fn alert(
        &mut self,
        rule: usize,
        range: Range,
        detail: Option<String>,
        trace: &Rc<Trace>,
    ) {
        self.report.alerts.push(Alert { rule, range, detail, trace: trace.steps() });
    }

    pub(super) fn alert_here(&mut self, rule: usize, range: Range) {
        self.report.alerts.push(Alert { rule, range, detail: None, trace: Vec::new() });
    }

    /// The arguments of a call that a rule looks at.
    pub(super) fn check_call(&mut self, call: &Call<'p>, rule: usize, sink: &'p Sink, mark: u32) {
        if !sink.when.iter().all(|condition| self.holds(condition, call)) {
            return;
        }
        if !sink.unless_calls.is_empty() {
            let called = self.all_called();
            if sink.unless_calls.iter().any(|name| called.contains(name.as_str())) {
                return;
            }
        }
        let demand = self.demand(rule, sink);
        if let Some(format) = &sink.format {
            return self.check_formatted(demand, sink, format, call);
        }
        for argument in &sink.argument {
            for (expr, value) in call.select(argument) {
                let text = value.text.as_deref().unwrap_or(HOLE_TEXT);
                if stopped(sink, call, expr, value)
                    || sink.prefix.as_ref().is_some_and(|prefix| !prefix.is_match(text))
                {
                    continue;
                }
                let counts = |atom: &Atom| {
                    if sink.joined {
                        atom.built && atom.marks & mark == mark
                    } else {
                        mark == 0 || atom.marks & mark != 0
                    }
                };
                if value.atoms().iter().all(counts) {
                    self.check_sink(demand, sink, expr, value);
                } else {
                    let mut counted = value.clone();
                    counted.retain(counts);
                    self.check_sink(demand, sink, expr, &counted);
                }
            }
        }
    }

    pub(super) fn check_returned(&mut self, expr: &Expr<'p>, value: &Value<'p>) {
        let index = self.index;
        // What a closure returns goes to whoever calls it.
        let closures = self.closures;
        if self.is_typed() && closures > 0 {
            return;
        }
        let answering = self.answering == Some(closures);
        for (rule, sink) in &index.returned {
            if self.has_objects() && (if sink.answers { !answering } else { closures > 0 }) {
                continue;
            }
            let returns = &self.program.functions[self.frame.number].returns.name;
            if !sink.returns.is_empty() && !sink.returns.iter().any(|name| name == returns) {
                continue;
            }
            if sink.entry && !self.frame.entry {
                continue;
            }
            let demand = self.demand(*rule, sink);
            self.check_sink(demand, sink, expr, value);
        }
    }

    /// A text constant that goes to a variable, keyword or key.
    pub(super) fn check_literal(&mut self, name: &str, expr: &Expr<'p>) {
        let index = self.index;
        if index.literals.is_empty() {
            return;
        }
        let text = match &expr.peeled().kind {
            ExprKind::Str(text) => text.as_ref(),
            // The value of last resort is a value.
            ExprKind::Binary { op: BinaryOp::Or, right, .. } => {
                return self.check_literal(name, right);
            }
            ExprKind::Conditional { then, otherwise, .. } => {
                self.check_literal(name, then);
                return self.check_literal(name, otherwise);
            }
            ExprKind::Call { callee, args } => {
                let asks = matches!(
                    callee.kind,
                    ExprKind::Attribute { name: "get" | "getenv", .. } | ExprKind::Name("getenv")
                );
                return match args.get(1) {
                    Some(last) if asks => self.check_literal(name, &last.value),
                    _ => {}
                };
            }
            _ => return,
        };
        for (rule, model) in &index.literals {
            if model.field && (self.frame.class.is_none() || !self.frame.name.is_empty()) {
                continue;
            }
            let excepted = model.except.as_ref().is_some_and(|except| except.is_match(text))
                || model.except_name.as_ref().is_some_and(|except| except.is_match(name));
            let fits = model.value.as_ref().is_none_or(|pattern| pattern.is_match(text));
            if !text.is_empty() && !excepted && fits && model.name.is_match(name) {
                self.alert_here(*rule, expr.range);
            }
        }
    }

    /// A test for a part of a text: `"host.com" in url`.
    pub(super) fn check_contains(&mut self, range: Range, part: &Value<'p>, whole: &Value<'p>) {
        // Membership of a list is a test for the whole text.
        if whole.sequence || whole.full_text().is_some() {
            return;
        }
        let (Some(text), index) = (part.full_text(), self.index) else { return };
        for (rule, model) in &index.tests {
            if model.text.is_match(text) {
                self.alert_here(*rule, range);
            }
        }
    }

    /// A value that is assigned to a name or attribute that must not have it.
    pub(super) fn check_assigned(
        &mut self,
        target: &'p Expr<'p>,
        source: &'p Expr<'p>,
        value: &Value<'p>,
        state: &mut State<'p>,
    ) {
        let index = self.index;
        if index.assigned.is_empty() || !value.is_tainted() {
            return;
        }
        let mut paths: Vec<String> = target.dotted(&self.program.imports).into_iter().collect();
        match &target.kind {
            ExprKind::Attribute { base, name, .. } => {
                let path = self.eval_value(base, state).path;
                paths.extend(path.map(|path| format!("{path}.{name}")));
            }
            ExprKind::Subscript { base, index } => {
                let path = self.eval_value(base, state).path.map(|path| path.to_string());
                if let (Language::Python, ExprKind::Str(key)) = (self.language, &index.kind) {
                    let bases = path.iter().cloned().chain(base.dotted(&self.program.imports));
                    paths.extend(bases.map(|path| format!("{path}[{key}]")));
                }
                paths.extend(path.map(|path| format!("{path}[]")));
            }
            _ => {}
        }
        self.check_paths(&paths, source, value);
    }

    /// The key of an element that is assigned to: `headers[name] = ...`, which rules know as `headers[?]`.
    pub(super) fn check_key(&mut self, target: &'p Expr<'p>, state: &mut State<'p>) {
        let ExprKind::Subscript { base, index: key } = &target.kind else { return };
        if self.index.assigned.is_empty() {
            return;
        }
        let value = self.eval_value(key, state);
        if value.is_tainted() {
            let written = base.dotted(&self.program.imports);
            let known = self.eval_value(base, state).path.map(|path| path.to_string());
            let paths: Vec<String> =
                written.into_iter().chain(known).map(|path| format!("{path}[?]")).collect();
            self.check_paths(&paths, key, &value);
        }
    }

    fn check_paths(&mut self, paths: &[String], source: &Expr<'p>, value: &Value<'p>) {
        let index = self.index;
        for (rule, patterns, mark, sink) in &index.assigned {
            if paths.iter().any(|path| patterns.iter().any(|pattern| pattern.matches(path))) {
                let demand = self.demand(*rule, sink);
                if *mark != 0 {
                    let mut marked = value.clone();
                    marked.retain(|atom| atom.marks & mark != 0);
                    self.check_sink(demand, sink, source, &marked);
                    continue;
                }
                self.check_sink(demand, sink, source, value);
            }
        }
    }

    /// A part of an object is assigned to.
    fn check_part(&mut self, base: &'p Expr<'p>, computed: bool, state: &mut State<'p>) {
        let index = self.index;
        let object = self.eval_value(base, state);
        if !object.is_tainted() {
            return;
        }
        for (rule, mark, sink) in &index.written {
            let mut object = object.clone();
            object.retain(|atom| {
                atom.marks & mark == *mark && (computed || atom.origin == Origin::Remote)
            });
            let demand = self.demand(*rule, sink);
            self.check_sink(demand, sink, base, &object);
        }
    }

    /// Sinks for objects whose parts are assigned to.
    pub(super) fn check_written(&mut self, target: &'p Expr<'p>, state: &mut State<'p>) {
        if self.index.written.is_empty() {
            return;
        }
        match &target.kind {
            ExprKind::Attribute { base, .. } => self.check_part(base, false, state),
            ExprKind::Subscript { base, index } => {
                let computed = !matches!(index.kind, ExprKind::Str(_) | ExprKind::Int(_));
                self.check_part(base, computed, state);
            }
            _ => {}
        }
    }

    /// An assignment to an attribute that taints or cleans the object it belongs to.
    pub(super) fn apply_setting(
        &mut self,
        op: Option<BinaryOp>,
        target: &'p Expr<'p>,
        value: &'p Expr<'p>,
        state: &mut State<'p>,
    ) {
        let index = self.index;
        let ExprKind::Attribute { base, .. } = &target.kind else { return };
        let (Some(place), false) = (base.place(), index.settings.is_empty()) else { return };
        let Some(path) = target.dotted(&self.program.imports) else { return };
        for model in &index.settings {
            let operator = match op {
                None => SettingOperator::Assign,
                Some(BinaryOp::BitOr) => SettingOperator::Or,
                Some(BinaryOp::BitAnd) => SettingOperator::And,
                Some(_) => continue,
            };
            if model.setting.operator != operator
                || !model.pattern.matches(&path)
                || !self.mentions(value, &model.setting.mentions)
            {
                continue;
            }
            let mut object = self.eval_value(base, state);
            if model.taints {
                let trace = Trace::start(target.range, format!("`{path}` is set"));
                let atom = Atom::only_for(Origin::Remote, !model.bits, trace);
                object.absorb(&Value::of_atom(atom));
                state.set(&place, object);
            } else {
                state.clean(&place, model.bits, object);
            }
        }
    }

    /// The same for an entry of an object: `{secret: value}`.
    pub(super) fn check_entry(&mut self, key: &str, source: &'p Expr<'p>, value: &Value<'p>) {
        let index = self.index;
        if index.assigned.is_empty() || !value.is_tainted() {
            return;
        }
        for (rule, patterns, mark, sink) in &index.assigned {
            if *mark == 0 && patterns.iter().any(|pattern| pattern.matches(key)) {
                let demand = self.demand(*rule, sink);
                self.check_sink(demand, sink, source, value);
            }
        }
    }

    /// A setting such as `context.verify_mode = ssl.CERT_NONE`.
    pub(super) fn check_attribute(
        &mut self,
        target: &Expr<'p>,
        expr: &Expr<'p>,
        value: &Value<'p>,
    ) {
        let index = self.index;
        if index.attributes.is_empty() {
            return;
        }
        let path = match &target.kind {
            // An instance variable of Ruby is no setting, though it stands as `self.name`.
            ExprKind::Attribute { base, .. }
                if self.language == Language::Ruby && base.range == target.range =>
            {
                None
            }
            ExprKind::Attribute { .. } => target.dotted(&self.program.imports),
            ExprKind::Name(name) if self.language == Language::Python => Some((*name).to_owned()),
            // `defaults[:verify] = false`
            ExprKind::Subscript { base, index } if self.language == Language::Ruby => {
                match (base.dotted(&self.program.imports), &index.kind) {
                    (Some(base), ExprKind::Str(key)) => Some(format!("{base}.{key}")),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(path) = path else { return };
        for (rule, patterns, model) in &index.attributes {
            if patterns.iter().any(|pattern| pattern.matches(&path))
                && (model.is.iter().any(|literal| self.equals(literal, expr, value))
                    || lists(model, value)
                    || model.mentions.as_ref().is_some_and(|pattern| self.mentions(expr, pattern)))
                && self.allowed_here(model.outside.as_ref(), &model.unless_calls)
                && !self.is_tested(model.unless_test.as_ref(), expr.range)
                && !model
                    .outside
                    .as_ref()
                    .is_some_and(|names| target.root().is_some_and(|root| names.is_match(root)))
            {
                self.alert_here(*rule, expr.range);
            }
        }
    }

    pub(super) fn equals(&self, literal: &Literal, expr: &Expr<'p>, value: &Value<'p>) -> bool {
        match literal {
            Literal::Bool(wanted) => match value.constant {
                Some(Constant::Bool(known)) => known == *wanted,
                _ => false,
            },
            Literal::Int(wanted) => value.constant == Some(Constant::Int(*wanted)),
            Literal::Null => value.constant == Some(Constant::Null),
            Literal::Text(wanted) => {
                value.full_text() == Some(wanted.as_str())
                    || value.path.as_deref().is_some_and(|path| ends_with_path(path, wanted))
                    || expr
                        .dotted(&self.program.imports)
                        .is_some_and(|path| ends_with_path(&path, wanted))
            }
        }
    }
}

/// Whether a list holds what the rule asks for, and lacks what goes with it.
fn lists(model: &AttributeModel, value: &Value<'_>) -> bool {
    let (Some(has), Some(lacks)) = (&model.has, &model.lacks) else { return false };
    let text = value.text.as_deref().filter(|_| value.sequence);
    text.is_some_and(|text| has.is_match(text) && !lacks.is_match(text))
}

fn ends_with_path(path: &str, wanted: &str) -> bool {
    path == wanted || path.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether one of the sink's last words stands before this argument, or in a list before what is not known of it.
fn stopped<'p>(sink: &Sink, call: &Call<'p>, expr: &Expr<'p>, value: &Value<'p>) -> bool {
    if sink.until.is_empty() {
        return false;
    }
    let stops = |word: &str| sink.until.iter().any(|stop| stop == word);
    let before = call.args.iter().take_while(|(_, arg, _)| !std::ptr::eq(*arg, expr));
    let mut words = value.text.as_deref().unwrap_or("").split(' ');
    before.into_iter().any(|(_, _, value)| value.full_text().is_some_and(stops))
        || (value.sequence && words.by_ref().take_while(|word| !word.contains(HOLE)).any(stops))
}
