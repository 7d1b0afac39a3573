//! What the parameters of a function hold before anyone calls it.

use hardn_types::Language;

use super::{
    Flow,
    value::{Atom, Origin, Trace, Value},
};
use crate::{
    ir::{ExprKind, Function, Param, Range},
    lower::PARAMETER,
    rules::glob,
};

impl<'p> Flow<'p, '_> {
    /// Whether a decorator of the function, or of this parameter, makes the parameter remote; without one, whether a
    /// framework calls the function.
    pub(super) fn is_entry(&self, function: &'p Function<'p>, param: Option<&Param<'p>>) -> bool {
        let (name, ty) = param.map_or(("", ""), |param| (param.name, param.ty.name.as_ref()));
        let overriding = function.class.is_some_and(|class| {
            self.index.overridden.iter().any(|source| {
                source.methods.iter().any(|name| glob(name, function.name))
                    && !source.except.iter().any(|known| glob(known, ty))
                    && self.extends(class, &source.of)
            })
        });
        overriding
            || function.decorators.iter().any(|decorator| {
                let (callee, args) = match &decorator.kind {
                    ExprKind::Call { callee, args } => (&**callee, args.as_slice()),
                    _ => (decorator, [].as_slice()),
                };
                let other = self.language == Language::Java
                    && args.iter().any(|arg| {
                        arg.name == Some(PARAMETER)
                            && !matches!(arg.value.kind, ExprKind::Name(known) if known == name)
                    });
                !other
                    && callee
                        .dotted(&self.program.imports)
                        .is_some_and(|path| self.index.is_entry_point(&path, ty))
            })
    }

    pub(super) fn param_value(
        &self,
        function: &'p Function<'p>,
        at: usize,
        entry: bool,
    ) -> Value<'p> {
        let param = &function.params[at];
        let is_self = at == 0 && function.class.is_some() && matches!(param.name, "self" | "cls");
        let plain = match self.language {
            Language::Python => matches!(param.ty.name.as_ref(), "int" | "float" | "bool"),
            Language::C | Language::Cpp => {
                !param.ty.is_pointer()
                    && (param.ty.is_integer()
                        || matches!(param.ty.name.as_ref(), "float" | "double"))
            }
            _ => is_plain_type(&param.ty.name),
        };
        if is_self && self.language == Language::Go {
            return Value::of_path(param.path());
        }
        if is_self || at > usize::from(u8::MAX) {
            return Value::default();
        }
        let routed = entry && self.language == Language::Python && !self.snippet();
        if routed && is_number_of_route(function, param.name) {
            return Value::default();
        }
        let path = match self.language {
            Language::Python | Language::C | Language::Cpp => param.name,
            _ => param.path(),
        };
        if plain {
            return if self.is_typed() { Value::of_path(path) } else { Value::default() };
        }
        if !matches!(self.language, Language::Python | Language::C | Language::Cpp)
            && !param.ty.name.is_empty()
            && let Some(value) = self.remote_param(path, function.name, param.range)
        {
            return value;
        }
        let trace = Trace::start(param.range, format!("`{}` comes from the caller", param.name));
        // A `main` has no caller inside the program.
        let main = function.name == "main" && self.language != Language::Python;
        let origin = if entry {
            Origin::Remote
        } else if main {
            if self
                .index
                .value_source(param.name, function.name)
                .is_some_and(|source| !source.local)
            {
                Origin::Remote
            } else {
                Origin::Local
            }
        } else {
            Origin::Parameter(at as u8)
        };
        let mut value = Value::of_atom(Atom::new(origin, trace.clone()));
        if let Some(clean) = self.index.named(param.name) {
            value.absorb(&Value::of_atom(Atom::only_for(Origin::Remote, clean, trace.clone())));
        }
        // A name that one rule minds, such as that of a secret.
        if matches!(self.language, Language::C | Language::Cpp | Language::Python)
            && let Some(source) = self.index.value_source(param.name, function.name)
            && source.clean != 0
            && source.clean != u128::MAX
        {
            value.absorb(&Value::of_atom(Atom::only_for(Origin::Remote, source.clean, trace)));
        }
        value.with_path(path)
    }

    /// A parameter whose kind makes it a source.
    pub(super) fn remote_param(
        &self,
        path: &str,
        function: &str,
        range: Range,
    ) -> Option<Value<'p>> {
        self.index.value_source(path, function).is_some_and(|source| !source.local).then(|| {
            let trace = Trace::start(range, format!("`{path}` comes from outside the program"));
            Value::of_atom(Atom::new(Origin::Remote, trace)).with_path(path)
        })
    }
}

/// Numbers and truth values of languages with declared types: nothing to inject through.
pub(super) fn is_plain_type(name: &str) -> bool {
    matches!(
        name,
        "int"
            | "long"
            | "short"
            | "byte"
            | "float"
            | "double"
            | "boolean"
            | "bool"
            | "number"
            | "Integer"
            | "Long"
            | "Short"
            | "Byte"
            | "Float"
            | "Double"
            | "Boolean"
            | "int8"
            | "int16"
            | "int32"
            | "int64"
            | "uint"
            | "uint8"
            | "uint16"
            | "uint32"
            | "uint64"
            | "float32"
            | "float64"
            | "rune"
            | "bigint"
    )
}

/// Whether a route lets only numbers through for this parameter: `/user/<int:id>`.
pub(super) fn is_number_of_route(function: &Function<'_>, name: &str) -> bool {
    function.decorators.iter().any(|decorator| {
        let ExprKind::Call { args, .. } = &decorator.kind else { return false };
        args.iter().any(|arg| match &arg.value.kind {
            ExprKind::Str(route) => ["int", "float", "uuid"]
                .iter()
                .any(|kind| route.contains(&format!("<{kind}:{name}>"))),
            _ => false,
        })
    })
}
