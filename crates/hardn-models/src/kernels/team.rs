//! Threads that share the loops of one computation.
//!
//! Entering and leaving a parallel loop of a thread pool costs several microseconds, and a token of a small model
//! has a hundred loops. A team enters the pool once: its helpers then look for loops to share until it ends.
//!
//! Nothing waits for a helper to arrive. The parts of a loop go to whoever takes them, the leader first of all, so
//! a team that stands inside another parallel loop, or has more threads than cores, is slower but never stuck.

use std::{
    cell::Cell,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

use super::shared::Shared;

/// Looks at the shared state before a thread offers its core to others; some tens of microseconds.
const SPINS: usize = 1 << 10;

/// A loop's body, called with the number of a part.
type Body<'a> = &'a (dyn Fn(usize) + Sync);

/// The leader's side of a team. It cannot be reached from inside a shared loop.
pub(crate) struct Team<'a> {
    threads: usize,
    board: Option<&'a Board>,
    /// One thread leads.
    leader: PhantomData<Cell<()>>,
}

impl Team<'_> {
    /// Runs `f` with a team of the current pool's threads.
    pub(crate) fn with<R>(f: impl FnOnce(&Team) -> R) -> R {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return f(&Self::alone());
        }
        let board = Board::default();
        rayon::in_place_scope(|scope| {
            let _end = End(&board);
            for _ in 1..threads {
                scope.spawn(|_| board.help());
            }
            f(&Team { threads, board: Some(&board), leader: PhantomData })
        })
    }

    /// A team without helpers.
    pub(crate) fn alone() -> Self {
        Self { threads: 1, board: None, leader: PhantomData }
    }

    /// Threads that may take part.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body` once for every part, on any thread and in any order, and returns when all are done.
    pub(crate) fn run(&self, parts: usize, body: impl Fn(usize) + Sync) {
        match self.board {
            Some(board) if parts > 1 => {
                let last = u32::try_from(parts - 1).expect("a loop has fewer than 2^32 parts");
                board.share(last + 1, &|left| body(last as usize - left));
            }
            _ => (0..parts).for_each(body),
        }
    }

    /// Calls `body` for every `size` items of `data`; the last part may be shorter.
    #[expect(unsafe_code, reason = "parts are handed to different threads")]
    pub(crate) fn chunks<T: Send>(
        &self,
        data: &mut [T],
        size: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let len = data.len();
        let data = Shared::new(data);
        self.run(len.div_ceil(size), |i| {
            let first = i * size;
            // SAFETY: every part is done once, and no two overlap.
            body(i, unsafe { data.part(first, size.min(len - first)) });
        });
    }
}

/// Where the leader announces loops and helpers look for them.
#[derive(Default)]
struct Board {
    /// The number of the current loop in the high half, its parts not yet taken in the low half.
    open: AtomicU64,
    /// The current loop's body. Only valid while one of its parts is taken and not done.
    body: AtomicPtr<Body<'static>>,
    /// Parts of the current loop that are done.
    done: AtomicUsize,
    failed: AtomicBool,
    closed: AtomicBool,
}

impl Board {
    /// Announces a loop, takes part in it and waits for its end. `body` is called with how many parts are left
    /// after its own.
    #[expect(
        unsafe_code,
        reason = "the body is used no longer than this call, which waits for all who use it"
    )]
    fn share(&self, parts: u32, body: Body) {
        // SAFETY: only the lifetime changes. Nobody looks at the body without having taken a part, no part can be
        // taken after the last, and this function returns when all that were taken are done.
        let mut body: Body<'static> = unsafe { std::mem::transmute(body) };
        let loops = self.open.load(Ordering::Relaxed) >> 32;
        self.done.store(0, Ordering::Relaxed);
        self.body.store(&raw mut body, Ordering::Relaxed);
        self.open.store(((loops + 1) << 32) | u64::from(parts), Ordering::Release);
        while self.take_part() {}
        let mut spins = 0;
        while self.done.load(Ordering::Acquire) < parts as usize {
            wait(&mut spins);
        }
        if self.failed.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a part of a shared loop panicked"));
        }
    }

    /// Takes a part of the current loop and does it; false if there is none.
    #[expect(unsafe_code, reason = "the body is reached through a pointer")]
    fn take_part(&self) -> bool {
        let open = self.open.load(Ordering::Relaxed);
        let left = open & u64::from(u32::MAX);
        if left == 0 {
            return false;
        }
        let taken =
            self.open.compare_exchange(open, open - 1, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_ok() {
            // SAFETY: a part of this loop is taken and not done, so `share` has not returned.
            let body = unsafe { *self.body.load(Ordering::Relaxed) };
            if catch_unwind(AssertUnwindSafe(|| body(left as usize - 1))).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
        true
    }

    /// A helper's work until the team ends.
    fn help(&self) {
        let mut spins = 0;
        while !self.closed.load(Ordering::Acquire) {
            if self.take_part() {
                spins = 0;
            } else {
                wait(&mut spins);
            }
        }
    }
}

/// Lets the helpers go, whatever happens to the leader.
struct End<'a>(&'a Board);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

fn wait(spins: &mut usize) {
    if *spins < SPINS {
        *spins += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[track_caller]
    fn check(threads: usize) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            Team::with(|team| {
                let mut data = vec![0.0_f32; 1000];
                for turn in 1..300 {
                    team.chunks(&mut data, turn, |i, part| {
                        for value in part {
                            *value += i as f32;
                        }
                    });
                }
                let expected = |at: usize| (1..300).map(|turn| (at / turn) as f32).sum::<f32>();
                assert!(data.iter().enumerate().all(|(at, value)| *value == expected(at)));
            });
        });
    }

    #[test]
    fn every_part_is_done_once() {
        for threads in [1, 2, 3, 8] {
            check(threads);
        }
    }

    #[test]
    fn teams_inside_parallel_loops_end() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sums: Vec<usize> = pool.install(|| {
            (0..40_usize)
                .into_par_iter()
                .map(|n| {
                    let mut items = vec![0; n];
                    Team::with(|team| team.chunks(&mut items, 1, |i, item| item[0] = i));
                    items.iter().sum()
                })
                .collect()
        });
        assert!(sums.iter().enumerate().all(|(n, sum)| *sum == n * n.saturating_sub(1) / 2));
    }

    #[test]
    fn a_panic_reaches_the_leader() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let run = || Team::with(|team| team.run(64, |i| assert!(i != 50)));
        assert!(catch_unwind(AssertUnwindSafe(|| pool.install(run))).is_err());
    }
}
