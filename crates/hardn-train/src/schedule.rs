//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// In a straight line to `floor`.
    #[default]
    Linear,
    /// Along half a cosine to `floor`.
    Cosine,
    /// Not at all.
    Constant,
}

/// Where the rise begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmupStart {
    /// Step `i` of `n` has the factor `(i + 1) / (n + 1)`: no step is wasted.
    #[default]
    First,
    /// Step `i` of `n` has the factor `i / n`, as in `transformers`: the very first step moves nothing.
    Zero,
}

/// A learning-rate schedule: a straight rise, then a fall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The shape of the fall.
    pub kind: ScheduleKind,
    /// Steps of the rise.
    pub warmup_steps: usize,
    /// Steps of the rise as a share of all steps, rounded up; the larger of the two counts.
    pub warmup_ratio: f64,
    /// Where the rise begins.
    pub warmup_start: WarmupStart,
    /// Where the fall ends, as a share of the learning rate.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Linear,
            warmup_steps: 0,
            warmup_ratio: 0.0,
            warmup_start: WarmupStart::First,
            floor: 0.0,
        }
    }
}

impl Schedule {
    /// The factor on the learning rate at `step`, counted from 0, of `total`.
    ///
    /// With [`WarmupStart::Zero`] and `floor = 0` these are the factors of `transformers`
    /// (`get_linear_schedule_with_warmup` and its siblings for cosine and constant); without warm-up both starts agree.
    pub fn factor(&self, step: usize, total: usize) -> f64 {
        let by_ratio = (self.warmup_ratio * total as f64).ceil() as usize;
        let warmup = self.warmup_steps.max(by_ratio).min(total);
        if step < warmup {
            return match self.warmup_start {
                WarmupStart::First => (step + 1) as f64 / (warmup + 1) as f64,
                WarmupStart::Zero => step as f64 / warmup as f64,
            };
        }
        let progress = (step - warmup) as f64 / (total - warmup).max(1) as f64;
        let progress = progress.min(1.0);
        let fall = match self.kind {
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Constant => return 1.0,
        };
        self.floor + (1.0 - self.floor) * fall
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, value) in [("warmup_ratio", self.warmup_ratio), ("floor", self.floor)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("`schedule.{key}` is {value}, but must be in 0..=1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: Schedule, total: usize, expected: &[f64]) {
        for (step, &factor) in expected.iter().enumerate() {
            let got = schedule.factor(step, total);
            assert!((got - factor).abs() < 1e-12, "step {step}: {got} is not {factor}");
        }
    }

    #[test]
    fn shapes() {
        let linear = Schedule::default();
        check(linear, 4, &[1.0, 0.75, 0.5, 0.25, 0.0]);
        check(Schedule { warmup_steps: 1, ..linear }, 3, &[0.5, 1.0, 0.5, 0.0]);
        check(Schedule { warmup_ratio: 0.3, ..linear }, 4, &[1.0 / 3.0, 2.0 / 3.0, 1.0, 0.5]);
        check(Schedule { kind: ScheduleKind::Constant, ..linear }, 2, &[1.0, 1.0]);
        // `transformers`: i / 2 over the first two of six steps, then (6 - i) / 4 or (1 + cos(pi (i - 2) / 4)) / 2.
        let zero = Schedule { warmup_steps: 2, warmup_start: WarmupStart::Zero, ..linear };
        check(zero, 6, &[0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let root = 0.5_f64.sqrt() / 2.0;
        let zero_cosine = Schedule { kind: ScheduleKind::Cosine, ..zero };
        check(zero_cosine, 6, &[0.0, 0.5, 1.0, 0.5 + root, 0.5, 0.5 - root]);
        check(Schedule { kind: ScheduleKind::Constant, ..zero }, 6, &[0.0, 0.5, 1.0, 1.0]);
        let cosine = Schedule { kind: ScheduleKind::Cosine, floor: 0.1, ..linear };
        check(cosine, 2, &[1.0, 0.55, 0.1]);
    }
}
