//! Where the two versions of a pair part: what stands for a side that has nothing of its own.

use crate::{
    MaskKind, PairMasks,
    sequence_matcher::{OpTag, Opcode, SequenceMatcher},
};

/// The tokens of one version at which it goes another way than the tokens that are selected in the other one: ascending,
/// one for each changed place. `own.len()` stands for what ends the text.
///
/// A place is a change of the alignment over token ids that holds a selected token (the first change where none does).
/// Since an alignment is free to put `a` of `x a b a` before or behind an addition, the tokens both versions go on with are
/// passed over, so that the token before the first place is the last of the common prefix.
///
/// # Shapes
/// - `own`, `other`: token ids of the two versions
/// - `selected`: one for each token of `other`, 1 where it is selected
pub fn parting_tokens(own: &[u32], other: &[u32], selected: &[u8]) -> Vec<usize> {
    let mut changes = SequenceMatcher::new(own, other, true).opcodes();
    changes.retain(|op| op.tag != OpTag::Equal);
    let is_selected = |op: &Opcode| selected[op.b.clone()].iter().any(|&bit| bit != 0);
    if changes.iter().any(is_selected) {
        changes.retain(is_selected);
    } else {
        changes.truncate(1);
    }
    let parting = |op: Opcode| {
        let alike = own[op.a.start..].iter().zip(&other[op.b.start..]);
        let n = alike.take_while(|(own, other)| own == other).count();
        let (token, its) = (op.a.start + n, op.b.start + n);
        (token < own.len() || its < other.len()).then_some(token)
    };
    let mut tokens: Vec<usize> = changes.into_iter().filter_map(parting).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

impl PairMasks {
    /// Selects, on a side that has no selected token of its own while the other one has, the tokens of
    /// [`parting_tokens`]: what a model writes there leaves the other side's change out. A mask that becomes one longer than
    /// its text selects what ends the text. A side without text stays as it is.
    ///
    /// `first`: the first token that counts as selected; 1 where nothing stands before the texts that could predict a token.
    pub fn complete(&mut self, before: &[u32], after: &[u32], kind: MaskKind, first: usize) {
        let n = |mask: &[u8]| mask.iter().skip(first).filter(|&&bit| bit != 0).count();
        let (own, other, mask, selected, trim) = match (n(&self.secure), n(&self.vulnerable)) {
            (0, 1..) => (after, before, &mut self.secure, &self.vulnerable, &mut self.trim_secure),
            (1.., 0) => {
                (before, after, &mut self.vulnerable, &self.secure, &mut self.trim_vulnerable)
            }
            _ => return,
        };
        if own.is_empty() {
            return;
        }
        for token in parting_tokens(own, other, selected) {
            mask.resize(mask.len().max(token + 1), 0);
            mask[token] = 1;
        }
        *trim = PairMasks::trimmed(mask, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokenText, mask_pair};

    /// Words as tokens: masks of kind `difflib`, completed; `|` before the tokens that are selected, the end being `.`.
    #[track_caller]
    fn check(before: &str, after: &str, expected: [&str; 2]) {
        let ids = |text: &str| -> Vec<u32> {
            text.split_whitespace().map(|word| u32::from(word.as_bytes()[0])).collect()
        };
        let (old, new) = (ids(before), ids(after));
        let offsets = |ids: &[u32]| (0..ids.len()).map(|i| (i, i + 1)).collect::<Vec<_>>();
        let (old_offsets, new_offsets) = (offsets(&old), offsets(&new));
        let pair = serde_json::from_value(serde_json::json!({
            "id": "0", "before": before, "after": after, "language": "python"
        }));
        let mut masks = mask_pair(
            &pair.unwrap(),
            TokenText { ids: &old, offsets: &old_offsets },
            TokenText { ids: &new, offsets: &new_offsets },
            MaskKind::Difflib,
        )
        .unwrap();
        masks.complete(&old, &new, MaskKind::Difflib, 1);
        let shown = |text: &str, mask: &[u8]| {
            let words = text.split_whitespace().chain(["."]);
            let marked = words.zip(mask);
            marked.filter(|(_, bit)| **bit != 0).map(|(word, _)| word).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([shown(before, &masks.vulnerable), shown(after, &masks.secure)], expected);
        assert_eq!(
            [masks.trim_vulnerable, masks.trim_secure],
            [&masks.vulnerable, &masks.secure].map(Vec::len)
        );
    }

    #[test]
    fn a_side_without_tokens_of_its_own_has_those_it_parts_with() {
        // Added: what follows stands for leaving it out. Removed: the same on the other side.
        check("a b c d", "a b x y c d", ["c", "x y"]);
        check("a b x y c d", "a b c d", ["x y", "c"]);
        // A place each.
        check("a b c d e", "a x b c y d e", ["b d", "x y"]);
        check("a b x c d y e", "a b c d e", ["x y", "c e"]);
        // At the end the end itself; also as the last of several.
        check("a b c", "a b c x", [".", "x"]);
        check("a b c x", "a b c", ["x", "."]);
        check("a b c", "a x b c y", ["b .", "x y"]);
        // The alignment may begin with a token that both go on with: `n` is no choice, `c` is.
        check("a n c d", "a n x n c d", ["c", "n x"]);
        check("a b b c", "a b b b c", ["c", "b"]);
        check("a b a b", "a b a b a b", [".", "a b"]);
        // Nothing comes before the first token, so its selection neither needs a counterpart nor is one to learn from.
        check("b c d", "x b c d", ["", "x"]);
        check("b c d", "x y b c d", ["b", "x y"]);
        // A side that has tokens, and one without text, stay as they are.
        check("a b c", "a x c", ["b", "x"]);
        check("a b c", "a b c", ["", ""]);
        check("", "a b", ["", "a b"]);
        check("a b", "", ["a b", ""]);
    }

    #[test]
    fn changes_that_nothing_selects_do_not_count() {
        // `#` was added too, but only the second addition is selected; where none is, the first change counts.
        let (own, other) = ([1, 2, 3, 4], [1, 9, 2, 3, 8, 4]);
        assert_eq!(parting_tokens(&own, &other, &[0, 0, 0, 0, 1, 0]), [3]);
        assert_eq!(parting_tokens(&own, &other, &[0, 0, 1, 0, 0, 0]), [1]);
        assert_eq!(parting_tokens(&own, &own, &[1; 4]), [0_usize; 0]);
    }
}
