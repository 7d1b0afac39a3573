//! C and C++ to the common form.

mod constant;
mod declaration;
mod expression;
mod statement;

use std::collections::BTreeMap;

use tree_sitter::Node;

use crate::{
    ir::Program,
    lower::front_end::{FrontEnd, Source},
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        aliases: BTreeMap::new(),
        class: None,
        depth: 0,
    };
    lowering.top_level(|lowering| lowering.block(root));
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    /// Macros that are nothing but another name.
    aliases: BTreeMap<&'a str, &'a str>,
    class: Option<&'a str>,
    depth: u32,
}

impl<'a> FrontEnd<'a, '_> for Lowering<'a> {
    const BLOCKS: &'static [&'static str] = &["compound_statement"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }
}
