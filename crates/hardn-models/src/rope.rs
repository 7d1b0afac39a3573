//! Rotary positions: cosine and sine tables, computed in f32 as transformers does.

use crate::{LlamaConfig, RopeScaling};

/// Cosines and sines of every position, and which dimensions of a head they turn.
#[derive(Debug)]
pub(crate) struct Rope {
    /// First rotated dimension of a head.
    pub(crate) first: usize,
    /// Rotated pairs.
    pub(crate) half: usize,
    /// Pairs are `(2i, 2i + 1)` instead of `(i, i + half)`, counted from `first`.
    pub(crate) interleaved: bool,
    /// `[max_position_embeddings, half]`
    pub(crate) cos: Vec<f32>,
    /// `[max_position_embeddings, half]`
    pub(crate) sin: Vec<f32>,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        let frequencies = frequencies(config);
        let angles = (0..config.max_position_embeddings)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        Self { first: 0, half: config.head_dim / 2, interleaved: false, cos, sin }
    }

    /// Cosines and sines of one position.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// Rotates one head's vector to `position`, in place.
    pub(crate) fn rotate(&self, position: usize, head: &mut [f32]) {
        self.turn(position, head, |(a, b), (cos, sin)| (a * cos - b * sin, b * cos + a * sin));
    }

    /// The inverse of [`Self::rotate`], which is also its derivative's transpose.
    pub(crate) fn rotate_back(&self, position: usize, head: &mut [f32]) {
        self.turn(position, head, |(a, b), (cos, sin)| (a * cos + b * sin, b * cos - a * sin));
    }

    #[inline]
    fn turn(
        &self,
        position: usize,
        head: &mut [f32],
        turned: impl Fn((f32, f32), (f32, f32)) -> (f32, f32),
    ) {
        let (cos, sin) = self.at(position);
        let angles = cos.iter().copied().zip(sin.iter().copied());
        let head = &mut head[self.first..self.first + 2 * self.half];
        if self.interleaved {
            for ([a, b], angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (*a, *b) = turned((*a, *b), angle);
            }
        } else {
            let (first, second) = head.split_at_mut(self.half);
            for ((a, b), angle) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = turned((*a, *b), angle);
            }
        }
    }
}

/// Radians per position, one for each pair of dimensions.
fn frequencies(config: &LlamaConfig) -> Vec<f32> {
    let plain = (0..config.head_dim)
        .step_by(2)
        .map(|i| 1.0 / (config.rope_theta as f32).powf(i as f32 / config.head_dim as f32));
    match &config.rope_scaling {
        None => plain.collect(),
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
                    let wavelength = std::f32::consts::TAU / f;
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotating_there_and_back_changes_nothing() {
        let rope = Rope::new(&LlamaConfig::small(8, 16, 1, 2, 8, 64));
        let head: Vec<f32> = (0..8).map(|i| i as f32 - 3.0).collect();
        let mut turned = head.clone();
        rope.rotate(37, &mut turned);
        assert!(turned.iter().zip(&head).any(|(a, b)| (a - b).abs() > 0.1));
        rope.rotate_back(37, &mut turned);
        assert!(turned.iter().zip(&head).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
