//! Addresses of what is about to go: temporary owners and variables of the function.

use super::Memory;
use crate::{
    ir::{Expr, ExprKind},
    rules::MemoryCheck,
};

/// What owns memory and gives it back at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Text,
    Pointer,
}

impl<'p> Memory<'p, '_> {
    /// What is inside of a value that ends with the statement is kept.
    pub(super) fn check_temporary(&mut self, expr: &'p Expr<'p>) {
        match &expr.peeled().kind {
            ExprKind::Conditional { then, otherwise, .. } => {
                self.check_temporary(then);
                self.check_temporary(otherwise);
            }
            ExprKind::Call { callee, .. } => {
                if let ExprKind::Attribute { base, name, .. } = &callee.kind
                    && match self.temporary(base) {
                        Some(Owner::Text) => matches!(*name, "c_str" | "data"),
                        Some(Owner::Pointer) => *name == "get",
                        None => false,
                    }
                {
                    self.alert(
                        MemoryCheck::ExpiredTemporary,
                        expr.range,
                        "its owner ends with this statement".to_owned(),
                        Vec::new(),
                    );
                }
            }
            ExprKind::AddressOf(inner) => {
                if let ExprKind::Deref(owner) = &inner.peeled().kind
                    && self.temporary(owner) == Some(Owner::Pointer)
                {
                    self.alert(
                        MemoryCheck::ExpiredTemporary,
                        expr.range,
                        "its owner ends with this statement".to_owned(),
                        Vec::new(),
                    );
                }
            }
            _ => {}
        }
    }

    /// A text or owning pointer that a call gives and nothing keeps.
    fn temporary(&self, expr: &'p Expr<'p>) -> Option<Owner> {
        let ExprKind::Call { callee, .. } = &expr.peeled().kind else { return None };
        let (ExprKind::Name(name) | ExprKind::Attribute { name, .. }) = &callee.kind else {
            return None;
        };
        match *name {
            "string" | "wstring" | "to_string" | "substr" => return Some(Owner::Text),
            "make_unique" => return Some(Owner::Pointer),
            _ => {}
        }
        let ExprKind::Name(name) = &callee.kind else { return None };
        let returns = self.scope.returned(name).or_else(|| self.program.prototypes.get(name))?;
        if returns.pointers > 0 || returns.is_reference {
            None
        } else if returns.name.contains("unique_ptr<") {
            Some(Owner::Pointer)
        } else if matches!(returns.name.as_ref(), "string" | "std::string" | "std::wstring") {
            Some(Owner::Text)
        } else {
            None
        }
    }

    /// The address of something that ends with the function.
    pub(super) fn is_stack_address(&self, expr: &Expr<'p>) -> bool {
        let expr = expr.peeled();
        let fleeting = |name: &str| {
            self.locals.contains(name)
                && self.scope.get(name).is_some_and(|ty| !ty.is_static && !ty.is_reference)
        };
        match &expr.kind {
            ExprKind::Name(name) => {
                fleeting(name) && self.scope.get(name).is_some_and(|ty| !ty.dimensions.is_empty())
            }
            ExprKind::AddressOf(inner) => {
                let mut inner = inner.peeled();
                loop {
                    match &inner.kind {
                        ExprKind::Name(name) => return fleeting(name),
                        ExprKind::Attribute { base, arrow: false, .. } => inner = base,
                        ExprKind::Subscript { base, .. } => {
                            return self.is_stack_address(base);
                        }
                        _ => return false,
                    }
                }
            }
            _ => false,
        }
    }
}
