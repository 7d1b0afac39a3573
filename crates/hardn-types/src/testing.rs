//! Help for tests that use reference data kept outside the project.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

/// The path of a piece of reference data, or `None` after saying on standard error that the test is skipped.
///
/// The folder is `HARDN_REFERENCE_DATA`, or `../shared/data` beside the workspace.
/// The line starts with `skipped:` and goes past the test harness's capture, so that it is seen and counted.
pub fn reference_data(relative: &str) -> Option<PathBuf> {
    let root = env::var_os("HARDN_REFERENCE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("reference data `{relative}` is not there; set HARDN_REFERENCE_DATA"));
    None
}

/// Says on standard error, past the test harness's capture, that a test is skipped.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    // One write, on a line of its own: other tests' lines may stand half written.
    let line = format!("\nskipped: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
