//! Functions, types and variables of C and C++.

use std::{borrow::Cow, collections::BTreeMap};

use tree_sitter::Node;

use super::Lowering;
use crate::{
    ir::{Expr, ExprKind, Function, Param, Stmt, StmtKind, Type},
    lower::{
        MAX_DEPTH,
        front_end::{FrontEnd, all_named, named, range, unknown},
    },
};

/// What a declarator says: the name, and what it adds to the type.
#[derive(Default)]
pub(super) struct Declarator<'t, 'a> {
    pub(super) name: &'a str,
    class: Option<&'a str>,
    pointers: u8,
    is_reference: bool,
    dimensions: Vec<Option<i64>>,
    dimension_text: Option<String>,
    params: Option<Node<'t>>,
}

impl<'a> Lowering<'a> {
    pub(super) fn function(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let returns = self.type_of(node.child_by_field_name("type"));
        let declarator = node
            .child_by_field_name("declarator")
            .map(|inner| self.declarator(inner))
            .unwrap_or_default();
        let Some(list) = declarator.params else {
            // A macro in place of a signature: the body still counts.
            let body = self.field_block(node, "body");
            out.push(Stmt { kind: StmtKind::Block(body), range: range(node) });
            return;
        };
        let mut params = Vec::new();
        for param in named(list) {
            if matches!(param.kind(), "parameter_declaration" | "optional_parameter_declaration") {
                let ty = self.type_of(param.child_by_field_name("type"));
                let inner = param
                    .child_by_field_name("declarator")
                    .map(|inner| self.declarator(inner))
                    .unwrap_or_default();
                if ty.name == "void" && inner.pointers == 0 && inner.name.is_empty() {
                    continue;
                }
                let name = inner.name;
                params.push(Param {
                    name,
                    ty: complete(ty, &inner),
                    default: None,
                    range: range(param),
                });
            }
        }
        let class = declarator.class.or(self.class);
        let name = declarator.name;
        let returns = Type {
            pointers: returns.pointers + declarator.pointers,
            is_reference: declarator.is_reference,
            ..returns
        };
        // Rules know the arguments of a program by their usual name.
        let arguments = params.get_mut(1).filter(|_| name == "main");
        let arguments = arguments.map(|param| std::mem::replace(&mut param.name, "argv"));
        let hidden = arguments.map(|own| (own, self.aliases.insert(own, "argv")));
        let body = self.field_block(node, "body");
        if let Some((own, before)) = hidden {
            match before {
                Some(alias) => self.aliases.insert(own, alias),
                None => self.aliases.remove(own),
            };
        }
        self.program.functions.push(Function {
            name,
            class,
            params,
            returns,
            decorators: Vec::new(),
            body,
            top_level: false,
            constructor: false,
        });
    }

    pub(super) fn declarator<'t>(&mut self, node: Node<'t>) -> Declarator<'t, 'a> {
        let mut result = Declarator::default();
        let mut current = node;
        for _ in 0..MAX_DEPTH {
            match current.kind() {
                "pointer_declarator"
                | "abstract_pointer_declarator"
                | "pointer_type_declarator" => result.pointers += 1,
                "reference_declarator" | "abstract_reference_declarator" => {
                    result.is_reference = true;
                }
                "array_declarator" | "abstract_array_declarator" => {
                    let size = current.child_by_field_name("size");
                    let text = size.map(|size| self.source.text(size));
                    let number = text.and_then(|text| self.constant_text(text));
                    if result.dimensions.is_empty() || number.is_none() {
                        result.dimension_text = text.map(normal);
                    }
                    // The outermost declarator is the last dimension.
                    result.dimensions.insert(0, number);
                }
                "function_declarator" | "abstract_function_declarator" => {
                    result.params = current.child_by_field_name("parameters");
                }
                "identifier" | "field_identifier" | "type_identifier" | "operator_name"
                | "destructor_name" | "primitive_type" => {
                    result.name = self.source.text(current);
                    return result;
                }
                "qualified_identifier" => {
                    let scope = self.source.field(current, "scope");
                    if !scope.is_empty() {
                        result.class = Some(scope);
                    }
                    match current.child_by_field_name("name") {
                        Some(name) => {
                            current = name;
                            continue;
                        }
                        None => return result,
                    }
                }
                _ => {}
            }
            let next = current.child_by_field_name("declarator").or_else(|| {
                named(current).into_iter().find(|child| {
                    child.kind().ends_with("declarator")
                        || matches!(
                            child.kind(),
                            "identifier" | "field_identifier" | "qualified_identifier"
                        )
                })
            });
            match next {
                Some(next) => current = next,
                None => return result,
            }
        }
        result
    }

    pub(super) fn type_of(&mut self, node: Option<Node<'_>>) -> Type<'a> {
        let Some(node) = node else { return Type::default() };
        let name = match node.kind() {
            "struct_specifier" | "union_specifier" | "class_specifier" => {
                let name = self.source.field(node, "name");
                if let Some(body) = node.child_by_field_name("body") {
                    let fields =
                        self.deeper(|lowering| lowering.fields(body, name)).unwrap_or_default();
                    let key = if name.is_empty() { self.source.text(node) } else { name };
                    if node.kind() != "union_specifier" {
                        let order = self.field_order(body);
                        self.program.layouts.insert(key, order);
                    }
                    if name.is_empty() {
                        // Anonymous: known by its place in the text.
                        self.program.structs.insert(key, fields);
                        return Type { name: Cow::Borrowed(key), ..Type::default() };
                    }
                    self.program.structs.insert(name, fields);
                }
                Cow::Borrowed(name)
            }
            "enum_specifier" => {
                if let Some(body) = node.child_by_field_name("body") {
                    let mut next = 0;
                    for item in named(body).into_iter().filter(|item| item.kind() == "enumerator") {
                        let value = self.source.field(item, "value");
                        if !value.is_empty() {
                            next = self.constant_text(value).unwrap_or(next);
                        }
                        self.program.constants.insert(self.source.field(item, "name"), next);
                        next += 1;
                    }
                }
                Cow::Borrowed("int")
            }
            "sized_type_specifier" => {
                let words: Vec<&str> = self.source.text(node).split_whitespace().collect();
                Cow::Owned(words.join(" "))
            }
            _ => Cow::Borrowed(self.source.text(node)),
        };
        Type { name, ..Type::default() }
    }

    fn fields(&mut self, body: Node<'_>, class: &'a str) -> BTreeMap<&'a str, Type<'a>> {
        let mut fields = BTreeMap::new();
        let outer = self.class.replace(class);
        for child in named(body) {
            if child.kind() == "field_declaration" {
                let ty = self.type_of(child.child_by_field_name("type"));
                let declarators = all_named(child, "declarator");
                for inner in declarators {
                    let declarator = self.declarator(inner);
                    if declarator.params.is_some() && declarator.pointers == 0 {
                        continue; // a method
                    }
                    fields.insert(declarator.name, complete(ty.clone(), &declarator));
                }
            } else if child.kind() == "function_definition" {
                self.statement(child, &mut Vec::new());
            }
        }
        self.class = outer;
        fields
    }

    fn field_order(&mut self, body: Node<'_>) -> Vec<&'a str> {
        let mut order = Vec::new();
        for child in named(body) {
            if child.kind() == "field_declaration" {
                let declarators = all_named(child, "declarator");
                for inner in declarators {
                    let declarator = self.declarator(inner);
                    if declarator.params.is_none() {
                        order.push(declarator.name);
                    }
                }
            }
        }
        order
    }

    pub(super) fn type_definition(&mut self, node: Node<'_>) {
        let ty = self.type_of(node.child_by_field_name("type"));
        let declarators = all_named(node, "declarator");
        for inner in declarators {
            let declarator = self.declarator(inner);
            if declarator.params.is_none() {
                self.program.typedefs.insert(declarator.name, complete(ty.clone(), &declarator));
            }
        }
    }

    pub(super) fn type_descriptor(&mut self, node: Node<'_>) -> Type<'a> {
        let Some(descriptor) = node.child_by_field_name("type") else { return Type::default() };
        let ty = self.type_of(descriptor.child_by_field_name("type"));
        match descriptor.child_by_field_name("declarator") {
            Some(inner) => {
                let declarator = self.declarator(inner);
                complete(ty, &declarator)
            }
            None => ty,
        }
    }

    pub(super) fn declaration(&mut self, node: Node<'_>, out: &mut Vec<Stmt<'a>>) {
        let mut ty = self.type_of(node.child_by_field_name("type"));
        ty.is_static = named(node).into_iter().any(|child| {
            child.kind() == "storage_class_specifier"
                && matches!(self.source.text(child), "static" | "extern" | "thread_local")
        });
        let declarators = all_named(node, "declarator");
        for inner in declarators {
            let declarator = self.declarator(inner);
            if declarator.params.is_some() && inner.kind() != "init_declarator" {
                let returns = Type {
                    pointers: ty.pointers + declarator.pointers,
                    is_reference: declarator.is_reference,
                    ..ty.clone()
                };
                self.program.prototypes.insert(declarator.name, returns);
                continue;
            }
            let mut init = if inner.kind() == "init_declarator" {
                inner.child_by_field_name("value")
            } else {
                None
            };
            if init.is_none() && inner.kind() != "init_declarator" {
                init = node.child_by_field_name("value");
            }
            let init = init.map(|value| self.initial_value(value));
            let name = declarator.name;
            let mut full = complete(ty.clone(), &declarator);
            // `char s[] = "text"` and `int a[] = {1, 2}` take their size from the value.
            if let (Some(None), Some(value)) = (full.dimensions.first(), &init) {
                full.dimensions[0] = match &value.kind {
                    ExprKind::Str(text) => Some(text.len() as i64 + 1),
                    ExprKind::List(items) => Some(items.len() as i64),
                    _ => None,
                };
            }
            if let (true, Some(ExprKind::Int(number))) = (
                self.source.text(node).starts_with("static const")
                    || self.source.text(node).starts_with("const"),
                init.as_ref().map(|init| &init.kind),
            ) {
                self.program.constants.entry(name).or_insert(*number);
            }
            out.push(Stmt {
                kind: StmtKind::Declare { name, ty: full, init },
                range: range(inner),
            });
        }
    }

    fn initial_value(&mut self, node: Node<'_>) -> Expr<'a> {
        if node.kind() == "argument_list" {
            let mut parts: Vec<Expr<'a>> = self.exprs(node);
            return if parts.len() == 1 { parts.remove(0) } else { unknown(node, parts) };
        }
        self.expr(node)
    }
}

fn complete<'a>(ty: Type<'a>, declarator: &Declarator<'_, 'a>) -> Type<'a> {
    let mut dimensions = declarator.dimensions.clone();
    dimensions.extend(ty.dimensions);
    Type {
        name: ty.name,
        pointers: ty.pointers + declarator.pointers,
        dimensions,
        dimension_text: declarator.dimension_text.clone(),
        is_static: ty.is_static,
        is_reference: declarator.is_reference,
    }
}

/// Text without white space, as places and bounds are compared.
fn normal(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
