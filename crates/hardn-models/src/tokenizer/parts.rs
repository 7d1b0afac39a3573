//! From the files of a folder to the pipeline of a tokenizer, before added tokens and the post-processor.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::{
    ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    models::{
        bpe::{BPE, Merges, Vocab},
        unigram::Unigram,
    },
    normalizers::Precompiled,
};

use super::{
    class::Class,
    folder::{Folder, Stored},
    sentencepiece::{SentencePieceModel, merges_of},
};
use crate::{ModelError, Result};

/// Qwen's division of a text into pieces, as published.
const QWEN_PIECES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with combining marks counted as letters (Qwen 3.5).
const QWEN35_PIECES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The file a tokenizer's vocabulary came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stored,
    SentencePiece,
    VocabAndMerges,
}

/// A tokenizer without its added tokens, and what else the vocabulary file says.
pub(super) struct Parts {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) class: Class,
    pub(super) source: Source,
    /// Begin, end and unknown token of a SentencePiece model taken without a class of its own.
    pub(super) named: Vec<(&'static str, String)>,
    /// Pieces of a SentencePiece model that match before everything else, and whether each is a control piece.
    pub(super) whole_pieces: Vec<(String, bool)>,
}

impl Parts {
    /// # Errors
    /// No vocabulary in the folder, or one that cannot be read.
    pub(super) fn build(folder: &Folder) -> Result<Self> {
        let class = Class::of(folder);
        if let Some(stored) = folder.stored() {
            return Self::from_stored(folder, stored, class);
        }
        if let Some(path) = folder.existing("tokenizer.model") {
            return Self::from_sentencepiece(folder, &path, class);
        }
        match (folder.existing("vocab.json"), folder.existing("merges.txt")) {
            (Some(vocab), Some(merges)) => {
                Self::from_vocab_and_merges(folder, &vocab, &merges, class)
            }
            _ => Err(ModelError::Tokenizer {
                path: folder.path("tokenizer.json"),
                message: "no such file, and neither `tokenizer.model` nor `vocab.json` with `merges.txt` beside it"
                    .to_owned(),
            }),
        }
    }

    fn from_stored(folder: &Folder, stored: &Stored, class: Class) -> Result<Self> {
        let error = |message: String| ModelError::Tokenizer { path: stored.path.clone(), message };
        let whole = |class: Class| {
            let inner = tokenizers::Tokenizer::from_bytes(&stored.bytes)
                .map_err(|source| error(source.to_string()))?;
            Ok(Self::plain(inner, class, Source::Stored))
        };
        let json = &stored.json["model"];
        let model = match class {
            Class::Stored => None,
            Class::Xglm => unigram_of(json).map_err(&error)?,
            _ => bpe_of(json, class, unk_token(folder, class)).map_err(&error)?,
        };
        // A vocabulary of another kind than the class's is used as it is stored.
        let Some(model) = model else { return whole(Class::Stored) };
        let mut inner = tokenizers::Tokenizer::new(model);
        let charsmap = precompiled(&stored.json["normalizer"]);
        class_pipeline(&mut inner, folder, class, charsmap)?;
        if !stored.json["post_processor"].is_null() {
            let processor: PostProcessorWrapper = part(stored.json["post_processor"].clone())
                .map_err(|message| error(format!("key `post_processor`: {message}")))?;
            inner.with_post_processor(Some(processor));
        }
        Ok(Self::plain(inner, class, Source::Stored))
    }

    fn from_vocab_and_merges(
        folder: &Folder,
        vocab: &Path,
        merges: &Path,
        class: Class,
    ) -> Result<Self> {
        let class = match class {
            Class::CodeGen | Class::GptNeoX | Class::Qwen2 | Class::Qwen35 => class,
            _ => Class::Gpt2,
        };
        let error =
            |path: &Path, message: String| ModelError::Tokenizer { path: path.to_owned(), message };
        let [vocab_name, merges_name] = [vocab, merges].map(|path| {
            path.to_str().ok_or_else(|| error(path, "the path is not UTF-8".to_owned()))
        });
        let (ids, pairs) = BPE::read_file(vocab_name?, merges_name?)
            .map_err(|source| error(merges, format!("with `vocab.json`: {source}")))?;
        let model = bpe(ids, pairs, class, None).map_err(|message| error(merges, message))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        class_pipeline(&mut inner, folder, class, None)?;
        Ok(Self::plain(inner, class, Source::VocabAndMerges))
    }

    fn from_sentencepiece(folder: &Folder, path: &Path, class: Class) -> Result<Self> {
        let class = match class {
            Class::Llama | Class::CodeLlama | Class::Gemma | Class::Xglm => class,
            _ => Class::Stored,
        };
        let error =
            |source: String| ModelError::Tokenizer { path: path.to_owned(), message: source };
        let file = SentencePieceModel::read(path)?;
        let scored = file.scored();
        let unigram = match class {
            Class::Stored => file.is_unigram(),
            _ => class == Class::Xglm,
        };
        let fallback = class == Class::Stored && file.byte_fallback();
        let model = if unigram {
            let unk = if class == Class::Xglm { Some(3) } else { file.unk_id() };
            unigram_model(scored, unk, fallback).map_err(&error)?
        } else {
            let mut pieces: Vec<String> = scored.into_iter().map(|(piece, _)| piece).collect();
            if class == Class::Stored {
                rename_placeholders(
                    &mut pieces,
                    &folder.tokenizer_config()["added_tokens_decoder"],
                );
            }
            let merges = merges_of(&pieces);
            let ids = pieces.into_iter().zip(0..).collect();
            if class == Class::Stored {
                BPE::builder()
                    .vocab_and_merges::<Vocab>(ids, merges)
                    .unk_token(file.unk_piece())
                    .fuse_unk(true)
                    .byte_fallback(fallback)
                    .build()
                    .map_err(|source| error(source.to_string()))?
                    .into()
            } else {
                bpe(ids, merges, class, unk_token(folder, class)).map_err(&error)?
            }
        };
        let mut inner = tokenizers::Tokenizer::new(model);
        let charsmap = file
            .charsmap()
            .map(|bytes| Precompiled::from(bytes).map_err(|source| error(format!("{source:?}"))))
            .transpose()?
            .map(NormalizerWrapper::Precompiled);
        let mut named = Vec::new();
        if class == Class::Stored {
            sentencepiece_pipeline(&mut inner, charsmap, fallback)?;
            let [bos, eos] = file.bounds();
            named.extend(bos.map(|piece| ("bos_token", piece)));
            named.extend(eos.map(|piece| ("eos_token", piece)));
            named.extend(file.unk_id().map(|_| ("unk_token", file.unk_piece())));
        } else {
            class_pipeline(&mut inner, folder, class, charsmap)?;
        }
        let whole_pieces =
            file.whole_pieces().map(|(piece, control)| (piece.to_owned(), control)).collect();
        Ok(Self { inner, class, source: Source::SentencePiece, named, whole_pieces })
    }

    fn plain(inner: tokenizers::Tokenizer, class: Class, source: Source) -> Self {
        Self { inner, class, source, named: Vec::new(), whole_pieces: Vec::new() }
    }
}

/// Normalizer, pre-tokenizer and decoder of a class.
fn class_pipeline(
    inner: &mut tokenizers::Tokenizer,
    folder: &Folder,
    class: Class,
    charsmap: Option<NormalizerWrapper>,
) -> Result<()> {
    let config = folder.tokenizer_config();
    let stated = |default: bool| match config.get("add_prefix_space") {
        None | Some(Value::Null) => Ok(default),
        Some(_) => folder.switch("add_prefix_space", default),
    };
    let byte_level = |add_prefix_space: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": add_prefix_space,
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
    let pieces = |strip: bool| {
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if strip {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    };
    let nfc = json!({"type": "NFC"});
    let (normalizer, pre_tokenizer, decoder) = match class {
        Class::Stored => return Ok(()),
        Class::Gpt2 | Class::CodeGen => {
            (Value::Null, byte_level(stated(false)?, true), byte_level(true, true))
        }
        Class::GptNeoX => (nfc, byte_level(stated(false)?, true), byte_level(true, true)),
        Class::Qwen2 | Class::Qwen35 => {
            let pattern = if class == Class::Qwen2 { QWEN_PIECES } else { QWEN35_PIECES };
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            let sequence = json!({"type": "Sequence", "pretokenizers": [split, byte_level(stated(false)?, false)]});
            (nfc, sequence, byte_level(true, true))
        }
        Class::Llama => {
            let add = stated(true)?;
            let scheme = match (add, folder.switch("legacy", false)?) {
                (false, _) => "never",
                (true, false) => "first",
                (true, true) => "always",
            };
            (Value::Null, metaspace(scheme, false), pieces(add))
        }
        Class::CodeLlama => {
            let scheme = if stated(true)? { "first" } else { "never" };
            (Value::Null, metaspace(scheme, false), pieces(true))
        }
        Class::Gemma => (
            json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
            pieces(false),
        ),
        Class::Xglm => {
            let add = folder.switch("add_prefix_space", true)?;
            let scheme = if add { "always" } else { "never" };
            let spaces = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
            (spaces, metaspace(scheme, true), metaspace(scheme, true))
        }
    };
    set(inner, normalizer, charsmap, pre_tokenizer, decoder).map_err(|message| {
        ModelError::Tokenizer { path: folder.path("tokenizer_config.json"), message }
    })
}

/// The pipeline of a SentencePiece model without a class of its own.
fn sentencepiece_pipeline(
    inner: &mut tokenizers::Tokenizer,
    charsmap: Option<NormalizerWrapper>,
    byte_fallback: bool,
) -> Result<()> {
    let mut steps = vec![json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "})];
    if byte_fallback {
        steps.extend([json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]);
    }
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let decoder = json!({"type": "Sequence", "decoders": steps});
    set(inner, spaces, charsmap, Value::Null, decoder).map_err(ModelError::Input)
}

fn set(
    inner: &mut tokenizers::Tokenizer,
    normalizer: Value,
    charsmap: Option<NormalizerWrapper>,
    pre_tokenizer: Value,
    decoder: Value,
) -> Result<(), String> {
    let mut normalizers: Vec<NormalizerWrapper> = charsmap.into_iter().collect();
    if !normalizer.is_null() {
        normalizers.push(part(normalizer)?);
    }
    let normalizer = match normalizers.len() {
        0 => None,
        1 => normalizers.pop(),
        _ => Some(tokenizers::normalizers::Sequence::new(normalizers).into()),
    };
    inner.with_normalizer(normalizer).map_err(|source| source.to_string())?;
    let pre_tokenizer: Option<PreTokenizerWrapper> = part(pre_tokenizer)?;
    inner.with_pre_tokenizer(pre_tokenizer);
    let decoder: Option<tokenizers::DecoderWrapper> = part(decoder)?;
    inner.with_decoder(decoder);
    Ok(())
}

fn part<T: DeserializeOwned>(json: Value) -> Result<T, String> {
    serde_json::from_value(json).map_err(|source| source.to_string())
}

/// The model's unknown token, for the classes that have one in the model.
fn unk_token(folder: &Folder, class: Class) -> Option<String> {
    if !matches!(class, Class::CodeLlama | Class::Gemma) {
        return None;
    }
    let stated = &folder.tokenizer_config()["unk_token"];
    let stated = stated.as_str().or_else(|| stated["content"].as_str());
    Some(stated.unwrap_or("<unk>").to_owned())
}

fn bpe(
    ids: Vocab,
    merges: Merges,
    class: Class,
    unk_token: Option<String>,
) -> Result<ModelWrapper, String> {
    let pieces = matches!(class, Class::Llama | Class::CodeLlama | Class::Gemma);
    let mut builder =
        BPE::builder().vocab_and_merges(ids, merges).fuse_unk(pieces).byte_fallback(pieces);
    if let Some(token) = unk_token {
        builder = builder.unk_token(token);
    }
    Ok(builder.build().map_err(|source| source.to_string())?.into())
}

/// The byte-pair model of a stored vocabulary with a class's settings; `None` for a vocabulary of another kind.
fn bpe_of(
    json: &Value,
    class: Class,
    unk_token: Option<String>,
) -> Result<Option<ModelWrapper>, String> {
    let (Some(vocab), Some(merges)) = (json["vocab"].as_object(), json["merges"].as_array()) else {
        return Ok(None);
    };
    let mut ids = Vocab::with_capacity(vocab.len());
    for (token, id) in vocab {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = number.ok_or_else(|| format!("key `model.vocab`: token `{token}` has id {id}"))?;
        ids.insert(token.clone(), id);
    }
    let pair = |merge: &Value| {
        let (left, right) = match merge {
            Value::String(text) => text.split_once(' ')?,
            Value::Array(parts) if parts.len() == 2 => (parts[0].as_str()?, parts[1].as_str()?),
            _ => return None,
        };
        Some((left.to_owned(), right.to_owned()))
    };
    let merges = merges
        .iter()
        .map(|merge| pair(merge).ok_or_else(|| format!("key `model.merges`: {merge} is no pair")))
        .collect::<Result<Merges, String>>()?;
    bpe(ids, merges, class, unk_token).map(Some)
}

/// The unigram model of a stored vocabulary; `None` for a vocabulary of another kind.
fn unigram_of(json: &Value) -> Result<Option<ModelWrapper>, String> {
    let Some(vocab) = json["vocab"].as_array() else { return Ok(None) };
    let scored = |entry: &Value| Some((entry[0].as_str()?.to_owned(), entry[1].as_f64()?));
    let vocab = vocab
        .iter()
        .map(|entry| {
            scored(entry)
                .ok_or_else(|| format!("key `model.vocab`: {entry} is no token with a score"))
        })
        .collect::<Result<Vec<_>, String>>()?;
    unigram_model(vocab, Some(3), false).map(Some)
}

fn unigram_model(
    vocab: Vec<(String, f64)>,
    unk_id: Option<usize>,
    byte_fallback: bool,
) -> Result<ModelWrapper, String> {
    let model = Unigram::from(vocab, unk_id, byte_fallback).map_err(|source| source.to_string())?;
    Ok(model.into())
}

/// The character map among a stored tokenizer's normalizers.
fn precompiled(json: &Value) -> Option<NormalizerWrapper> {
    let steps = json["normalizers"].as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
    let found = steps.into_iter().find(|step| step["type"] == "Precompiled")?;
    part(found).ok()
}

/// Gives placeholder pieces the names that `added_tokens_decoder` has for their ids.
fn rename_placeholders(pieces: &mut [String], decoder: &Value) {
    for (id, token) in decoder.as_object().into_iter().flatten() {
        let (Ok(id), Some(name)) = (id.parse::<usize>(), token["content"].as_str()) else {
            continue;
        };
        if id < pieces.len() && !pieces.iter().any(|piece| piece == name) {
            name.clone_into(&mut pieces[id]);
        }
    }
}
