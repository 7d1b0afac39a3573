//! JavaScript and TypeScript to the common form.

use tree_sitter::Node;

use super::{Source, error_bytes};
use crate::ir::{Function, Program};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let _source = Source { code };
    let mut program = Program::default();
    program.functions.push(Function::top_level());
    program.error_bytes = error_bytes(root);
    program
}
