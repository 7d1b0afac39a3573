//! Random numbers that depend on a key and a counter alone.
//!
//! The number for a token is a function of the arm's seed, the prompt's token ids, the sample, the phase, the attempt,
//! the role and the token's index, so it does not matter in which order, batch or process tokens are drawn.
//! SHA-256 of the first six gives a key; Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
//! 1, 2, 3") turns the key and the index into 53 random bits.

use sha2::{Digest, Sha256};

/// Starts every key, so that a change of the scheme can change every number.
const DOMAIN: &[u8] = b"hardn draws 1";

/// Part of a completion that is drawn in several steps, from 0.
pub type Phase = u32;

/// Who draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The model whose text it is.
    Text,
    /// A model that only proposes.
    Proposal,
}

/// The random numbers of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: [u32; 2],
    /// The half of the counter that does not count.
    tweak: [u32; 2],
}

impl Draws {
    /// The numbers of a sample. `prompt` is [`prompt_hash`]; `attempt` counts retries after backtracking, from 0.
    pub fn new(
        seed: u64,
        prompt: &[u8; 32],
        sample: u32,
        phase: Phase,
        attempt: u32,
        role: Role,
    ) -> Self {
        let role = match role {
            Role::Text => 0_u32,
            Role::Proposal => 1,
        };
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(seed.to_le_bytes());
        hash.update(prompt);
        for number in [sample, phase, attempt, role] {
            hash.update(number.to_le_bytes());
        }
        let digest = hash.finalize();
        let word = |i: usize| {
            u32::from_le_bytes([
                digest[4 * i],
                digest[4 * i + 1],
                digest[4 * i + 2],
                digest[4 * i + 3],
            ])
        };
        Self { key: [word(0), word(1)], tweak: [word(2), word(3)] }
    }

    /// The number for the generated token with this index: uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&self, index: u64) -> f64 {
        let counter = [index as u32, (index >> 32) as u32, self.tweak[0], self.tweak[1]];
        let [low, high, ..] = philox(counter, self.key);
        let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
        bits as f64 * (-53_f64).exp2()
    }
}

/// SHA-256 of token ids, as 32-bit little-endian words.
pub fn prompt_hash(ids: &[u32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update(id.to_le_bytes());
    }
    hash.finalize().into()
}

/// The seed of one arm of a comparison: arms draw independently of each other.
pub fn arm_seed(seed: u64, arm: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"hardn arm 1");
    hash.update(seed.to_le_bytes());
    hash.update(arm.as_bytes());
    let digest = hash.finalize();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// Philox4x32 with ten rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let (a, b) = (u64::from(counter[0]) * 0xd251_1f53, u64::from(counter[2]) * 0xcd9e_8d57);
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, sample: u32, phase: u32, attempt: u32, role: Role) -> Draws {
        Draws::new(seed, &prompt_hash(&[1, 2, 3]), sample, phase, attempt, role)
    }

    #[test]
    fn philox_gives_the_published_answers() {
        // The three vectors of Random123's `kat_vectors` for philox4x32-10.
        let all = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([all; 4], [all; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn numbers_stay_what_they_are() {
        // A change here changes every sample ever drawn: raise `DOMAIN` and the version with it.
        let draws = draws(7, 0, 0, 0, Role::Text);
        // From a second implementation, in Python with hashlib.
        let expected = [0.8264114791901631, 0.7205976938094444, 0.9544741880474145];
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(draws.uniform(index as u64), expected, "{index}");
        }
        assert_eq!(arm_seed(7, "base"), 3972975892167724978);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = draws(7, 0, 0, 0, Role::Text);
        let others = [
            draws(8, 0, 0, 0, Role::Text),
            draws(7, 1, 0, 0, Role::Text),
            draws(7, 0, 1, 0, Role::Text),
            draws(7, 0, 0, 1, Role::Text),
            draws(7, 0, 0, 0, Role::Proposal),
            Draws::new(7, &prompt_hash(&[1, 2]), 0, 0, 0, Role::Text),
        ];
        for other in others {
            assert_ne!(base.uniform(0), other.uniform(0));
        }
        assert_ne!(base.uniform(0), base.uniform(1 << 32));
    }

    #[test]
    fn numbers_are_uniform() {
        // 16 bins of 6,250: a chi-square with 15 degrees of freedom exceeds 37.7 once in a thousand draws.
        let draws = draws(1, 2, 0, 0, Role::Text);
        let mut bins = [0_i32; 16];
        for index in 0..100_000 {
            let u = draws.uniform(index);
            assert!((0.0..1.0).contains(&u));
            bins[(u * 16.0) as usize] += 1;
        }
        let chi: f64 = bins.iter().map(|&n| f64::from(n - 6_250).powi(2) / 6_250.0).sum();
        assert!(chi < 37.7, "{chi}");
    }
}
