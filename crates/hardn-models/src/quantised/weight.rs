//! Weights in 8 bits, or in one of ggml's formats.

use std::borrow::Cow;

use candle_core::{
    Device, Result, Tensor, bail,
    quantized::{GgmlDType, QStorage, QTensor},
};
use rayon::prelude::*;

use crate::ops::elements;

/// Elements one thread dequantises at a time.
const PART: usize = 1 << 15;

/// A weight `[out, in]` that is not trained.
pub enum QuantisedWeight {
    /// Eight bits and one factor per row.
    Int8Rows(Int8Rows),
    /// Blocks of ggml, as GGUF files have them; on the CPU.
    Ggml(QTensor),
}

/// Rows of whole numbers from -127 to 127, each row with a factor.
///
/// # Source
/// Dettmers et al. 2022 (LLM.int8(), arXiv:2208.07339), section 2.1: absolute maximum, per output row. There inputs are
/// rounded to 8 bits as well, which is why their section 3 keeps the few large input dimensions in 16 bits. Here
/// inputs stay f32: nothing has to be split off, and the only error is that of the weight's rounding.
pub struct Int8Rows {
    values: Vec<i8>,
    /// What a row's numbers are multiplied by.
    factors: Vec<f32>,
    columns: usize,
}

impl Int8Rows {
    /// Rounds a weight `[out, in]`. The largest magnitude of a row becomes 127; the error of an element is at most
    /// half the row's factor.
    ///
    /// # Errors
    /// A tensor that is not a matrix, or holds a value that is not finite.
    pub fn new(weight: &Tensor) -> Result<Self> {
        let (out, columns) = weight.dims2()?;
        let weight = weight.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
        let weight = weight.contiguous()?;
        let data = elements(&weight)?;
        let mut values = vec![0; out * columns];
        let mut factors = vec![0.0; out];
        if columns > 0 {
            let rows = values.par_chunks_mut(columns).zip(data.par_chunks(columns));
            rows.zip(&mut factors).for_each(|((values, row), factor)| *factor = round(row, values));
        }
        if factors.iter().any(|factor| !factor.is_finite()) {
            bail!("a weight that is not finite cannot be written in 8 bits");
        }
        Ok(Self { values, factors, columns })
    }
}

/// Rounds a row; returns its factor, NaN if a value is not finite.
fn round(row: &[f32], values: &mut [i8]) -> f32 {
    if !row.iter().all(|value| value.is_finite()) {
        return f32::NAN;
    }
    let largest = row.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let factor = largest / 127.0;
    if factor > 0.0 {
        for (to, value) in values.iter_mut().zip(row) {
            *to = (value / factor).round().clamp(-127.0, 127.0) as i8;
        }
    }
    factor
}

impl QuantisedWeight {
    /// Rounds a weight `[out, in]` to 8 bits per row.
    ///
    /// # Errors
    /// As [`Int8Rows::new`].
    pub fn int8(weight: &Tensor) -> Result<Self> {
        Int8Rows::new(weight).map(Self::Int8Rows)
    }

    /// The shape: `[out, in]`.
    ///
    /// # Errors
    /// A tensor of ggml that is not a matrix.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match self {
            Self::Int8Rows(rows) => Ok((rows.factors.len(), rows.columns)),
            Self::Ggml(tensor) => tensor.shape().dims2(),
        }
    }

    /// Bytes of memory.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Int8Rows(rows) => rows.values.len() + 4 * rows.factors.len(),
            Self::Ggml(tensor) => tensor.storage_size_in_bytes(),
        }
    }

    /// The whole weight: `[out, in]` f32.
    ///
    /// # Errors
    /// Whatever the tensor library reports.
    pub fn dequantise(&self) -> Result<Tensor> {
        let (out, columns) = self.dims2()?;
        let mut values = vec![0.0; out * columns];
        self.rows(0, &mut values)?;
        Tensor::from_vec(values, (out, columns), &Device::Cpu)
    }

    /// Single rows, as an embedding takes them: `[ids, in]` f32.
    ///
    /// # Errors
    /// An id beyond the rows.
    pub fn select(&self, ids: &[u32]) -> Result<Tensor> {
        let (out, columns) = self.dims2()?;
        let mut values = vec![0.0; ids.len() * columns];
        for (id, to) in ids.iter().zip(values.chunks_mut(columns.max(1))) {
            if *id as usize >= out {
                bail!("row {id} of a weight with {out} rows");
            }
            self.rows(*id as usize, to)?;
        }
        Tensor::from_vec(values, (ids.len(), columns), &Device::Cpu)
    }

    /// Fills `out` with rows from `first` on, on all threads.
    pub(super) fn rows(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (_, columns) = self.dims2()?;
        if out.is_empty() {
            return Ok(());
        }
        let part = (PART / columns).max(1) * columns;
        match self {
            Self::Int8Rows(rows) => {
                out.par_chunks_mut(part).enumerate().for_each(|(i, out)| {
                    rows.fill(first + i * part / columns, out);
                });
                Ok(())
            }
            Self::Ggml(tensor) => {
                let blocks = Blocks::new(tensor, columns)?;
                out.par_chunks_mut(part)
                    .enumerate()
                    .try_for_each(|(i, out)| blocks.fill(first + i * part / columns, out))
            }
        }
    }
}

impl Int8Rows {
    fn fill(&self, first: usize, out: &mut [f32]) {
        let values = self.values[first * self.columns..].chunks(self.columns);
        let rows = values.zip(&self.factors[first..]);
        for (to, (values, factor)) in out.chunks_mut(self.columns).zip(rows) {
            for (to, value) in to.iter_mut().zip(values) {
                *to = f32::from(*value) * factor;
            }
        }
    }
}

/// A tensor of ggml as bytes.
struct Blocks<'a> {
    data: Cow<'a, [u8]>,
    dtype: GgmlDType,
    columns: usize,
    row_bytes: usize,
}

impl<'a> Blocks<'a> {
    fn new(tensor: &'a QTensor, columns: usize) -> Result<Self> {
        let dtype = tensor.dtype();
        if !columns.is_multiple_of(dtype.block_size()) {
            bail!("rows of {columns} are not whole blocks of {}", dtype.block_size());
        }
        let row_bytes = columns / dtype.block_size() * dtype.type_size();
        Ok(Self { data: tensor.data()?, dtype, columns, row_bytes })
    }

    fn fill(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let n = out.len() / self.columns;
        let bytes = &self.data[first * self.row_bytes..(first + n) * self.row_bytes];
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, self.dtype)?;
        let values = QTensor::new(storage, (n, self.columns))?.dequantize(&Device::Cpu)?;
        out.copy_from_slice(&elements(&values)?);
        Ok(())
    }
}
