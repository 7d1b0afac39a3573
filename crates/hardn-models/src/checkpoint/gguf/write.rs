//! A GGUF file made of published tensors, one tensor at a time.

use std::{collections::BTreeMap, path::Path};

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor},
};

use super::{
    export, kinds,
    meta::{Meta, text},
    names::{Layout, mapped},
    part::RowOrder,
    rope::llama3_factors,
};
use crate::{
    ModelConfig, ModelError, Result,
    checkpoint::{tensor_error, write::Draft},
    config::spec::{LayerSpec, Positions, Projections},
};

const ALIGNMENT: usize = 32;

/// The number format of the matrices of a GGUF file. Vectors, routers and position embeddings stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "llama.cpp's names")]
pub enum GgufDtype {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6K,
    Q5K,
    Q4K,
    Q4_0,
}

impl GgufDtype {
    /// Every format, with llama.cpp's name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("F32", Self::F32),
        ("F16", Self::F16),
        ("BF16", Self::BF16),
        ("Q8_0", Self::Q8_0),
        ("Q6_K", Self::Q6K),
        ("Q5_K", Self::Q5K),
        ("Q4_K", Self::Q4K),
        ("Q4_0", Self::Q4_0),
    ];

    fn ggml(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::BF16 => GgmlDType::BF16,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q4_0 => GgmlDType::Q4_0,
        }
    }

    /// llama.cpp's number of the format as a whole.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K => 14,
            Self::Q5K => 16,
            Self::Q6K => 18,
            Self::BF16 => 32,
        }
    }

    /// The format of one tensor: what blocks do not fill is kept in a finer one. The embedding and the output, which
    /// matter most, have at least six bits, as llama.cpp's own quantiser has it.
    fn of(self, name: &str, shape: &[usize]) -> GgmlDType {
        let is_fixed =
            shape.len() < 2 || name.contains("ffn_gate_inp") || name.contains("position_embd");
        if is_fixed {
            return GgmlDType::F32;
        }
        let columns = shape.last().copied().unwrap_or_default();
        let is_outer = name.starts_with("token_embd") || name.starts_with("output");
        let wanted = match self.ggml() {
            GgmlDType::Q4K | GgmlDType::Q5K | GgmlDType::Q4_0 if is_outer => GgmlDType::Q6K,
            wanted => wanted,
        };
        let finer = [wanted, GgmlDType::Q8_0, GgmlDType::F16];
        let fits = |dtype: &&GgmlDType| columns.is_multiple_of(dtype.block_size());
        *finer.iter().find(fits).unwrap_or(&GgmlDType::F32)
    }
}

/// A tensor of the file: its name, its shape, and the published tensors it is made of.
struct Planned {
    name: String,
    shape: Vec<usize>,
    dtype: GgmlDType,
    made_of: Made,
}

enum Made {
    Published {
        names: Vec<String>,
        order: RowOrder,
        is_transposed: bool,
    },
    /// The key or value part of `kv_b_proj`.
    Latent {
        name: String,
        is_key: bool,
    },
    Values(Vec<f32>),
}

/// Writes a model to a GGUF file that llama.cpp computes the same logits with. `vocabulary` is metadata about tokens;
/// `tensor` is asked for one published tensor at a time.
///
/// # Errors
/// A family or an option of the configuration that llama.cpp has no graph for, a tensor that cannot be made, or a
/// file that cannot be written; then nothing is left behind.
pub(super) fn write(
    path: &Path,
    config: &ModelConfig,
    vocabulary: Vec<(String, Meta)>,
    dtype: GgufDtype,
    mut tensor: impl FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let mut metadata = export::metadata(path, config)?;
    metadata.push(("general.file_type".to_owned(), Meta::Whole(dtype.file_type())));
    metadata.push(("general.quantization_version".to_owned(), Meta::Whole(2)));
    metadata.extend(vocabulary);
    let plan = plan(path, config, dtype)?;
    let mut draft = Draft::create(path)?;
    let header = header(&metadata, &plan);
    draft.write(&header)?;
    for planned in &plan {
        let bytes = planned.bytes(path, config, &mut tensor)?;
        draft.write(&bytes)?;
        draft.write(&vec![0; padding(bytes.len())])?;
    }
    draft.publish()
}

fn plan(path: &Path, config: &ModelConfig, dtype: GgufDtype) -> Result<Vec<Planned>> {
    let mut plan: Vec<Planned> = Vec::new();
    let mut stacks: BTreeMap<String, usize> = BTreeMap::new();
    for (name, shape) in config.tensors() {
        let Some(place) = mapped(&config.model_type, &name) else {
            let message =
                format!("llama.cpp has no place for it in a model of {}", config.model_type);
            return Err(tensor_error(path, &name, message));
        };
        let order = RowOrder::of(place.layout, config);
        let is_transposed = place.layout == Layout::Transposed;
        match place.layout {
            Layout::Expert(_) => {
                if let Some(i) = stacks.get(&place.name) {
                    plan[*i].shape[0] += 1;
                    if let Made::Published { names, .. } = &mut plan[*i].made_of {
                        names.push(name);
                    }
                } else {
                    stacks.insert(place.name.clone(), plan.len());
                    let stacked = [&[1], &shape[..]].concat();
                    let made = Made::published(name, order, false);
                    plan.push(planned(place.name, stacked, dtype, made));
                }
            }
            Layout::SplitKv => {
                for (is_key, part) in [(true, "attn_k_b"), (false, "attn_v_b")] {
                    let shape = latent_shape(config, is_key).ok_or_else(|| {
                        tensor_error(path, &name, "belongs to no latent attention")
                    })?;
                    let made = Made::Latent { name: name.clone(), is_key };
                    let name = place.name.replace("attn_kv_b", part);
                    plan.push(planned(name, shape, dtype, made));
                }
            }
            _ => {
                let shape = if is_transposed { shape.into_iter().rev().collect() } else { shape };
                let made = Made::published(name, order, is_transposed);
                plan.push(planned(place.name, shape, dtype, made));
            }
        }
    }
    // Experts come in the order of their names, in which 10 is before 2.
    for planned in &mut plan {
        if let Made::Published { names, .. } = &mut planned.made_of {
            names.sort_by_key(|name| match mapped(&config.model_type, name) {
                Some(place) => match place.layout {
                    Layout::Expert(expert) => expert,
                    _ => 0,
                },
                None => 0,
            });
        }
    }
    let is_missing = !plan.iter().any(|planned| planned.name == "output.weight");
    // llama.cpp's Phi-2 cannot be tied.
    if config.model_type == "phi" && is_missing {
        let name = format!("{}.weight", config.spec.embed);
        let shape = vec![config.vocab_size, config.hidden_size];
        let made = Made::published(name, RowOrder::Same, false);
        plan.push(planned("output.weight".to_owned(), shape, dtype, made));
    }
    // Its StarCoder2 always has biases.
    if config.model_type == "starcoder2" {
        for linear in config.spec.layers.iter().flat_map(LayerSpec::linears) {
            let place = mapped(&config.model_type, &format!("{}.bias", linear.name));
            if let Some(place) = place.filter(|_| !linear.bias) {
                let made = Made::Values(vec![0.0; linear.out]);
                plan.push(planned(place.name, vec![linear.out], dtype, made));
            }
        }
    }
    if let Positions::Rotary(rotary) = &config.spec.positions
        && let Some(scaling) = &rotary.scaling
        && let Some(factors) = llama3_factors(scaling, rotary.theta, rotary.dims)
    {
        let values: Vec<f32> = factors.into_iter().map(|factor| factor as f32).collect();
        let shape = vec![values.len()];
        plan.push(planned("rope_freqs.weight".to_owned(), shape, dtype, Made::Values(values)));
    }
    Ok(plan)
}

fn planned(name: String, shape: Vec<usize>, dtype: GgufDtype, made_of: Made) -> Planned {
    let dtype = dtype.of(&name, &shape);
    Planned { name, shape, dtype, made_of }
}

/// `[heads, rank, key]` or `[heads, value, rank]`.
fn latent_shape(config: &ModelConfig, is_key: bool) -> Option<Vec<usize>> {
    let attention = &config.spec.layers.first()?.attention;
    let Projections::Latent(latent) = &attention.projections else { return None };
    Some(if is_key {
        vec![attention.heads, latent.rank, latent.nope]
    } else {
        vec![attention.heads, attention.value_dim, latent.rank]
    })
}

impl Made {
    fn published(name: String, order: RowOrder, is_transposed: bool) -> Self {
        Self::Published { names: vec![name], order, is_transposed }
    }
}

impl Planned {
    fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() / self.dtype.block_size() * self.dtype.type_size()
    }

    fn bytes(
        &self,
        path: &Path,
        config: &ModelConfig,
        tensor: &mut impl FnMut(&str) -> Result<Tensor>,
    ) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.n_bytes());
        match &self.made_of {
            Made::Values(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Made::Published { names, order, is_transposed } => {
                for name in names {
                    let value = tensor(name)?;
                    let value = if *is_transposed { value.t()? } else { value };
                    self.encode(path, name, &reordered(&value, *order)?, &mut bytes)?;
                }
            }
            Made::Latent { name, is_key } => {
                let value = latent_part(config, &tensor(name)?, *is_key)?;
                self.encode(path, name, &value, &mut bytes)?;
            }
        }
        if bytes.len() == self.n_bytes() {
            return Ok(bytes);
        }
        let message = format!("does not have the shape {:?} of the configuration", self.shape);
        Err(tensor_error(path, &self.name, message))
    }

    fn encode(&self, path: &Path, name: &str, value: &Tensor, bytes: &mut Vec<u8>) -> Result<()> {
        let value = value.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        let flat = value.flatten_all()?.to_vec1::<f32>()?;
        let largest = if self.dtype == GgmlDType::F16 { 65504.0 } else { f32::MAX };
        let is_beyond = |value: &f32| value.is_nan() || value.abs() > largest;
        if let Some(i) = flat.iter().position(is_beyond) {
            let message = format!("element {i} is not a finite number as {:?}", self.dtype);
            return Err(tensor_error(path, name, message));
        }
        match self.dtype {
            GgmlDType::F32 => bytes.extend(flat.into_iter().flat_map(f32::to_le_bytes)),
            dtype => bytes.extend_from_slice(&QTensor::quantize(&value, dtype)?.data()?),
        }
        Ok(())
    }
}

/// Rows where llama.cpp has them.
fn reordered(value: &Tensor, order: RowOrder) -> Result<Tensor> {
    if order == RowOrder::Same {
        return Ok(value.clone());
    }
    let n = value.dim(0)?;
    let mut from = vec![0_u32; n];
    for row in 0..n {
        if let Some(place) = from.get_mut(order.place(row)) {
            *place = row as u32;
        }
    }
    Ok(value.index_select(&Tensor::new(from, value.device())?, 0)?)
}

fn latent_part(config: &ModelConfig, value: &Tensor, is_key: bool) -> Result<Tensor> {
    let attention = config.spec.layers.first().map(|layer| &layer.attention);
    let Some((attention, Projections::Latent(latent))) =
        attention.map(|attention| (attention, &attention.projections))
    else {
        return Err(ModelError::Input("the model has no latent attention".to_owned()));
    };
    let width = latent.nope + attention.value_dim;
    let value = value.reshape((attention.heads, width, latent.rank))?;
    Ok(if is_key {
        value.narrow(1, 0, latent.nope)?.transpose(1, 2)?.contiguous()?
    } else {
        value.narrow(1, latent.nope, attention.value_dim)?.contiguous()?
    })
}

fn padding(n: usize) -> usize {
    n.next_multiple_of(ALIGNMENT) - n
}

fn header(metadata: &[(String, Meta)], plan: &[Planned]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((plan.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut bytes, key);
        value.write(&mut bytes);
    }
    let mut offset = 0;
    for planned in plan {
        text(&mut bytes, &planned.name);
        bytes.extend((planned.shape.len() as u32).to_le_bytes());
        for n in planned.shape.iter().rev() {
            bytes.extend((*n as u64).to_le_bytes());
        }
        bytes.extend(kinds::number(planned.dtype).to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset += planned.n_bytes().next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}
