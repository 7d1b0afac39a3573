//! Writing safetensors: streamed, and atomic.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::tensor_error;
use crate::{ModelError, Result};

/// The number format weights are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SaveDtype {
    F32,
    F16,
    BF16,
}

impl SaveDtype {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }

    pub(super) fn size(self) -> usize {
        self.dtype().size_in_bytes()
    }
}

/// Writes tensors to one file, atomically. The same tensors give the same bytes.
pub(crate) fn write_file(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    dtype: SaveDtype,
) -> Result<()> {
    let shapes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()));
    let draft = write_draft(path, shapes, dtype, &mut |name| Ok(tensors[name].clone()))?;
    draft.publish()
}

/// Writes tensors to a file beside its place, one by one, in the order given.
///
/// # Errors
/// A tensor that cannot be made or has another shape, a value too large for `dtype`, or a file that cannot be
/// written; then nothing is left behind.
pub(super) fn write_draft<'a>(
    path: &Path,
    shapes: impl Iterator<Item = (&'a str, &'a [usize])>,
    dtype: SaveDtype,
    tensor: &mut dyn FnMut(&str) -> Result<Tensor>,
) -> Result<Draft> {
    let shapes: Vec<_> = shapes.collect();
    let mut draft = Draft::create(path)?;
    let header = header(&shapes, dtype).map_err(|error| ModelError::write(path, error))?;
    draft.write(&(header.len() as u64).to_le_bytes())?;
    draft.write(&header)?;
    for (name, shape) in shapes {
        let tensor = tensor(name)?;
        if tensor.dims() != shape {
            let message = format!("has shape {:?}, expected {shape:?}", tensor.dims());
            return Err(tensor_error(path, name, message));
        }
        write_tensor(&mut draft, name, &tensor, dtype)?;
    }
    Ok(draft)
}

fn header(shapes: &[(&str, &[usize])], dtype: SaveDtype) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let mut tensors = Vec::new();
    for (name, shape) in shapes {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let info =
            TensorInfo { dtype: dtype.stored(), shape: shape.to_vec(), data_offsets: (start, end) };
        tensors.push(((*name).to_owned(), info));
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), tensors).map_err(|error| error.to_string())?;
    let mut bytes = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

/// Elements converted and written at a time.
const PART: usize = 1 << 22;

fn write_tensor(draft: &mut Draft, name: &str, tensor: &Tensor, dtype: SaveDtype) -> Result<()> {
    let flat = tensor.flatten_all()?;
    let n = flat.elem_count();
    for start in (0..n).step_by(PART) {
        let part = flat.narrow(0, start, PART.min(n - start))?;
        let part = part.to_dtype(dtype.dtype())?.to_device(&Device::Cpu)?;
        let bytes = match dtype {
            SaveDtype::F32 => bytes(part.to_vec1::<f32>()?, f32::is_finite, f32::to_le_bytes),
            SaveDtype::F16 => bytes(part.to_vec1::<f16>()?, f16::is_finite, f16::to_le_bytes),
            SaveDtype::BF16 => bytes(part.to_vec1::<bf16>()?, bf16::is_finite, bf16::to_le_bytes),
        };
        let bytes = bytes.map_err(|i| {
            let message =
                format!("element {} is not a finite number as {}", start + i, dtype.name());
            tensor_error(&draft.path, name, message)
        })?;
        draft.write(&bytes)?;
    }
    Ok(())
}

/// Little-endian bytes, or the place of the first value that is not finite.
fn bytes<T: Copy, const N: usize>(
    values: Vec<T>,
    is_finite: fn(T) -> bool,
    to_bytes: fn(T) -> [u8; N],
) -> Result<Vec<u8>, usize> {
    match values.iter().position(|value| !is_finite(*value)) {
        Some(i) => Err(i),
        None => Ok(values.into_iter().flat_map(to_bytes).collect()),
    }
}

/// A file that is being written beside its place. It is gone again unless it is published.
pub(super) struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Draft {
    pub(super) fn create(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| ModelError::write(path, error))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|error| ModelError::write(path, error))?;
        Ok(Self { path: path.to_owned(), temporary, file: Some(BufWriter::new(file)) })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => {
                file.write_all(bytes).map_err(|error| ModelError::write(&self.path, error))
            }
            None => Err(ModelError::write(&self.path, "was finished already")),
        }
    }

    /// Brings everything to the disk; what is left is to give the file its name.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        file.into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|error| ModelError::write(&self.path, error))
    }

    /// Gives the file its name, in place of what had it before.
    pub(super) fn publish(mut self) -> Result<()> {
        self.finish()?;
        fs::rename(&self.temporary, &self.path)
            .map_err(|error| ModelError::write(&self.path, error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.file = None;
        let _ = fs::remove_file(&self.temporary);
    }
}
