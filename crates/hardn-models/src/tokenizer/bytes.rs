//! The bytes each token stands for.

use std::collections::BTreeMap;

use tokenizers::{DecoderWrapper, PreTokenizerWrapper, models::ModelWrapper};

/// A table from id to bytes; empty where no token has the id.
pub(crate) fn token_table(tokenizer: &tokenizers::Tokenizer) -> Vec<Vec<u8>> {
    let added = tokenizer.get_added_tokens_decoder();
    let vocab: BTreeMap<u32, String> =
        tokenizer.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
    let byte_level = is_byte_level(tokenizer);
    let byte_of = byte_of_char();
    let length = vocab.last_key_value().map_or(0, |(id, _)| *id as usize + 1);
    let mut table = vec![Vec::new(); length];
    for (id, text) in vocab {
        table[id as usize] = if added.contains_key(&id) {
            text.into_bytes()
        } else if byte_level {
            text.chars()
                .flat_map(|c| byte_of.get(&c).map_or_else(|| utf8(c), |b| vec![*b]))
                .collect()
        } else if let Some(byte) = fallback_byte(&text) {
            vec![byte]
        } else {
            text.replace('\u{2581}', " ").into_bytes()
        };
    }
    table
}

fn is_byte_level(tokenizer: &tokenizers::Tokenizer) -> bool {
    if matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
        return true;
    }
    let byte_level = |one: &PreTokenizerWrapper| matches!(one, PreTokenizerWrapper::ByteLevel(_));
    match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Sequence(all)) => all.as_ref().iter().any(byte_level),
        Some(one) => byte_level(one) && matches!(tokenizer.get_model(), ModelWrapper::BPE(_)),
        None => false,
    }
}

fn utf8(c: char) -> Vec<u8> {
    c.to_string().into_bytes()
}

/// `<0x0A>` is the byte 10.
fn fallback_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// GPT-2's table: printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards.
fn byte_of_char() -> BTreeMap<char, u8> {
    let mut next = 0x100_u32;
    (0..=255_u8)
        .filter_map(|byte| {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            Some((char::from_u32(code)?, byte))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpt2_names_of_bytes() {
        let table = byte_of_char();
        assert_eq!(table.len(), 256);
        for (c, byte) in [('a', b'a'), ('Ġ', b' '), ('Ċ', b'\n'), ('ĉ', b'\t'), ('Ń', 0xad)] {
            assert_eq!(table[&c], byte, "{c}");
        }
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        assert_eq!(fallback_byte("<0x0A"), None);
    }
}
