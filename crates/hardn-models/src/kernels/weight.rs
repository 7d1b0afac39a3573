//! How stored weights become f32 on their way into a product.

use half::{bf16, f16};

/// Inputs that share a scale, for weights that have one.
pub(super) const SCALED_TERMS: usize = 32;

/// A stored weight. Every value of it is an f32 exactly, up to the scale.
pub(super) trait Weight: Copy + Default + Send + Sync {
    /// Every 32 inputs of an output share a factor.
    const SCALED: bool = false;

    /// The value without its scale.
    fn widen(self) -> f32;

    /// Sixteen values one after the other.
    ///
    /// # Safety
    /// The processor has AVX-512, and 16 values lie at `from`.
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m512;
}

macro_rules! weight {
    ($type:ty, scaled: $scaled:literal, $value:ident => $widen:expr, $from:ident => $load:expr) => {
        impl Weight for $type {
            const SCALED: bool = $scaled;

            #[inline]
            fn widen(self) -> f32 {
                let $value = self;
                $widen
            }

            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "vector loads take pointers")]
            #[target_feature(enable = "avx512f")]
            #[inline]
            unsafe fn load($from: *const Self) -> std::arch::x86_64::__m512 {
                use std::arch::x86_64::*;
                // SAFETY: the caller says that 16 values lie there.
                unsafe { $load }
            }
        }
    };
}

weight!(f32, scaled: false, value => value, from => _mm512_loadu_ps(from));
weight!(bf16, scaled: false, value => f32::from_bits(u32::from(value.to_bits()) << 16), from => {
    let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
});
weight!(f16, scaled: false, value => value.to_f32(), from => {
    _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
});
weight!(i8, scaled: true, value => f32::from(value), from => {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
});

/// Eight-bit values and their scale for up to 32 inputs of an output: the largest becomes 127 or -127.
///
/// Weights that no finite scale holds make it NaN or infinite, so that they are not lost without a word.
pub(super) fn quantise(weights: &[f32], mut put: impl FnMut(usize, i8)) -> f16 {
    let larger = |max: f32, w: &f32| if max.is_nan() || w.abs() <= max { max } else { w.abs() };
    let largest = weights.iter().fold(0.0, larger);
    let scale = f16::from_f32(largest / 127.0);
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    for (i, weight) in weights.iter().enumerate() {
        // Halves go away from zero. The cast clamps to what eight bits hold and makes NaN zero.
        put(i, ((weight * inverse).round() as i8).max(-127));
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[f32], values: &[i8], scale: f32) {
        let mut found = vec![0; weights.len()];
        let found_scale = quantise(weights, |i, value| found[i] = value);
        assert_eq!((found.as_slice(), found_scale.to_f32()), (values, scale));
    }

    #[test]
    fn the_largest_weight_becomes_127() {
        check(&[0.0, 0.25, -63.5, 31.6], &[0, 1, -127, 63], 0.5);
        check(&[127.0, -126.0, 1.0], &[127, -126, 1], 1.0);
        check(&[0.0; 3], &[0; 3], 0.0);
        assert!(quantise(&[1.0, f32::NAN, 2.0], |_, _| ()).is_nan());
        assert!(quantise(&[1.0, f32::INFINITY], |_, _| ()).is_infinite());
    }
}
