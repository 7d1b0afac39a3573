//! A fast `exp` over slices for the softmax of the losses: the same bits on every x86 and ARM CPU.
//!
//! The loops are plain Rust that vectorises; sums use sixteen fixed lanes, so the order of addition
//! does not depend on the width of the machine's registers.

const LANES: usize = 16;

/// `exp(x)` within 2 units in the last place for `x` in `-87..=88`; 0 below, saturating above.
#[inline(always)] // into the vectorised loops
#[expect(clippy::excessive_precision, reason = "the high part of ln 2 is exact in f32")]
fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + SHIFT) - SHIFT;
    let r = (clamped - n * 0.693_359_375) - n * -2.121_944_4e-4;
    // Taylor coefficients: |r| <= ln(2)/2, so the remainder stays below 2e-8.
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let scale = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { p * scale }
}

/// Defines a function that is compiled for AVX-512, AVX2 and the baseline, and picks one when called.
macro_rules! multiversion {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn wide($($arg: $type),*) $(-> $out)? { $body($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn narrow($($arg: $type),*) $(-> $out)? { $body($($arg),*) }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the CPU has the feature the function was compiled for.
                    return unsafe { wide($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature the function was compiled for.
                    return unsafe { narrow($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

multiversion!(
    /// `ln sum exp(x)` of a row of logits.
    log_sum_exp,
    log_sum_exp_body,
    (row: &[f32]) -> f32
);

multiversion!(
    /// `out[i] = scale * exp(row[i] - shift)`: a scaled softmax when `shift` is the log of the sum.
    scaled_exp,
    scaled_exp_body,
    (row: &[f32], shift: f32, scale: f32, out: &mut [f32])
);

#[inline(always)]
#[expect(clippy::inline_always, reason = "must be inlined into the vectorised loops")]
fn log_sum_exp_body(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut highest = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (high, &x) in highest.iter_mut().zip(chunk) {
            *high = if x > *high { x } else { *high };
        }
    }
    let max = highest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return if max == f32::NEG_INFINITY && row.iter().any(|x| x.is_nan()) {
            f32::NAN
        } else {
            max
        };
    }
    let mut sums = [0.0_f32; LANES];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += exp(x - max);
        }
    }
    let mut total = 0.0_f64;
    for sum in sums {
        total += f64::from(sum);
    }
    for &x in rest {
        total += f64::from(exp(x - max));
    }
    (f64::from(max) + total.ln()) as f32
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "must be inlined into the vectorised loops")]
fn scaled_exp_body(row: &[f32], shift: f32, scale: f32, out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(row) {
        *out = scale * exp(x - shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_library_function() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 3e-7, "exp({x}) = {ours}, not {exact}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn log_sum_exp_of_equal_logits_is_their_value_plus_ln_n() {
        for n in [1, 2, 15, 16, 17, 1000] {
            let row = vec![3.0_f32; n];
            let expected = 3.0 + (n as f32).ln();
            assert!((log_sum_exp(&row) - expected).abs() < 1e-6, "n = {n}");
        }
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY, 5.0]), 5.0);
        assert!(!log_sum_exp(&[f32::NAN; 20]).is_finite());
    }

    #[test]
    fn every_version_gives_the_same_bits() {
        let row: Vec<f32> = (0..777).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        assert_eq!(log_sum_exp(&row).to_bits(), log_sum_exp_body(&row).to_bits());
        let (mut a, mut b) = (vec![0.0; 777], vec![0.0; 777]);
        scaled_exp(&row, 1.5, 0.25, &mut a);
        scaled_exp_body(&row, 1.5, 0.25, &mut b);
        assert_eq!(a, b);
    }
}
