//! The header of a GGUF file: metadata, and where tensors lie.
//!
//! Format: `docs/gguf.md` of ggml, versions 2 and 3, little-endian.

use std::collections::BTreeMap;

/// Bytes data is aligned to where `general.alignment` does not say otherwise.
const ALIGNMENT: usize = 32;

/// A value of the metadata. Arrays stay in the file and are read when they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array { kind: u32, n: usize, at: usize },
}

/// A tensor as the header describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorInfo {
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// ggml's number of the type.
    pub(super) kind: u32,
    /// First byte in the file.
    pub(super) start: usize,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

const CUT: &str = "the file ends within its header";

impl Header {
    /// Reads the header of a mapped file.
    ///
    /// # Errors
    /// Another format or version, or a header that is cut or contradicts itself.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { file, at: 0 };
        if &reader.array::<4>()? != b"GGUF" {
            return Err("is not a GGUF file".to_owned());
        }
        match reader.u32()? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                return Err("is big-endian; convert it with gguf_convert_endian.py".to_owned());
            }
            version => return Err(format!("has version {version}; versions 2 and 3 are read")),
        }
        let n_tensors = reader.count()?;
        let n_metadata = reader.count()?;
        let mut metadata = BTreeMap::new();
        for _ in 0..n_metadata {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind).map_err(|error| format!("key `{key}`: {error}"))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("key `{key}` occurs twice"));
            }
        }
        let mut infos = Vec::new();
        for _ in 0..n_tensors {
            infos.push(reader.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Unsigned(n @ 8..=65536)) if n.is_power_of_two() => *n as usize,
            Some(_) => {
                return Err("key `general.alignment` is not a power of two of 8 or more".into());
            }
        };
        let data = reader.at.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, mut info) in infos {
            if info.start % alignment != 0 {
                return Err(format!("tensor `{name}` is not aligned to {alignment} bytes"));
            }
            info.start = info.start.checked_add(data).ok_or(CUT)?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(format!("tensor `{name}` occurs twice"));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

/// The texts of an array of texts. Its place was checked when the header was read.
pub(super) fn texts(file: &[u8], value: &Value) -> Option<Vec<String>> {
    let Value::Array { kind: 8, n, at } = *value else { return None };
    let mut reader = Reader { file, at };
    (0..n).map(|_| reader.text().ok()).collect()
}

/// The numbers of an array of whole or floating numbers.
pub(super) fn numbers(file: &[u8], value: &Value) -> Option<Vec<f64>> {
    let Value::Array { kind, n, at } = *value else { return None };
    let mut reader = Reader { file, at };
    let number = |value| match value {
        Value::Unsigned(n) => Some(n as f64),
        Value::Signed(n) => Some(n as f64),
        Value::Float(n) => Some(n),
        _ => None,
    };
    (0..n).map(|_| reader.value(kind).ok().and_then(number)).collect()
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let bytes = self.file.get(self.at..).and_then(|rest| rest.get(..n)).ok_or(CUT)?;
        self.at += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| CUT.to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of things that each take at least a byte.
    fn count(&mut self) -> Result<usize, String> {
        let n = u64::from_le_bytes(self.array()?);
        match usize::try_from(n) {
            Ok(n) if n <= self.file.len() => Ok(n),
            _ => Err(format!("announces {n} things, more than the file has bytes")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let n = self.count()?;
        // Tokens of some vocabularies are not UTF-8.
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let n = self.count()?;
                let at = self.at;
                if kind == 8 {
                    for _ in 0..n {
                        let n = self.count()?;
                        self.take(n)?;
                    }
                } else {
                    let size = size(kind).ok_or_else(|| format!("has elements of type {kind}"))?;
                    self.take(n.checked_mul(size).ok_or(CUT)?)?;
                }
                Value::Array { kind, n, at }
            }
            10 => Value::Unsigned(u64::from_le_bytes(self.array()?)),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            kind => return Err(format!("has a value of type {kind}, which is not known")),
        })
    }

    fn tensor(&mut self) -> Result<(String, TensorInfo), String> {
        let name = self.text()?;
        let n = self.u32()?;
        if n > 4 {
            return Err(format!("tensor `{name}` has {n} dimensions; ggml has at most 4"));
        }
        let mut shape = Vec::new();
        for _ in 0..n {
            let n = u64::from_le_bytes(self.array()?);
            shape.push(usize::try_from(n).map_err(|_| CUT)?);
        }
        shape.reverse();
        let kind = self.u32()?;
        let start = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| CUT)?;
        Ok((name, TensorInfo { shape, kind, start }))
    }
}

/// Bytes of a value of fixed size.
fn size(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}
