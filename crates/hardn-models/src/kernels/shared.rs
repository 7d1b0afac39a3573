//! A slice whose parts are handed to different threads.

use std::marker::PhantomData;

/// The slice, borrowed until all parts are given back.
pub(super) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

#[expect(unsafe_code, reason = "threads only get what `part` hands out")]
// SAFETY: a thread that has this can do no more than ask for parts, which are slices of `T: Send`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), life: PhantomData }
    }

    /// Items `first..first + len`.
    ///
    /// # Safety
    /// No two parts in use at the same time overlap.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "the caller keeps parts apart")]
    pub(super) unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first <= self.len && len <= self.len - first);
        // SAFETY: the part lies inside the borrowed slice, and the caller hands out nothing that overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(first), len) }
    }
}
