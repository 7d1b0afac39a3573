//! Metadata of a GGUF file that is written.

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meta {
    Whole(u32),
    Float(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Wholes(Vec<i32>),
}

/// A text with its length.
pub(super) fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Meta {
    /// The value with its type.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let kind: u32 = match self {
            Self::Whole(_) => 4,
            Self::Float(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::Floats(_) | Self::Wholes(_) => 9,
        };
        bytes.extend(kind.to_le_bytes());
        let list = |bytes: &mut Vec<u8>, kind: u32, n: usize| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((n as u64).to_le_bytes());
        };
        match self {
            Self::Whole(value) => bytes.extend(value.to_le_bytes()),
            Self::Float(value) => bytes.extend(value.to_le_bytes()),
            Self::Bool(value) => bytes.push(u8::from(*value)),
            Self::Text(value) => text(bytes, value),
            Self::Texts(values) => {
                list(bytes, 8, values.len());
                for value in values {
                    text(bytes, value);
                }
            }
            Self::Floats(values) => {
                list(bytes, 6, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Self::Wholes(values) => {
                list(bytes, 5, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
}
