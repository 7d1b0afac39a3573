//! The files of a checkpoint folder that a tokenizer is made from.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use crate::{ModelError, Result};

/// What the folder's small files say, and where its vocabulary is.
pub(super) struct Folder {
    dir: PathBuf,
    model_config: Value,
    tokenizer_config: Value,
    stored: Option<Stored>,
}

/// `tokenizer.json`, read.
pub(super) struct Stored {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) json: Value,
}

impl Folder {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            model_config: read_object(&dir.join("config.json"))?.unwrap_or_default(),
            tokenizer_config: read_object(&dir.join("tokenizer_config.json"))?.unwrap_or_default(),
            stored: Stored::read(dir)?,
        })
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// An existing file of the folder.
    pub(super) fn existing(&self, file: &str) -> Option<PathBuf> {
        Some(self.path(file)).filter(|path| path.is_file())
    }

    pub(super) fn json(&self, file: &str) -> Result<Option<Value>> {
        read_object(&self.path(file))
    }

    pub(super) fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    pub(super) fn model_type(&self) -> Option<&str> {
        self.model_config["model_type"].as_str()
    }

    /// `tokenizer_config.json`; an empty object where there is none.
    pub(super) fn tokenizer_config(&self) -> &Value {
        &self.tokenizer_config
    }

    /// The published class name.
    pub(super) fn tokenizer_class(&self) -> Option<&str> {
        let named = self.tokenizer_config["tokenizer_class"].as_str();
        named.or_else(|| self.model_config["tokenizer_class"].as_str())
    }

    /// A switch of `tokenizer_config.json`: `default` where it is not stated, false where it is null.
    pub(super) fn switch(&self, key: &str, default: bool) -> Result<bool> {
        match self.tokenizer_config.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(ModelError::Config {
                path: self.path("tokenizer_config.json"),
                key: key.to_owned(),
                message: format!("{other} is neither true nor false"),
            }),
        }
    }

    pub(super) fn stored_byte_level(&self) -> bool {
        let named = |stored: &Stored| {
            stored.bytes.windows(b"\"ByteLevel\"".len()).any(|bytes| bytes == b"\"ByteLevel\"")
        };
        self.stored.as_ref().is_some_and(named)
    }
}

impl Stored {
    fn read(dir: &Path) -> Result<Option<Self>> {
        let plain = dir.join("tokenizer.json");
        let packed = dir.join("tokenizer.json.gz");
        let (path, bytes) = if plain.is_file() {
            let bytes = fs::read(&plain).map_err(|error| ModelError::read(&plain, error))?;
            (plain, bytes)
        } else if packed.is_file() {
            let file = fs::File::open(&packed).map_err(|error| ModelError::read(&packed, error))?;
            let mut bytes = Vec::new();
            GzDecoder::new(file)
                .read_to_end(&mut bytes)
                .map_err(|error| ModelError::read(&packed, error))?;
            (packed, bytes)
        } else {
            return Ok(None);
        };
        let json =
            serde_json::from_slice(&bytes).map_err(|error| ModelError::read(&path, error))?;
        Ok(Some(Self { path, bytes, json }))
    }
}

/// A JSON object; `None` where the file does not exist.
pub(super) fn read_object(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|error| ModelError::read(path, error))?;
    let object: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| ModelError::read(path, error))?;
    Ok(Some(Value::Object(object)))
}
