//! Finding imports in a tree.

use std::{borrow::Cow, ops::Range};

use hardn_types::Language;
use tree_sitter::Node;

use super::{c, go, java, javascript, python, ruby};
use crate::{CodeError, parse};

/// One thing that an import statement, an include line or a require brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The whole statement in bytes, without the line end; several imports may share it.
    pub statement: Range<usize>,
    /// Its own part of the statement: `b as c` of `from a import b as c, d`.
    pub span: Range<usize>,
    /// What it is taken from, as written and without quotes: `os.path`, `./a`, `net/http`, `stdio.h`; in Java the class's
    /// full name, or the package before `.*`.
    pub module: String,
    /// What of the module is taken: `b` of `from a import b as c`; `None` for the module itself.
    pub member: Option<String>,
    /// Its name in the code; `None` where the code cannot tell.
    pub name: Option<String>,
    /// How it is brought in.
    pub kind: ImportKind,
    /// Whether it belongs to the project itself: relative imports, paths, headers in quotes.
    pub is_local: bool,
}

/// How something is brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// Under a name.
    Name,
    /// Everything, under names that are not written: `*`, Go's `.`.
    Wildcard,
    /// For what it does when it is loaded: `import "x"`, Go's `_`, `from __future__`, every `require` of Ruby.
    SideEffect,
    /// Its text: C and C++.
    Include,
}

impl Import {
    /// An import that fills its statement and has no name.
    pub(super) fn whole(node: Node, module: &str, kind: ImportKind) -> Self {
        Self {
            statement: node.byte_range(),
            span: node.byte_range(),
            module: module.to_owned(),
            member: None,
            name: None,
            kind,
            is_local: false,
        }
    }

    /// Whether two imports do the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.module, &self.member, &self.name, self.kind, self.is_local)
            == (&other.module, &other.member, &other.name, other.kind, other.is_local)
    }
}

/// Every import of a piece of code, in source order, wherever it stands; what only looks like one, in a comment or a
/// string, is none. A statement that the parser could not make sense of is left out.
///
/// # Errors
/// Those of [`parse`].
pub fn imports(code: &str, language: Language) -> Result<Vec<Import>, CodeError> {
    let code = &*with_line_end(code, language);
    let tree = parse(code, language)?;
    Ok(find(tree.root_node(), code, language).collect())
}

/// The code with a line end behind it where the grammar needs one: an include ends with its line.
pub(super) fn with_line_end(code: &str, language: Language) -> Cow<'_, str> {
    let is_needed = matches!(language, Language::C | Language::Cpp) && !code.ends_with('\n');
    if is_needed { format!("{code}\n").into() } else { code.into() }
}

/// The imports at and below a node.
pub(super) fn find<'t>(
    root: Node<'t>,
    code: &'t str,
    language: Language,
) -> impl Iterator<Item = Import> + 't {
    let mut open = vec![root];
    let nodes = std::iter::from_fn(move || {
        let node = open.pop()?;
        let found = statement(node, code, language).or_else(|| inner(node, code, language));
        if found.is_none() {
            let mut cursor = node.walk();
            let first = open.len();
            open.extend(node.children(&mut cursor));
            open[first..].reverse();
        }
        Some(found.unwrap_or_default())
    });
    nodes.flatten()
}

/// What a node imports, if it is an import statement and nothing else.
pub(super) fn statement(node: Node, code: &str, language: Language) -> Option<Vec<Import>> {
    // For the grammars of C, a space at the end of an include line is an error behind it.
    let has_error = match language {
        Language::C | Language::Cpp => false,
        _ => node.has_error(),
    };
    if !node.is_named() || has_error {
        return None;
    }
    match language {
        Language::Python => python::statement(node, code),
        Language::C | Language::Cpp => c::statement(node, code),
        Language::JavaScript | Language::TypeScript => javascript::statement(node, code),
        Language::Go => go::statement(node, code),
        Language::Java => java::statement(node, code),
        Language::Ruby => ruby::statement(node, code),
    }
}

/// What a node imports that is part of other code: `f(require("x"))`.
fn inner(node: Node, code: &str, language: Language) -> Option<Vec<Import>> {
    match language {
        Language::JavaScript | Language::TypeScript => {
            javascript::required(node, code).map(|import| vec![import])
        }
        _ => None,
    }
}

/// The text of a string literal without its quotes; `None` for a literal with other things in it.
pub(super) fn unquoted<'c>(node: Node, code: &'c str) -> Option<&'c str> {
    let text = &code[node.byte_range()];
    let mut chars = text.chars();
    let quote = chars.next().filter(|quote| matches!(quote, '"' | '\'' | '`'))?;
    let inner = chars.as_str().strip_suffix(quote)?;
    (!inner.is_empty() && !inner.contains(['\\', '#', '$', '\n', quote])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each import as `part of the statement | module | name or kind`; `local` ones start with `.`.
    #[track_caller]
    fn check(language: Language, code: &str, expected: &[&str]) {
        let found = imports(code, language).unwrap();
        let shown = found.iter().map(|import| {
            let name = match (import.kind, &import.name) {
                (ImportKind::Name, Some(name)) => name.clone(),
                (ImportKind::Name, None) => "?".to_owned(),
                (ImportKind::Wildcard, _) => "*".to_owned(),
                (ImportKind::SideEffect, _) => "effect".to_owned(),
                (ImportKind::Include, _) => "include".to_owned(),
            };
            let local = if import.is_local { "." } else { "" };
            let member =
                import.member.iter().fold(String::new(), |_, member| format!("::{member}"));
            format!("{} | {local}{}{member} | {name}", &code[import.span.clone()], import.module)
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{code}");
    }

    #[test]
    fn python() {
        check(
            Language::Python,
            "from __future__ import annotations\nimport os.path, re as r  # import a\nfrom a import (b,\n    c as d,\n)\n\
             from . import e\nfrom ..f.g import h\nfrom i import *\n\"\"\"\nimport j\nfrom k import l\n\"\"\"\n\
             def m():\n    import n\n    x = 'import o'\n# import p\n",
            &[
                "from __future__ import annotations | __future__ | effect",
                "os.path | os.path | os",
                "re as r | re | r",
                "b | a::b | b",
                "c as d | a::c | d",
                "e | ..::e | e",
                "h | ...f.g::h | h",
                "from i import * | i | *",
                "n | n | n",
            ],
        );
        check(Language::Python, "import os\nfrom a imp", &["os | os | os"]);
    }

    #[test]
    fn c_and_cpp() {
        let code = "/* #include <a.h> */\n#include <stdio.h>\n#  include \"b/c.h\" // d\n#ifdef X\n#include <e>\n#endif\n\
                    char *f = \"#include <g.h>\";\n#include HEADER\nint main(void) {";
        let expected = [
            "#include <stdio.h> | stdio.h | include",
            "#  include \"b/c.h\" | .b/c.h | include",
            "#include <e> | e | include",
            "#include HEADER | .HEADER | *",
        ];
        check(Language::C, code, &expected);
        check(Language::Cpp, code, &expected);
    }

    #[test]
    fn javascript() {
        let code = "import 'a';\nimport b, { c, d as e } from \"b/x\";\nimport * as f from './f'\n// import g from 'g'\n\
                    const h = require('h'), { i, j: k } = require(\"node:fs\").promises;\nvar l = require('l')();\n\
                    require('m');\nfunction n() { return require(`o`)(import('p')); }\nconst q = \"require('r')\";\n\
                    export { s } from 't';\nlet u = 1, v = require('v');\nconst { w = 2 } = require('w');";
        let expected = [
            "import 'a'; | a | effect",
            "b | b/x::default | b",
            "c | b/x::c | c",
            "d as e | b/x::d | e",
            "* as f | ./f | f",
            "h = require('h') | h | h",
            "i | node:fs::promises.i | i",
            "j: k | node:fs::promises.j | k",
            "l = require('l')() | l | l",
            "require('m') | m | effect",
            "require(`o`) | o | effect",
            "import('p') | p | effect",
            "export { s } from 't'; | t | effect",
            "require('v') | v | effect",
            "{ w = 2 } = require('w') | w | effect",
        ];
        let expected = expected.map(|line| line.replace("| ./f", "| ../f"));
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(Language::JavaScript, code, &expected);
        check(Language::TypeScript, code, &expected);
        check(
            Language::TypeScript,
            "import type { A, B as C } from 'a';\nimport d = require(\"d\");\nimport { type E } from '@/e';\n",
            &[
                "A | a::A | A",
                "B as C | a::B | C",
                "import d = require(\"d\"); | d | d",
                "type E | .@/e::E | E",
            ],
        );
    }

    #[test]
    fn go_java_ruby() {
        check(
            Language::Go,
            "package a\n\nimport \"fmt\"\nimport (\n\tb \"net/http\"\n\t_ \"c/d\" // \"e\"\n\t. \"strings\"\n\n\
             \t\"math/rand/v2\"\n\t\"gopkg.in/yaml.v3\"\n)\n\nvar x = `import \"f\"`\n",
            &[
                "\"fmt\" | fmt | fmt",
                "b \"net/http\" | net/http | b",
                "_ \"c/d\" | c/d | effect",
                ". \"strings\" | strings | *",
                "\"math/rand/v2\" | math/rand/v2 | rand",
                "\"gopkg.in/yaml.v3\" | gopkg.in/yaml.v3 | ?",
            ],
        );
        check(
            Language::Java,
            "package a.b;\nimport java.io.*;\nimport java.util.Map.Entry;\nimport static c.D.e;\nimport static c.D.*;\n\
             /* import f.G; */\npublic class H {\n  String s = \"import i.J;\";\n  void k() {",
            &[
                "import java.io.*; | java.io | *",
                "import java.util.Map.Entry; | java.util.Map.Entry | Entry",
                "import static c.D.e; | c.D::e | e",
                "import static c.D.*; | c.D | *",
            ],
        );
        check(
            Language::Ruby,
            "# require 'a'\nrequire 'b/c'\nrequire_relative \"d\"\nrequire './e'\nrequire \"#{f}\"\nx = \"require 'g'\"\n\
             class H < I\n  require 'j'\n=begin\nrequire 'k'\n=end\n",
            &[
                "require 'b/c' | b/c | effect",
                "require_relative \"d\" | .d | effect",
                "require './e' | ../e | effect",
                "require 'j' | j | effect",
            ],
        );
    }
}
