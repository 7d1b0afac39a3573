//! The loops over registers: a few rows times panels of 32 columns.
//!
//! An output is one chain of fused multiply-adds over the inputs in order. Where weights have scales, every 32 inputs
//! are a chain of their own, which one more multiply-add by the scale joins to the output.

use half::f16;

use super::weight::{SCALED_TERMS, Weight};

/// Columns of a panel.
pub(super) const WIDTH: usize = 32;
/// Most rows of a block; with twice as many sums the compiler no longer keeps all of them in registers.
pub(super) const MAX_ROWS: usize = 8;

/// Up to 8 rows of the left factor: element `l` of row `r` lies at `r * row_stride + l * step`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) count: usize,
    pub(super) row_stride: usize,
    pub(super) step: usize,
}

impl<'a> Rows<'a> {
    /// Rows one after the other.
    pub(super) fn dense(data: &'a [f32], count: usize, k: usize) -> Self {
        Self { data, count, row_stride: k, step: 1 }
    }
}

/// Panels `[k][32]` one after the other, and, where weights have them, their scales `[ceil(k / 32)][32]`.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, W> {
    pub(super) weights: &'a [W],
    pub(super) scales: &'a [f16],
    pub(super) count: usize,
}

impl<'a> From<&'a [f32]> for Panels<'a, f32> {
    /// A single panel.
    fn from(weights: &'a [f32]) -> Self {
        Self { weights, scales: &[], count: 1 }
    }
}

/// `out[r, 0..valid]`, in rows of `stride`, for all rows and the columns of the panels.
///
/// With `accumulate` the chains start from what `out` holds, else from zero. There is one panel, or 4 for one
/// row, or 2 for one or two; only a single panel may be incomplete.
#[expect(unsafe_code, reason = "vector instructions are chosen at run time")]
pub(super) fn block<W: Weight>(
    k: usize,
    rows: Rows,
    panels: Panels<W>,
    (out, stride): (&mut [f32], usize),
    valid: usize,
    accumulate: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        let full = valid == panels.count * WIDTH || valid == WIDTH / 2;
        let vectors = valid.div_ceil(16);
        panels.check(k);
        let last = (rows.count - 1) * rows.row_stride + (k - 1) * rows.step;
        assert!(rows.data.len() > last);
        let mut edge = [0.0; MAX_ROWS * WIDTH];
        if !full && accumulate {
            for r in 0..rows.count {
                edge[r * WIDTH..][..valid].copy_from_slice(&out[r * stride..][..valid]);
            }
        }
        let (to, to_stride) = if full { (&mut *out, stride) } else { (&mut edge[..], WIDTH) };
        assert!(to.len() >= (rows.count - 1) * to_stride + vectors * 16);
        macro_rules! dispatch {
            ($($rows:literal x $vectors:literal),*) => {
                match (rows.count, vectors) {
                    $(($rows, $vectors) => avx512::block::<W, $rows, $vectors>(
                        k, rows, panels, to, to_stride, accumulate,
                    ),)*
                    (count, _) => unreachable!("no block of {count} rows and {vectors} vectors"),
                }
            };
        }
        // SAFETY: the processor has the instructions, and the lengths are checked above.
        unsafe {
            dispatch!(
                1 x 1, 2 x 1, 3 x 1, 4 x 1, 5 x 1, 6 x 1, 7 x 1, 8 x 1, 1 x 2, 2 x 2, 3 x 2, 4 x 2,
                5 x 2, 6 x 2, 7 x 2, 8 x 2, 1 x 4, 2 x 4, 1 x 8
            );
        }
        if !full {
            for r in 0..rows.count {
                out[r * stride..][..valid].copy_from_slice(&edge[r * WIDTH..][..valid]);
            }
        }
        return;
    }
    portable(k, rows, panels, (out, stride), valid, accumulate);
}

/// The same for any processor; written so that compilers use the vectors they are allowed.
pub(super) fn portable<W: Weight>(
    k: usize,
    rows: Rows,
    panels: Panels<W>,
    (out, stride): (&mut [f32], usize),
    valid: usize,
    accumulate: bool,
) {
    panels.check(k);
    for half in 0..panels.count * 2 {
        let first = half * (WIDTH / 2);
        if first >= valid {
            break;
        }
        let columns = (WIDTH / 2).min(valid - first);
        let panel = panels.half(k, half);
        let mut row = 0;
        while row < rows.count {
            let part = Rows { data: &rows.data[row * rows.row_stride..], ..rows };
            let out = &mut out[row * stride + first..];
            row += match rows.count - row {
                1 => half_panel::<W, 1>(k, part, panel, (out, stride), columns, accumulate),
                2 => half_panel::<W, 2>(k, part, panel, (out, stride), columns, accumulate),
                3 => half_panel::<W, 3>(k, part, panel, (out, stride), columns, accumulate),
                4 => half_panel::<W, 4>(k, part, panel, (out, stride), columns, accumulate),
                5 => half_panel::<W, 5>(k, part, panel, (out, stride), columns, accumulate),
                _ => half_panel::<W, 6>(k, part, panel, (out, stride), columns, accumulate),
            };
        }
    }
}

fn half_panel<W: Weight, const R: usize>(
    k: usize,
    rows: Rows,
    panel: Panels<W>,
    (out, stride): (&mut [f32], usize),
    columns: usize,
    accumulate: bool,
) -> usize {
    const HALF: usize = WIDTH / 2;
    let mut sums = [[0.0_f32; HALF]; R];
    if accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            sums[..columns].copy_from_slice(&out[r * stride..][..columns]);
        }
    }
    let add = |sums: &mut [[f32; HALF]; R], terms: std::ops::Range<usize>| {
        let weights = panel.weights[terms.start * WIDTH..].chunks(WIDTH);
        for (l, weights) in terms.zip(weights) {
            let weights: &[W; HALF] = weights[..HALF].try_into().expect("half a panel");
            let weights = weights.map(W::widen);
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = rows.data[r * rows.row_stride + l * rows.step];
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum = factor.mul_add(*weight, *sum);
                }
            }
        }
    };
    if W::SCALED {
        for (start, scales) in (0..k).step_by(SCALED_TERMS).zip(panel.scales.chunks(WIDTH)) {
            let mut part = [[0.0; HALF]; R];
            add(&mut part, start..k.min(start + SCALED_TERMS));
            for (sums, part) in sums.iter_mut().zip(&part) {
                for ((sum, part), scale) in sums.iter_mut().zip(part).zip(scales) {
                    *sum = scale.to_f32().mul_add(*part, *sum);
                }
            }
        }
    } else {
        add(&mut sums, 0..k);
    }
    for (r, sums) in sums.iter().enumerate() {
        out[r * stride..][..columns].copy_from_slice(&sums[..columns]);
    }
    R
}

impl<W: Weight> Panels<'_, W> {
    fn check(&self, k: usize) {
        assert!(k > 0 && self.weights.len() >= self.count * k * WIDTH);
        let scales = if W::SCALED { k.div_ceil(SCALED_TERMS) * WIDTH } else { 0 };
        assert!(self.scales.len() >= self.count * scales);
    }

    /// From the first or second half of a panel on.
    fn half(self, k: usize, half: usize) -> Self {
        let first = |terms: usize| half / 2 * terms * WIDTH + half % 2 * (WIDTH / 2);
        let scales =
            if W::SCALED { &self.scales[first(k.div_ceil(SCALED_TERMS))..] } else { self.scales };
        Self { weights: &self.weights[first(k)..], scales, count: 1 }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use half::f16;

    use super::{Panels, Rows, SCALED_TERMS, WIDTH, Weight};

    /// Bytes ahead of the loads that weights are asked for: processors stop looking ahead at the end of a page.
    const AHEAD: usize = 512;

    /// `R` rows by `V` vectors of 16 columns, two to a panel.
    ///
    /// # Safety
    /// The processor has AVX-512; `rows` reaches element `k - 1` of row `R - 1`, `panels` holds the panels
    /// of `V` vectors, and `out` reaches `(R - 1) * stride + V * 16`.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn block<W: Weight, const R: usize, const V: usize>(
        k: usize,
        rows: Rows,
        panels: Panels<W>,
        out: &mut [f32],
        stride: usize,
        accumulate: bool,
    ) {
        let (mut weights, out) = (panels.weights.as_ptr(), out.as_mut_ptr());
        // A pointer for every third row: an address holds one stride or two of them for nothing, and eight
        // pointers would not fit the registers.
        let mut x: [*const f32; 3] =
            std::array::from_fn(|i| rows.data.as_ptr().wrapping_add(3 * i * rows.row_stride));
        let zero = [[_mm512_setzero_ps(); V]; R];
        let mut sums = zero;
        if accumulate && !W::SCALED {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: vector `v` of row `r` lies inside `out`.
                    *sum = unsafe { _mm512_loadu_ps(out.add(r * stride + v * 16)) };
                }
            }
        }
        let n_scales = k.div_ceil(SCALED_TERMS);
        let mut start = 0;
        while start < k {
            let terms = if W::SCALED { SCALED_TERMS.min(k - start) } else { k };
            for _ in 0..terms {
                // SAFETY: row `l` of every panel lies inside `panels`, and element `l` of every row inside `rows`;
                // pointers past the last row or element are moved but not read.
                unsafe {
                    let mut vectors = [_mm512_setzero_ps(); V];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        let from = weights.add(v / 2 * k * WIDTH + v % 2 * 16);
                        // Two vectors of less than 32 bits lie in one line.
                        if v % 2 == 0 || size_of::<W>() == 4 {
                            _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>().wrapping_add(AHEAD));
                        }
                        *vector = W::load(from);
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let factor = _mm512_set1_ps(*x[r / 3].add(r % 3 * rows.row_stride));
                        for (sum, vector) in sums.iter_mut().zip(&vectors) {
                            *sum = _mm512_fmadd_ps(factor, *vector, *sum);
                        }
                    }
                    weights = weights.wrapping_add(WIDTH);
                    for x in &mut x {
                        *x = x.wrapping_add(rows.step);
                    }
                }
            }
            if W::SCALED {
                let scales = panels.scales.as_ptr().wrapping_add(start / SCALED_TERMS * WIDTH);
                let first = start == 0 && !accumulate;
                for v in 0..V {
                    // SAFETY: the scales of every panel lie inside `panels`, and vector `v` of row `r` inside `out`.
                    unsafe {
                        let at = v / 2 * n_scales * WIDTH + v % 2 * 16;
                        let scale = f16::load(scales.add(at));
                        for (r, sums) in sums.iter().enumerate() {
                            let to = out.add(r * stride + v * 16);
                            let before =
                                if first { _mm512_setzero_ps() } else { _mm512_loadu_ps(to) };
                            _mm512_storeu_ps(to, _mm512_fmadd_ps(scale, sums[v], before));
                        }
                    }
                }
                sums = zero;
            }
            start += terms;
        }
        if !W::SCALED {
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    // SAFETY: vector `v` of row `r` lies inside `out`.
                    unsafe { _mm512_storeu_ps(out.add(r * stride + v * 16), *sum) };
                }
            }
        }
    }
}
