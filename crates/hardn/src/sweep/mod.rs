//! Many runs from one file, each in a folder of its own, and one table of them all.

mod config;
mod gather;
mod runner;
mod table;

use std::path::PathBuf;

use self::{config::Sweep, runner::Runner};
use crate::{
    args::SweepArgs,
    failure::{Failure, Outcome},
    output::{put, put_json, say},
    stop,
};

/// `hardn sweep`.
pub(crate) fn command(args: &SweepArgs, quiet: bool) -> Outcome {
    stop::flag();
    let sweep = Sweep::read(&args.config, &args.set)?;
    let name = args.config.file_stem().unwrap_or_default();
    let out = args
        .out
        .clone()
        .or_else(|| sweep.out.clone())
        .unwrap_or_else(|| PathBuf::from("runs").join(name));
    let runner = Runner { sweep: &sweep, out: &out, jobs: args.jobs.max(1), quiet };
    let states = runner.states(args.fresh)?;
    if args.dry_run {
        return list(&sweep, &states, args.json);
    }
    let failed = runner.run(&states)?;
    let found = gather::gather(&sweep, &out)?;
    let summary = table::summarise(&sweep, &found, &failed);
    table::write(&out, &summary, &found)?;
    if args.json {
        put_json(&summary)?;
    } else {
        put(&table::render(&summary))?;
        put(&format!("\n{}\n", out.join("sweep.html").display()))?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    for failure in &failed {
        say(&format!("{}, seed {}: {}", failure.arm, failure.seed, failure.message));
    }
    Err(Failure::new(format!("{} of {} runs failed", failed.len(), sweep.cells.len()))
        .help("the table leaves them out; run the same command to try them again"))
}

/// What would be done.
fn list(sweep: &Sweep, states: &[runner::CellState], json: bool) -> Outcome {
    for (cell, state) in sweep.cells.iter().zip(states) {
        if json {
            let row =
                serde_json::json!({"arm": cell.arm, "seed": cell.seed, "state": state.name()});
            put_json(&row)?;
        } else {
            put(&format!("{:<10} seed {:<4} {}\n", state.name(), cell.seed, cell.arm))?;
        }
    }
    Ok(())
}
