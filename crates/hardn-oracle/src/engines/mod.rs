//! Other analysers behind [`hardn_types::Judge`], and several engines as one.
//!
//! A tool that is missing, fails, leaves no output, or passes over a file makes those files `not_analysed`, with the
//! reason. It is never "no findings".

mod agreement;
mod bandit;
mod batch;
mod clang_tidy;
mod codeql;
mod cppcheck;
mod engine;
mod eslint;
mod external;
mod flawfinder;
mod panel;
mod place;
mod process;
mod registry;
mod report;
mod sarif;
mod sarif_file;
mod semgrep;
mod sven_078;
mod table;
#[cfg(test)]
mod tests;

pub use agreement::{AgreementCounts, EngineAgreement, engine_agreement};
pub use codeql::{CodeqlBuild, CodeqlSettings};
pub use engine::{Borrowed, Engine};
pub use external::External;
pub use panel::{Combine, Panel, combine, confirms};
pub use registry::{ENGINES, EngineSettings, EngineTool, external};
pub use report::{EngineRun, write_engine_failures, write_sarif_runs};
pub use sarif_file::SarifFile;
