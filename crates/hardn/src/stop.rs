//! Ctrl-C stops cleanly: the first asks every stage to finish its step and save, the second ends at once.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag that Ctrl-C (or SIGTERM) sets. The handler is installed on first use.
pub(crate) fn flag() -> Arc<AtomicBool> {
    STOP.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        // Without a handler Ctrl-C still ends the process, and the records on disk are still good.
        let _ = ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(crate::failure::INTERRUPTED));
            }
            crate::output::say("stopping: finishing the current step; once more to stop at once");
        });
        flag
    })
    .clone()
}

/// Stops as Ctrl-C does when standard input ends: when the process that holds its other end closes it, or dies.
pub(crate) fn at_end_of_input() {
    let flag = flag();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        flag.store(true, Ordering::SeqCst);
    });
}

/// Whether Ctrl-C was pressed.
pub(crate) fn requested() -> bool {
    STOP.get().is_some_and(|flag| flag.load(Ordering::SeqCst))
}
