//! Seeded random numbers for shuffles and draws. Keyed, not stateful across steps: a resumed run needs no saved state.

/// SplitMix64 (Steele et al. 2014): a 64-bit counter passed through a mixing function.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// A stream for a purpose: different `keys` give unrelated streams.
    pub(crate) fn new(seed: u64, keys: &[u64]) -> Self {
        Self { state: derive_seed(seed, keys) }
    }

    /// The next 64 random bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// A number from `0..n`, without bias. `n` must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let bits = self.next_u64();
            if bits < limit {
                return (bits % n) as usize;
            }
        }
    }

    /// Shuffles in place (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A seed that depends on every key and on their order.
pub(crate) fn derive_seed(seed: u64, keys: &[u64]) -> u64 {
    keys.iter().fold(mix(seed ^ 0x6861_7264_6e21), |state, key| {
        mix(state.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ mix(key.wrapping_add(1)))
    })
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_repeatable() {
        let mut counts = [0_usize; 5];
        let mut rng = Rng::new(7, &[1]);
        for _ in 0..50_000 {
            counts[rng.below(5)] += 1;
        }
        assert!(counts.iter().all(|&n| (9_600..10_400).contains(&n)), "{counts:?}");
        assert_eq!(Rng::new(7, &[1]).next_u64(), Rng::new(7, &[1]).next_u64());
        assert_ne!(Rng::new(7, &[1, 0]).next_u64(), Rng::new(7, &[0, 1]).next_u64());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Rng::new(3, &[]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
