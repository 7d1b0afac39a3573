//! Two vocabularies that meet in bytes: what a token of one is in the other.

use std::{collections::HashMap, str, sync::Arc};

use hardn_models::Tokenizer;

/// A tokenizer's tokens by their bytes.
pub(crate) struct ByBytes {
    tokenizer: Arc<Tokenizer>,
    /// Tokens of text, sorted by bytes, then id.
    sorted: Vec<u32>,
    /// Tokens that steer the model and are no text, ascending, and by name.
    control_ids: Vec<u32>,
    controls: HashMap<Vec<u8>, u32>,
    longest: usize,
}

/// A token of the one vocabulary in the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The tokens it is.
    pub(crate) pieces: Vec<u32>,
    /// Longer tokens that begin with the last of them, and that the one vocabulary cannot say at once: to write them, its
    /// model has to begin with this token.
    pub(crate) longer: Vec<u32>,
}

impl ByBytes {
    pub(crate) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let control_ids = tokenizer.control_tokens();
        let bytes = |id: u32| tokenizer.token_bytes(id);
        let controls = control_ids.iter().map(|&id| (bytes(id).to_vec(), id)).collect();
        let mut sorted: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| !bytes(id).is_empty() && control_ids.binary_search(&id).is_err())
            .collect();
        sorted.sort_by(|&a, &b| bytes(a).cmp(bytes(b)).then(a.cmp(&b)));
        let longest = sorted.iter().map(|&id| bytes(id).len()).max().unwrap_or(0);
        Self { tokenizer, sorted, control_ids, controls, longest }
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn bytes(&self, id: u32) -> &[u8] {
        self.tokenizer.token_bytes(id)
    }

    fn is_control(&self, id: u32) -> bool {
        self.tokenizer.eos() == Some(id) || self.control_ids.binary_search(&id).is_ok()
    }

    /// The token with these bytes.
    fn exact(&self, bytes: &[u8]) -> Option<u32> {
        self.beginning_with(bytes).first().copied().filter(|&id| self.bytes(id) == bytes)
    }

    /// Tokens whose bytes begin with these, those with just these first.
    fn beginning_with(&self, bytes: &[u8]) -> &[u32] {
        let start = self.sorted.partition_point(|&id| self.bytes(id) < bytes);
        let rest = &self.sorted[start..];
        &rest[..rest.partition_point(|&id| self.bytes(id).starts_with(bytes))]
    }

    /// Bytes as tokens: the one that has them, else as the tokenizer reads them alone, else (parts of characters, and what
    /// the tokenizer would read with a space before it) the longest tokens first. None where no tokens have them.
    pub(crate) fn pieces(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        if let Some(id) = self.exact(bytes) {
            return Some(vec![id]);
        }
        let read = str::from_utf8(bytes).ok().and_then(|text| self.tokenizer.encode(text).ok());
        let is_same = |ids: &Vec<u32>| {
            let found: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
            found == bytes && ids.iter().all(|&id| !self.is_control(id))
        };
        if let Some(read) = read.filter(|read| is_same(&read.ids)) {
            return Some(read.ids);
        }
        let (mut rest, mut pieces) = (bytes, Vec::new());
        while !rest.is_empty() {
            let mut lengths = (1..=self.longest.min(rest.len())).rev();
            let (n, id) = lengths.find_map(|n| Some((n, self.exact(&rest[..n])?)))?;
            pieces.push(id);
            rest = &rest[n..];
        }
        Some(pieces)
    }

    /// What a token is in another vocabulary. None for one that steers the model and has no counterpart, for one without
    /// bytes, and for bytes the other vocabulary does not have.
    pub(crate) fn in_other(&self, id: u32, other: &Self) -> Option<Unit> {
        let bytes = self.bytes(id);
        let alone = |id: u32| Unit { pieces: vec![id], longer: Vec::new() };
        if self.tokenizer.eos() == Some(id) {
            return other.tokenizer.eos().map(alone);
        }
        if self.is_control(id) {
            return other.controls.get(bytes).copied().map(alone);
        }
        if bytes.is_empty() {
            return None;
        }
        let is_text = !other.is_control(id) && other.bytes(id) == bytes;
        let pieces = if is_text { vec![id] } else { other.pieces(bytes)? };
        let last = other.bytes(*pieces.last()?);
        let head = &bytes[..bytes.len() - last.len()];
        let longer = other.beginning_with(last).iter().copied().filter(|&longer| {
            let whole = [head, other.bytes(longer)].concat();
            whole.len() > bytes.len() && self.exact(&whole).is_none()
        });
        Some(Unit { longer: longer.collect(), pieces })
    }

    /// Tokens that a model may choose: those that have a counterpart, or bytes.
    pub(crate) fn may_choose(&self, id: u32, other: &Self) -> bool {
        if self.is_control(id) {
            return self.in_other(id, other).is_some();
        }
        !self.bytes(id).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hardn_models::{LAB_SPECIALS, train_bpe};

    use super::*;

    const CODE: &str =
        "def load(path):\n    with open(path) as f:\n        return f.read()  # caf\u{e9}\n\n";

    fn by_bytes(vocab_size: usize) -> ByBytes {
        let texts = std::iter::repeat_n(CODE, 50);
        ByBytes::new(Arc::new(train_bpe(texts, vocab_size, LAB_SPECIALS).unwrap()))
    }

    #[test]
    fn every_token_is_the_same_bytes_in_both() {
        let (small, large) = (by_bytes(280), by_bytes(330));
        for (own, other) in [(&small, &large), (&large, &small)] {
            let mut n_several = 0;
            for id in 0..own.tokenizer.vocab_size() as u32 {
                if own.is_control(id) {
                    continue;
                }
                let unit = own.in_other(id, other).unwrap();
                let bytes: Vec<u8> =
                    unit.pieces.iter().flat_map(|&id| other.bytes(id)).copied().collect();
                assert_eq!(bytes, own.bytes(id));
                n_several += usize::from(unit.pieces.len() > 1);
                for longer in unit.longer {
                    let last = other.bytes(*unit.pieces.last().unwrap()).len();
                    let head = &bytes[..bytes.len() - last];
                    let whole = [head, other.bytes(longer)].concat();
                    assert!(whole.starts_with(&bytes) && own.exact(&whole).is_none());
                }
            }
            assert_eq!(n_several > 0, std::ptr::eq(own, &raw const large), "{n_several}");
        }
        // With itself every token is itself.
        for id in 0..small.tokenizer.vocab_size() as u32 {
            let unit = small.in_other(id, &small).unwrap();
            assert_eq!(unit, Unit { pieces: vec![id], longer: vec![] });
        }
    }
}
