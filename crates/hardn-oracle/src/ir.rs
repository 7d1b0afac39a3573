//! The small common form every language is lowered to: functions, statements and expressions.
//!
//! Names borrow from the source text. Positions are byte ranges; they become lines and columns only in findings.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// A byte range of the source, the end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// One file or snippet.
#[derive(Debug, Default)]
pub(crate) struct Program<'a> {
    /// Statements outside functions come as one function of their own, always the first.
    pub(crate) functions: Vec<Function<'a>>,
    /// Class name to the statements of its body that are not methods.
    pub(crate) classes: BTreeMap<&'a str, Vec<Stmt<'a>>>,
    /// Class name to the classes and interfaces it extends, where the language says so.
    pub(crate) supers: BTreeMap<&'a str, Vec<&'a str>>,
    /// Class name to its decorators, where rules can ask for them.
    pub(crate) decorators: BTreeMap<&'a str, Vec<Expr<'a>>>,
    /// Where the tests of loops start.
    pub(crate) loop_tests: BTreeSet<u32>,
    /// Where an object of an anonymous class is made, to the numbers of the class's methods.
    pub(crate) anonymous: BTreeMap<u32, Vec<usize>>,
    /// Local name to the dotted path it was imported from.
    pub(crate) imports: BTreeMap<&'a str, String>,
    /// Numeric constants of the preprocessor and of enumerations.
    pub(crate) constants: BTreeMap<&'a str, i64>,
    /// Struct name to its fields.
    pub(crate) structs: BTreeMap<&'a str, BTreeMap<&'a str, Type<'a>>>,
    /// Struct name to its fields in order; no order for unions, whose fields share one place.
    pub(crate) layouts: BTreeMap<&'a str, Vec<&'a str>>,
    /// What functions return that are declared without a body.
    pub(crate) prototypes: BTreeMap<&'a str, Type<'a>>,
    /// Type names that stand for other types.
    pub(crate) typedefs: BTreeMap<&'a str, Type<'a>>,
    /// Bytes of text inside error nodes.
    pub(crate) error_bytes: usize,
}

/// A function, method, or the code outside all of them.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: Option<&'a str>,
    pub(crate) params: Vec<Param<'a>>,
    pub(crate) returns: Type<'a>,
    pub(crate) decorators: Vec<Expr<'a>>,
    pub(crate) body: Vec<Stmt<'a>>,
    pub(crate) top_level: bool,
    /// What it leaves in fields holds in the other methods of its class.
    pub(crate) constructor: bool,
}

impl Function<'_> {
    /// The code outside all functions, still empty.
    pub(crate) fn top_level() -> Self {
        Self {
            name: "",
            class: None,
            params: Vec::new(),
            returns: Type::default(),
            decorators: Vec::new(),
            body: Vec::new(),
            top_level: true,
            constructor: false,
        }
    }
}

/// A parameter; `name` is empty where the source gives none.
#[derive(Debug)]
pub(crate) struct Param<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: Type<'a>,
    pub(crate) default: Option<Expr<'a>>,
    pub(crate) range: Range,
}

impl Param<'_> {
    /// What rules know the parameter by: its type where it has one, else its name.
    pub(crate) fn path(&self) -> &str {
        if self.ty.name.is_empty() { self.name } else { &self.ty.name }
    }
}

/// A declared type, as far as sizes and signs need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Type<'a> {
    /// The name without qualifiers, such as `char`, `size_t` or a struct's name; empty where unknown.
    pub(crate) name: Cow<'a, str>,
    /// Stars before the name.
    pub(crate) pointers: u8,
    /// Array dimensions as written; `None` for `[]` or a size that is no constant.
    pub(crate) dimensions: Vec<Option<i64>>,
    /// Text of the first dimension, for sizes that are not constant.
    pub(crate) dimension_text: Option<String>,
    /// Declared `static` or `extern`: it outlives the function.
    pub(crate) is_static: bool,
    /// A reference to something that lives elsewhere.
    pub(crate) is_reference: bool,
}

/// A statement and where it stands.
#[derive(Debug)]
pub(crate) struct Stmt<'a> {
    pub(crate) kind: StmtKind<'a>,
    pub(crate) range: Range,
}

#[derive(Debug)]
pub(crate) enum StmtKind<'a> {
    Expr(Expr<'a>),
    Declare {
        name: &'a str,
        ty: Type<'a>,
        init: Option<Expr<'a>>,
    },
    Return(Option<Expr<'a>>),
    Raise(Option<Expr<'a>>),
    Assert(Expr<'a>),
    Delete(Vec<Expr<'a>>),
    If {
        test: Expr<'a>,
        then: Vec<Stmt<'a>>,
        otherwise: Vec<Stmt<'a>>,
    },
    Loop(Box<Loop<'a>>),
    Switch {
        value: Expr<'a>,
        cases: Vec<Case<'a>>,
    },
    Try {
        body: Vec<Stmt<'a>>,
        handlers: Vec<Vec<Stmt<'a>>>,
        otherwise: Vec<Stmt<'a>>,
        finally: Vec<Stmt<'a>>,
    },
    With {
        items: Vec<(Expr<'a>, Option<Expr<'a>>)>,
        body: Vec<Stmt<'a>>,
    },
    Block(Vec<Stmt<'a>>),
    Goto(&'a str),
    Label(&'a str),
    Break,
    Continue,
}

/// Every loop: `bind` for iteration over a value, `test` for conditions.
#[derive(Debug, Default)]
pub(crate) struct Loop<'a> {
    pub(crate) init: Vec<Stmt<'a>>,
    pub(crate) bind: Option<(Expr<'a>, Expr<'a>)>,
    pub(crate) test: Option<Expr<'a>>,
    pub(crate) body: Vec<Stmt<'a>>,
    pub(crate) step: Option<Expr<'a>>,
    pub(crate) otherwise: Vec<Stmt<'a>>,
    /// The body runs before the first test.
    pub(crate) body_first: bool,
}

#[derive(Debug)]
pub(crate) struct Case<'a> {
    /// Empty for the default case.
    pub(crate) values: Vec<Expr<'a>>,
    pub(crate) body: Vec<Stmt<'a>>,
    /// Control runs on into the next case where the body ends.
    pub(crate) falls_through: bool,
}

/// An expression and where it stands.
#[derive(Debug)]
pub(crate) struct Expr<'a> {
    pub(crate) kind: ExprKind<'a>,
    pub(crate) range: Range,
}

#[derive(Debug)]
pub(crate) enum ExprKind<'a> {
    Name(&'a str),
    Attribute {
        base: Box<Expr<'a>>,
        name: &'a str,
        arrow: bool,
    },
    Subscript {
        base: Box<Expr<'a>>,
        index: Box<Expr<'a>>,
    },
    Slice(Vec<Expr<'a>>),
    Int(i64),
    Float,
    Bool(bool),
    Null,
    Str(Cow<'a, str>),
    /// Text made of parts: f-strings.
    Format(Vec<Expr<'a>>),
    Call {
        callee: Box<Expr<'a>>,
        args: Vec<Arg<'a>>,
    },
    List(Vec<Expr<'a>>),
    Tuple(Vec<Expr<'a>>),
    Set(Vec<Expr<'a>>),
    Dict(Vec<(Option<Expr<'a>>, Expr<'a>)>),
    Binary {
        op: BinaryOp,
        left: Box<Expr<'a>>,
        right: Box<Expr<'a>>,
    },
    Not(Box<Expr<'a>>),
    Minus(Box<Expr<'a>>),
    /// `~x`, `+x`, `await x`, `yield x`: the value passes through.
    Through(Box<Expr<'a>>),
    Star(Box<Expr<'a>>),
    Deref(Box<Expr<'a>>),
    AddressOf(Box<Expr<'a>>),
    Cast {
        ty: Type<'a>,
        value: Box<Expr<'a>>,
    },
    SizeofType(Type<'a>),
    SizeofValue(Box<Expr<'a>>),
    Conditional {
        test: Box<Expr<'a>>,
        then: Box<Expr<'a>>,
        otherwise: Box<Expr<'a>>,
    },
    Assign {
        op: Option<BinaryOp>,
        target: Box<Expr<'a>>,
        value: Box<Expr<'a>>,
    },
    /// `++` and `--`: `by` is 1 or -1; `prefix` says whether the new value is the result.
    Update {
        target: Box<Expr<'a>>,
        by: i64,
        prefix: bool,
    },
    Lambda {
        params: Vec<&'a str>,
        body: Box<Expr<'a>>,
    },
    /// A function inside an expression, with statements of its own: it sees and changes the variables around it.
    Closure {
        params: Vec<Param<'a>>,
        body: Vec<Stmt<'a>>,
    },
    Comprehension {
        element: Vec<Expr<'a>>,
        clauses: Vec<(Expr<'a>, Expr<'a>)>,
        conditions: Vec<Expr<'a>>,
    },
    New {
        args: Vec<Arg<'a>>,
    },
    /// A call that makes an object of a class: the result's path is the class itself.
    Construct {
        callee: Box<Expr<'a>>,
        args: Vec<Arg<'a>>,
    },
    /// Frees: `delete p` in C++.
    Free(Box<Expr<'a>>),
    Sequence(Vec<Expr<'a>>),
    Unknown(Vec<Expr<'a>>),
}

/// A call's argument: `name` for keywords.
#[derive(Debug)]
pub(crate) struct Arg<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) value: Expr<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Shl,
    Shr,
    BitAnd,
    BitOr,
    BitXor,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    In,
    NotIn,
    Is,
    IsNot,
    Other,
}

impl BinaryOp {
    /// The comparison that holds where this one does not; itself for other operators.
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Le => Self::Gt,
            Self::Gt => Self::Le,
            Self::Ge => Self::Lt,
            Self::In => Self::NotIn,
            Self::NotIn => Self::In,
            Self::Is => Self::IsNot,
            Self::IsNot => Self::Is,
            other => other,
        }
    }

    /// The comparison with its sides exchanged.
    pub(crate) fn mirrored(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }

    pub(crate) fn is_order(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }
}

impl<'a> Stmt<'a> {
    /// The expressions of the statement itself, without those of the blocks in it.
    pub(crate) fn exprs(&self) -> Vec<&Expr<'a>> {
        match &self.kind {
            StmtKind::Expr(expr) | StmtKind::Assert(expr) => vec![expr],
            StmtKind::Declare { init: value, .. }
            | StmtKind::Return(value)
            | StmtKind::Raise(value) => value.iter().collect(),
            StmtKind::Delete(exprs) => exprs.iter().collect(),
            StmtKind::If { test, .. } => vec![test],
            StmtKind::Loop(inner) => {
                let bound = inner.bind.iter().flat_map(|(target, iterable)| [target, iterable]);
                bound.chain(&inner.test).chain(&inner.step).collect()
            }
            StmtKind::Switch { value, .. } => vec![value],
            StmtKind::With { items, .. } => items.iter().map(|(item, _)| item).collect(),
            _ => Vec::new(),
        }
    }

    /// The blocks in the statement, in source order.
    pub(crate) fn blocks(&self) -> Vec<&[Stmt<'a>]> {
        match &self.kind {
            StmtKind::If { then, otherwise, .. } => vec![then, otherwise],
            StmtKind::Loop(inner) => vec![&inner.init, &inner.body, &inner.otherwise],
            StmtKind::Switch { cases, .. } => {
                cases.iter().map(|case| case.body.as_slice()).collect()
            }
            StmtKind::Try { body, handlers, otherwise, finally } => {
                let mut all: Vec<&[Stmt<'a>]> = vec![body];
                all.extend(handlers.iter().map(Vec::as_slice));
                all.extend([otherwise.as_slice(), finally.as_slice()]);
                all
            }
            StmtKind::With { body, .. } | StmtKind::Block(body) => vec![body],
            _ => Vec::new(),
        }
    }
}

impl<'a> Expr<'a> {
    pub(crate) fn new(kind: ExprKind<'a>, range: Range) -> Self {
        Self { kind, range }
    }

    /// The direct parts of the expression, in source order.
    pub(crate) fn children(&self) -> Vec<&Expr<'a>> {
        match &self.kind {
            ExprKind::Name(_)
            | ExprKind::Int(_)
            | ExprKind::Float
            | ExprKind::Bool(_)
            | ExprKind::Null
            | ExprKind::Str(_)
            | ExprKind::SizeofType(_)
            | ExprKind::Closure { .. } => Vec::new(),
            ExprKind::Attribute { base, .. } => vec![base],
            ExprKind::Subscript { base, index } => vec![base, index],
            ExprKind::Slice(parts)
            | ExprKind::Format(parts)
            | ExprKind::List(parts)
            | ExprKind::Tuple(parts)
            | ExprKind::Set(parts)
            | ExprKind::Sequence(parts)
            | ExprKind::Unknown(parts) => parts.iter().collect(),
            ExprKind::Call { callee, args } | ExprKind::Construct { callee, args } => {
                let mut all: Vec<&Expr<'a>> = vec![callee];
                all.extend(args.iter().map(|arg| &arg.value));
                all
            }
            ExprKind::New { args, .. } => args.iter().map(|arg| &arg.value).collect(),
            ExprKind::Dict(entries) => {
                entries.iter().flat_map(|(key, value)| key.iter().chain([value])).collect()
            }
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::Not(inner)
            | ExprKind::Minus(inner)
            | ExprKind::Through(inner)
            | ExprKind::Star(inner)
            | ExprKind::Deref(inner)
            | ExprKind::AddressOf(inner)
            | ExprKind::SizeofValue(inner)
            | ExprKind::Free(inner)
            | ExprKind::Cast { value: inner, .. }
            | ExprKind::Lambda { body: inner, .. }
            | ExprKind::Update { target: inner, .. } => vec![inner],
            ExprKind::Conditional { test, then, otherwise } => vec![test, then, otherwise],
            ExprKind::Assign { target, value, .. } => vec![target, value],
            ExprKind::Comprehension { element, clauses, conditions } => element
                .iter()
                .chain(clauses.iter().flat_map(|(target, iterable)| [target, iterable]))
                .chain(conditions)
                .collect(),
        }
    }

    /// The expression without casts, stars and the like around it.
    pub(crate) fn peeled(&self) -> &Expr<'a> {
        match &self.kind {
            ExprKind::Cast { value, .. } | ExprKind::Through(value) | ExprKind::Star(value) => {
                value.peeled()
            }
            _ => self,
        }
    }

    /// The variable, field or element a value is kept under, such as `self.name`, `node->size` (as `node.size`) or
    /// `data[key]`; `None` for values without a name.
    pub(crate) fn place(&self) -> Option<String> {
        let mut text = String::new();
        self.write_place(&mut text).then_some(text)
    }

    fn write_place(&self, out: &mut String) -> bool {
        match &self.kind {
            ExprKind::Name(name) => {
                out.push_str(name);
                true
            }
            ExprKind::Attribute { base, name, .. } => {
                let ok = base.write_place(out);
                out.push('.');
                out.push_str(name);
                ok
            }
            ExprKind::Subscript { base, index } => {
                let ok = base.write_place(out);
                out.push('[');
                let ok = ok
                    && match &index.kind {
                        ExprKind::Str(text) => {
                            out.push_str(text);
                            true
                        }
                        ExprKind::Int(number) => {
                            out.push_str(&number.to_string());
                            true
                        }
                        ExprKind::Name(name) => {
                            out.push_str(name);
                            true
                        }
                        _ => false,
                    };
                out.push(']');
                ok
            }
            ExprKind::Through(inner)
            | ExprKind::Star(inner)
            | ExprKind::Cast { value: inner, .. } => inner.write_place(out),
            ExprKind::Deref(inner) => {
                out.push('*');
                inner.write_place(out)
            }
            _ => false,
        }
    }

    /// The variable a place is rooted in.
    pub(crate) fn root(&self) -> Option<&'a str> {
        match &self.kind {
            ExprKind::Name(name) => Some(name),
            ExprKind::Attribute { base, .. } | ExprKind::Subscript { base, .. } => base.root(),
            ExprKind::Through(inner)
            | ExprKind::Star(inner)
            | ExprKind::Deref(inner)
            | ExprKind::Cast { value: inner, .. } => inner.root(),
            _ => None,
        }
    }

    /// The dotted path of a callee: `os.path.join`, `db.cursor().execute`, `request.args[].get`.
    pub(crate) fn dotted(&self, imports: &BTreeMap<&'a str, String>) -> Option<String> {
        let mut text = String::new();
        self.write_dotted(imports, &mut text).then_some(text)
    }

    fn write_dotted(&self, imports: &BTreeMap<&'a str, String>, out: &mut String) -> bool {
        match &self.kind {
            ExprKind::Name(name) => {
                out.push_str(imports.get(name).map_or(name, String::as_str));
                true
            }
            ExprKind::Attribute { base, name, .. } => {
                if !base.write_dotted(imports, out) {
                    out.push('?');
                }
                out.push('.');
                out.push_str(name);
                true
            }
            ExprKind::Call { callee, .. } => {
                let ok = callee.write_dotted(imports, out);
                out.push_str("()");
                ok
            }
            ExprKind::Construct { callee, .. } => callee.write_dotted(imports, out),
            ExprKind::Subscript { base, .. } => {
                let ok = base.write_dotted(imports, out);
                out.push_str("[]");
                ok
            }
            ExprKind::Through(inner)
            | ExprKind::Deref(inner)
            | ExprKind::Cast { value: inner, .. } => inner.write_dotted(imports, out),
            _ => false,
        }
    }
}

impl Type<'_> {
    /// Holds an address: a pointer, or an array parameter.
    pub(crate) fn is_pointer(&self) -> bool {
        self.pointers > 0 || !self.dimensions.is_empty()
    }

    /// Bytes of one value of the type, where that is known.
    pub(crate) fn scalar_size(&self) -> Option<i64> {
        if self.pointers > 0 {
            return Some(8);
        }
        Some(match self.name.as_ref() {
            "char" | "signed char" | "unsigned char" | "uint8_t" | "int8_t" | "u8" | "s8"
            | "bool" | "_Bool" | "BYTE" | "guint8" | "uchar" => 1,
            "short" | "short int" | "unsigned short" | "uint16_t" | "int16_t" | "u16" | "s16"
            | "wchar16" => 2,
            "int" | "unsigned" | "unsigned int" | "signed int" | "uint32_t" | "int32_t" | "u32"
            | "s32" | "float" | "uint" | "wchar_t" | "guint32" | "UINT32" | "INT32" => 4,
            "long" | "unsigned long" | "long long" | "unsigned long long" | "long int"
            | "unsigned long int" | "long long int" | "size_t" | "ssize_t" | "uint64_t"
            | "int64_t" | "u64" | "s64" | "double" | "off_t" | "ptrdiff_t" | "intptr_t"
            | "uintptr_t" | "time_t" => 8,
            _ => return None,
        })
    }

    /// Unsigned integers: they need no check against negative values.
    pub(crate) fn is_unsigned(&self) -> bool {
        self.pointers == 0
            && (self.name.contains("unsigned")
                || self.name.starts_with('u')
                || matches!(
                    self.name.as_ref(),
                    "size_t" | "bool" | "_Bool" | "BYTE" | "DWORD" | "WORD" | "UINT32"
                ))
    }

    /// An integer type by its name.
    pub(crate) fn is_integer(&self) -> bool {
        !self.is_pointer()
            && !matches!(self.name.as_ref(), "float" | "double" | "long double" | "void" | "")
            && (self.scalar_size().is_some()
                || self.name.ends_with("_t")
                || self.name.contains("int"))
    }
}
