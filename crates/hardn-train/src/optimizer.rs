//! AdamW and Muon over a model's variables, with gradients summed over micro-batches.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use hardn_models::ops;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{OptimizerRecipe, Result, TrainError};

/// Values one thread sums at a time.
const CHUNK: usize = 1 << 14;

/// Which variables weight decay pulls towards zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decays {
    /// Those of two or more dimensions: not biases, normalisation weights and factors (as in `transformers` and SVEN's
    /// released code, which tell them by name).
    #[default]
    Matrices,
    /// All of them (PyTorch's AdamW when it is given no groups).
    All,
}

/// Settings of AdamW.
///
/// # Source
/// Loshchilov and Hutter 2019 (arXiv:1711.05101); the bias correction is Kingma and Ba's (arXiv:1412.6980).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of what `decays` says, per unit of learning rate.
    pub weight_decay: f64,
    /// Which variables decay.
    pub decays: Decays,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            weight_decay: 0.01,
            decays: Decays::Matrices,
            betas: [0.9, 0.999],
            eps: 1e-8,
        }
    }
}

/// Settings of Muon: matrices between the embedding and the head move along orthogonalised momentum, everything
/// else by AdamW with the same rate and decay.
///
/// # Source
/// Jordan et al. 2024 (<https://kellerjordan.github.io/posts/muon/>); the factor that gives an update the size of one of
/// AdamW's is Liu et al.'s (arXiv:2502.16982, eq. 4).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of what `decays` says, per unit of learning rate.
    pub weight_decay: f64,
    /// Which variables decay.
    pub decays: Decays,
    /// Decay rate of the (Nesterov) momentum of matrices.
    pub momentum: f64,
    /// Decay rates of AdamW's two moments.
    pub betas: [f64; 2],
    /// Added to the root of AdamW's second moment.
    pub eps: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        let AdamWConfig { weight_decay, decays, eps, .. } = AdamWConfig::default();
        Self { learning_rate: 1e-3, weight_decay, decays, momentum: 0.95, betas: [0.9, 0.95], eps }
    }
}

/// What a variable's past gradients have left: fused kernels take slices, other devices tensors.
enum Moments {
    Fused(ops::Moments),
    Tensors(Tensor, Tensor),
    /// Muon's momentum.
    Momentum(Tensor),
}

impl Moments {
    fn zeros(var: &Var, momentum: bool) -> Result<Self> {
        if momentum {
            return Ok(Self::Momentum(var.zeros_like()?));
        }
        if matches!(var.device(), Device::Cpu) {
            return Ok(Self::Fused(ops::Moments::zeros(var.elem_count())));
        }
        let zeros = || Tensor::zeros(var.shape(), DType::F32, var.device());
        Ok(Self::Tensors(zeros()?, zeros()?))
    }

    fn tensors(&self, var: &Var) -> Result<(Tensor, Option<Tensor>)> {
        Ok(match self {
            Self::Fused(moments) => (
                Tensor::from_slice(&moments.m, var.shape(), &Device::Cpu)?,
                Some(Tensor::from_slice(&moments.v, var.shape(), &Device::Cpu)?),
            ),
            Self::Tensors(first, second) => (first.clone(), Some(second.clone())),
            Self::Momentum(momentum) => (momentum.clone(), None),
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

/// A model's trainable variables with their summed gradients, and the rule that moves them.
pub(crate) struct Optimizer {
    recipe: OptimizerRecipe,
    slots: Vec<Slot>,
    updates: usize,
    /// Factor on the summed gradients, not yet multiplied in.
    scale: f64,
}

impl Optimizer {
    /// Moments start at zero. Every variable must be f32.
    pub(crate) fn new(recipe: OptimizerRecipe, variables: Vec<(String, Var)>) -> Result<Self> {
        let mut slots = Vec::with_capacity(variables.len());
        for (name, var) in variables {
            if var.dtype() != DType::F32 {
                return Err(TrainError::Shape(format!(
                    "`{name}` is not f32 and cannot be trained"
                )));
            }
            let orthogonal = matches!(recipe, OptimizerRecipe::Muon(_))
                && var.rank() == 2
                && !["embed_tokens", "lm_head"].iter().any(|part| name.contains(part));
            let (moments, decays) = (
                Moments::zeros(&var, orthogonal)?,
                recipe.adamw().decays == Decays::All || var.rank() > 1,
            );
            slots.push(Slot { name, var, moments, decays, gradient: None });
        }
        Ok(Self { recipe, slots, updates: 0, scale: 1.0 })
    }

    /// Number of values being trained.
    pub(crate) fn n_parameters(&self) -> usize {
        self.slots.iter().map(|slot| slot.var.elem_count()).sum()
    }

    /// Adds the gradients of one micro-batch.
    pub(crate) fn accumulate(&mut self, mut gradients: ops::Gradients) -> Result<()> {
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
        let rule = Rule {
            adamw: self.recipe.adamw(),
            momentum: self.recipe.momentum(),
            learning_rate,
            gradient_scale: self.scale,
            updates: self.updates,
        };
        // Products of small matrices do not fill a core's worth of threads each: a matrix per thread does.
        self.slots.par_iter_mut().try_for_each(|slot| rule.apply(slot))?;
        self.scale = 1.0;
        Ok(())
    }

    /// Everything needed to go on: moments and values by name, and the number of updates.
    pub(crate) fn state(&self) -> Result<(BTreeMap<String, Tensor>, usize)> {
        let mut tensors = BTreeMap::new();
        for slot in &self.slots {
            let (first, second) = slot.moments.tensors(&slot.var)?;
            tensors.insert(format!("first.{}", slot.name), first);
            if let Some(second) = second {
                tensors.insert(format!("second.{}", slot.name), second);
            }
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
            let (first, value) = (get("first")?, get("value")?);
            match &mut slot.moments {
                Moments::Momentum(momentum) => *momentum = first,
                Moments::Fused(moments) => {
                    let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                    moments.m = flat(&first).map_err(text)?;
                    moments.v = flat(&get("second")?).map_err(text)?;
                }
                Moments::Tensors(m, v) => (*m, *v) = (first, get("second")?),
            }
            slot.var.set(&value).map_err(text)?;
            slot.gradient = None;
        }
        self.updates = updates;
        self.scale = 1.0;
        Ok(())
    }
}

/// One update's settings.
struct Rule {
    adamw: AdamWConfig,
    momentum: f64,
    learning_rate: f64,
    gradient_scale: f64,
    /// Updates made, this one included.
    updates: usize,
}

impl Rule {
    /// Moves a variable by its gradient, which is then forgotten.
    fn apply(&self, slot: &mut Slot) -> Result<()> {
        let Some(gradient) = slot.gradient.take() else { return Ok(()) };
        let learning_rate = self.learning_rate;
        let AdamWConfig { betas: [beta1, beta2], eps, .. } = self.adamw;
        let weight_decay = if slot.decays { self.adamw.weight_decay } else { 0.0 };
        let kept = |var: &Var| var.as_detached_tensor() * (1.0 - learning_rate * weight_decay);
        match &mut slot.moments {
            Moments::Fused(moments) => {
                let settings = ops::AdamW {
                    learning_rate,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    gradient_scale: self.gradient_scale,
                };
                ops::adamw_step(&slot.var, &gradient, moments, &settings, self.updates)?;
            }
            Moments::Tensors(first, second) => {
                let correction = |beta: f64| 1.0 - beta.powi(self.updates as i32);
                let gradient = (gradient * self.gradient_scale)?;
                *first = ((&*first * beta1)? + (&gradient * (1.0 - beta1))?)?;
                *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let root = (second.sqrt()? / correction(beta2).sqrt())?;
                let step = (&*first / (root + eps)?)?;
                let moved = (step * (learning_rate / correction(beta1)))?;
                slot.var.set(&(kept(&slot.var)? - moved)?)?;
            }
            Moments::Momentum(momentum) => {
                let gradient = (gradient * self.gradient_scale)?;
                *momentum = ((&*momentum * self.momentum)? + &gradient)?;
                let ahead = (gradient + (&*momentum * self.momentum)?)?;
                let (rows, columns) = ahead.dims2()?;
                let size = 0.2 * (rows.max(columns) as f64).sqrt();
                let moved = (orthogonalize(&ahead)? * (learning_rate * size))?;
                slot.var.set(&(kept(&slot.var)? - moved)?)?;
            }
        }
        Ok(())
    }
}

/// The nearest matrix of orthogonal rows (or columns, if there are fewer), roughly: five steps of Newton and Schulz
/// bring every singular value to about 1 (0.7 to 1.2).
///
/// # Source
/// Jordan et al. 2024, with their coefficients.
fn orthogonalize(matrix: &Tensor) -> candle_core::Result<Tensor> {
    const STEPS: usize = 5;
    let (rows, columns) = matrix.dims2()?;
    let is_tall = rows > columns;
    let mut x = if is_tall { matrix.t()?.contiguous()? } else { matrix.clone() };
    let norm = x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
    x = (x / (f64::from(norm) + 1e-7))?;
    for _ in 0..STEPS {
        let gram = x.matmul(&x.t()?)?;
        let polynomial = ((&gram * -4.7750)? + (gram.matmul(&gram)? * 2.0315)?)?;
        x = ((&x * 3.4445)? + polynomial.matmul(&x)?)?;
    }
    if is_tall { x.t()?.contiguous() } else { Ok(x) }
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

    fn optimizer(config: AdamWConfig, value: &[f32], shape: &[usize]) -> (Optimizer, Var) {
        let var = Var::from_slice(value, shape, &Device::Cpu).unwrap();
        let variables = vec![("w".to_owned(), var.clone())];
        (Optimizer::new(OptimizerRecipe::Adamw(config), variables).unwrap(), var)
    }

    fn of(loss: &Tensor, variables: &[&Var]) -> ops::Gradients {
        let variables: Vec<Var> = variables.iter().map(|&var| var.clone()).collect();
        ops::Gradients::of(loss, &variables).unwrap()
    }

    /// One step on `sum(w * slope)`, whose gradient is `slope`.
    fn step(adamw: &mut Optimizer, var: &Var, slope: f64, learning_rate: f64) {
        let loss = (var.as_tensor() * slope).unwrap().sum_all().unwrap();
        adamw.accumulate(of(&loss, &[var])).unwrap();
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
    fn matrices_decay_and_vectors_only_if_told() {
        let (some, all) = (Decays::Matrices, Decays::All);
        for (shape, decays, expected) in
            [(vec![1, 1], some, 0.95 - 0.1), (vec![1], some, 1.0 - 0.1), (vec![1], all, 0.95 - 0.1)]
        {
            let config = AdamWConfig { weight_decay: 0.5, decays, ..AdamWConfig::default() };
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
            adamw.accumulate(of(&loss, &[&var])).unwrap();
        }
        // Gradient (3, 3): norm 3 * sqrt 2.
        assert!((adamw.clip(0.0).unwrap() - 18_f64.sqrt()).abs() < 1e-12);
        assert!((adamw.clip(1.0).unwrap() - 18_f64.sqrt()).abs() < 1e-12);
        assert!((adamw.clip(1.0).unwrap() - 1.0).abs() < 1e-12);
        // One more micro-batch of gradient (1, 1) on the clipped sum: (1 + 1/sqrt 2) * sqrt 2.
        adamw.accumulate(of(&var.sum_all().unwrap(), &[&var])).unwrap();
        assert!((adamw.clip(0.0).unwrap() - (1.0 + 2_f64.sqrt())).abs() < 1e-6);
        adamw.clear_gradients();
        assert_eq!(adamw.clip(1.0).unwrap(), 0.0);
    }

    #[test]
    fn newton_schulz_brings_singular_values_near_one() {
        // Singular values 3 and 0.1, turned by rotations.
        for (rows, columns) in [(2, 3), (3, 2)] {
            let (c, s) = (0.6_f32, 0.8_f32);
            let wide = [3.0 * c, -0.1 * s, 0.0, 3.0 * s, 0.1 * c, 0.0];
            let mut matrix = Tensor::from_slice(&wide, (2, 3), &Device::Cpu).unwrap();
            if rows > columns {
                matrix = matrix.t().unwrap().contiguous().unwrap();
            }
            let x = orthogonalize(&matrix).unwrap();
            assert_eq!(x.dims(), [rows, columns]);
            let x = if rows > columns { x.t().unwrap() } else { x };
            // Columns 0 and 1 of the wide matrix are 3 and 0.1 times orthogonal unit vectors.
            let values = x.contiguous().unwrap().to_vec2::<f32>().unwrap();
            for (i, direction) in [[c, s], [-s, c]].into_iter().enumerate() {
                let along = values[0][i] * direction[0] + values[1][i] * direction[1];
                assert!((0.6..1.3).contains(&along), "{rows} x {columns}: {along}");
            }
        }
    }

    #[test]
    fn muon_moves_matrices_orthogonally_and_the_rest_as_adamw() {
        let eye = [3.0_f32, 0.0, 0.0, 0.01];
        let matrix = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let table = Var::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let variables = [("mlp.up_proj.weight", &matrix), ("model.embed_tokens.weight", &table)];
        let variables = variables.map(|(name, var)| (name.to_owned(), var.clone())).to_vec();
        let recipe = OptimizerRecipe::Muon(MuonConfig::default());
        let mut muon = Optimizer::new(recipe, variables).unwrap();
        let slopes = Tensor::from_slice(&eye, (2, 2), &Device::Cpu).unwrap();
        let loss = (matrix.as_tensor() + table.as_tensor()).unwrap().mul(&slopes).unwrap();
        let loss = loss.sum_all().unwrap();
        muon.accumulate(of(&loss, &[&matrix, &table])).unwrap();
        muon.update(1.0).unwrap();
        let moved = matrix.to_vec2::<f32>().unwrap();
        let size = 0.2 * 2_f32.sqrt();
        for (i, row) in moved.iter().enumerate() {
            assert!((-row[i] / size - 1.0).abs() < 0.4, "{moved:?}");
            assert!(row[1 - i].abs() < 1e-6, "{moved:?}");
        }
        assert!((table.to_vec2::<f32>().unwrap()[1][1] + 1.0).abs() < 1e-4);
        let (tensors, updates) = muon.state().unwrap();
        assert!(tensors.contains_key("first.mlp.up_proj.weight"));
        assert!(!tensors.contains_key("second.mlp.up_proj.weight"));
        let tensors = tensors.into_iter().map(|(name, t)| (name, t.copy().unwrap())).collect();
        muon.restore(&tensors, updates).unwrap();
    }
}
