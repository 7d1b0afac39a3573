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

/// A learning-rate schedule: a straight rise from 0, then a fall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The shape of the fall.
    pub kind: ScheduleKind,
    /// Steps of the rise.
    pub warmup_steps: usize,
    /// Steps of the rise as a share of all steps, rounded up; the larger of the two counts.
    pub warmup_ratio: f64,
    /// Where the fall ends, as a share of the learning rate.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { kind: ScheduleKind::Linear, warmup_steps: 0, warmup_ratio: 0.0, floor: 0.0 }
    }
}

impl Schedule {
    /// The factor on the learning rate at `step`, counted from 0, of `total`.
    ///
    /// As in `transformers`: the rise is `step / warmup`, so the very first step of a warm-up has rate 0;
    /// hardn uses `(step + 1) / (warmup + 1)` instead, which wastes no step. Without warm-up both agree.
    pub fn factor(&self, step: usize, total: usize) -> f64 {
        let by_ratio = (self.warmup_ratio * total as f64).ceil() as usize;
        let warmup = self.warmup_steps.max(by_ratio).min(total);
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
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
        let cosine = Schedule { kind: ScheduleKind::Cosine, floor: 0.1, ..linear };
        check(cosine, 2, &[1.0, 0.55, 0.1]);
    }
}
