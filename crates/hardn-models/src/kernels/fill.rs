//! New vectors, zeroed and filled part by part on all threads.

use rayon::prelude::*;

/// Values one thread zeroes at a time.
const PART: usize = 1 << 15;

/// `n` values made in parts of `part`: each part is zeroed, then filled, by one thread. `fill` is given the part's
/// number.
#[expect(
    unsafe_code,
    reason = "zeroing on one thread first would cost as much as some of the sums"
)]
pub fn filled(n: usize, part: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut data: Vec<f32> = Vec::with_capacity(n);
    data.spare_capacity_mut()[..n].par_chunks_mut(part.max(1)).enumerate().for_each(|(i, part)| {
        for value in part.iter_mut() {
            value.write(0.0);
        }
        // SAFETY: every value of the part was written just above.
        fill(i, unsafe { part.assume_init_mut() });
    });
    // SAFETY: the parts are the first `n` values, and each was written.
    unsafe { data.set_len(n) };
    data
}

/// `n` zeros.
pub fn zeros(n: usize) -> Vec<f32> {
    if n <= PART { vec![0.0; n] } else { filled(n, PART, |_, _| ()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_in_place() {
        for n in [0, 1, 7, 8, 100_000] {
            let data = filled(n, 8, |i, part| part[0] = i as f32);
            assert_eq!(data.len(), n);
            assert!(
                data.iter()
                    .enumerate()
                    .all(|(i, &value)| { value == if i % 8 == 0 { (i / 8) as f32 } else { 0.0 } })
            );
            assert_eq!(zeros(n), vec![0.0; n]);
        }
    }
}
