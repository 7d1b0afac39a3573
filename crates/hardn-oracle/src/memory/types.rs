//! Declared types of expressions, and the sizes that follow from them.

use std::{borrow::Cow, collections::BTreeMap};

use crate::ir::{Expr, ExprKind, Program, Type};

/// Types of variables by name.
#[derive(Debug, Default)]
pub(super) struct Scope<'p> {
    globals: BTreeMap<&'p str, Type<'p>>,
    /// Those of the function at hand.
    locals: BTreeMap<&'p str, Type<'p>>,
    /// What the functions of the file return.
    returns: BTreeMap<&'p str, &'p Type<'p>>,
}

impl<'p> Scope<'p> {
    pub(super) fn get(&self, name: &str) -> Option<&Type<'p>> {
        self.locals.get(name).or_else(|| self.globals.get(name))
    }

    pub(super) fn has_global(&self, name: &str) -> bool {
        self.globals.contains_key(name)
    }

    pub(super) fn add_global(&mut self, name: &'p str, ty: Type<'p>) {
        self.globals.insert(name, ty);
    }

    pub(super) fn add_function(&mut self, name: &'p str, returns: &'p Type<'p>) {
        self.returns.entry(name).or_insert(returns);
    }

    pub(super) fn returned(&self, name: &str) -> Option<&'p Type<'p>> {
        self.returns.get(name).copied()
    }

    pub(super) fn add(&mut self, name: &'p str, ty: Type<'p>) {
        self.locals.insert(name, ty);
    }

    /// Leaves the function.
    pub(super) fn leave(&mut self) {
        self.locals.clear();
    }
}

/// The type of an expression, where declarations say it.
pub(super) fn type_of<'p>(
    expr: &Expr<'p>,
    scope: &Scope<'p>,
    program: &'p Program<'p>,
) -> Option<Type<'p>> {
    match &expr.kind {
        ExprKind::Name(name) => scope.get(name).cloned(),
        ExprKind::Attribute { base, name, .. } => {
            let base = type_of(base, scope, program)?;
            let fields = fields_of(&base, program)?;
            fields.get(name).cloned()
        }
        ExprKind::Subscript { base, .. } | ExprKind::Deref(base) => {
            let mut ty = type_of(base, scope, program)?;
            if !ty.dimensions.is_empty() {
                ty.dimensions.remove(0);
            } else if ty.pointers > 0 {
                ty.pointers -= 1;
            } else {
                return None;
            }
            ty.dimension_text = None;
            Some(ty)
        }
        ExprKind::AddressOf(inner) => {
            let mut ty = type_of(inner, scope, program)?;
            if ty.dimensions.is_empty() {
                ty.pointers += 1;
            }
            Some(ty)
        }
        ExprKind::Through(inner)
        | ExprKind::Star(inner)
        | ExprKind::Update { target: inner, .. } => type_of(inner, scope, program),
        ExprKind::Cast { ty, .. } => Some(ty.clone()),
        ExprKind::Int(_) | ExprKind::Bool(_) => {
            Some(Type { name: Cow::Borrowed("int"), ..Type::default() })
        }
        ExprKind::SizeofType(_) | ExprKind::SizeofValue(_) => {
            Some(Type { name: Cow::Borrowed("size_t"), ..Type::default() })
        }
        ExprKind::Binary { left, right, .. } => {
            let left = type_of(left, scope, program);
            let right = type_of(right, scope, program);
            match (left, right) {
                (Some(left), Some(right)) => {
                    let wider = right.is_pointer() || right.scalar_size() > left.scalar_size();
                    Some(if wider && !left.is_pointer() { right } else { left })
                }
                (left, right) => left.or(right),
            }
        }
        ExprKind::Call { callee, .. } => match &callee.kind {
            ExprKind::Name("strtoul" | "strtoull") => {
                Some(Type { name: Cow::Borrowed("unsigned long"), ..Type::default() })
            }
            ExprKind::Name("strlen" | "strnlen" | "fread" | "fwrite" | "wcslen") => {
                Some(Type { name: Cow::Borrowed("size_t"), ..Type::default() })
            }
            ExprKind::Name("atoi" | "rand") => {
                Some(Type { name: Cow::Borrowed("int"), ..Type::default() })
            }
            ExprKind::Name("atol" | "strtol" | "strtoll" | "atoll") => {
                Some(Type { name: Cow::Borrowed("long"), ..Type::default() })
            }
            ExprKind::Name(name) => {
                scope.returned(name).or_else(|| program.prototypes.get(name)).cloned()
            }
            _ => None,
        },
        _ => None,
    }
}

/// The fields of a struct, or of what is behind a typedef.
pub(super) fn fields_of<'p>(
    ty: &Type<'p>,
    program: &'p Program<'p>,
) -> Option<&'p BTreeMap<&'p str, Type<'p>>> {
    let mut name: &str = ty.name.as_ref();
    for _ in 0..4 {
        if let Some(fields) = program.structs.get(name) {
            return Some(fields);
        }
        name = program.typedefs.get(name)?.name.as_ref();
    }
    None
}

/// Bytes of a value of a type; `None` where it depends on what is not known.
pub(super) fn size_of(ty: &Type<'_>, program: &Program<'_>) -> Option<i64> {
    let mut element = element_size(ty, program)?;
    for dimension in &ty.dimensions {
        element = element.checked_mul((*dimension)?)?;
    }
    Some(element)
}

fn element_size(ty: &Type<'_>, program: &Program<'_>) -> Option<i64> {
    if let Some(size) = ty.scalar_size() {
        return Some(size);
    }
    if let Some((size, _)) = layout_of(ty.name.as_ref(), program, 0) {
        return Some(size);
    }
    let mut name: &str = ty.name.as_ref();
    for _ in 0..4 {
        let known = program.typedefs.get(name)?;
        if known.dimensions.is_empty() {
            let size = known
                .scalar_size()
                .or_else(|| layout_of(known.name.as_ref(), program, 0).map(|(size, _)| size));
            if size.is_some() {
                return size;
            }
        }
        name = known.name.as_ref();
    }
    None
}

/// Size and alignment of a struct; `None` where a field's size is not known.
fn layout_of(name: &str, program: &Program<'_>, depth: u8) -> Option<(i64, i64)> {
    let (order, fields) = (program.layouts.get(name)?, program.structs.get(name)?);
    let (mut end, mut widest) = (0i64, 1i64);
    for field in order {
        let (size, align) = extent_of(fields.get(field)?, program, depth)?;
        end = end.checked_add(align - 1)? / align * align;
        end = end.checked_add(size)?;
        widest = widest.max(align);
    }
    (!order.is_empty()).then_some((end.checked_add(widest - 1)? / widest * widest, widest))
}

/// Size and alignment of a field.
fn extent_of(ty: &Type<'_>, program: &Program<'_>, depth: u8) -> Option<(i64, i64)> {
    if depth > 4 || ty.is_reference {
        return None;
    }
    let (mut size, align) = if let Some(size) = ty.scalar_size() {
        (size, size)
    } else if let Some(known) = layout_of(ty.name.as_ref(), program, depth + 1) {
        known
    } else {
        extent_of(program.typedefs.get(ty.name.as_ref())?, program, depth + 1)?
    };
    for dimension in &ty.dimensions {
        // A last array without a size takes no room in the struct.
        size = size.checked_mul(dimension.unwrap_or(0))?;
    }
    Some((size, align))
}

/// Bytes before a field in its struct.
pub(super) fn offset_of(ty: &Type<'_>, wanted: &str, program: &Program<'_>) -> Option<i64> {
    let mut name: &str = ty.name.as_ref();
    for _ in 0..4 {
        if program.layouts.contains_key(name) {
            break;
        }
        name = program.typedefs.get(name)?.name.as_ref();
    }
    let (order, fields) = (program.layouts.get(name)?, program.structs.get(name)?);
    let mut end = 0i64;
    for field in order {
        let (size, align) = extent_of(fields.get(field)?, program, 0)?;
        end = end.checked_add(align - 1)? / align * align;
        if *field == wanted {
            return Some(end);
        }
        end = end.checked_add(size)?;
    }
    None
}

/// `char data[1]` at the end of a struct behind a pointer stands for as much as was allocated.
pub(super) fn is_open_end<'p>(
    array: &Expr<'p>,
    length: i64,
    scope: &Scope<'p>,
    program: &'p Program<'p>,
) -> bool {
    let ExprKind::Attribute { base, name, .. } = &array.peeled().kind else { return false };
    if length > 1 {
        return false;
    }
    let Some(mut owner) = type_of(base, scope, program).map(|ty| ty.name) else { return true };
    for _ in 0..4 {
        if let Some(order) = program.layouts.get(owner.as_ref()) {
            return order.last() == Some(name);
        }
        match program.typedefs.get(owner.as_ref()) {
            Some(known) => owner = known.name.clone(),
            None => break,
        }
    }
    true
}

/// Elements of an array, where its type says so.
pub(super) fn length_of(ty: &Type<'_>) -> Option<i64> {
    ty.dimensions.first().copied().flatten()
}

/// Bytes of one element of what a pointer or array holds.
pub(super) fn stride_of(ty: &Type<'_>, program: &Program<'_>) -> Option<i64> {
    let mut element = Type { dimension_text: None, ..ty.clone() };
    if !element.dimensions.is_empty() {
        element.dimensions.remove(0);
    } else if element.pointers > 0 {
        element.pointers -= 1;
    } else {
        return None;
    }
    size_of(&element, program)
}
