//! Training a byte-level byte-pair tokenizer for code.

use tokenizers::{
    AddedToken, Tokenizer as Inner, TokenizerBuilder,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, BpeTrainerBuilder},
    normalizers::NormalizerWrapper,
    pre_tokenizers::{
        PreTokenizerWrapper,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::PostProcessorWrapper,
    tokenizer::SplitDelimiterBehavior,
};

use super::Tokenizer;
use crate::{ModelError, Result};

/// The special tokens of lab models, in the order of their ids from 0. The first ends a text.
pub const LAB_SPECIALS: &[&str] =
    &["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", PAD];

/// The token that fills a batch, where a tokenizer has it.
const PAD: &str = "<|pad|>";

/// Where merges stop. A line break stands alone and indentation is one piece, so that a prompt that ends
/// after a line break is cut where a token ends; digits go in threes. A word is alone, without the space or
/// underscore before it: a name has the same tokens wherever it stands, so that a small model can copy it. Spaces
/// go with the punctuation beside them.
const PIECES: &str = concat!(
    r"[\r\n]",                // one line break
    r"|[^\S\r\n]{2,}",        // runs of spaces and tabs
    r"|\p{L}+",               // a word, or a part of one between underscores
    r"|\p{N}{1,3}",           // part of a number
    r"| ?[^\s\p{L}\p{N}]+ ?", // punctuation
    r"|\s",                   // what is left: a lone space or tab
);

/// Trains a tokenizer of at most `vocab_size` tokens; `specials` get the ids from 0, in order.
///
/// The same texts give the same tokenizer, whatever their order and whatever the number of threads.
///
/// # Errors
/// A `vocab_size` too small for the special tokens and the 256 bytes.
pub fn train_bpe<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab_size: usize,
    specials: &[&str],
) -> Result<Tokenizer> {
    let error = |source: tokenizers::Error| {
        ModelError::Input(format!("cannot train the tokenizer: {source}"))
    };
    if vocab_size < specials.len() + 256 {
        return Err(ModelError::Input(format!(
            "a vocabulary of {vocab_size} has no room for 256 bytes and {} special tokens",
            specials.len()
        )));
    }
    let split =
        Split::new(SplitPattern::Regex(PIECES.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map_err(error)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        split.into(),
        bytes.into(),
    ]))))
    .with_decoder(Some(bytes.into()))
    .build()
    .map_err(error)?;
    let special_tokens = specials.iter().map(|name| AddedToken::from(*name, true)).collect();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(special_tokens)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut trainer, texts).map_err(error)?;
    let text = tokenizer.to_string(false).map_err(error)?;
    let inner: Inner = text.parse().map_err(error)?;
    let mut roles = Vec::new();
    if let Some(end) = specials.first() {
        for role in ["bos_token", "eos_token", "unk_token"] {
            roles.push((role.to_owned(), (*end).to_owned()));
        }
    }
    if specials.contains(&PAD) {
        roles.push(("pad_token".to_owned(), PAD.to_owned()));
    }
    Ok(Tokenizer::from_inner(inner, roles))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let encoding = tokenizer.encode(text).unwrap();
        let text = |id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(*id)).into_owned();
        encoding.ids.iter().map(text).collect()
    }

    #[test]
    fn indentation_is_one_token() {
        let code = "def load_user(path):\n    with open(path) as f:\n        return f.read()\n";
        let tokenizer = train_bpe(std::iter::repeat_n(code, 50), 400, LAB_SPECIALS).unwrap();
        assert_eq!(
            pieces(&tokenizer, "def load_user(path):\n    with\n        return f"),
            [
                "def", " ", "load", "_", "user", "(", "path", "):", "\n", "    ", "with", "\n",
                "        ", "return", " ", "f"
            ]
        );
    }

    #[test]
    fn training_is_deterministic() {
        let texts: Vec<String> =
            (0..300).map(|i| format!("def f{i}(a, b_{}):\n    return a + {i}\n", i % 17)).collect();
        let train = || {
            let tokenizer = train_bpe(texts.iter().map(String::as_str), 500, LAB_SPECIALS).unwrap();
            (0..tokenizer.vocab_size() as u32)
                .map(|id| tokenizer.token_bytes(id).to_vec())
                .collect::<Vec<_>>()
        };
        let first = train();
        for _ in 0..3 {
            assert_eq!(train(), first);
        }
    }
}
