//! One step of AdamW, in place.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use super::storage::argument;

/// Elements a task takes at once.
const CHUNK: usize = 1 << 14;

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient.
    pub eps: f64,
    /// Share of the weight taken off per unit of step size.
    pub weight_decay: f64,
    /// Factor on the gradient, such as that of clipping; 1 leaves it.
    pub gradient_scale: f64,
}

/// Running means of one parameter's gradient, `m`, and of its square, `v`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "published names")]
pub struct Moments {
    pub m: Vec<f32>,
    pub v: Vec<f32>,
}

impl Moments {
    /// Zeros for a parameter of `n` elements.
    pub fn zeros(n: usize) -> Self {
        Self { m: vec![0.0; n], v: vec![0.0; n] }
    }
}

/// Updates a parameter and its moments. `step` counts from 1. f32 on the CPU only.
///
/// # Errors
/// Sizes that do not fit, or tensors that are not f32 on the CPU.
///
/// # Source
/// Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2, with the step size also on the decay, as in PyTorch.
#[expect(clippy::disallowed_methods, reason = "a step is part of no graph")]
pub fn adamw_step(
    parameter: &Var,
    gradient: &Tensor,
    moments: &mut Moments,
    settings: &AdamW,
    step: usize,
) -> Result<()> {
    let op = Step { settings: *settings, count: step, moments: Mutex::new(moments) };
    parameter.inplace_op2(&gradient.contiguous()?, &op)
}

struct Step<'a> {
    settings: AdamW,
    count: usize,
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let gradient = argument(gradient, gradient_layout)?;
        let (Some((start, end)), CpuStorage::F32(parameter)) =
            (layout.contiguous_offsets(), parameter)
        else {
            bail!("adamw needs dense f32 parameters")
        };
        let parameter = &mut parameter[start..end];
        let Ok(mut moments) = self.moments.lock() else { bail!("an earlier step failed") };
        let Moments { m, v } = &mut **moments;
        if [parameter.len(), m.len(), v.len()] != [gradient.len(); 3] {
            bail!("adamw: parameter, gradient and moments differ in size")
        }
        let AdamW { learning_rate, beta1, beta2, eps, weight_decay, gradient_scale } =
            self.settings;
        let correction1 = 1.0 - beta1.powi(self.count as i32);
        let correction2 = 1.0 - beta2.powi(self.count as i32);
        let (beta1, beta2, eps) = (beta1 as f32, beta2 as f32, eps as f32);
        let keep = (1.0 - learning_rate * weight_decay) as f32;
        let rate = (learning_rate / correction1) as f32;
        let root = (1.0 / correction2.sqrt()) as f32;
        let scale = gradient_scale as f32;
        parameter
            .par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
            .zip(gradient.par_chunks(CHUNK))
            .for_each(|((parameter, (m, v)), gradient)| {
                for (((p, m), v), g) in parameter.iter_mut().zip(m).zip(v).zip(gradient) {
                    let g = g * scale;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p = *p * keep - rate * *m / (v.sqrt() * root + eps);
                }
            });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_first_step_is_the_learning_rate() {
        // With corrected moments m = g and v = g^2, so the step is lr * sign(g); decay takes lr * 0.1 * p first.
        let parameter = Var::new(&[1.0_f32, -2.0, 3.0], &Device::Cpu).unwrap();
        let gradient = Tensor::new(&[4.0_f32, -0.5, 0.0], &Device::Cpu).unwrap();
        let settings = AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            gradient_scale: 1.0,
        };
        let mut moments = Moments::zeros(3);
        adamw_step(&parameter, &gradient, &mut moments, &settings, 1).unwrap();
        let values = parameter.to_vec1::<f32>().unwrap();
        for (value, expected) in values.iter().zip([0.99 - 0.1, -1.98 + 0.1, 2.97]) {
            assert!((value - expected).abs() < 1e-5, "{values:?}");
        }
        assert!(adamw_step(&parameter, &gradient, &mut Moments::zeros(2), &settings, 2).is_err());
    }
}
