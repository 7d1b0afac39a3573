//! Import and include lines.

use std::ops::Range;

use hardn_types::Language;
use tree_sitter::Node;

use crate::{CodeError, parse};

/// One import statement or include line outside functions and classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its text in bytes, without the line end.
    pub span: Range<usize>,
    /// The statement.
    pub text: String,
    /// The names it brings in; empty for an include and for `from x import *`, which may bring in anything.
    pub names: Vec<String>,
}

impl Import {
    /// Whether one of its names stands in the text as a word. An import without names counts as used.
    pub fn is_used_in(&self, text: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.names.is_empty()
            || text.split(|c| !is_word(c)).any(|word| self.names.iter().any(|name| name == word))
    }
}

/// The imports of a piece of code, in source order. Statements the parser could not make sense of are left out.
///
/// # Errors
/// [`CodeError::NoParser`] for languages other than Python, C and C++.
pub fn imports(code: &str, language: Language) -> Result<Vec<Import>, CodeError> {
    if !matches!(language, Language::Python | Language::C | Language::Cpp) {
        return Err(CodeError::NoParser(language));
    }
    let tree = parse(code, language)?;
    let mut found = Vec::new();
    let mut cursor = tree.root_node().walk();
    for node in tree.root_node().children(&mut cursor) {
        let names = match node.kind() {
            "import_statement" | "import_from_statement" => imported_names(node, code),
            "future_import_statement" | "preproc_include" => Vec::new(),
            _ => continue,
        };
        if node.has_error() {
            continue;
        }
        let text = code[node.byte_range()].trim_end();
        let span = node.start_byte()..node.start_byte() + text.len();
        found.push(Import { span, text: text.to_owned(), names });
    }
    Ok(found)
}

/// The imports of a piece of code and nothing else: one line each, in source order, without repetitions.
///
/// # Errors
/// Those of [`imports`].
pub fn only_imports(code: &str, language: Language) -> Result<String, CodeError> {
    let mut kept: Vec<String> = Vec::new();
    for import in imports(code, language)? {
        if !kept.contains(&import.text) {
            kept.push(import.text);
        }
    }
    Ok(kept.into_iter().map(|text| text + "\n").collect())
}

/// `a` of `import a.b`, `c` of `import a as c`, `d` of `from a import d`.
fn imported_names(node: Node, code: &str) -> Vec<String> {
    let mut cursor = node.walk();
    let from = node.kind() == "import_from_statement";
    node.children_by_field_name("name", &mut cursor)
        .filter_map(|name| {
            let text = match name.child_by_field_name("alias") {
                Some(alias) => &code[alias.byte_range()],
                None => &code[name.byte_range()],
            };
            if from { Some(text) } else { text.split('.').next() }
        })
        .map(|text| text.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: Language, code: &str, expected: &[(&str, &[&str])]) {
        let found = imports(code, language).unwrap();
        let shown: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|import| (import.text.as_str(), import.names.iter().map(String::as_str).collect()))
            .collect();
        let expected: Vec<(&str, Vec<&str>)> =
            expected.iter().map(|(text, names)| (*text, names.to_vec())).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn statements_and_names() {
        check(
            Language::Python,
            "import os.path, re as r\nfrom a import (b,\n    c as d)\nfrom e import *\nx = 1\ndef f():\n    import g\n",
            &[
                ("import os.path, re as r", &["os", "r"]),
                ("from a import (b,\n    c as d)", &["b", "d"]),
                ("from e import *", &[]),
            ],
        );
        check(
            Language::C,
            "#include <stdio.h>\n#include \"a.h\"\nint x;\n",
            &[("#include <stdio.h>", &[]), ("#include \"a.h\"", &[])],
        );
    }

    #[test]
    fn only_imports_are_kept() {
        let code = "import os\nx = os.path\nimport os\nimport re\nfrom a imp";
        assert_eq!(only_imports(code, Language::Python).unwrap(), "import os\nimport re\n");
        let import = &imports("import os.path", Language::Python).unwrap()[0];
        assert!(import.is_used_in("y = os.getcwd()") && !import.is_used_in("y = oslo"));
    }
}
