//! Tokenizers: text to ids and back, over `tokenizer.json`.

use std::{collections::BTreeMap, fs, io::Read, path::Path};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokenizers::AddedToken;

use crate::{ModelError, Result, tokenizer_bytes::token_table};

/// The ids of a text and where each token lies in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Half-open ranges of code points; same length as `ids`. Tokens that are part of one character share its range.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer in the format of the `tokenizers` library.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes: Vec<Vec<u8>>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` or `tokenizer.json.gz` in `dir`.
    ///
    /// Tokens of `added_tokens.json` that the file lacks are added. The end-of-text token is looked up in
    /// `tokenizer_config.json`, `special_tokens_map.json`, and then by its usual names.
    ///
    /// # Errors
    /// A missing or malformed file, or added tokens that contradict the vocabulary.
    pub fn load(dir: &Path) -> Result<Self> {
        let plain = dir.join("tokenizer.json");
        let packed = dir.join("tokenizer.json.gz");
        let (path, bytes) = if !plain.exists() && packed.exists() {
            let file = fs::File::open(&packed).map_err(|error| ModelError::read(&packed, error))?;
            let mut bytes = Vec::new();
            GzDecoder::new(file)
                .read_to_end(&mut bytes)
                .map_err(|error| ModelError::read(&packed, error))?;
            (packed, bytes)
        } else {
            let bytes = fs::read(&plain).map_err(|error| ModelError::read(&plain, error))?;
            (plain, bytes)
        };
        let error = |message: String| ModelError::Tokenizer { path: path.clone(), message };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|source| error(source.to_string()))?;
        // Limits a training run left in the file would silently shorten texts.
        inner.with_truncation(None).map_err(|source| error(source.to_string()))?;
        inner.with_padding(None);
        add_tokens(&mut inner, dir)?;
        let eos = named_eos(dir)?.and_then(|name| inner.token_to_id(&name));
        Ok(Self::from_inner(inner, eos))
    }

    pub(crate) fn from_inner(inner: tokenizers::Tokenizer, eos: Option<u32>) -> Self {
        let usual = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"];
        let eos = eos.or_else(|| usual.iter().find_map(|name| inner.token_to_id(name)));
        let bytes = token_table(&inner);
        Self { inner, bytes, eos }
    }

    /// Ids and offsets of a text, without the tokens a post-processor would put around it.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_with(text, false)
    }

    /// Ids and offsets of a text, with the begin and end tokens of the tokenizer's post-processor where wanted.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express.
    pub fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        let encoding = self
            .inner
            .encode_char_offsets(text, add_special_tokens)
            .map_err(|error| ModelError::Input(format!("cannot tokenize the text: {error}")))?;
        Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// The text of ids. Special tokens are left out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// Whatever the tokenizer's decoder reports.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, true)
            .map_err(|error| ModelError::Input(format!("cannot decode tokens: {error}")))
    }

    /// The bytes a token stands for; empty for an id that no token has.
    ///
    /// Exact for byte-level vocabularies. For sentencepiece-style ones the word mark is a space,
    /// also at the start of a text, where [`Self::decode`] drops it.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// One more than the largest id. A model's `vocab_size` may be larger.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The id of a token by its text, such as `<|fim_prefix|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, such that
    /// `AutoTokenizer.from_pretrained` reads the same tokenizer.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(|error| ModelError::write(dir, error))?;
        let path = dir.join("tokenizer.json");
        let text = self.inner.to_string(false).map_err(|error| ModelError::write(&path, error))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| ModelError::write(&path, error))?;
        write_json(&path, &value)?;

        let added: BTreeMap<u32, AddedToken> =
            self.inner.get_added_tokens_decoder().into_iter().collect();
        let mut special = serde_json::Map::new();
        if let Some(token) = self.eos.and_then(|eos| self.inner.id_to_token(eos)) {
            special.insert("bos_token".to_owned(), json!(token));
            special.insert("eos_token".to_owned(), json!(token));
            special.insert("unk_token".to_owned(), json!(token));
        }
        if let Some(pad) = added.values().find(|token| token.content == "<|pad|>") {
            special.insert("pad_token".to_owned(), json!(pad.content));
        }
        let mut config = special.clone();
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("added_tokens_decoder".to_owned(), json!(added));
        write_json(&dir.join("special_tokens_map.json"), &Value::Object(special))?;
        write_json(&dir.join("tokenizer_config.json"), &Value::Object(config))
    }
}

/// Writes indented JSON with a final newline.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| ModelError::write(path, error))?;
    text.push('\n');
    hardn_types::write_atomic(path, text.as_bytes()).map_err(|error| ModelError::write(path, error))
}

fn add_tokens(inner: &mut tokenizers::Tokenizer, dir: &Path) -> Result<()> {
    let path = dir.join("added_tokens.json");
    let Some(Value::Object(map)) = read_json(&path)? else { return Ok(()) };
    let mut missing: Vec<(u64, String)> = map
        .into_iter()
        .filter(|(name, _)| inner.token_to_id(name).is_none())
        .map(|(name, id)| (id.as_u64().unwrap_or(u64::MAX), name))
        .collect();
    missing.sort();
    for (id, name) in missing {
        inner.add_tokens([AddedToken::from(name.clone(), false).normalized(false)]).map_err(
            |error| ModelError::Tokenizer { path: path.clone(), message: error.to_string() },
        )?;
        let given = inner.token_to_id(&name).map(u64::from);
        if given != Some(id) {
            return Err(ModelError::Tokenizer {
                path,
                message: format!("`{name}` has id {id}, which does not follow the vocabulary"),
            });
        }
    }
    Ok(())
}

/// The end-of-text token's text, where a file beside the tokenizer names it.
fn named_eos(dir: &Path) -> Result<Option<String>> {
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let Some(value) = read_json(&dir.join(file))? else { continue };
        let eos = &value["eos_token"];
        if let Some(name) = eos.as_str().or_else(|| eos["content"].as_str()) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|error| ModelError::read(path, error))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| ModelError::read(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LAB_SPECIALS, train_bpe};

    fn trained() -> Tokenizer {
        let texts =
            ["def find(cur, key):\n    return cur + \"é\"\n", "int main(void) {\n\treturn 0;\n}\n"];
        train_bpe(texts.iter().copied(), 320, LAB_SPECIALS).unwrap()
    }

    #[track_caller]
    fn check(tokenizer: &Tokenizer, text: &str) {
        let encoding = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), text);
        let bytes: Vec<u8> =
            encoding.ids.iter().flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
        assert_eq!(bytes, text.as_bytes(), "{text:?}");
        let n_chars = text.chars().count();
        let mut covered = vec![false; n_chars];
        for (start, end) in &encoding.offsets {
            covered[*start..*end].fill(true);
        }
        assert!(covered.iter().all(|c| *c), "{text:?} {:?}", encoding.offsets);
    }

    #[test]
    fn text_survives_the_round_trip() {
        let tokenizer = trained();
        for text in [
            "",
            "def f(x):\n        return x\n",
            "naïve 漢字 🙂 \t\r\n x",
            "a\n\n\n  b   c_d__e1234",
        ] {
            check(&tokenizer, text);
        }
    }

    #[test]
    fn saving_and_loading_gives_the_same_tokenizer() {
        let tokenizer = trained();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let again = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        assert_eq!(again.eos(), Some(0));
        assert_eq!(again.special("<|pad|>"), Some(4));
        let text = "def find(cur):\n    return \"é\"<|endoftext|>";
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(again.encode(text).unwrap().ids.last(), Some(&0));
        check(&again, "x = 漢\n");
    }

    #[test]
    fn added_tokens_beside_the_file_are_honoured() {
        let tokenizer = trained();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let next = tokenizer.vocab_size();
        let write = |id: usize| {
            fs::write(dir.path().join("added_tokens.json"), format!("{{\"<|sep|>\": {id}}}"))
                .unwrap();
        };
        write(next);
        let again = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(again.special("<|sep|>"), Some(next as u32));
        assert_eq!(again.token_bytes(next as u32), b"<|sep|>");
        write(next + 5);
        assert!(Tokenizer::load(dir.path()).is_err());
    }
}
