//! Cutting a raw completion down to what the prompt asked for.

use hardn_types::{CutRule, Language};

use crate::{brace_blocks, python_lines};

/// Cuts a completion by a rule, strips white space from its end and ends it with a newline.
/// The program to judge is `prompt` followed by the result.
///
/// [`CutRule::Function`] needs no complete code: text that a model left unfinished is kept to its end. Ruby has no
/// such rule here and is kept whole. [`CutRule::Sven`] knows only Python's and C's rules; C's serves every other language.
pub fn cut(prompt: &str, completion: &str, language: Language, rule: CutRule) -> String {
    let kept = match (rule, language) {
        (CutRule::None, _) | (CutRule::Function, Language::Ruby) => completion.to_owned(),
        (CutRule::Function, Language::Python) => {
            completion[..python_lines::block_end(prompt, completion)].to_owned()
        }
        (CutRule::Function, _) => {
            completion[..brace_blocks::function_end(prompt, completion)].to_owned()
        }
        (CutRule::Sven, Language::Python) => sven_python(completion).to_owned(),
        (CutRule::Sven, _) => sven_c(completion),
    };
    let mut kept = kept;
    kept.truncate(kept.trim_end().len());
    kept.push('\n');
    kept
}

/// Up to the first line that does not start with white space; without one, up to the last comment line at indent 4.
fn sven_python(completion: &str) -> &str {
    let next_block = completion.match_indices('\n').find(|(at, _)| {
        completion[at + 1..].chars().next().is_some_and(|next| !next.is_whitespace())
    });
    match next_block.map(|(at, _)| at).or_else(|| completion.rfind("\n    #")) {
        Some(end) => &completion[..end],
        None => completion,
    }
}

/// Through the first `}` at a line's start; without one, up to the last comment line at indent 4 (each comment mark
/// in turn), closed by a brace of our own. Lines that assign a text to a `name` member vanish: a patch of the
/// original for one scenario, which it applies to all.
fn sven_c(completion: &str) -> String {
    let mut kept = if let Some(at) = completion.find("\n}") {
        completion[..at + 2].to_owned()
    } else {
        let mut kept = completion.to_owned();
        for comment in ["\n    //", "\n    /*"] {
            if let Some(at) = kept.rfind(comment) {
                kept.truncate(at);
                kept.truncate(kept.trim_end().len());
                kept.push_str("\n}");
            }
        }
        kept
    };
    if kept.contains("->name = \"") {
        let lines: Vec<&str> =
            kept.split('\n').filter(|line| !line.contains("->name = \"")).collect();
        kept = lines.join("\n");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: CutRule, language: Language, prompt: &str, completion: &str, expected: &str) {
        assert_eq!(cut(prompt, completion, language, rule), expected);
    }

    #[test]
    fn sven_rules() {
        let python = |completion, expected| {
            check(CutRule::Sven, Language::Python, "def f():", completion, expected);
        };
        python("\n    a\n\n    b\ndef g():\n    c", "\n    a\n\n    b\n");
        python("\n    a\n    # b\n    c\n    # d\n    e", "\n    a\n    # b\n    c\n");
        python("\n    a  \n\n", "\n    a\n");

        let c = |completion, expected| {
            check(CutRule::Sven, Language::C, "void f() {", completion, expected);
        };
        c("\n    a;\n}\nint g() {\n}\n", "\n    a;\n}\n");
        c("\n    a;\n    // b\n    c;\n    // d\n    e", "\n    a;\n    // b\n    c;\n}\n");
        c("\n    a;\n    /* b */\n    c;\n    // d\n    e", "\n    a;\n}\n");
        c("\n    p->name = \"x\";\n    a;\n}", "\n    a;\n}\n");
        c("\n    a;\n    b", "\n    a;\n    b\n");
    }

    #[test]
    fn function_rule_python() {
        let python = |prompt, completion, expected| {
            check(CutRule::Function, Language::Python, prompt, completion, expected);
        };
        let open = "import os\n\ndef f(a):\n    \"\"\"Doc.\"\"\"\n";
        python(open, "    return a\n\n\ndef g():\n    pass\n", "    return a\n");
        python(open, "    return a\nprint(f(1))\n", "    return a\n");
        // A column-0 comment belongs to the function only if the function goes on.
        python(
            open,
            "    b = a\n# note\n    return b\n# end\n",
            "    b = a\n# note\n    return b\n",
        );
        // Line starts within brackets and long strings do not count.
        python(open, "    x = (a,\nb)\n    return x\n", "    x = (a,\nb)\n    return x\n");
        python(
            open,
            "    q = \"\"\"\nSELECT\n\"\"\"\n    return q\nx = 1\n",
            "    q = \"\"\"\nSELECT\n\"\"\"\n    return q\n",
        );
        // A bracket that is never closed does not swallow the next function.
        python(open, "    x = (a,\n    return x\ndef g():\n    y\n", "    x = (a,\n    return x\n");
        python(open, "return a\n", "\n");
        // The prompt stops in the middle of a line.
        python("def f(a):\n    b = ", "a + 1\n    return b\nc = 2", "a + 1\n    return b\n");
        python("def f(a):\n    ", "return a\n\nf(2)", "return a\n");
        // A method ends where the next one starts.
        python(
            "class A:\n    def f(self):\n        \"\"\"Doc.\"\"\"\n",
            "        return 1\n\n    def g(self):\n        return 2\n",
            "        return 1\n",
        );
        // An inner function does not end the outer one.
        python(
            "def f():\n    def g():\n        return 1\n",
            "    return g\n\nx = 1",
            "    return g\n",
        );
        // Top-level blocks go on with their other branches.
        python(
            "try:\n    a\n",
            "    b\nexcept OSError:\n    c\nd\n",
            "    b\nexcept OSError:\n    c\n",
        );
        // Nothing is open: the first function is what was asked for.
        let only = "# Write a function.\nimport os\n";
        python(
            only,
            "import re\n\n@memo\ndef f():\n    a\n\nx = f()\n",
            "import re\n\n@memo\ndef f():\n    a\n",
        );
        python("def h():\n    a\n\n# Next.\n", "def f():\n    b\nc\n", "def f():\n    b\n");
        python("x = 1\n", "y = 2\nz = 3\n", "y = 2\nz = 3\n");
    }

    #[test]
    fn function_rule_c() {
        let c = |prompt, completion, expected| {
            check(CutRule::Function, Language::C, prompt, completion, expected);
        };
        let open = "#include <stdio.h>\nint f(int a) {\n";
        c(open, "    return a;\n}\n\nint main(void) {\n}\n", "    return a;\n}\n");
        c(
            open,
            "    if (a) { puts(\"}\"); } // }\n    /* } */ char c = '}';\n    return a;\n} int x;",
            "    if (a) { puts(\"}\"); } // }\n    /* } */ char c = '}';\n    return a;\n}\n",
        );
        c(open, "    return a;\n", "    return a;\n");
        let only = "#include <stdio.h>\n// Write a function.\n";
        c(
            only,
            "struct p { int x; };\nint t[] = { 1 };\nint f(void) {\n    return 1;\n}\nint g;\n",
            "struct p { int x; };\nint t[] = { 1 };\nint f(void) {\n    return 1;\n}\n",
        );
        c("int f(void)\n", "{\n    return 1;\n}\nint g;", "{\n    return 1;\n}\n");
        c("#define A '\"\nint f(void) {\n", "    return 1;\n}\nx", "    return 1;\n}\n");
        check(
            CutRule::Function,
            Language::Cpp,
            "namespace a {\nclass B {\n  int f() {\n",
            "    return 1;\n  }\n  int g() { return 2; }\n};\n}\n",
            "    return 1;\n  }\n",
        );
    }

    #[test]
    fn no_rule_keeps_everything() {
        check(CutRule::None, Language::C, "", "a\n}\nb \n\n", "a\n}\nb\n");
    }
}
