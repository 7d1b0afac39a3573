//! Statements of Java.

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Case, Expr, ExprKind, Loop, Stmt, StmtKind, Type},
    lower::{
        front_end::{FrontEnd, LowerStatement, all_named, first_named, named, range},
        make,
    },
};

impl<'a, 't> LowerStatement<'a, 't> for Lowering<'a, 't> {
    fn lower_statement(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.kind() {
            "ERROR" => {
                // What could be recovered inside an error still counts.
                self.block_into(node, out);
                return;
            }
            "expression_statement" => {
                for child in named(node) {
                    if child.kind() == "switch_expression" {
                        self.statement(child, out);
                        continue;
                    }
                    let expr = self.expr(child);
                    out.push(make::statement(expr, range(child)));
                }
                return;
            }
            "import_declaration" | "package_declaration" => {
                self.import(node);
                return;
            }
            "class_declaration"
            | "interface_declaration"
            | "enum_declaration"
            | "record_declaration"
            | "annotation_type_declaration" => {
                self.class(node, out);
                return;
            }
            "method_declaration" | "constructor_declaration" => {
                self.function(node);
                return;
            }
            "local_variable_declaration" | "field_declaration" => {
                self.declaration(node, out);
                return;
            }
            "return_statement" | "yield_statement" => StmtKind::Return(self.first(node)),
            "throw_statement" => StmtKind::Raise(self.first(node)),
            // Assertions are off unless asked for.
            "assert_statement" => {
                StmtKind::Expr(Expr::new(ExprKind::Unknown(self.exprs(node)), range(node)))
            }
            "if_statement" => {
                let test = *self.boxed(node, "condition");
                let then = self.field_block(node, "consequence");
                let otherwise = self.field_block(node, "alternative");
                StmtKind::If { test, then, otherwise }
            }
            "while_statement" => make::looped(Loop {
                test: self.loop_test(node),
                body: self.field_block(node, "body"),
                ..Loop::default()
            }),
            "do_statement" => {
                let body = self.field_block(node, "body");
                make::looped(Loop {
                    test: self.loop_test(node),
                    body,
                    body_first: true,
                    ..Loop::default()
                })
            }
            "for_statement" => self.for_statement(node),
            "enhanced_for_statement" => self.for_each(node),
            "labeled_statement" => {
                if let Some(inner) = named(node).into_iter().nth(1) {
                    self.statement(inner, out);
                }
                return;
            }
            "switch_expression" | "switch_statement" => self.switch(node, false),
            "synchronized_statement" => {
                for child in named(node) {
                    if child.kind() == "parenthesized_expression" {
                        let expr = self.expr(child);
                        out.push(make::statement(expr, range(child)));
                    }
                }
                StmtKind::Block(self.field_block(node, "body"))
            }
            "try_statement" | "try_with_resources_statement" => self.try_statement(node),
            "block" | "constructor_body" | "class_body" => StmtKind::Block(self.block(node)),
            "break_statement" => StmtKind::Break,
            "continue_statement" => StmtKind::Continue,
            "explicit_constructor_invocation" => {
                let name = self.source.field(node, "constructor");
                StmtKind::Expr(make::called(name, self.arguments(node), range(node)))
            }
            "modifiers" | "line_comment" | "block_comment" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: range(node) });
    }
}

impl<'a, 't> Lowering<'a, 't> {
    fn loop_test(&mut self, node: Node<'t>) -> Option<Expr<'a>> {
        let test = node.child_by_field_name("condition").map(|test| self.expr(test))?;
        self.program.loop_tests.insert(test.range.start);
        Some(test)
    }

    fn for_statement(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let mut init = Vec::new();
        let parts = all_named(node, "init");
        for part in parts {
            self.statement(part, &mut init);
        }
        let test = self.loop_test(node);
        let updates = all_named(node, "update");
        let body = self.field_block(node, "body");
        let mut steps: Vec<Expr<'a>> = updates.into_iter().map(|step| self.expr(step)).collect();
        self.locals.leave(mark);
        let step = if steps.len() > 1 {
            Some(Expr::new(ExprKind::Sequence(steps), range(node)))
        } else {
            steps.pop()
        };
        let (bind, otherwise, body_first) = (None, Vec::new(), false);
        make::looped(Loop { init, bind, test, body, step, otherwise, body_first })
    }

    fn for_each(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let iterable = *self.boxed(node, "value");
        let place = node.child_by_field_name("name").map_or_else(|| range(node), range);
        let name = self.source.field(node, "name");
        self.locals.add(name);
        let variable = |kind| Expr::new(kind, place);
        let mut body = Vec::new();
        if let Some(ty) = node.child_by_field_name("type")
            && self.source.text(ty) != "var"
        {
            let init = variable(ExprKind::Sequence(vec![variable(ExprKind::Name(name))]));
            let kind = StmtKind::Declare { name, ty: self.ty(ty), init: Some(init) };
            body.push(Stmt { kind, range: place });
        }
        body.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        make::looped(Loop {
            bind: Some((variable(ExprKind::Name(name)), iterable)),
            body,
            ..Loop::default()
        })
    }

    /// A switch; as an expression its arrows return their values.
    pub(super) fn switch(&mut self, node: Node<'t>, as_value: bool) -> StmtKind<'a> {
        let value = *self.boxed(node, "condition");
        let mut cases = Vec::new();
        if let Some(body) = node.child_by_field_name("body") {
            for clause in named(body) {
                let falls_through = clause.kind() == "switch_block_statement_group";
                let mark = self.locals.order.len();
                let mut values = Vec::new();
                let mut statements = Vec::new();
                for part in named(clause) {
                    if part.kind() == "switch_label" {
                        for value in named(part) {
                            values.push(self.expr(value));
                        }
                    } else if as_value && part.kind() == "expression_statement" {
                        for inner in named(part) {
                            let value = self.expr(inner);
                            let kind = StmtKind::Return(Some(value));
                            statements.push(Stmt { kind, range: range(inner) });
                        }
                    } else {
                        self.statement(part, &mut statements);
                    }
                }
                self.locals.leave(mark);
                cases.push(Case { values, body: statements, falls_through });
            }
        }
        StmtKind::Switch { value, cases }
    }

    fn try_statement(&mut self, node: Node<'t>) -> StmtKind<'a> {
        let mark = self.locals.order.len();
        let mut body = Vec::new();
        if let Some(resources) = node.child_by_field_name("resources") {
            for resource in named(resources) {
                self.resource(resource, &mut body);
            }
        }
        body.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        let (mut handlers, mut finally) = (Vec::new(), Vec::new());
        for child in named(node) {
            match child.kind() {
                "catch_clause" => handlers.push(self.catch(child)),
                "finally_clause" => {
                    if let Some(block) = named(child).into_iter().next() {
                        finally = self.block(block);
                    }
                }
                _ => {}
            }
        }
        StmtKind::Try { body, handlers, otherwise: Vec::new(), finally }
    }

    fn resource(&mut self, node: Node<'t>, out: &mut Vec<Stmt<'a>>) {
        let kind = match node.child_by_field_name("value") {
            Some(value) => {
                let init = Some(self.expr(value));
                let ty = match node.child_by_field_name("type") {
                    Some(ty) if self.source.text(ty) != "var" => self.ty(ty),
                    _ => Type::default(),
                };
                let name = self.source.field(node, "name");
                self.locals.add(name);
                StmtKind::Declare { name, ty, init }
            }
            None => match first_named(node) {
                Some(inner) => StmtKind::Expr(self.expr(inner)),
                None => return,
            },
        };
        out.push(Stmt { kind, range: range(node) });
    }

    fn catch(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let mark = self.locals.order.len();
        let mut out = Vec::new();
        if let Some(param) =
            named(node).into_iter().find(|child| child.kind() == "catch_formal_parameter")
        {
            let ty = named(param)
                .into_iter()
                .find(|part| part.kind() == "catch_type")
                .and_then(|types| named(types).into_iter().next())
                .map(|ty| self.ty(ty))
                .unwrap_or_default();
            let name = self.source.field(param, "name");
            self.locals.add(name);
            out.push(Stmt {
                kind: StmtKind::Declare { name, ty, init: None },
                range: range(param),
            });
        }
        out.extend(self.field_block(node, "body"));
        self.locals.leave(mark);
        out
    }
}
