//! Normalisation of rows.

use crate::{
    config::spec::NormKind,
    ops::{inverse_rms, sum},
};

pub(super) struct Norm {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    pub(super) weight: Vec<f32>,
    /// Empty where the kind has none.
    pub(super) bias: Vec<f32>,
}

impl Norm {
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
        self.in_place(out);
    }

    pub(super) fn in_place(&self, x: &mut [f32]) {
        match self.kind {
            NormKind::Rms => {
                let inverse = inverse_rms(x, self.eps);
                for (x, weight) in x.iter_mut().zip(&self.weight) {
                    *x = *x * inverse * weight;
                }
            }
            NormKind::Layer => {
                let mean = sum(x) / x.len() as f32;
                for x in x.iter_mut() {
                    *x -= mean;
                }
                let inverse = inverse_rms(x, self.eps);
                for ((x, weight), bias) in x.iter_mut().zip(&self.weight).zip(&self.bias) {
                    *x = *x * inverse * weight + bias;
                }
            }
        }
    }
}
