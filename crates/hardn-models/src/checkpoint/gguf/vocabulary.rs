//! A published tokenizer as metadata of a GGUF file.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{cut, meta::Meta};
use crate::{ModelConfig, ModelError, Result, TokenIds};

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Metadata that says there is no tokenizer; ids are all such a file can be asked about.
pub(super) fn none() -> Vec<(String, Meta)> {
    vec![("tokenizer.ggml.model".to_owned(), Meta::Text("none".to_owned()))]
}

/// Metadata of `tokenizer.json` in `dir`, with a chat template where there is one.
///
/// # Errors
/// A file that cannot be read, or a tokenizer of a kind llama.cpp does not have.
pub(super) fn read(dir: &Path, config: &ModelConfig) -> Result<Vec<(String, Meta)>> {
    let path = dir.join("tokenizer.json");
    let json = json(&path)?;
    let error = |message: String| ModelError::Tokenizer { path: path.clone(), message };
    let model = &json["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return Err(error(format!("llama.cpp does not have the kind {}", model["type"])));
    }
    let is_spm = model["byte_fallback"] == Value::Bool(true);
    let cut = if is_spm {
        "default"
    } else {
        cut::from_json(&json["pre_tokenizer"]).ok_or_else(|| {
            error(format!(
                "`pre_tokenizer` cuts text in none of llama.cpp's known ways: {}",
                cut::known()
            ))
        })?
    };
    let tokens = Tokens::read(&json, config.vocab_size).map_err(error)?;
    let mut all = Vec::new();
    let mut push = |key: &str, value: Meta| all.push((format!("tokenizer.ggml.{key}"), value));
    push("model", Meta::Text(if is_spm { "llama" } else { "gpt2" }.to_owned()));
    push("pre", Meta::Text(cut.to_owned()));
    if is_spm {
        // Pieces were given ids in the order they were merged in.
        push("scores", Meta::Floats((0..tokens.texts.len()).map(|i| -(i as f32)).collect()));
        let prepends = json["normalizer"].to_string().contains("Prepend")
            || json["pre_tokenizer"]["prepend_scheme"]
                .as_str()
                .is_some_and(|scheme| scheme != "never");
        push("add_space_prefix", Meta::Bool(prepends));
    } else {
        push(
            "merges",
            Meta::Texts(
                merges(model).ok_or_else(|| error("`merges` is not a list of pairs".to_owned()))?,
            ),
        );
    }
    // What texts begin with counts for llama.cpp, whatever the configuration names.
    let first = first_token(&json["post_processor"]);
    let first = first.and_then(|first| tokens.texts.iter().position(|token| token == first));
    let adds_bos = first.is_some();
    let bos = first.map(|id| id as u32).or(config.bos_token_id);
    push("tokens", Meta::Texts(tokens.texts));
    push("token_type", Meta::Wholes(tokens.kinds));
    push("add_bos_token", Meta::Bool(adds_bos));
    push("add_eos_token", Meta::Bool(false));
    if let Some(id) = bos {
        push("bos_token_id", Meta::Whole(id));
    }
    if let Some(id) = config.eos_token_id.as_ref().and_then(|ids| TokenIds::as_slice(ids).first()) {
        push("eos_token_id", Meta::Whole(*id));
    }
    if let Some(id) = config.pad_token_id {
        push("padding_token_id", Meta::Whole(id));
    }
    if let Some(template) = chat_template(dir)? {
        all.push(("tokenizer.chat_template".to_owned(), Meta::Text(template)));
    }
    Ok(all)
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(|error| ModelError::read(path, error))?;
    serde_json::from_slice(&text).map_err(|error| ModelError::read(path, error))
}

fn chat_template(dir: &Path) -> Result<Option<String>> {
    let jinja = dir.join("chat_template.jinja");
    if jinja.exists() {
        let text = fs::read_to_string(&jinja).map_err(|error| ModelError::read(&jinja, error))?;
        return Ok(Some(text));
    }
    let path = dir.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(None);
    }
    Ok(json(&path)?["chat_template"].as_str().map(str::to_owned))
}

struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    /// A text and a kind for every row of the embedding.
    fn read(json: &Value, rows: usize) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        let unknown = json["model"]["unk_token"].as_str();
        let vocab = json["model"]["vocab"].as_object().ok_or("`model.vocab` is missing")?;
        for (token, id) in vocab {
            let id = id.as_u64().ok_or("`model.vocab` has an id that is not a number")?;
            let kind = if Some(token.as_str()) == unknown {
                UNKNOWN
            } else if is_byte(token) && json["model"]["byte_fallback"] == Value::Bool(true) {
                BYTE
            } else {
                NORMAL
            };
            entries.insert(id, (token.clone(), kind));
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) else {
                return Err("`added_tokens` has an entry without id or content".to_owned());
            };
            let is_special = added["special"] == Value::Bool(true);
            let kind = match entries.get(&id) {
                Some((_, UNKNOWN)) => UNKNOWN,
                _ if is_special => CONTROL,
                _ => USER_DEFINED,
            };
            entries.insert(id, (token.to_owned(), kind));
        }
        if let Some((last, _)) = entries.last_key_value()
            && *last >= rows as u64
        {
            return Err(format!("token {last} is beyond the model's vocabulary of {rows}"));
        }
        let entry = |id| entries.remove(&id).unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
        let (texts, kinds) = (0..rows as u64).map(entry).unzip();
        Ok(Self { texts, kinds })
    }
}

/// `<0x0A>` and the like.
fn is_byte(token: &str) -> bool {
    let inner = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    inner.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

/// Merges as `left right`; newer files have pairs.
fn merges(model: &Value) -> Option<Vec<String>> {
    let merge = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    };
    model["merges"].as_array()?.iter().map(merge).collect()
}

/// The token that a text is given in front.
fn first_token(post_processor: &Value) -> Option<&str> {
    match post_processor["type"].as_str()? {
        "TemplateProcessing" => post_processor["single"][0]["SpecialToken"]["id"].as_str(),
        "Sequence" => post_processor["processors"].as_array()?.iter().find_map(first_token),
        _ => None,
    }
}
