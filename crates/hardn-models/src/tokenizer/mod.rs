//! Tokenizers: text to ids and back, from the files a checkpoint is published with.

mod bytes;
mod class;
mod folder;
mod parts;
mod sentencepiece;
mod special;
mod train;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tokenizers::{AddedToken, ModelWrapper};

use crate::{
    ModelError, Result,
    chat::{ChatOptions, ChatTemplates},
    checkpoint::gguf,
};
use bytes::token_table;
use folder::Folder;
use parts::Parts;
use special::{Roles, add_special_tokens};

pub use train::{LAB_SPECIALS, train_bpe};

/// The ids of a text and where each token lies in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Half-open ranges of code points; same length as `ids`. Tokens that are part of one character share its range.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer of the `tokenizers` library, with the roles its tokens have and its chat templates.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes: Vec<Vec<u8>>,
    roles: Roles,
    eos: Option<u32>,
    cleans_up: bool,
    chat: ChatTemplates,
}

/// Files that hold a vocabulary.
const VOCABULARIES: &[&str] =
    &["tokenizer.json", "tokenizer.json.gz", "tokenizer.model", "vocab.json"];

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint folder, as transformers' `AutoTokenizer` (5.23) does.
    ///
    /// The vocabulary is that of `tokenizer.json` (also packed as `tokenizer.json.gz`), else of a SentencePiece
    /// `tokenizer.model`, else of `vocab.json` and `merges.txt`. `tokenizer_config.json`, `special_tokens_map.json`,
    /// `added_tokens.json` and the `model_type` of `config.json` count where they are present: they name added tokens and
    /// roles, and a class whose pipeline replaces the stored one. Limits on length left by a training run do not count.
    ///
    /// Without any of these a GGUF file's own is read; `dir` may be that file.
    ///
    /// # Errors
    /// A missing or malformed file, or added tokens that contradict the vocabulary.
    pub fn load(dir: &Path) -> Result<Self> {
        if let Some(gguf) = gguf::find(dir) {
            let beside = gguf.parent().unwrap_or(dir);
            if !VOCABULARIES.iter().any(|file| beside.join(file).exists()) {
                return Self::from_gguf(&gguf);
            }
            if beside != dir {
                return Self::load(beside);
            }
        }
        let folder = Folder::read(dir)?;
        let mut parts = Parts::build(&folder)?;
        let roles = add_special_tokens(&mut parts, &folder)?;
        let mut inner = parts.inner;
        let unlimited = inner.with_truncation(None).map(|_| ());
        unlimited.map_err(|source| ModelError::Tokenizer {
            path: dir.to_owned(),
            message: source.to_string(),
        })?;
        inner.with_padding(None);
        let forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
        let cleans_up = folder.switch("clean_up_tokenization_spaces", false)?
            && (!matches!(inner.get_model(), ModelWrapper::BPE(_))
                || folder.switch(forced, false)?);
        let chat = ChatTemplates::read(dir, folder.tokenizer_config())?;
        Ok(Self { cleans_up, chat, ..Self::from_inner(inner, roles) })
    }

    fn from_gguf(path: &Path) -> Result<Self> {
        let (inner, settings) = gguf::tokenizer(path)?;
        let texts = settings.as_object().into_iter().flatten();
        let roles = texts
            .filter(|(role, _)| role.ends_with("_token"))
            .filter_map(|(role, text)| Some((role.clone(), text.as_str()?.to_owned())));
        let roles = roles.collect();
        let chat = ChatTemplates::read(path.parent().unwrap_or(path), &settings)?;
        Ok(Self { chat, ..Self::from_inner(inner, roles) })
    }

    fn from_inner(inner: tokenizers::Tokenizer, roles: Roles) -> Self {
        let usual = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"];
        let named =
            roles.iter().find(|(role, _)| role == "eos_token").map(|(_, text)| text.as_str());
        let eos = named.into_iter().chain(usual).find_map(|name| inner.token_to_id(name));
        let bytes = token_table(&inner);
        Self { inner, bytes, roles, eos, cleans_up: false, chat: ChatTemplates::default() }
    }

    /// Ids and offsets of a text, without the tokens a post-processor would put around it.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_with(text, false)
    }

    /// Ids and offsets of a text as `AutoTokenizer(...)(text)` gives them: with the begin and end tokens of the tokenizer's
    /// post-processor where wanted.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express.
    pub fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        let (encoding, _) = self.encode_marked(text, add_special_tokens)?;
        Ok(encoding)
    }

    /// Ids and offsets of a text that a model is to continue: with the begin token where the tokenizer adds one, never with
    /// an end token behind it.
    ///
    /// # Errors
    /// A text the tokenizer's model cannot express.
    pub fn encode_prompt(&self, text: &str) -> Result<Encoding> {
        let (mut encoding, added) = self.encode_marked(text, true)?;
        let is_only_added = added.iter().all(|mask| *mask == 1);
        let n_behind = added.iter().rev().take_while(|mask| **mask == 1).count();
        // Around an empty text, the begin token is what stands first.
        let n_kept = if is_only_added {
            added.len().min(usize::from(self.adds_before()?))
        } else {
            added.len() - n_behind
        };
        encoding.ids.truncate(n_kept);
        encoding.offsets.truncate(n_kept);
        Ok(encoding)
    }

    /// Whether the post-processor puts a token before a text.
    fn adds_before(&self) -> Result<bool> {
        let (_, added) = self.encode_marked("a", true)?;
        Ok(added.first() == Some(&1) && added.len() > 1)
    }

    /// An encoding, and 1 for each token that the post-processor added.
    fn encode_marked(&self, text: &str, add_special_tokens: bool) -> Result<(Encoding, Vec<u32>)> {
        let encoding = self
            .inner
            .encode_char_offsets(text, add_special_tokens)
            .map_err(|error| ModelError::Input(format!("cannot tokenize the text: {error}")))?;
        let added = encoding.get_special_tokens_mask().to_vec();
        let (ids, offsets) = (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec());
        Ok((Encoding { ids, offsets }, added))
    }

    /// The text of ids. Special tokens are left out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// Whatever the tokenizer's decoder reports.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = self
            .inner
            .decode(ids, true)
            .map_err(|error| ModelError::Input(format!("cannot decode tokens: {error}")))?;
        Ok(if self.cleans_up { clean_up(text) } else { text })
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

    /// Ids of the tokens that steer a model and are no text, ascending: added tokens that are marked special or written
    /// `<...>` (the marks of fill-in-the-middle are not special everywhere).
    pub fn control_tokens(&self) -> Vec<u32> {
        let is_control = |token: &AddedToken| {
            token.special || (token.content.starts_with('<') && token.content.ends_with('>'))
        };
        let added = self.inner.get_added_tokens_decoder();
        let mut ids: Vec<u32> =
            added.iter().filter(|(_, token)| is_control(token)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The end-of-text token.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token the files name as the beginning of a text, whether or not the tokenizer adds it.
    pub fn bos(&self) -> Option<u32> {
        self.role("bos_token")
    }

    /// The token that fills a batch: the one the files name, else the end-of-text token.
    pub fn pad(&self) -> Option<u32> {
        self.role("pad_token").or(self.eos)
    }

    /// The id of the token with a role, by its key in `tokenizer_config.json` (`unk_token`, `prefix_token`).
    pub fn role(&self, key: &str) -> Option<u32> {
        let (_, text) = self.roles.iter().find(|(role, _)| role == key)?;
        self.special(text)
    }

    /// The chat templates published with the tokenizer.
    pub fn chat(&self) -> &ChatTemplates {
        &self.chat
    }

    /// The text of a conversation, as transformers' `apply_chat_template(..., tokenize=False)` renders it. Its ids are those
    /// of [`Self::encode`]: the template writes the begin token itself.
    ///
    /// # Errors
    /// No template, a template that fails or refuses the messages, or messages that are not a list of objects.
    pub fn render_chat(&self, messages: &Value, options: &ChatOptions) -> Result<String> {
        self.chat.render(&self.roles, messages, options)
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
        let special: serde_json::Map<String, Value> =
            self.roles.iter().map(|(role, text)| (role.clone(), json!(text))).collect();
        let mut config = special.clone();
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(self.cleans_up));
        if self.inner.get_encode_special_tokens() {
            config.insert("split_special_tokens".to_owned(), json!(true));
        }
        if let Some(template) = self.chat.to_json() {
            config.insert("chat_template".to_owned(), template);
        }
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

/// transformers' clean-up of the spaces that word-piece decoders leave.
fn clean_up(text: String) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

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
