//! The part of a block that looks at one position at a time.

use super::{
    each_row,
    product::{Product, Users},
};
use crate::{
    config::spec::ExpertsSpec,
    kernels::{Team, route, softmax},
    ops::Activation,
};

pub(super) enum Mlp {
    Dense(Box<Dense>),
    Experts(Box<Mixture>),
}

pub(super) struct Dense {
    /// Where there is a gate its columns come first.
    pub(super) up: Product,
    pub(super) is_gated: bool,
    pub(super) activation: Activation,
    pub(super) down: Product,
}

pub(super) struct Mixture {
    pub(super) router: Product,
    pub(super) experts: Vec<Dense>,
    pub(super) shared: Option<Dense>,
    pub(super) spec: ExpertsSpec,
}

/// Buffers, `[rows, ..]`.
#[derive(Default)]
pub(super) struct MlpScratch {
    up: Vec<f32>,
    inner: Vec<f32>,
    scores: Vec<f32>,
    /// An expert's rows and what it makes of them.
    taken: Vec<f32>,
    made: Vec<f32>,
}

impl Mlp {
    /// `out[rows, hidden]` of `x[rows, hidden]`.
    pub(super) fn forward(
        &self,
        x: &[f32],
        out: &mut Vec<f32>,
        users: &Users,
        scratch: &mut MlpScratch,
        team: &Team,
    ) {
        match self {
            Self::Dense(dense) => {
                dense.forward(x, out, users, &mut scratch.up, &mut scratch.inner, team);
            }
            Self::Experts(experts) => experts.forward(x, out, users, scratch, team),
        }
    }
}

impl Dense {
    fn forward(
        &self,
        x: &[f32],
        out: &mut Vec<f32>,
        users: &Users,
        up: &mut Vec<f32>,
        inner: &mut Vec<f32>,
        team: &Team,
    ) {
        self.up.forward(x, up, users, team);
        let width = self.up.n();
        if self.is_gated {
            let half = width / 2;
            inner.resize(up.len() / 2, 0.0);
            each_row(team, inner, half, |i, inner| {
                let (gate, up) = up[i * width..][..width].split_at(half);
                inner.copy_from_slice(gate);
                self.activation.apply(inner);
                for (inner, up) in inner.iter_mut().zip(up) {
                    *inner *= up;
                }
            });
            self.down.forward(inner, out, users, team);
        } else {
            each_row(team, up, width, |_, up| self.activation.apply(up));
            self.down.forward(up, out, users, team);
        }
    }
}

impl Mixture {
    /// A token's sum has the shared experts first, then the chosen ones in their order.
    fn forward(
        &self,
        x: &[f32],
        out: &mut Vec<f32>,
        users: &Users,
        scratch: &mut MlpScratch,
        team: &Team,
    ) {
        let MlpScratch { up, inner, scores, taken, made } = scratch;
        self.router.forward(x, scores, users, team);
        let n_experts = self.experts.len();
        let hidden = x.len() / (scores.len() / n_experts);
        let mut rows_of: Vec<Vec<usize>> = vec![Vec::new(); n_experts];
        for (row, scores) in scores.chunks_exact_mut(n_experts).enumerate() {
            softmax(scores, 1.0);
            for expert in route(scores, &self.spec) {
                rows_of[expert].push(row);
            }
        }
        if let Some(shared) = &self.shared {
            shared.forward(x, out, users, up, inner, team);
        } else {
            out.clear();
            out.resize(x.len(), 0.0);
        }
        let chosen = self.experts.iter().zip(&rows_of).enumerate();
        for (index, (expert, rows)) in chosen.filter(|(_, (_, rows))| !rows.is_empty()) {
            taken.clear();
            for row in rows {
                taken.extend_from_slice(&x[row * hidden..][..hidden]);
            }
            expert.forward(taken, made, &users.select(rows), up, inner, team);
            for (row, made) in rows.iter().zip(made.chunks_exact(hidden)) {
                let weight = scores[row * n_experts + index] * self.spec.scale;
                for (out, made) in out[row * hidden..][..hidden].iter_mut().zip(made) {
                    *out = weight.mul_add(*made, *out);
                }
            }
        }
    }
}
