//! JavaScript and TypeScript to the common form.
//!
//! Functions at the top become functions of the program; the others are closures that see the variables around them.
//! Patterns are taken apart into one assignment a name; a pattern's own text names the value in between.

mod call;
mod expression;
mod function;
mod module;
mod pattern;
mod regexp;
mod statement;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::Node;

use crate::{
    ir::{Program, Stmt},
    lower::front_end::{FrontEnd, Source, named},
};

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        class: None,
        exported: BTreeSet::new(),
        exporting: false,
        setters: BTreeMap::new(),
        inside: 0,
        depth: 0,
    };
    lowering.top_level(|lowering| lowering.block(root));
    lowering.mark_exported();
    lowering.program
}

struct Lowering<'a> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    /// Names of functions and classes that are exported by name.
    exported: BTreeSet<&'a str>,
    /// Inside an export statement.
    exporting: bool,
    /// Functions that set a variable, by the hook that gave both.
    setters: BTreeMap<&'a str, &'a str>,
    /// Functions around the current node.
    inside: u32,
    depth: u32,
}

impl<'a, 't> FrontEnd<'a, 't> for Lowering<'a> {
    const BLOCKS: &'static [&'static str] = &["statement_block"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }

    /// Declared functions are there from the start of their block.
    fn block(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let declares = |child: &Node<'_>| {
            matches!(child.kind(), "function_declaration" | "generator_function_declaration")
        };
        let (hoisted, others): (Vec<_>, Vec<_>) = named(node).into_iter().partition(declares);
        let mut out = Vec::new();
        for child in hoisted.into_iter().chain(others) {
            self.statement(child, &mut out);
        }
        out
    }
}
