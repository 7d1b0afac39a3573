//! The oracle from outside: small programs, broken input, and what must not change a verdict.

mod properties;
mod robustness;
mod ruby;
mod syntax;

use std::collections::BTreeSet;

use hardn_oracle::{Mode, Oracle};
use hardn_types::{Judge, Language};

/// The classes found in a program.
#[track_caller]
fn classes(code: &str, language: Language, mode: Mode) -> BTreeSet<u16> {
    let analysis = Oracle::shared().analyse(code, language, mode);
    assert_eq!(analysis.not_analysed, None, "{code}");
    analysis.findings.iter().filter_map(|finding| finding.cwe.first()).map(|cwe| cwe.0).collect()
}

#[track_caller]
fn check(language: Language, mode: Mode, expected: &[u16], code: &str) {
    let expected: BTreeSet<u16> = expected.iter().copied().collect();
    assert_eq!(classes(code, language, mode), expected, "{mode} {language}\n{code}");
}

#[test]
fn python_programs() {
    use Language::Python;
    use Mode::{Faithful, Snippet};
    // A dead branch does no harm.
    check(Python, Snippet, &[], "import os\ndef f(x):\n    if False:\n        os.system(x)\n");
    check(
        Python,
        Snippet,
        &[],
        "import os\nDEBUG = 0\ndef f(x):\n    if DEBUG == 1:\n        os.system(x)\n",
    );
    // What one branch cleans, the other does not.
    check(
        Python,
        Snippet,
        &[78],
        "import os\ndef f(x, y):\n    if y:\n        x = 'a'\n    os.system('ls ' + x)\n",
    );
    // A sanitizer for markup does not help a shell.
    check(
        Python,
        Snippet,
        &[78],
        "import os, html\ndef f(x):\n    os.system('ls ' + html.escape(x))\n",
    );
    // A check in a function of its own.
    check(
        Python,
        Snippet,
        &[],
        "import os\ndef ok(x):\n    return x.isalnum()\ndef f(x):\n    if not ok(x):\n        raise ValueError\n    os.system('ls ' + x)\n",
    );
    check(
        Python,
        Snippet,
        &[],
        "import os\ndef need(x):\n    if not x.isalnum():\n        raise ValueError\ndef f(x):\n    need(x)\n    os.system('ls ' + x)\n",
    );
    // A clean-up in a function of its own.
    check(
        Python,
        Snippet,
        &[],
        "import os, shlex\ndef clean(x):\n    return shlex.quote(x)\ndef f(x):\n    os.system('ls ' + clean(x))\n",
    );
    // Helpers that are only called with constants are no entry points.
    check(
        Python,
        Snippet,
        &[],
        "import os\ndef run(x):\n    os.system(x)\ndef f():\n    run('ls')\n",
    );
    // Fields that the constructor fills.
    check(
        Python,
        Snippet,
        &[78],
        "import os\nclass A:\n    def __init__(self, x):\n        self.x = x\n    def f(self):\n        os.system('ls ' + self.x)\n",
    );
    check(
        Python,
        Snippet,
        &[],
        "import os\nclass A:\n    WAY = 'up'\n    def f(self):\n        os.system('go ' + self.WAY)\n",
    );
    // Aliases of modules and functions.
    check(Python, Faithful, &[78], "import os as o\nfrom sys import argv as a\no.system(a[1])\n");
    // Tainted keys of constant tables are harmless, tainted values are not.
    check(Python, Snippet, &[], "import os\nT = {'a': 'x'}\ndef f(k):\n    os.system(T[k])\n");
    // A loop that checks every character.
    check(
        Python,
        Snippet,
        &[],
        "import os\ndef f(x):\n    for c in x:\n        if c not in 'abc':\n            return\n    os.system('ls ' + x)\n",
    );
    // `x = not x` asks for itself.
    check(Python, Snippet, &[], "def f(x):\n    x = not x\n    if x:\n        return 1\n");
}

#[test]
fn c_programs() {
    use Language::{C, Cpp};
    use Mode::Snippet;
    // A goto to the clean-up frees once.
    check(
        C,
        Snippet,
        &[],
        "int f(int n) {\n char *p = malloc(10);\n if (!p) return -1;\n if (n) goto out;\n p[0] = 1;\nout:\n free(p);\n return 0;\n}\n",
    );
    // The loop ends one past the last, where the mark goes.
    check(
        C,
        Snippet,
        &[],
        "void f(const char *s) {\n char b[8];\n int i;\n for (i = 0; i < 7 && s[i]; i++) b[i] = s[i];\n b[i] = 0;\n}\n",
    );
    check(
        C,
        Snippet,
        &[787],
        "void f(const char *s) {\n char b[8];\n int i;\n for (i = 0; i < 8 && s[i]; i++) b[i] = s[i];\n b[i] = 0;\n}\n",
    );
    // Each switch case has its own state.
    check(
        C,
        Snippet,
        &[],
        "void f(int k, char *p) {\n switch (k) {\n case 1: free(p); break;\n case 2: use(p); break;\n }\n}\n",
    );
    check(
        Cpp,
        Snippet,
        &[416],
        "struct A { int n; };\nint f(A *a) {\n delete a;\n return a->n;\n}\n",
    );
    // Faithful mode leaves parameters alone.
    check(C, Mode::Faithful, &[], "int f(int *a, int i) { return a[i]; }\n");
}

#[test]
fn java_programs() {
    use Language::Java;
    use Mode::{Faithful, Snippet};
    let run = |body: &str| {
        format!(
            "class A extends HttpServlet {{ private String kept; {body} void run(String s) throws Exception {{ Runtime.getRuntime().exec(\"/bin/sh -c \" + s.trim()); }} }}"
        )
    };
    for (expected, body) in [
        // A call of a method of the class, by its bare name and on `this`.
        (true, "void doGet(HttpServletRequest r) throws Exception { run(r.getParameter(\"a\")); }"),
        (
            true,
            "void doGet(HttpServletRequest r) throws Exception { this.run(r.getParameter(\"a\")); }",
        ),
        (
            false,
            "void doGet(HttpServletRequest r, Other o) throws Exception { o.run(r.getParameter(\"a\")); }",
        ),
        // Overloads differ in the number of parameters.
        (
            false,
            "void run(String a, int b) {} void doGet(HttpServletRequest r) { run(r.getParameter(\"a\"), 1); }",
        ),
        // Fields without `this`, and parameters that hide them.
        (
            true,
            "void doGet(HttpServletRequest r) throws Exception { kept = r.getParameter(\"a\"); run(this.kept); }",
        ),
        (
            false,
            "void doGet(HttpServletRequest r, String kept) throws Exception { this.kept = r.getParameter(\"a\"); run(kept); }",
        ),
        // Lambdas, anonymous classes and method references see what is around them.
        (
            true,
            "void doGet(HttpServletRequest r) { String a = r.getParameter(\"a\"); start(() -> run(a)); }",
        ),
        (
            true,
            "void doGet(HttpServletRequest r) { String a = r.getParameter(\"a\"); start(new Runnable() { public void run() { A.this.run(a); } }); }",
        ),
        (
            true,
            "void each(Consumer<String> f, HttpServletRequest r) { f.accept(r.getParameter(\"a\")); } void doGet(HttpServletRequest r) { each(this::run, r); }",
        ),
        // Statements of every kind.
        (
            true,
            "void doGet(HttpServletRequest r) throws Exception { for (String a : r.getParameterValues(\"a\")) run(a); }",
        ),
        (
            true,
            "void doGet(HttpServletRequest r) throws Exception { try (BufferedReader b = r.getReader()) { run(b.readLine()); } catch (IOException e) { } }",
        ),
        (
            true,
            "void doGet(HttpServletRequest r, int k) throws Exception { String a = switch (k) { case 1 -> \"x\"; default -> r.getParameter(\"a\"); }; run(a); }",
        ),
        (
            false,
            "void doGet(HttpServletRequest r) throws Exception { String a = r.getParameter(\"a\"); switch (a) { case \"x\": run(a); break; default: } }",
        ),
        (
            true,
            "void doGet(HttpServletRequest r) throws Exception { Object a = r.getParameter(\"a\"); if (a instanceof String b) { run(b); } }",
        ),
        (
            false,
            "void doGet(HttpServletRequest r) throws Exception { String a = r.getParameter(\"a\"); if (!a.equals(\"x\")) { return; } run(a); }",
        ),
        // Numbers do no harm.
        (
            false,
            "void doGet(HttpServletRequest r) throws Exception { int a = Integer.parseInt(r.getParameter(\"a\")); run(\"\" + a); }",
        ),
        // Annotated parameters.
        (true, "@GetMapping(\"/a\") void get(@RequestParam String a) throws Exception { run(a); }"),
        (false, "void get(String a) throws Exception { run(a); }"),
    ] {
        // The joined command line is wrong by itself, so the flow rule is asked for.
        let flow = Oracle::shared().analyse(&run(body), Java, Faithful);
        let flows =
            flow.findings.iter().any(|finding| finding.rule == "java/cwe-078-shell-command");
        assert_eq!(flows, expected, "{body}");
    }
    // Settings of an object stay with it, through its factory and a method of the file.
    let parse = |feature: &str| {
        format!(
            "class A {{ DocumentBuilderFactory make() throws Exception {{ DocumentBuilderFactory f = DocumentBuilderFactory.newInstance(); f.setFeature(\"{feature}\", true); return f; }} void read(InputStream in) throws Exception {{ DocumentBuilder b = make().newDocumentBuilder(); b.parse(in); }} }}"
        )
    };
    check(Java, Snippet, &[], &parse("http://apache.org/xml/features/disallow-doctype-decl"));
    check(Java, Snippet, &[611], &parse("http://example.org/other"));
    // A bare method, and one in broken code.
    let code = "Object read(InputStream in) throws Exception { return new ObjectInputStream(in).readObject(); }";
    check(Java, Snippet, &[502], code);
    check(Java, Snippet, &[502], &format!("class A {{ int x = ; {code} void g( {{ }} "));
    // Renaming and comments change nothing.
    let code = "class A { byte[] read(Path base, String name) throws IOException { Path p = base.resolve(name); return Files.readAllBytes(p); } }";
    let renamed = code
        .replace("name", "safe")
        .replace("read(", "good(")
        .replace(" p", " q")
        .replace("(p)", "(q)");
    let padded = code.replace("return", "/* checked */ if (false) { p = base; } int n = 1; return");
    for variant in [code, &renamed, &padded] {
        check(Java, Snippet, &[22], variant);
    }
}

#[test]
fn go_programs() {
    use Language::Go;
    use Mode::{Faithful, Snippet};
    let handler = |imports: &str, body: &str| {
        format!(
            "package main\nimport (\"net/http\"; {imports})\nfunc f(w http.ResponseWriter, r *http.Request) {{\n{body}\n}}\n"
        )
    };
    let exec = "\"os/exec\"";
    for (imports, expected, body) in [
        // The type of a parameter says where data enters, through fields, calls and pointers.
        (exec, &[78][..], "qq := r.URL.Query()[\"n\"][0]\nexec.Command(qq)"),
        (exec, &[78], "p := &r\nexec.Command((*p).FormValue(\"n\"))"),
        // Of several results the first carries the data, the last says whether all went well.
        (exec, &[78], "c, err := r.Cookie(\"n\")\nif err != nil { return }\nexec.Command(c.Value)"),
        (exec, &[], "_, err := r.Cookie(\"n\")\nexec.Command(err.Error())"),
        // Loops, switches, closures, deferred calls.
        (exec, &[78], "for _, qq := range r.Form[\"n\"] { exec.Command(qq) }"),
        (exec, &[78], "switch qq := r.FormValue(\"n\"); { case qq != \"\": exec.Command(qq) }"),
        (exec, &[78], "qq := r.FormValue(\"n\")\ndefer func() { exec.Command(qq) }()"),
        (
            exec,
            &[78],
            "var v any = r.FormValue(\"n\")\nswitch qq := v.(type) { case string: exec.Command(qq) }",
        ),
        // A list of allowed values, asked directly and with the second result.
        (
            exec,
            &[],
            "qq := r.FormValue(\"n\")\nok := map[string]bool{\"a\": true}\nif ok[qq] { exec.Command(qq) }",
        ),
        (
            exec,
            &[],
            "qq := r.FormValue(\"n\")\nok := map[string]int{\"a\": 1}\nif _, in := ok[qq]; !in { return }\nexec.Command(qq)",
        ),
        (exec, &[], "qq := r.FormValue(\"n\")\nswitch qq { case \"a\", \"b\": exec.Command(qq) }"),
        // Numbers do no harm.
        (
            "\"os/exec\"; \"strconv\"",
            &[],
            "n, _ := strconv.Atoi(r.FormValue(\"n\"))\nexec.Command(strconv.Itoa(n))",
        ),
        // Other fields of a struct stay clean.
        (exec, &[], "s := struct{ A, B string }{}\ns.A = r.FormValue(\"n\")\nexec.Command(s.B)"),
        // Another name for a package.
        ("run \"os/exec\"", &[78], "run.Command(r.FormValue(\"n\"))"),
        // A page is escaped by one template package and not by the other.
        (
            "\"html/template\"",
            &[],
            "t := template.Must(template.New(\"t\").Parse(\"{{.}}\"))\nt.Execute(w, r.FormValue(\"n\"))",
        ),
        (
            "\"text/template\"",
            &[79],
            "t := template.Must(template.New(\"t\").Parse(\"{{.}}\"))\nt.Execute(w, r.FormValue(\"n\"))",
        ),
    ] {
        check(Go, Faithful, expected, &handler(imports, body));
        // Renamed, with dead code before it.
        let renamed = body.replace("qq", "verySafeValue");
        let dead = format!("unused := 1\n_ = unused\nif false {{ return }}\n{renamed}");
        check(Go, Faithful, expected, &handler(imports, &dead));
    }
    // Methods, fields of known types, helpers.
    let code = "package main\nimport (\"database/sql\"; \"net/http\")\ntype server struct { db *sql.DB }\nfunc id(r *http.Request) string { return r.FormValue(\"id\") }\nfunc (s *server) get(r *http.Request) { s.db.Query(\"SELECT \" + id(r)) }\n";
    check(Go, Faithful, &[89], code);
    // Bare functions: parameters count, missing imports do no harm.
    let code = "func find(db *sql.DB, name string) { db.Query(\"SELECT '\" + name + \"'\") }";
    check(Go, Snippet, &[89], code);
    check(Go, Faithful, &[], code);
    check(
        Go,
        Snippet,
        &[],
        "func find(db *sql.DB, n int) { db.Query(fmt.Sprintf(\"SELECT %d\", n)) }",
    );
}

#[test]
fn javascript_programs() {
    use Language::{JavaScript, TypeScript};
    let route = |body: &str| {
        format!("const app = require('express')();\napp.get('/x', (req, res) => {{ {body} }});\n")
    };
    let run = "const cp = require('child_process'); ";
    let cases: [(&[u16], String); 16] = [
        (&[78], route(&format!("{run}cp.exec('ls ' + req.query.a);"))),
        (&[], route(&format!("{run}cp.execFile('ls', [req.query.a]);"))),
        // Patterns, closures, loops and fields hand taint on.
        (&[78], route(&format!("{run}const {{ a: {{ b = 1 }} }} = req.body; cp.exec(`ls ${{b}}`);"))),
        (&[78], route(&format!("{run}const go = (c) => cp.exec('ls ' + c); go(req.query.a);"))),
        (&[], route(&format!("{run}const go = (c) => cp.exec('ls ' + c); go('home');"))),
        (&[78], route(&format!("{run}for (const [k, v] of Object.entries(req.body)) cp.exec(v);"))),
        (&[78], route(&format!("{run}[req.query.a].map((x) => x.trim()).forEach((x) => cp.exec(x));"))),
        (&[78], route(&format!("{run}const o = {{}}; o.cmd = req.query.a; cp.exec(o.cmd ?? 'ls');"))),
        // Checks clean.
        (&[], route(&format!("{run}if (['a', 'b'].includes(req.query.a)) cp.exec('ls ' + req.query.a);"))),
        (&[], route(&format!("{run}if (/^[a-z]+$/.test(req.query.a)) cp.exec('ls ' + req.query.a);"))),
        (&[], route(&format!("{run}const n = parseInt(req.query.a); cp.exec('ls ' + n);"))),
        // A handler is known by what it does, under any names.
        (&[79], "module.exports = (a, b) => { b.send('<p>' + a.query.c); };".to_owned()),
        (&[79], "module.exports = { go(p, q) { q.status(500).send(p.params.c); } };".to_owned()),
        (&[915], "function f(a, b) { for (const k in b) { if (a[k]) f(a[k], b[k]); else a[k] = b[k]; } }".to_owned()),
        (&[116], "function f(a) { return a.replace('\"', ''); }".to_owned()),
        (&[94], "import { Request } from 'express';\nclass A { run(r: Request) { eval(r.body.code); } }".to_owned()),
    ];
    for (number, (expected, code)) in cases.iter().enumerate() {
        let language = if number == 15 { TypeScript } else { JavaScript };
        let found = classes(code, language, Mode::Faithful);
        let expected: BTreeSet<u16> = expected.iter().copied().collect();
        assert!(
            expected.is_subset(&found) && (found.is_empty() || !expected.is_empty()),
            "{found:?} in {code}"
        );
    }
}

#[test]
fn hostile_javascript_neither_panics_nor_hangs() {
    let calls = |n: usize| {
        format!(
            "const f0 = (x) => x;\nfunction g() {{ {} }}\n",
            "const f1 = () => { f1(); f1(); }; f1(); ".repeat(n)
        )
    };
    for code in [
        format!("x = {}1{};", "(".repeat(5000), ")".repeat(5000)),
        format!("x = {}", "[a, {b: ".repeat(3000)),
        "a => ".repeat(3000),
        format!("f({})", "f(() => ".repeat(2000)),
        format!("const {} = x;", "{a: ".repeat(2000)),
        calls(60),
        "`${`${`${".repeat(500),
        "<a><b></a>{<".repeat(500),
        "class { static { this.x = class { } } } \u{0} \u{1F600}".to_owned(),
    ] {
        for language in [Language::JavaScript, Language::TypeScript] {
            for mode in [Mode::Faithful, Mode::Snippet] {
                Oracle::shared().analyse(&code, language, mode);
            }
        }
    }
}

#[test]
fn broken_code_is_read_as_far_as_it_goes() {
    let code = "import os\ndef f(x):\n    os.system('ls ' + x)\n\ndef g(:\n    return (\n";
    assert!(classes(code, Language::Python, Mode::Snippet).contains(&78));
    let code =
        "static int f(const char *s) {\n char b[4];\n strcpy(b, s);\n MACRO(x) {\n }\n return 0;\n";
    assert!(classes(code, Language::C, Mode::Snippet).contains(&787));
    for (code, language) in
        [(")))) ((( {{{ ]]] @@", Language::Python), ("%%% ### @@@ !!", Language::C)]
    {
        let analysis = Oracle::shared().analyse(code, language, Mode::Snippet);
        assert!(analysis.not_analysed.is_some() && analysis.findings.is_empty(), "{code}");
    }
    let analysis = Oracle::shared().judge("fn main() {}", Language::Go);
    assert!(analysis.not_analysed.is_some_and(|why| why.contains("go")));
}

#[test]
fn hostile_input_neither_panics_nor_hangs() {
    let deep_python = format!("x = {}1{}\n", "(".repeat(5000), ")".repeat(5000));
    let deep_c = format!("int f(int x) {{ return {}x{}; }}", "(".repeat(5000), ")".repeat(5000));
    let deep_go = format!("var x = {}1{}\n", "f(&T{a: ".repeat(2000), "})".repeat(2000));
    let chain = format!("def f(x):\n    return {}\n", vec!["x"; 5000].join(" + "));
    let blocks = format!("void f(void) {{ {} {} }}", "{".repeat(3000), "}".repeat(3000));
    let long = format!("a = '{}'\n", "é".repeat(1_000_000));
    let deep_java = format!(
        "class A {{ int f(int x) {{ return {}x{}; }} }}",
        "(".repeat(5000),
        ")".repeat(5000)
    );
    let joined = format!("class A {{ String s = {}; }}", vec!["\"x\" + x"; 5000].join(" + "));
    let nested =
        format!("class A {{ Object o = {} null; }}", "new B() { Object o() { return ".repeat(60));
    for (code, language) in [
        (deep_java.as_str(), Language::Java),
        (joined.as_str(), Language::Java),
        (nested.as_str(), Language::Java),
        (deep_python.as_str(), Language::Python),
        (deep_c.as_str(), Language::C),
        (chain.as_str(), Language::Python),
        (blocks.as_str(), Language::Cpp),
        (long.as_str(), Language::Python),
        ("\u{feff}\r\n\t\0", Language::C),
        ("", Language::Python),
        (deep_go.as_str(), Language::Go),
        ("package \u{feff}\0 func (", Language::Go),
    ] {
        Oracle::shared().analyse(code, language, Mode::Snippet);
    }
    // Every prefix of a program, cut anywhere.
    let code = "class É:\n    def f(self, ü):\n        return f\"<b>{ü!r:>{3}}</b>\" % (ü,) if ü else [c for c in ü]\n";
    for (end, _) in code.char_indices() {
        Oracle::shared().analyse(&code[..end], Language::Python, Mode::Snippet);
    }
    let code = "@A(b = 1) class É<T> extends F { static int[] n = {1}; É(T... ü) { this(ü); } Object f() throws E { for (var x : y) { do { x += switch (x) { case 1 -> { yield 2; } default -> 3; }; } while (!(x instanceof Integer i)); } return new G<>() { void h() { k(É::new, (a, b) -> a ? b : \"\"\"\n q\"\"\"); } }; } }\n";
    for (end, _) in code.char_indices() {
        Oracle::shared().analyse(&code[..end], Language::Java, Mode::Snippet);
    }
    let code = "struct s { char b[4]; };\nint f(struct s *p, int n) { for (;;) { if (n > 3) goto x; p->b[n++] = 'a'; } x: free(p); return p->b[0]; }\n";
    for end in 0..code.len() {
        Oracle::shared().analyse(&code[..end], Language::Cpp, Mode::Snippet);
    }
    let code = "type s[T any] struct { *t; a, b []int }\nfunc (p *s[T]) f(x ...string) (n int, err error) { l: for i, c := range x { switch y := c.(type) { case int, nil: break l; default: fallthrough }; select { case v, ok := <-ch: go func() { m[k]++ }(v) }; return map[string]s{\"é\": {1, \"\\x41\\u00e9\"}}[x[:i]], *err } }\n";
    for (end, _) in code.char_indices() {
        Oracle::shared().analyse(&code[..end], Language::Go, Mode::Snippet);
    }
}

#[test]
fn the_same_code_has_the_same_findings() {
    let code = "import os\ndef show(name):\n    command = 'cat ' + name\n    os.system(command)\n";
    let first = Oracle::shared().analyse(code, Language::Python, Mode::Snippet);
    assert_eq!(first, Oracle::shared().analyse(code, Language::Python, Mode::Snippet));
    assert!(Oracle::shared().name().starts_with("hardn "));
}

#[test]
fn spans_count_code_points_and_traces_lead_to_them() {
    let code = "    def f(self, é):\n        s = 'ü' + é; eval(s)\n";
    let analysis = Oracle::shared().analyse(code, Language::Python, Mode::Snippet);
    let finding = &analysis.findings[0];
    assert_eq!((finding.span.line, finding.span.column, finding.span.end_column), (2, 27, 28));
    let first = finding.trace.first().unwrap();
    assert_eq!((first.span.line, first.span.column), (1, 17));
    assert_eq!(finding.trace.last().unwrap().span, finding.span);
}
