//! Sums whose order does not depend on the number of threads.

use rayon::prelude::*;

/// Rows a task takes at once.
pub(super) const ROWS: usize = 64;

/// The sum of products, in sixteen chains.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0_f32; 16];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = a.mul_add(*b, *sum);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum of values, in sixteen chains.
pub(crate) fn sum(a: &[f32]) -> f32 {
    let (blocks, rest) = a.as_chunks::<16>();
    let mut sums = [0.0_f32; 16];
    for block in blocks {
        for (sum, a) in sums.iter_mut().zip(block) {
            *sum += a;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Adds `b` to `a`.
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// The sum of parts of `n` values, in their order.
pub(super) fn added(parts: &[Vec<f32>], n: usize) -> Vec<f32> {
    let mut total = vec![0.0; n];
    for part in parts {
        add(&mut total, part);
    }
    total
}

/// Sums of the columns of rows of `n`.
pub(super) fn column_sums(rows: &[f32], n: usize) -> Vec<f32> {
    let part = |rows: &[f32]| {
        let mut sums = vec![0.0; n];
        rows.chunks_exact(n).for_each(|row| add(&mut sums, row));
        sums
    };
    let parts: Vec<Vec<f32>> = rows.par_chunks(n * ROWS).map(part).collect();
    added(&parts, n)
}
