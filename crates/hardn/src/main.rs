//! The `hardn` command: the only place where rooms meet, that prints, and that sets exit codes.

mod args;
mod assets;
mod commands;
mod failure;
mod harden;
mod output;
mod stop;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    one_candle_thread();
    let cli = args::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("HARDN_LOG"))
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
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
