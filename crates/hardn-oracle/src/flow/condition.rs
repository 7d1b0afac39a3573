//! Whether a rule's condition holds of a call.

use hardn_types::Language;

use super::{
    Flow,
    call::Call,
    value::{Constant, HOLE, Value},
};
use crate::{
    ir::{Arg, Expr, ExprKind, Range, Stmt, StmtKind},
    rules::{Condition, Pattern},
};

impl<'p> Flow<'p, '_> {
    /// Whether a rule's condition holds of a call.
    pub(super) fn holds(&self, condition: &Condition, call: &Call<'p>) -> bool {
        let selected = call.select(&condition.argument);
        if selected.is_empty() {
            let spread =
                call.args.iter().any(|(_, expr, _)| matches!(expr.kind, ExprKind::Star(_)));
            return match condition.missing {
                Some(missing) => missing && !spread,
                None => condition.or_missing || (condition.not.is_some() && condition.is.is_none()),
            };
        }
        condition.missing != Some(true)
            && selected.iter().any(|(expr, value)| self.holds_of(condition, expr, value))
    }

    /// Whether a condition holds of an argument that is there.
    fn holds_of(&self, condition: &Condition, expr: &Expr<'p>, value: &Value<'p>) -> bool {
        let matches_text =
            |pattern: &Pattern| match (&value.text, expr.dotted(&self.program.imports)) {
                (Some(text), _) => pattern.is_match(text),
                (None, Some(path)) => pattern.is_match(&path),
                (None, None) => value.path.as_ref().is_some_and(|path| pattern.is_match(path)),
            };
        let number = match value.constant {
            Some(Constant::Int(number)) => Some(number),
            _ => None,
        };
        // `new byte[] {1, 2}`
        let listed = || {
            let text = value.text.as_deref().filter(|_| self.is_typed() && value.sequence);
            text.is_some_and(|text| !text.is_empty() && !text.contains(HOLE))
        };
        let is_constant = !value.is_tainted()
            && (value.constant.is_some() || value.full_text().is_some() || listed());
        condition
            .is
            .as_ref()
            .is_none_or(|any| any.iter().any(|literal| self.equals(literal, expr, value)))
            && condition
                .not
                .as_ref()
                .is_none_or(|none| !none.iter().any(|literal| self.equals(literal, expr, value)))
            && condition.matches.as_ref().is_none_or(matches_text)
            && condition.bits.is_none_or(|bits| number.is_some_and(|number| number & bits != 0))
            && condition.below.is_none_or(|limit| number.is_some_and(|number| number < limit))
            && condition.constant.is_none_or(|wanted| wanted == is_constant)
            && condition
                .path
                .as_ref()
                .is_none_or(|path| value.path.as_ref().is_some_and(|known| path.is_match(known)))
            && condition
                .not_path
                .as_ref()
                .is_none_or(|path| !value.path.as_ref().is_some_and(|known| path.is_match(known)))
            && condition.mentions.as_ref().is_none_or(|pattern| {
                self.mentions(expr, pattern)
                    || (self.language == Language::Ruby
                        && (self.mentioned_in_block(expr, pattern) || self.is_key(expr, pattern)))
            })
    }

    /// Whether a name like this stands anywhere in an expression, but for what a call only measures or conceals.
    pub(super) fn mentions(&self, expr: &Expr<'_>, pattern: &Pattern) -> bool {
        let here = match &expr.kind {
            ExprKind::Name(name) | ExprKind::Attribute { name, .. } => pattern.is_match(name),
            _ if self.conceals(expr) => return false,
            _ => false,
        };
        here || expr.children().into_iter().any(|child| self.mentions(child, pattern))
    }

    /// Whether an element with a key like this stands anywhere in an expression.
    fn is_key(&self, expr: &Expr<'_>, pattern: &Pattern) -> bool {
        if self.conceals(expr) {
            return false;
        }
        let here = match &expr.kind {
            ExprKind::Subscript { index, .. } => {
                matches!(&index.kind, ExprKind::Str(key) if pattern.is_match(key))
            }
            _ => false,
        };
        here || expr.children().into_iter().any(|child| self.is_key(child, pattern))
    }

    /// Whether it is a call whose result tells nothing of what it is given.
    fn conceals(&self, expr: &Expr<'_>) -> bool {
        let ExprKind::Call { callee, args } = &expr.kind else { return false };
        let (ExprKind::Name(name) | ExprKind::Attribute { name, .. }) = &callee.kind else {
            return false;
        };
        let all = |arg: &Arg<'_>| matches_all(&arg.value, name.starts_with('g'));
        if matches!(*name, "sub" | "sub!" | "gsub" | "gsub!") && args.first().is_some_and(all) {
            return true;
        }
        let root = callee.root().filter(|root| root != name);
        let path = root.map_or_else(|| (*name).to_owned(), |root| format!("{root}.{name}"));
        self.index.conceals.iter().any(|pattern| pattern.is_match(&path))
    }

    /// Whether a name like this stands in a block that is handed over.
    fn mentioned_in_block(&self, expr: &Expr<'_>, pattern: &Pattern) -> bool {
        let ExprKind::Closure { body, .. } = &expr.kind else { return false };
        body.iter().flat_map(Stmt::exprs).any(|part| self.mentions(part, pattern))
    }
}

impl Flow<'_, '_> {
    /// Whether a condition around this place in the function at hand names something like this.
    pub(super) fn is_tested(&self, name: Option<&Pattern>, place: Range) -> bool {
        name.is_some_and(|name| {
            let function = self.program.functions.get(self.frame.number);
            function.is_some_and(|function| tested(&function.body, name, place))
        })
    }
}

fn tested(body: &[Stmt<'_>], name: &Pattern, place: Range) -> bool {
    let Some(stmt) =
        body.iter().find(|stmt| stmt.range.start <= place.start && place.end <= stmt.range.end)
    else {
        return false;
    };
    if let StmtKind::If { test, .. } = &stmt.kind
        && names(test, name)
    {
        return true;
    }
    stmt.blocks().into_iter().any(|block| tested(block, name, place))
}

/// Whether a name, a called function or a text like this stands in an expression.
fn names(expr: &Expr<'_>, pattern: &Pattern) -> bool {
    let here = match &expr.kind {
        ExprKind::Name(text) | ExprKind::Attribute { name: text, .. } => pattern.is_match(text),
        ExprKind::Str(text) => pattern.is_match(text),
        _ => false,
    };
    here || expr.children().into_iter().any(|child| names(child, pattern))
}

/// Ruby: a regular expression that covers a whole text, if need be character by character.
fn matches_all(expr: &Expr<'_>, each: bool) -> bool {
    let ExprKind::Construct { args, .. } = &expr.kind else { return false };
    match args.first().map(|arg| &arg.value.kind) {
        Some(ExprKind::Str(text)) => text == ".+" || text == ".*" || (each && text == "."),
        _ => false,
    }
}
