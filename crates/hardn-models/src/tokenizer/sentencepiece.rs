//! SentencePiece models (`tokenizer.model`): the fields a tokenizer is made from.

use std::{collections::HashMap, fs, path::Path};

use prost::Message;

use crate::{ModelError, Result};

/// A SentencePiece model file. Field numbers are those of `sentencepiece_model.proto`.
#[derive(Message)]
pub(super) struct SentencePieceModel {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

/// One entry of the vocabulary; its id is its place.
#[derive(Message)]
pub(super) struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42")]
    eos_id: Option<i32>,
    #[prost(string, optional, tag = "45")]
    unk_piece: Option<String>,
    #[prost(string, optional, tag = "46")]
    bos_piece: Option<String>,
    #[prost(string, optional, tag = "47")]
    eos_piece: Option<String>,
}

#[derive(Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

/// `ModelType.UNIGRAM`, the format's default.
const UNIGRAM: i32 = 1;
/// `Type.CONTROL` and `Type.USER_DEFINED`.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

impl SentencePieceModel {
    /// # Errors
    /// A file that is not a SentencePiece model, such as a rank file of the same name (Llama 3's original release).
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| ModelError::read(path, error))?;
        let error = |message: String| ModelError::Tokenizer { path: path.to_owned(), message };
        let refuse =
            |why: &str| error(format!("not a sentencepiece model ({why}); use a `tokenizer.json`"));
        let model = Self::decode(bytes.as_slice()).map_err(|source| refuse(&source.to_string()))?;
        if model.pieces.is_empty() {
            return Err(refuse("it has no pieces"));
        }
        Ok(model)
    }

    pub(super) fn is_unigram(&self) -> bool {
        self.trainer().and_then(|trainer| trainer.model_type).unwrap_or(UNIGRAM) == UNIGRAM
    }

    pub(super) fn byte_fallback(&self) -> bool {
        self.trainer().and_then(|trainer| trainer.byte_fallback).unwrap_or(false)
    }

    pub(super) fn unk_id(&self) -> Option<usize> {
        usize::try_from(self.trainer().and_then(|trainer| trainer.unk_id).unwrap_or(0)).ok()
    }

    pub(super) fn charsmap(&self) -> Option<&[u8]> {
        let map = self.normalizer.as_ref()?.precompiled_charsmap.as_deref()?;
        (!map.is_empty()).then_some(map)
    }

    pub(super) fn unk_piece(&self) -> String {
        let piece = self.trainer().and_then(|trainer| trainer.unk_piece.clone());
        piece.unwrap_or_else(|| "<unk>".to_owned())
    }

    /// Begin and end pieces, where the model has them.
    pub(super) fn bounds(&self) -> [Option<String>; 2] {
        let named = |id: i32, piece: Option<String>, usual: &str| {
            (id >= 0)
                .then(|| piece.filter(|piece| !piece.is_empty()).unwrap_or_else(|| usual.into()))
        };
        let trainer = self.trainer();
        [
            named(
                trainer.and_then(|trainer| trainer.bos_id).unwrap_or(1),
                trainer.and_then(|trainer| trainer.bos_piece.clone()),
                "<s>",
            ),
            named(
                trainer.and_then(|trainer| trainer.eos_id).unwrap_or(2),
                trainer.and_then(|trainer| trainer.eos_piece.clone()),
                "</s>",
            ),
        ]
    }

    /// Pieces with their scores, in the order of their ids.
    pub(super) fn scored(&self) -> Vec<(String, f64)> {
        self.pieces
            .iter()
            .map(|piece| (piece.text().to_owned(), f64::from(piece.score.unwrap_or(0.0))))
            .collect()
    }

    /// Pieces that match before everything else, and whether each is a control piece.
    pub(super) fn whole_pieces(&self) -> impl Iterator<Item = (&str, bool)> {
        self.pieces.iter().filter_map(|piece| match piece.kind {
            Some(CONTROL) => Some((piece.text(), true)),
            Some(USER_DEFINED) => Some((piece.text(), false)),
            _ => None,
        })
    }

    fn trainer(&self) -> Option<&Trainer> {
        self.trainer.as_ref()
    }
}

/// The merges that make a SentencePiece vocabulary a byte-pair one: every split of a piece into two pieces, by the id of the
/// whole, then the lengths of the parts, then their ids. That is the order transformers gives them.
pub(super) fn merges_of(pieces: &[String]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.as_str(), id)).collect();
    let mut found = Vec::new();
    for (piece, whole) in &ids {
        for (n_left, (cut, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(cut);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                let n_right = right.chars().count();
                found.push(((*whole, n_left, n_right, *left_id, *right_id), left, right));
            }
        }
    }
    found.sort_unstable_by_key(|(order, ..)| *order);
    found.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_go_by_the_id_of_the_whole() {
        let pieces = ["<unk>", "ab", "abc", "a", "b", "c", "bc"].map(str::to_owned);
        let merges = merges_of(&pieces);
        let merges: Vec<(&str, &str)> =
            merges.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
        assert_eq!(merges, [("a", "b"), ("a", "bc"), ("ab", "c"), ("b", "c")]);
    }

    #[test]
    fn a_text_file_is_no_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.model");
        fs::write(&path, "IQ== 0\nIg== 1\n").unwrap();
        let message = SentencePieceModel::read(&path).err().unwrap().to_string();
        assert!(message.contains("not a sentencepiece model"), "{message}");
    }
}
