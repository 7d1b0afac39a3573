//! The tokenizer in a GGUF file as a published `tokenizer.json`.

use std::{collections::HashMap, path::Path};

use serde_json::{Map, Value as Json, json};

use super::{
    config::Metadata,
    cut,
    header::{Header, Value, numbers},
};
use crate::{ModelError, Result, checkpoint::map::map};

/// What stands for a space in SentencePiece's vocabularies.
const SPACE: char = '\u{2581}';

/// The tokenizer of a GGUF file, with what a published `tokenizer_config.json` would say beside it.
///
/// # Errors
/// A file that cannot be read or has no tokenizer, or one of a kind that is not known; the key is named.
pub(crate) fn tokenizer(path: &Path) -> Result<(tokenizers::Tokenizer, Json)> {
    let file = map(path)?;
    let header = Header::read(&file).map_err(|message| ModelError::read(path, message))?;
    let metadata = Metadata { path, file: &file, header: &header };
    let json = published(&metadata)?;
    let error = |message: String| ModelError::Tokenizer { path: path.to_owned(), message };
    let bytes = serde_json::to_vec(&json).map_err(|cause| error(cause.to_string()))?;
    let tokenizer =
        tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| error(cause.to_string()))?;
    let mut settings = Map::new();
    if let Some(Value::Text(template)) = metadata.get("tokenizer.chat_template") {
        settings.insert("chat_template".to_owned(), json!(template));
    }
    for (key, role) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("padding", "pad_token"),
        ("unknown", "unk_token"),
    ] {
        let id = match metadata.get(&format!("tokenizer.ggml.{key}_token_id")) {
            Some(Value::Unsigned(id)) => u32::try_from(*id).ok(),
            _ => None,
        };
        if let Some(token) = id.and_then(|id| tokenizer.id_to_token(id)) {
            settings.insert(role.to_owned(), json!(token));
        }
    }
    Ok((tokenizer, Json::Object(settings)))
}

fn published(metadata: &Metadata) -> Result<Json> {
    let key = "tokenizer.ggml.model";
    let kind = metadata.text(key)?;
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let kinds = list(metadata, "tokenizer.ggml.token_type", tokens.len())?;
    let kind_of = |id: usize| kinds.as_ref().map_or(1, |kinds| kinds[id] as i64);
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let kind = kind_of(id);
        // Rows of the embedding that no token has.
        if kind == 5 {
            continue;
        }
        if [2, 3, 4].contains(&kind) {
            added.push(json!({
                "id": id, "content": token, "special": kind != 4,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
        vocab.entry(token.clone()).or_insert_with(|| json!(id));
    }
    let mut json = match kind.as_str() {
        "gpt2" => byte_level(metadata, vocab)?,
        "llama" => sentence_pieces(metadata, vocab, &tokens, &kind_of)?,
        other => {
            let message = format!("\"{other}\" is not supported; expected gpt2 or llama");
            return Err(metadata.error(key, message));
        }
    };
    json["version"] = json!("1.0");
    json["added_tokens"] = json!(added);
    if let Some(template) = beginning(metadata, &tokens, kind == "llama") {
        json["post_processor"] = template;
    }
    Ok(json)
}

/// A list of numbers as long as the tokens, where there is one.
fn list(metadata: &Metadata, key: &str, n: usize) -> Result<Option<Vec<f64>>> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    match numbers(metadata.file, value) {
        Some(list) if list.len() == n => Ok(Some(list)),
        _ => Err(metadata.error(key, format!("is not a list of {n} numbers"))),
    }
}

/// Byte-level merges, as GPT-2 has them.
fn byte_level(metadata: &Metadata, vocab: Map<String, Json>) -> Result<Json> {
    let key = "tokenizer.ggml.pre";
    let name = match metadata.get(key) {
        None => "default".to_owned(),
        Some(_) => metadata.text(key)?,
    };
    let Some(pre_tokenizer) = cut::to_json(&name) else {
        let message = format!(
            "\"{name}\" is not supported; expected {}. A tokenizer.json beside the file is read instead",
            cut::known()
        );
        return Err(metadata.error(key, message));
    };
    let key = "tokenizer.ggml.merges";
    let merges = metadata.texts(key)?;
    // A space within a piece is written otherwise, so the first one is between the two.
    let pairs: Option<Vec<[&str; 2]>> =
        merges.iter().map(|merge| merge.split_once(' ').map(|(a, b)| [a, b])).collect();
    let Some(pairs) = pairs else {
        return Err(metadata.error(key, "has an entry that is not a pair"));
    };
    let normalizer = if name == "qwen2" { json!({"type": "NFC"}) } else { Json::Null };
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "vocab": vocab, "merges": pairs, "byte_fallback": false,
            "ignore_merges": name.starts_with("llama"),
        },
    }))
}

/// SentencePiece's merges with bytes for what is not in the vocabulary. A merge is any pair of pieces that makes a
/// piece; the one whose result scores highest goes first.
fn sentence_pieces(
    metadata: &Metadata,
    vocab: Map<String, Json>,
    tokens: &[String],
    kind_of: &dyn Fn(usize) -> i64,
) -> Result<Json> {
    let key = "tokenizer.ggml.scores";
    let Some(scores) = list(metadata, key, tokens.len())? else {
        return Err(metadata.error(key, "is missing"));
    };
    let mut ids = HashMap::new();
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| [1, 4].contains(&kind_of(*id))) {
        ids.entry(token.as_str()).or_insert(id);
    }
    let mut merges = Vec::new();
    for (token, id) in &ids {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(a), Some(b)) = (ids.get(left), ids.get(right)) {
                merges.push((*id, *a, *b));
            }
        }
    }
    merges.sort_by(|x, y| scores[y.0].total_cmp(&scores[x.0]).then(x.cmp(y)));
    let pairs: Vec<[&str; 2]> =
        merges.into_iter().map(|(_, a, b)| [tokens[a].as_str(), tokens[b].as_str()]).collect();
    let unknown = (0..tokens.len()).find(|id| kind_of(*id) == 2).map(|id| tokens[id].as_str());
    let prepends =
        !matches!(metadata.get("tokenizer.ggml.add_space_prefix"), Some(Value::Bool(false)));
    let mut normalizers = vec![json!({
        "type": "Replace", "pattern": {"String": " "}, "content": SPACE,
    })];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prepends {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": vocab, "merges": pairs, "byte_fallback": true,
            "fuse_unk": true, "unk_token": unknown,
        },
    }))
}

/// The token a text begins with, where the file says that it does.
fn beginning(metadata: &Metadata, tokens: &[String], absent: bool) -> Option<Json> {
    let adds = match metadata.get("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(adds)) => *adds,
        _ => absent,
    };
    let id = match metadata.get("tokenizer.ggml.bos_token_id") {
        Some(Value::Unsigned(id)) if adds => *id,
        _ => return None,
    };
    let bos = tokens.get(usize::try_from(id).ok()?)?;
    let special = json!({"SpecialToken": {"id": bos, "type_id": 0}});
    let text = |name: &str, type_id: u32| json!({"Sequence": {"id": name, "type_id": type_id}});
    Some(json!({
        "type": "TemplateProcessing",
        "single": [special, text("A", 0)],
        "pair": [special, text("A", 0), special, text("B", 1)],
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    }))
}
