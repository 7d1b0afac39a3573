//! Any text is read without a panic, within the stack, and every finding lies inside the text: broken programs, pieces
//! of programs, nesting without end, long lines. Budgets in the analyser keep the work in bounds; nothing is timed.

use std::{fmt::Write as _, iter};

use hardn_oracle::{Mode, Oracle};
use hardn_types::Language;
use rayon::prelude::*;

use super::properties::CORPUS;

/// Levels of nesting.
const DEEP: usize = 20_000;

/// Bytes of a long line.
const LONG: usize = 10_000_000;

/// Every how many bytes a sample is cut.
const STEP: usize = 37;

/// Analyses a text in both modes and checks what comes of it.
#[track_caller]
fn read(code: &str, language: Language) {
    read_as(code, language, &[Mode::Faithful, Mode::Snippet]);
}

#[track_caller]
fn read_as(code: &str, language: Language, modes: &[Mode]) {
    for &mode in modes {
        let analysis = Oracle::shared().analyse(code, language, mode);
        let lines: Vec<&str> = code.split('\n').collect();
        for finding in &analysis.findings {
            let steps = finding.trace.iter().map(|step| step.span);
            for span in iter::once(finding.span).chain(steps) {
                let (first, last) = (span.line as usize, span.end_line as usize);
                assert!(
                    1 <= first && first <= last && last <= lines.len(),
                    "{language} {mode}: lines {first}-{last} of {}\n{code}",
                    lines.len()
                );
                let width = |line: usize| lines[line - 1].chars().count();
                assert!(
                    (1..=width(first) + 1).contains(&(span.column as usize))
                        && (1..=width(last) + 1).contains(&(span.end_column as usize)),
                    "{language} {mode}: columns {}-{} of line {first}\n{code}",
                    span.column,
                    span.end_column
                );
            }
        }
    }
}

#[test]
fn samples_cut_anywhere() {
    CORPUS.samples.par_iter().for_each(|sample| {
        for at in (STEP..sample.code.len()).step_by(STEP) {
            if sample.code.is_char_boundary(at) {
                read(&sample.code[..at], sample.language);
                read(&sample.code[at..], sample.language);
            }
        }
    });
}

#[test]
fn tokens_of_samples_in_any_order() {
    Language::ALL.into_par_iter().for_each(|language| {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let tokens: Vec<&str> = CORPUS
            .samples
            .iter()
            .filter(|sample| sample.language == language)
            .flat_map(|sample| tokens(&sample.code))
            .collect();
        for number in 0..80 {
            let count = 20 + number * 5;
            // Runs of a program, cut and joined.
            let mut code = String::new();
            while code.len() < count * 4 {
                let start = random.below(tokens.len());
                let run = 1 + random.below(12);
                code.extend(tokens[start..].iter().take(run).copied());
            }
            read(&code, language);
        }
    });
}

#[test]
fn arbitrary_bytes() {
    Language::ALL.into_par_iter().for_each(|language| {
        let mut random = Random(0x2545_F491_4F6C_DD1D);
        for length in (0..4000).step_by(397) {
            let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            read(&String::from_utf8_lossy(&bytes), language);
            let marks: Vec<u8> = bytes
                .iter()
                .map(|byte| b"(){}[]<>\"'`\\/#.,;:=+-*%&|!?@$_\n\t a1"[*byte as usize % 35])
                .collect();
            read(&String::from_utf8_lossy(&marks), language);
        }
    });
}

#[test]
fn nesting_without_end() {
    let mut cases: Vec<(Language, String)> = Vec::new();
    for language in Language::ALL {
        let (before, after) = frame(language);
        let shared = NESTED.iter().map(|nested| (nested, DEEP / 20));
        let own = nested_of(language).iter().map(|nested| (nested, DEEP / 10));
        for ((open, close), levels) in shared.chain(own) {
            // What is broken code in a language takes its parser longer.
            let levels = if open.starts_with(['(', '[']) { DEEP } else { levels };
            let (opened, closed) = (open.repeat(levels), close.repeat(levels));
            cases.push((language, format!("{before}{opened}x{closed}{after}")));
            // What is never closed.
            cases.push((language, format!("{before}{}", open.repeat(DEEP / 20))));
        }
    }
    // Where blocks are told by their indent, the text grows with the square of the depth.
    for head in
        ["if x:", "def f(x):", "class A:", "for a in x:", "while x:", "with a as b:", "try:"]
    {
        let mut code = String::new();
        for level in 0..1000 {
            writeln!(code, "{}{head}", " ".repeat(level)).unwrap();
        }
        writeln!(code, "{}pass", " ".repeat(1000)).unwrap();
        cases.push((Language::Python, code));
    }
    cases.par_iter().for_each(|(language, code)| read_as(code, *language, &[Mode::Snippet]));
}

#[test]
fn tests_within_tests() {
    // What a test says of its operands is found out anew on each level: the work is bounded, and running out of it is
    // said.
    for language in Language::ALL {
        let (before, after) = frame(language);
        let words = matches!(language, Language::Python);
        let (and, or) = if words { (" and ", " or ") } else { (" && ", " || ") };
        for (open, close) in [
            ("(a < (".to_owned(), format!("{and}c){and}c)")),
            (format!("(a{or}(b{and}"), "))".to_owned()),
            ("(f(".to_owned(), ") ? c : d)".to_owned()),
        ] {
            for levels in [3, 45] {
                let code =
                    format!("{before}{}x{}{after}", open.repeat(levels), close.repeat(levels));
                read(&code, language);
            }
        }
    }
    let deep = format!("x = {}a{}\n", "(a < (".repeat(45), " and c) and c)".repeat(45));
    let analysis = Oracle::shared().analyse(&deep, Language::Python, Mode::Snippet);
    assert!(analysis.not_analysed.is_some_and(|why| why.contains("nested too deeply")));
}

#[test]
fn chains_without_end() {
    let numbered = |piece: fn(usize) -> String| (0..DEEP / 10).map(piece).collect::<String>();
    for (language, code) in [
        (Language::Python, format!("if x:\n y()\n{}", "elif x:\n y()\n".repeat(DEEP))),
        (Language::Python, format!("match x:\n case {}b: y()\n", "a.".repeat(DEEP))),
        (Language::Python, numbered(|n| format!("def f{n}(x): f{}(x)\n", n + 1))),
        (Language::C, format!("#define A {}1\nint a[A];", "1+".repeat(DEEP))),
        (Language::C, format!("int x = a{};", "::b".repeat(DEEP))),
        (Language::C, numbered(|n| format!("typedef T{n} T{};\n", n + 1))),
        (Language::C, numbered(|n| format!("void f{n}(char *x) {{ f{}(x); }}\n", n + 1))),
        (Language::JavaScript, numbered(|n| format!("function f{n}(x) {{ f{}(x) }}\n", n + 1))),
        (Language::Go, format!("func f() {{ switch {{ {} }} }}", "case x: y()\n".repeat(DEEP))),
        (Language::Go, format!("func f() {{ switch {{ case {}x: y() }} }}", "x, ".repeat(DEEP))),
        (Language::Java, numbered(|n| format!("class A{} extends A{n} {{}}\n", n + 1))),
        (Language::Ruby, format!("case\n{}end", "when x\n y\n".repeat(DEEP))),
        (Language::Ruby, format!("case\nwhen {}x\n y\nend", "x, ".repeat(DEEP))),
    ] {
        read(&code, language);
    }
}

/// What is lowered in two places holds what is lowered in two places.
#[test]
fn copies_of_copies() {
    let nested = |open: &str, close: &str| format!("{}x{}", open.repeat(40), close.repeat(40));
    let (open, close) = ("try { f({ a: () => { ", " } }) } catch (e) { g(e) }");
    for (language, code) in [
        (Language::JavaScript, nested("o[", "]()")),
        (Language::JavaScript, nested(open, close)),
        (Language::Go, format!("func f() {{ {} }}", nested("v, ok := m[func() int { ", " }()]"))),
        (Language::Java, format!("class Z {{ {} }}", nested("@A(new B() { ", " }) void f() {}"))),
        (
            Language::Java,
            "class A { Object o = new X() { void f() { class B {} class C {} class D {} } }; }"
                .to_owned(),
        ),
        (Language::Ruby, nested("a[", "] ||= 1")),
    ] {
        read(&code, language);
    }
}

#[test]
fn long_lines() {
    Language::ALL.into_par_iter().for_each(|language| {
        let (before, after) = frame(language);
        // Many nodes take longer than many bytes.
        for (piece, bytes) in [("a", LONG), ("1+", LONG / 400), ("f(x),", LONG / 400)] {
            let line = piece.repeat(bytes / piece.len());
            read_as(&format!("{before}{line}1{after}"), language, &[Mode::Snippet]);
        }
    });
}

/// What makes an expression of a language a program.
fn frame(language: Language) -> (&'static str, &'static str) {
    match language {
        Language::Python | Language::Ruby => ("x = ", "\n"),
        Language::C | Language::Cpp => ("int f(int x) { return ", "; }"),
        Language::JavaScript | Language::TypeScript => ("x = ", ";"),
        Language::Go => ("package m\nvar x = ", "\n"),
        Language::Java => ("class A { Object f(int x) { return ", "; } }"),
    }
}

/// Brackets and operators, which most languages share; where one does not, it is broken code.
const NESTED: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("f(", ")"),
    ("x[", "]"),
    ("!", ""),
    ("- ", ""),
    ("*", ""),
    ("x + ", ""),
    ("x && ", ""),
    ("x and ", ""),
    ("x ? x : ", ""),
    ("x = ", ""),
    ("x.", ""),
    ("", ".f()"),
    ("", "()"),
    ("", "[0]"),
];

fn nested_of(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Python => &[
            ("not ", ""),
            ("lambda: ", ""),
            ("1 if x else ", ""),
            ("x < ", ""),
            ("{1: ", "}"),
            ("await ", ""),
        ],
        Language::C => C_NESTED,
        Language::Cpp => CPP_NESTED,
        Language::JavaScript | Language::TypeScript => &[
            ("{a: ", "}"),
            ("() => ", ""),
            ("() => { return ", "}"),
            ("function () { return ", "}"),
            ("`${", "}`"),
            ("<a>", "</a>"),
            ("await ", ""),
            ("x?.", ""),
            ("1; if (x) ", ""),
            ("1; try { ", "} catch (e) {}"),
            ("1; switch (x) { case 1: ", "}"),
            ("1; const {a: ", "} = y"),
        ],
        Language::Go => &[
            ("T{a: ", "}"),
            ("func() { y = ", "}"),
            ("[]T{", "}"),
            ("map[a]", "{}"),
            ("1\nfunc g() { if x { ", "} }"),
            ("1\ntype t struct { a ", "}"),
        ],
        Language::Java => &[
            ("(int) ", ""),
            ("() -> ", ""),
            ("new B() { Object f() { return ", "; } }"),
            ("switch (x) { case 1 -> ", "; }"),
            ("1; if (x) ", ""),
            ("1; try { ", "} finally {}"),
            ("1; class B { ", "}"),
            ("1; @A(", ")"),
        ],
        Language::Ruby => &[
            ("{a: ", "}"),
            ("-> { ", "}"),
            ("f { |a| ", "}"),
            ("\"#{", "}\""),
            ("if x\n", "\nend"),
            ("case x\nwhen 1\n", "\nend"),
            ("begin\n", "\nrescue\nend"),
            ("def f(x)\n", "\nend"),
            ("class A\n", "\nend"),
            ("f { |(", ")| 1 }"),
            ("x ||= ", ""),
            ("", " if x"),
        ],
    }
}

const C_NESTED: &[(&str, &str)] = &[
    ("(int)", ""),
    ("&", ""),
    ("x->", ""),
    ("sizeof ", ""),
    ("1; if (x) ", ""),
    ("1; while (x) ", ""),
    ("1; switch (x) { case 1: ", "}"),
    ("1; { ", "}"),
    ("1; } struct a { ", "} b;"),
    ("1; } struct { int ", ";} b;"),
];

const CPP_NESTED: &[(&str, &str)] = &[
    ("[] { return ", "; }"),
    ("new a(", ")"),
    ("std::cout << ", ""),
    ("1; } namespace a { ", "}"),
    ("1; } class a { ", "};"),
];

/// Words, marks and spaces.
fn tokens(code: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let end = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        out.push(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// A small generator of numbers (xorshift): the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
