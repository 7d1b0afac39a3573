//! What is known of an integer: an interval, where it came from, and whether it was compared with a limit.

use super::bound::Sum;
use crate::ir::{BinaryOp, Range};

/// Stands for "no limit" below and above.
pub(super) const LOWEST: i64 = i64::MIN;
pub(super) const HIGHEST: i64 = i64::MAX;

/// Who chooses a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum External {
    /// The code at hand.
    #[default]
    No,
    /// What was read or parsed, by the name of the function that did.
    Read,
    /// A field of something the caller hands over.
    Field,
    /// The caller, or whoever sends the data.
    Yes,
}

/// An abstract integer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    pub(super) low: i64,
    pub(super) high: i64,
    pub(super) external: External,
    /// It is at most some limit minus this; `None` where it was not compared with one.
    pub(super) level: Option<i64>,
    /// The limit it was compared with is itself chosen from outside.
    pub(super) loose_limit: bool,
    /// It counts up in a loop.
    pub(super) counter: bool,
    /// It is computed as something minus a constant.
    pub(super) minus: i64,
    /// Computed by arithmetic that may wrap: where.
    pub(super) wraps: Option<Range>,
    /// Was compared with the largest number of its type.
    pub(super) checked: bool,
    /// 64 bits wide.
    pub(super) wide: bool,
    /// The length of a text.
    pub(super) is_length: bool,
    /// At most this.
    pub(super) bound: Option<Sum>,
}

impl Default for Number {
    fn default() -> Self {
        Self {
            low: LOWEST,
            high: HIGHEST,
            external: External::No,
            level: None,
            loose_limit: false,
            counter: false,
            minus: 0,
            wraps: None,
            checked: false,
            wide: false,
            is_length: false,
            bound: None,
        }
    }
}

impl Number {
    pub(super) fn exactly(value: i64) -> Self {
        Self { low: value, high: value, ..Self::default() }
    }

    pub(super) fn external() -> Self {
        Self { external: External::Yes, ..Self::default() }
    }

    pub(super) fn at_least(mut self, low: i64) -> Self {
        self.low = self.low.max(low);
        self
    }

    pub(super) fn constant(&self) -> Option<i64> {
        (self.low == self.high).then_some(self.low)
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.high != HIGHEST || self.level.is_some()
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.level = match (self.level, other.level) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (Some(level), None) if other.high != HIGHEST => Some(level),
            (None, Some(level)) if self.high != HIGHEST => Some(level),
            _ => None,
        };
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.external = self.external.max(other.external);
        self.loose_limit |= other.loose_limit;
        self.counter |= other.counter;
        self.minus = self.minus.min(other.minus);
        let told = |side: &Self| side.checked && side.wraps.is_none();
        self.wraps = if told(self) || told(other) { None } else { self.wraps.or(other.wraps) };
        // A check on one way in is taken as a check: the other way is where it was not needed.
        self.checked |= other.checked;
        self.wide |= other.wide;
        self.is_length |= other.is_length;
        self.bound = Sum::joined(self.bound.as_ref(), other.bound.as_ref());
    }

    /// The result of arithmetic, without a word on wrapping.
    pub(super) fn combine(op: BinaryOp, a: &Self, b: &Self) -> Self {
        let mut out = Self {
            external: a.external.max(b.external),
            loose_limit: a.loose_limit || b.loose_limit,
            counter: a.counter || b.counter,
            checked: a.checked && b.checked,
            wide: a.wide || b.wide,
            is_length: a.is_length || b.is_length,
            ..Self::default()
        };
        match op {
            BinaryOp::Add => {
                out.low = add(a.low, b.low, LOWEST);
                out.high = add(a.high, b.high, HIGHEST);
                out.level = match (a.constant(), b.constant()) {
                    (_, Some(step)) => a.level.map(|level| level - step),
                    (Some(step), _) => b.level.map(|level| level - step),
                    _ => None,
                };
                out.bound = match (a.constant(), b.constant()) {
                    (_, Some(step)) => a.bound.as_ref().and_then(|sum| sum.shifted(step)),
                    (Some(step), _) => b.bound.as_ref().and_then(|sum| sum.shifted(step)),
                    _ => None,
                };
            }
            BinaryOp::Sub => {
                out.low = if b.high == HIGHEST { LOWEST } else { add(a.low, -b.high, LOWEST) };
                out.high = if b.low == LOWEST { HIGHEST } else { add(a.high, -b.low, HIGHEST) };
                if let Some(step) = b.constant() {
                    out.level = a.level.map(|level| level + step);
                    out.minus = a.minus + step;
                    out.bound = step.checked_neg().and_then(|by| a.bound.as_ref()?.shifted(by));
                }
            }
            BinaryOp::Mul => {
                let corners = [a.low, a.high]
                    .into_iter()
                    .flat_map(|x| [b.low, b.high].map(|y| multiply(x, y)));
                let corners: Vec<Option<i64>> = corners.collect();
                if corners.iter().all(Option::is_some) {
                    out.low = corners.iter().flatten().copied().min().unwrap_or(LOWEST);
                    out.high = corners.iter().flatten().copied().max().unwrap_or(HIGHEST);
                } else if a.low >= 0 && b.low >= 0 {
                    out.low = 0;
                }
            }
            BinaryOp::Div => {
                if let Some(by) = b.constant().filter(|by| *by > 0) {
                    out.low = if a.low == LOWEST { LOWEST } else { a.low / by };
                    out.high = if a.high == HIGHEST { HIGHEST } else { a.high / by };
                    out.level = a.level;
                } else {
                    out.level = a.level;
                }
            }
            BinaryOp::Mod => {
                // Below the divisor, and not negative where the dividend is not, or had the divisor added.
                out.low = if a.low >= 0 || b.constant().is_none() && a.low != LOWEST {
                    0
                } else {
                    LOWEST
                };
                if let Some(by) = b.constant().filter(|by| *by > 0) {
                    out.high = by - 1;
                    if out.low == LOWEST {
                        out.low = if a.low >= 0 { 0 } else { 1 - by };
                    }
                }
                out.level = Some(1);
                out.loose_limit = false;
            }
            BinaryOp::BitAnd => {
                if let Some(mask) = b.constant().or(a.constant()).filter(|mask| *mask >= 0) {
                    out.low = 0;
                    out.high = mask;
                } else {
                    for side in [a, b].into_iter().filter(|side| side.low >= 0) {
                        out.low = 0;
                        out.high = out.high.min(side.high);
                        out.level = out.level.max(side.level);
                    }
                }
            }
            BinaryOp::Shr => {
                out.low = if a.low >= 0 { 0 } else { LOWEST };
                out.high = match b.constant() {
                    Some(by) if (0..63).contains(&by) && a.high != HIGHEST => a.high >> by,
                    _ => a.high,
                };
                out.level = a.level;
            }
            BinaryOp::Shl => {
                if let (Some(x), Some(by)) = (a.constant(), b.constant())
                    && (0..62).contains(&by)
                    && let Some(value) = x.checked_mul(1 << by)
                {
                    out.low = value;
                    out.high = value;
                }
            }
            _ => {
                if op == BinaryOp::BitOr && a.low >= 0 && b.low >= 0 {
                    out.low = 0;
                }
            }
        }
        out
    }

    /// What a comparison `self op limit` says when it holds; `None` where it cannot.
    pub(super) fn compared(&self, op: BinaryOp, limit: &Self) -> Option<Self> {
        let mut out = self.clone();
        let upper = |out: &mut Self, high: i64, level: i64| {
            out.high = out.high.min(high);
            if limit.constant().is_none() {
                let level = level + limit.minus;
                if out.level.is_none_or(|known| known < level) {
                    out.level = Some(level);
                    out.loose_limit = limit.external == External::Yes && !limit.is_bounded();
                }
            }
        };
        match op {
            BinaryOp::Lt => {
                upper(&mut out, if limit.high == HIGHEST { HIGHEST } else { limit.high - 1 }, 1);
            }
            BinaryOp::Le => upper(&mut out, limit.high, 0),
            BinaryOp::Gt => {
                out.low = out.low.max(if limit.low == LOWEST {
                    LOWEST
                } else {
                    limit.low.saturating_add(1)
                });
            }
            BinaryOp::Ge => out.low = out.low.max(limit.low),
            BinaryOp::Eq => {
                out.low = out.low.max(limit.low);
                out.high = out.high.min(limit.high);
                if limit.level.is_some() {
                    out.level = limit.level;
                }
            }
            BinaryOp::Ne => {
                if let Some(value) = limit.constant() {
                    if out.low == value {
                        out.low += 1;
                    }
                    if out.high == value {
                        out.high -= 1;
                    }
                } else if out.counter {
                    // What counts up meets its limit before it gets past it.
                    upper(&mut out, HIGHEST, 1);
                }
            }
            _ => {}
        }
        (out.low <= out.high).then_some(out)
    }
}

fn add(a: i64, b: i64, infinity: i64) -> i64 {
    if a == LOWEST || a == HIGHEST || b == LOWEST || b == HIGHEST {
        infinity
    } else {
        a.checked_add(b).unwrap_or(infinity)
    }
}

fn multiply(a: i64, b: i64) -> Option<i64> {
    if [LOWEST, HIGHEST].contains(&a) || [LOWEST, HIGHEST].contains(&b) {
        None
    } else {
        a.checked_mul(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_narrows_and_arithmetic_shifts() {
        let index = Number::external();
        let size = Number::external();
        let inside = index.compared(BinaryOp::Lt, &size).unwrap();
        assert_eq!(inside.level, Some(1));
        let next = Number::combine(BinaryOp::Add, &inside, &Number::exactly(1));
        assert_eq!(next.level, Some(0), "one past what was compared");
        let last = Number::combine(BinaryOp::Sub, &size, &Number::exactly(1));
        assert_eq!(index.compared(BinaryOp::Le, &last).unwrap().level, Some(1), "at most the last");
        let small = index.compared(BinaryOp::Lt, &Number::exactly(4)).unwrap();
        assert_eq!((small.high, small.compared(BinaryOp::Ge, &Number::exactly(4))), (3, None));
    }
}
