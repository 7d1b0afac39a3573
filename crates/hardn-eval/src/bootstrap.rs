//! Intervals of ratios by resampling whole clusters.

/// What one cluster adds to a ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Counted.
    pub numerator: f64,
    /// Out of.
    pub denominator: f64,
}

impl Tally {
    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.numerator += other.numerator;
        self.denominator += other.denominator;
    }

    /// The ratio; `None` out of nothing.
    pub fn ratio(self) -> Option<f64> {
        (self.denominator > 0.0).then(|| self.numerator / self.denominator)
    }
}

/// Which clusters each resample drew: samples whole clusters with replacement, as many as there are.
///
/// One set of resamples serves every metric of a group, and both arms of a difference, which pairs the arms by cluster.
/// Source: the cluster bootstrap with percentile intervals (Davison and Hinkley 1997, chapter 3).
#[derive(Clone, Debug)]
pub struct Resamples {
    n_clusters: usize,
    draws: Vec<u32>,
}

impl Resamples {
    /// Draws `n` resamples of `n_clusters` clusters from a seed.
    pub fn new(n_clusters: usize, n: usize, seed: u64) -> Self {
        let mut state = seed;
        let draws = (0..n * n_clusters)
            .map(|_| ((u128::from(split_mix(&mut state)) * n_clusters as u128) >> 64) as u32)
            .collect();
        Self { n_clusters, draws }
    }

    /// The ratio of sums in each resample; `None` in one that counts nothing.
    pub fn ratios(&self, clusters: &[Tally]) -> Vec<Option<f64>> {
        if self.n_clusters == 0 {
            return Vec::new();
        }
        self.draws
            .chunks_exact(self.n_clusters)
            .map(|drawn| {
                let mut sum = Tally::default();
                for &cluster in drawn {
                    sum.add(clusters[cluster as usize]);
                }
                sum.ratio()
            })
            .collect()
    }
}

/// Whether clusters can spread at all: at least two of them count.
pub fn can_spread(clusters: &[Tally]) -> bool {
    clusters.iter().filter(|tally| tally.denominator > 0.0).count() >= 2
}

/// The 95 % percentile interval of values, such as [`Resamples::ratios`] or differences of them; `None` of nothing.
pub fn percentile_interval(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut values: Vec<f64> = values.collect();
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let at = q * (values.len() - 1) as f64;
        let (below, above) = (at.floor() as usize, at.ceil() as usize);
        values[below] + (values[above] - values[below]) * (at - at.floor())
    };
    Some((quantile(0.025), quantile(0.975)))
}

/// The next number of SplitMix64 (Steele, Lea and Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(rows: &[(f64, f64)]) -> Vec<Tally> {
        rows.iter().map(|&(numerator, denominator)| Tally { numerator, denominator }).collect()
    }

    fn interval(resamples: &Resamples, clusters: &[Tally]) -> Option<(f64, f64)> {
        percentile_interval(resamples.ratios(clusters).into_iter().flatten())
    }

    #[test]
    fn equal_clusters_have_no_spread_and_lone_ones_cannot_have_any() {
        let resamples = Resamples::new(4, 500, 1);
        assert_eq!(interval(&resamples, &tallies(&[(1.0, 2.0); 4])), Some((0.5, 0.5)));
        assert!(!can_spread(&tallies(&[(1.0, 2.0), (0.0, 0.0)])));
        assert!(can_spread(&tallies(&[(1.0, 2.0), (0.0, 1.0)])));
        assert_eq!(interval(&Resamples::new(0, 10, 1), &[]), None);
    }

    #[test]
    fn the_width_is_that_of_the_binomial() {
        // 100 clusters of one, half of them 1: the standard error is 0.05, so the interval is about 0.5 ± 0.098.
        let rows: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i % 2), 1.0)).collect();
        let (low, high) = interval(&Resamples::new(100, 2000, 7), &tallies(&rows)).unwrap();
        assert!((low - 0.402).abs() < 0.02 && (high - 0.598).abs() < 0.02, "{low} {high}");
    }
}
