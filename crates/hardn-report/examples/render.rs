//! Makes the report of a run folder: `cargo run -p hardn-report --example render -- RUN`.

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let folder = PathBuf::from(env::args().nth(1).unwrap_or_default());
    let done = hardn_report::write_report(&folder, hardn_report::ReportOptions::default());
    ExitCode::from(u8::from(done.is_err()))
}
