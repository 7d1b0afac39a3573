//! Parsing with tree-sitter.

use hardn_types::Language;
use tree_sitter::{Parser, Tree};

use crate::CodeError;

/// Parses a piece of code. Wrong code gives a tree with error nodes, not an error.
///
/// # Errors
/// [`CodeError::NoParser`] for languages other than Python, C and C++.
pub fn parse(code: &str, language: Language) -> Result<Tree, CodeError> {
    let grammar = match language {
        Language::Python => tree_sitter_python::LANGUAGE,
        Language::C => tree_sitter_c::LANGUAGE,
        Language::Cpp => tree_sitter_cpp::LANGUAGE,
        other => return Err(CodeError::NoParser(other)),
    };
    let mut parser = Parser::new();
    let tree = match parser.set_language(&grammar.into()) {
        Ok(()) => parser.parse(code, None),
        Err(_) => None,
    };
    tree.ok_or(CodeError::NoParser(language))
}
