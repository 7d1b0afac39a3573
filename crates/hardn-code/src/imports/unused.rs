//! Imports that the code never uses.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use hardn_types::Language;
use tree_sitter::Node;

use super::read::{Import, ImportKind, statement, with_line_end};
use crate::{CodeError, parse};

/// What headers of C declare: one header a line, its name before a colon.
const HEADERS: &str = include_str!("../../lists/c-headers.txt");

/// The imports of a program whose names it never uses, in source order.
///
/// Only imports outside functions, classes and conditions count. Kept as used are: imports without a name of their own
/// (for their side effects, `*`, Ruby's requires), Python's `import a as a`, which gives a name on, names in `__all__` and in
/// annotations that are strings. In code that the parser cannot make sense of, a name counts as used wherever it stands as a
/// word. An include is unused only if a table says which names the header declares and none of them occurs; the table has the
/// headers of standard C and a few of POSIX, with all names glibc's versions declare, directly or not. Any other is kept.
///
/// # Errors
/// Those of [`parse`].
pub fn unused_imports(code: &str, language: Language) -> Result<Vec<Import>, CodeError> {
    let code = &*with_line_end(code, language);
    let tree = parse(code, language)?;
    let root = tree.root_node();
    let mut cursor = root.walk();
    let found: Vec<Import> = root
        .children(&mut cursor)
        .filter_map(|node| statement(node, code, language))
        .flatten()
        .collect();
    let used = if root.has_error() {
        words_outside(code, &found)
    } else {
        used_words(root, code, language)
    };
    let is_unused = |import: &Import| match import.kind {
        ImportKind::Name => import.name.as_deref().is_some_and(|name| {
            let is_given_on = language == Language::Python && is_given_on(import, code);
            !is_given_on && !used.contains(name)
        }),
        ImportKind::Include if !import.is_local => declared_by(&import.module)
            .is_some_and(|names| !names.iter().any(|name| used.contains(name))),
        _ => false,
    };
    Ok(found.into_iter().filter(is_unused).collect())
}

/// `from a import b as b`: what type checkers take for an export (PEP 484).
fn is_given_on(import: &Import, code: &str) -> bool {
    let name = import.name.as_deref();
    let original = import.member.as_deref().unwrap_or(&import.module);
    name == Some(original) && code[import.span.clone()].contains(" as ")
}

fn declared_by(header: &str) -> Option<&'static Vec<&'static str>> {
    static TABLE: OnceLock<HashMap<&str, Vec<&str>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let lines = HEADERS.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(header, names)| (header, names.split_whitespace().collect())).collect()
    });
    let c_name = header.strip_prefix('c').map(|name| format!("{name}.h"));
    table.get(header).or_else(|| table.get(c_name?.as_str()))
}

/// Every word outside the imports' statements.
fn words_outside<'c>(code: &'c str, imports: &[Import]) -> HashSet<&'c str> {
    let mut words = HashSet::new();
    let mut at = 0;
    for import in imports {
        words.extend(words_of(&code[at..import.statement.start.max(at)]));
        at = at.max(import.statement.end);
    }
    words.extend(words_of(&code[at..]));
    words
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
}

/// The names that code outside imports refers to.
fn used_words<'c>(root: Node, code: &'c str, language: Language) -> HashSet<&'c str> {
    let mut used = HashSet::new();
    let mut open = vec![root];
    while let Some(node) = open.pop() {
        let kind = node.kind();
        let is_text = matches!(language, Language::C | Language::Cpp)
            && (kind.ends_with("string_literal") || kind == "char_literal");
        if is_text || kind.contains("comment") || statement(node, code, language).is_some() {
            continue;
        }
        if kind.starts_with("jsx_") {
            // What JSX is compiled to.
            used.insert("React");
        }
        let text = &code[node.byte_range()];
        if kind == "string" && is_annotation(node, code) {
            used.extend(words_of(text));
        }
        if node.child_count() > 0 {
            let mut cursor = node.walk();
            open.extend(node.children(&mut cursor));
        } else if matches!(language, Language::C | Language::Cpp) {
            used.extend(words_of(text));
        } else if is_reference(node) {
            used.insert(text);
        }
    }
    used
}

/// Whether a leaf refers to a name of its own and not to a part of something else.
fn is_reference(node: Node) -> bool {
    let kind = node.kind();
    if !kind.ends_with("identifier") || kind == "property_identifier" || kind == "field_identifier"
    {
        return kind == "shorthand_property_identifier" || kind == "constant";
    }
    let Some(parent) = node.parent() else { return true };
    let is_field = |field: &str| parent.child_by_field_name(field) == Some(node);
    !match parent.kind() {
        "attribute" => is_field("attribute"),
        "keyword_argument" => is_field("name"),
        "field_access" => is_field("field"),
        "method_invocation" => is_field("name") && parent.child_by_field_name("object").is_some(),
        _ => false,
    }
}

/// A Python string that holds names: an annotation, `__all__`.
fn is_annotation(node: Node, code: &str) -> bool {
    std::iter::successors(node.parent(), Node::parent).take(8).any(|around| match around.kind() {
        "type" => true,
        "assignment" | "augmented_assignment" => around
            .child_by_field_name("left")
            .is_some_and(|left| &code[left.byte_range()] == "__all__"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::without;
    use Language::{C, Cpp, Go, Java, JavaScript, Python, Ruby, TypeScript};

    #[track_caller]
    fn check(language: Language, code: &str, expected: &str) {
        let unused = unused_imports(code, language).unwrap();
        let left = without(code, &unused, language).unwrap();
        assert_eq!(left, expected, "{code}\n{unused:?}");
        assert_eq!(unused_imports(&left, language).unwrap(), [], "{left}");
    }

    #[test]
    fn unused_imports_go() {
        for (language, code, expected) in [
            (Python, "import os\nimport re\nos.x()\n", "import os\nos.x()\n"),
            (Python, "import os, re, sys\nre.x()\n", "import re\nre.x()\n"),
            (Python, "import os, re, sys\nos.x()\n", "import os\nos.x()\n"),
            (
                Python,
                "from a import (\n    b,\n    c,\n    d as e,\n)\nc(b)\n",
                "from a import (\n    b,\n    c,\n)\nc(b)\n",
            ),
            (
                Python,
                "from a import (\n    b,\n    c,\n)\nc()\n",
                "from a import (\n    c,\n)\nc()\n",
            ),
            (Python, "import os; import re\nre\n", "import re\nre\n"),
            (Python, "import re; import os\nre\n", "import re\nre\n"),
            // Words in comments, strings, attributes and arguments' names are no uses.
            (Python, "import os\nx = 'os'  # os\ny.os(os=1)\n", "x = 'os'  # os\ny.os(os=1)\n"),
            // Kept: side effects, `*`, names given on, annotations, imports under conditions and in functions.
            (
                Python,
                "from __future__ import annotations\nfrom a import *\nfrom b import c as c\n",
                "from __future__ import annotations\nfrom a import *\nfrom b import c as c\n",
            ),
            (
                Python,
                "from a import B, C\n__all__ = ['C']\ndef f(x: 'list[B]'): pass\n",
                "from a import B, C\n__all__ = ['C']\ndef f(x: 'list[B]'): pass\n",
            ),
            (
                Python,
                "try:\n    import a\nexcept ImportError:\n    a = 1\ndef f():\n    import b\n",
                "try:\n    import a\nexcept ImportError:\n    a = 1\ndef f():\n    import b\n",
            ),
            (Python, "import os\nx = f\"{os.sep}\"\n", "import os\nx = f\"{os.sep}\"\n"),
            // What cannot be parsed may use whatever it names.
            (Python, "import os\nimport re\ndef f(:\n  'os\n", "import os\ndef f(:\n  'os\n"),
            (
                C,
                "#include <string.h>\n#include <stdio.h>\n#include \"a.h\"\n#include <sys/socket.h>\nint f(void) { return puts(\"memcpy\"); } // strlen\n",
                "#include <stdio.h>\n#include \"a.h\"\n#include <sys/socket.h>\nint f(void) { return puts(\"memcpy\"); } // strlen\n",
            ),
            (
                C,
                "#include <string.h>\n#include <stdint.h>\n#define A(x) strlen(x)\nuint8_t b;\n",
                "#include <string.h>\n#include <stdint.h>\n#define A(x) strlen(x)\nuint8_t b;\n",
            ),
            (C, "#include <stddef.h>\nvoid *p = NULL;\n", "#include <stddef.h>\nvoid *p = NULL;\n"),
            (Cpp, "#include <cstring>\n#include <vector>\nint x;\n", "#include <vector>\nint x;\n"),
            (
                JavaScript,
                "import a, { b, c } from 'a';\nimport * as d from 'd';\nimport 'e';\nc(x.d);\n",
                "import { c } from 'a';\nimport 'e';\nc(x.d);\n",
            ),
            (
                JavaScript,
                "const a = require('a'), { b, c: d } = require('b');\nrequire('e');\nd({ a });\n",
                "const a = require('a'), { c: d } = require('b');\nrequire('e');\nd({ a });\n",
            ),
            (
                JavaScript,
                "import React from 'react';\nimport A from 'a';\nlet b = <A/>;\n",
                "import React from 'react';\nimport A from 'a';\nlet b = <A/>;\n",
            ),
            (
                TypeScript,
                "import type { A, B } from 'a';\nlet b: B = 1;\n",
                "import type { B } from 'a';\nlet b: B = 1;\n",
            ),
            (
                Go,
                "package a\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t_ \"b\"\n\t\"c.d/go-e\"\n)\n\nfunc f() { os.Exit(1) }\n",
                "package a\n\nimport (\n\t\"os\"\n\t_ \"b\"\n\t\"c.d/go-e\"\n)\n\nfunc f() { os.Exit(1) }\n",
            ),
            (Go, "package a\n\nimport \"fmt\"\n\nfunc f() {}\n", "package a\n\n\nfunc f() {}\n"),
            (
                Java,
                "import a.B;\nimport c.D;\nimport static e.F.g;\nimport static e.F.h;\nimport i.*;\nclass X { D d = h(x.g()); }\n",
                "import c.D;\nimport static e.F.h;\nimport i.*;\nclass X { D d = h(x.g()); }\n",
            ),
            (Ruby, "require 'a'\n", "require 'a'\n"),
        ] {
            check(language, code, expected);
        }
    }
}
