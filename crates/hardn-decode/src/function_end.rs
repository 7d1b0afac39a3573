//! Telling, while code is being written, that the function the prompt opened has ended.
//!
//! Only saves tokens: where a completion is cut is decided later, by parsing. So these rules look at lines, strings,
//! comments and brackets, fire late rather than early, and depend on the characters alone, not on how they are cut
//! into tokens.

use hardn_types::Language;
use serde::{Deserialize, Serialize};

/// When generation may end because the function has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRule {
    /// Never.
    #[default]
    None,
    /// Before the first line of code without indentation. Does nothing where the prompt ends outside a function.
    PythonFunction,
    /// After the brace that closes the outermost block.
    CFunction,
}

impl StopRule {
    /// The rule for a language.
    pub fn of(language: Language) -> Self {
        match language {
            Language::Python => Self::PythonFunction,
            Language::C | Language::Cpp | Language::Java => Self::CFunction,
            // Template strings and regular expressions hold unbalanced braces.
            _ => Self::None,
        }
    }
}

/// Follows a prompt and its completion, character by character.
#[derive(Clone, Debug)]
pub struct FunctionEnd {
    scan: Scan,
    offset: usize,
}

#[derive(Clone, Debug)]
enum Scan {
    Never,
    Python(Python),
    C(C),
}

impl FunctionEnd {
    /// Reads the prompt.
    pub fn new(rule: StopRule, prompt: &str) -> Self {
        let scan = match rule {
            StopRule::None => Scan::Never,
            StopRule::PythonFunction => {
                let mut python = Python::default();
                for c in prompt.chars() {
                    python.feed(c);
                }
                if python.inside(prompt) { Scan::Python(python) } else { Scan::Never }
            }
            StopRule::CFunction => {
                let mut scan = C::default();
                for c in prompt.chars() {
                    scan.feed(c);
                }
                Scan::C(scan)
            }
        };
        Self { scan, offset: 0 }
    }

    /// Reads more of the completion; returns the byte offset in the whole completion at which the function ended.
    pub fn feed(&mut self, text: &str) -> Option<usize> {
        for c in text.chars() {
            let (ended, end) = match &mut self.scan {
                Scan::Never => return None,
                Scan::Python(scan) => (scan.feed(c), self.offset),
                Scan::C(scan) => (scan.feed(c), self.offset + c.len_utf8()),
            };
            if ended {
                return Some(end);
            }
            self.offset += c.len_utf8();
        }
        None
    }
}

/// Where in a Python text we are.
#[derive(Clone, Debug, Default)]
struct Python {
    place: PythonPlace,
    depth: usize,
    escaped: bool,
    /// The line so far is blank, and only a new line outside strings and brackets has begun.
    middle_of_line: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PythonPlace {
    #[default]
    Code,
    Comment,
    /// After one or two quotes that may become three.
    Opening(char, u8),
    /// In a string; true in a triple-quoted one. The number counts closing quotes just seen.
    Text(char, bool, u8),
}

impl Python {
    /// True where this character begins a line of code without indentation.
    fn feed(&mut self, c: char) -> bool {
        let escaped = std::mem::take(&mut self.escaped);
        match self.place {
            PythonPlace::Opening(quote, 1) if c == quote => {
                self.place = PythonPlace::Opening(quote, 2);
                return false;
            }
            PythonPlace::Opening(quote, 2) if c == quote => {
                self.place = PythonPlace::Text(quote, true, 0);
                return false;
            }
            // One quote began a string; two were an empty one.
            PythonPlace::Opening(quote, 1) => self.place = PythonPlace::Text(quote, false, 0),
            PythonPlace::Opening(..) => self.place = PythonPlace::Code,
            _ => {}
        }
        if let PythonPlace::Text(quote, triple, closing) = self.place {
            self.place = match c {
                _ if escaped => PythonPlace::Text(quote, triple, 0),
                '\\' => {
                    self.escaped = true;
                    PythonPlace::Text(quote, triple, 0)
                }
                _ if c == quote && (!triple || closing == 2) => PythonPlace::Code,
                _ if c == quote => PythonPlace::Text(quote, triple, closing + 1),
                '\n' if !triple => PythonPlace::Code,
                _ => PythonPlace::Text(quote, triple, 0),
            };
            // A string that the line's end broke off leaves a new line.
            self.middle_of_line = !(c == '\n' && self.place == PythonPlace::Code);
            return false;
        }
        if c == '\n' {
            self.place = PythonPlace::Code;
            self.middle_of_line = escaped || self.depth > 0;
            return false;
        }
        if self.place == PythonPlace::Comment {
            return false;
        }
        let begins_line = !std::mem::replace(&mut self.middle_of_line, true);
        match c {
            '#' => self.place = PythonPlace::Comment,
            '"' | '\'' => self.place = PythonPlace::Opening(c, 1),
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            '\\' => self.escaped = true,
            _ => {}
        }
        begins_line && !c.is_whitespace() && c != '#'
    }

    /// The end of this prompt lies in a function, or in a line that will open one.
    fn inside(&self, prompt: &str) -> bool {
        let last = prompt.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
        self.middle_of_line || last.starts_with([' ', '\t']) || last.trim_end().ends_with(':')
    }
}

/// Where in a C text we are.
#[derive(Clone, Debug, Default)]
struct C {
    place: CPlace,
    depth: usize,
    escaped: bool,
    before: char,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CPlace {
    #[default]
    Code,
    LineComment,
    BlockComment,
    Text(char),
}

impl C {
    /// True where this character closes the outermost block.
    fn feed(&mut self, c: char) -> bool {
        let before = std::mem::replace(&mut self.before, c);
        let escaped = std::mem::take(&mut self.escaped);
        match self.place {
            CPlace::LineComment if c == '\n' => self.place = CPlace::Code,
            CPlace::BlockComment if before == '*' && c == '/' => {
                self.place = CPlace::Code;
                // The slash does not begin another comment.
                self.before = ' ';
            }
            CPlace::LineComment | CPlace::BlockComment => {}
            CPlace::Text(quote) => match c {
                _ if escaped => {}
                '\\' => self.escaped = true,
                _ if c == quote || c == '\n' => self.place = CPlace::Code,
                _ => {}
            },
            CPlace::Code => match c {
                '/' if before == '/' => self.place = CPlace::LineComment,
                '*' if before == '/' => {
                    self.place = CPlace::BlockComment;
                    // The star does not end the comment it began.
                    self.before = ' ';
                }
                '"' | '\'' => self.place = CPlace::Text(c),
                '{' => self.depth += 1,
                '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    return self.depth == 0;
                }
                _ => {}
            },
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|` marks the expected end in the completion; without it generation goes on.
    #[track_caller]
    fn check(rule: StopRule, prompt: &str, marked: &str) {
        let completion = marked.replace('|', "");
        let mut whole = FunctionEnd::new(rule, prompt);
        assert_eq!(whole.feed(&completion), marked.find('|'), "{prompt:?} {marked:?}");
        let mut pieces = FunctionEnd::new(rule, prompt);
        let mut buffer = [0; 4];
        let found = completion.chars().find_map(|c| pieces.feed(c.encode_utf8(&mut buffer)));
        assert_eq!(found, marked.find('|'), "in pieces: {prompt:?} {marked:?}");
    }

    #[test]
    fn python_functions_end_at_code_without_indentation() {
        let rule = StopRule::PythonFunction;
        let def = "import os\n\ndef f(a):\n    \"\"\"Doc.\"\"\"\n";
        for (prompt, marked) in [
            (def, "    return 1\n|def g():\n"),
            (def, "    return 1\n\n\n|x = 1\n"),
            (def, "    return 1\n# note\n|print()"),
            (def, "    return 1\n"),
            (def, "    x = (1,\n2)\n|y"),
            (def, "    x = \"\"\"a\nb\n\"\"\"\n|y"),
            (def, "    x = 'it''s'\n|y"),
            (def, "    x = \"\"\n|y"),
            (def, "    x = 'broken\n|y"),
            (def, "    x = '\\'' + \\\n1\n|y"),
            (def, "    x = \"\"\"a\\\"\"\"b\nc\"\"\"\n|y"),
            (def, "    x = f({'a': [1]})  # it's ( fine\n|y"),
            (def, "|def"),
            ("def f(\n", "a):\n    pass\n|b"),
            ("def f(a):", "\n    pass\n|b"),
            ("def f(a):\n", "    pass\n|b"),
            (
                "class A:\n    def f(self):\n        ",
                "return 1\n\n    def g(self):\n        pass\n|b",
            ),
            ("def f():\n    \"\"\"Doc\n", "more\n\"\"\"\n    pass\n|b"),
            ("import os\n", "x = 1\ny = 2\n"),
            ("", "x = 1\ny = 2\n"),
        ] {
            check(rule, prompt, marked);
        }
    }

    #[test]
    fn c_functions_end_at_their_brace() {
        let rule = StopRule::CFunction;
        let open = "#include <stdio.h>\nint f(int a) {\n";
        for (prompt, marked) in [
            (open, "    return a;\n}|\nint g"),
            (open, "    if (a) { return 1; }\n    return 2;\n}|"),
            (open, "    puts(\"}\"); putchar('}'); /* } */ // }\n}|"),
            (open, "    /**/ puts(\"\\\"}\"); /*/ } */\n}|"),
            (open, "    a = a / 2 * 3;\n}|"),
            (open, "    char c = '\\'';\n}|"),
            ("int f(int a)\n", "{\n    return a;\n}|\n"),
            ("int g(void) { return 1; }\nint f(void) {\n    /* {", " */ return 2; }|"),
            (open, "    return a;\n"),
        ] {
            check(rule, prompt, marked);
        }
    }

    #[test]
    fn no_rule_never_ends() {
        check(StopRule::None, "def f():\n", "    pass\nx = 1\n}");
    }
}
