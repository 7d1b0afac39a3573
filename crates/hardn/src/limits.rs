//! The limits under which this process runs programs, and whether it may do so behind a weaker sandbox.

use std::sync::atomic::{AtomicBool, Ordering};

use hardn_sandbox::Limits;

static ALLOW_WEAKER: AtomicBool = AtomicBool::new(false);

/// `--allow-weaker-sandbox`: programs also run where the kernel has no Landlock.
pub(crate) fn allow_weaker(allow: bool) {
    ALLOW_WEAKER.store(allow, Ordering::Relaxed);
}

/// Whether `--allow-weaker-sandbox` was given.
pub(crate) fn weaker_is_allowed() -> bool {
    ALLOW_WEAKER.load(Ordering::Relaxed)
}

/// The default limits, as the user allowed.
pub(crate) fn limits() -> Limits {
    Limits { allow_weaker: ALLOW_WEAKER.load(Ordering::Relaxed), ..Limits::default() }
}
