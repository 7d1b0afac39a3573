//! Go to the common form.
//!
//! Pointers are transparent: `*p` and `&x` are what they point to. A method's receiver is called `self`, composite
//! literals of named types are constructed, and packages are known by the last part of their import path.

mod declaration;
mod expression;
mod statement;
mod types;

use tree_sitter::Node;

use crate::{
    ir::Program,
    lower::front_end::{FrontEnd, Source},
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        receiver: None,
        switches: 0,
        depth: 0,
    };
    lowering.declared(root, 0);
    lowering.top_level(|lowering| lowering.block(root));
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    /// What the method at hand calls its receiver.
    receiver: Option<&'a str>,
    /// Switches around the current statement, inside the innermost loop.
    switches: u32,
    depth: u32,
}

impl<'a> FrontEnd<'a, '_> for Lowering<'a> {
    const BLOCKS: &'static [&'static str] = &["block"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }
}
