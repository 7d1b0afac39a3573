//! What all front ends share: the text and the ranges of nodes, and the walk down a tree with its nesting counted.

use tree_sitter::Node;

use super::MAX_DEPTH;
use crate::ir::{Expr, ExprKind, Function, Program, Range, Stmt};

/// The text that is lowered.
pub(super) struct Source<'a> {
    pub(super) code: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn text(&self, node: Node<'_>) -> &'a str {
        self.code.get(node.start_byte()..node.end_byte()).unwrap_or("")
    }

    pub(super) fn field(&self, node: Node<'_>, name: &str) -> &'a str {
        node.child_by_field_name(name).map_or("", |child| self.text(child))
    }
}

/// What a language's statements become.
pub(super) trait LowerStatement<'a, 't> {
    /// Lowers one statement; called through [`FrontEnd::statement`], which counts the nesting.
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>);
}

/// What a language's expressions become.
pub(super) trait LowerExpr<'a, 't> {
    /// Lowers one expression; called through [`FrontEnd::expr`], which counts the nesting.
    fn lower_expr(&mut self, node: Node<'t>) -> Expr<'a>;
}

/// One language's way from a tree to the common form. Statements and expressions differ; the walk is the same.
pub(super) trait FrontEnd<'a, 't>:
    LowerStatement<'a, 't> + LowerExpr<'a, 't> + Sized
{
    /// Kinds of nodes that hold statements.
    const BLOCKS: &'static [&'static str];

    /// Statements and expressions around the current node.
    fn depth(&mut self) -> &mut u32;

    fn program(&mut self) -> &mut Program<'a>;

    /// One level further down; `None` where there are too many.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> Option<T> {
        *self.depth() += 1;
        let result = if *self.depth() <= MAX_DEPTH { Some(inner(self)) } else { None };
        *self.depth() -= 1;
        result
    }

    /// What stands outside all functions: the first function of the program.
    fn top_level(&mut self, body: impl FnOnce(&mut Self) -> Vec<Stmt<'a>>) {
        self.program().functions.push(Function::top_level());
        let body = body(self);
        self.program().functions[0].body = body;
    }

    fn statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        self.deeper(|lowering| lowering.lower_statement(node, out));
    }

    fn block_into(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        for child in named(node) {
            self.statement(child, out);
        }
    }

    fn block(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        self.block_into(node, &mut out);
        out
    }

    /// A block, or the one statement that stands in its place.
    fn body(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        if Self::BLOCKS.contains(&node.kind()) {
            return self.block(node);
        }
        let mut out = Vec::new();
        self.statement(node, &mut out);
        out
    }

    fn field_block(&mut self, node: Node<'t>, field: &str) -> Vec<Stmt<'a>> {
        node.child_by_field_name(field).map(|body| self.body(body)).unwrap_or_default()
    }

    fn expr(&mut self, node: Node<'t>) -> Expr<'a> {
        self.deeper(|lowering| lowering.lower_expr(node))
            .unwrap_or_else(|| unknown(node, Vec::new()))
    }

    fn exprs(&mut self, node: Node<'t>) -> Vec<Expr<'a>> {
        named(node).into_iter().map(|child| self.expr(child)).collect()
    }

    fn field_expr(&mut self, node: Node<'t>, field: &str) -> Expr<'a> {
        match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        }
    }

    fn boxed(&mut self, node: Node<'t>, field: &str) -> Box<Expr<'a>> {
        Box::new(self.field_expr(node, field))
    }

    /// The first part of a node, such as the value of `return`.
    fn first(&mut self, node: Node<'t>) -> Option<Expr<'a>> {
        first_named(node).map(|child| self.expr(child))
    }

    /// What a node only wraps, as parentheses do.
    fn inner(&mut self, node: Node<'t>) -> Expr<'a> {
        self.first(node).unwrap_or_else(|| unknown(node, Vec::new()))
    }
}

pub(super) fn range(node: Node<'_>) -> Range {
    Range { start: node.start_byte() as u32, end: node.end_byte() as u32 }
}

/// The named children without comments and the like.
pub(super) fn named(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|child| !child.is_extra()).collect()
}

pub(super) fn first_named(node: Node<'_>) -> Option<Node<'_>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).find(|child| !child.is_extra())
}

/// The children a field names, of which there may be several.
pub(super) fn all_named<'t>(node: Node<'t>, field: &str) -> Vec<Node<'t>> {
    let mut cursor = node.walk();
    node.children_by_field_name(field, &mut cursor).collect()
}

pub(super) fn unknown<'a>(node: Node<'_>, parts: Vec<Expr<'a>>) -> Expr<'a> {
    Expr::new(ExprKind::Unknown(parts), range(node))
}

/// Bytes inside error nodes, outermost ones only.
pub(super) fn error_bytes(root: Node<'_>) -> usize {
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
