//! One file per command.

mod batch;
mod bench;
mod complete;
mod data;
mod decode_bench;
mod demo;
mod doctor;
mod eval;
mod export;
mod fetch;
mod inspect;
mod lab;
mod report;
mod rules;
mod sandbox;
mod scan;
mod train;

use std::path::Path;

use clap::CommandFactory;

use crate::{
    args::{Cli, Command},
    failure::{Failure, Outcome},
    harden, improve, sweep,
};

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli) -> Outcome {
    let quiet = cli.quiet;
    match cli.command {
        Command::Demo(args) => demo::run(args, quiet),
        Command::Harden(args) => harden::command(args, quiet),
        Command::Improve(args) => improve::command(args, quiet),
        Command::Sweep(args) => sweep::command(&args, quiet),
        Command::Scan(args) => scan::run(*args, quiet),
        Command::Rules { command } => rules::run(command, quiet),
        Command::Train(args) => train::run(args, quiet),
        Command::Data { command } => data::run(command, quiet),
        Command::DecodeBench(args) => decode_bench::run(&args, quiet),
        Command::Complete(args) => complete::run(args, quiet),
        Command::Eval(args) => eval::run(args, quiet),
        Command::Export(args) => export::run(&args),
        Command::Fetch { command } => fetch::run(command),
        Command::Report(args) => report::run(args),
        Command::Inspect { command } => inspect::run(command),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Lab { command } => lab::run(command, quiet),
        Command::Doctor { json } => doctor::run(json),
        Command::Bench(args) => bench::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hardn", &mut script);
            crate::output::put(&String::from_utf8_lossy(&script))
        }
    }
}

/// A file's text, or standard input's for `-`.
pub(crate) fn read_text(path: &Path) -> Outcome<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin())
            .map_err(|error| Failure::new(format!("cannot read standard input: {error}")));
    }
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}
