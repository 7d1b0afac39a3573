//! Java to the common form.

mod declaration;
mod expression;
mod statement;

pub(crate) use declaration::PARAMETER;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::Node;

use crate::{
    ir::{Program, Stmt},
    lower::front_end::{FrontEnd, Source},
};

/// Names of variables in scope: those that are not may be fields.
#[derive(Default)]
struct Locals<'a> {
    counts: BTreeMap<&'a str, usize>,
    order: Vec<&'a str>,
}

impl<'a> Locals<'a> {
    fn add(&mut self, name: &'a str) {
        *self.counts.entry(name).or_default() += 1;
        self.order.push(name);
    }

    fn leave(&mut self, mark: usize) {
        for name in self.order.drain(mark..) {
            if let Some(count) = self.counts.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.counts.get(name).is_some_and(|count| *count > 0)
    }
}

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        class: None,
        fields: BTreeSet::new(),
        locals: Locals::default(),
        in_method: false,
        methods_too: true,
        bodies: Vec::new(),
        depth: 0,
    };
    lowering.top_level(|lowering| {
        let mut body = Vec::new();
        lowering.members(root, &mut body);
        body
    });
    lowering.program
}

struct Lowering<'a, 't> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    /// Fields of the classes around the current place.
    fields: BTreeSet<&'a str>,
    locals: Locals<'a>,
    /// Inside a method a bare name may be a field.
    in_method: bool,
    /// Methods of anonymous classes become functions of their own as well.
    methods_too: bool,
    /// Bodies of the classes around the current place: their fields hold in inner classes too.
    bodies: Vec<Node<'t>>,
    depth: u32,
}

impl<'a, 't> FrontEnd<'a, 't> for Lowering<'a, 't> {
    const BLOCKS: &'static [&'static str] = &["block", "constructor_body"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }

    /// Variables end with their block.
    fn block(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let mark = self.locals.order.len();
        let mut out = Vec::new();
        self.block_into(node, &mut out);
        self.locals.leave(mark);
        out
    }
}
