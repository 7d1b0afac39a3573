//! Added tokens, the tokens with a role, and the post-processor that puts begin and end tokens around a text.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::{
    class::Class,
    folder::Folder,
    parts::{Parts, Source},
};
use crate::{ModelError, Result};

/// Roles every tokenizer may have, in transformers' order.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The text of every token that has a role: `bos_token`, `eos_token`, ..., and a model's own (`prefix_token`).
pub(super) type Roles = Vec<(String, String)>;

/// Adds the tokens that the folder's files name, sets the post-processor, and says which tokens have a role.
///
/// # Errors
/// Malformed files, and an added token whose stated id is not the one it gets.
pub(super) fn add_special_tokens(parts: &mut Parts, folder: &Folder) -> Result<Roles> {
    let mut declared = Declared::read(parts, folder)?;
    let inner = &mut parts.inner;
    // Code Llama's mark for the place to fill is no token of the model; transformers gives it an id past the model's last.
    declared.roles.retain(|(role, token)| {
        role != "fill_token" || inner.token_to_id(&token.content).is_some()
    });
    inner.set_encode_special_tokens(folder.switch("split_special_tokens", false)?);

    let present = inner.get_added_tokens_decoder();
    let mut known: Vec<String> = present.values().map(|token| token.content.clone()).collect();
    let mut missing: Vec<AddedToken> = declared
        .added
        .values()
        .filter(|token| !present.values().any(|other| same(other, token)))
        .cloned()
        .collect();
    known.extend(missing.iter().map(|token| token.content.clone()));
    let others = declared.roles.iter().map(|(_, token)| token).chain(&declared.extra);
    for token in others {
        if !known.contains(&token.content) {
            known.push(token.content.clone());
            missing.push(token.clone());
        }
    }
    for token in &mut missing {
        token.special |= declared.roles.iter().any(|(_, role)| role.content == token.content);
    }
    let error = |message: String| ModelError::Tokenizer {
        path: folder.path("tokenizer_config.json"),
        message,
    };
    inner.add_tokens(missing).map_err(|source| error(source.to_string()))?;
    for (id, token) in &declared.added {
        let given = inner.token_to_id(&token.content);
        if given != Some(*id) {
            let given = given.map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(error(format!(
                "the added token `{}` is given as id {id}, but the vocabulary makes it {given}",
                token.content
            )));
        }
    }
    let roles: Roles =
        declared.roles.into_iter().map(|(role, token)| (role, token.content)).collect();
    set_post_processor(parts, folder, &roles).map_err(error)?;
    Ok(roles)
}

struct Declared {
    roles: Vec<(String, AddedToken)>,
    extra: Vec<AddedToken>,
    added: BTreeMap<u32, AddedToken>,
}

impl Declared {
    fn read(parts: &Parts, folder: &Folder) -> Result<Self> {
        let mut settings: Map<String, Value> =
            folder.tokenizer_config().as_object().cloned().unwrap_or_default();
        merge_extra(&mut settings);
        let mut added = BTreeMap::new();
        if let Some(decoder) = settings.get("added_tokens_decoder") {
            for (id, token) in decoder.as_object().into_iter().flatten() {
                let parsed = id.parse().ok().zip(added_token(token, false));
                let (id, token) = parsed.ok_or_else(|| ModelError::Config {
                    path: folder.path("tokenizer_config.json"),
                    key: format!("added_tokens_decoder.{id}"),
                    message: "not a token with an id".to_owned(),
                })?;
                added.insert(id, token);
            }
            read_added_tokens(&mut added, &settings, folder)?;
        } else {
            let from_pieces = parts.source == Source::SentencePiece;
            overlay_special_tokens_map(&mut settings, folder, from_pieces)?;
            read_added_tokens(&mut added, &settings, folder)?;
            let stored = folder.stored().map(|stored| &stored.json["added_tokens"]);
            for entry in stored.and_then(Value::as_array).into_iter().flatten() {
                let id = entry["id"].as_u64().and_then(|id| u32::try_from(id).ok());
                if let Some((id, token)) = id.zip(added_token(entry, false)) {
                    added.insert(id, token);
                }
            }
        }
        let mut roles: Vec<(String, Option<AddedToken>)> =
            ROLES.iter().map(|role| ((*role).to_owned(), None)).collect();
        let mut put = |role: &str, token: Option<AddedToken>| match roles
            .iter_mut()
            .find(|(name, _)| name == role)
        {
            Some((_, value)) => *value = token,
            None => roles.push((role.to_owned(), token)),
        };
        for (role, text) in class_roles(parts.class) {
            put(role, Some(AddedToken::from(*text, true)));
        }
        for (role, text) in &parts.named {
            put(role, Some(AddedToken::from(text.clone(), true)));
        }
        let mut extra: Vec<AddedToken> = Vec::new();
        for (key, value) in &settings {
            if key.ends_with("_token") && !value.is_boolean() && !value.is_number() {
                put(key, added_token(value, true));
            }
        }
        match settings.get("extra_special_tokens") {
            Some(Value::Object(named)) => {
                for (role, value) in named {
                    put(role, added_token(value, true));
                }
            }
            Some(Value::Array(list)) => {
                extra.extend(list.iter().filter_map(|token| added_token(token, true)));
            }
            _ => {
                extra.extend(parts.whole_pieces.iter().map(|(piece, control)| {
                    AddedToken::from(piece.clone(), *control).normalized(false)
                }));
                if parts.class == Class::Xglm {
                    extra
                        .extend((0..7).map(|i| AddedToken::from(format!("<madeupword{i}>"), true)));
                }
            }
        }
        let roles = roles.into_iter().filter_map(|(role, token)| Some((role, token?))).collect();
        Ok(Self { roles, extra, added })
    }
}

/// `additional_special_tokens` is the old name of `extra_special_tokens`.
fn merge_extra(settings: &mut Map<String, Value>) {
    let stated = settings.get("extra_special_tokens").is_some_and(|value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => false,
    });
    if let Some(old) = settings.shift_remove("additional_special_tokens")
        && !stated
        && !old.is_null()
    {
        settings.insert("extra_special_tokens".to_owned(), old);
    }
}

fn overlay_special_tokens_map(
    settings: &mut Map<String, Value>,
    folder: &Folder,
    from_pieces: bool,
) -> Result<()> {
    let Some(Value::Object(map)) = folder.json("special_tokens_map.json")? else { return Ok(()) };
    for (key, mut value) in map {
        match (key.as_str(), &mut value) {
            // The old name counts only where there are no such tokens yet.
            ("additional_special_tokens", Value::Array(_)) => {
                let stated = matches!(settings.get("extra_special_tokens"), Some(Value::Array(_)));
                if !stated && !from_pieces {
                    settings.insert("extra_special_tokens".to_owned(), value);
                }
                continue;
            }
            ("extra_special_tokens", Value::Array(list)) => {
                let mut all = match settings.get("extra_special_tokens") {
                    Some(Value::Array(stated)) => stated.clone(),
                    _ => Vec::new(),
                };
                all.extend(list.drain(..).filter(|token| !all.contains(token)).collect::<Vec<_>>());
                value = Value::Array(all);
            }
            ("extra_special_tokens", _) => {}
            (_, Value::Object(token)) => _ = token.insert("special".to_owned(), Value::Bool(true)),
            _ => {}
        }
        settings.insert(key, value);
    }
    Ok(())
}

/// Tokens of `added_tokens.json` whose ids are still free.
fn read_added_tokens(
    added: &mut BTreeMap<u32, AddedToken>,
    settings: &Map<String, Value>,
    folder: &Folder,
) -> Result<()> {
    let mut special: Vec<String> = Vec::new();
    for (key, value) in settings {
        let values = match value {
            Value::Array(list) if key == "extra_special_tokens" => list.as_slice(),
            value if ROLES.contains(&key.as_str()) => std::slice::from_ref(value),
            _ => continue,
        };
        special.extend(values.iter().filter_map(|v| added_token(v, true)).map(|t| t.content));
    }
    if let Some(Value::Object(map)) = folder.json("added_tokens.json")? {
        for (content, id) in map {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = number.ok_or_else(|| ModelError::Config {
                path: folder.path("added_tokens.json"),
                key: content.clone(),
                message: format!("{id} is not a token id"),
            })?;
            let is_special = special.contains(&content);
            added.entry(id).or_insert_with(|| AddedToken::from(content, is_special));
        }
    }
    Ok(())
}

/// A token from its text, or from an object with its text and flags; `None` for anything else.
fn added_token(json: &Value, special: bool) -> Option<AddedToken> {
    if let Some(content) = json.as_str() {
        return Some(AddedToken::from(content, special));
    }
    let flag = |key: &str, default: bool| json[key].as_bool().unwrap_or(default);
    let special = flag("special", false);
    let token = AddedToken::from(json["content"].as_str()?, special)
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .normalized(flag("normalized", !special));
    Some(token)
}

fn same(a: &AddedToken, b: &AddedToken) -> bool {
    let flags = |t: &AddedToken| (t.single_word, t.lstrip, t.rstrip, t.normalized, t.special);
    a.content == b.content && flags(a) == flags(b)
}

/// The tokens a class has roles for unless the files say otherwise.
fn class_roles(class: Class) -> &'static [(&'static str, &'static str)] {
    match class {
        Class::Stored => &[],
        Class::Gpt2 | Class::CodeGen => &[
            ("unk_token", "<|endoftext|>"),
            ("bos_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
        ],
        Class::GptNeoX => &[
            ("unk_token", "<|endoftext|>"),
            ("bos_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("pad_token", "<|padding|>"),
        ],
        Class::Qwen2 | Class::Qwen35 => &[
            ("unk_token", "<|endoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("pad_token", "<|endoftext|>"),
        ],
        Class::Llama => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
        Class::CodeLlama => &[
            ("unk_token", "<unk>"),
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("prefix_token", "▁<PRE>"),
            ("middle_token", "▁<MID>"),
            ("suffix_token", "▁<SUF>"),
            ("eot_token", "▁<EOT>"),
            ("fill_token", "<FILL_ME>"),
        ],
        Class::Gemma => &[
            ("unk_token", "<unk>"),
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
        Class::Xglm => &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
        ],
    }
}

/// Sets the begin and end tokens as transformers does: those of `tokenizer.json` stand, `add_bos_token` and `add_eos_token` count
/// where there is no such file, CodeLlama always begins with its begin token, XGLM with its end token.
fn set_post_processor(parts: &mut Parts, folder: &Folder, roles: &Roles) -> Result<(), String> {
    let token = |role: &str| {
        let (_, text) = roles.iter().find(|(name, _)| name == role)?;
        Some((text.clone(), parts.inner.token_to_id(text)?))
    };
    let (bos, eos) = (token("bos_token"), token("eos_token"));
    let (before, after) = if parts.class == Class::Xglm {
        (eos, None)
    } else {
        let config = folder.tokenizer_config();
        let from_config = parts.source != Source::Stored;
        let default = parts.class == Class::CodeLlama;
        let stated = |key: &str| config.get(key).filter(|_| from_config);
        let wanted = |key: &str, default: bool| {
            stated(key).map_or(default, |value| value.as_bool().unwrap_or(false))
        };
        let explicit = default
            || parts.class == Class::GptNeoX
            || stated("add_bos_token").is_some()
            || stated("add_eos_token").is_some();
        if parts.class == Class::CodeGen && parts.inner.get_post_processor().is_none() && !explicit
        {
            let trims = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
            let processor: PostProcessorWrapper =
                serde_json::from_value(trims).map_err(|source| source.to_string())?;
            parts.inner.with_post_processor(Some(processor));
            return Ok(());
        }
        if !explicit && parts.inner.get_post_processor().is_some() {
            return Ok(());
        }
        (
            bos.filter(|_| wanted("add_bos_token", default)),
            eos.filter(|_| wanted("add_eos_token", false)),
        )
    };
    let place = |token: &Option<(String, u32)>| {
        token.as_ref().map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": 0}}))
    };
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> =
        place(&before).into_iter().chain([text.clone()]).chain(place(&after)).collect();
    let pair = json!([text, {"Sequence": {"id": "B", "type_id": 1}}]);
    let tokens: HashMap<&String, Value> = [&before, &after]
        .into_iter()
        .flatten()
        .map(|(text, id)| (text, json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    let template = json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens});
    let processor: PostProcessorWrapper =
        serde_json::from_value(template).map_err(|source| source.to_string())?;
    parts.inner.with_post_processor(Some(processor));
    Ok(())
}
