//! The `hardn` command: the only place where rooms meet, that prints, and that sets exit codes.

mod args;
mod assets;
mod commands;
mod decoding;
mod device;
mod failure;
mod harden;
mod hub;
mod improve;
mod inspector;
mod limits;
mod oracles;
mod output;
mod own_answers;
mod stop;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    one_candle_thread();
    join_thread_pool();
    let cli = args::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("HARDN_LOG"))
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    limits::allow_weaker(cli.allow_weaker_sandbox);
    hub::quiet(cli.quiet);
    match device::choose(&cli.device).and_then(|()| commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Makes this thread one of the pool's, so that it works where it would only wait for the others.
fn join_thread_pool() {
    // On a single core the pool keeps a thread of its own: this one may be waiting for a child.
    if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
        // The pool can only have been built already by a library that started before `main`.
        let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    }
}

/// Our own operations run on all threads; candle's pool beside them would only spin.
fn one_candle_thread() {
    const NAME: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: `main` has started no thread yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var(NAME, "1") };
    }
}
