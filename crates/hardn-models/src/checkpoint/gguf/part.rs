//! Tensors of a GGUF file as the published ones they were made of.

use std::{borrow::Cow, collections::BTreeSet, path::Path};

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};

use super::{
    header::{Header, TensorInfo},
    kinds,
    names::{Layout, mapped},
};
use crate::{
    ModelConfig, Result,
    checkpoint::{stored::check_finite, tensor_error},
    config::spec::Projections,
};

/// A published tensor in a GGUF file.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Part {
    /// The published shape.
    pub(in crate::checkpoint) shape: Vec<usize>,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Rows(Rows),
    /// The rows are transposed.
    Transposed(Rows),
    /// Keys `[head, rank, key]` and values `[head, value, rank]` of latent attention.
    SplitKv {
        keys: Rows,
        values: Rows,
        heads: usize,
    },
}

/// Rows of a tensor; of a vector, rows of one element.
#[derive(Clone, Debug)]
struct Rows {
    kind: u32,
    /// The first byte of the rows.
    start: usize,
    n: usize,
    columns: usize,
    order: RowOrder,
}

/// The order of rows in a file, against the published one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    Same,
    Pairs { head_dim: usize },
    Grouped { heads: usize, head_dim: usize },
}

impl RowOrder {
    /// Where a published row is in the file.
    pub(super) fn place(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Pairs { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let half = head_dim / 2;
                head * head_dim + 2 * (within % half) + within / half
            }
            Self::Grouped { heads, head_dim } => {
                let (head, within) = (row / (3 * head_dim), row % (3 * head_dim));
                let (part, i) = (within / head_dim, within % head_dim);
                (part * heads + head) * head_dim + i
            }
        }
    }

    /// The order of a layout, for a model.
    pub(super) fn of(layout: Layout, config: &ModelConfig) -> Self {
        let Some(attention) = config.spec.layers.first().map(|layer| &layer.attention) else {
            return Self::Same;
        };
        match layout {
            Layout::Pairs => Self::Pairs { head_dim: attention.key_dim },
            Layout::Grouped if attention.kv_heads == attention.heads => {
                Self::Grouped { heads: attention.heads, head_dim: attention.key_dim }
            }
            _ => Self::Same,
        }
    }
}

/// Every tensor of the file. What the model has no use for keeps its own name.
pub(super) fn all(
    path: &Path,
    len: usize,
    header: &Header,
    config: &ModelConfig,
) -> Result<Vec<(String, Part)>> {
    let mut used = BTreeSet::from(["rope_freqs.weight".to_owned()]);
    let mut parts = Vec::new();
    for (name, shape) in config.tensors() {
        let found = find(header, config, &name, &shape, &mut used, len);
        match found.map_err(|message| tensor_error(path, &name, message))? {
            Some(source) => parts.push((name, Part { shape, source })),
            None => return Err(tensor_error(path, &name, "is missing")),
        }
    }
    match header.tensors.keys().find(|name| !used.contains(*name) && !is_left_out(name)) {
        Some(name) => Err(tensor_error(path, name, "does not belong to this model")),
        None => Ok(parts),
    }
}

/// Tables of old files that follow from the configuration.
fn is_left_out(name: &str) -> bool {
    name.ends_with("attn_rot_embd") || name.ends_with("rope_freqs.weight")
}

fn find(
    header: &Header,
    config: &ModelConfig,
    name: &str,
    shape: &[usize],
    used: &mut BTreeSet<String>,
    len: usize,
) -> Result<Option<Source>, String> {
    let Some(place) = mapped(&config.model_type, name) else {
        return Err(format!("has no place in a GGUF file of {}", config.model_type));
    };
    let mut take = |name: &str| {
        used.insert(name.to_owned());
        header.tensors.get(name)
    };
    let order = RowOrder::of(place.layout, config);
    let (n, columns) = match *shape {
        [n] => (n, 1),
        [n, columns] => (n, columns),
        _ => return Err(format!("has shape {shape:?}; expected one or two dimensions")),
    };
    if place.layout == Layout::SplitKv && !header.tensors.contains_key(&place.name) {
        return split_kv(config, columns, |part| take(&place.name.replace("attn_kv_b", part)), len);
    }
    if let Some(info) = take(&place.name) {
        return Ok(Some(match place.layout {
            Layout::Expert(expert) => {
                let [experts, ref matrix @ ..] = info.shape[..] else {
                    return Err("is a stack of experts without dimensions".to_owned());
                };
                if matrix != shape || expert >= experts {
                    return Err(format!(
                        "has shape {:?} as a stack, expected [.., {n}, {columns}]",
                        info.shape
                    ));
                }
                Source::Rows(Rows::new(info, expert * n, n, columns, order, len)?)
            }
            Layout::Transposed => {
                check_shape(info, &[columns, n])?;
                Source::Transposed(Rows::new(info, 0, columns, n, order, len)?)
            }
            _ => {
                check_shape(info, shape)?;
                Source::Rows(Rows::new(info, 0, n, columns, order, len)?)
            }
        }));
    }
    let Some((fused, first)) = fused(config, &place.name) else {
        return Ok(None);
    };
    let Some(info) = take(&fused) else {
        return Ok(None);
    };
    if info.shape.get(1..) != Some(&shape[1..]) {
        return Err(format!("has shape {:?} fused, expected [.., {columns}]", info.shape));
    }
    Ok(Some(Source::Rows(Rows::new(info, first, n, columns, order, len)?)))
}

/// Queries, keys or values that a file keeps in one tensor: its name, and the first row there.
fn fused(config: &ModelConfig, name: &str) -> Option<(String, usize)> {
    let attention = &config.spec.layers.first()?.attention;
    let Projections::Direct { .. } = attention.projections else { return None };
    let queries = attention.heads * attention.key_dim;
    let keys = attention.kv_heads * attention.key_dim;
    [("attn_q.", 0), ("attn_k.", queries), ("attn_v.", queries + keys)]
        .into_iter()
        .find(|(part, _)| name.contains(part))
        .map(|(part, first)| (name.replace(part, "attn_qkv."), first))
}

fn split_kv<'a>(
    config: &ModelConfig,
    rank: usize,
    mut take: impl FnMut(&str) -> Option<&'a TensorInfo>,
    len: usize,
) -> Result<Option<Source>, String> {
    let (Some(keys), Some(values)) = (take("attn_k_b"), take("attn_v_b")) else {
        return Ok(None);
    };
    let Some(attention) = config.spec.layers.first().map(|layer| &layer.attention) else {
        return Ok(None);
    };
    let Projections::Latent(latent) = &attention.projections else { return Ok(None) };
    let (heads, nope, value) = (attention.heads, latent.nope, attention.value_dim);
    check_shape(keys, &[heads, rank, nope])?;
    check_shape(values, &[heads, value, rank])?;
    Ok(Some(Source::SplitKv {
        keys: Rows::new(keys, 0, heads * rank, nope, RowOrder::Same, len)?,
        values: Rows::new(values, 0, heads * value, rank, RowOrder::Same, len)?,
        heads,
    }))
}

fn check_shape(info: &TensorInfo, expected: &[usize]) -> Result<(), String> {
    if info.shape == expected {
        return Ok(());
    }
    Err(format!("has shape {:?}, expected {expected:?}", info.shape))
}

/// Bytes of a row.
fn row_bytes(dtype: GgmlDType, columns: usize) -> Option<usize> {
    let block = dtype.block_size();
    columns.is_multiple_of(block).then(|| columns / block * dtype.type_size())
}

impl Rows {
    /// Rows `first..first + n` of a tensor. Where its type is known they are within the file.
    fn new(
        info: &TensorInfo,
        first: usize,
        n: usize,
        columns: usize,
        order: RowOrder,
        len: usize,
    ) -> Result<Self, String> {
        let total = info.shape.iter().try_fold(1_usize, |n, size| n.checked_mul(*size));
        let needed = (first + n).checked_mul(columns);
        if total.zip(needed).is_none_or(|(total, needed)| needed > total) {
            return Err(format!("has shape {:?}, with too few rows", info.shape));
        }
        let mut start = info.start;
        if let Ok(dtype) = kinds::find(info.kind) {
            let row = row_bytes(dtype, columns).ok_or_else(|| {
                format!("has rows of {columns}, which blocks of {} do not fill", dtype.block_size())
            })?;
            let bounds =
                first.checked_mul(row).zip((first + n).checked_mul(row)).and_then(|(from, to)| {
                    info.start.checked_add(from).zip(info.start.checked_add(to))
                });
            match bounds {
                Some((from, to)) if to <= len => start = from,
                _ => return Err("lies beyond the end of the file".to_owned()),
            }
        }
        Ok(Self { kind: info.kind, start, n, columns, order })
    }

    /// The rows in published order, as they are stored.
    fn stored(&self, file: &[u8]) -> Result<QTensor, String> {
        let dtype = kinds::find(self.kind)?;
        let row = row_bytes(dtype, self.columns).ok_or("has rows that blocks do not fill")?;
        let all = &file[self.start..self.start + self.n * row];
        let mut bytes = Vec::with_capacity(all.len());
        match self.order {
            RowOrder::Same => bytes.extend_from_slice(all),
            order => {
                for published in 0..self.n {
                    let at = order.place(published) * row;
                    bytes.extend_from_slice(&all[at..at + row]);
                }
            }
        }
        QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)
            .and_then(|storage| QTensor::new(storage, (self.n, self.columns)))
            .map_err(|error| error.to_string())
    }

    /// The rows as f32.
    fn values(&self, file: &[u8]) -> Result<Tensor, String> {
        let rows = self.stored(file)?.dequantize(&Device::Cpu);
        rows.map_err(|error| error.to_string())
    }
}

impl Part {
    /// The type of the values where it is not quantised.
    pub(in crate::checkpoint) fn candle_dtype(&self) -> Option<DType> {
        let (Source::Rows(rows) | Source::Transposed(rows) | Source::SplitKv { keys: rows, .. }) =
            &self.source;
        match kinds::find(rows.kind).ok()? {
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// The tensor, dequantised.
    pub(in crate::checkpoint) fn load(
        &self,
        file: &[u8],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, String> {
        let text = |error: candle_core::Error| error.to_string();
        let values = match &self.source {
            Source::Rows(rows) => rows.values(file)?,
            Source::Transposed(rows) => rows.values(file)?.t().map_err(text)?,
            Source::SplitKv { keys, values, heads } => {
                join_kv(&keys.values(file)?, &values.values(file)?, *heads).map_err(text)?
            }
        };
        let values = values.contiguous().and_then(|values| values.reshape(&self.shape[..]));
        let values = values.map_err(text)?;
        let flat = values.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(text)?;
        let largest = if dtype == DType::F16 { 65504.0 } else { f32::MAX };
        check_finite(&flat, |value| value.abs() <= largest)?;
        values.to_dtype(dtype).and_then(|values| values.to_device(device)).map_err(text)
    }

    /// The weight as it is stored, `[out, in]`; `None` if it is not quantised, is a vector, or has to be put together.
    pub(in crate::checkpoint) fn quantised(&self, file: &[u8]) -> Result<Option<QTensor>, String> {
        match &self.source {
            Source::Rows(rows) | Source::Transposed(rows)
                if self.shape.len() == 2 && self.candle_dtype().is_none() =>
            {
                rows.stored(file).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// `[head, key then value, rank]` of keys `[head, rank, key]` and values `[head, value, rank]`.
fn join_kv(keys: &Tensor, values: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, nope) = keys.dims2()?;
    let (value_rows, rank) = values.dims2()?;
    let keys = keys.reshape((heads, rows / heads, nope))?.transpose(1, 2)?.contiguous()?;
    let values = values.reshape((heads, value_rows / heads, rank))?;
    Tensor::cat(&[keys, values], 1)?.flatten_to(1)
}
