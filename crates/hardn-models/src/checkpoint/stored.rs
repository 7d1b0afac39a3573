//! One tensor as it lies in a file, and its conversion to numbers of the asked type.

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// Values one thread converts at a time.
const PART: usize = 1 << 16;

/// Where a tensor lies in its file. The bytes are known to be within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub(super) start: usize,
    /// Steps from one element to the next, in elements; `None` if they lie one after the other.
    pub(super) strides: Option<Vec<usize>>,
    /// Of the bytes it lies in, where the format has one.
    pub(super) checksum: Option<Checksum>,
}

/// The CRC-32 of some bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) crc32: u32,
}

impl Checksum {
    fn check(self, file: &[u8]) -> Result<(), String> {
        let mut crc = flate2::Crc::new();
        crc.update(&file[self.start..self.end]);
        if crc.sum() == self.crc32 {
            return Ok(());
        }
        Err("does not have the checksum it was written with; the file is damaged".to_owned())
    }
}

impl Stored {
    /// A tensor at byte `start` of the `space` bytes up to `end`.
    pub(super) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        start: usize,
        end: usize,
    ) -> Result<Self, String> {
        let dense = dense_strides(&shape).ok_or("has too many elements")?;
        let strides = strides.filter(|strides| *strides != dense);
        if strides.as_ref().is_some_and(|strides| strides.len() != shape.len()) {
            return Err("has strides that do not fit its shape".to_owned());
        }
        let stored = Self { dtype, shape, start, strides, checksum: None };
        let needed = stored.extent().and_then(|n| n.checked_mul(dtype.bitsize())).map(|n| n / 8);
        match needed.and_then(|n| n.checked_add(start)) {
            Some(needed) if needed <= end => Ok(stored),
            _ => Err(format!("of shape {:?} lies beyond its data", stored.shape)),
        }
    }

    pub(super) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements from the first to the one after the last.
    fn extent(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let Some(strides) = &self.strides else {
            return Some(self.n_elements());
        };
        // A stride of zero repeats an element, as `expand` does; a small file could then ask for any memory.
        let mut last = 0_usize;
        for (n, stride) in self.shape.iter().zip(strides) {
            if *stride == 0 && *n > 1 {
                return None;
            }
            last = last.checked_add((n - 1).checked_mul(*stride)?)?;
        }
        let extent = last.checked_add(1)?;
        (self.n_elements() <= extent).then_some(extent)
    }

    /// The type of the tensor where this crate can compute with it.
    #[cfg(test)]
    pub(super) fn candle_dtype(&self) -> Option<DType> {
        Some(match self.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::U8 | Dtype::BOOL => DType::U8,
            Dtype::U32 => DType::U32,
            Dtype::I16 => DType::I16,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            _ => return None,
        })
    }

    /// Copies the tensor out of its file.
    ///
    /// # Errors
    /// A type that is not a number of f16, bf16, f32 or f64, or a value that is not finite.
    pub(super) fn load(
        &self,
        file: &[u8],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, String> {
        if let Some(checksum) = self.checksum {
            checksum.check(file)?;
        }
        match dtype {
            DType::F32 => self.convert::<f32>(file, device),
            DType::BF16 => self.convert::<bf16>(file, device),
            DType::F16 => self.convert::<f16>(file, device),
            _ => Err(format!("cannot be loaded as {dtype:?}")),
        }
    }

    fn convert<T: Number>(&self, file: &[u8], device: &Device) -> Result<Tensor, String> {
        let gathered;
        let size = self.dtype.bitsize() / 8;
        let bytes = match &self.strides {
            None => &file[self.start..self.start + self.n_elements() * size],
            Some(strides) => {
                gathered = gather(&file[self.start..], &self.shape, strides, size);
                &gathered[..]
            }
        };
        let values = match self.dtype {
            Dtype::F32 => decode(bytes, |b| T::from_f32(f32::from_le_bytes(b))),
            Dtype::BF16 => decode(bytes, |b| T::from_bf16(bf16::from_le_bytes(b))),
            Dtype::F16 => decode(bytes, |b| T::from_f16(f16::from_le_bytes(b))),
            Dtype::F64 => decode(bytes, |b| T::from_f32(f64::from_le_bytes(b) as f32)),
            other => {
                return Err(format!("has type {other:?}; only F16, BF16, F32 and F64 are read"));
            }
        };
        check_finite(&values, T::is_finite)?;
        Tensor::from_vec(values, self.shape.clone(), device).map_err(|error| error.to_string())
    }
}

/// A type weights are computed in.
trait Number: WithDType {
    fn from_f32(value: f32) -> Self;
    fn from_bf16(value: bf16) -> Self;
    fn from_f16(value: f16) -> Self;
    fn is_finite(self) -> bool;
}

impl Number for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_bf16(value: bf16) -> Self {
        value.to_f32()
    }
    fn from_f16(value: f16) -> Self {
        value.to_f32()
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Number for bf16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn from_bf16(value: bf16) -> Self {
        value
    }
    fn from_f16(value: f16) -> Self {
        Self::from_f32(value.to_f32())
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Number for f16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn from_bf16(value: bf16) -> Self {
        Self::from_f32(value.to_f32())
    }
    fn from_f16(value: f16) -> Self {
        value
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

fn decode<T: Number, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T + Sync) -> Vec<T> {
    let mut values = vec![T::zero(); bytes.len() / N];
    let convert = |to: &mut [T], from: &[u8]| {
        for (to, from) in to.iter_mut().zip(from.as_chunks::<N>().0) {
            *to = value(*from);
        }
    };
    if values.len() <= PART {
        convert(&mut values, bytes);
    } else {
        let parts = values.par_chunks_mut(PART).zip(bytes.par_chunks(PART * N));
        parts.for_each(|(to, from)| convert(to, from));
    }
    values
}

/// # Errors
/// Names the first value that is not a finite number.
pub(super) fn check_finite<T: Copy + Send + Sync>(
    values: &[T],
    is_finite: impl Fn(T) -> bool + Sync,
) -> Result<(), String> {
    let found = if values.len() <= PART {
        values.iter().position(|value| !is_finite(*value))
    } else {
        values.par_iter().with_min_len(PART).position_first(|value| !is_finite(*value))
    };
    match found {
        None => Ok(()),
        Some(i) => Err(format!(
            "element {i} is not a finite number in the asked type; the file is damaged, or was written so"
        )),
    }
}

/// Copies elements that do not lie one after the other.
fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut out = Vec::with_capacity(n * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..n {
        let at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn dense_strides(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1_usize;
    for (stride, n) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.checked_mul(*n)?;
    }
    Some(strides)
}
