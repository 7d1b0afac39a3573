//! Token masks: which tokens of a fix pair carry the fix, and which the weakness.

use std::{fmt, ops::Range, str::FromStr};

use hardn_types::{FixPair, Side};

use crate::{
    CodeError,
    changes::{char_spans, line_spans},
    ndiff::ndiff,
    sequence_matcher::{OpTag, SequenceMatcher},
};

/// How the tokens of a pair are selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaskKind {
    /// Added characters on the secure side, deleted lines on the vulnerable one: SVEN's default
    /// (He and Vechev 2023, arXiv:2302.05319).
    Mix,
    /// Changed characters on both sides: CoSec's secure side (Li et al. 2024), HexaCoder's released data.
    Char,
    /// Changed lines on both sides.
    Line,
    /// Python's `ndiff` over the decimal strings of the token ids, with gaps of one token filled: SafeCoder's
    /// released code (He et al. 2024, arXiv:2402.09497).
    Ndiff,
    /// Opcodes over token ids with difflib's popularity rule, no gaps filled: as HexaCoder's paper describes
    /// (Hajipour et al. 2024, arXiv:2409.06446).
    Difflib,
    /// Every token.
    Whole,
}

impl MaskKind {
    /// Every kind, in the order of this enum.
    pub const ALL: [Self; 6] =
        [Self::Mix, Self::Char, Self::Line, Self::Ndiff, Self::Difflib, Self::Whole];

    /// The name used in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Char => "char",
            Self::Line => "line",
            Self::Ndiff => "ndiff",
            Self::Difflib => "difflib",
            Self::Whole => "whole",
        }
    }
}

impl fmt::Display for MaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MaskKind {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| CodeError::MaskKind(text.to_owned()))
    }
}

impl serde::Serialize for MaskKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for MaskKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One version of a pair as a tokenizer sees it, without special tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenText<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// For each token the code points it covers, half-open; tokens that share a character all cover it.
    pub offsets: &'a [(usize, usize)],
}

/// The masks of both sides, one byte per token: 1 where the token is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairMasks {
    /// For the tokens of `after`.
    pub secure: Vec<u8>,
    /// For the tokens of `before`.
    pub vulnerable: Vec<u8>,
    /// How many leading tokens of `after` are trained on: all, but for [`MaskKind::Ndiff`] those up to the last
    /// selected one (all again where none is selected).
    pub trim_secure: usize,
    /// The same for `before`.
    pub trim_vulnerable: usize,
}

impl PairMasks {
    /// The mask of one side, untrimmed.
    pub fn side(&self, side: Side) -> &[u8] {
        match side {
            Side::Secure => &self.secure,
            Side::Vulnerable => &self.vulnerable,
        }
    }

    /// How many leading tokens of a mask's text are trained on.
    pub(crate) fn trimmed(mask: &[u8], kind: MaskKind) -> usize {
        match mask.iter().rposition(|&bit| bit != 0) {
            Some(last) if kind == MaskKind::Ndiff => last + 1,
            _ => mask.len(),
        }
    }

    /// How many leading tokens of one side are trained on.
    pub fn trim(&self, side: Side) -> usize {
        match side {
            Side::Secure => self.trim_secure,
            Side::Vulnerable => self.trim_vulnerable,
        }
    }
}

/// Why a side of a pair cannot be trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// More tokens than the limit.
    TooLong,
    /// No token is selected.
    NothingSelected,
    /// Every token is selected, so there is no context to preserve.
    EverythingSelected,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::NothingSelected => "no token selected",
            Self::EverythingSelected => "every token selected",
        })
    }
}

/// Whether one side is dropped before batching, by the rule SVEN and SafeCoder share. Give the trimmed mask.
///
/// With [`MaskKind::Whole`] every token is meant to be selected, so that is no reason then.
pub fn drop_reason(mask: &[u8], kind: MaskKind, max_tokens: usize) -> Option<DropReason> {
    let n_set = mask.iter().filter(|&&bit| bit != 0).count();
    if mask.len() > max_tokens {
        Some(DropReason::TooLong)
    } else if n_set == 0 {
        Some(DropReason::NothingSelected)
    } else if n_set == mask.len() && kind != MaskKind::Whole {
        Some(DropReason::EverythingSelected)
    } else {
        None
    }
}

/// Selects the tokens of both sides of a pair.
///
/// `mix`, `char` and `line` use the pair's published changes where it has them, else compute them.
///
/// # Errors
/// [`CodeError::TokenText`] if a side's ids and offsets differ in number.
pub fn mask_pair(
    pair: &FixPair,
    before: TokenText,
    after: TokenText,
    kind: MaskKind,
) -> Result<PairMasks, CodeError> {
    for (side, text) in [("vulnerable", before), ("secure", after)] {
        if text.ids.len() != text.offsets.len() {
            let (n_ids, n_offsets) = (text.ids.len(), text.offsets.len());
            return Err(CodeError::TokenText { id: pair.id.clone(), side, n_ids, n_offsets });
        }
    }
    let chars = |side, text| mask_spans(&char_spans(pair, side), text);
    let lines = |side, text| mask_spans(&line_spans(pair, side), text);
    let (secure, vulnerable) = match kind {
        MaskKind::Mix => (chars(Side::Secure, after), lines(Side::Vulnerable, before)),
        MaskKind::Char => (chars(Side::Secure, after), chars(Side::Vulnerable, before)),
        MaskKind::Line => (lines(Side::Secure, after), lines(Side::Vulnerable, before)),
        MaskKind::Ndiff => ndiff_masks(before.ids, after.ids),
        MaskKind::Difflib => opcode_masks(before.ids, after.ids),
        MaskKind::Whole => (vec![1; after.ids.len()], vec![1; before.ids.len()]),
    };
    let trim_secure = PairMasks::trimmed(&secure, kind);
    let trim_vulnerable = PairMasks::trimmed(&vulnerable, kind);
    Ok(PairMasks { secure, vulnerable, trim_secure, trim_vulnerable })
}

/// Selects every token from the one that covers a span's first character to the one that covers its last.
///
/// An empty span within a token selects that token, as SVEN's released code does; between two tokens it selects
/// nothing. Where several tokens cover a character, the first one counts, so the later parts of a span's last
/// character stay unselected.
fn mask_spans(spans: &[Range<usize>], text: TokenText) -> Vec<u8> {
    let mut mask = vec![0; text.ids.len()];
    let covering = |position: usize| {
        // Offsets ascend, so the first token that ends behind the position is the only candidate.
        let token = text.offsets.partition_point(|&(_, end)| end <= position);
        text.offsets.get(token).filter(|&&(start, _)| start <= position).map(|_| token)
    };
    for span in spans {
        let Some(last) = span.end.checked_sub(1) else { continue };
        if let (Some(first), Some(last)) = (covering(span.start), covering(last))
            && first <= last
        {
            mask[first..=last].fill(1);
        }
    }
    mask
}

fn ndiff_masks(before: &[u32], after: &[u32]) -> (Vec<u8>, Vec<u8>) {
    let spell = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>();
    let marks = ndiff(&spell(before), &spell(after));
    (fill_gaps(&marks.added), fill_gaps(&marks.deleted))
}

/// Also selects a single token between two selected ones.
fn fill_gaps(marks: &[bool]) -> Vec<u8> {
    let mut mask: Vec<u8> = marks.iter().map(|&mark| u8::from(mark)).collect();
    for i in 2..marks.len() {
        if marks[i] && marks[i - 2] {
            mask[i - 1] = 1;
        }
    }
    mask
}

fn opcode_masks(before: &[u32], after: &[u32]) -> (Vec<u8>, Vec<u8>) {
    let (mut secure, mut vulnerable) = (vec![0; after.len()], vec![0; before.len()]);
    for op in SequenceMatcher::new(before, after, true).opcodes() {
        if op.tag != OpTag::Equal {
            vulnerable[op.a].fill(1);
            secure[op.b].fill(1);
        }
    }
    (secure, vulnerable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_spans(span: Range<usize>, offsets: &[(usize, usize)], expected: &[u8]) {
        let ids = vec![0; offsets.len()];
        assert_eq!(mask_spans(&[span], TokenText { ids: &ids, offsets }), expected);
    }

    #[test]
    fn spans_select_the_tokens_they_touch() {
        let offsets = [(0, 2), (2, 5), (5, 6)];
        check_spans(0..2, &offsets, &[1, 0, 0]);
        check_spans(1..3, &offsets, &[1, 1, 0]);
        check_spans(3..6, &offsets, &[0, 1, 1]);
        check_spans(3..3, &offsets, &[0, 1, 0]);
        check_spans(2..2, &offsets, &[0, 0, 0]);
        check_spans(0..0, &offsets, &[0, 0, 0]);
        check_spans(4..9, &offsets, &[0, 0, 0]);
        // One character of three bytes, each of them a token.
        check_spans(1..2, &[(0, 1), (1, 2), (1, 2), (1, 2)], &[0, 1, 0, 0]);
    }

    #[test]
    fn gaps_of_one_token_are_filled() {
        let marks = [true, false, true, false, false, true, false, true];
        assert_eq!(fill_gaps(&marks), [1, 1, 1, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn reasons_to_drop() {
        use DropReason::{EverythingSelected, NothingSelected, TooLong};
        assert_eq!(drop_reason(&[0, 1], MaskKind::Mix, 2), None);
        assert_eq!(drop_reason(&[0, 1, 0], MaskKind::Mix, 2), Some(TooLong));
        assert_eq!(drop_reason(&[0, 0], MaskKind::Mix, 2), Some(NothingSelected));
        assert_eq!(drop_reason(&[1, 1], MaskKind::Mix, 2), Some(EverythingSelected));
        assert_eq!(drop_reason(&[1, 1], MaskKind::Whole, 2), None);
        assert_eq!(drop_reason(&[], MaskKind::Whole, 2), Some(NothingSelected));
    }

    #[test]
    fn names_round_trip() {
        for kind in MaskKind::ALL {
            assert_eq!(kind.name().parse::<MaskKind>().unwrap(), kind);
        }
        assert!("lines".parse::<MaskKind>().is_err());
    }
}
