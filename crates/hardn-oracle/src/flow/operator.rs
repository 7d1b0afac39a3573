//! What operators make of their operands.

use hardn_types::Language;

use super::{
    Flow,
    eval::last_name,
    state::State,
    text,
    value::{Constant, Value, concat},
};
use crate::ir::{BinaryOp, Expr, ExprKind};

impl<'p> Flow<'p, '_> {
    pub(super) fn binary(
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
    pub(super) fn mapping<'n>(
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
