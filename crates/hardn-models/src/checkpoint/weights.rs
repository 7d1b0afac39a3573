//! The tensors of a checkpoint, read one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;

use super::{index::Index, map::map, pickle, safetensors, stored::Stored, tensor_error};
use crate::{ModelError, Result};

/// The tensors of a checkpoint: names, shapes, and each one read when it is asked for.
pub(crate) struct Weights {
    /// The file that was opened first: the index, or the only file.
    main: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    /// By name: the file's number and the place in it.
    tensors: BTreeMap<String, (usize, Stored)>,
    /// First components of the names, for [`Self::resolve`].
    prefixes: BTreeSet<String>,
}

impl Weights {
    /// Opens the weights in `dir`: `model.safetensors`, its index with the shards, or `pytorch_model.bin`, or the
    /// index of that; the first of these that is there. Only headers are read.
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
        let message = "is missing; weights are `model.safetensors` or `pytorch_model.bin`, whole or in shards with \
                       an index";
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
        let tensors = read(path, &file).map_err(|message| ModelError::read(path, message))?;
        let number = self.files.len();
        for (name, stored) in tensors {
            if let Some((first, _)) = self.tensors.get(&name) {
                let first = self.files[*first].0.display();
                return Err(tensor_error(path, &name, format!("occurs twice, also in {first}")));
            }
            if let Some((prefix, _)) = name.split_once('.') {
                self.prefixes.insert(prefix.to_owned());
            }
            self.tensors.insert(name, (number, stored));
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
        self.tensors.get(name).map(|(_, stored)| &stored.shape[..])
    }

    /// The type a tensor is stored in; `None` if there is no such tensor or candle has no such type.
    pub(crate) fn dtype(&self, name: &str) -> Option<DType> {
        self.tensors.get(name).and_then(|(_, stored)| stored.candle_dtype())
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
        let Some((i, stored)) = self.tensors.get(name) else {
            return Err(tensor_error(&self.main, name, "is missing"));
        };
        let (path, file) = &self.files[*i];
        stored.load(file, dtype, device).map_err(|message| tensor_error(path, name, message))
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

fn read(path: &Path, file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    if file.starts_with(b"version https://git-lfs") {
        return Err(
            "is a pointer of git-lfs, not the file; fetch it with `git lfs pull`".to_owned()
        );
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("bin" | "pt" | "pth") => pickle::read(file),
        _ => safetensors::read(file),
    }
}
