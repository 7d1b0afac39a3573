//! Statistics of counts: exact and pooled tests, intervals, agreement, corrections, pass@k.

use statrs::{
    distribution::{ChiSquared, ContinuousCDF, Normal},
    function::factorial::ln_binomial,
};

/// Two rows of two counts: `[[a, b], [c, d]]`.
pub type Table = [[u64; 2]; 2];

/// Two tables count as equally likely if their probabilities differ by less than this factor, as in R and SciPy.
const EQUALLY_LIKELY: f64 = 1.0 + 1e-7;

/// The outcome of Fisher's exact test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fisher {
    /// The two-sided p-value: all tables with the same margins that are no likelier.
    pub p: f64,
    /// The sample's odds ratio `ad / bc`, which may be infinite; `None` where a row or column is empty.
    pub odds_ratio: Option<f64>,
}

/// Fisher's exact test, two-sided.
pub fn fisher_exact(table: Table) -> Fisher {
    let [[a, b], [c, d]] = table;
    let (row, column, total) = (a + b, a + c, a + b + c + d);
    let ln_probability = |x: u64| {
        ln_binomial(column, x) + ln_binomial(total - column, row - x) - ln_binomial(total, row)
    };
    let limit = ln_probability(a) + EQUALLY_LIKELY.ln();
    let (least, most) = ((row + column).saturating_sub(total), row.min(column));
    let p: f64 =
        (least..=most).map(ln_probability).filter(|&ln_p| ln_p <= limit).map(f64::exp).sum();
    let odds_ratio = if row == 0 || column == 0 || row == total || column == total {
        None
    } else {
        Some((a as f64 * d as f64) / (b as f64 * c as f64))
    };
    Fisher { p: p.min(1.0), odds_ratio }
}

/// The outcome of the Cochran-Mantel-Haenszel test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cmh {
    /// The statistic, chi-squared with one degree of freedom; `None` where no stratum can vary.
    pub statistic: Option<f64>,
    /// Its p-value.
    pub p: Option<f64>,
    /// The pooled odds ratio by Mantel and Haenszel, which may be infinite; `None` for 0/0.
    pub odds_ratio: Option<f64>,
}

/// The Cochran-Mantel-Haenszel test of no association within strata, with or without continuity correction.
pub fn cmh(tables: &[Table], correction: bool) -> Cmh {
    let (mut excess, mut variance, mut above, mut below) = (0.0, 0.0, 0.0, 0.0);
    for table in tables {
        let [a, b, c, d] = [table[0][0], table[0][1], table[1][0], table[1][1]].map(|n| n as f64);
        let n = a + b + c + d;
        if n == 0.0 {
            continue;
        }
        excess += a - (a + b) * (a + c) / n;
        if n > 1.0 {
            variance += (a + b) * (c + d) * (a + c) * (b + d) / (n * n * (n - 1.0));
        }
        above += a * d / n;
        below += b * c / n;
    }
    let distance: f64 = if correction { (excess.abs() - 0.5).max(0.0) } else { excess };
    let statistic = (variance > 0.0).then(|| distance * distance / variance);
    let p = statistic.and_then(|x| ChiSquared::new(1.0).ok().map(|chi| chi.sf(x)));
    let odds_ratio = (above > 0.0 || below > 0.0).then(|| above / below);
    Cmh { statistic, p, odds_ratio }
}

/// Wilson's score interval of a share; `None` for no trials or a confidence outside (0, 1).
pub fn wilson(successes: u64, n: u64, confidence: f64) -> Option<(f64, f64)> {
    if n == 0 || successes > n || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let z = Normal::standard().inverse_cdf(0.5 + confidence / 2.0);
    let (n, share) = (n as f64, successes as f64 / n as f64);
    let scale = 1.0 + z * z / n;
    let centre = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // At the ends the bound is exactly 0 or 1; rounding would leave something beside it.
    let low = if share == 0.0 { 0.0 } else { centre - half };
    let high = if share == 1.0 { 1.0 } else { centre + half };
    Some((low, high))
}

/// The outcome of Cohen's kappa.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kappa {
    /// Agreement beyond chance; `None` where both always say the same one thing.
    pub kappa: Option<f64>,
    /// The share of equal labels.
    pub agreement: f64,
    /// The share expected by chance.
    pub expected: f64,
}

/// Cohen's kappa of a square table: rows are the first rater's labels, columns the second's. `None` if it is empty or
/// not square.
pub fn cohen_kappa(table: &[Vec<u64>]) -> Option<Kappa> {
    let k = table.len();
    let n: u64 = table.iter().flatten().sum();
    if n == 0 || table.iter().any(|row| row.len() != k) {
        return None;
    }
    let n = n as f64;
    let agreement = (0..k).map(|i| table[i][i]).sum::<u64>() as f64 / n;
    let expected = (0..k)
        .map(|i| {
            let row: u64 = table[i].iter().sum();
            let column: u64 = table.iter().map(|row| row[i]).sum();
            (row as f64 / n) * (column as f64 / n)
        })
        .sum::<f64>();
    let kappa = (expected < 1.0).then(|| (agreement - expected) / (1.0 - expected));
    Some(Kappa { kappa, agreement, expected })
}

/// Holm's step-down adjustment of p-values, in the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max(p[i] * (p.len() - rank) as f64).min(1.0);
        adjusted[i] = least;
    }
    adjusted
}

/// Benjamini and Hochberg's adjustment of p-values (false discovery rate), in the order given.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let order = ascending(p);
    let mut adjusted = vec![0.0; p.len()];
    let mut most = 1.0_f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        most = most.min(p[i] * p.len() as f64 / (rank + 1) as f64);
        adjusted[i] = most;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    order
}

/// The chance that at least one of `k` samples is right, estimated without bias from `c` right ones of `n`:
/// `1 - C(n - c, k) / C(n, k)`. `None` unless `c <= n` and `1 <= k <= n`.
///
/// Source: Chen et al. 2021 (arXiv:2107.03374), equation 1.
pub fn pass_at_k(n: u32, c: u32, k: u32) -> Option<f64> {
    if c > n || k == 0 || k > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let miss: f64 = (n - c + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product();
    Some(1.0 - miss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lady_tasting_tea() {
        // Of 70 orders one is all right, 16 have one mistake each way: two-sided 2 · (1 + 16) / 70.
        let found = fisher_exact([[3, 1], [1, 3]]);
        assert!((found.p - 34.0 / 70.0).abs() < 1e-12, "{}", found.p);
        assert_eq!(found.odds_ratio, Some(9.0));
        assert_eq!(fisher_exact([[0, 0], [3, 4]]), Fisher { p: 1.0, odds_ratio: None });
        assert_eq!(fisher_exact([[2, 0], [0, 2]]).odds_ratio, Some(f64::INFINITY));
    }

    #[test]
    fn pass_at_k_counts_draws() {
        // Of two draws from {right, wrong, wrong}, one of three pairs has no right one.
        assert!((pass_at_k(3, 1, 2).unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(pass_at_k(5, 0, 3), Some(0.0));
        assert_eq!(pass_at_k(5, 3, 3), Some(1.0));
        assert_eq!(pass_at_k(5, 3, 6), None);
        assert_eq!(pass_at_k(5, 3, 0), None);
    }

    #[test]
    fn corrections() {
        assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
        assert_eq!(benjamini_hochberg(&[0.01, 0.04, 0.02]), [0.03, 0.04, 0.03]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn nothing_to_say() {
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(0, 10, 0.95).unwrap().0, 0.0);
        assert_eq!(cohen_kappa(&[vec![5]]).unwrap().kappa, None);
        assert_eq!(cmh(&[[[1, 0], [1, 0]]], false).p, None);
    }
}
