//! Where alerts are made: sinks, returned values, literals.

use super::{
    Flow,
    call::Call,
    state::State,
    summary::ParamSink,
    text,
    value::{Atom, Constant, HOLE_TEXT, Origin, Trace, Value},
};
use crate::{
    ir::{BinaryOp, Expr, ExprKind, Range},
    report::Alert,
    rules::{Argument, Literal, Shape, Sink},
};
use std::rc::Rc;

/// What a sink asks of the taint that reaches it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) rule: usize,
    pub(super) needs_built: bool,
    pub(super) unknown: bool,
    pub(super) base: bool,
}

impl<'p> Flow<'p, '_> {
    pub(super) fn demand(&self, rule: usize, sink: &Sink) -> Demand {
        let file = &self.index.rules[rule].file;
        Demand {
            rule,
            needs_built: sink.built.unwrap_or(file.built),
            unknown: sink.unknown.unwrap_or(file.unknown),
            base: sink.base,
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
            && !value.text.as_deref().or(alone).is_some_and(|text| pattern.0.is_match(text))
        {
            return;
        }
        if let Some(context) = &sink.context
            && !self.in_context(context)
        {
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
            text::percent(&pattern, &items, false, self.repr_bits, call.range)
        };
        self.check_sink(demand, sink, first, &value);
    }

    pub(super) fn in_context(&self, context: &crate::rules::Pattern) -> bool {
        context.0.is_match(self.frame.name)
            || self.frame.target.as_ref().is_some_and(|target| context.0.is_match(target))
    }

    /// Alerts and summary entries for tainted data at a place that must not have it.
    pub(super) fn taint_reaches(&mut self, demand: Demand, range: Range, value: &Value<'p>) {
        let bit = 1u128.checked_shl(demand.rule as u32).unwrap_or(0);
        let mut worst: Option<&Atom> = None;
        for atom in value.atoms() {
            if atom.clean & bit != 0 {
                continue;
            }
            // Rules that name their own sources count no others: such taint is harmless elsewhere.
            let own = self.index.own;
            if own & bit != 0 && atom.clean | own != u128::MAX {
                continue;
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
                });
            }
            if self.counts(atom, demand) && worst.is_none_or(|known| atom.origin > known.origin) {
                worst = Some(atom);
            }
        }
        if let Some(atom) = worst {
            let trace = atom.trace.step(range, "reaches this place".to_owned());
            self.alert(demand.rule, range, None, &trace);
        }
    }

    fn counts(&self, atom: &Atom, demand: Demand) -> bool {
        match atom.origin {
            Origin::Remote => true,
            Origin::Parameter(_)
                if self.frame.exported && self.index.rules[demand.rule].file.library =>
            {
                !demand.needs_built || atom.built
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

    pub(super) fn check_returned(&mut self, expr: &Expr<'p>, value: &Value<'p>) {
        let index = self.index;
        for (rule, sink) in &index.returned {
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
            let excepted = model.except.as_ref().is_some_and(|except| except.0.is_match(text))
                || model.except_name.as_ref().is_some_and(|except| except.0.is_match(name));
            let fits = model.value.as_ref().is_none_or(|pattern| pattern.0.is_match(text));
            if !text.is_empty() && !excepted && fits && model.name.0.is_match(name) {
                self.alert_here(*rule, expr.range);
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
        if let ExprKind::Attribute { base, name, .. } = &target.kind
            && let Some(path) = self.eval_value(base, state).path
        {
            paths.push(format!("{path}.{name}"));
        }
        for (rule, patterns, sink) in &index.assigned {
            if paths.iter().any(|path| patterns.iter().any(|pattern| pattern.matches(path))) {
                let demand = self.demand(*rule, sink);
                self.check_sink(demand, sink, source, value);
            }
        }
    }

    /// The same for an entry of an object: `{secret: value}`.
    pub(super) fn check_entry(&mut self, key: &str, source: &'p Expr<'p>, value: &Value<'p>) {
        let index = self.index;
        if index.assigned.is_empty() || !value.is_tainted() {
            return;
        }
        for (rule, patterns, sink) in &index.assigned {
            if patterns.iter().any(|pattern| pattern.matches(key)) {
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
        if index.attributes.is_empty() || !matches!(target.kind, ExprKind::Attribute { .. }) {
            return;
        }
        let Some(path) = target.dotted(&self.program.imports) else { return };
        for (rule, patterns, model) in &index.attributes {
            if patterns.iter().any(|pattern| pattern.matches(&path))
                && model.is.iter().any(|literal| self.equals(literal, expr, value))
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

fn ends_with_path(path: &str, wanted: &str) -> bool {
    path == wanted || path.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.'))
}
