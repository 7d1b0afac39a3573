//! Where a prompt's imports stand, or would.

use std::ops::Range;

use hardn_types::Language;

use super::{
    read::{Import, imports, with_line_end},
    top::{Part, PartKind, top},
};
use crate::{CodeError, parse};

/// Where a prompt's import block lies, in bytes: from its first import to the end of the line (without the line end) of
/// the last one that stands at the top, before other code. `None` for a prompt without imports there.
///
/// Comments, docstrings, `package`, directives and imports under a condition may stand among the imports. An import
/// behind other code is not part of the block.
///
/// # Errors
/// Those of [`parse`].
///
/// # Source
/// Paper 003, section 4.3, whose released code takes every line that a regular expression finds, indented ones and lines
/// of prose too, and cuts imports of several lines apart.
pub fn import_block(code: &str, language: Language) -> Result<Option<Range<usize>>, CodeError> {
    let text = with_line_end(code, language);
    let tree = parse(&text, language)?;
    let top = top(tree.root_node(), &text, language);
    let is_import = |part: &&Part| matches!(part.kind, PartKind::Imports(_) | PartKind::Guarded);
    let has_imports = top.parts.iter().any(|part| matches!(part.kind, PartKind::Imports(_)));
    let (Some(first), Some(last)) =
        (top.parts.iter().find(is_import), top.parts.iter().rfind(is_import))
    else {
        return Ok(None);
    };
    let line_end = line_end(code, last.span.end);
    // Other code may stand on the last line.
    let end = if top.end < line_end { last.span.end } else { line_end };
    Ok(has_imports.then_some(first.span.start..end))
}

/// Where a prompt that has no import block would have it: a byte at the start of a line (or the end of the prompt), behind
/// the shebang, the comment at the head, the docstring, `package`, `"use strict"`.
///
/// A comment that stands on the code under it, without an empty line between, belongs to that code. For a prompt with
/// an import block, it is where the block starts.
///
/// # Errors
/// Those of [`parse`].
pub fn import_place(code: &str, language: Language) -> Result<usize, CodeError> {
    let with_end = with_line_end(code, language);
    let tree = parse(&with_end, language)?;
    let mut place = 0;
    let parts = top(tree.root_node(), &with_end, language).parts;
    for (i, part) in parts.iter().enumerate() {
        let end = next_line(code, part.span.end);
        match part.kind {
            PartKind::Imports(_) | PartKind::Guarded => {
                return Ok(line_start(code, part.span.start));
            }
            PartKind::Prelude => place = end,
            PartKind::Comment => {
                let text = &code[part.span.clone()];
                let stands_alone =
                    code[end..].trim_start_matches([' ', '\t', '\r']).starts_with('\n');
                // Comments one under the other are one comment.
                let ends_text = code[end..].trim().is_empty() && i + 1 == parts.len();
                if stands_alone || ends_text || is_magic(text, i, language) {
                    place = end;
                }
            }
        }
    }
    Ok(place)
}

/// What of an import block a model is asked to go on from: all of it, but for Go's `import ( ... )` without the bracket at
/// its end, since what is added belongs before it.
///
/// # Errors
/// Those of [`parse`].
pub fn open_block(block: &str, language: Language) -> Result<&str, CodeError> {
    let text = block.trim_end();
    let in_list = |last: &Import| text[last.span.end..].trim_start().ends_with(')');
    if language == Language::Go && imports(text, language)?.last().is_some_and(in_list) {
        return Ok(text[..text.len() - 1].trim_end());
    }
    Ok(block)
}

/// Comments that say something to a program and have to come first.
fn is_magic(text: &str, index: usize, language: Language) -> bool {
    let words: &[&str] = match language {
        Language::Python => &["coding"],
        Language::Ruby => &["coding", "frozen_string_literal", "warn_indent", "typed:"],
        Language::Go => &["//go:build", "// +build"],
        _ => &[],
    };
    (index == 0 && text.starts_with("#!")) || words.iter().any(|word| text.contains(word))
}

pub(super) fn line_start(code: &str, at: usize) -> usize {
    code[..at].rfind('\n').map_or(0, |end| end + 1)
}

pub(super) fn line_end(code: &str, at: usize) -> usize {
    let end = code[at..].find('\n').map_or(code.len(), |length| at + length);
    code[..end].strip_suffix('\r').map_or(end, str::len).max(at)
}

pub(super) fn next_line(code: &str, at: usize) -> usize {
    code[at..].find('\n').map_or(code.len(), |length| at + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block stands between `⟦` and `⟧` of the marked code; where there is none, `^` is the place for one.
    #[track_caller]
    fn check(language: Language, marked: &str) {
        let code = marked.replace(['⟦', '⟧', '^'], "");
        let block = import_block(&code, language).unwrap();
        let shown = if let Some(block) = block {
            format!("{}⟦{}⟧{}", &code[..block.start], &code[block.clone()], &code[block.end..])
        } else {
            let place = import_place(&code, language).unwrap();
            format!("{}^{}", &code[..place], &code[place..])
        };
        assert_eq!(shown, marked);
    }

    #[test]
    fn blocks() {
        for (language, marked) in [
            (Language::Python, "⟦import os⟧"),
            (
                Language::Python,
                "#!/bin/python\n\"\"\"import a\"\"\"\n⟦import os  # b\n\n# c\nfrom d import (\n  e,\n)⟧\n\nx = 1\nimport f\n",
            ),
            (
                Language::Python,
                "⟦import os⟧\ndef f():\n    '''\n    import g\n    '''\n    import h\n",
            ),
            (
                Language::Python,
                "⟦import os\ntry:\n    import a\nexcept ImportError:\n    import b as a⟧\n\ndef f(x, y",
            ),
            (Language::Python, "⟦from a import b; import c⟧\r\nx = \"\"\"\nimport d"),
            (Language::Python, "⟦import os⟧; x = 1\nimport re\n"),
            (
                Language::C,
                "// a\n#define _GNU_SOURCE\n⟦#include <stdio.h>\n#define B 1\n#include \"c.h\" // d⟧\n#define E 2\n\nint f(char *g) {\n",
            ),
            (Language::C, "#ifndef A_H\n#define A_H\n\n⟦#include <a.h>⟧\n\nint f(void);\n#endif\n"),
            (Language::C, "#ifndef A_H\n#define A_H\n\n⟦#include <a.h>⟧\n\nint f(void) {"),
            (
                Language::C,
                "⟦#include <a.h>\n#ifdef B\n#include <b.h>\n#else\n#include <c.h>\n#endif⟧\nint f(void) {",
            ),
            (
                Language::Cpp,
                "⟦#include <iostream>⟧\nusing namespace std;\nint main() {\n  cout << ",
            ),
            (
                Language::JavaScript,
                "'use strict';\n⟦var fs = require('fs'),\n    a = require(\"a\").b;\nimport c from 'c'⟧\nvar app = c();\nvar d = require('d');\n",
            ),
            (
                Language::TypeScript,
                "⟦import type { A } from './a';\nimport b = require('b');⟧\nexport class C {\n  d(",
            ),
            (
                Language::Go,
                "package main\n\n⟦import \"C\"\nimport (\n\t\"fmt\"\n)⟧\n\nfunc main() {\n",
            ),
            (
                Language::Java,
                "package a;\n\n⟦import java.io.*;\nimport static b.C.d;⟧\n\npublic class E {\n  void f() {\n",
            ),
            (
                Language::Ruby,
                "# a\n⟦require 'yaml'\nrequire_relative 'b'⟧\n\nclass C < D\n  def e\n",
            ),
        ] {
            check(language, marked);
        }
    }

    #[test]
    fn places() {
        for (language, marked) in [
            (Language::Python, "^"),
            (Language::Python, "^def f():\n    import os\n"),
            (Language::Python, "#!/usr/bin/python\n# -*- coding: utf-8 -*-\n^x = 1\n"),
            (Language::Python, "# a\n\n\"\"\"b\"\"\"\n^# c\nx = 1\n"),
            (Language::Python, "\"\"\"a\"\"\"\n__version__ = '1'\n^def b("),
            (Language::Python, "# a prompt that is a comment\n^"),
            (Language::C, "/* a */\n^\nint main(void) {"),
            (Language::C, "#define A 1\n^int main(void) {"),
            (Language::JavaScript, "#!/usr/bin/env node\n'use strict';\n^const a = 1;\n"),
            (Language::JavaScript, "^/** b */\nfunction a() {\n  const c = require('c');"),
            (Language::Go, "// a\npackage main\n^\nfunc main() {\n"),
            (Language::Java, "/* a */\npackage b.c;\n^\nclass D {"),
            (Language::Ruby, "# frozen_string_literal: true\n^class A\n"),
        ] {
            check(language, marked);
        }
    }

    #[test]
    fn a_list_of_go_is_opened() {
        let check = |block: &str, expected: &str| {
            assert_eq!(open_block(block, Language::Go).unwrap(), expected);
        };
        check("import (\n\t\"fmt\"\n)", "import (\n\t\"fmt\"");
        check("import \"fmt\"", "import \"fmt\"");
        check("import (\n\t\"fmt\"\n)\nimport \"os\"", "import (\n\t\"fmt\"\n)\nimport \"os\"");
    }
}
