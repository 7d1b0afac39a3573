//! Parsing with tree-sitter.

use hardn_types::Language;
use tree_sitter::{Parser, Tree};

use crate::CodeError;

/// Parses a piece of code. Wrong code gives a tree with error nodes, not an error.
///
/// # Errors
/// [`CodeError::NoParser`] if the grammar does not fit this version of tree-sitter.
pub fn parse(code: &str, language: Language) -> Result<Tree, CodeError> {
    let grammar = match language {
        Language::Python => tree_sitter_python::LANGUAGE,
        Language::C => tree_sitter_c::LANGUAGE,
        Language::Cpp => tree_sitter_cpp::LANGUAGE,
        Language::JavaScript => tree_sitter_javascript::LANGUAGE,
        Language::TypeScript => tree_sitter_typescript::LANGUAGE_TSX,
        Language::Go => tree_sitter_go::LANGUAGE,
        Language::Java => tree_sitter_java::LANGUAGE,
        Language::Ruby => tree_sitter_ruby::LANGUAGE,
    };
    let mut parser = Parser::new();
    let tree = match parser.set_language(&grammar.into()) {
        Ok(()) => parser.parse(code, None),
        Err(_) => None,
    };
    tree.ok_or(CodeError::NoParser(language))
}
