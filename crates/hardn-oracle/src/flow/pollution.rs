//! Prototype pollution by shape: a function that copies one object into another level by level, or walks a path of keys,
//! and writes under whatever key it is given.

use std::collections::BTreeSet;

use crate::ir::{Expr, ExprKind, Program, Range, Stmt};

/// Where such functions write under an unchecked key.
pub(super) fn places(program: &Program<'_>) -> Vec<Range> {
    let mut out = Vec::new();
    let checks: BTreeSet<&str> = program
        .functions
        .iter()
        .filter(|function| !function.top_level && function.params.len() == 1)
        .filter(|function| texts(&function.body, &|text| text.contains("__proto__")))
        .map(|function| function.name)
        .collect();
    for function in &program.functions {
        if !function.top_level {
            check(function.name, &function.body, &checks, &mut out);
        }
        // Closures are functions of their own, under the name they are assigned to.
        let mut closures = Vec::new();
        each_expr(&function.body, &mut |expr| {
            if let ExprKind::Assign { target, value, .. } = &expr.kind
                && let (ExprKind::Name(name), ExprKind::Closure { body, .. }) =
                    (&target.kind, &value.kind)
            {
                closures.push((*name, body));
            }
        });
        for (name, body) in closures {
            check(name, body, &checks, &mut out);
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

fn check(name: &str, body: &[Stmt<'_>], checks: &BTreeSet<&str>, out: &mut Vec<Range>) {
    let mut facts = Facts::default();
    each_expr(body, &mut |expr| facts.note(name, expr));
    // Both ways to the prototype are refused, here or by a function that is asked.
    let refuses = |body: &[Stmt<'_>]| {
        texts(body, &|text| text == "__proto__")
            && texts(body, &|text| matches!(text, "constructor" | "prototype"))
    };
    if refuses(body) || checks.iter().any(|check| facts.asked.contains(check)) {
        return;
    }
    for (object, key, range) in &facts.writes {
        let element = format!("{object}[{key}]");
        let element_of_list = key.contains('[');
        let deep = (facts.handed_on.contains(&element) && !element_of_list)
            || facts.steps.contains(&(object.clone(), key.clone()));
        if deep && !facts.own_keys.contains(object) {
            out.push(*range);
        }
    }
}

/// What a function does with computed keys.
#[derive(Default)]
struct Facts<'p> {
    /// `object[key] = ...`
    writes: Vec<(String, String, Range)>,
    /// `f(object[key], ...)` inside `f`, directly or by way of a variable.
    handed_on: BTreeSet<String>,
    /// `object = object[key]`
    steps: BTreeSet<(String, String)>,
    /// `object.hasOwnProperty(key)` was asked.
    own_keys: BTreeSet<String>,
    /// Functions that are called with one argument.
    asked: BTreeSet<&'p str>,
    aliases: Vec<(String, String)>,
}

impl<'p> Facts<'p> {
    fn note(&mut self, own: &str, expr: &Expr<'p>) {
        match &expr.kind {
            ExprKind::Assign { target, value, .. } => {
                if let Some((object, key)) = element(target) {
                    self.writes.push((object, key, expr.range));
                }
                if let (Some(name), Some((object, key))) =
                    (target.place(), element(last_value(value)))
                {
                    if name == object {
                        self.steps.insert((object.clone(), key.clone()));
                    }
                    self.aliases.push((name, format!("{object}[{key}]")));
                }
            }
            ExprKind::Call { callee, args } => {
                let called = match &callee.kind {
                    ExprKind::Name(name) | ExprKind::Attribute { name, .. } => *name,
                    _ => "",
                };
                if called == "hasOwnProperty"
                    && let ExprKind::Attribute { base, .. } = &callee.kind
                    && let Some(place) = base.place()
                {
                    self.own_keys.insert(place);
                }
                if args.len() == 1 {
                    self.asked.insert(called);
                }
                let path = callee.dotted(&std::collections::BTreeMap::new()).unwrap_or_default();
                if (called == "call" && path.to_lowercase().contains("hasown")
                    || path == "Object.hasOwn")
                    && let Some(place) = args.first().and_then(|arg| arg.value.place())
                {
                    self.own_keys.insert(place);
                }
                if called == own || (called == "callee") {
                    for arg in args {
                        if let Some((object, key)) = element(&arg.value) {
                            self.handed_on.insert(format!("{object}[{key}]"));
                        } else if let Some(place) = arg.value.place() {
                            let known = self.aliases.iter().filter(|(name, _)| *name == place);
                            self.handed_on.extend(known.map(|(_, element)| element.clone()));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// `x = x[key] || {}` and `x = x[key] = x[key] || {}` step down as well.
fn last_value<'e, 'p>(expr: &'e Expr<'p>) -> &'e Expr<'p> {
    match &expr.peeled().kind {
        ExprKind::Assign { target, .. } => target,
        ExprKind::Binary { left, .. } => last_value(left),
        _ => expr.peeled(),
    }
}

/// `object[key]` where the key is no constant.
fn element(expr: &Expr<'_>) -> Option<(String, String)> {
    let ExprKind::Subscript { base, index } = &expr.peeled().kind else { return None };
    if matches!(index.kind, ExprKind::Int(_) | ExprKind::Str(_)) {
        return None;
    }
    Some((base.place()?, index.place()?))
}

/// Whether any constant text in these statements is like this.
pub(super) fn texts(body: &[Stmt<'_>], wanted: &dyn Fn(&str) -> bool) -> bool {
    let mut found = false;
    each_expr(body, &mut |expr| {
        if let ExprKind::Str(text) = &expr.kind {
            found |= wanted(text);
        }
    });
    found
}

/// Every expression of the statements, closures' bodies included.
fn each_expr<'e, 'p>(body: &'e [Stmt<'p>], visit: &mut dyn FnMut(&'e Expr<'p>)) {
    for stmt in body {
        for expr in stmt.exprs() {
            each_part(expr, visit);
        }
        if let crate::ir::StmtKind::Switch { cases, .. } = &stmt.kind {
            for value in cases.iter().flat_map(|case| &case.values) {
                each_part(value, visit);
            }
        }
        for block in stmt.blocks() {
            each_expr(block, visit);
        }
    }
}

fn each_part<'e, 'p>(expr: &'e Expr<'p>, visit: &mut dyn FnMut(&'e Expr<'p>)) {
    visit(expr);
    if let ExprKind::Closure { body, .. } = &expr.kind {
        each_expr(body, visit);
    }
    for child in expr.children() {
        each_part(child, visit);
    }
}
