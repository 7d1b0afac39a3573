//! The names a checkpoint may use.

use safetensors::Dtype;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `_rebuild_tensor(storage, offset, size, stride)` and its successors, which have more arguments behind.
    Rebuild,
    /// As above, with the type of the elements as seventh argument.
    RebuildTyped,
    /// `_rebuild_parameter(tensor, ..)`: the tensor.
    Parameter,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`: the function's result.
    FromType,
    /// `torch.Size(dimensions)`: a tuple.
    Size,
    /// The type of a storage; `None` if the tensor says it.
    Storage(Option<Dtype>),
    Dtype(Dtype),
    /// Something a tensor may carry that does not matter here.
    Other,
}

impl Global {
    /// Finds a name.
    ///
    /// # Errors
    /// A name that is not needed to describe tensors.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, String> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::Rebuild),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTyped),
            ("torch._utils", "_rebuild_parameter") => Some(Self::Parameter),
            ("torch._tensor", "_rebuild_from_type_v2") => Some(Self::FromType),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "Tensor" | "device") | ("torch.nn.parameter", "Parameter") => {
                Some(Self::Other)
            }
            ("torch" | "torch.storage", "UntypedStorage") => Some(Self::Storage(None)),
            ("torch" | "torch.cuda" | "torch.storage", name) => {
                match name.strip_suffix("Storage") {
                    Some(kind) => storage(kind).map(|dtype| Self::Storage(Some(dtype))),
                    None => dtype(name).map(Self::Dtype),
                }
            }
            _ => None,
        };
        found.ok_or_else(|| {
            format!(
                "names `{}.{}`, which no tensor needs; refused, and nothing of the file was run",
                module.escape_debug(),
                name.escape_debug()
            )
        })
    }
}

fn storage(kind: &str) -> Option<Dtype> {
    Some(match kind {
        "Double" => Dtype::F64,
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        _ => return None,
    })
}
