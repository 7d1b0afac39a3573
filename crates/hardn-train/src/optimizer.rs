//! AdamW over a model's variables, with gradients summed over micro-batches.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use hardn_models::ops;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// Values one thread sums at a time.
const CHUNK: usize = 1 << 14;

/// Settings of AdamW.
///
/// # Source
/// Loshchilov and Hutter 2019 (arXiv:1711.05101); the bias correction is Kingma and Ba's (arXiv:1412.6980).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of matrices, per unit of learning rate; biases and normalisation weights do not decay.
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, weight_decay: 0.01, betas: [0.9, 0.999], eps: 1e-8 }
    }
}

/// The two moments: fused kernels take slices, other devices tensors.
enum Moments {
    Fused(ops::Moments),
    Tensors(Tensor, Tensor),
}

impl Moments {
    fn zeros(var: &Var) -> Result<Self> {
        if matches!(var.device(), Device::Cpu) {
            return Ok(Self::Fused(ops::Moments::zeros(var.elem_count())));
        }
        let zeros = || Tensor::zeros(var.shape(), DType::F32, var.device());
        Ok(Self::Tensors(zeros()?, zeros()?))
    }

    fn tensors(&self, var: &Var) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            Self::Fused(moments) => (
                Tensor::from_slice(&moments.m, var.shape(), &Device::Cpu)?,
                Tensor::from_slice(&moments.v, var.shape(), &Device::Cpu)?,
            ),
            Self::Tensors(first, second) => (first.clone(), second.clone()),
        })
    }
}

struct Slot {
    name: String,
    var: Var,
    moments: Moments,
    decays: bool,
    gradient: Option<Tensor>,
}

/// AdamW over a model's trainable variables, with their summed gradients.
pub(crate) struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    updates: usize,
    /// Factor on the summed gradients, not yet multiplied in.
    scale: f64,
}

impl AdamW {
    /// Moments start at zero. Every variable must be f32.
    pub(crate) fn new(config: AdamWConfig, variables: Vec<(String, Var)>) -> Result<Self> {
        let mut slots = Vec::with_capacity(variables.len());
        for (name, var) in variables {
            if var.dtype() != DType::F32 {
                return Err(TrainError::Shape(format!(
                    "`{name}` is not f32 and cannot be trained"
                )));
            }
            let (moments, decays) = (Moments::zeros(&var)?, var.rank() > 1);
            slots.push(Slot { name, var, moments, decays, gradient: None });
        }
        Ok(Self { config, slots, updates: 0, scale: 1.0 })
    }

    /// Number of values being trained.
    pub(crate) fn n_parameters(&self) -> usize {
        self.slots.iter().map(|slot| slot.var.elem_count()).sum()
    }

    /// Adds the gradients of one micro-batch.
    pub(crate) fn accumulate(&mut self, loss: &Tensor) -> Result<()> {
        let mut gradients = loss.backward()?;
        for slot in &mut self.slots {
            let Some(gradient) = gradients.remove(slot.var.as_tensor()) else { continue };
            slot.gradient = Some(match slot.gradient.take() {
                Some(sum) if self.scale != 1.0 => ((sum * self.scale)? + gradient)?,
                Some(sum) => (sum + gradient)?,
                None => gradient.contiguous()?,
            });
        }
        self.scale = 1.0;
        Ok(())
    }

    /// Scales the summed gradients down to a Euclidean norm of at most `limit` (0: no limit), all variables
    /// together, and returns the norm before. It is not finite if any gradient is not.
    pub(crate) fn clip(&mut self, limit: f64) -> Result<f64> {
        let mut squares = 0.0;
        for gradient in self.slots.iter().filter_map(|slot| slot.gradient.as_ref()) {
            squares += sum_of_squares(gradient)?;
        }
        let norm = squares.sqrt() * self.scale;
        if limit > 0.0 && norm > limit {
            self.scale *= limit / norm;
        }
        Ok(norm)
    }

    /// Forgets the summed gradients.
    pub(crate) fn clear_gradients(&mut self) {
        self.scale = 1.0;
        for slot in &mut self.slots {
            slot.gradient = None;
        }
    }

    /// One update at `learning_rate` with the summed gradients, which are then forgotten.
    /// A variable without gradient does not move, nor do its moments.
    pub(crate) fn update(&mut self, learning_rate: f64) -> Result<()> {
        self.updates += 1;
        let [beta1, beta2] = self.config.betas;
        for slot in &mut self.slots {
            let Some(gradient) = slot.gradient.take() else { continue };
            let weight_decay = if slot.decays { self.config.weight_decay } else { 0.0 };
            match &mut slot.moments {
                Moments::Fused(moments) => {
                    let settings = ops::AdamW {
                        learning_rate,
                        beta1,
                        beta2,
                        eps: self.config.eps,
                        weight_decay,
                        gradient_scale: self.scale,
                    };
                    ops::adamw_step(&slot.var, &gradient, moments, &settings, self.updates)?;
                }
                Moments::Tensors(first, second) => {
                    let correction = |beta: f64| 1.0 - beta.powi(self.updates as i32);
                    let gradient = (gradient * self.scale)?;
                    *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
                    *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                    let root = (second.sqrt()? / correction(beta2).sqrt())?;
                    let step = (&*first / (root + self.config.eps)?)?;
                    let kept =
                        (slot.var.as_detached_tensor() * (1.0 - learning_rate * weight_decay))?;
                    slot.var.set(&(kept - (step * (learning_rate / correction(beta1)))?)?)?;
                }
            }
        }
        self.scale = 1.0;
        Ok(())
    }

    /// Everything needed to go on: moments and values by name, and the number of updates.
    pub(crate) fn state(&self) -> Result<(BTreeMap<String, Tensor>, usize)> {
        let mut tensors = BTreeMap::new();
        for slot in &self.slots {
            let (first, second) = slot.moments.tensors(&slot.var)?;
            tensors.insert(format!("first.{}", slot.name), first);
            tensors.insert(format!("second.{}", slot.name), second);
            tensors.insert(format!("value.{}", slot.name), slot.var.as_detached_tensor());
        }
        Ok((tensors, self.updates))
    }

    /// Restores what [`Self::state`] gave, the variables' values included.
    pub(crate) fn restore(
        &mut self,
        tensors: &HashMap<String, Tensor>,
        updates: usize,
    ) -> Result<(), String> {
        let text = |error: candle_core::Error| error.to_string();
        for slot in &mut self.slots {
            let get = |part: &str| {
                let key = format!("{part}.{}", slot.name);
                let tensor = tensors.get(&key).ok_or_else(|| format!("`{key}` is missing"))?;
                if tensor.dims() != slot.var.dims() {
                    return Err(format!("`{key}` has shape {:?}", tensor.dims()));
                }
                tensor.to_device(slot.var.device()).map_err(text)
            };
            let (first, second, value) = (get("first")?, get("second")?, get("value")?);
            match &mut slot.moments {
                Moments::Fused(moments) => {
                    let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                    moments.m = flat(&first).map_err(text)?;
                    moments.v = flat(&second).map_err(text)?;
                }
                Moments::Tensors(m, v) => (*m, *v) = (first, second),
            }
            slot.var.set(&value).map_err(text)?;
            slot.gradient = None;
        }
        self.updates = updates;
        self.scale = 1.0;
        Ok(())
    }
}

fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    if !matches!(tensor.device(), Device::Cpu) {
        return Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?));
    }
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    // Fixed chunks added in order: the sum does not depend on the number of threads.
    let sums: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum())
        .collect();
    Ok(sums.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optimizer(config: AdamWConfig, value: &[f32], shape: &[usize]) -> (AdamW, Var) {
        let var = Var::from_slice(value, shape, &Device::Cpu).unwrap();
        (AdamW::new(config, vec![("w".to_owned(), var.clone())]).unwrap(), var)
    }

    /// One step on `sum(w * slope)`, whose gradient is `slope`.
    fn step(adamw: &mut AdamW, var: &Var, slope: f64, learning_rate: f64) {
        let loss = (var.as_tensor() * slope).unwrap().sum_all().unwrap();
        adamw.accumulate(&loss).unwrap();
        adamw.update(learning_rate).unwrap();
    }

    #[test]
    fn the_first_step_has_the_size_of_the_learning_rate() {
        // Bias correction makes m = g and v = g^2, so the move is g / |g| times the rate.
        let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        let (mut adamw, var) = optimizer(config, &[1.0, -2.0], &[2]);
        step(&mut adamw, &var, -30.0, 0.1);
        let values = var.to_vec1::<f32>().unwrap();
        assert!((values[0] - 1.1).abs() < 1e-6 && (values[1] + 1.9).abs() < 1e-6, "{values:?}");
    }

    #[test]
    fn two_steps_by_hand() {
        // g = 1 then 3: m = .1, then .39; v = .001, then .009999.
        // m/(1-.81) = 2.0526316, v/(1-.998001) = 5.0020010, root 2.2365153; move .1 * .9177812.
        let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        let (mut adamw, var) = optimizer(config, &[1.0], &[1]);
        step(&mut adamw, &var, 1.0, 0.1);
        step(&mut adamw, &var, 3.0, 0.1);
        let value = var.to_vec1::<f32>().unwrap()[0];
        assert!((value - (0.9 - 0.091_778_12)).abs() < 1e-5, "{value}");
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        for (shape, expected) in [(vec![1, 1], 0.95 - 0.1), (vec![1], 1.0 - 0.1)] {
            let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() };
            let (mut adamw, var) = optimizer(config, &[1.0], &shape);
            step(&mut adamw, &var, 1.0, 0.1);
            let value = var.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
            assert!((value - expected).abs() < 1e-6, "{shape:?}: {value}");
        }
    }

    #[test]
    fn gradients_add_up_and_scale() {
        let (mut adamw, var) = optimizer(AdamWConfig::default(), &[1.0, 1.0], &[2]);
        for slope in [1.0, 2.0] {
            let loss = (var.as_tensor() * slope).unwrap().sum_all().unwrap();
            adamw.accumulate(&loss).unwrap();
        }
        // Gradient (3, 3): norm 3 * sqrt 2.
        assert!((adamw.clip(0.0).unwrap() - 18_f64.sqrt()).abs() < 1e-12);
        assert!((adamw.clip(1.0).unwrap() - 18_f64.sqrt()).abs() < 1e-12);
        assert!((adamw.clip(1.0).unwrap() - 1.0).abs() < 1e-12);
        // One more micro-batch of gradient (1, 1) on the clipped sum: (1 + 1/sqrt 2) * sqrt 2.
        adamw.accumulate(&var.sum_all().unwrap()).unwrap();
        assert!((adamw.clip(0.0).unwrap() - (1.0 + 2_f64.sqrt())).abs() < 1e-6);
        adamw.clear_gradients();
        assert_eq!(adamw.clip(1.0).unwrap(), 0.0);
    }
}
