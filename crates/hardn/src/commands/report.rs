//! `hardn report`: a run folder's report, made again.

use hardn_report::{ReportOptions, write_report};

use crate::{args::ReportArgs, failure::Outcome, output};

pub(crate) fn run(args: ReportArgs) -> Outcome {
    write_report(&args.run, ReportOptions { samples_per_scenario: args.samples })?;
    output::put(&format!("{}\n", args.run.join("report.html").display()))
}
