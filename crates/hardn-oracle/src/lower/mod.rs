//! From source text to the common form: one front end per grammar.

mod c;
mod go;
mod java;
mod javascript;
mod literal;
mod python;
mod regexp;
mod ruby;

pub(crate) use java::PARAMETER;

use std::cell::RefCell;

use hardn_types::Language;
use tree_sitter::{Node, Parser, Tree};

use crate::ir::{Expr, ExprKind, Program, Range};

/// Nesting beyond which expressions and statements become unknown, so that the stack stays bounded.
const MAX_DEPTH: u32 = 100;

/// Share of the text inside error nodes beyond which nothing can be said.
const MAX_ERROR_SHARE: f64 = 0.6;

/// Grammars; TypeScript has two.
const N_GRAMMARS: usize = 9;

thread_local! {
    static PARSERS: RefCell<[Option<Parser>; N_GRAMMARS]> = const { RefCell::new([const { None }; N_GRAMMARS]) };
}

/// Parses and lowers a piece of code.
///
/// # Errors
/// Why the code cannot be analysed: no grammar, too broken, or nothing in it.
pub(crate) fn lower(code: &str, language: Language) -> Result<Program<'_>, String> {
    if code.len() > u32::MAX as usize / 2 {
        return Err("the file is too large".to_owned());
    }
    let tree = parse(code, language)?;
    let root = tree.root_node();
    let program = match language {
        Language::Python => python::lower(root, code),
        Language::C | Language::Cpp => c::lower(root, code),
        Language::JavaScript | Language::TypeScript => javascript::lower(root, code),
        Language::Go => go::lower(root, code),
        Language::Java => java::lower(root, code),
        Language::Ruby => ruby::lower(root, code),
    };
    let statements: usize = program.functions.iter().map(|function| function.body.len()).sum();
    let nothing = statements == 0
        && program.functions.len() <= 1
        && program.classes.is_empty()
        && program.structs.is_empty()
        && program.imports.is_empty()
        && program.constants.is_empty();
    let text = code.trim().len();
    if program.error_bytes > 0
        && (nothing
            || (statements < 3 && program.error_bytes as f64 > MAX_ERROR_SHARE * text as f64))
    {
        return Err(format!(
            "the code does not parse as {language}: {} of {text} bytes are inside syntax errors",
            program.error_bytes.min(text)
        ));
    }
    Ok(program)
}

/// The byte ranges of all comments, in order.
pub(crate) fn comments(code: &str, language: Language) -> Vec<(usize, usize)> {
    let Ok(tree) = parse(code, language) else { return Vec::new() };
    let mut found = Vec::new();
    let mut stack = vec![tree.root_node()];
    while let Some(node) = stack.pop() {
        if node.kind().ends_with("comment") {
            found.push((node.start_byte(), node.end_byte()));
        } else {
            let mut cursor = node.walk();
            stack.extend(node.children(&mut cursor));
        }
    }
    found.sort_unstable();
    found
}

fn parse(code: &str, language: Language) -> Result<Tree, String> {
    let (slot, grammar) = match language {
        Language::Python => (0, tree_sitter_python::LANGUAGE),
        Language::C => (1, tree_sitter_c::LANGUAGE),
        Language::Cpp => (2, tree_sitter_cpp::LANGUAGE),
        // Its grammar reads JSX too.
        Language::JavaScript => (3, tree_sitter_javascript::LANGUAGE),
        Language::TypeScript if is_tsx(code) => (4, tree_sitter_typescript::LANGUAGE_TSX),
        Language::TypeScript => (5, tree_sitter_typescript::LANGUAGE_TYPESCRIPT),
        Language::Go => (6, tree_sitter_go::LANGUAGE),
        Language::Java => (7, tree_sitter_java::LANGUAGE),
        Language::Ruby => (8, tree_sitter_ruby::LANGUAGE),
    };
    PARSERS.with_borrow_mut(|parsers| {
        let parser = match &mut parsers[slot] {
            Some(parser) => parser,
            empty => {
                let mut parser = Parser::new();
                parser.set_language(&grammar.into()).map_err(|error| error.to_string())?;
                empty.insert(parser)
            }
        };
        parser.reset();
        parser.parse(code, None).ok_or_else(|| "the parser gave up".to_owned())
    })
}

/// TypeScript with markup in it: casts in angle brackets are read as markup there, so it is asked for only if needed.
fn is_tsx(code: &str) -> bool {
    code.contains("</") || code.contains("/>")
}

/// What the front ends share: text and ranges of nodes.
struct Source<'a> {
    code: &'a str,
}

impl<'a> Source<'a> {
    fn text(&self, node: Node<'_>) -> &'a str {
        self.code.get(node.start_byte()..node.end_byte()).unwrap_or("")
    }

    fn field(&self, node: Node<'_>, name: &str) -> &'a str {
        node.child_by_field_name(name).map_or("", |child| self.text(child))
    }
}

fn range(node: Node<'_>) -> Range {
    Range { start: node.start_byte() as u32, end: node.end_byte() as u32 }
}

fn named(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|child| !child.is_extra()).collect()
}

fn unknown<'a>(node: Node<'_>, parts: Vec<Expr<'a>>) -> Expr<'a> {
    Expr::new(ExprKind::Unknown(parts), range(node))
}

/// Bytes inside error nodes, outermost ones only.
fn error_bytes(root: Node<'_>) -> usize {
    if !root.has_error() {
        return 0;
    }
    let mut total = 0;
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        if node.is_error() {
            total += node.end_byte() - node.start_byte();
        } else if node.has_error() {
            let mut cursor = node.walk();
            stack.extend(node.children(&mut cursor));
        }
    }
    total
}
