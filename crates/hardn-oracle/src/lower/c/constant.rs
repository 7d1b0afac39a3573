//! Numbers that are known before the program runs.

use super::Lowering;
use crate::lower::literal;

/// Longer texts are no simple constants, in bytes.
const MAX_CONSTANT: usize = 200;

impl Lowering<'_> {
    /// The value of simple constant text: a number, a known constant, or a product or sum of two of them.
    pub(super) fn constant_text(&self, text: &str) -> Option<i64> {
        if text.len() > MAX_CONSTANT {
            return None;
        }
        let text =
            text.split("/*").next().unwrap_or(text).split("//").next().unwrap_or(text).trim();
        let inner = match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some(inner) if !inner.contains('(') => inner.trim(),
            _ => text,
        };
        if let Some(number) = literal::integer(inner) {
            return Some(number);
        }
        if let Some(number) = self.program.constants.get(inner) {
            return Some(*number);
        }
        for (sign, apply) in [
            ("<<", i64::checked_shl_ as fn(i64, i64) -> Option<i64>),
            ("+", i64::checked_add),
            ("-", i64::checked_sub),
            ("*", i64::checked_mul),
        ] {
            if let Some((left, right)) = inner.rsplit_once(sign)
                && !left.trim().is_empty()
            {
                return apply(self.constant_text(left)?, self.constant_text(right)?);
            }
        }
        None
    }
}

/// A checked shift with the shape of the other checked operations.
trait CheckedShift {
    fn checked_shl_(self, by: i64) -> Option<i64>;
}

impl CheckedShift for i64 {
    fn checked_shl_(self, by: i64) -> Option<i64> {
        if (0..62).contains(&by) { self.checked_mul(1 << by) } else { None }
    }
}

pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
