//! The three traits that `hardn` wires together, so that no two rooms need to know each other.

use std::path::Path;

use crate::{Analysis, Language, Sample};

/// An error of the other side, which a room can only pass on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A piece of code to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The text.
    pub code: &'a str,
    /// What it is written in.
    pub language: Language,
    /// The file that holds this text, where there is one.
    pub path: Option<&'a Path>,
    /// The query to ask, where a published scenario names one; engines without queries pass it over.
    pub query: Option<&'a str>,
}

impl<'a> Piece<'a> {
    /// Code that is in no file.
    pub fn new(code: &'a str, language: Language) -> Self {
        Self { code, language, path: None, query: None }
    }
}

/// Says what is wrong with a piece of code.
pub trait Judge: Sync {
    /// The engine's name and version, as they stand in findings and reports.
    fn name(&self) -> String;

    /// Analyses one piece of code. "Could not" is `Analysis::not_analysed`, never silence.
    fn judge(&self, code: &str, language: Language) -> Analysis;

    /// Analyses many pieces: one answer for each, in their order. Engines that start a process do so once for many.
    fn judge_all(&self, pieces: &[Piece]) -> Vec<Analysis> {
        pieces.iter().map(|piece| self.judge(piece.code, piece.language)).collect()
    }
}

/// One prompt to complete.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The scenario's or task's id.
    pub task: String,
    /// The text to continue.
    pub text: String,
    /// Which samples are wanted.
    pub indices: Vec<u32>,
}

/// Completes prompts.
pub trait Generator {
    /// What determines its samples, apart from prompt and index: model, adapter, decoder, seed.
    fn fingerprint(&self) -> String;

    /// Draws the samples asked for and hands each one over as soon as it is complete, in any order.
    ///
    /// # Errors
    /// Whatever the model or the endpoint reports; samples handed over before stay good.
    fn generate(
        &self,
        arm: &str,
        prompts: &[Prompt],
        on_sample: &mut dyn FnMut(Sample) -> Result<(), BoxError>,
    ) -> Result<(), BoxError>;
}

/// Scores a model while it is trained.
pub trait Evaluator {
    /// Named numbers; higher is better.
    ///
    /// # Errors
    /// Whatever made the evaluation impossible.
    fn evaluate(&self, generator: &dyn Generator) -> Result<Vec<(String, f64)>, BoxError>;
}
