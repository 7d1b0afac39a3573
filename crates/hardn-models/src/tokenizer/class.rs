//! Which of transformers' tokenizer classes a checkpoint folder gets, because some of them ignore parts of `tokenizer.json`.

use super::folder::Folder;

/// The pipeline around a vocabulary.
///
/// transformers 5 takes only the vocabulary, the merges, the added tokens and the post-processor from the files for the named
/// classes; normalizer, pre-tokenizer and decoder are the class's own: StarCoder2's stored splitting of digits does not count, and
/// an old Llama file's normalizer neither. [`Self::Stored`] takes everything as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Stored,
    Gpt2,
    CodeGen,
    GptNeoX,
    Llama,
    CodeLlama,
    Gemma,
    Qwen2,
    Qwen35,
    Xglm,
}

/// A model type's own class; the types whose class is [`Class::Stored`] are those that overrule the name in the files.
const BY_MODEL_TYPE: &[(Class, &[&str])] = &[
    (
        Class::Gpt2,
        &["codegen", "dbrx", "gpt2", "gpt_neo", "gptj", "jais2", "opt", "phi", "starcoder2"],
    ),
    (Class::CodeLlama, &["code_llama"]),
    (Class::Qwen2, &["qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"]),
    (Class::Qwen35, &["qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen4_exp"]),
    (
        Class::Gemma,
        &["gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma"],
    ),
    (
        Class::GptNeoX,
        &["falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"],
    ),
    (Class::Xglm, &["xglm"]),
    (
        Class::Stored,
        &[
            "arctic",
            "ernie4_5",
            "ernie4_5_moe",
            "flex_olmo",
            "glm",
            "glm4",
            "glm4_moe",
            "glm4_moe_lite",
            "gpt_bigcode",
            "granite",
            "granitemoe",
            "granitemoehybrid",
            "granitemoeshared",
            "hyperclovax",
            "internlm2",
            "internlm3",
            "iquestcoder",
            "jamba",
            "kimi_linear",
            "mimo_v2_flash",
            "minicpm3",
            "minimax_m2",
            "ministral",
            "ministral3",
            "mistral",
            "mistral3",
            "mixtral",
            "nemotron",
            "olmo2",
            "olmo3",
            "olmo_hybrid",
            "persimmon",
            "phi3",
            "phimoe",
            "stablelm",
        ],
    ),
];

/// Model types whose published `tokenizer_class` is known to be wrong; their own class is taken.
const WRONG_NAME: &[&str] =
    &["qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp", "phi3", "phimoe"];

impl Class {
    /// The class that transformers' `AutoTokenizer` (5.23) takes for a folder.
    pub(super) fn of(folder: &Folder) -> Self {
        let own = folder.model_type().and_then(by_model_type);
        let auto_map = &folder.tokenizer_config()["auto_map"];
        let has_own_code = auto_map.is_array() || !auto_map["AutoTokenizer"].is_null();
        let Some(name) = folder.tokenizer_class() else { return own.unwrap_or(Self::Stored) };
        let named = by_name(name.strip_suffix("Fast").unwrap_or(name));
        if has_own_code {
            return named;
        }
        let wrong = folder.model_type().is_some_and(|kind| WRONG_NAME.contains(&kind));
        let overruled = own == Some(Self::Stored);
        if named == Self::Llama && !wrong && folder.stored_byte_level() {
            return Self::Stored;
        }
        match own {
            Some(own) if overruled || wrong => own,
            _ => named,
        }
    }
}

fn by_model_type(kind: &str) -> Option<Class> {
    BY_MODEL_TYPE.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(class, _)| *class)
}

fn by_name(name: &str) -> Class {
    match name {
        "GPT2Tokenizer" => Class::Gpt2,
        "CodeGenTokenizer" => Class::CodeGen,
        "GPTNeoXTokenizer" => Class::GptNeoX,
        "LlamaTokenizer" => Class::Llama,
        "CodeLlamaTokenizer" => Class::CodeLlama,
        "GemmaTokenizer" => Class::Gemma,
        "Qwen2Tokenizer" => Class::Qwen2,
        "Qwen3_5Tokenizer" => Class::Qwen35,
        "XGLMTokenizer" => Class::Xglm,
        _ => Class::Stored,
    }
}
