//! Ruby to the common form.
//!
//! Every method call becomes a call, with or without arguments. Bare words are variables where the method around them
//! assigns them, and calls otherwise. Blocks are closures, given as the keyword argument `&block`.

mod call;
mod text;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use tree_sitter::Node;

use super::{MAX_DEPTH, Source, error_bytes, literal, named, range, unknown};
use crate::ir::{
    Arg, BinaryOp, Case, Expr, ExprKind, Function, Loop, Param, Program, Range, Stmt, StmtKind,
    Type,
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
    lowering.program.functions.push(Function::top_level());
    lowering.locals = lowering.assigned(root);
    let body = lowering.block(root);
    lowering.program.functions[0].body = body;
    lowering.program.error_bytes = error_bytes(root);
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

    fn block(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let children = named(node);
        let handled = children.iter().any(|child| matches!(child.kind(), "rescue" | "ensure"));
        if handled && matches!(node.kind(), "body_statement" | "begin" | "block_body") {
            return vec![self.rescued(node, &children)];
        }
        let mut out = Vec::new();
        for child in children {
            self.statement(child, &mut out);
        }
        out
    }

    fn field_block(&mut self, node: Node<'_>, field: &str) -> Vec<Stmt<'a>> {
        node.child_by_field_name(field).map(|body| self.body(body)).unwrap_or_default()
    }

    /// A block, or a single statement in its place.
    fn body(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        match node.kind() {
            "body_statement" | "block_body" | "then" | "do" | "else" | "ensure" | "program" => {
                self.block(node)
            }
            _ => {
                let mut out = Vec::new();
                self.statement(node, &mut out);
                out
            }
        }
    }

    fn rescued(&mut self, node: Node<'_>, children: &[Node<'_>]) -> Stmt<'a> {
        let (mut body, mut handlers, mut otherwise, mut finally) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for child in children {
            match child.kind() {
                "rescue" => handlers.push(self.rescue(*child)),
                "else" => otherwise = self.block(*child),
                "ensure" => finally = self.block(*child),
                _ => self.statement(*child, &mut body),
            }
        }
        let kind = StmtKind::Try { body, handlers, otherwise, finally };
        Stmt { kind, range: range(node) }
    }

    /// `rescue Error => e`: the variable holds an `Exception`.
    fn rescue(&mut self, node: Node<'_>) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        let variable = node.child_by_field_name("variable").and_then(|node| node.named_child(0));
        if let Some(variable) = variable {
            let at = range(variable);
            let value = construct("Exception", Vec::new(), at);
            let target = Box::new(self.expr(variable));
            let kind = ExprKind::Assign { op: None, target, value: Box::new(value) };
            out.push(Stmt { kind: StmtKind::Expr(Expr::new(kind, at)), range: at });
        }
        out.extend(self.field_block(node, "body"));
        out
    }

    fn statement(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.statement_inner(node, out);
        }
        self.depth -= 1;
    }

    fn statement_inner(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let at = range(node);
        let kind = match node.kind() {
            // What could be recovered inside an error still counts.
            "ERROR" => {
                out.extend(self.block(node));
                return;
            }
            "method" | "singleton_method" => {
                self.method(node);
                return;
            }
            "class" | "module" => {
                self.class(node);
                return;
            }
            "singleton_class" => {
                if let Some(body) = node.child_by_field_name("body") {
                    let statements = self.block(body);
                    out.extend(statements);
                }
                return;
            }
            "begin" | "begin_block" | "end_block" => StmtKind::Block(self.block(node)),
            "parenthesized_statements" if node.named_child_count() > 1 => {
                StmtKind::Block(self.block(node))
            }
            "if" | "elsif" | "unless" => self.branch(node),
            "if_modifier" | "unless_modifier" => {
                let body = node.child_by_field_name("body");
                let then = body.map(|body| self.body(body)).unwrap_or_default();
                let test = self.condition(node, node.kind() == "unless_modifier");
                StmtKind::If { test, then, otherwise: Vec::new() }
            }
            "while" | "until" | "while_modifier" | "until_modifier" => {
                let outer = std::mem::replace(&mut self.in_loop, true);
                let test = self.condition(node, node.kind().starts_with("until"));
                let body = self.field_block(node, "body");
                self.in_loop = outer;
                let body_first = node.kind().ends_with("modifier")
                    && node.child_by_field_name("body").is_some_and(|body| body.kind() == "begin");
                looped(None, Some(test), body, body_first)
            }
            "for" => {
                let outer = std::mem::replace(&mut self.in_loop, true);
                let bind = (*self.boxed(node, "pattern"), *self.boxed(node, "value"));
                let body = self.field_block(node, "body");
                self.in_loop = outer;
                looped(Some(bind), None, body, false)
            }
            "case" | "case_match" => self.case(node),
            "return" => StmtKind::Return(self.given(node)),
            "next" | "break" if !self.in_loop => StmtKind::Return(self.given(node)),
            "next" | "redo" | "retry" => StmtKind::Continue,
            "break" => StmtKind::Break,
            "binary" if leaves(node) => {
                // `redirect_to path and return`
                let test = *self.boxed(node, "left");
                let mut last = Vec::new();
                if let Some(right) = node.child_by_field_name("right") {
                    self.statement(right, &mut last);
                }
                if says_done(&test) {
                    out.push(Stmt { kind: StmtKind::Expr(test), range: at });
                    out.extend(last);
                    return;
                }
                let and = matches!(self.source.field(node, "operator"), "and" | "&&");
                let (then, otherwise) = if and { (last, Vec::new()) } else { (Vec::new(), last) };
                StmtKind::If { test, then, otherwise }
            }
            "call" if self.is_raise(node) => {
                let args = node.child_by_field_name("arguments");
                let values = args.map(|args| self.exprs(args)).unwrap_or_default();
                StmtKind::Raise(Some(Expr::new(ExprKind::Unknown(values), at)))
            }
            "identifier" if matches!(self.source.text(node), "raise" | "fail") => {
                StmtKind::Raise(None)
            }
            "heredoc_body" | "heredoc_end" | "comment" | "empty_statement" | "uninterpreted"
            | "alias" | "undef" => return,
            _ => StmtKind::Expr(self.expr(node)),
        };
        out.push(Stmt { kind, range: at });
    }

    fn is_raise(&self, node: Node<'_>) -> bool {
        node.child_by_field_name("receiver").is_none()
            && matches!(self.source.field(node, "method"), "raise" | "fail")
    }

    /// What `return`, `next` and `break` carry.
    fn given(&mut self, node: Node<'_>) -> Option<Expr<'a>> {
        let list = node.named_child(0)?;
        let mut values = self.exprs(list);
        match values.len() {
            0 => None,
            1 => values.pop(),
            _ => Some(Expr::new(ExprKind::List(values), range(list))),
        }
    }

    fn condition(&mut self, node: Node<'_>, negated: bool) -> Expr<'a> {
        let test = self.boxed(node, "condition");
        if negated { Expr::new(ExprKind::Not(test), range(node)) } else { *test }
    }

    fn branch(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let test = self.condition(node, node.kind() == "unless");
        let then = self.field_block(node, "consequence");
        let otherwise = match node.child_by_field_name("alternative") {
            Some(clause) => self.body(clause),
            None => Vec::new(),
        };
        StmtKind::If { test, then, otherwise }
    }

    /// `case value` is a switch; without a value it is a chain of tests.
    fn case(&mut self, node: Node<'_>) -> StmtKind<'a> {
        let value = node.child_by_field_name("value").map(|value| self.expr(value));
        let mut cases = Vec::new();
        for child in named(node) {
            let values = match child.kind() {
                "when" => {
                    let mut cursor = child.walk();
                    let patterns: Vec<Node<'_>> =
                        child.children_by_field_name("pattern", &mut cursor).collect();
                    patterns
                        .into_iter()
                        .filter(Node::is_named)
                        .filter_map(|pattern| pattern.named_child(0))
                        .map(|pattern| self.expr(pattern))
                        .collect()
                }
                "in_clause" => vec![*self.boxed(child, "pattern")],
                "else" => Vec::new(),
                _ => continue,
            };
            let body = if child.kind() == "else" {
                self.block(child)
            } else {
                self.field_block(child, "body")
            };
            cases.push(Case { values, body, falls_through: false });
        }
        if let Some(value) = value {
            return StmtKind::Switch { value, cases };
        }
        let mut otherwise = Vec::new();
        for case in cases.into_iter().rev() {
            let at = range(node);
            let Some(test) =
                case.values.into_iter().reduce(|left, right| binary(BinaryOp::Or, left, right, at))
            else {
                otherwise = case.body;
                continue;
            };
            let kind =
                StmtKind::If { test, then: case.body, otherwise: std::mem::take(&mut otherwise) };
            otherwise = vec![Stmt { kind, range: at }];
        }
        StmtKind::Block(otherwise)
    }

    fn class(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let outer_class = self.class.replace(name);
        let Some(body) = node.child_by_field_name("body") else {
            self.program.classes.entry(name).or_default();
            self.class = outer_class;
            return;
        };
        let locals = self.assigned(body);
        let outer_locals = std::mem::replace(&mut self.locals, locals);
        let mut statements = Vec::new();
        if let Some(superclass) = node.child_by_field_name("superclass") {
            // `class A < B` stands as a call, so that rules can ask what a class is.
            if let Some(parent) = superclass.named_child(0) {
                let parent = self.source.text(parent);
                self.program.supers.entry(name).or_default().push(parent);
            }
            let parent = self.exprs(superclass);
            let args = parent.into_iter().map(|value| Arg { name: None, value }).collect();
            let at = range(superclass);
            statements.push(Stmt { kind: StmtKind::Expr(called("inherits", args, at)), range: at });
        }
        statements.extend(self.block(body));
        self.locals = outer_locals;
        self.class = outer_class;
        self.program.classes.entry(name).or_default().extend(statements);
    }

    fn method(&mut self, node: Node<'_>) {
        let name = self.source.field(node, "name");
        let body_node = node.child_by_field_name("body");
        let mut locals = self.assigned(node);
        let mut params = Vec::new();
        let outer_loop = std::mem::replace(&mut self.in_loop, false);
        std::mem::swap(&mut self.locals, &mut locals);
        if let Some(list) = node.child_by_field_name("parameters") {
            self.params(list, &mut params);
        }
        let mut body = body_node.map(|body| self.body(body)).unwrap_or_default();
        returning(&mut body);
        self.locals = locals;
        self.in_loop = outer_loop;
        self.program.functions.push(Function {
            name,
            class: self.class,
            params,
            returns: Type::default(),
            decorators: Vec::new(),
            body,
            top_level: false,
            constructor: self.class.is_some()
                && (name == "initialize" || self.filters.contains(name)),
        });
    }

    fn params(&mut self, list: Node<'_>, out: &mut Vec<Param<'a>>) {
        for node in named(list) {
            let name = match node.kind() {
                "identifier" => self.source.text(node),
                "destructured_parameter" => {
                    self.params(node, out);
                    continue;
                }
                _ => self.source.field(node, "name"),
            };
            let default = node.child_by_field_name("value").map(|value| self.expr(value));
            out.push(Param { name, ty: Type::default(), default, range: range(node) });
        }
    }

    fn exprs(&mut self, node: Node<'_>) -> Vec<Expr<'a>> {
        named(node).into_iter().map(|child| self.expr(child)).collect()
    }

    fn expr(&mut self, node: Node<'_>) -> Expr<'a> {
        self.depth += 1;
        let expr =
            if self.depth > MAX_DEPTH { unknown(node, Vec::new()) } else { self.expr_inner(node) };
        self.depth -= 1;
        expr
    }

    fn boxed(&mut self, node: Node<'_>, field: &str) -> Box<Expr<'a>> {
        Box::new(match node.child_by_field_name(field) {
            Some(child) => self.expr(child),
            None => unknown(node, Vec::new()),
        })
    }

    fn expr_inner(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let kind = match node.kind() {
            "identifier" => return self.word(node),
            "constant" | "global_variable" => ExprKind::Name(self.source.text(node)),
            "super" => return called("super", Vec::new(), at),
            "self" => ExprKind::Name("self"),
            "instance_variable" | "class_variable" => {
                field_of_self(self.source.text(node).trim_start_matches('@'), at)
            }
            "scope_resolution" => match node.child_by_field_name("scope") {
                Some(scope) => ExprKind::Attribute {
                    base: Box::new(self.expr(scope)),
                    name: self.source.field(node, "name"),
                    arrow: false,
                },
                None => ExprKind::Name(self.source.field(node, "name")),
            },
            "integer" => {
                literal::integer(self.source.text(node)).map_or(ExprKind::Float, ExprKind::Int)
            }
            "float" | "rational" | "complex" | "line" => ExprKind::Float,
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "nil" => ExprKind::Null,
            "subshell" | "heredoc_beginning"
                if node.kind() == "subshell" || self.source.text(node).contains('`') =>
            {
                let text = Expr::new(self.string(node), at);
                return called("%x", vec![Arg { name: None, value: text }], at);
            }
            "string" | "chained_string" | "bare_string" | "simple_symbol" | "delimited_symbol"
            | "bare_symbol" | "hash_key_symbol" | "character" | "heredoc_beginning"
            | "heredoc_body" | "file" | "encoding" => self.string(node),
            "regex" => return self.regex(node),
            "call" => return self.call(node),
            "element_reference" => return self.element(node),
            "array" | "string_array" | "symbol_array" => ExprKind::List(self.exprs(node)),
            "argument_list" | "right_assignment_list" => {
                let mut values = self.exprs(node);
                match values.pop() {
                    Some(only) if values.is_empty() => return only,
                    Some(last) => {
                        values.push(last);
                        ExprKind::List(values)
                    }
                    None => ExprKind::Null,
                }
            }
            "left_assignment_list" | "destructured_left_assignment" | "destructured_parameter" => {
                ExprKind::Tuple(self.exprs(node))
            }
            "hash" => self.hash(node),
            "splat_argument" | "hash_splat_argument" | "rest_assignment" => {
                match node.named_child(0) {
                    Some(inner) => ExprKind::Star(Box::new(self.expr(inner))),
                    None => ExprKind::Unknown(Vec::new()),
                }
            }
            "block_argument" => match node.named_child(0) {
                Some(inner) => return self.expr(inner),
                None => ExprKind::Unknown(Vec::new()),
            },
            "binary" => return self.binary(node),
            "unary" => {
                let inner = self.boxed(node, "operand");
                match (self.source.field(node, "operator"), &inner.kind) {
                    ("!" | "not", _) => ExprKind::Not(inner),
                    ("-", ExprKind::Int(number)) => ExprKind::Int(number.saturating_neg()),
                    ("-", _) => ExprKind::Minus(inner),
                    ("~", ExprKind::Int(number)) => ExprKind::Int(!*number),
                    ("~", _) => {
                        let args = vec![Arg { name: None, value: *inner }];
                        return called("~", args, at);
                    }
                    ("defined?", _) => ExprKind::Unknown(Vec::new()),
                    _ => ExprKind::Through(inner),
                }
            }
            "conditional" => ExprKind::Conditional {
                test: self.boxed(node, "condition"),
                then: self.boxed(node, "consequence"),
                otherwise: self.boxed(node, "alternative"),
            },
            "assignment" => {
                let target = Box::new(self.target(node));
                ExprKind::Assign { op: None, target, value: self.boxed(node, "right") }
            }
            "operator_assignment" => self.operator_assignment(node),
            "rescue_modifier" => {
                let body = *self.boxed(node, "body");
                let handler = *self.boxed(node, "handler");
                ExprKind::Unknown(vec![body, handler])
            }
            "parenthesized_statements"
            | "interpolation"
            | "in"
            | "exception_variable"
            | "pattern"
                if node.named_child_count() == 1 =>
            {
                match node.named_child(0) {
                    Some(inner) => ExprKind::Through(Box::new(self.expr(inner))),
                    None => ExprKind::Null,
                }
            }
            "interpolation" | "parenthesized_statements" => ExprKind::Sequence(self.exprs(node)),
            "lambda" => return self.lambda(node),
            "range" => ExprKind::Slice(self.exprs(node)),
            "yield" => {
                let args = node.named_child(0).map(|list| self.args(list)).unwrap_or_default();
                return called("yield", args, at);
            }
            // Statements whose value is used: they run where they stand.
            "if" | "unless" | "case" | "case_match" | "begin" | "while" | "until" | "for"
            | "if_modifier" | "unless_modifier" | "while_modifier" | "until_modifier"
            | "return" | "next" | "break" => {
                let mut body = Vec::new();
                self.statement(node, &mut body);
                returning(&mut body);
                ExprKind::Closure { params: Vec::new(), body }
            }
            "method" | "singleton_method" | "class" | "module" => {
                // `private def helper`
                let mut out = Vec::new();
                self.statement(node, &mut out);
                ExprKind::Str(Cow::Borrowed(self.source.field(node, "name")))
            }
            "pair" => return *self.boxed(node, "value"),
            _ => ExprKind::Unknown(self.exprs(node)),
        };
        Expr::new(kind, at)
    }

    /// A bare word: a variable, a field's reader, or a call without arguments.
    fn word(&mut self, node: Node<'_>) -> Expr<'a> {
        let name = self.source.text(node);
        let at = range(node);
        if self.locals.contains(name) {
            Expr::new(ExprKind::Name(name), at)
        } else if self.fields.contains(name) && self.class.is_some() {
            Expr::new(field_of_self(name, at), at)
        } else if REQUEST.contains(&name) && !self.methods.contains(name) {
            Expr::new(ExprKind::Name(name), at)
        } else {
            called(name, Vec::new(), at)
        }
    }

    fn binary(&mut self, node: Node<'_>) -> Expr<'a> {
        let at = range(node);
        let operator = self.source.field(node, "operator");
        let left = *self.boxed(node, "left");
        let right = *self.boxed(node, "right");
        let op = match operator {
            "+" => BinaryOp::Add,
            "-" => BinaryOp::Sub,
            "*" => BinaryOp::Mul,
            "/" => BinaryOp::Div,
            "%" if matches!(left.kind, ExprKind::Str(_) | ExprKind::Format(_))
                || matches!(right.kind, ExprKind::List(_) | ExprKind::Dict(_)) =>
            {
                let mut args = vec![Arg { name: None, value: left }];
                match right.kind {
                    ExprKind::List(items) => {
                        args.extend(items.into_iter().map(|value| Arg { name: None, value }));
                    }
                    kind => {
                        args.push(Arg { name: None, value: Expr::new(kind, right.range) });
                    }
                }
                return called("format", args, at);
            }
            "%" => BinaryOp::Mod,
            "&" => BinaryOp::BitAnd,
            "|" => BinaryOp::BitOr,
            "^" => BinaryOp::BitXor,
            ">>" => BinaryOp::Shr,
            "==" => BinaryOp::Eq,
            "!=" => BinaryOp::Ne,
            "<" => BinaryOp::Lt,
            "<=" => BinaryOp::Le,
            ">" => BinaryOp::Gt,
            ">=" => BinaryOp::Ge,
            "&&" | "and" => BinaryOp::And,
            "||" | "or" => BinaryOp::Or,
            "=~" | "<<" | "===" => {
                let name = operator_name(operator);
                return method_called(left, name, vec![Arg { name: None, value: right }], at);
            }
            "!~" => {
                let args = vec![Arg { name: None, value: right }];
                let found = method_called(left, "=~", args, at);
                return Expr::new(ExprKind::Not(Box::new(found)), at);
            }
            _ => BinaryOp::Other,
        };
        binary(op, left, right, at)
    }

    /// What is assigned to: `x.name = value` sets an attribute, a bare word is a variable.
    fn target(&mut self, node: Node<'_>) -> Expr<'a> {
        let Some(left) = node.child_by_field_name("left") else {
            return unknown(node, Vec::new());
        };
        let at = range(left);
        match left.kind() {
            "identifier" => Expr::new(ExprKind::Name(self.source.text(left)), at),
            "call" if left.child_by_field_name("receiver").is_some() => {
                let base = self.boxed(left, "receiver");
                let name = self.source.field(left, "method");
                Expr::new(ExprKind::Attribute { base, name, arrow: false }, at)
            }
            _ => self.expr(left),
        }
    }

    fn operator_assignment(&mut self, node: Node<'_>) -> ExprKind<'a> {
        let target = Box::new(self.target(node));
        let value = self.boxed(node, "right");
        let operator = self.source.field(node, "operator");
        let op = match operator.trim_end_matches('=') {
            "+" => BinaryOp::Add,
            "-" => BinaryOp::Sub,
            "*" => BinaryOp::Mul,
            "|" => BinaryOp::BitOr,
            "||" | "&&" => {
                let left = self.boxed(node, "left");
                let either = binary(BinaryOp::Or, *left, *value, range(node));
                return ExprKind::Assign { op: None, target, value: Box::new(either) };
            }
            "<<" => {
                let args = vec![Arg { name: None, value: *value }];
                return method_called(*target, "<<", args, range(node)).kind;
            }
            _ => BinaryOp::Other,
        };
        ExprKind::Assign { op: Some(op), target, value }
    }
}

/// The value of the last statement is what a method or block returns.
fn returning(body: &mut [Stmt<'_>]) {
    let Some(last) = body.last_mut() else { return };
    match &mut last.kind {
        StmtKind::Expr(_) => {
            let kind = std::mem::replace(&mut last.kind, StmtKind::Break);
            if let StmtKind::Expr(expr) = kind {
                last.kind = StmtKind::Return(Some(expr));
            }
        }
        StmtKind::If { then, otherwise, .. } => {
            returning(then);
            returning(otherwise);
        }
        StmtKind::Switch { cases, .. } => {
            for case in cases {
                returning(&mut case.body);
            }
        }
        StmtKind::Try { body, handlers, otherwise, .. } => {
            returning(if otherwise.is_empty() { body } else { otherwise });
            for handler in handlers {
                returning(handler);
            }
        }
        StmtKind::Block(body) => returning(body),
        _ => {}
    }
}

/// `a and return`: control leaves on the right.
fn leaves(node: Node<'_>) -> bool {
    let Some(right) = node.child_by_field_name("right") else { return false };
    let operator = node.child_by_field_name("operator").map_or("", |node| node.kind());
    matches!(operator, "and" | "or" | "&&" | "||")
        && matches!(right.kind(), "return" | "next" | "break")
}

/// A call that answers the request: what follows `and` is always done.
fn says_done(test: &Expr<'_>) -> bool {
    matches!(&test.kind, ExprKind::Call { callee, .. }
        if matches!(callee.kind, ExprKind::Name("render" | "redirect_to" | "head" | "send_file" | "puts")))
}

fn looped<'a>(
    bind: Option<(Expr<'a>, Expr<'a>)>,
    test: Option<Expr<'a>>,
    body: Vec<Stmt<'a>>,
    body_first: bool,
) -> StmtKind<'a> {
    StmtKind::Loop(Box::new(Loop {
        init: Vec::new(),
        bind,
        test,
        body,
        step: None,
        otherwise: Vec::new(),
        body_first,
    }))
}

fn operator_name(operator: &str) -> &'static str {
    match operator {
        "=~" => "=~",
        "<<" => "<<",
        _ => "===",
    }
}

fn field_of_self(name: &str, at: Range) -> ExprKind<'_> {
    let base = Box::new(Expr::new(ExprKind::Name("self"), at));
    ExprKind::Attribute { base, name, arrow: false }
}

fn binary<'a>(op: BinaryOp, left: Expr<'a>, right: Expr<'a>, at: Range) -> Expr<'a> {
    let kind = ExprKind::Binary { op, left: Box::new(left), right: Box::new(right) };
    Expr::new(kind, at)
}

/// A call without a receiver.
fn called<'a>(name: &'a str, args: Vec<Arg<'a>>, at: Range) -> Expr<'a> {
    let callee = Box::new(Expr::new(ExprKind::Name(name), at));
    Expr::new(ExprKind::Call { callee, args }, at)
}

fn method_called<'a>(base: Expr<'a>, name: &'a str, args: Vec<Arg<'a>>, at: Range) -> Expr<'a> {
    let attribute = ExprKind::Attribute { base: Box::new(base), name, arrow: false };
    let callee = Box::new(Expr::new(attribute, at));
    Expr::new(ExprKind::Call { callee, args }, at)
}

fn construct<'a>(class: &'a str, args: Vec<Arg<'a>>, at: Range) -> Expr<'a> {
    let callee = Box::new(Expr::new(ExprKind::Name(class), at));
    Expr::new(ExprKind::Construct { callee, args }, at)
}
