//! What all front ends share: the text and the ranges of nodes, and the walk down a tree with its nesting counted.

use tree_sitter::Node;

use super::{MAX_DEPTH, make};
use crate::ir::{BinaryOp, Expr, ExprKind, Function, Program, Range, Stmt};

/// Branches and operands that stand side by side and become nested; what comes after these is not told apart.
pub(super) const MAX_CHAIN: usize = 50;

/// Nodes of an expression that may be lowered twice.
pub(super) const MAX_COPIED: usize = 64;

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
        self.deeper_by(1, inner)
    }

    fn deeper_by<T>(&mut self, levels: usize, inner: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let levels = levels as u32;
        *self.depth() += levels;
        let result = if *self.depth() <= MAX_DEPTH { Some(inner(self)) } else { None };
        *self.depth() -= levels;
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

    /// An expression that is lowered a second time. Copies may hold what is copied again, so large ones are unknown.
    fn copy(&mut self, node: Node<'t>) -> Expr<'a> {
        if node.descendant_count() > MAX_COPIED {
            unknown(node, Vec::new())
        } else {
            self.expr(node)
        }
    }

    fn field_copy(&mut self, node: Node<'t>, field: &str) -> Expr<'a> {
        match node.child_by_field_name(field) {
            Some(child) => self.copy(child),
            None => unknown(node, Vec::new()),
        }
    }

    /// A chain of tests that the language writes side by side, each with the statements it stands for.
    fn branches(
        &mut self,
        clauses: Vec<Node<'t>>,
        mut branch: impl FnMut(&mut Self, Node<'t>) -> (Expr<'a>, Vec<Stmt<'a>>, Range),
        otherwise: impl FnOnce(&mut Self) -> Vec<Stmt<'a>>,
    ) -> Vec<Stmt<'a>> {
        let levels = clauses.len().min(MAX_CHAIN);
        let mut branches = Vec::new();
        for (number, clause) in clauses.into_iter().enumerate() {
            let level = number.min(MAX_CHAIN);
            branches.extend(self.deeper_by(level, |lowering| branch(lowering, clause)));
        }
        let otherwise = self.deeper_by(levels, otherwise).unwrap_or_default();
        make::branches(branches, otherwise)
    }

    /// Operands side by side, joined by one operator; of too many nothing is known.
    fn joined(
        &mut self,
        op: BinaryOp,
        count: usize,
        at: Range,
        mut operand: impl FnMut(&mut Self, usize) -> Expr<'a>,
    ) -> Expr<'a> {
        let nothing = || Expr::new(ExprKind::Unknown(Vec::new()), at);
        if count > MAX_CHAIN {
            let parts = (0..count).map(|number| operand(self, number)).collect();
            return Expr::new(ExprKind::Unknown(parts), at);
        }
        self.deeper_by(count.saturating_sub(1), |lowering| {
            (0..count)
                .map(|number| operand(lowering, number))
                .reduce(|left, right| make::binary(op, left, right, at))
        })
        .flatten()
        .unwrap_or_else(nothing)
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
