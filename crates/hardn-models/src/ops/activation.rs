//! Activations of feed-forward blocks, with and without a gate.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::storage::{argument, elements, tensor};
use crate::kernels::{exp, filled, zeros};

/// Elements a task takes at once.
const CHUNK: usize = 1 << 15;

/// What a feed-forward block applies to each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x Φ(x)`, with the normal distribution function.
    Gelu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`.
    GeluTanh,
    /// `x / (1 + e^(-1.702 x))`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)` squared (So et al. 2021, arXiv:2109.08668).
    Relu2,
}

impl Activation {
    /// The activation that `hidden_act` or `activation_function` of a `config.json` names.
    ///
    /// `gelu_new`, `gelu_fast`, `gelu_accurate` and `gelu_pytorch_tanh` are one function, written differently.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh"
            | "gelu_python_tanh" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "relu2" => Self::Relu2,
            _ => return None,
        })
    }

    /// The activation of every value, in place.
    pub(crate) fn apply(self, x: &mut [f32]) {
        fn map<C: Curve>(x: &mut [f32]) {
            for x in x {
                *x = C::at(*x).0;
            }
        }
        each!(self, map(x));
    }
}

/// `act(x)` with its gradient.
///
/// # Shapes
/// `x`: any, f32; returns that shape.
///
/// # Errors
/// A tensor that is not f32 on the CPU.
pub fn activation(act: Activation, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Plain(act))
}

/// `act(gate) * up`, with gradients for both.
///
/// # Shapes
/// `gate`, `up`: the same, f32; returns that shape.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32 on the CPU.
///
/// # Source
/// Shazeer 2020 (arXiv:2002.05202), section 2.
pub fn gated(act: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, Gated(act))
}

/// A function of one value, in a form compilers turn into vector code.
trait Curve {
    /// Value and derivative.
    fn at(x: f32) -> (f32, f32);
}

/// Calls a function with the curve of an activation as its type argument.
macro_rules! each {
    ($act:expr, $function:ident($($argument:expr),*)) => {
        match $act {
            Activation::Silu => $function::<Silu>($($argument),*),
            Activation::Gelu => $function::<Gelu>($($argument),*),
            Activation::GeluTanh => $function::<GeluTanh>($($argument),*),
            Activation::QuickGelu => $function::<QuickGelu>($($argument),*),
            Activation::Relu => $function::<Relu>($($argument),*),
            Activation::Relu2 => $function::<Relu2>($($argument),*),
        }
    };
}
use each;

struct Silu;
struct Gelu;
struct GeluTanh;
struct QuickGelu;
struct Relu;
struct Relu2;

/// `x σ(scale x)` and its derivative.
#[inline]
fn sigmoid_gated(x: f32, scale: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp(-scale * x));
    let value = x * sigmoid;
    (value, sigmoid + scale * value * (1.0 - sigmoid))
}

impl Curve for Silu {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        sigmoid_gated(x, 1.0)
    }
}

impl Curve for QuickGelu {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        sigmoid_gated(x, 1.702)
    }
}

impl Curve for Gelu {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
        let (z, density) = (x.abs() * std::f32::consts::FRAC_1_SQRT_2, exp(-0.5 * x * x));
        let tail = 0.5 * density * scaled_erfc(z);
        let phi = if x < 0.0 { tail } else { 1.0 - tail };
        (x * phi, phi + x * density * INVERSE_ROOT_TAU)
    }
}

impl Curve for GeluTanh {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        // (1 + tanh u) / 2 is the logistic function of 2u.
        const RATE: f32 = 1.595_769;
        const CUBIC: f32 = 0.044_715;
        let sigmoid = 1.0 / (1.0 + exp(-RATE * x * (1.0 + CUBIC * x * x)));
        let value = x * sigmoid;
        let rate = RATE * (1.0 + 3.0 * CUBIC * x * x);
        (value, sigmoid + rate * value * (1.0 - sigmoid))
    }
}

impl Curve for Relu {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        // Written so that not-a-number stays what it is.
        if x <= 0.0 { (0.0, 0.0) } else { (x, 1.0) }
    }
}

impl Curve for Relu2 {
    #[inline]
    fn at(x: f32) -> (f32, f32) {
        if x <= 0.0 { (0.0, 0.0) } else { (x * x, 2.0 * x) }
    }
}

/// `e^(z²) erfc(z)` for `z >= 0`, to about 3e-7 relative: a polynomial in `t = 1 / (1 + 0.4 z)`, fitted by least
/// squares at Chebyshev points.
#[inline]
fn scaled_erfc(z: f32) -> f32 {
    const COEFFICIENTS: [f32; 11] = [
        -0.029_506_432,
        0.141_926_7,
        -0.238_736_2,
        0.141_435_46,
        -0.049_744_14,
        0.085_228_16,
        0.118_634_13,
        0.171_802_34,
        0.207_608_06,
        0.225_676_07,
        0.225_675_84,
    ];
    let t = 1.0 / 0.4_f32.mul_add(z, 1.0);
    t * COEFFICIENTS.iter().fold(0.0, |sum: f32, c| sum.mul_add(t, *c))
}

struct Plain(Activation);

impl CustomOp1 for Plain {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = argument(x, layout)?;
        let y = filled(x.len(), CHUNK, |i, y| {
            y.copy_from_slice(&x[i * CHUNK..][..y.len()]);
            self.0.apply(y);
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        fn slopes<C: Curve>(dx: &mut [f32], x: &[f32], dy: &[f32]) {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = dy * C::at(*x).1;
            }
        }
        let grad = grad.contiguous()?;
        let (x_data, dy) = (elements(x)?, elements(&grad)?);
        let (x_data, dy): (&[f32], &[f32]) = (&x_data, &dy);
        let dx = filled(x_data.len(), CHUNK, |i, dx| {
            each!(self.0, slopes(dx, &x_data[i * CHUNK..], &dy[i * CHUNK..]));
        });
        tensor(dx, x.shape()).map(Some)
    }
}

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        fn values<C: Curve>(y: &mut [f32], gate: &[f32], up: &[f32]) {
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = C::at(*gate).0 * up;
            }
        }
        if gate_layout.shape() != up_layout.shape() {
            bail!("gate {:?} and up {:?} differ", gate_layout.shape(), up_layout.shape())
        }
        let (gate, up) = (argument(gate, gate_layout)?, argument(up, up_layout)?);
        let y = filled(gate.len(), CHUNK, |i, y| {
            each!(self.0, values(y, &gate[i * CHUNK..], &up[i * CHUNK..]));
        });
        Ok((CpuStorage::F32(y), gate_layout.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        fn slopes<C: Curve>([dg, du]: [&mut [f32]; 2], [g, u, dy]: [&[f32]; 3]) {
            for ((dg, du), ((g, u), dy)) in dg.iter_mut().zip(du).zip(g.iter().zip(u).zip(dy)) {
                let (value, slope) = C::at(*g);
                *du = dy * value;
                *dg = dy * u * slope;
            }
        }
        let grad = grad.contiguous()?;
        let (g, u, dy) = (elements(gate)?, elements(up)?, elements(&grad)?);
        let (g, u, dy): (&[f32], &[f32], &[f32]) = (&g, &u, &dy);
        let mut dg = zeros(g.len());
        let mut du = zeros(g.len());
        dg.par_chunks_mut(CHUNK)
            .zip(du.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK).zip(u.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK)))
            .for_each(|((dg, du), ((g, u), dy))| each!(self.0, slopes([dg, du], [g, u, dy])));
        Ok((Some(tensor(dg, gate.shape())?), Some(tensor(du, up.shape())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Φ(1) = 0.841345, tanh form at 1: 0.841192; σ(1) = 0.731059, σ(1.702) = 0.845796.
        for (act, at_one, at_minus_two) in [
            (Activation::Silu, 0.731_058_6, -0.238_405_8),
            (Activation::Gelu, 0.841_344_8, -0.045_500_26),
            (Activation::GeluTanh, 0.841_192, -0.045_402_3),
            (Activation::QuickGelu, 0.845_795_8, -0.064_339_8),
            (Activation::Relu, 1.0, 0.0),
        ] {
            let mut x = [1.0, -2.0, 0.0, 30.0, -30.0];
            act.apply(&mut x);
            for (x, expected) in x.iter().zip([at_one, at_minus_two, 0.0, 30.0, 0.0]) {
                assert!((x - expected).abs() < 2e-6, "{act:?}: {x} is not {expected}");
            }
        }
    }

    #[test]
    fn names_of_transformers() {
        assert_eq!(Activation::from_name("gelu_new"), Some(Activation::GeluTanh));
        assert_eq!(Activation::from_name("swish"), Some(Activation::Silu));
        assert_eq!(Activation::from_name("xielu"), None);
    }
}
