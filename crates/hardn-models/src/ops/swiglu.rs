//! The gate of the feed-forward block.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::storage::{argument, elements, tensor};
use crate::kernels::{exp, filled, silu, zeros};

/// Elements a task takes at once.
const CHUNK: usize = 1 << 15;

/// `silu(gate) * up`, with gradients for both.
///
/// # Shapes
/// `gate`, `up`: the same, f32; returns that shape.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32 on the CPU.
///
/// # Source
/// Shazeer 2020 (arXiv:2002.05202), equation 6.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if gate_layout.shape() != up_layout.shape() {
            bail!("gate {:?} and up {:?} differ", gate_layout.shape(), up_layout.shape())
        }
        let (gate, up) = (argument(gate, gate_layout)?, argument(up, up_layout)?);
        let y = filled(gate.len(), CHUNK, |i, y| {
            for ((y, gate), up) in y.iter_mut().zip(&gate[i * CHUNK..]).zip(&up[i * CHUNK..]) {
                *y = silu(*gate) * up;
            }
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
        let grad = grad.contiguous()?;
        let (g, u, dy) = (elements(gate)?, elements(up)?, elements(&grad)?);
        let (g, u, dy): (&[f32], &[f32], &[f32]) = (&g, &u, &dy);
        let mut dg = zeros(g.len());
        let mut du = zeros(g.len());
        dg.par_chunks_mut(CHUNK)
            .zip(du.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK).zip(u.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK)))
            .for_each(|((dg, du), ((g, u), dy))| {
                for ((dg, du), ((g, u), dy)) in dg.iter_mut().zip(du).zip(g.iter().zip(u).zip(dy)) {
                    let sigmoid = 1.0 / (1.0 + exp(-g));
                    let silu = g * sigmoid;
                    *du = dy * silu;
                    *dg = dy * u * (sigmoid + silu * (1.0 - sigmoid));
                }
            });
        Ok((Some(tensor(dg, gate.shape())?), Some(tensor(du, up.shape())?)))
    }
}
