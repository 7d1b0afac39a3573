//! An import block with what a model added to it.

use hardn_types::Language;

use super::{
    block::{line_end, line_start, next_line},
    read::{Import, imports},
    remove::statement_without,
    top::{PartKind, top},
};
use crate::{CodeError, parse};

/// The import block with the imports of a model's raw continuation, each statement on lines of its own.
///
/// `block` is what the model went on from: the text of [`import_block`](super::import_block), or what
/// [`open_block`](super::open_block) makes of it; empty for a prompt without one. The continuation was cut after some
/// tokens, so its last line counts only if it has a line end; append one where the model itself ended the text.
///
/// Whole statements are kept, up to the first line that is not import, comment or blank; comments are not kept, and what is
/// imported already is not repeated. What the model adds to the block's last line is taken if that line is then an import of
/// everything that it imported before and more (`import os` + `, sys`), else nothing is. The text ends without a line end.
///
/// # Errors
/// Those of [`parse`].
///
/// # Source
/// Paper 003, section 4.3. The released code searches the decoded text, prompt and continuation, with a regular expression.
pub fn complete_imports(
    block: &str,
    continuation: &str,
    language: Language,
) -> Result<String, CodeError> {
    let whole = continuation.rfind('\n').map_or("", |end| &continuation[..=end]);
    if language == Language::Go && is_open(block) {
        return complete_list(block, whole);
    }
    let (line, rest) = whole.split_at(next_line(whole, 0));
    if block.is_empty() || block.ends_with('\n') {
        append(block, whole, language)
    } else if line.trim().is_empty() {
        append(block, rest, language)
    } else if extends(block, line, language)? {
        append(&format!("{block}{}", line.trim_end()), rest, language)
    } else {
        Ok(block.trim_end().to_owned())
    }
}

/// The block and the new imports at the top of a text.
fn append(block: &str, text: &str, language: Language) -> Result<String, CodeError> {
    let tree = parse(text, language)?;
    let mut known = imports(block, language)?;
    let mut result = block.trim_end().to_owned();
    let top = top(tree.root_node(), text, language);
    for part in top.parts {
        let found = match part.kind {
            PartKind::Comment => continue,
            PartKind::Imports(found) => found,
            PartKind::Guarded | PartKind::Prelude => break,
        };
        let lines = line_start(text, part.span.start)..line_end(text, part.span.end);
        let is_indented = text[lines.start..].starts_with([' ', '\t']);
        if lines.contains(&top.end) || (language == Language::Python && is_indented) {
            break;
        }
        let repeated: Vec<Import> =
            found.iter().filter(|new| known.iter().any(|old| old.is_same(new))).cloned().collect();
        if repeated.len() < found.len() {
            if !result.is_empty() {
                result.push('\n');
            }
            result.push_str(statement_without(text, &found, &repeated).trim_end());
        }
        known.extend(found);
    }
    Ok(result)
}

/// Whether a line goes on with the block's last statement without taking anything back.
fn extends(block: &str, line: &str, language: Language) -> Result<bool, CodeError> {
    let before = imports(block, language)?;
    let text = format!("{block}{line}");
    let tree = parse(&text, language)?;
    let top = top(tree.root_node(), &text, language);
    let mut after = Vec::new();
    for part in &top.parts {
        if let PartKind::Imports(found) = &part.kind {
            after.extend(found);
        }
    }
    let is_kept = |old: &Import| after.iter().any(|new| new.is_same(old));
    Ok(top.end == text.len() && after.len() > before.len() && before.iter().all(is_kept))
}

/// Whether a block of Go ends within the brackets of `import (`.
fn is_open(block: &str) -> bool {
    let open = block.lines().rfind(|line| line.trim_start().starts_with("import"));
    let tail = block.rfind("import").map_or("", |at| &block[at..]);
    open.is_some_and(|line| line.contains('(')) && !tail.contains(')')
}

/// Goes on with Go's `import (`: one import a line, up to the bracket.
fn complete_list(block: &str, text: &str) -> Result<String, CodeError> {
    let close = |list: &str| format!("{}\n)", list.trim_end());
    let mut list = block.trim_end().to_owned();
    let mut known = imports(&close(&list), Language::Go)?;
    let mut rest = text;
    // What is behind the last import in its own line.
    if !block.ends_with('\n') && !block.trim_end().ends_with('(') {
        let (line, after) = text.split_at(next_line(text, 0));
        if !line.trim().is_empty() {
            return if line.trim() == ")" {
                append(&close(&list), after, Language::Go)
            } else {
                Ok(close(&list))
            };
        }
        rest = after;
    }
    while !rest.is_empty() {
        let (line, after) = rest.split_at(next_line(rest, 0));
        let trimmed = line.trim();
        rest = after;
        if trimmed.is_empty() || trimmed.starts_with("//") {
            continue;
        }
        if trimmed == ")" {
            return append(&close(&list), rest, Language::Go);
        }
        let alone = format!("import (\n{trimmed}\n)");
        let tree = parse(&alone, Language::Go)?;
        let found = imports(&alone, Language::Go)?;
        if tree.root_node().has_error() || found.len() != 1 {
            break;
        }
        if !known.iter().any(|old| old.is_same(&found[0])) {
            list.push_str("\n\t");
            list.push_str(trimmed);
            known.extend(found);
        }
    }
    Ok(close(&list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Language::{C, Cpp, Go, Java, JavaScript, Python, Ruby, TypeScript};

    #[track_caller]
    fn check(language: Language, block: &str, continuation: &str, expected: &str) {
        let found = complete_imports(block, continuation, language).unwrap();
        assert_eq!(found, expected, "{block:?} + {continuation:?}");
        // What is imported already adds nothing.
        let again = complete_imports(&found, &format!("\n{found}\n"), language).unwrap();
        assert_eq!(again, expected, "again: {block:?} + {continuation:?}");
    }

    #[test]
    fn whole_new_import_lines_are_kept() {
        for (language, block, continuation, expected) in [
            (Python, "import os", "\nimport re\nimport sy", "import os\nimport re"),
            (Python, "import os", "", "import os"),
            (Python, "import os", "\nimport re", "import os"),
            (
                Python,
                "import os\n",
                "import re\n\n# b\nfrom c import (d,\n  e)\n\ndef f():\n    import g\n",
                "import os\nimport re\nfrom c import (d,\n  e)",
            ),
            (Python, "import os", "\nfrom a import (b,\n    c,\n", "import os"),
            (Python, "import os", "\nx = 1\nimport re\n", "import os"),
            (Python, "import os", "\nimport re; x = 1\nimport c\n", "import os"),
            (Python, "import os", "\n    import re\n", "import os"),
            (Python, "import os", "\nimport os\nimport re\nimport re\n", "import os\nimport re"),
            (
                Python,
                "from flask import request",
                "\nfrom flask import request, escape\n",
                "from flask import request\nfrom flask import escape",
            ),
            (Python, "import os", ", sys\nimport re\n", "import os, sys\nimport re"),
            (Python, "import numpy", " as np\nimport re\n", "import numpy"),
            (Python, "import os", "mosis\nimport re\n", "import os"),
            (Python, "", "import re\n", "import re"),
            (Python, "import a", "\n\"\"\"\nimport b\n\"\"\"\nimport c\n", "import a"),
            (
                C,
                "#include <a.h>",
                "\n#include <b.h>\n#include \"c.h\" // d\n#include <a.h>\n\nint main(",
                "#include <a.h>\n#include <b.h>\n#include \"c.h\"",
            ),
            (
                C,
                "#include <a.h>",
                "\n#include <b.h>\n#define X\n#include <c.h>\n",
                "#include <a.h>\n#include <b.h>",
            ),
            (
                Cpp,
                "#include <a>",
                "\n#include <b>\nusing namespace std;\n",
                "#include <a>\n#include <b>",
            ),
            (
                JavaScript,
                "const a = require('a');",
                "\nconst b = require('b');\nvar c = b();\nconst d = require('d');\n",
                "const a = require('a');\nconst b = require('b');",
            ),
            (
                JavaScript,
                "import a from 'a';",
                "\nimport a, { b, c } from 'a';\nimport './d.css'\n",
                "import a from 'a';\nimport { b, c } from 'a';\nimport './d.css'",
            ),
            (
                TypeScript,
                "import a from 'a';",
                "\nimport type { B } from './b';\nconst x: number = 1;\n",
                "import a from 'a';\nimport type { B } from './b';",
            ),
            (
                Go,
                "import (\n\t\"fmt\"",
                "\n\t\"os\"\n\t\"fmt\"\n\t// c\n\td \"e\"\n)\n\nfunc main() {\n",
                "import (\n\t\"fmt\"\n\t\"os\"\n\td \"e\"\n)",
            ),
            (
                Go,
                "import (\n\t\"fmt\"",
                "\n\t\"os\"\n\t\"net/ht",
                "import (\n\t\"fmt\"\n\t\"os\"\n)",
            ),
            (
                Go,
                "import (\n\t\"fmt\"",
                "\n)\nimport \"os\"\nfunc main",
                "import (\n\t\"fmt\"\n)\nimport \"os\"",
            ),
            (
                Go,
                "import \"fmt\"",
                "\nimport \"os\"\n\nfunc a() {\n",
                "import \"fmt\"\nimport \"os\"",
            ),
            (
                Java,
                "import a.B;",
                "\nimport c.*;\nimport static d.E.f;\npublic class G {\n",
                "import a.B;\nimport c.*;\nimport static d.E.f;",
            ),
            (
                Ruby,
                "require 'a'",
                "\nrequire 'b'\nrequire_relative \"c\"\nclass D\n  require 'e'\n",
                "require 'a'\nrequire 'b'\nrequire_relative \"c\"",
            ),
        ] {
            check(language, block, continuation, expected);
        }
    }
}
