//! The tensors of a checkpoint, read one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, quantized::QTensor};
use memmap2::Mmap;

use super::{
    gguf::{self, Part},
    index::Index,
    map::map,
    pickle, safetensors,
    stored::Stored,
    tensor_error,
};
use crate::{ModelError, Result};

/// The tensors of a checkpoint: names, shapes, and each one read when it is asked for.
pub(crate) struct Weights {
    /// The file that was opened first: the index, or the only file.
    main: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    /// By name: the file's number and the place in it.
    tensors: BTreeMap<String, (usize, Entry)>,
    /// First components of the names, for [`Self::resolve`].
    prefixes: BTreeSet<String>,
}

/// A tensor in one of the kinds of files.
enum Entry {
    Stored(Stored),
    Gguf(Part),
}

impl Entry {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(stored) => &stored.shape,
            Self::Gguf(part) => &part.shape,
        }
    }
}

impl Weights {
    /// Opens the weights in `dir`: `model.safetensors`, its index with the shards, `pytorch_model.bin`, the index of
    /// that, or a lone GGUF file; the first of these that is there. `dir` may be a GGUF file as well. Only headers
    /// are read. Tensors of a GGUF file have published names and shapes.
    ///
    /// # Errors
    /// No weights, or files that are cut, malformed, missing, or hold a tensor twice.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for name in ["model.safetensors", "pytorch_model.bin"] {
            let single = dir.join(name);
            if single.exists() {
                return Self::open_file(&single);
            }
            let index = dir.join(format!("{name}.index.json"));
            if index.exists() {
                return Self::open_shards(&Index::read(&index)?);
            }
        }
        if let Some(path) = gguf::find(dir) {
            return Self::open_file(&path);
        }
        let message = "is missing; weights are `model.safetensors` or `pytorch_model.bin`, whole or in shards with \
                       an index, or one GGUF file";
        Err(ModelError::read(&dir.join("model.safetensors"), message))
    }

    /// Opens one file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_file(path: &Path) -> Result<Self> {
        let mut weights = Self::new(path);
        weights.add(path)?;
        Ok(weights)
    }

    fn open_shards(index: &Index) -> Result<Self> {
        let mut weights = Self::new(&index.path);
        for path in index.shards()? {
            weights.add(&path)?;
        }
        for (name, file) in &index.map {
            let found = weights.tensors.get(name).map(|(i, _)| &weights.files[*i].0);
            if found.is_none_or(|path| path.file_name() != Some(file.as_ref())) {
                let message = format!("should be in {file}, which does not hold it");
                return Err(tensor_error(&index.path, name, message));
            }
        }
        Ok(weights)
    }

    fn new(main: &Path) -> Self {
        Self {
            main: main.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            prefixes: BTreeSet::new(),
        }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = map(path)?;
        let tensors = read(path, &file)?;
        let number = self.files.len();
        for (name, entry) in tensors {
            if let Some((first, _)) = self.tensors.get(&name) {
                let first = self.files[*first].0.display();
                return Err(tensor_error(path, &name, format!("occurs twice, also in {first}")));
            }
            if let Some((prefix, _)) = name.split_once('.') {
                self.prefixes.insert(prefix.to_owned());
            }
            self.tensors.insert(name, (number, entry));
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, or `None` if there is none of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, entry)| entry.shape())
    }

    /// The type a tensor is stored in; `None` if there is no such tensor, it is quantised, or candle has no such type.
    #[cfg(test)]
    pub(crate) fn dtype(&self, name: &str) -> Option<DType> {
        match &self.tensors.get(name)?.1 {
            Entry::Stored(stored) => stored.candle_dtype(),
            Entry::Gguf(part) => part.candle_dtype(),
        }
    }

    /// The file that holds a tensor; the index or only file if there is none of that name.
    pub(crate) fn file(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.main, |(i, _)| &self.files[*i].0)
    }

    /// Copies a tensor out of its file, as f32, f16 or bf16.
    ///
    /// # Errors
    /// No such tensor, one that is not of floats, or one with values that are not finite numbers.
    pub(crate) fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let (path, file, entry) = self.entry(name)?;
        let loaded = match entry {
            Entry::Stored(stored) => stored.load(file, dtype, device),
            Entry::Gguf(part) => part.load(file, dtype, device),
        };
        loaded.map_err(|message| tensor_error(path, name, message))
    }

    /// Copies a quantised weight out of its file, as it is: rows in published order, `[out, in]` also where the
    /// published weight is transposed. `None` where it is not quantised; then [`Self::load`] has it.
    ///
    /// # Errors
    /// No such tensor, or a type that cannot be read.
    pub(crate) fn quantised(&self, name: &str) -> Result<Option<QTensor>> {
        let (path, file, entry) = self.entry(name)?;
        match entry {
            Entry::Stored(_) => Ok(None),
            Entry::Gguf(part) => {
                part.quantised(file).map_err(|message| tensor_error(path, name, message))
            }
        }
    }

    fn entry(&self, name: &str) -> Result<(&Path, &[u8], &Entry)> {
        let Some((i, entry)) = self.tensors.get(name) else {
            return Err(tensor_error(&self.main, name, "is missing"));
        };
        let (path, file) = &self.files[*i];
        Ok((path, file, entry))
    }

    /// The name a tensor is stored under: `name` itself, or with the first component dropped or another one before
    /// it, since a checkpoint of the bare decoder lacks the prefix that one with a head has.
    pub(crate) fn resolve(&self, name: &str) -> Option<&str> {
        let stored = |name: &str| self.tensors.get_key_value(name).map(|(name, _)| name.as_str());
        if let Some(name) = stored(name) {
            return Some(name);
        }
        let (_, bare) = name.split_once('.')?;
        if let Some(name) = stored(bare).filter(|name| name.contains('.')) {
            return Some(name);
        }
        let mut longer =
            self.prefixes.iter().filter_map(|prefix| stored(&format!("{prefix}.{name}")));
        let first = longer.next()?;
        longer.next().is_none().then_some(first)
    }
}

fn read(path: &Path, file: &[u8]) -> Result<Vec<(String, Entry)>> {
    if file.starts_with(b"version https://git-lfs") {
        let message = "is a pointer of git-lfs, not the file; fetch it with `git lfs pull`";
        return Err(ModelError::read(path, message));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let stored = match extension.to_ascii_lowercase().as_str() {
        "gguf" => {
            let tensors = gguf::tensors(path, file)?.into_iter();
            return Ok(tensors.map(|(name, part)| (name, Entry::Gguf(part))).collect());
        }
        "bin" | "pt" | "pth" => pickle::read(file),
        _ => safetensors::read(file),
    };
    let stored = stored.map_err(|message| ModelError::read(path, message))?;
    Ok(stored.into_iter().map(|(name, stored)| (name, Entry::Stored(stored))).collect())
}
