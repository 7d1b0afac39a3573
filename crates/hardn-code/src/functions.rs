//! The functions of a piece of code.

use std::ops::Range;

use hardn_types::Language;
use tree_sitter::Node;

use crate::{CodeError, parse};

/// A function or method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, without class or namespace.
    pub name: String,
    /// Its text in bytes, Python's decorators included.
    pub span: Range<usize>,
    /// The text of its body in bytes.
    pub body: Range<usize>,
}

/// Every function with a name of its own in source order, nested ones after the one that holds them.
///
/// # Errors
/// Those of [`parse`].
pub fn functions(code: &str, language: Language) -> Result<Vec<Function>, CodeError> {
    let tree = parse(code, language)?;
    let mut found = Vec::new();
    let mut open = vec![tree.root_node()];
    while let Some(node) = open.pop() {
        if node.is_named()
            && FUNCTIONS.contains(&node.kind())
            && let Some(function) = read_function(node, code)
        {
            found.push(function);
        }
        let mut cursor = node.walk();
        open.extend(node.children(&mut cursor));
    }
    found.sort_by_key(|function| (function.span.start, usize::MAX - function.span.end));
    Ok(found)
}

/// What grammars call a function that has a name.
const FUNCTIONS: [&str; 9] = [
    "function_definition",
    "function_declaration",
    "generator_function_declaration",
    "method_declaration",
    "constructor_declaration",
    "compact_constructor_declaration",
    "method_definition",
    "method",
    "singleton_method",
];

fn read_function(node: Node, code: &str) -> Option<Function> {
    let name = match node.child_by_field_name("name") {
        Some(name) => name,
        None => declared_name(node.child_by_field_name("declarator")?)?,
    };
    let outer = node.parent().filter(|parent| parent.kind() == "decorated_definition");
    Some(Function {
        name: code[name.byte_range()].to_owned(),
        span: outer.unwrap_or(node).byte_range(),
        body: node.child_by_field_name("body")?.byte_range(),
    })
}

/// C hides the name within pointer and function declarators.
fn declared_name(mut node: Node) -> Option<Node> {
    loop {
        if matches!(
            node.kind(),
            "identifier" | "field_identifier" | "destructor_name" | "operator_name"
        ) {
            return Some(node);
        }
        node = node
            .child_by_field_name("declarator")
            .or_else(|| node.child_by_field_name("name"))
            .or_else(|| node.named_child(0))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: Language, code: &str, expected: &[(&str, &str)]) {
        let found = functions(code, language).unwrap();
        let shown: Vec<(&str, &str)> =
            found.iter().map(|f| (f.name.as_str(), &code[f.span.clone()])).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn names_and_spans() {
        check(
            Language::Python,
            "@a\ndef f():\n    def g(): pass\n\nclass C:\n    async def h(self): pass\n",
            &[
                ("f", "@a\ndef f():\n    def g(): pass"),
                ("g", "def g(): pass"),
                ("h", "async def h(self): pass"),
            ],
        );
        check(
            Language::C,
            "int x;\nstatic char **f(int a) { }",
            &[("f", "static char **f(int a) { }")],
        );
        check(Language::Cpp, "int A::b() { }", &[("b", "int A::b() { }")]);
        check(
            Language::JavaScript,
            "class A { b(c) { } }\nfunction d() { }",
            &[("b", "b(c) { }"), ("d", "function d() { }")],
        );
        check(Language::Go, "func (a B) c() { }", &[("c", "func (a B) c() { }")]);
        check(Language::Java, "class A { int b() { } }", &[("b", "int b() { }")]);
        check(Language::Ruby, "def a(b)\n  b\nend", &[("a", "def a(b)\n  b\nend")]);
    }
}
