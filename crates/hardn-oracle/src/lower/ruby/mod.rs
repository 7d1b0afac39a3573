//! Ruby to the common form.
//!
//! Every method call becomes a call, with or without arguments. Bare words are variables where the method around them
//! assigns them, and calls otherwise. Blocks are closures, given as the keyword argument `&block`.

mod call;
mod declaration;
mod expression;
mod statement;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::Node;

use crate::{
    ir::{Program, Stmt},
    lower::front_end::{FrontEnd, Source, named},
};

/// What frameworks call the request and its parts: as good as variables, so that checks of their elements hold.
const REQUEST: &[&str] = &["params", "cookies", "request", "session", "headers"];

/// What registers methods of a controller that run before its actions.
const FILTERS: &[&str] =
    &["before_action", "prepend_before_action", "append_before_action", "before_filter"];

pub(super) fn lower<'a>(root: Node<'_>, code: &'a str) -> Program<'a> {
    let mut lowering = Lowering {
        source: Source { code },
        program: Program::default(),
        class: None,
        depth: 0,
        locals: BTreeSet::new(),
        fields: BTreeSet::new(),
        methods: BTreeSet::new(),
        filters: BTreeSet::new(),
        heredocs: BTreeMap::new(),
        in_loop: false,
    };
    lowering.prepare(root);
    lowering.locals = lowering.assigned(root);
    lowering.top_level(|lowering| lowering.block(root));
    lowering.program
}

struct Lowering<'a, 't> {
    source: Source<'a>,
    program: Program<'a>,
    class: Option<&'a str>,
    depth: u32,
    /// Variables of the method at hand: all other bare words are calls.
    locals: BTreeSet<&'a str>,
    /// Readers that classes declare for their fields.
    fields: BTreeSet<&'a str>,
    /// Methods of the file.
    methods: BTreeSet<&'a str>,
    /// Methods that run before all others of their class.
    filters: BTreeSet<&'a str>,
    /// Where a here-document begins to the text that follows further down.
    heredocs: BTreeMap<usize, Node<'t>>,
    /// Directly inside a `while`, `until` or `for`, not in a block within it.
    in_loop: bool,
}

impl<'a, 't> FrontEnd<'a, 't> for Lowering<'a, '_> {
    const BLOCKS: &'static [&'static str] =
        &["body_statement", "block_body", "then", "do", "else", "ensure", "program"];

    fn depth(&mut self) -> &mut u32 {
        &mut self.depth
    }

    fn program(&mut self) -> &mut Program<'a> {
        &mut self.program
    }

    fn block(&mut self, node: Node<'t>) -> Vec<Stmt<'a>> {
        let children = named(node);
        let handled = children.iter().any(|child| matches!(child.kind(), "rescue" | "ensure"));
        if handled && matches!(node.kind(), "body_statement" | "begin" | "block_body") {
            return vec![self.rescued(node, &children)];
        }
        let mut out = Vec::new();
        self.block_into(node, &mut out);
        out
    }
}

impl<'a, 't> Lowering<'a, 't> {
    /// Notes what must be known of the whole file before its statements.
    fn prepare(&mut self, root: Node<'t>) {
        let (mut begins, mut bodies) = (Vec::new(), Vec::new());
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            match node.kind() {
                "heredoc_beginning" => begins.push(node.start_byte()),
                "heredoc_body" => bodies.push(node),
                "method" => {
                    self.methods.insert(self.source.field(node, "name"));
                }
                "call" => {
                    let method = self.source.field(node, "method");
                    let names = match method {
                        "attr_reader" | "attr_accessor" => Some(&mut self.fields),
                        _ if FILTERS.contains(&method) => Some(&mut self.filters),
                        _ => None,
                    };
                    if let Some(names) = names
                        && let Some(args) = node.child_by_field_name("arguments")
                    {
                        for arg in named(args) {
                            names.insert(self.source.text(arg).trim_start_matches(':'));
                        }
                    }
                }
                _ => {}
            }
            let mut cursor = node.walk();
            stack.extend(node.children(&mut cursor));
        }
        begins.sort_unstable();
        bodies.sort_by_key(Node::start_byte);
        self.heredocs = begins.into_iter().zip(bodies).collect();
    }

    /// The variables that are assigned under a node, but for methods and classes inside it.
    fn assigned(&self, node: Node<'_>) -> BTreeSet<&'a str> {
        let mut out = BTreeSet::new();
        let mut stack = vec![node];
        while let Some(at) = stack.pop() {
            let inner = match at.kind() {
                "method" | "singleton_method" | "class" | "module" if at != node => continue,
                "assignment" | "operator_assignment" => at.child_by_field_name("left"),
                "for" => at.child_by_field_name("pattern"),
                "exception_variable"
                | "rest_assignment"
                | "left_assignment_list"
                | "block_parameters"
                | "lambda_parameters"
                | "method_parameters"
                | "destructured_parameter"
                | "destructured_left_assignment"
                | "in_clause"
                | "as_pattern" => Some(at),
                "optional_parameter"
                | "keyword_parameter"
                | "splat_parameter"
                | "hash_splat_parameter"
                | "block_parameter" => at.child_by_field_name("name"),
                _ => None,
            };
            if let Some(inner) = inner {
                if inner.kind() == "identifier" {
                    out.insert(self.source.text(inner));
                } else if at.kind() != "assignment" || inner.kind() == "left_assignment_list" {
                    for child in named(inner) {
                        if child.kind() == "identifier" {
                            out.insert(self.source.text(child));
                        }
                    }
                }
            }
            let mut cursor = at.walk();
            stack.extend(at.named_children(&mut cursor));
        }
        out
    }
}
