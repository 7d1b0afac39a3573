//! Errors as a user sees them: what, where, and what to do next.

use std::{fmt, process::ExitCode};

/// Why a command stopped. Printed as `error: ...`, then where and help lines; decides the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    help: Option<String>,
    code: u8,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Exit status of a command that ran and found something (as `grep` does).
pub(crate) const FOUND: u8 = 1;
/// Exit status of bad input or a failed step.
pub(crate) const FAILED: u8 = 2;
/// Exit status after Ctrl-C, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

impl Failure {
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), help: None, code: FAILED }
    }

    pub(crate) fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }

    pub(crate) fn interrupted(help: impl fmt::Display) -> Self {
        Self { what: "interrupted".to_owned(), help: Some(help.to_string()), code: INTERRUPTED }
    }

    /// A command that did what it was asked and whose answer is "no": nothing more is printed.
    pub(crate) fn silent(code: u8) -> Self {
        Self { what: String::new(), help: None, code }
    }

    pub(crate) fn report(&self) -> ExitCode {
        if !self.what.is_empty() {
            crate::output::say(&format!("error: {}", self.what));
            if let Some(help) = &self.help {
                crate::output::say(&format!("  help: {help}"));
            }
        }
        ExitCode::from(self.code)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut what = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors already end in their source's text.
            if !what.contains(&text) {
                what = format!("{what}: {text}");
            }
            source = cause.source();
        }
        Self::new(what)
    }
}

/// Adds what was being done to an error.
pub(crate) trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| error.into().context(doing))
    }
}
