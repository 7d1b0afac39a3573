//! A scalar with the gradients it is known to have.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

/// A scalar whose gradients were computed with it.
pub(super) struct Known {
    total: f32,
    gradients: Mutex<[Option<Tensor>; 3]>,
}

impl Known {
    pub(super) fn new(total: f32, gradients: [Option<Tensor>; 3]) -> Self {
        Self { total, gradients: Mutex::new(gradients) }
    }

    fn value(&self) -> (CpuStorage, Shape) {
        (CpuStorage::F32(vec![self.total]), Shape::from(()))
    }

    /// The gradients, given away, times the scalar's own.
    fn take(&self, grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let upstream = grad.to_scalar::<f32>()?;
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *gradients);
        if upstream != 1.0 {
            for gradient in taken.iter_mut().flatten() {
                *gradient = (&*gradient * f64::from(upstream))?;
            }
        }
        Ok(taken)
    }
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [first, ..] = self.take(grad)?;
        Ok(first)
    }
}

impl CustomOp2 for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [first, second, _] = self.take(grad)?;
        Ok((first, second))
    }
}

impl CustomOp3 for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.value())
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [first, second, third] = self.take(grad)?;
        Ok((first, second, third))
    }
}
