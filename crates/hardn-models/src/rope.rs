//! Rotary positions: cosine and sine tables, computed in f32 as transformers does.

use std::f32::consts::TAU;

use crate::{RopeScaling, config::spec::Rotary};

/// Cosines and sines of every position.
#[derive(Debug)]
pub(crate) struct Rope {
    /// The first rotated dimension of a head.
    pub(crate) first: usize,
    /// Rotated pairs.
    pub(crate) half: usize,
    /// Pairs are `(2i, 2i + 1)` rather than `(i, i + half)`.
    pub(crate) interleaved: bool,
    /// `[positions, half]`
    pub(crate) cos: Vec<f32>,
    /// `[positions, half]`
    pub(crate) sin: Vec<f32>,
}

impl Rope {
    /// Tables for a text of `positions` tokens.
    pub(crate) fn new(rotary: &Rotary, positions: usize) -> Self {
        let frequencies = frequencies(rotary, positions);
        let stretch = match rotary.scaling {
            Some(RopeScaling::Yarn { attention_factor, .. }) => attention_factor as f32,
            _ => 1.0,
        };
        let angles = (0..positions)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (sin, cos): (Vec<f32>, Vec<f32>) =
            angles.map(f32::sin_cos).map(|(sin, cos)| (sin * stretch, cos * stretch)).unzip();
        let Rotary { first, dims, interleaved, .. } = *rotary;
        Self { first, half: dims / 2, interleaved, cos, sin }
    }

    /// Cosines and sines of one position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// Rotates one head's vector to `position`, in place.
    pub(crate) fn rotate(&self, position: usize, head: &mut [f32]) {
        self.turn(position, head, |a, b, cos, sin| (a * cos - b * sin, b * cos + a * sin));
    }

    /// The transpose of [`Self::rotate`], which takes gradients back.
    pub(crate) fn rotate_back(&self, position: usize, head: &mut [f32]) {
        self.turn(position, head, |a, b, cos, sin| (a * cos + b * sin, b * cos - a * sin));
    }

    #[inline]
    fn turn(
        &self,
        position: usize,
        head: &mut [f32],
        pair: impl Fn(f32, f32, f32, f32) -> (f32, f32),
    ) {
        let (cos, sin) = self.at(position);
        let head = &mut head[self.first..][..2 * self.half];
        if self.interleaved {
            for ((ab, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                (ab[0], ab[1]) = pair(ab[0], ab[1], *cos, *sin);
            }
        } else {
            let (first, second) = head.split_at_mut(self.half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = pair(*a, *b, *cos, *sin);
            }
        }
    }
}

/// Radians per position, one for each pair of dimensions, in a text of `length` tokens.
fn frequencies(rotary: &Rotary, length: usize) -> Vec<f32> {
    let dims = rotary.dims as f32;
    let theta = match rotary.scaling {
        Some(RopeScaling::Dynamic { factor, max_position_embeddings })
            if length > max_position_embeddings =>
        {
            let stretch = factor * length as f64 / max_position_embeddings as f64 - (factor - 1.0);
            let dims = rotary.dims as f64;
            (rotary.theta * stretch.powf(dims / (dims - 2.0))) as f32
        }
        _ => rotary.theta as f32,
    };
    let plain = (0..rotary.dims).step_by(2).map(|i| 1.0 / theta.powf(i as f32 / dims));
    match &rotary.scaling {
        None | Some(RopeScaling::Dynamic { .. }) => plain.collect(),
        Some(RopeScaling::Linear { factor }) => plain.map(|f| f / *factor as f32).collect(),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }) => {
            let context = *original_max_position_embeddings as f32;
            let (low, high) = (*low_freq_factor as f32, *high_freq_factor as f32);
            plain
                .map(|f| {
                    let wavelength = TAU / f;
                    if wavelength > context / low {
                        f / *factor as f32
                    } else if wavelength < context / high {
                        f
                    } else {
                        let smooth = (context / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / *factor as f32 + smooth * f
                    }
                })
                .collect()
        }
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            truncate,
            original_max_position_embeddings,
            ..
        }) => {
            // The dimension that turns so often within the original context.
            let dimension = |turns: f64| {
                let context = *original_max_position_embeddings as f64;
                rotary.dims as f64 * (context / (turns * std::f64::consts::TAU)).ln()
                    / (2.0 * rotary.theta.ln())
            };
            let (low, high) = (dimension(*beta_fast), dimension(*beta_slow));
            let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(rotary.dims as f64 - 1.0));
            let high = if low == high { high + 0.001 } else { high };
            plain
                .enumerate()
                .map(|(i, f)| {
                    let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let stretched = f / *factor as f32;
                    stretched * ramp + f * (1.0 - ramp)
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotating_there_and_back_changes_nothing() {
        for (first, interleaved) in [(0, false), (0, true), (2, true), (2, false)] {
            let rotary = Rotary { first, dims: 6, interleaved, theta: 10_000.0, scaling: None };
            let rope = Rope::new(&rotary, 64);
            let head: Vec<f32> = (0..8).map(|i| i as f32 - 3.0).collect();
            let mut turned = head.clone();
            rope.rotate(37, &mut turned);
            assert!(turned.iter().zip(&head).any(|(a, b)| (a - b).abs() > 0.1));
            assert_eq!(turned[..first], head[..first]);
            rope.rotate_back(37, &mut turned);
            assert!(turned.iter().zip(&head).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
