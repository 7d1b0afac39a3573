//! What a method must beat: the same training on data without its signal.

use hardn_types::{Changes, FixPair};

use crate::rng::Rng;

/// Swaps `before` and `after` of half of the pairs, drawn with the seed: as many tokens change, in the same places,
/// but which side is the better one is noise. The second value says which pairs were swapped.
pub fn shuffle_labels(pairs: &[FixPair], seed: u64) -> (Vec<FixPair>, Vec<bool>) {
    let mut swapped: Vec<bool> = (0..pairs.len()).map(|i| i < pairs.len() / 2).collect();
    Rng::new(seed, &[0x1abe1]).shuffle(&mut swapped);
    let side =
        |(pair, &swap): (&FixPair, &bool)| if swap { swap_sides(pair) } else { pair.clone() };
    (pairs.iter().zip(&swapped).map(side).collect(), swapped)
}

pub(crate) fn swap_sides(pair: &FixPair) -> FixPair {
    fn turn<T>(changes: Changes<T>) -> Changes<T> {
        Changes { deleted: changes.added, added: changes.deleted }
    }
    let mut swapped = pair.clone();
    std::mem::swap(&mut swapped.before, &mut swapped.after);
    swapped.line_changes = swapped.line_changes.map(turn);
    swapped.char_changes = swapped.char_changes.map(turn);
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pair;

    #[test]
    fn half_of_the_pairs_are_turned_round() {
        let pairs: Vec<FixPair> = (0..10).map(|i| pair(&i.to_string(), "", "old", "new")).collect();
        let (shuffled, swapped) = shuffle_labels(&pairs, 4);
        assert_eq!(swapped.iter().filter(|&&swap| swap).count(), 5);
        for (pair, swap) in shuffled.iter().zip(&swapped) {
            assert_eq!(pair.before, if *swap { "new" } else { "old" });
        }
        assert_eq!(shuffle_labels(&pairs, 4).1, swapped);
        assert_ne!(shuffle_labels(&pairs, 5).1, swapped);
    }
}
