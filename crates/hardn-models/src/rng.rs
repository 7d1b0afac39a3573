//! Counter-based random numbers: every draw is a function of a seed, a stream and a position.

/// Mixes a word so that neighbouring inputs give unrelated outputs (the finaliser of SplitMix64).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A stream of draws for one named tensor.
pub(crate) struct Stream {
    key: u64,
    position: u64,
}

impl Stream {
    /// The stream belonging to `name` under `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let key = name.bytes().fold(mix(seed ^ 0x9e37_79b9_7f4a_7c15), |key, byte| {
            mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ u64::from(byte))
        });
        Self { key, position: 0 }
    }

    /// Uniform in the open interval (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.position += 1;
        let word = mix(self.key.wrapping_add(self.position.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        ((word >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller's transform.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_right_and_streams_differ() {
        let mut stream = Stream::new(7, "a");
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.04, "{variance}");
        let firsts: Vec<f64> = [(7, "a"), (7, "b"), (8, "a")]
            .iter()
            .map(|(seed, name)| Stream::new(*seed, name).uniform())
            .collect();
        assert!(firsts[0] != firsts[1] && firsts[0] != firsts[2]);
    }
}
